//! `transship node switch`: the whole way on one node, started by a person.

use std::{io::BufRead as _, process::ExitCode};

use jiff::Timestamp;

use super::{
    follow::{self, Confirm},
    inspect::look,
    plan::{Wish, page},
    unfinished,
};
use crate::{
    console,
    executor::{
        control::{Dir, Order},
        unit,
    },
    host::files::Files,
    inspect::Host,
    plan::request::GoDuration,
    planner::{self, request::Verdict},
};

/// Switch this node to another runtime, and go back if it does not become healthy.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    wish: Wish,
    /// Who confirms the switch; nobody in time means going back
    #[arg(long, value_enum, default_value_t)]
    confirm: Confirm,
    /// How long after the kubelet's start the switch must be confirmed
    #[arg(long, default_value = "5m", value_name = "DURATION")]
    confirm_within: GoDuration,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Args {
    /// Runs the command. The exit code is [`console::UNFINISHED`] when another switch of this node is not over,
    /// [`console::BLOCKED`] when a finding blocks, [`console::FAILED`] when the node went back.
    ///
    /// # Errors
    /// When the switch cannot be started or watched.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let files = Files::new("/");
        if let Some(notice) = unfinished::notice(&files)? {
            console::print(&notice)?;
            return Ok(ExitCode::from(console::UNFINISHED));
        }
        let facts = look(&Host {
            live: true,
            files: files.clone(),
        })
        .await;
        let migration = format!("hand-{}", Timestamp::now().as_second());
        let dir = Dir::new(&files, &migration)?;
        let mut request = self.wish.request(migration);
        request.rollback.confirm_within = self.confirm_within;
        let outcome = planner::plan(&facts, &request);
        console::print(&page(&facts, &outcome))?;
        let plan = match &outcome.verdict {
            Verdict::Blocked | Verdict::Held(_) => return Ok(ExitCode::from(console::BLOCKED)),
            Verdict::AlreadyThere => return Ok(ExitCode::SUCCESS),
            Verdict::Ready(plan) => plan,
        };
        unit::refuse_beside_another(&files, &dir)?;
        if !self.yes && !agreed()? {
            println!("Nothing was changed.");
            return Ok(ExitCode::from(console::FAILED));
        }
        dir.write_facts(&facts)?;
        dir.write_plan(plan)?;
        dir.order(Order::Go, &plan.digest())?;
        follow::start(&files, &dir, self.confirm).await
    }
}

fn agreed() -> anyhow::Result<bool> {
    console::print("\nThe pods on this node restart. Switch it now? [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
