//! `transship node rollback|status`: words with the executor of the newest migration on this node.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{
    follow::{self, Confirm},
    output::Format,
    pods::Pods,
    unfinished,
};
use crate::{
    console,
    executor::{
        control::{Dir, Order},
        progress::{OldShims, Progress, State},
    },
    host::files::Files,
    plan::{digest::Digest, document::Plan, lists},
    runtime::{Runtimes as _, hosted::HostRuntimes},
};

/// Which migration.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// Name of the migration in /var/lib/transship [default: the one that was last at work]
    #[arg(long)]
    migration: Option<String>,
}

/// What the exit codes of `status` mean.
const STATUS_EXIT_CODES: &str = "Exit codes:
  0  there is nothing to wait for: the switch is committed, or confirmed and soaks, or was rolled back
  3  the switch is under way, waits for its confirmation, is being rolled back, or is broken
`state` of `-o json` has which of them it is.";

/// Show how far a switch is.
#[derive(Debug, clap::Args)]
#[command(after_help = STATUS_EXIT_CODES)]
pub struct Status {
    #[command(flatten)]
    which: Which,
    /// Form of the result
    #[arg(short = 'o', long = "format", value_enum, default_value_t)]
    format: Format,
}

/// How far a switch is, in its machine-readable forms.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    migration: String,
    plan: Digest,
    steps: usize,
    /// When the executor began.
    began: Option<Timestamp>,
    /// When the journal was last written to.
    last: Option<Timestamp>,
    kubelet_downtime_millis: Option<u64>,
    /// While the confirmation is awaited: the pods that ran before and do not run, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    absent_pods: Vec<String>,
    #[serde(flatten)]
    progress: Progress,
}

impl Which {
    pub(super) fn find(&self, files: &Files) -> anyhow::Result<(Dir, Plan, Progress)> {
        let dir = match &self.migration {
            Some(name) => Some(Dir::new(files, name)?),
            None => Dir::newest(files)?,
        };
        let dir = dir.context("no switch was ever started on this node")?;
        let plan = dir
            .plan()?
            .with_context(|| format!("{} holds no plan", dir.path()))?;
        let progress = dir
            .progress()?
            .with_context(|| format!("{} holds no plan", dir.path()))?;
        Ok((dir, plan, progress))
    }

    /// Takes the switch back, after a commit too.
    ///
    /// # Errors
    /// When that cannot be done; the message says what is broken.
    pub async fn rollback(self) -> anyhow::Result<ExitCode> {
        let files = Files::new("/");
        let (dir, plan, progress) = self.find(&files)?;
        match progress.state {
            State::RolledBack => {
                println!("Migration {} was rolled back already.", dir.name());
                follow::not_as_before(&dir, &plan)?
                    .iter()
                    .chain(&committed(&files)?)
                    .for_each(|line| println!("{line}"));
                return Ok(ExitCode::SUCCESS);
            }
            State::Committed | State::Finishing | State::Soaking { .. } => {
                dir.order(Order::Undo, &plan.digest())?;
            }
            _ => dir.order(Order::Abort, &plan.digest())?,
        }
        let code = follow::start(&files, &dir, Confirm::Manual).await?;
        // Going back is what was asked for.
        let now = dir.progress()?.map(|progress| progress.state);
        Ok(if now == Some(State::RolledBack) {
            ExitCode::SUCCESS
        } else {
            code
        })
    }
}

/// How each migration of this node that is committed can be rolled back.
fn committed(files: &Files) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    for dir in Dir::all(files)? {
        if let (Some(plan), Some(progress)) = (dir.plan()?, dir.progress()?)
            && progress.state == State::Committed
        {
            lines.push(format!(
                "Migration {name} ({source} to {target}) is committed. Roll it back with `transship node rollback \
                 --migration {name}`.",
                name = dir.name(),
                source = plan.source,
                target = plan.target,
            ));
        }
    }
    Ok(lines)
}

impl Status {
    /// Shows it. The exit code is [`console::UNFINISHED`] while there is something to wait for.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let files = Files::new("/");
        let (dir, plan, mut progress) = self.which.find(&files)?;
        if progress.old_shims.is_some() {
            // Pods are created again all the time.
            let now = HostRuntimes::new(files).shims().await?;
            progress.old_shims = Some(OldShims {
                counted_at: Timestamp::now(),
                programs: plan.old_shims(&now),
            });
        }
        let absent_pods = match progress.state {
            State::AwaitingCommit { .. } => absent(&dir, &plan).await?,
            _ => Vec::new(),
        };
        let migration = dir.name().to_owned();
        let journal = dir.journal()?;
        let report = Report {
            migration,
            plan: plan.digest(),
            steps: plan.steps.len(),
            began: journal.first().map(|record| record.at),
            last: journal.last().map(|record| record.at),
            kubelet_downtime_millis: progress
                .kubelet_downtime()
                .and_then(|downtime| u64::try_from(downtime.as_millis()).ok()),
            absent_pods,
            progress,
        };
        let code = unfinished::code(report.progress.state);
        // The page has the end of a soak.
        let notice = (code == console::UNFINISHED)
            .then(|| unfinished::of(&report.migration, &report.progress))
            .flatten()
            .unwrap_or_default();
        let page = |report: &Report| format!("{notice}{}", page(report, &plan));
        console::print(&self.format.render(&report, page)?)?;
        Ok(ExitCode::from(code))
    }
}

/// The pods that ran before the switch and do not run now.
async fn absent(dir: &Dir, plan: &Plan) -> anyhow::Result<Vec<String>> {
    let Some(mut pods) = Pods::of(&Files::new("/"), dir, plan)? else {
        return Ok(Vec::new());
    };
    // The runtime may be away just now, and the state is shown nevertheless.
    Ok(pods.look().await.map(|seen| seen.absent).unwrap_or_default())
}

/// When a time is over of which so much was left when the journal was last written to.
fn until(last: Option<Timestamp>, left: Duration) -> String {
    let left = SignedDuration::try_from(left).unwrap_or(SignedDuration::MAX);
    let until = last.and_then(|last| last.saturating_add(left).ok());
    until
        .unwrap_or(Timestamp::MAX)
        .strftime("%Y-%m-%d %H:%M")
        .to_string()
}

/// What still runs on old shims, and how that ends.
fn on_old_shims(shims: &OldShims) -> String {
    let used = shims.programs.iter().map(|shim| {
        let others = match shim.others {
            0 => String::new(),
            others => format!(
                " and {} that are not of pods",
                lists::count(others as usize, "container")
            ),
        };
        format!(
            "{}{others} on {}",
            lists::count(shim.pods as usize, "pod"),
            shim.program
        )
    });
    let used: Vec<String> = used.collect();
    if used.is_empty() {
        return "Old shims  not used any more".to_owned();
    }
    format!(
        "Old shims  {}; keep the program until nothing runs on it (a pod that is created again has the new shim)",
        used.join("; ")
    )
}

fn page(report: &Report, plan: &Plan) -> String {
    let progress = &report.progress;
    let state = match progress.state {
        State::Prepared => format!(
            "{}; its preparation is undone {} s after it was done",
            progress.state, plan.prepared_for_secs
        ),
        State::AwaitingCommit { left } => {
            format!("waits for `transship node commit`, {} s left", left.as_secs())
        }
        State::Soaking { left } => format!(
            "confirmed, soaking until {} UTC, if the node keeps running, then it commits by itself; until then \
             `transship node rollback` loses no pod, and `transship node commit` commits now",
            until(report.last, left)
        ),
        State::RolledBack => "rolled back: files, units and runtime are as before".to_owned(),
        State::Broken => "BROKEN, a person has to help".to_owned(),
        state => state.to_string(),
    };
    let mut lines = vec![
        format!(
            "Migration  {} of node {}, plan {}",
            report.migration,
            plan.node,
            report.plan.short()
        ),
        format!("From, to   {} -> {}", plan.source, plan.target),
        format!("State      {state}"),
        format!("Steps      {} of {}", progress.steps_done, report.steps),
    ];
    if let Some(word) = progress.current.and_then(|step| plan.words().get(step).cloned()) {
        lines.push(format!("Now        {word}"));
    }
    if let (Some(began), Some(last)) = (report.began, report.last) {
        lines.push(format!(
            "Time       {} UTC, last at {}",
            began.strftime("%Y-%m-%d %H:%M:%S"),
            last.strftime("%H:%M:%S")
        ));
    }
    if let Some(millis) = report.kubelet_downtime_millis {
        let seconds = Duration::from_millis(millis).as_secs_f64();
        lines.push(format!("Kubelet    away for {seconds:.2} s"));
    }
    if !report.absent_pods.is_empty() {
        lines.push(format!(
            "Pods       ran before and do not run: {}",
            lists::listing(&report.absent_pods)
        ));
    }
    lines.extend(progress.old_shims.iter().map(on_old_shims));
    lines.extend(progress.error.iter().map(|error| format!("Reason     {error}")));
    lines.extend(progress.left.iter().map(|left| format!("Left       {left}")));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::shims::ShimUse;

    #[test]
    fn a_soak_is_said_with_its_end() {
        let report = Report {
            migration: "hand-1".to_owned(),
            plan: Digest::of("a"),
            steps: 0,
            began: Some(Timestamp::UNIX_EPOCH),
            last: Some(Timestamp::UNIX_EPOCH),
            kubelet_downtime_millis: None,
            absent_pods: Vec::new(),
            progress: crate::executor::progress::fold(
                &[crate::executor::journal::Record {
                    at: Timestamp::UNIX_EPOCH,
                    event: crate::executor::journal::Event::Soaking {
                        left_millis: 86_400_000,
                    },
                }],
                &Plan::example("a", Vec::new()),
            ),
        };
        let page = page(&report, &Plan::example("a", Vec::new()));
        assert!(
            page.contains("confirmed, soaking until 1970-01-02 00:00 UTC")
                && page.contains("transship node rollback"),
            "{page}"
        );
    }

    #[test]
    fn what_runs_on_old_shims_is_said_until_nothing_does() {
        let shims = |programs: Vec<ShimUse>| {
            on_old_shims(&OldShims {
                counted_at: Timestamp::UNIX_EPOCH,
                programs,
            })
        };
        let of = |program: &str, pods, others| ShimUse {
            program: program.to_owned(),
            pods,
            others,
        };
        let line = shims(vec![of("/usr/bin/a", 3, 1), of("/opt/b", 1, 0)]);
        assert!(
            line.contains("3 pods and 1 container that are not of pods on /usr/bin/a; 1 pod on /opt/b;"),
            "{line}"
        );
        assert_eq!(shims(Vec::new()), "Old shims  not used any more");
    }
}
