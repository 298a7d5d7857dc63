//! The drop-in for a target's unit: the program that the plan brings, and what the source's unit gave to its containers.

use crate::{
    plan::{
        effective::Effective,
        facts::{Facts, MaybeFile, UnitFacts},
        finding::Finding,
        step::{FileStep, Step},
    },
    planner::{
        context::View,
        docker_limits, docker_proxies,
        steps::{file, maybe, program_lines},
    },
};

/// The unit of a target that has a drop-in of ours.
#[derive(Clone, Copy, Debug)]
pub struct Unit<'a> {
    /// As it was found, or as the plan is going to write it.
    pub unit: &'a UnitFacts,
    /// Whether it was found.
    pub is_there: bool,
    /// The drop-in, with what an earlier plan has written.
    pub drop_in: &'a MaybeFile,
    /// Where the environment file is that the drop-in names if proxies have passwords.
    pub environment: &'static str,
}

/// A drop-in and the environment file that it names.
#[derive(Clone, Debug)]
pub struct DropIn<'a> {
    of: Unit<'a>,
    /// Its text.
    pub text: String,
    environment: Option<String>,
}

/// What `of` needs; `None` if it needs no drop-in. `brought` are the command and the `PATH` of the program that the plan brings.
pub fn drop_in<'a>(view: &View<'_>, of: Unit<'a>, brought: Option<(String, String)>) -> Option<DropIn<'a>> {
    let mut environment = None;
    let old = of.drop_in.file.as_ref();
    let mut lines = program_lines(brought, of.is_there, old);
    if !view.upgrades() {
        let whole = old.is_some() || !lines.is_empty();
        let given = docker_proxies::for_unit(view.translation.proxies(), of.unit, whole, of.environment);
        lines.extend(given.lines);
        environment = given.environment;
        let limits = docker_limits::lines(view, of.unit, whole);
        // What an earlier plan wrote is what Docker's containers have inherited since.
        let text = old.map_or("", |file| file.text.as_str());
        let earlier = text.lines().filter(|line| line.starts_with("Limit"));
        if limits.is_empty() {
            lines.extend(earlier.map(str::to_owned));
        }
        lines.extend(limits);
    }
    let what = if lines.iter().any(|line| line.starts_with("ExecStart=")) {
        "the program of an archive, and "
    } else {
        ""
    };
    (!lines.is_empty()).then(|| DropIn {
        of,
        text: format!(
            "# Written by Transship: {what}what {} gave to its containers.\n[Service]\n{}\n",
            view.source.unit,
            lines.join("\n")
        ),
        environment,
    })
}

impl DropIn<'_> {
    /// What systemd must have of the unit once it has started with it.
    pub fn effective(&self) -> Effective {
        Effective::of_drop_in(&self.of.drop_in.path, &self.text)
    }

    /// The steps that write it, and remove the environment file of an earlier plan that it no longer names.
    ///
    /// # Errors
    /// Where the environment file cannot be named.
    pub fn files(self, facts: &Facts) -> Result<Vec<Step>, Finding> {
        let named = maybe(facts, self.of.environment)?;
        let old = named.file.as_ref();
        let is_left = self.environment.is_none();
        // Before the drop-in that names it: the unit does not start without it.
        let environment = self
            .environment
            .and_then(|text| file(&named.path, old, text, 0o600));
        let drop_in = self.of.drop_in;
        let itself = file(&drop_in.path, drop_in.file.as_ref(), self.text, 0o644);
        let removed = old.filter(|_| is_left).map(|old| {
            Step::File(FileStep {
                path: named.path.clone(),
                planned_from: Some(old.digest.clone()),
                want: None,
            })
        });
        Ok(environment.into_iter().chain(itself).chain(removed).collect())
    }
}
