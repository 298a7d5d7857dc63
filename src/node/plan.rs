//! `transship node plan`: what a switch would do, and what stands in its way.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;

use super::{inspect::look, output::Format, unfinished};
use crate::{
    console,
    edit::parse,
    host::files::Files,
    inspect::Host,
    plan::{
        digest::Digest,
        document::Plan,
        facts::Facts,
        finding::{Finding, Severity},
        host_path::HostPath,
        request::{
            ArchiveOrigin, CgroupDriverChoice, Drain, DrainMode, Images, Origin, PackageOrigin, Preflight,
            Rollback, Source, Target,
        },
        runtime::Runtime,
        words,
    },
    planner::{
        self,
        request::{Outcome, Request, Verdict},
    },
};

/// Show what a switch would do to this node.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    wish: Wish,
    /// Form of the result; json and yaml hold the text of every file that would be written, with its secrets
    #[arg(short = 'o', long = "format", value_enum, default_value_t)]
    format: Format,
    /// Plan for the node of these facts (`transship node inspect -o json`) instead of looking at this one
    #[arg(long, value_name = "FILE")]
    facts: Option<PathBuf>,
}

/// What is asked for, on a command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Wish {
    /// The runtime to move to
    #[arg(long, value_name = "RUNTIME", value_parser = targets(), default_value = Runtime::DEFAULT_TARGET.name())]
    target: Runtime,
    /// The version that must be found or is installed: a version (1.7.28) or a semver range (">=1.6, <2")
    #[arg(long, value_name = "VERSION")]
    target_version: Option<String>,
    /// Unpack the runtime from this archive (https:// or file://), as its project releases it
    #[arg(long, value_name = "URL", requires = "sha256", conflicts_with = "package")]
    archive: Option<String>,
    /// SHA-256 of the archive, 64 hex digits
    #[arg(long, value_name = "HEX", requires = "archive")]
    sha256: Option<String>,
    /// Install the runtime from this package of the distribution
    #[arg(long, value_name = "NAME", requires = "target_version")]
    package: Option<String>,
    /// The sandbox (pause) image under the target [default: the one that the kubelet uses now]
    #[arg(long, value_name = "IMAGE")]
    sandbox_image: Option<String>,
    /// Leave Docker running for containers that are not Kubernetes'
    #[arg(long)]
    keep_source: bool,
    /// Let the kubelet keep as much of each container's log as Docker does
    #[arg(long)]
    keep_log_limits: bool,
    /// A finding that shall not block, by its code (`CODE/NAME` for one of many); may be repeated
    #[arg(long, value_name = "CODE")]
    allow: Vec<String>,
}

/// The runtimes that a node can be moved to.
fn targets() -> impl TypedValueParser<Value = Runtime> {
    PossibleValuesParser::new(Runtime::targets().map(Runtime::name)).try_map(|name| {
        let target = Runtime::targets().find(|runtime| runtime.name() == name);
        target.ok_or("unknown runtime")
    })
}

impl Wish {
    /// The request to the planner, for a migration of this name.
    pub fn request(self, migration: String) -> Request {
        Request {
            migration,
            migration_name: None,
            target: Target {
                runtime: self.target,
                version: self.target_version,
                from: match (self.archive.zip(self.sha256), self.package) {
                    (Some((url, sha256)), _) => Origin::Archive(ArchiveOrigin { url, sha256 }),
                    (None, Some(name)) => Origin::Package(PackageOrigin { name }),
                    (None, None) => Origin::default(),
                },
                sandbox_image: self.sandbox_image,
                cgroup_driver: CgroupDriverChoice::Auto,
                keep_log_limits: self.keep_log_limits,
            },
            source: Source {
                keep: self.keep_source,
            },
            // Nobody drains here. Where a person did, what is left has its own time all the same.
            drain: Drain {
                mode: DrainMode::InPlace,
                ..Drain::default()
            },
            images: Images::default(),
            preflight: Preflight { allow: self.allow },
            rollback: Rollback::default(),
            approved_plans: Vec::new(),
            cluster: None,
        }
    }
}

/// The result in its machine-readable forms.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Result<'a> {
    findings: &'a [Finding],
    verdict: &'static str,
    plan: Option<&'a Plan>,
    digest: Option<Digest>,
    /// A switch of this node that is not over, with the next step.
    unfinished: Option<&'a str>,
}

impl Args {
    /// Runs the command. The exit code is [`console::UNFINISHED`] when a switch of this node is not over, else
    /// [`console::BLOCKED`] when a finding blocks.
    ///
    /// # Errors
    /// When the facts cannot be read.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let unfinished = match &self.facts {
            Some(_) => None,
            None => unfinished::notice(&Files::new("/"))?,
        };
        let facts = match &self.facts {
            Some(file) => read(file)?,
            None => {
                look(&Host {
                    live: true,
                    files: Files::new("/"),
                })
                .await
            }
        };
        let outcome = planner::plan(&facts, &self.wish.request("preview".to_owned()));
        let (verdict, code) = match outcome.verdict {
            Verdict::Blocked | Verdict::Held(_) => ("blocked", console::BLOCKED),
            Verdict::AlreadyThere => ("alreadyThere", 0),
            Verdict::Ready(_) => ("ready", 0),
        };
        let plan = outcome.plan();
        let result = Result {
            findings: &outcome.findings,
            verdict,
            plan,
            digest: plan.map(Plan::digest),
            unfinished: unfinished.as_deref(),
        };
        let first = unfinished.as_deref().unwrap_or_default();
        let page = |_: &Result<'_>| format!("{first}{}", page(&facts, &outcome));
        console::print(&self.format.render(&result, page)?)?;
        Ok(ExitCode::from(if first.is_empty() {
            code
        } else {
            console::UNFINISHED
        }))
    }
}

fn read(file: &std::path::Path) -> anyhow::Result<Facts> {
    let path = std::path::absolute(file).with_context(|| format!("find {}", file.display()))?;
    let path = HostPath::new(path.to_string_lossy())?;
    let text = Files::new("/")
        .read_text(&path)?
        .with_context(|| format!("{path} does not exist"))?;
    parse::json(&text)
        .with_context(|| format!("{path} holds no facts; write them with `transship node inspect -o json`"))
}

/// The outcome for people: findings, steps, and what would change in every file; secrets are redacted.
pub fn page(facts: &Facts, outcome: &Outcome) -> String {
    let mut page = String::new();
    // Writing to a string cannot fail.
    for finding in &outcome.findings {
        let severity = match finding.severity {
            Severity::Block => "BLOCK",
            Severity::Warn => "WARN",
            Severity::Info => "INFO",
        };
        let _ = writeln!(page, "{severity:<6}{}: {}", finding.full_name(), finding.message);
        if !finding.remedy.is_empty() {
            let _ = writeln!(page, "      {}", finding.remedy);
        }
    }
    match &outcome.verdict {
        Verdict::Blocked | Verdict::Held(_) => {
            page.push_str("\nBlocked: nothing is touched. Solve what is marked BLOCK, or accept it with --allow CODE.\n");
        }
        Verdict::AlreadyThere => {
            let _ = writeln!(
                page,
                "\nNode {} is on the target already: there is nothing to do.",
                facts.node
            );
        }
        Verdict::Ready(plan) => {
            let (source, target) = (&plan.source, &plan.target);
            let _ = writeln!(page, "\nNode {}: {source} -> {target}", plan.node);
            let mut number = 0;
            for (section, words) in plan.sections() {
                let _ = writeln!(page, "\n{}", section.heading(plan.keeps_pods()));
                for sentence in words {
                    number += 1;
                    let _ = writeln!(page, "{number:>4}. {sentence}");
                }
            }
            let _ = write!(page, "\n{}\nPlan {}\n", words::diff(plan, facts), plan.digest());
        }
    }
    page
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        wish: Wish,
    }

    /// The request of a person who accepts a finding.
    pub(in super::super) fn accepting(code: &str) -> Request {
        asking(&["--allow", code])
    }

    /// The request of a person with these arguments.
    pub(in super::super) fn asking(arguments: &[&str]) -> Request {
        let line = Line::try_parse_from(["transship"].iter().chain(arguments)).unwrap();
        line.wish.request("hand-1".to_owned())
    }
}
