//! What becomes of the source's settings: nothing is dropped in silence.

use crate::plan::finding::Code;

/// A setting comes along.
pub const DOCKER_SETTING_CARRIED: Code = Code::info(
    "DockerSettingCarried",
    "A setting of Docker means the same under the target",
);
/// A setting comes along in another form.
pub const DOCKER_SETTING_APPROXIMATED: Code = Code::warn(
    "DockerSettingApproximated",
    "A setting of Docker has a counterpart that is not quite the same",
);
/// A setting stays behind.
pub const DOCKER_SETTING_NOT_CARRIED: Code = Code::block_unless_allowed(
    "DockerSettingNotCarried",
    "A setting of Docker on which pods may depend is not carried over by this version, or cannot be",
)
.by_subject();

/// A setting of another source than Docker comes along.
pub const SETTING_CARRIED: Code = Code::info(
    "SettingCarried",
    "A setting of containerd or CRI-O, which is left, means the same under the target",
);
/// A setting of another source comes along in another form.
pub const SETTING_APPROXIMATED: Code = Code::warn(
    "SettingApproximated",
    "A setting of containerd or CRI-O, which is left, has a counterpart that is not quite the same, or none that pods depend on",
);
/// A setting of another source stays behind.
pub const SETTING_NOT_CARRIED: Code = Code::block_unless_allowed(
    "SettingNotCarried",
    "A setting of containerd or CRI-O, which is left, on which pods may depend is not carried over",
)
.by_subject();

/// All codes of this module.
pub const CODES: &[Code] = &[
    DOCKER_SETTING_CARRIED,
    DOCKER_SETTING_APPROXIMATED,
    DOCKER_SETTING_NOT_CARRIED,
    SETTING_CARRIED,
    SETTING_APPROXIMATED,
    SETTING_NOT_CARRIED,
];
