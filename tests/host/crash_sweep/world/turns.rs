//! A life without a crash: it turns back at an exact step, and what it must never need is noted.

use std::sync::Arc;

use transship::{
    executor::control::{Dir, Order},
    host::files::Effect,
    plan::step::{Restart, Step},
};

use super::{Fault, World, lock};

impl World {
    /// In this life the rollback is ordered as soon as so many steps are done, after a commit if those before it are fewer.
    pub fn undo_after(self: &Arc<Self>, steps: usize) {
        lock(&self.log).undo_after = Some(steps);
        self.order_after(0);
    }

    /// Gives the orders that are due after so many steps.
    pub(super) fn order_after(self: &Arc<Self>, done: usize) {
        let Some(steps) = lock(&self.log).undo_after else {
            return;
        };
        let dir = Dir::at(&self.free_files(), self.case.dir_path());
        let give = |order| dir.order(order, &self.case.digest).unwrap();
        if done == self.case.plan.switched() && steps > done {
            give(Order::Commit);
        }
        if done == steps {
            give(Order::Undo);
        }
    }

    /// How many steps the journal has as done, if its last line is about one of them.
    pub(super) fn just_done(&self, effect: &Effect<'_>) -> Option<usize> {
        lock(&self.log).undo_after?;
        let Effect::SyncFile(path) = effect else {
            return None;
        };
        let journal = path.ends_with("journal").then(|| self.journal())?;
        let last = journal.lines().next_back()?;
        let (_, step) = last.split_once("\"event\":\"done\",\"step\":")?;
        Some(1 + step.trim_end_matches('}').parse::<usize>().unwrap())
    }

    /// Something happened that happens only after a crash or a fault.
    pub(super) fn odd(&self, what: String) {
        lock(&self.log).odd.push(what);
    }

    /// What happened in this life that happens only after a crash or a fault.
    pub fn oddities(&self) -> Vec<String> {
        lock(&self.log).odd.clone()
    }

    /// Whether the step that is refused begins with this, which is then refused.
    pub(super) fn is_refused(&self) -> bool {
        let Fault::StepRefused(step) = self.fault else {
            return false;
        };
        let started = format!("\"event\":\"started\",\"step\":{step},");
        let mut log = lock(&self.log);
        let first = !log.refused && self.journal().contains(&started);
        log.refused |= first;
        first
    }

    /// Whether a step was begun that ends pods of the source, or stops what they run under on the way back.
    pub(super) fn may_end_pods(&self) -> bool {
        let journal = self.journal();
        let mut steps = self.case.plan.steps.iter().enumerate();
        steps.any(|(step, planned)| {
            let ends = match &planned.does {
                Step::StopPods(_) => true,
                Step::Unit(unit) => unit.restart == Restart::StoppedBackwards,
                _ => false,
            };
            ends && journal.contains(&format!("\"event\":\"started\",\"step\":{step},"))
        })
    }
}
