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
    plan::{document::Plan, request::GoDuration},
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
    /// How long an upgrade in place stays uncommitted after its confirmation, on the old shim: until then a rollback loses no pod
    #[arg(long, default_value = "0s", value_name = "DURATION")]
    soak: GoDuration,
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
        request.rollback.soak = self.soak;
        let outcome = planner::plan(&facts, &request);
        console::print(&page(&facts, &outcome))?;
        let plan = match &outcome.verdict {
            Verdict::Blocked | Verdict::Held(_) => return Ok(ExitCode::from(console::BLOCKED)),
            Verdict::AlreadyThere => return Ok(ExitCode::SUCCESS),
            Verdict::Ready(plan) => plan,
        };
        unit::refuse_beside_another(&files, &dir)?;
        if !self.yes && !agreed(plan)? {
            println!("Nothing was changed.");
            return Ok(ExitCode::from(console::FAILED));
        }
        dir.write_facts(&facts)?;
        dir.write_plan(plan)?;
        dir.order(Order::Go, &plan.digest())?;
        follow::start(&files, &dir, self.confirm).await
    }
}

fn agreed(plan: &Plan) -> anyhow::Result<bool> {
    console::print(&format!("\n{} Switch it now? [y/N] ", meaning(plan)))?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What a switch means for the pods.
fn meaning(plan: &Plan) -> &'static str {
    if plan.keeps_pods() {
        "The pods on this node keep running."
    } else {
        "The pods on this node restart."
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::facts::Facts;

    fn plan_of(facts: &str, line: &[&str]) -> Plan {
        let facts: Facts = crate::edit::parse::json(facts).unwrap();
        let request = crate::node::plan::tests::asking(line);
        let outcome = planner::plan(&facts, &request);
        outcome.plan().unwrap().clone()
    }

    /// A person agrees to what happens, and reads headings for it.
    #[test]
    fn what_a_switch_means_for_the_pods_is_said() {
        let docker = include_str!("../../tests/hosts/debian12-kubeadm-1.23-captured/facts.json");
        let replaced = plan_of(docker, &["--allow", "ForeignContainers"]);
        assert!(meaning(&replaced).contains("restart."));
        let containerd = include_str!("../../tests/hosts/debian12-kubeadm-1.30-containerd/facts.json");
        let sha256 = "0".repeat(64);
        let archive = "https://example.org/containerd-2.4.2-linux-amd64.tar.gz";
        let upgraded = plan_of(containerd, &["--archive", archive, "--sha256", &sha256]);
        assert!(meaning(&upgraded).contains("keep running."));
        let heading = |plan: &Plan| crate::plan::document::Section::Switch.heading(plan.keeps_pods());
        assert!(heading(&replaced).contains("after the drain"));
        assert!(!heading(&upgraded).contains("drain"));
    }
}
