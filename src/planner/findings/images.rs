//! Images: those without which the node could not come back, and those that lose a name on the way.

use crate::{
    plan::{
        codes::images::{
            IMAGE_PINNED_BY_DIGEST, IMAGE_WITHOUT_NAME, POD_IMAGES_UNKNOWN, REQUIRED_IMAGE_MISSING,
            SANDBOX_IMAGE_MISSING,
        },
        finding::Finding,
        lists,
    },
    planner::context::View,
};

/// Checks of the images.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let carried = view.carried;
    let (source, target) = (view.source.runtime.store(), view.target.runtime.store());
    let mut findings = Vec::new();
    if carried.missing.contains(&carried.sandbox) {
        findings.push(SANDBOX_IMAGE_MISSING.found(
            format!("the sandbox image {} is not in {source}'s store", carried.sandbox),
            format!("Pull it with {source} on the node, set target.sandboxImage to one that is there, or allow the finding where {target} can pull it without credentials."),
        ));
    }
    // Running containers do not need their images, and the store stays.
    if view.upgrades() {
        return findings;
    }
    let others: Vec<String> = carried
        .missing
        .iter()
        .filter(|name| **name != carried.sandbox)
        .cloned()
        .collect();
    if !others.is_empty() {
        findings.push(REQUIRED_IMAGE_MISSING.found(
            format!("not in {source}'s store by name: {}", lists::some(&others)),
            format!("Pull them with {source} on the node by tag, or allow the finding where the node can pull them under {target}."),
        ));
    }
    if view.shares_store() {
        return findings;
    }
    if !carried.unknown.is_empty() {
        findings.push(POD_IMAGES_UNKNOWN.found(
            format!(
                "{} without all containers, whose images are not known: {}; all images of {source}'s store are carried",
                lists::count(carried.unknown.len(), "pod"),
                lists::some(&carried.unknown)
            ),
            "To be sure that their images are there, and to carry no others, plan again once these pods run; delete those that have \
             ended.",
        ));
    }
    if !carried.by_digest.is_empty() {
        findings.push(IMAGE_PINNED_BY_DIGEST.found(
            format!(
                "{} by digest alone: {}",
                lists::count(carried.by_digest.len(), "image"),
                lists::some(&carried.by_digest)
            ),
            format!("They are pulled from their registries under {target}; make sure that the node can reach them, or tag the images."),
        ));
    }
    if !carried.nameless.is_empty() {
        findings.push(IMAGE_WITHOUT_NAME.found(
            format!(
                "images without a name are used by: {}",
                lists::some(&carried.nameless)
            ),
            format!("They are pulled from their registries under {target}."),
        ));
    }
    findings
}
