//! `Images`: bring images into the target's store.

use std::collections::BTreeMap;

use super::{Notes, Saved, StepError};
use crate::{executor::journal::PartState, plan::step::ImagesStep, runtime::Runtimes};

pub(super) async fn save(runtimes: &impl Runtimes, step: &ImagesStep) -> Result<Saved, StepError> {
    let there = runtimes.images(&step.to).await?;
    let names = step.names.iter();
    let before = names
        .map(|name| (name.clone(), there.get(name).cloned()))
        .collect();
    Ok(Saved::Images { before })
}

pub(super) async fn apply(
    runtimes: &impl Runtimes,
    step: &ImagesStep,
    notes: &impl Notes,
) -> Result<(), StepError> {
    let source = runtimes.images(&step.from).await?;
    let target = runtimes.images(&step.to).await?;
    let parts = notes.parts();
    for name in &step.names {
        let carried = matches!(parts.get(name), Some(PartState::Carried(_)));
        if carried && target.contains_key(name) {
            continue;
        }
        // A tag that was moved since the target got it: pods would start what it meant then.
        let stale = |there| source.get(name).is_some_and(|wanted| wanted != there);
        if target.get(name).is_some_and(|there| !stale(there)) {
            continue;
        }
        notes.part(name, PartState::Begun)?;
        let carried = runtimes
            .carry_image(step, name)
            .await
            .map_err(|error| StepError::Image {
                name: name.clone(),
                error,
            })?;
        notes.part(name, PartState::Carried(carried))?;
    }
    Ok(())
}

pub(super) async fn undo(
    runtimes: &impl Runtimes,
    step: &ImagesStep,
    before: &BTreeMap<String, Option<String>>,
    notes: &impl Notes,
) -> Result<(), StepError> {
    let begun = notes.parts();
    let before: BTreeMap<_, _> = before
        .iter()
        .filter(|(name, _)| begun.contains_key(*name))
        .map(|(name, id)| (name.clone(), id.clone()))
        .collect();
    if before.is_empty() {
        return Ok(());
    }
    Ok(runtimes.restore_images(&step.to, &before).await?)
}
