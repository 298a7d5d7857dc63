//! Packages of Debian and Ubuntu. apt says beforehand what it would do; dpkg alone removes what was added. A package of
//! which dpkg was killed while it unpacked it can be neither configured nor removed, only unpacked again: that is what
//! the archives are kept for.

use super::{ASK, WORK, answer, archives, ask, clear, fail, kept, listed, prepared, run, when_free};
use crate::{
    executor::step::{Saved, StepError},
    host::files::Files,
    plan::{step::Package, version},
};

/// What apt would do.
#[derive(Debug, Default, PartialEq, Eq)]
struct Transaction {
    /// Packages that are not there.
    added: Vec<String>,
    /// Packages that are there and would not be as they are, in words.
    touched: Vec<String>,
}

pub(super) async fn save(files: &Files, step: &Package) -> Result<Saved, StepError> {
    let unsettled = run(files, "dpkg", &["--audit"], ASK).await?;
    if !unsettled.trim().is_empty() {
        return Err(fail(format!(
            "dpkg has unfinished packages; see `dpkg --audit`: {}",
            unsettled.trim()
        )));
    }
    let added = match chosen(files, step).await? {
        Some(chosen) => simulate(files, &chosen).await?.added,
        None => Vec::new(),
    };
    for name in &added {
        // Taking the package back would take away what it left when it was removed.
        if let Some((status, _)) = state(files, name).await? {
            return Err(fail(format!(
                "{name} is not installed, but {status} of it is left; `dpkg --purge {name}` clears it"
            )));
        }
    }
    Ok(Saved::Packages {
        added,
        configuration: Vec::new(),
        links: Vec::new(),
    })
}

pub(super) async fn install(files: &Files, step: &Package) -> Result<(), StepError> {
    settle(files).await?;
    let Some(chosen) = chosen(files, step).await? else {
        return Ok(());
    };
    let transaction = simulate(files, &chosen).await?;
    tracing::info!(package = chosen, added = ?transaction.added, "installing");
    let wanted = transaction.added.iter().map(|name| {
        // The others in the version that the simulation took, too: the newest.
        if *name == step.name { &*chosen } else { name }
    });
    let archives = download(files, wanted).await?;
    let mut arguments = vec!["install", "-o", "DPkg::Lock::Timeout=300"];
    arguments.extend(["-o", "Dpkg::Options::=--force-confdef"]);
    arguments.extend(["-o", "Dpkg::Options::=--force-confold"]);
    arguments.extend(["-o", "APT::Keep-Downloaded-Packages=false"]);
    arguments.extend(ONLY_ADDS);
    arguments.extend(archives.iter().map(String::as_str));
    run(files, "apt-get", &arguments, WORK).await?;
    match state(files, &step.name).await? {
        Some((status, _)) if status == "installed" => Ok(()),
        other => Err(fail(format!("apt-get is done, and {} is {other:?}", step.name))),
    }
}

/// Removes what is there of these packages, with their configuration. Where another one needs them, dpkg refuses.
pub(super) async fn remove(files: &Files, added: &[String]) -> Result<(), StepError> {
    let (mut arguments, mut half) = (vec!["--purge"], vec!["--unpack".to_owned()]);
    let archives = archives(files, &kept()?)?;
    for name in added {
        let Some((status, _)) = state(files, name).await? else {
            continue;
        };
        arguments.push(name);
        if status == "half-installed" {
            half.extend(archives.iter().find(|archive| is_of(archive, name)).cloned());
        }
    }
    if half.len() > 1 {
        let half: Vec<&str> = half.iter().map(String::as_str).collect();
        when_free(files, "dpkg", &half).await?;
    }
    // A disk that is full has room for the rest then.
    clear(files)?;
    if arguments.len() > 1 {
        when_free(files, "dpkg", &arguments).await?;
    }
    Ok(())
}

/// Finishes what a run that was interrupted had begun. Archives that are there are whole, and dpkg may have had them.
async fn settle(files: &Files) -> Result<(), StepError> {
    let archives = archives(files, &kept()?)?;
    let mut arguments = vec!["--force-confold"];
    if !archives.is_empty() {
        arguments.extend(["--skip-same-version", "--install"]);
        arguments.extend(archives.iter().map(String::as_str));
    } else if !run(files, "dpkg", &["--audit"], ASK).await?.trim().is_empty() {
        arguments.extend(["--configure", "-a"]);
    } else {
        return Ok(());
    }
    when_free(files, "dpkg", &arguments).await
}

/// Fetches the archives of these packages; answers where they are, once that is durable.
async fn download(files: &Files, packages: impl Iterator<Item = &str>) -> Result<Vec<String>, StepError> {
    clear(files)?;
    let at = kept()?;
    let scratch = Files::scratch(&at)?;
    files.create_dir_all(&scratch)?;
    let arguments: Vec<&str> = ["download"].into_iter().chain(packages).collect();
    let mut command = prepared(files, "apt-get", &arguments)?;
    // apt-get leaves them where it runs.
    command.current_dir(files.real(&scratch)?);
    answer(command, WORK).await?;
    files.sync_file_system(&scratch)?;
    files.publish(&scratch, &at)?;
    archives(files, &at)
}

/// Whether this is the archive of the package: `/…/runc_1.1.5-1_amd64.deb`.
fn is_of(archive: &str, package: &str) -> bool {
    let file = archive.rsplit('/').next().and_then(|file| file.split_once('_'));
    file.is_some_and(|(name, _)| package.split(':').next() == Some(name))
}

/// The package with the version that is to be installed, as apt names it; nothing when it is installed already.
async fn chosen(files: &Files, step: &Package) -> Result<Option<String>, StepError> {
    let wanted = version::upstream(&step.version);
    if let Some((status, found)) = state(files, &step.name).await? {
        if status == "installed" && upstream(&found) == wanted {
            return Ok(None);
        }
        if status == "installed" {
            return Err(fail(format!(
                "{} {found} is installed, and {} was planned; it would be replaced",
                step.name, step.version
            )));
        }
    }
    let madison = run(files, "apt-cache", &["madison", &step.name], ASK).await?;
    let versions: Vec<String> = madison
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(|version| version.trim().to_owned())
        .collect();
    let found = versions.iter().find(|version| upstream(version) == wanted);
    found
        .map(|version| Some(format!("{}={version}", step.name)))
        .ok_or_else(|| {
            fail(format!(
                "no repository of this node has {} {}, but {}; `apt-get update` reads the repositories again",
                step.name,
                step.version,
                listed(&versions)
            ))
        })
}

/// The upstream version of a package's: without its epoch, and without what the distribution added.
fn upstream(package: &str) -> Option<semver::Version> {
    let without = package.split_once(':').map_or(package, |(_, version)| version);
    version::upstream(without)
}

/// Options without which a transaction might take something away.
const ONLY_ADDS: [&str; 5] = [
    "-y",
    "--no-install-recommends",
    "--no-remove",
    "--no-upgrade",
    // Removed packages are not looked at either.
    "-oAPT::Get::AutomaticRemove=false",
];

async fn simulate(files: &Files, chosen: &str) -> Result<Transaction, StepError> {
    let mut arguments = vec!["install", "-s"];
    // What would be taken away shall be told, not be an error of apt.
    arguments.extend(
        ONLY_ADDS
            .iter()
            .filter(|option| !option.starts_with("--no-remove")),
    );
    arguments.push(chosen);
    let transaction = transaction(&run(files, "apt-get", &arguments, ASK).await?);
    if transaction.touched.is_empty() {
        return Ok(transaction);
    }
    Err(fail(format!(
        "installing {chosen} would {}; nothing was installed",
        transaction.touched.join(", ")
    )))
}

/// Reads what `apt-get -s` prints: `Inst runc (1.1.5 Debian:12/stable [amd64])`, `Inst libc6 [2.36-9] (2.36-9+deb12u1 …)`,
/// `Remv docker-ce [5:24.0]`.
fn transaction(simulated: &str) -> Transaction {
    let mut transaction = Transaction::default();
    for line in simulated.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("Inst"), Some(name), Some(old)) if old.starts_with('[') => {
                transaction.touched.push(format!("replace {name} {old}"));
            }
            (Some("Inst"), Some(name), _) => transaction.added.push(name.to_owned()),
            (Some("Remv" | "Purg"), Some(name), _) => transaction.touched.push(format!("remove {name}")),
            _ => {}
        }
    }
    transaction
}

/// Status and version of a package that dpkg knows something of.
async fn state(files: &Files, name: &str) -> Result<Option<(String, String)>, StepError> {
    let format = "-f=${db:Status-Status} ${Version}\n";
    let output = ask(prepared(files, "dpkg-query", &["-W", format, name])?, ASK).await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let known = text.lines().filter_map(|line| line.split_once(' '));
    Ok(known
        .map(|(status, version)| (status.to_owned(), version.to_owned()))
        .find(|(status, _)| status != "not-installed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulation_tells_what_is_added_and_what_is_touched() {
        let simulated = "Reading package lists...\nInst runc (1.1.5+ds1-1 Debian:12/stable [amd64])\n\
             Inst libc6 [2.36-9] (2.36-9+deb12u1 Debian:12/stable [amd64])\nRemv docker-ce [5:24.0.7]\n\
             Conf runc (1.1.5+ds1-1 Debian:12/stable [amd64])\n";
        let wanted = Transaction {
            added: vec!["runc".into()],
            touched: vec!["replace libc6 [2.36-9]".into(), "remove docker-ce".into()],
        };
        assert_eq!(transaction(simulated), wanted);
    }

    #[test]
    fn an_epoch_is_no_part_of_the_version() {
        assert_eq!(
            upstream("5:24.0.7-1~debian.12~bookworm"),
            version::upstream("24.0.7")
        );
        assert_eq!(upstream("1.6.20~ds1-1+b1"), version::upstream("1.6.20"));
    }

    #[test]
    fn fuzz_apt_simulations() {
        use crate::fuzz::{hold, samples};

        hold(&samples("apt-simulation", &[]), |text| {
            let found = transaction(text);
            assert!(found.added.len() + found.touched.len() <= text.lines().count());
        });
        hold(&samples("versions", &[]), |text| {
            upstream(text);
            is_of(text, "runc");
        });
    }
}
