//! A plan for people: a sentence per step, and what would change in every file, without secrets.

use std::collections::BTreeMap;

use similar::TextDiff;

use super::{
    document::{Plan, PlannedStep, Section},
    facts::Facts,
    host_path::HostPath,
    redaction,
    step::{
        AwaitStep, Boot, Edge, FileStep, InstallStep, Layers, Proof, Rehearsal, Restart, Side, Step,
        TasksStep, UnitStep,
    },
};

/// Longest diff in bytes; what is longer is cut with a note.
pub const DIFF_LIMIT: usize = 64 * 1024;

impl Section {
    /// A heading for the steps of the section, of a plan under which the pods keep running or not.
    pub const fn heading(self, keeps_pods: bool) -> &'static str {
        match self {
            Self::Prepare => "While the node serves",
            Self::Switch if keeps_pods => "The upgrade (the pods keep running)",
            Self::Switch => "Critical section (after the drain)",
            Self::Settle => "Afterwards, before the commit",
            Self::Finish => "After the commit",
        }
    }
}

impl Plan {
    /// A sentence per step, in order.
    pub fn words(&self) -> Vec<String> {
        self.steps.iter().map(|step| sentence(&step.does)).collect()
    }

    /// The sections with the sentences of their steps, in order.
    pub fn sections(&self) -> Vec<(Section, Vec<String>)> {
        let mut sections: Vec<(Section, Vec<String>)> = Vec::new();
        for step in &self.steps {
            match sections
                .last_mut()
                .filter(|(section, _)| *section == step.section)
            {
                Some((_, words)) => words.push(sentence(&step.does)),
                None => sections.push((step.section, vec![sentence(&step.does)])),
            }
        }
        sections
    }
}

/// One step in words.
pub fn sentence(step: &Step) -> String {
    match step {
        Step::File(file) => file_sentence(file),
        Step::Link(link) => format!("Make {} a link to {}", link.path, link.to),
        Step::Unit(unit) => unit_sentence(unit),
        Step::Install(InstallStep::Archive(archive)) => format!(
            "Fetch {} ({}), verify it and unpack it into {}; it must say {}",
            redaction::public(&archive.url),
            archive.sha256.short(),
            archive.dir,
            archive.version
        ),
        Step::Install(InstallStep::Package(package)) => format!(
            "Install the package {} {} with what it needs, if that removes and upgrades nothing",
            package.name, package.version
        ),
        Step::Install(InstallStep::Program(program)) => {
            format!("Copy {} to {}", program.program, program.copy)
        }
        Step::Images(images) => {
            let count = images.names.len();
            let how = match &images.layers {
                Layers::Linked { .. } => "linking their layers, without a copy".to_owned(),
                Layers::Streamed { why } => format!("copied, because {why}"),
            };
            format!(
                "Carry {count} image{} from {} to {} ({how}); images that are already present and identical are skipped",
                if count == 1 { "" } else { "s" },
                images.from.runtime,
                images.to.runtime
            )
        }
        Step::Rehearse(rehearsal) => rehearsal_sentence(rehearsal),
        Step::RehearseDaemon(rehearsal) => format!(
            "Start {} {} next to the daemon that serves, rehearse a sandbox under it in the {} network, and end it",
            rehearsal.program,
            rehearsal.version,
            network(&rehearsal.sandbox)
        ),
        Step::StopPods(stop) => format!(
            "End the pods of {} (SIGTERM, at most {} s); when undone, those of {}",
            stop.source.runtime, stop.grace_limit_secs, stop.target.runtime
        ),
        Step::ClearPods(clear) => format!(
            "Remove what is left of the pods of {}, with their network state",
            clear.source.runtime
        ),
        Step::Tasks(tasks) => tasks_sentence(tasks),
        Step::Shims(shims) => format!(
            "(When undone: end the pods that only the newer {} can run on with, at most {} s each; the kubelet starts \
             them again)",
            shims.cri.runtime, shims.grace_limit_secs
        ),
        Step::Kubelet(kubelet) if kubelet.run => {
            "Start the kubelet; from here on the switch must be confirmed".to_owned()
        }
        Step::Kubelet(_) => "Stop the kubelet as soon as it is creating no pod, and hold it".to_owned(),
        Step::Await(wait) => await_sentence(wait),
    }
}

/// The network of the sandbox.
const fn network(rehearsal: &Rehearsal) -> &'static str {
    if rehearsal.pod_network { "pod" } else { "host's" }
}

fn tasks_sentence(tasks: &TasksStep) -> String {
    let runtime = tasks.cri.runtime;
    match (tasks.edge, tasks.arms) {
        (Edge::Opening, _) => format!(
            "Wait until no pod is being created (at most {} s), and note the containers that run under {runtime}",
            tasks.quiet_within_secs
        ),
        (Edge::Closing, true) => format!(
            "Check that the containers still run under {runtime}; from here on the switch must be confirmed"
        ),
        (Edge::Closing, false) => format!("Check that the containers still run under {runtime}"),
    }
}

fn rehearsal_sentence(rehearsal: &Rehearsal) -> String {
    let runtime = rehearsal.cri.runtime;
    match rehearsal.proof {
        Proof::Own | Proof::OwnBesideKubelet => format!(
            "Rehearse a sandbox under {runtime} in the {} network, and remove it",
            network(rehearsal)
        ),
        Proof::KubeletOrOwn => format!(
            "Check that a pod in the pod network has started under {runtime}; if there is none, rehearse a sandbox there"
        ),
        Proof::Kubelet { within_secs } => {
            format!(
                "Wait until a pod in the pod network has started under {runtime}, at most {within_secs} s"
            )
        }
    }
}

fn file_sentence(file: &FileStep) -> String {
    match (&file.planned_from, &file.want) {
        (None, Some(_)) => format!("Create {}", file.path),
        (Some(_), Some(_)) => format!("Change {}", file.path),
        (_, None) => format!("Remove {}", file.path),
    }
}

fn unit_sentence(step: &UnitStep) -> String {
    let unit = &step.unit;
    if step.restart == Restart::Backwards {
        return format!("(When undone: restart {unit}, after its old files are back)");
    }
    if step.restart == Restart::StoppedBackwards {
        return format!("(When undone: stop {unit}, until what it depends on is the old one again)");
    }
    if step.restart == Restart::StartedBackwards {
        return format!("(When undone: start {unit} again, if it was stopped)");
    }
    let mut parts = Vec::new();
    let restarts = step.restart.is_forwards();
    match step.active {
        Some(true) if restarts => parts.push("start or restart"),
        Some(true) => parts.push("start"),
        Some(false) => parts.push("stop"),
        None if restarts => parts.push("restart"),
        None => {}
    }
    match step.boot {
        Some(Boot::Enabled) => parts.push("enable"),
        Some(Boot::Disabled) => parts.push("disable"),
        Some(Boot::Masked) => parts.push("mask"),
        None => {}
    }
    let mut sentence = format!("{} {unit}", parts.join(" and "));
    if let Some(first) = sentence.get_mut(0..1) {
        first.make_ascii_uppercase();
    }
    sentence
}

fn await_sentence(wait: &AwaitStep) -> String {
    let runtime = wait.runtime.runtime;
    let what = match &wait.kubelet {
        Some(_) => format!("the kubelet is healthy under {runtime}"),
        None => format!("{runtime} answers"),
    };
    match wait.side {
        Side::Target => format!("Wait until {what} (at most {} s)", wait.within_secs),
        Side::Source => format!("(When undone: wait until {what}, at most {} s)", wait.within_secs),
    }
}

/// What would change in every file, as a unified diff, cut at [`DIFF_LIMIT`]. Of each
/// line it shows what [`redaction::line`] lets through. Files that are there for the time of the switch alone are named, not shown.
pub fn diff(plan: &Plan, facts: &Facts) -> String {
    let mut order: Vec<&HostPath> = Vec::new();
    let mut last: BTreeMap<&HostPath, Option<&str>> = BTreeMap::new();
    for step in &plan.steps {
        if let Step::File(file) = &step.does {
            if !last.contains_key(&file.path) {
                order.push(&file.path);
            }
            last.insert(&file.path, file.want.as_ref().map(|want| want.text.as_str()));
        }
    }
    let mut text = String::new();
    for path in order {
        let old = facts.text_at(path).map(|file| file.text.as_str());
        let new = last.get(path).copied().flatten();
        if old == new {
            let why = if steps_for(plan, path) == 1 {
                "its text stays, and only root can read it afterwards"
            } else {
                "for the time of the switch alone"
            };
            text.push_str(&format!("# {path}: {why}\n"));
            continue;
        }
        // No digest: beside the redacted text it would tell whether a guess of what is hidden is right.
        let side = |text: Option<&str>| text.map_or("/dev/null", |_| path.as_str());
        text.push_str(&format!("--- {}\n+++ {}\n", side(old), side(new)));
        text.push_str(&hunks(old.unwrap_or_default(), new.unwrap_or_default()));
    }
    for step in &plan.steps {
        if let Step::Link(link) = &step.does {
            text.push_str(&format!("# {}: a link to {}\n", link.path, link.to));
        }
    }
    cut(text)
}

/// How many steps change a file.
fn steps_for(plan: &Plan, path: &HostPath) -> usize {
    let is_it = |step: &&PlannedStep| matches!(&step.does, Step::File(file) if file.path == *path);
    plan.steps.iter().filter(is_it).count()
}

/// The lines that differ, with three around them: compared as they are, and shown as anybody may read them.
fn hunks(old: &str, new: &str) -> String {
    let diff = TextDiff::from_lines(old, new);
    let mut text = String::new();
    for hunk in diff.unified_diff().context_radius(3).iter_hunks() {
        text.push_str(&format!("{}\n", hunk.header()));
        for change in hunk.iter_changes() {
            let shown = redaction::line(change.value().trim_end_matches(['\n', '\r']));
            text.push_str(&format!("{}{shown}\n", change.tag()));
            if change.missing_newline() {
                text.push_str("\\ No newline at end of file\n");
            }
        }
    }
    text
}

fn cut(mut text: String) -> String {
    const NOTE: &str = "\n[cut here; `transship node plan` on the node prints the whole]\n";
    if text.len() > DIFF_LIMIT {
        let mut end = DIFF_LIMIT - NOTE.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(NOTE);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_diff_is_cut_with_a_note() {
        let text = cut("ä".repeat(DIFF_LIMIT));
        assert!(text.len() <= DIFF_LIMIT && text.ends_with("prints the whole]\n"));
    }
}
