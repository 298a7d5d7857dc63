# journal-reaches.pl ROOT MOMENT MILLISECONDS SECONDS: waits until a journal of the executor below ROOT, a node's root as
# this host sees it, reaches a moment of a migration that begins after this program, and so many milliseconds more.
# Moments: step:N (the step with this index is begun), drain (what is done while the node serves is done), armed (the
# commit is awaited), undo:N (N steps are undone); started:KIND, done:KIND, undone:KIND (so it is told of a step of this kind, as
# plan.json calls them, for the first time). Fails when the migration ends first, or the seconds are over.
use strict;
use warnings;
use Time::HiRes qw(sleep time);

my ($root, $moment, $delay, $seconds) = @ARGV;
my ($kind, $number) = $moment =~ /^(\w+)(?::(\w+))?$/ or die "no moment: $moment\n";
# Journals that are there belong to earlier migrations; what is undone of them later is a line that they have not yet.
my %read = map { $_ => -s $_ } journals();
my $undone = 0;
my $end = time + $seconds;

while (time < $end) {
    for my $journal (journals()) {
        my $from = $read{$journal} // 0;
        next if (-s $journal // 0) <= $from;
        open my $file, '<', $journal or next;
        seek $file, $from, 0;
        while (my $line = <$file>) {
            last unless $line =~ /\n$/;
            $read{$journal} += length $line;
            if (reached($journal, $line)) {
                sleep $delay / 1000;
                exit 0;
            }
            exit 3 if $line =~ /"event":"(committed|rolledBack|broken)"/;
        }
    }
    sleep 0.01;
}
exit 4;

sub journals { return glob "$root/var/lib/transship/*/journal" }

sub reached {
    my ($journal, $line) = @_;
    my ($event) = $line =~ /"event":"(\w+)"/ or return 0;
    my $step = $line =~ /"step":(\d+)/ ? $1 : -1;
    $undone++ if $event eq 'undone';
    return $event eq $kind && $step >= 0 && kind_of($journal, $step) eq $number if $kind =~ /^(started|done|undone)$/;
    return $kind eq 'step' ? $event eq 'started' && $step == $number
        : $kind eq 'drain' ? $event eq 'done' && $step == prepared($journal) - 1
        : $kind eq 'armed' ? $event eq 'armed'
        : $kind eq 'undo' ? ($number ? $event eq 'undone' : $event =~ /^(reverting|failed)$/) && $undone == $number
        : die "no moment: $moment\n";
}

# How many steps of the plan beside the journal belong to its first section.
sub prepared { return scalar(() = plan_of(@_) =~ /"section":\s*"prepare"/g) }

# What the plan beside the journal calls the step with this index.
sub kind_of {
    my ($journal, $step) = @_;
    return (plan_of($journal) =~ /"step":\s*"(\w+)"/g)[$step] // '';
}

sub plan_of {
    my ($journal) = @_;
    open my $file, '<', $journal =~ s/journal$/plan.json/r or return '';
    local $/;
    return scalar <$file>;
}
