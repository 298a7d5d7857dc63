//! Packages of the RPM family. dnf, 4 or 5, only finds and fetches what is missing, into a directory of our own; rpm
//! puts exactly these files in. `rpm -i` neither upgrades nor removes, and unlike dnf 5, which looks at no signature
//! of what it only downloads, it can be told to demand one. Removal is rpm's alone, too.
//!
//! rpm has no record of what an interrupted run left. So packages get the name under which they are kept just before
//! it begins: where there are some, what is there of them is removed before anything else.

mod packed;

use std::collections::BTreeSet;

use packed::{Packed, configuration, names};

use super::{ASK, WORK, archives, ask, clear, fail, kept, listed, prepared, run, when_free};
use crate::{
    executor::step::{Saved, StepError, install::InstallError},
    host::files::Files,
    plan::{host_path::HostPath, step::Package},
};

/// Image-based systems that boot from ostree have this file, and no place that packages could be put into.
const OSTREE: &str = "/run/ostree-booted";
/// Whatever the host's own settings are: nothing without a good signature by a key that rpm knows, and files that
/// are on the disk when rpm says so (`_pkgverify_level`, `_flush_io` of rpm 4.14 and later).
const CAREFULLY: [&str; 4] = [
    "--define",
    "_pkgverify_level signature",
    "--define",
    "_flush_io 1",
];
/// What rpm puts beside a configuration file: the package's own where another one was there, and the changed one
/// where the package was removed.
const NEW: &str = ".rpmnew";
const ASIDE: &str = ".rpmsave";

pub(super) async fn save(files: &Files, step: &Package) -> Result<Saved, StepError> {
    if files.exists(&HostPath::new(OSTREE)?)? {
        return Err(fail(
            "this host is an image (ostree), which no package is added to; use target.from.archive"
                .to_owned(),
        ));
    }
    if is_installed(files, step).await? {
        return Ok(Saved::Packages {
            added: Vec::new(),
            configuration: Vec::new(),
            links: Vec::new(),
        });
    }
    offered(files, step).await?;
    let looked = match fetch(files, step).await {
        Ok(()) => look_through(files, step).await,
        Err(error) => Err(error),
    };
    match looked {
        Ok(packed) => Ok(Saved::Packages {
            configuration: configuration(&packed),
            added: packed.into_iter().map(|packed| packed.name).collect(),
            links: Vec::new(),
        }),
        Err(error) => {
            clear(files)?;
            Err(error)
        }
    }
}

pub(super) async fn install(files: &Files, step: &Package) -> Result<(), StepError> {
    let (kept, scratch) = (kept()?, Files::scratch(&kept()?)?);
    let half_done = packed(files, &kept).await?;
    take_back(files, &names(&half_done), &configuration(&half_done), &half_done).await?;
    if !is_installed(files, step).await? {
        if half_done.is_empty() {
            files.sync_file_system(&scratch)?;
            files.publish(&scratch, &kept)?;
        }
        let packed = packed(files, &kept).await?;
        tracing::info!(packages = ?names(&packed), "installing");
        put_in(files, &packed, &[]).await?;
    }
    Ok(())
}

/// Removes what is there of these packages, and puts back the `configuration` that was there before them.
pub(super) async fn remove(
    files: &Files,
    added: &[String],
    configuration: &[HostPath],
) -> Result<(), StepError> {
    let half_done = packed(files, &kept()?).await?;
    take_back(files, added, configuration, &half_done).await
}

/// Whether the package is there as planned.
async fn is_installed(files: &Files, step: &Package) -> Result<bool, StepError> {
    match &*installed(files, std::slice::from_ref(&step.name)).await? {
        [] => Ok(false),
        [(_, version, _)] if *version == in_rpm(&step.version) => Ok(true),
        [(_, version, release), ..] => Err(fail(format!(
            "{} {version}-{release} is installed, and {} was planned; it would be replaced",
            step.name, step.version
        ))),
    }
}

/// rpm's `Version` has no hyphen, and `~` before what sorts below the release (`2.1.0~rc.1`).
fn in_rpm(version: &str) -> String {
    version.replace('-', "~")
}

/// Name, version and release of those of these packages that are installed.
async fn installed(files: &Files, names: &[String]) -> Result<Vec<(String, String, String)>, StepError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut arguments = vec!["-q", "--qf", "%{NAME}\t%{VERSION}\t%{RELEASE}\n"];
    arguments.extend(names.iter().map(String::as_str));
    let output = ask(prepared(files, "rpm", &arguments)?, ASK).await?;
    let answer = String::from_utf8_lossy(&output.stdout);
    let found: Vec<(String, String, String)> = columns(&answer)
        .map(|[name, version, release]| (name.to_owned(), version.to_owned(), release.to_owned()))
        .collect();
    // It fails when one is not installed, and when it cannot say.
    let missing = |name: &String| {
        answer
            .lines()
            .any(|line| line == format!("package {name} is not installed"))
    };
    if let Some(name) = names
        .iter()
        .find(|name| !missing(name) && !found.iter().any(|(found, ..)| found == *name))
    {
        let why = output.stderr.trim();
        return Err(fail(format!(
            "rpm does not say whether {name} is installed: {why}"
        )));
    }
    Ok(found)
}

/// Lines of exactly three columns; plugins of dnf print lines of their own between them.
fn columns(text: &str) -> impl Iterator<Item = [&str; 3]> {
    text.lines()
        .filter_map(|line| line.split('\t').collect::<Vec<_>>().try_into().ok())
}

/// Whether a repository has the planned version.
async fn offered(files: &Files, step: &Package) -> Result<(), StepError> {
    // With a line break of its own: dnf 5 adds none.
    let format = "%{name}\t%{version}\t%{release}\n";
    let listing = run(
        files,
        "dnf",
        &["repoquery", "-q", "--qf", format, &step.name],
        WORK,
    )
    .await?;
    let offered: BTreeSet<(&str, &str)> = columns(&listing)
        .filter(|[name, ..]| *name == step.name)
        .map(|[_, version, release]| (version, release))
        .collect();
    let wanted = in_rpm(&step.version);
    if offered.iter().any(|(version, _)| *version == wanted) {
        return Ok(());
    }
    let others: Vec<String> = offered
        .iter()
        .map(|(version, release)| format!("{version}-{release}"))
        .collect();
    Err(fail(format!(
        "no repository of this node has {} {}, but {}; `dnf makecache --refresh` reads the repositories again",
        step.name,
        step.version,
        listed(&others)
    )))
}

/// Fetches the package with all that it needs and is not there.
async fn fetch(files: &Files, step: &Package) -> Result<(), StepError> {
    clear(files)?;
    let scratch = Files::scratch(&kept()?)?;
    files.create_dir_all(&scratch)?;
    let into = format!("--setopt=destdir={}", files.real(&scratch)?.display());
    let chosen = format!("{}-{}", step.name, in_rpm(&step.version));
    let mut arguments = vec!["install", "-q", "-y", "--downloadonly", &into];
    arguments.extend([
        "--setopt=install_weak_deps=0",
        // Without it dnf 5 removes them after its next transaction, wherever they are.
        "--setopt=keepcache=1",
        // dnf 4 would bring a missing key into rpm's database by itself. rpm checks the signatures.
        "--setopt=*.gpgcheck=0",
    ]);
    arguments.push(&chosen);
    run(files, "dnf", &arguments, WORK).await.map(|_| ())
}

/// Reads the fetched packages, and demands that putting them in only adds.
async fn look_through(files: &Files, step: &Package) -> Result<Vec<Packed>, StepError> {
    let packed = packed(files, &Files::scratch(&kept()?)?).await?;
    let wanted = in_rpm(&step.version);
    if !packed
        .iter()
        .any(|packed| packed.name == step.name && packed.version == wanted)
    {
        return Err(fail(format!(
            "dnf fetched {}, and not {} {}",
            listed(&names(&packed)),
            step.name,
            step.version
        )));
    }
    let old = installed(files, &names(&packed)).await?;
    if !old.is_empty() {
        let old = old
            .iter()
            .map(|(name, version, release)| format!("{name} {version}-{release}"));
        return Err(fail(format!(
            "installing {} {} would replace {}; nothing was installed",
            step.name,
            step.version,
            listed(&old.collect::<Vec<_>>())
        )));
    }
    for path in configuration(&packed) {
        for left in [format!("{path}{NEW}"), format!("{path}{ASIDE}")] {
            if files.exists(&HostPath::new(&*left)?)? {
                return Err(fail(format!(
                    "{left} is left of an earlier installation; look at it and move it away"
                )));
            }
        }
    }
    for content in packed.iter().flat_map(|packed| &packed.contents) {
        if !content.is_directory() && !content.gives_way() && files.exists(&content.path)? {
            let owner = prepared(files, "rpm", &["-qf", content.path.as_str()])?;
            let owner = ask(owner, ASK).await?;
            // One that a package owns is for rpm to judge: packages may share what is the same in both.
            if !owner.status.success() {
                return Err(fail(format!(
                    "installing {} {} would replace {}, which belongs to no package; nothing was installed",
                    step.name, step.version, content.path
                )));
            }
        }
    }
    put_in(files, &packed, &["--test"]).await?;
    Ok(packed)
}

/// Has rpm put in these packages, and remove, replace and obsolete nothing.
async fn put_in(files: &Files, packed: &[Packed], options: &[&str]) -> Result<(), StepError> {
    let mut arguments = vec!["-i"];
    arguments.extend(CAREFULLY);
    arguments.extend(options);
    arguments.extend(packed.iter().map(|packed| &*packed.archive));
    match when_free(files, "rpm", &arguments).await {
        Err(StepError::Install(InstallError::Unverified(why))) => Err(fail(format!(
            "{why}; `rpm --import` makes the key of a repository known"
        ))),
        done => done,
    }
}

/// Removes what is there of `added`. Of the packages that an interrupted run of rpm was putting in, `half_done`,
/// there may be files that its database does not know.
async fn take_back(
    files: &Files,
    added: &[String],
    configuration: &[HostPath],
    half_done: &[Packed],
) -> Result<(), StepError> {
    remove_unfinished(files, half_done)?;
    let there = installed(files, added).await?;
    let mut remove: BTreeSet<String> = there.into_iter().map(|(name, ..)| name).collect();
    let unknown: Vec<Packed> = half_done
        .iter()
        .filter(|packed| !remove.contains(&packed.name))
        .cloned()
        .collect();
    if !unknown.is_empty() {
        // Made known without touching a file, they are removed like the others.
        let unchecked = ["--justdb", "--nodeps", "--noscripts", "--notriggers"];
        put_in(files, &unknown, &unchecked).await?;
        remove.extend(names(&unknown));
    }
    if !remove.is_empty() {
        let mut arguments = vec!["-e"];
        arguments.extend(remove.iter().map(String::as_str));
        when_free(files, "rpm", &arguments).await?;
    }
    for path in configuration {
        let aside = HostPath::new(format!("{path}{ASIDE}"))?;
        if files.exists(&aside)? && !files.exists(path)? {
            files.rename(&aside, path)?;
        }
        files.remove(&HostPath::new(format!("{path}{NEW}"))?)?;
    }
    Ok(())
}

/// Removes the files that rpm was still writing. Until a package is unpacked wholly each has the transaction's number
/// behind its name: `/usr/bin/runc;6b01ffd9`.
fn remove_unfinished(files: &Files, half_done: &[Packed]) -> Result<(), StepError> {
    let paths: BTreeSet<&str> = half_done
        .iter()
        .flat_map(|packed| &packed.contents)
        .map(|content| content.path.as_str())
        .collect();
    let parents: BTreeSet<HostPath> = half_done
        .iter()
        .flat_map(|packed| &packed.contents)
        .filter_map(|content| content.path.parent())
        .collect();
    for parent in parents {
        for name in files.list(&parent)? {
            let Some((whole, number)) = name.rsplit_once(';') else {
                continue;
            };
            let whole = parent.join(whole.strip_suffix(NEW).unwrap_or(whole))?;
            let numbered = number.len() == 8 && number.chars().all(|digit| digit.is_ascii_hexdigit());
            if numbered && paths.contains(whole.as_str()) {
                files.remove(&parent.join(&name)?)?;
            }
        }
    }
    Ok(())
}

/// The packages in this directory.
async fn packed(files: &Files, directory: &HostPath) -> Result<Vec<Packed>, StepError> {
    let mut packed = Vec::new();
    let archives = archives(files, directory)?.into_iter();
    for archive in archives.filter(|archive| archive.ends_with(".rpm")) {
        // Who signed it is asked for when it is put in.
        let arguments = ["-qp", "--nosignature", "--qf", Packed::FORMAT, &archive];
        let listing = run(files, "rpm", &arguments, ASK).await?;
        packed.push(
            Packed::read(&archive, &listing)
                .ok_or_else(|| fail(format!("what is in {archive} cannot be understood")))?,
        );
    }
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_plugins_print_is_no_package() {
        let printed = "Updating Subscription Management repositories.\ncontainerd.io\t1.7.28\t1.el9\n\n";
        assert_eq!(
            columns(printed).collect::<Vec<_>>(),
            [["containerd.io", "1.7.28", "1.el9"]]
        );
    }

    #[test]
    fn fuzz_columns() {
        use crate::fuzz::{hold, samples};

        hold(&samples("rpm-listing", &[]), |text| {
            assert!(
                columns(text)
                    .flatten()
                    .all(|column| !column.contains(['\t', '\n']))
            );
        });
    }
}
