//! What is planned on every host: snapshots in words, and hosts and requests that must be refused.

mod arrival;
mod cluster;
mod containers;
mod every_host;
mod never_panics;
mod refusals;
mod secrets;

use std::collections::BTreeSet;

use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;
use transship::{
    api::request::{CgroupDriverChoice, DrainMode, Origin, Runtime, Transfer},
    edit::{flags, yaml},
    plan::{
        digest::Digest,
        facts::{Container, Facts, Image, Layout, MaybeFile, OpenAttempt, Prerequisites, TextFile},
        finding::{Finding, Severity},
        host_path::HostPath,
        kubelet_arguments,
        kubelet_settings::Settings,
        step::{Boot, FileStep, Proof, Step},
        words,
    },
    planner::{
        plan,
        request::{Outcome, Request, Verdict},
    },
};

use crate::{
    fixtures,
    lab::{LAB, blocking, engine, with_pods},
};

fn in_words(facts: &Facts, outcome: &Outcome) -> String {
    let mut text = String::new();
    for finding in &outcome.findings {
        let severity = format!("{:?}", finding.severity);
        text.push_str(&format!(
            "{severity:5} {}: {}\n      {}\n",
            finding.code, finding.message, finding.remedy
        ));
    }
    match &outcome.verdict {
        Verdict::Blocked | Verdict::Held(_) => text.push_str("\nBlocked: nothing is touched.\n"),
        Verdict::AlreadyThere => text.push_str("\nAlready there: nothing is to be done.\n"),
        Verdict::Ready(plan) => {
            for (section, sentences) in plan.sections() {
                text.push_str(&format!("\n{}:\n", section.heading(plan.keeps_pods())));
                sentences
                    .iter()
                    .for_each(|sentence| text.push_str(&format!("  {sentence}\n")));
            }
            text.push('\n');
            text.push_str(&words::diff(plan, facts));
        }
    }
    text
}

fn text(file: &mut TextFile, text: &str) {
    file.text = text.to_owned();
    file.digest = Digest::of(text);
}

fn config(facts: &mut Facts, new: &str) {
    let maybe = &mut facts.containerd.as_mut().unwrap().config;
    maybe.file = Some(TextFile {
        path: maybe.path.clone(),
        text: new.into(),
        digest: Digest::of(new),
        mode: 0o644,
    });
}

fn flags(facts: &mut Facts, new: &str) {
    text(
        &mut facts.kubelet.as_mut().unwrap().unit.environment_files[0],
        new,
    );
}

fn container(name: &str, mount: Option<&str>, facts: &mut Facts) {
    let containers = &mut engine(facts).store.containers;
    let pod = mount.and_then(|_| containers[0].pod.clone());
    containers.push(Container {
        id: name.into(),
        name: name.into(),
        image_id: containers[0].image_id.clone(),
        running: true,
        pod,
        mounts: mount.into_iter().map(str::to_owned).collect(),
        no_new_privileges: false,
        of_job: false,
    });
}
