//! `Images`: bring images into the target's store.

use std::collections::BTreeSet;

use super::{Notes, Saved, StepError};
use crate::{plan::step::ImagesStep, runtime::Runtimes};

pub(super) async fn save(runtimes: &impl Runtimes, step: &ImagesStep) -> Result<Saved, StepError> {
    let mut present = runtimes.image_names(&step.to).await?;
    present.retain(|name| step.names.contains(name));
    Ok(Saved::Images { present })
}

pub(super) async fn apply(
    runtimes: &impl Runtimes,
    step: &ImagesStep,
    notes: &impl Notes,
) -> Result<(), StepError> {
    let present = runtimes.image_names(&step.to).await?;
    for name in step.names.iter().filter(|name| !present.contains(*name)) {
        let carried = runtimes
            .carry_image(step, name)
            .await
            .map_err(|error| StepError::Image {
                name: name.clone(),
                error,
            })?;
        notes.carried(name, carried)?;
    }
    Ok(())
}

pub(super) async fn undo(
    runtimes: &impl Runtimes,
    step: &ImagesStep,
    before: &BTreeSet<String>,
) -> Result<(), StepError> {
    let brought: Vec<String> = step
        .names
        .iter()
        .filter(|name| !before.contains(*name))
        .cloned()
        .collect();
    Ok(runtimes.remove_images(&step.to, &brought).await?)
}
