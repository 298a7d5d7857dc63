//! Images: those without which the node could not come back, and those that lose a name on the way.

use crate::plan::finding::Code;

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
/// Containers are not there yet.
pub const POD_IMAGES_UNKNOWN: Code = Code::warn(
    "PodImagesUnknown",
    "Pods of the kubelet do not have all their containers yet, so their images are not known without the API server: all images of \
     the source's store are carried",
);

/// All codes of this module.
pub const CODES: &[Code] = &[
    SANDBOX_IMAGE_MISSING,
    REQUIRED_IMAGE_MISSING,
    IMAGE_PINNED_BY_DIGEST,
    IMAGE_WITHOUT_NAME,
    POD_IMAGES_UNKNOWN,
];
