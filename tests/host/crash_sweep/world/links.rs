//! The links below `/etc/systemd/system` that make units what they are at boot, as a host has them before a plan.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::crash_sweep::cases::Case;

/// Where the links of units are.
pub const BASE: &str = "etc/systemd/system";

/// The links that make the units of a case what they are at boot.
pub fn lay_links(root: &Path, case: &Case) {
    // systemd makes the one of this boot.
    fs::create_dir_all(root.join("run/systemd/system")).unwrap();
    let lay = |at: &Path, target: &str| {
        fs::create_dir_all(root.join(at).parent().unwrap()).unwrap();
        symlink(target, root.join(at)).unwrap();
    };
    for (at, target) in &case.links {
        lay(Path::new(at.relative()), target);
    }
    for (name, _, boot) in &case.units {
        let file = root.join(vendor(name).trim_start_matches('/'));
        if !case.linked.contains(name) && !file.exists() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        let wanted = wanted_link(name);
        match boot.as_str() {
            "enabled" if !root.join(&wanted).is_symlink() => lay(&wanted, &vendor(name)),
            "masked" => lay(&Path::new(BASE).join(name), "/dev/null"),
            _ => {}
        }
    }
}

/// The link by which a unit's `[Install]` section has it started.
pub fn wanted_link(name: &str) -> PathBuf {
    let target = if name.ends_with(".socket") {
        "sockets.target"
    } else {
        "multi-user.target"
    };
    Path::new(BASE).join(format!("{target}.wants")).join(name)
}

pub fn vendor(name: &str) -> String {
    format!("/lib/systemd/system/{name}")
}
