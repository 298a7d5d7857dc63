//! `transship node commit|rollback|status`: words with the executor of the newest migration on this node.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    follow::{self, Confirm},
    output::Format,
    unfinished,
};
use crate::{
    console,
    executor::{
        control::{Dir, Order},
        progress::{Progress, State},
    },
    host::files::Files,
    plan::{digest::Digest, document::Plan},
};

/// Which migration.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// Name of the migration in /var/lib/transship [default: the one that was last at work]
    #[arg(long)]
    migration: Option<String>,
}

/// Show how far a switch is.
#[derive(Debug, clap::Args)]
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
    #[serde(flatten)]
    progress: Progress,
}

impl Which {
    fn find(&self, files: &Files) -> anyhow::Result<(Dir, Plan, Progress)> {
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

    /// Keeps the switch.
    ///
    /// # Errors
    /// When none waits for it.
    pub async fn commit(self) -> anyhow::Result<ExitCode> {
        let files = Files::new("/");
        let (dir, plan, progress) = self.find(&files)?;
        match progress.state {
            State::Committed | State::Finishing => println!("It is committed already."),
            State::AwaitingCommit { .. } => {
                dir.order(Order::Commit, &plan.digest())?;
                return follow::start(&files, &dir, Confirm::Manual).await;
            }
            _ => anyhow::bail!("there is nothing to confirm: see `transship node status`"),
        }
        Ok(ExitCode::SUCCESS)
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
                println!("It was rolled back already.");
                follow::not_as_before(&dir, &plan)?
                    .iter()
                    .for_each(|line| println!("{line}"));
                return Ok(ExitCode::SUCCESS);
            }
            State::Committed | State::Finishing => dir.order(Order::Undo, &plan.digest())?,
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

impl Status {
    /// Shows it. The exit code is [`console::UNFINISHED`] if it is not over.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (dir, plan, progress) = self.which.find(&Files::new("/"))?;
        let migration = dir
            .path()
            .as_str()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
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
            progress,
        };
        let code = unfinished::code(report.progress.state);
        let notice = unfinished::of(&report.migration, &report.progress).unwrap_or_default();
        let page = |report: &Report| format!("{notice}{}", page(report, &plan));
        console::print(&self.format.render(&report, page)?)?;
        Ok(ExitCode::from(code))
    }
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
    lines.extend(progress.error.iter().map(|error| format!("Reason     {error}")));
    lines.extend(progress.left.iter().map(|left| format!("Left       {left}")));
    lines.join("\n") + "\n"
}
