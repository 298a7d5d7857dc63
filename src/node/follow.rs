//! Watches an executor at work: a line per step with its time, until it is over or waits for a person.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use jiff::{Timestamp, tz::TimeZone};

use super::{
    confirm::{self, Waiting},
    pods,
};
use crate::{
    console,
    executor::{
        command,
        control::{Dir, Order},
        journal::{Event, PartState, Record},
        progress::{self, State},
        step::Host,
        unit::{self, UNIT},
    },
    host::{bus::SystemBus, files::Files, own_binary},
    plan::{
        document::{Plan, PlannedStep},
        facts::{Facts, INSTANCE_CONFIG},
        step::Step,
    },
    runtime::hosted::HostRuntimes,
};

/// How often the journal is read.
const LOOK: Duration = Duration::from_millis(300);
/// How long an executor that was started may take until its first line.
const BEGIN: Duration = Duration::from_secs(30);

/// Who confirms the switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Confirm {
    /// This command, as soon as runtime and kubelet are healthy, and the pods run that ran before.
    #[default]
    Auto,
    /// A person, with `transship node commit`.
    Manual,
}

/// Starts the executor for `dir`, and watches it.
///
/// # Errors
/// When it cannot be started or watched; a switch that was started goes on nevertheless.
pub async fn start(files: &Files, dir: &Dir, confirm: Confirm) -> anyhow::Result<ExitCode> {
    let systemd = SystemBus::connect().await?;
    let before = dir.journal()?.len();
    let binary = own_binary::settle(files, &command::own_binary()?)?;
    unit::install(files, &systemd, &binary, dir).await?;
    let alone = match confirm {
        Confirm::Auto => {
            "Ctrl-C ends the watching, and nobody but `transship node commit` confirms the switch then"
        }
        Confirm::Manual => "Ctrl-C only ends the watching",
    };
    println!("{UNIT} is at work; {alone}.\n");
    let plan = dir
        .plan()?
        .with_context(|| format!("{} holds no plan", dir.path()))?;
    let (mut shown, mut waited, mut asked) = (before, Duration::ZERO, false);
    let mut waiting: Option<Waiting> = None;
    loop {
        let records = dir.journal()?;
        for record in &records[shown.min(records.len())..] {
            if let Some(line) = line(record, &plan) {
                println!("{}  {line}", clock(record.at));
            }
        }
        shown = records.len();
        let progress = progress::fold(&records, &plan);
        match progress.state {
            // An order after the end has not been read yet.
            _ if shown == before && waited < BEGIN => {}
            State::Committed | State::Soaking { .. } if let Some(obstacles) = refused(&records[before..]) => {
                if progress.state.is_final() {
                    unit::ended(&systemd).await?;
                }
                println!("\nThe rollback was refused, and the node continues to serve. In its way:");
                obstacles.iter().for_each(|obstacle| println!("- {obstacle}"));
                return Ok(ExitCode::from(console::REFUSED));
            }
            State::Soaking { left } if !ends_soak(dir, &plan)? => {
                println!(
                    "\nThe switch is confirmed. New pods start on the old shim for {}, then {UNIT} commits by itself. \
                     Until then `transship node rollback` loses no pod; `transship node commit` commits now.",
                    progress::in_words(left)
                );
                return Ok(ExitCode::SUCCESS);
            }
            State::Committed => {
                unit::ended(&systemd).await?;
                summary(&records, &plan);
                return Ok(ExitCode::SUCCESS);
            }
            State::RolledBack => {
                unit::ended(&systemd).await?;
                if let Some(missing) = waiting.as_ref().and_then(Waiting::missing) {
                    println!("\nIt was not confirmed: {missing}");
                }
                println!("\nFiles, units and the runtime of the node are as they were before.");
                not_as_before(dir, &plan)?
                    .iter()
                    .for_each(|line| println!("{line}"));
                progress.left.iter().for_each(|left| println!("Note: {left}"));
                return Ok(ExitCode::from(console::FAILED));
            }
            State::Broken => {
                anyhow::bail!(
                    "{}",
                    progress
                        .error
                        .unwrap_or_else(|| format!("see `journalctl -u {UNIT}`"))
                )
            }
            State::AwaitingCommit { .. } if !asked && confirm == Confirm::Auto => {
                let waiting = match &mut waiting {
                    Some(waiting) => waiting,
                    none => none.insert(Waiting::new(files, dir, &plan)?),
                };
                if waiting.is_over().await {
                    asked = true;
                    confirm_when_healthy(files, &systemd, dir, &plan).await?;
                } else {
                    waiting.say(confirm::deadline(&records));
                }
            }
            State::AwaitingCommit { left } if !asked => {
                asked = true;
                println!(
                    "\nConfirm with `transship node commit` within {} s, or the node is rolled back.",
                    left.as_secs()
                );
            }
            _ => {}
        }
        if waited >= BEGIN && shown == before {
            anyhow::bail!("the executor does not begin; see `journalctl -u {UNIT}`");
        }
        tokio::time::sleep(LOOK).await;
        waited += LOOK;
    }
}

/// Whether a person ordered the end of a soak, one way or the other.
fn ends_soak(dir: &Dir, plan: &Plan) -> anyhow::Result<bool> {
    let digest = plan.digest();
    Ok(dir.ordered(Order::Undo, &digest)? || dir.ordered(Order::EndSoak, &digest)?)
}

/// What a switch that was rolled back has changed for good, a line each: what it stopped and nobody starts again.
///
/// # Errors
/// When the directory of the switch cannot be read.
pub fn not_as_before(dir: &Dir, plan: &Plan) -> anyhow::Result<Vec<String>> {
    let records = dir.journal()?;
    Ok(changed_for_good(&records, plan, dir.facts()?.as_ref()))
}

fn changed_for_good(records: &[Record], plan: &Plan, facts: Option<&Facts>) -> Vec<String> {
    let begun = |is: &dyn Fn(&Step) -> bool| {
        records.iter().any(|record| match &record.event {
            Event::Started { step, .. } => plan.steps.get(*step).is_some_and(|step| is(&step.does)),
            _ => false,
        })
    };
    let mut lines = Vec::new();
    if begun(&|step| matches!(step, Step::StopPods(_))) {
        lines.push(
            "Not as before: pods were stopped and started again; those with `restartPolicy: Never`, of Jobs too, have \
             failed."
                .to_owned(),
        );
    }
    let docker = facts.and_then(|facts| facts.docker.as_ref());
    let stops_docker = |step: &Step| match step {
        Step::Unit(unit) => {
            docker.is_some_and(|docker| unit.unit == docker.service.name) && unit.active == Some(false)
        }
        _ => false,
    };
    if begun(&stops_docker) {
        let engine = docker.and_then(|docker| docker.engine.as_ref());
        let containers = engine.into_iter().flat_map(|engine| &engine.store.containers);
        let names: Vec<&str> = containers
            .filter(|container| container.pod.is_none() && container.running)
            .map(|container| container.name.as_str())
            .collect();
        if !names.is_empty() {
            lines.push(format!(
                "Not as before: Docker was stopped; of its containers that are not Kubernetes' those without a restart \
                 policy stay stopped (`docker start NAME`): {}",
                names.join(", ")
            ));
        }
    }
    lines
}

/// Commits when runtime and kubelet are healthy now; the executor goes back by itself otherwise.
async fn confirm_when_healthy(
    files: &Files,
    systemd: &SystemBus,
    dir: &Dir,
    plan: &Plan,
) -> anyhow::Result<()> {
    let runtimes = HostRuntimes::new(files.clone());
    let host = Host {
        files,
        systemd,
        runtimes: &runtimes,
    };
    if let Some(target) = pods::target(plan) {
        host.healthy(target)
            .await
            .context("the switch is not confirmed, and will be rolled back")?;
    }
    Ok(dir.order(Order::Commit, &plan.digest())?)
}

/// What is in the way of the rollback that was ordered last.
fn refused(records: &[Record]) -> Option<&[String]> {
    records.iter().rev().find_map(|record| match &record.event {
        Event::Refused { obstacles } => Some(obstacles.as_slice()),
        _ => None,
    })
}

/// A record in words; nothing for those that only matter to the executor.
fn line(record: &Record, plan: &Plan) -> Option<String> {
    let all = plan.steps.len();
    let words = plan.words();
    let word = |step: &usize| words.get(*step).cloned().unwrap_or_default();
    Some(match &record.event {
        Event::Started { step, .. } => format!("[{:>2}/{all}] {}", step + 1, word(step)),
        Event::Part {
            key,
            state: PartState::Carried(carried),
            ..
        } => {
            format!(
                "        {key}, {} MB, {}",
                carried.bytes / 1_000_000,
                carried.means
            )
        }
        Event::Failed { step, error } => format!("FAILED  {}: {error}", word(step)),
        Event::Reverting { why } => format!("rolling back: {why}"),
        Event::Undone { step, left } => {
            let left = left
                .as_ref()
                .map_or_else(String::new, |left| format!(" (note: {left})"));
            format!("[{:>2}/{all}] undone: {}{left}", step + 1, word(step))
        }
        Event::Retrying { step, error } => format!(
            "[{:>2}/{all}] not undone yet, tries again: {}: {error}",
            step + 1,
            word(step)
        ),
        Event::Postponed { step, error } => format!(
            "[{:>2}/{all}] not undone yet, undoes the others first: {}: {error}",
            step + 1,
            word(step)
        ),
        Event::Left { what, .. } => format!("        note: {what}"),
        Event::Refused { obstacles } => format!("the rollback is refused: {}", obstacles.join("; ")),
        Event::Armed { left_millis } => {
            format!("        {} s to confirm", left_millis / 1000)
        }
        Event::Committed => "committed".to_owned(),
        Event::RolledBack => "rolled back".to_owned(),
        Event::Broken { error, .. } => format!("BROKEN  {error}"),
        Event::Opened { .. }
        | Event::Part { .. }
        | Event::Done { .. }
        | Event::Waiting { .. }
        | Event::Soaking { .. } => return None,
    })
}

fn clock(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%H:%M:%S%.3f").to_string()
}

fn summary(records: &[Record], plan: &Plan) {
    let progress = progress::fold(records, plan);
    if let Some(downtime) = progress.kubelet_downtime() {
        println!("\nThe kubelet was away for {:.2} s.", downtime.as_secs_f64());
    }
    let knows = |planned: &PlannedStep| matches!(&planned.does, Step::File(file) if file.path.as_str() == INSTANCE_CONFIG);
    if plan.steps.iter().any(knows) {
        return;
    }
    if let Some(endpoint) = plan.target_endpoint() {
        println!(
            "If kubeadm made this node, correct its annotation (`kubectl get nodes` has the name of the Node, which a cloud \
             provider may have chosen):\n  kubectl annotate node {} --overwrite \
             kubeadm.alpha.kubernetes.io/cri-socket={endpoint}",
            plan.node
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A switch by hand that was rolled back after all its steps.
    #[test]
    fn what_a_rollback_does_not_bring_back_is_listed() {
        let text = include_str!("../../tests/hosts/debian12-kubeadm-1.23-captured/facts.json");
        let facts: Facts = crate::edit::parse::json(text).unwrap();
        let request = crate::node::plan::tests::accepting("ForeignContainers");
        let outcome = crate::planner::plan(&facts, &request);
        let plan = outcome.plan().unwrap();
        let started = |until: usize| -> Vec<Record> {
            let at = Timestamp::UNIX_EPOCH;
            let event = |step| Event::Started {
                step,
                saved: crate::executor::journal::Saved::Nothing,
            };
            (0..until)
                .map(|step| Record {
                    at,
                    event: event(step),
                })
                .collect()
        };
        assert_eq!(changed_for_good(&started(3), plan, Some(&facts)), [""; 0]);
        let lines = changed_for_good(&started(plan.steps.len()), plan, Some(&facts));
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("restartPolicy: Never"), "{lines:?}");
        let docker = facts.docker.as_ref().unwrap().engine.as_ref().unwrap();
        let foreign = docker
            .store
            .containers
            .iter()
            .filter(|one| one.pod.is_none() && one.running);
        for name in foreign.map(|container| &container.name) {
            assert!(lines[1].contains(name.as_str()), "{lines:?}");
        }
    }
}
