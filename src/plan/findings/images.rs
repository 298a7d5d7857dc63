//! Images: those without which the node could not come back, and those that lose a name on the way.

use super::{Code, View};
use crate::plan::{finding::Finding, runtimes::store_of};

/// The sandbox image is not there.
pub const SANDBOX_IMAGE_MISSING: Code = Code::block_unless_allowed(
    "SandboxImageMissing",
    "The sandbox image is not in the source's store, so it cannot be carried; the target would have to pull it",
);
/// Another image without which the node could not come back is not there.
pub const REQUIRED_IMAGE_MISSING: Code = Code::block_unless_allowed(
    "RequiredImageMissing",
    "An image of Transship's agent, of a static pod or of a DaemonSet is not in the source's store by its name",
);
/// The name is a digest.
pub const IMAGE_PINNED_BY_DIGEST: Code = Code::warn(
    "ImagePinnedByDigest",
    "An image in use has no tag, only a digest, and Docker Engine takes no image under such a name: it will be pulled again",
);
/// There is no name.
pub const IMAGE_WITHOUT_NAME: Code = Code::warn(
    "ImageWithoutName",
    "A pod uses an image whose name has moved on; it will be pulled again",
);

/// All codes of this module.
pub const CODES: &[Code] = &[
    SANDBOX_IMAGE_MISSING,
    REQUIRED_IMAGE_MISSING,
    IMAGE_PINNED_BY_DIGEST,
    IMAGE_WITHOUT_NAME,
];

/// Checks of the images.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let cargo = view.cargo;
    let (source, target) = (store_of(view.source.runtime), store_of(view.target.runtime));
    let mut findings = Vec::new();
    if cargo.missing.contains(&cargo.sandbox) {
        findings.push(SANDBOX_IMAGE_MISSING.found(
            format!("the sandbox image {} is not in {source}'s store", cargo.sandbox),
            format!("Pull it with {source} on the node, set target.sandboxImage to one that is there, or allow the finding where {target} can pull it without credentials."),
        ));
    }
    let others: Vec<String> = cargo
        .missing
        .iter()
        .filter(|name| **name != cargo.sandbox)
        .cloned()
        .collect();
    if !others.is_empty() {
        findings.push(REQUIRED_IMAGE_MISSING.found(
            format!("not in {source}'s store by name: {}", super::some(&others)),
            format!("Pull them with {source} on the node by tag, or allow the finding where the node can pull them under {target}."),
        ));
    }
    if view.shares_store() {
        return findings;
    }
    if !cargo.by_digest.is_empty() {
        findings.push(IMAGE_PINNED_BY_DIGEST.found(
            format!(
                "{} by digest alone: {}",
                super::count(cargo.by_digest.len(), "image"),
                super::some(&cargo.by_digest)
            ),
            format!("They are pulled from their registries under {target}; make sure that the node can reach them, or tag the images."),
        ));
    }
    if !cargo.nameless.is_empty() {
        findings.push(IMAGE_WITHOUT_NAME.found(
            format!(
                "images without a name are used by: {}",
                super::some(&cargo.nameless)
            ),
            format!("They are pulled from their registries under {target}."),
        ));
    }
    findings
}
