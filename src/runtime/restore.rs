//! Gives names of images back: what carrying changed in a store is as it was.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    RuntimeError,
    docker::Engine,
    transfer::{Store, noticed},
};

/// Gives names in containerd's store back to the images of these ids, those without an id to none; removes the records
/// under the images' ids that the CRI plugin adds, when no name is left that needs them, and what a link that was
/// interrupted left. An image that somebody has removed meanwhile cannot have its name back, which is logged.
///
/// CRI's own `RemoveImage` would not do: it removes every name of the image, those that were there before too.
///
/// # Errors
/// When a name is not as it was.
pub(super) async fn in_containerd(
    store: &Store,
    before: &BTreeMap<String, Option<String>>,
) -> Result<(), RuntimeError> {
    for (name, id) in in_order(before) {
        // One that the CRI refuses to know, for it is of another platform, has a name all the same.
        let known = store.cri.image(name).await?;
        match id {
            None => store.api.remove_name(name).await?,
            Some(id) if known.as_ref().is_some_and(|known| known.id == *id) => continue,
            Some(id) => match store.api.target(id).await? {
                Some(target) => store.api.name(name, target).await?,
                None => {
                    tracing::warn!(image = name, id, "the image that had this name before is gone");
                    continue;
                }
            },
        }
        let now = noticed(&store.cri, name, |now| now == id.as_deref()).await?;
        if now != *id {
            return Err(RuntimeError::new(match id {
                None => format!("image {name} is still in containerd's store"),
                Some(id) => format!("image {name} is {now:?} in containerd's store, and was {id}"),
            }));
        }
        let Some(known) = known else { continue };
        let unnamed = store.cri.image(&known.id).await?;
        if unnamed.is_some_and(|image| image.repo_tags.is_empty() && image.repo_digests.is_empty()) {
            store.api.remove_name(&known.id).await?;
        }
    }
    store.api.end_lease().await
}

/// Gives names in Docker's store back to the images of these ids, those without an id to none; an image that has no
/// name then goes. One that somebody has removed meanwhile cannot have its name back, which is logged.
///
/// # Errors
/// When a name is not as it was.
pub(super) async fn in_docker(
    engine: &Engine,
    before: &BTreeMap<String, Option<String>>,
) -> Result<(), RuntimeError> {
    for (name, id) in in_order(before) {
        let Some(id) = id else {
            engine.remove_name(name).await?;
            continue;
        };
        let now = engine.image(name).await?.and_then(|image| image.id);
        if now.as_ref() == Some(id) {
            continue;
        }
        if engine.image(id).await?.is_none() {
            tracing::warn!(image = name, id, "the image that had this name before is gone");
            continue;
        }
        engine.tag(id, name).await?;
        let Some(now) = now else { continue };
        let unnamed = |names: Option<Vec<String>>| names.unwrap_or_default().is_empty();
        let left = engine.image(&now).await?;
        if left.is_some_and(|image| unnamed(image.repo_tags) && unnamed(image.repo_digests)) {
            engine.remove_name(&now).await?;
        }
    }
    Ok(())
}

/// Names go back to images before others are removed, for the image that gets one may be the image that loses one.
pub(super) fn in_order(before: &BTreeMap<String, Option<String>>) -> Vec<(&String, &Option<String>)> {
    let mut names: Vec<_> = before.iter().collect();
    names.sort_by_key(|(_, id)| Reverse(id.is_some()));
    names
}
