//! The links below `/etc/systemd/system` that make units what they are at boot: as a host has them before a plan, and as systemd
//! changes them.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use transship::{
    executor::unit::UNIT,
    host::{files::Effect, systemd::SystemdError},
};

use super::{FakeUnit, World, systemd::refused};
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

impl World {
    /// Where the link of a unit itself leads, if it has one.
    pub(super) fn own_link(&self, name: &str) -> Option<PathBuf> {
        fs::read_link(self.root.join(BASE).join(name)).ok()
    }

    /// Whether systemd finds the unit's file.
    pub(super) fn has_file(&self, name: &str) -> bool {
        let linked = self
            .own_link(name)
            .is_some_and(|target| target != Path::new("/dev/null"));
        match name {
            UNIT => self.root.join(BASE).join(UNIT).is_file(),
            _ => linked || !self.case.linked.iter().any(|unit| unit == name),
        }
    }

    /// A unit's `UnitFileState`.
    pub fn boot(&self, name: &str, unit: &FakeUnit) -> String {
        if self
            .own_link(name)
            .is_some_and(|target| target == Path::new("/dev/null"))
        {
            return "masked".to_owned();
        }
        // A link alone makes no unit.
        if name == UNIT && !self.has_file(name) {
            return String::new();
        }
        let wanted = self.links_to(name).iter().any(|link| {
            link.parent()
                .is_some_and(|directory| directory != self.root.join(BASE))
                || !link.ends_with(name)
        });
        match wanted {
            true => "enabled".to_owned(),
            false if self.own_link(name).is_some() => "linked".to_owned(),
            false => unit.boot.clone(),
        }
    }

    /// The links that make a unit start, and its aliases: those that have its name, and those that lead to it.
    pub(super) fn links_to(&self, name: &str) -> Vec<PathBuf> {
        let entries = |directory: PathBuf| -> Vec<PathBuf> {
            let read = fs::read_dir(directory).into_iter().flatten();
            read.map(|entry| entry.unwrap().path()).collect()
        };
        let top = entries(self.root.join(BASE));
        let below = top
            .iter()
            .filter(|path| path.extension().is_some_and(|kind| kind == "wants"))
            .flat_map(|path| entries(path.clone()));
        let mut all: Vec<PathBuf> = top.iter().cloned().chain(below).collect();
        all.sort();
        all.retain(|path| {
            let hidden = path.to_string_lossy().ends_with(".transship");
            let target = fs::read_link(path);
            !hidden && target.is_ok_and(|target| path.ends_with(name) || target.ends_with(name))
        });
        all
    }

    /// systemd changes what is at this path, if the disk lets it.
    pub(super) fn change(
        &self,
        verb: &'static str,
        unit: &str,
        path: &Path,
        change: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), SystemdError> {
        self.about_to(Effect::Change(path))
            .and_then(|()| change(path))
            .map_err(|error| refused(verb, unit, &error.to_string()))
    }

    /// Makes a link, in the place of another one.
    pub(super) fn lay(
        &self,
        verb: &'static str,
        unit: &str,
        at: &Path,
        target: &str,
    ) -> Result<(), SystemdError> {
        let at = self.root.join(at);
        if fs::read_link(&at).is_ok_and(|now| now == Path::new(target)) {
            return Ok(());
        }
        let directory = at.parent().unwrap();
        if !directory.exists() {
            self.change(verb, unit, directory, |path| fs::create_dir_all(path))?;
        }
        self.change(verb, unit, &at, |path| {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            symlink(target, path)
        })
    }

    /// Makes the link that the unit's `[Install]` section names, as a package's script does.
    pub fn link_wanted(&self, name: &str) -> Result<(), SystemdError> {
        self.lay("enable", name, &wanted_link(name), &vendor(name))
    }

    /// Removes that link, and the directory if nothing else is in it, as the script of a package that is purged does
    /// (deb-systemd-helper).
    pub fn unlink_wanted(&self, name: &str) -> Result<(), SystemdError> {
        let link = self.root.join(wanted_link(name));
        if link.is_symlink() {
            self.change("purge", name, &link, |path| fs::remove_file(path))?;
        }
        let directory = link.parent().unwrap();
        if fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none()) {
            self.change("purge", name, directory, |path| fs::remove_dir(path))?;
        }
        Ok(())
    }
}
