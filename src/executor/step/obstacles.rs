//! What is in the way of a rollback, found out before its first step: all of it at once, while the target serves.

use std::collections::BTreeMap;

use super::{Host, StepError, file, link};
use crate::{
    executor::journal::{Saved, SavedFile},
    host::{
        systemd::Systemd,
        unit_links::{self, UnitLink},
    },
    plan::{
        document::Plan,
        host_path::HostPath,
        runtime::Runtime,
        step::{Boot, FileStep, KUBELET_UNIT, Step},
        version,
    },
    runtime::Runtimes,
};

impl<S: Systemd, R: Runtimes> Host<'_, S, R> {
    /// Everything that the undo of the steps in `begun` would overwrite or miss, a sentence each.
    pub(in crate::executor) async fn obstacles(
        &self,
        plan: &Plan,
        begun: &BTreeMap<usize, &Saved>,
    ) -> Result<Vec<String>, StepError> {
        let mut found = Vec::new();
        let (mut paths, mut units) = (Vec::new(), Vec::new());
        let steps = || {
            begun
                .iter()
                .filter_map(|(step, saved)| Some((&plan.steps.get(*step)?.does, *saved)))
        };
        // A file that several steps change is what the last one made it.
        for (step, saved) in steps().rev() {
            if let (Step::File(step), Saved::File { file, .. }) = (step, saved)
                && !paths.contains(&&step.path)
            {
                paths.push(&step.path);
                found.extend(self.of_file(step, file.as_ref())?);
            }
            if let (Step::Link(step), Saved::Link { link, .. }) = (step, saved) {
                found.extend(link::obstacle(self.files, step, link.as_deref())?);
            }
        }
        // A unit becomes what it was before the first one.
        for (step, saved) in steps() {
            let (unit, Saved::Unit { active, links }) = (unit_of(step), saved) else {
                continue;
            };
            if units.contains(&unit) {
                continue;
            }
            units.push(unit);
            let masks = plan.steps.iter().any(|planned| {
                matches!(&planned.does, Step::Unit(other)
                    if Some(&*other.unit) == unit && other.boot == Some(Boot::Masked))
            });
            if let Some(unit) = unit {
                found.extend(self.of_unit(unit, *active, links, masks).await?);
            }
        }
        if let Some(first) = plan.source.runtime.profile().in_kubelet_before {
            found.extend(self.of_newer_kubelet(plan.source.runtime, first).await?);
        }
        Ok(found)
    }

    /// A kubelet that was upgraded since and has `source` in it no more, as from the minor version `first` on. It would not
    /// even start with its old flags.
    async fn of_newer_kubelet(&self, source: Runtime, first: u64) -> Result<Option<String>, StepError> {
        let unit = self.systemd.describe(KUBELET_UNIT).await?;
        let Some(program) = unit.exec_start.first().and_then(|path| HostPath::new(path).ok()) else {
            return Ok(None);
        };
        let printed = match self.runtimes.program_version(&program).await {
            Ok(printed) => printed,
            Err(error) => {
                tracing::warn!(%error, "the version of the kubelet is not known");
                return Ok(None);
            }
        };
        // `Kubernetes v1.24.17`
        let version = printed.split_whitespace().last().and_then(version::upstream);
        Ok(version.filter(|version| version.minor >= first).map(|version| {
            format!(
                "{program} is {version} now, and kubelets from 1.{first} on have no {source}; install one before 1.{first} again"
            )
        }))
    }

    fn of_file(&self, step: &FileStep, old: Option<&SavedFile>) -> Result<Option<String>, StepError> {
        let path = &step.path;
        let now = match self.files.read(path) {
            Ok(now) => now,
            Err(error) => return Ok(Some(format!("cannot {error}"))),
        };
        if file::is_foreign(step, old, now.as_deref()) {
            return Ok(Some(format!(
                "{path} was changed by somebody else since the switch; undo that change, or keep a copy and remove the file"
            )));
        }
        let refused = self.files.try_change(path).err();
        Ok(refused.map(|error| format!("cannot {error}")))
    }

    async fn of_unit(
        &self,
        unit: &str,
        active: bool,
        links: &[UnitLink],
        plan_masks: bool,
    ) -> Result<Vec<String>, StepError> {
        let mut found = Vec::new();
        for link in links {
            if unit_links::is_displaced(self.files, link)? {
                found.push(format!(
                    "{} is a file, where a link of {unit} was before the switch; remove it",
                    link.path
                ));
            }
        }
        let now = unit_links::of(self.files, unit)?;
        if unit_links::is_masked(&now, unit) && !unit_links::is_masked(links, unit) && !plan_masks {
            found.push(format!(
                "{unit} was masked by somebody else since the switch; run `systemctl unmask {unit}`"
            ));
        }
        let is_linked = links
            .iter()
            .any(|link| link.path.as_str().ends_with(&format!("/system/{unit}")));
        let is_gone = active
            && !is_linked
            && match self.systemd.unit(unit).await?.load.as_str() {
                "not-found" => true,
                // The plan masked it, which hides that its package was removed.
                "masked" => !unit_links::has_file(self.files, unit)?,
                _ => false,
            };
        if is_gone {
            found.push(format!(
                "{unit} ran before the switch and does not exist any more; install its package again"
            ));
        }
        Ok(found)
    }
}

/// The unit that a step changes.
fn unit_of(step: &Step) -> Option<&str> {
    match step {
        Step::Unit(step) => Some(&step.unit),
        Step::Kubelet(_) => Some(KUBELET_UNIT),
        _ => None,
    }
}
