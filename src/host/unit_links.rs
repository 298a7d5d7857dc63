//! The symbolic links under `/etc/systemd/system` that decide whether a unit starts at boot, whether it can start at all,
//! and under which names: what `systemctl enable`, `disable` and `mask` make and remove. `enable` is not the inverse of
//! `disable`: it makes the links that the unit's `[Install]` section names, not those that were there.

use std::{collections::BTreeSet, io};

use serde::{Deserialize, Serialize};

use super::files::Files;
use crate::plan::host_path::HostPath;

/// Where the administrator's unit files and links lie.
const BASE: &str = "/etc/systemd/system";
/// Directories with unit files.
const UNIT_FILES: [&str; 5] = [
    BASE,
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// What directories with links of dependencies are called, behind a unit's name.
const DEPENDENCIES: [&str; 3] = [".wants", ".requires", ".upholds"];
/// The target of a link that masks a unit.
const MASK: &str = "/dev/null";

/// A symbolic link under `/etc/systemd/system`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitLink {
    /// Where it is.
    pub path: HostPath,
    /// Its target, as it is written there.
    pub target: String,
}

#[allow(clippy::expect_used, reason = "a constant")]
fn base() -> HostPath {
    HostPath::new(BASE).expect("an absolute path")
}

/// All links that enabling, disabling or masking `unit` may make, change or remove, sorted: those of the units and names
/// that its `[Install]` section names, too.
///
/// # Errors
/// When a directory or a link cannot be read, naming it.
pub fn of(files: &Files, unit: &str) -> io::Result<Vec<UnitLink>> {
    let all = all(files)?;
    let mut names = installed_with(files, unit)?;
    // An alias is a name of the unit, and may have links and aliases itself.
    loop {
        let known = names.len();
        let aliases = all.iter().filter(|link| names.contains(last(&link.target)));
        let aliases: Vec<String> = aliases.map(|link| last(link.path.as_str()).to_owned()).collect();
        names.extend(aliases);
        if names.len() == known {
            break;
        }
    }
    let concerns =
        |link: &UnitLink| names.contains(last(link.path.as_str())) || names.contains(last(&link.target));
    Ok(all.into_iter().filter(concerns).collect())
}

/// Whether something else than a link lies where `link` was.
///
/// # Errors
/// When its directory cannot be read.
pub fn is_displaced(files: &Files, link: &UnitLink) -> io::Result<bool> {
    Ok(files.read_link(&link.path)?.is_none() && files.exists(&link.path)?)
}

/// Whether `links` mask `unit`.
pub fn is_masked(links: &[UnitLink], unit: &str) -> bool {
    let mask = format!("{BASE}/{unit}");
    links
        .iter()
        .any(|link| link.path.as_str() == mask && link.target == MASK)
}

/// Whether a directory of unit files has a file, or a link to one, for `unit`; the link that masks it is neither.
///
/// # Errors
/// When a directory cannot be read, naming the path.
pub fn has_file(files: &Files, unit: &str) -> io::Result<bool> {
    for directory in UNIT_FILES {
        let path = HostPath::new(format!("{directory}/{unit}")).map_err(io::Error::other)?;
        let is_there = match files.read_link(&path)? {
            Some(target) => target != MASK,
            None => files.exists(&path)?,
        };
        if is_there {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes the links of `unit` exactly `links`, durably. systemd has to be reloaded afterwards.
///
/// # Errors
/// When one of them could not be made or removed, or a file of somebody else is in its place, naming the path.
pub fn restore(files: &Files, unit: &str, links: &[UnitLink]) -> io::Result<()> {
    for link in of(files, unit)? {
        if links.iter().all(|old| old.path != link.path) {
            files.remove_link(&link.path)?;
        }
    }
    // As systemd does it. All of them: a crash may have come between a link and its directory.
    for directory in dependencies(files)? {
        files.remove_empty_dir(&directory)?;
    }
    for link in links {
        if files.read_link(&link.path)?.as_ref() == Some(&link.target) {
            files.remove_link_leftover(&link.path)?;
        } else {
            files.put_link(&link.path, &link.target)?;
        }
    }
    settle(files)
}

/// Makes all links of units durable: systemd does not sync what it makes and removes.
///
/// # Errors
/// When a power cut may still change them, naming the directory.
pub fn settle(files: &Files) -> io::Result<()> {
    if files.exists(&base())? {
        files.sync_tree(&base())?;
    }
    Ok(())
}

/// The directories with links of dependencies.
fn dependencies(files: &Files) -> io::Result<Vec<HostPath>> {
    let mut names = files.list(&base())?;
    names.retain(|name| DEPENDENCIES.iter().any(|kind| name.ends_with(kind)));
    Ok(names.iter().filter_map(|name| base().join(name).ok()).collect())
}

/// All links of units.
fn all(files: &Files) -> io::Result<Vec<UnitLink>> {
    let mut links = Vec::new();
    let mut add = |directory: &HostPath, name: &str| -> io::Result<()> {
        // A name that is no part of a path is no unit's.
        if let Ok(path) = directory.join(name)
            && let Some(target) = files.read_link(&path)?
        {
            links.push(UnitLink { path, target });
        }
        Ok(())
    };
    for name in files.list(&base())? {
        add(&base(), &name)?;
    }
    for directory in dependencies(files)? {
        for name in files.list(&directory)? {
            add(&directory, &name)?;
        }
    }
    links.sort();
    Ok(links)
}

/// A unit with the units and names that are installed together with it.
fn installed_with(files: &Files, unit: &str) -> io::Result<BTreeSet<String>> {
    let (mut names, mut rest) = (BTreeSet::new(), vec![unit.to_owned()]);
    while let Some(name) = rest.pop() {
        if !names.insert(name.clone()) {
            continue;
        }
        let stem = name.rsplit_once('.').map_or(&*name, |(stem, _)| stem);
        for directory in UNIT_FILES {
            let Ok(path) = HostPath::new(format!("{directory}/{name}")) else {
                continue;
            };
            // The file may be a link to a device, which masks the unit.
            let bytes = files.read(&path)?.unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let values = text.lines().filter_map(|line| {
                let (key, value) = line.split_once('=')?;
                matches!(key.trim(), "Also" | "Alias").then_some(value)
            });
            for word in values.flat_map(str::split_whitespace) {
                rest.push(word.replace("%n", &name).replace("%p", stem).replace("%N", stem));
            }
        }
    }
    Ok(names)
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(path: &str, target: &str) -> UnitLink {
        UnitLink {
            path: HostPath::new(format!("{BASE}/{path}")).unwrap(),
            target: target.to_owned(),
        }
    }

    #[test]
    fn the_links_of_a_unit_are_found_and_restored_whatever_happened_to_them() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let text = "[Install]\nAlso=%p.socket\nAlias=engine.service\n";
        let fragment = HostPath::new("/opt/docker/docker.service").unwrap();
        files.write(&fragment, text.as_bytes(), 0o644).unwrap();
        let before = [
            link("docker.service", fragment.as_str()),
            link("engine.service", "docker.service"),
            link("kubelet.service.requires/engine.service", "../engine.service"),
            link("multi-user.target.wants/docker.service", fragment.as_str()),
            link(
                "sockets.target.wants/docker.socket",
                "/lib/systemd/system/docker.socket",
            ),
        ];
        let foreign = link(
            "multi-user.target.wants/cron.service",
            "/lib/systemd/system/cron.service",
        );
        for link in before.iter().chain([&foreign]) {
            files.put_link(&link.path, &link.target).unwrap();
        }
        assert_eq!(of(&files, "docker.service").unwrap(), before);
        assert!(!is_masked(&before, "docker.service"));
        // What disable and mask do.
        for link in &before {
            files.remove_link(&link.path).unwrap();
            if link.path.parent() != Some(base()) {
                files.remove_empty_dir(&link.path.parent().unwrap()).unwrap();
            }
        }
        files.put_link(&before[0].path, MASK).unwrap();
        let masked = of(&files, "docker.service").unwrap();
        assert!(is_masked(&masked, "docker.service"));
        // And what an enable by somebody else adds.
        let added = link("graphical.target.wants/docker.service", fragment.as_str());
        files.put_link(&added.path, &added.target).unwrap();
        restore(&files, "docker.service", &before).unwrap();
        assert_eq!(of(&files, "docker.service").unwrap(), before);
        assert!(!files.exists(&added.path.parent().unwrap()).unwrap());
        assert_eq!(files.read_link(&foreign.path).unwrap(), Some(foreign.target));
    }

    #[test]
    fn a_file_in_the_place_of_a_link_is_not_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let mask = link("docker.service", MASK);
        files.write(&mask.path, b"[Service]\n", 0o644).unwrap();
        let refused = restore(&files, "docker.service", &[mask]).unwrap_err();
        assert!(refused.to_string().contains("docker.service"), "{refused}");
    }
}
