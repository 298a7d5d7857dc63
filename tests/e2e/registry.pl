# A registry on the loopback that takes whatever is pushed, so that Docker learns the digest of an image. It keeps
# nothing.
use strict;
use warnings;
use IO::Socket::INET;
use Socket qw(MSG_PEEK);

my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 5000, Listen => 5, ReuseAddr => 1) or die $!;
$SIG{CHLD} = 'IGNORE';
while (my $client = $listener->accept) {
    next if fork;
    $SIG{CHLD} = 'DEFAULT';
    recv $client, my $first, 1, MSG_PEEK;
    exit unless $first =~ /[A-Z]/;    # TLS, which Docker tries first
    while (defined(my $request = <$client>)) {
        my ($method, $path) = split ' ', $request;
        my $body = body($client);
        my @answer = $method eq 'POST' || $method eq 'PATCH' ? ('202 Accepted', 'Location: /v2/upload', 'Range: 0-0')
            : $method eq 'PUT' ? ('201 Created', 'Docker-Content-Digest: sha256:' . sha256($body))
            : ('200 OK');
        my $length = $method eq 'HEAD' ? 1 : 0;
        print $client join("\r\n", "HTTP/1.1 $answer[0]", @answer[1 .. $#answer], "Content-Length: $length", '', '');
    }
    exit;
}

# Reads the headers and the body of a request.
sub body {
    my ($client) = @_;
    my ($length, $chunked, $body) = (0, 0, '');
    while (defined(my $line = <$client>)) {
        last if $line =~ /^\r?\n/;
        $length = $1 if $line =~ /^Content-Length:\s*(\d+)/i;
        $chunked = 1 if $line =~ /^Transfer-Encoding:\s*chunked/i;
    }
    read $client, $body, $length if $length;
    while ($chunked) {
        my $size = hex(<$client> =~ s/\s//gr);
        read $client, $body, $size + 2;    # with its end of line
        last unless $size;
    }
    return $body;
}

sub sha256 {
    my ($bytes) = @_;
    my $file = "/tmp/manifest.$$";
    open my $out, '>', $file or die $!;
    print $out $bytes;
    close $out;
    my ($digest) = split ' ', `sha256sum $file`;
    unlink $file;
    return $digest;
}
