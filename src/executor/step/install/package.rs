//! Packages, in what all package managers share. What a transaction would do is known before it: unless it only adds,
//! nothing is done. The services that a package brings are masked until the next boot while its scripts run, which
//! may start them otherwise. What was added is removed without the network: the archives are kept until all of it is
//! installed, because without them nobody could tell, or mend, what an interrupted run left.

mod apt;
mod dnf;

use std::{
    ffi::OsStr,
    path::Path,
    time::{Duration, Instant},
};

use tokio::process::Command;

use super::InstallError;
use crate::{
    executor::step::{Saved, StepError},
    host::{
        command::{self, Output},
        files::Files,
        systemd::Systemd,
        unit_links::{self, UnitLink},
    },
    plan::{
        host_path::{HostPath, NotAHostPath},
        step::{Package, PackageManager},
    },
};

/// Where archives are kept while they are being installed; they are gathered under its [`Files::scratch`] name.
const ARCHIVES: &str = "/var/lib/transship/archives";
/// How long a question may take that is answered from the host alone.
const ASK: Duration = Duration::from_secs(60);
/// How long a download, an installation or a removal may take.
const WORK: Duration = Duration::from_secs(15 * 60);
/// How long another run of the package manager is waited for.
const PATIENCE: Duration = Duration::from_secs(300);
/// Pause between two looks at its lock.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn save(files: &Files, step: &Package) -> Result<Saved, StepError> {
    let mut saved = match step.manager {
        PackageManager::Apt => apt::save(files, step).await?,
        PackageManager::Dnf => dnf::save(files, step).await?,
    };
    if let Saved::Packages { links, .. } = &mut saved {
        for unit in &step.units {
            links.extend(unit_links::of(files, unit)?);
        }
    }
    Ok(saved)
}

pub(super) async fn apply(files: &Files, systemd: &impl Systemd, step: &Package) -> Result<(), StepError> {
    mask(systemd, &step.units).await?;
    let installed = match step.manager {
        PackageManager::Apt => apt::install(files, step).await,
        PackageManager::Dnf => dnf::install(files, step).await,
    };
    unmask(systemd, &step.units).await?;
    systemd.reload().await?;
    installed?;
    conclude(files, step)
}

/// Removes what is there of the packages `added`, and nothing else: where another one needs them by now, that is
/// refused.
pub(super) async fn undo(
    files: &Files,
    systemd: &impl Systemd,
    step: &Package,
    added: &[String],
    configuration: &[HostPath],
    links: &[UnitLink],
) -> Result<(), StepError> {
    mask(systemd, &step.units).await?;
    if added.contains(&step.name) {
        // A boot after the installation may have started them.
        for unit in &step.units {
            systemd.stop(unit).await?;
        }
    }
    let removed = match step.manager {
        PackageManager::Apt => apt::remove(files, added).await,
        PackageManager::Dnf => dnf::remove(files, added, configuration).await,
    };
    unmask(systemd, &step.units).await?;
    if removed.is_ok() && added.contains(&step.name) {
        // A power cut may have brought back what a script removed, when its package was gone for good.
        for unit in &step.units {
            unit_links::restore(files, unit, links)?;
        }
    }
    systemd.reload().await?;
    removed?;
    conclude(files, step)
}

/// Makes the end durable: a run that was killed may have reached it, and not synced. Until then archives are of use.
fn conclude(files: &Files, step: &Package) -> Result<(), StepError> {
    let databases: &[&str] = match step.manager {
        PackageManager::Apt => &["/var/lib/dpkg"],
        // rpm's is in one of them: below /usr since Fedora 36 and RHEL 10.
        PackageManager::Dnf => &["/var/lib", "/usr/lib"],
    };
    for database in databases {
        files.sync_file_system(&HostPath::new(*database)?)?;
    }
    clear(files)
}

/// Until the next boot: a mask that somebody put there himself is another file, and stays.
async fn mask(systemd: &impl Systemd, units: &[String]) -> Result<(), StepError> {
    for unit in units {
        systemd.mask_until_boot(unit).await?;
    }
    Ok(())
}

async fn unmask(systemd: &impl Systemd, units: &[String]) -> Result<(), StepError> {
    for unit in units {
        systemd.unmask_until_boot(unit).await?;
    }
    Ok(())
}

/// Names of versions or packages as they stand in a sentence.
fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

fn fail(why: String) -> StepError {
    StepError::Install(InstallError::Packages(why))
}

fn kept() -> Result<HostPath, NotAHostPath> {
    HostPath::new(ARCHIVES)
}

/// The archives in this directory, as their paths really are.
fn archives(files: &Files, directory: &HostPath) -> Result<Vec<String>, StepError> {
    let real = |name: String| Ok(files.real(&directory.join(&name)?)?.display().to_string());
    files.list(directory)?.into_iter().map(real).collect()
}

/// Takes away the archives, those that are not kept yet too.
fn clear(files: &Files) -> Result<(), StepError> {
    Ok(files.unpublish(&kept()?)?)
}

/// Runs a program of the host that must succeed, and answers what it printed.
async fn run(
    files: &Files,
    program: &str,
    arguments: &[&str],
    within: Duration,
) -> Result<String, StepError> {
    answer(prepared(files, program, arguments)?, within).await
}

/// Runs a program as [`run`] does, as soon as no other run of it has its lock.
async fn when_free(files: &Files, program: &str, arguments: &[&str]) -> Result<(), StepError> {
    let began = Instant::now();
    loop {
        match run(files, program, arguments, WORK).await {
            Err(StepError::Install(InstallError::Locked(_))) if began.elapsed() < PATIENCE => {
                tokio::time::sleep(PAUSE).await;
            }
            done => return done.map(|_| ()),
        }
    }
}

/// A program of the host that asks nobody.
fn prepared(files: &Files, program: &str, arguments: &[&str]) -> Result<Command, StepError> {
    let mut command = command::command(files.real(&HostPath::new(format!("/usr/bin/{program}"))?)?);
    command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("NEEDRESTART_SUSPEND", "1")
        .env("LC_ALL", "C");
    Ok(command)
}

async fn answer(command: Command, within: Duration) -> Result<String, StepError> {
    let ran = command.as_std();
    let name = Path::new(ran.get_program()).file_name().unwrap_or_default();
    let what = [name].into_iter().chain(ran.get_args().next());
    let what: Vec<_> = what.map(OsStr::to_string_lossy).collect();
    let what = what.join(" ");
    let output = ask(command, within).await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let errors: Vec<&str> = output
        .stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    Err(StepError::Install(refusal(format!(
        "{what}: {}",
        errors.join("; ")
    ))))
}

/// What kind of refusal a package manager's words are. It has no exit status for either.
fn refusal(why: String) -> InstallError {
    // dpkg's words, and rpm's, which waits by itself only if it has a terminal.
    const LOCKED: [&str; 2] = ["locked by another process", "can't create transaction lock"];
    // rpm's words of a package without a signature, or with one by a key that it does not have.
    const UNVERIFIED: &str = "does not verify";
    if LOCKED.iter().any(|words| why.contains(words)) {
        InstallError::Locked(why)
    } else if why.contains(UNVERIFIED) {
        InstallError::Unverified(why)
    } else {
        InstallError::Packages(why)
    }
}

async fn ask(command: Command, within: Duration) -> Result<Output, StepError> {
    command::run(command, b"", within)
        .await
        .map_err(|error| fail(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::dpkg(
        "dpkg --configure: dpkg: error: dpkg frontend lock was locked by another process with pid 7",
        true,
        false
    )]
    #[case::rpm(
        "rpm -i: can't create transaction lock on /var/lib/rpm/.rpm.lock",
        true,
        false
    )]
    #[case::unsigned(
        "rpm -i: package runc-1.2.5-1.noarch does not verify: no signature",
        false,
        true
    )]
    #[case::other("rpm -i: failed dependencies: libc is needed by runc", false, false)]
    fn what_is_waited_for_and_what_needs_a_key_is_recognised(
        #[case] words: &str,
        #[case] locked: bool,
        #[case] unverified: bool,
    ) {
        let refused = refusal(words.to_owned());
        assert_eq!(refused.to_string(), words);
        assert_eq!(matches!(refused, InstallError::Locked(_)), locked);
        assert_eq!(matches!(refused, InstallError::Unverified(_)), unverified);
    }

    /// The clock goes on only where there is a deadline.
    #[tokio::test(start_paused = true)]
    async fn a_package_manager_that_hangs_is_killed() {
        let hung = prepared(&Files::new("/"), "sleep", &["86400"]).unwrap();
        let error = answer(hung, ASK).await.unwrap_err().to_string();
        assert!(
            error.contains("gave no answer within 60 s and was killed"),
            "{error}"
        );
    }
}
