//! What is removed last in a rollback, when the source serves again. The node serves without it, so nothing here can fail a rollback.

use std::{collections::BTreeMap, io};

use tokio::time::{Instant, sleep, timeout_at};

use super::{Run, clock};
use crate::{
    executor::{decide, journal::PartState},
    host::systemd::Systemd,
    plan::step::Step,
    runtime::Runtimes,
};

/// How often the source is asked again for what was left of its pods, where it does not boot.
const AGAIN: u32 = 2;

impl<S: Systemd, R: Runtimes> Run<'_, S, R> {
    /// Ends what the restarts on the way back left of the source's pods: the source serves again by then, and starts pods
    /// while what it stands on is restarted. The node is as before without this, too.
    pub(super) async fn end_lost(&self) {
        let mut steps = self.plan.steps.iter();
        let cleared = steps.find_map(|step| match &step.does {
            Step::ClearPods(step) => Some(&step.source),
            _ => None,
        });
        let Some(source) = cleared else { return };
        let mut again = AGAIN;
        loop {
            match self.watched(self.host.runtimes.end_lost(source)).await {
                Ok(left) => return left.iter().for_each(|left| tracing::warn!("{left}")),
                Err(error) if self.is_patient() || again > 0 => {
                    tracing::warn!(%error, "a runtime does not answer yet; it is asked again");
                    again = again.saturating_sub(1);
                    self.watched(sleep(clock::BOOT_PAUSE)).await;
                }
                Err(error) => {
                    return tracing::warn!(%error, "it was not looked for shims without a container");
                }
            }
        }
    }

    /// Removes the sandboxes of the target that ended and stuck: by now the source serves, and with it, perhaps, the API server
    /// that a CNI plugin asks. What still sticks after a while stays, and is named.
    pub(super) async fn remove_stuck(&self) -> io::Result<()> {
        for (step, planned) in self.plan.steps.iter().enumerate() {
            let Step::StopPods(pods) = &planned.does else {
                continue;
            };
            let mut stuck = self.stuck(step);
            let until = Instant::now() + clock::UNSTUCK_WITHIN;
            while !stuck.is_empty() {
                let ids = stuck.keys().cloned().collect();
                let removal = timeout_at(until, self.host.runtimes.remove_stuck(pods, &ids));
                match self.watched(removal).await {
                    Ok(left) => stuck = left,
                    Err(_) => break,
                }
                if !stuck.is_empty() {
                    tracing::warn!(?stuck, "sandboxes could not be removed yet; it is tried again");
                    self.watched(sleep(clock::UNSTUCK_PAUSE)).await;
                }
            }
            self.left(step, &stuck.into_values().collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// The sandboxes that stuck when a step was undone, with the reason.
    fn stuck(&self, step: usize) -> BTreeMap<String, String> {
        let journal = self.journal.borrow();
        let standing = decide::fold(journal.records(), &self.plan);
        let parts = standing.parts.get(&step).into_iter().flatten();
        parts
            .filter_map(|(key, state)| match state {
                PartState::Stuck { why } => Some(((*key).to_owned(), why.clone())),
                _ => None,
            })
            .collect()
    }
}
