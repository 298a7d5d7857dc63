//! systemd over the system bus. Every call has a deadline; a job counts as done when systemd says so by a signal
//! that was subscribed to before the job was queued, and a lost signal costs one deadline and a look at the unit.
//!
//! Only the system bus: zbus cannot speak to systemd's private socket, whose messages have no unique sender.

mod properties;

use std::time::Duration;

use futures::StreamExt;
use tokio::{sync::Mutex, time::timeout};
use zbus::{Connection, OwnedObjectPath, Variant};

use properties::{Properties, as_unit, limits, number, structures, text, texts};

use super::systemd::{Systemd, SystemdError, Unit, UnitProperties};
use crate::plan::host_path::HostPath;

/// Where the bus listens since systemd 209. The library's own default begins with `/var/run`, a link that the
/// agent's image does not have.
const ADDRESS: &str = "unix:path=/run/dbus/system_bus_socket";
/// Deadline of a call that reads or queues.
const CALL: Duration = Duration::from_secs(30);
/// Deadline of a daemon-reload: on a host with many units it may take more than a minute.
const RELOAD: Duration = Duration::from_secs(120);
/// Deadline of a job: systemd's own stop time-out (90 s) with its kill behind it, and some air.
const JOB: Duration = Duration::from_secs(180);

/// Its number, as systemd takes it.
const SIGKILL: i32 = 9;

const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn kill_unit(&self, name: &str, whom: &str, signal: i32) -> zbus::Result<()>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    fn unref_unit(&self, name: &str) -> zbus::Result<()>;
    fn enable_unit_files(
        &self,
        names: &[&str],
        runtime: bool,
        force: bool,
    ) -> zbus::Result<(bool, Vec<(String, String, String)>)>;
    fn disable_unit_files(
        &self,
        names: &[&str],
        runtime: bool,
    ) -> zbus::Result<Vec<(String, String, String)>>;
    fn mask_unit_files(
        &self,
        names: &[&str],
        runtime: bool,
        force: bool,
    ) -> zbus::Result<Vec<(String, String, String)>>;
    fn unmask_unit_files(&self, names: &[&str], runtime: bool)
    -> zbus::Result<Vec<(String, String, String)>>;
    fn reload(&self) -> zbus::Result<()>;
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, Variant<'_>)],
        aux: &[(&str, Vec<(&str, Variant<'_>)>)],
    ) -> zbus::Result<OwnedObjectPath>;
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "const"))]
    fn userspace_timestamp_monotonic(&self) -> zbus::Result<u64>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
}

/// How a transient unit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its exit status, or the signal that ended it with 128 added, as a shell has it.
    pub status: i32,
}

impl Exit {
    /// Whether it ended with 0.
    pub const fn is_success(self) -> bool {
        self.status == 0
    }
}

/// systemd, reached over the system bus.
#[derive(Debug)]
pub struct SystemBus {
    address: String,
    connection: Mutex<Connection>,
}

/// Why a call had no answer.
enum Failure {
    /// systemd answered with this error name and these words.
    Refused(String, String),
    /// The bus or systemd went away, or did not answer in time.
    Lost(String),
}

impl From<zbus::Error> for Failure {
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, words, _) => {
                Self::Refused(name.to_string(), words.unwrap_or_else(|| name.to_string()))
            }
            zbus::Error::FDO(error)
                if !matches!(*error, zbus::fdo::Error::ZBus(_) | zbus::fdo::Error::NoReply(_)) =>
            {
                Self::Refused(
                    format!("{:?}", zbus::DBusError::name(&*error).as_str()),
                    error.to_string(),
                )
            }
            other => Self::Lost(other.to_string()),
        }
    }
}

impl Failure {
    fn of(self, verb: &'static str, unit: &str) -> SystemdError {
        match self {
            Self::Refused(_, reason) => SystemdError::Refused {
                verb,
                unit: unit.to_owned(),
                reason,
            },
            Self::Lost(why) => SystemdError::Unreachable(why),
        }
    }

    /// Whether systemd knows no such unit or unit file: then it is stopped, disabled and unmasked already.
    fn is_absence(&self) -> bool {
        matches!(self, Self::Refused(name, _)
            if ["NoSuchUnit", "FileNotFound", "UnknownObject"].iter().any(|end| name.contains(end)))
    }
}

async fn connect(address: &str) -> Result<Connection, Failure> {
    let connect = async {
        let connection = zbus::connection::Builder::address(address).build().await?;
        // Without a subscriber systemd sends no JobRemoved.
        ManagerProxy::new(&connection).await?.subscribe().await?;
        Ok::<_, zbus::Error>(connection)
    };
    match timeout(CALL, connect).await {
        Ok(connection) => Ok(connection?),
        Err(_) => Err(Failure::Lost(format!(
            "no connection within {} s",
            CALL.as_secs()
        ))),
    }
}

impl SystemBus {
    /// Connects to the system bus (`/run/dbus/system_bus_socket`, or `DBUS_SYSTEM_BUS_ADDRESS`).
    ///
    /// # Errors
    /// When the bus or systemd does not answer.
    pub async fn connect() -> Result<Self, SystemdError> {
        Self::at(ADDRESS).await
    }

    /// Connects to the bus at this address.
    async fn at(address: &str) -> Result<Self, SystemdError> {
        let connection = connect(address)
            .await
            .map_err(|failure| failure.of("subscribe", "systemd"))?;
        Ok(Self {
            address: address.to_owned(),
            connection: Mutex::new(connection),
        })
    }

    /// Calls systemd; when the connection was lost it connects again, once. All calls are idempotent.
    async fn call<T>(
        &self,
        within: Duration,
        call: impl AsyncFn(&ManagerProxy<'_>) -> zbus::Result<T>,
    ) -> Result<T, Failure> {
        let mut connection = self.connection.lock().await.clone();
        for last in [false, true] {
            let attempt = async { call(&ManagerProxy::new(&connection).await?).await };
            match timeout(within, attempt)
                .await
                .map(|answer| answer.map_err(Failure::from))
            {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(Failure::Lost(why))) => {
                    if last {
                        return Err(Failure::Lost(why));
                    }
                    connection = connect(&self.address).await?;
                    *self.connection.lock().await = connection.clone();
                }
                Ok(Err(refused)) => return Err(refused),
                Err(_) => return Err(Failure::Lost(format!("no answer within {} s", within.as_secs()))),
            }
        }
        Err(Failure::Lost("no connection".to_owned()))
    }

    /// Queues a job and waits for its end; answers systemd's word for it.
    async fn job(
        &self,
        within: Duration,
        queue: impl AsyncFn(&ManagerProxy<'_>) -> zbus::Result<OwnedObjectPath>,
    ) -> Result<String, Failure> {
        self.call(within, async |manager| {
            // Before the job is queued: a short one may be over before its path is known.
            let mut removed = manager.receive_job_removed().await?;
            let job = queue(manager).await?;
            while let Some(signal) = removed.next().await {
                let args = signal.args()?;
                if args.job == job {
                    return Ok(args.result);
                }
            }
            Err(zbus::Error::Failure("the bus closed the connection".to_owned()))
        })
        .await
    }

    /// Runs a job; when its end was not seen, looks whether `reached` holds.
    async fn change(
        &self,
        verb: &'static str,
        name: &str,
        queue: impl AsyncFn(&ManagerProxy<'_>) -> zbus::Result<OwnedObjectPath>,
        reached: impl Fn(&Unit) -> bool,
    ) -> Result<(), SystemdError> {
        match self.job(JOB, queue).await {
            Ok(result) if matches!(result.as_str(), "done" | "skipped") => Ok(()),
            Ok(result) => Err(SystemdError::Job {
                verb,
                unit: name.to_owned(),
                result,
            }),
            Err(failure @ Failure::Refused(..)) => Err(failure.of(verb, name)),
            Err(failure @ Failure::Lost(_)) => {
                if reached(&self.unit(name).await?) {
                    Ok(())
                } else {
                    Err(failure.of(verb, name))
                }
            }
        }
    }

    /// Changes unit files, and lets systemd read them.
    async fn files(
        &self,
        verb: &'static str,
        name: &str,
        absent_is_done: bool,
        change: impl AsyncFn(&ManagerProxy<'_>) -> zbus::Result<()>,
    ) -> Result<(), SystemdError> {
        match self.call(CALL, change).await {
            Err(failure) if absent_is_done && failure.is_absence() => Ok(()),
            Err(failure) => Err(failure.of(verb, name)),
            Ok(()) => self.reload().await,
        }
    }

    async fn properties(&self, name: &str) -> Result<(Properties, Properties), SystemdError> {
        self.call(CALL, async |manager| {
            let path = manager.load_unit(name).await?;
            let properties = zbus::fdo::PropertiesProxy::builder(manager.inner().connection())
                .destination("org.freedesktop.systemd1")
                .path(path)
                .build()
                .await?;
            let unit = properties.get_all(UNIT.try_into()?).await?;
            let service = match name.ends_with(".service") {
                true => properties.get_all(SERVICE.try_into()?).await?,
                false => Properties::new(),
            };
            Ok((unit, service))
        })
        .await
        .map_err(|failure| failure.of("look at", name))
    }

    /// systemd's version number (`252`).
    ///
    /// # Errors
    /// When systemd does not answer.
    pub async fn version(&self) -> Result<u32, SystemdError> {
        let text = self
            .call(CALL, async |manager| manager.version().await)
            .await
            .map_err(|failure| failure.of("ask for the version of", "systemd"))?;
        // `252.39-1~deb12u1`, `219`, `v256.5`, `systemd 219`.
        let digits = text
            .split(|c: char| !c.is_ascii_digit())
            .find(|part| !part.is_empty());
        Ok(digits.and_then(|digits| digits.parse().ok()).unwrap_or(0))
    }

    /// Runs `argv` on the host as a transient unit and waits for its end, at most `within`; then it is killed. It
    /// lives outside the caller's cgroup, so a pod that starts it may die. What it prints goes to the host's
    /// journal.
    ///
    /// # Errors
    /// When it could not be started (a unit of that name runs already), or was not over in time.
    pub async fn run_transient(
        &self,
        unit: &str,
        argv: &[&str],
        within: Duration,
    ) -> Result<Exit, SystemdError> {
        const VERB: &str = "run";
        let owned: Vec<String> = argv.iter().map(|&word| word.to_owned()).collect();
        let program = owned.first().cloned().unwrap_or_default();
        let limit = u64::try_from(within.as_micros()).unwrap_or(u64::MAX);
        let version = self.version().await?;
        let queue = async |manager: &ManagerProxy<'_>| {
            let mut properties = vec![
                (
                    "Description",
                    Variant::from(format!("transship: {}", owned.join(" "))),
                ),
                // The job of a oneshot ends with its process.
                ("Type", Variant::from("oneshot")),
                (
                    "ExecStart",
                    Variant::from(vec![(program.clone(), owned.clone(), false)]),
                ),
                ("TimeoutStartUSec", Variant::from(limit)),
            ];
            properties.extend(kept_until_read(version));
            manager.start_transient_unit(unit, "fail", &properties, &[]).await
        };
        let result = self
            .job(within + CALL, queue)
            .await
            .map_err(|failure| failure.of(VERB, unit))?;
        let (_, service) = self.properties(unit).await?;
        // Whoever does not want it any more need not know whether it was still there.
        let _ = self
            .call(CALL, async |manager| {
                if collects(version) {
                    manager.unref_unit(unit).await
                } else {
                    manager.reset_failed_unit(unit).await
                }
            })
            .await;
        let signed = |name: &str| {
            service
                .get(name)
                .and_then(|value| i32::try_from(value).ok())
                .unwrap_or(0)
        };
        // CLD_EXITED of waitid(2); everything else is a signal.
        let exit = match (signed("ExecMainCode"), signed("ExecMainStatus")) {
            (1, status) => Exit { status },
            (_, signal) => Exit { status: 128 + signal },
        };
        match result.as_str() {
            "done" => Ok(Exit { status: 0 }),
            "failed" if text(&service, "Result") == "timeout" => Err(SystemdError::Job {
                verb: VERB,
                unit: unit.to_owned(),
                result: "timeout".to_owned(),
            }),
            "failed" if exit.status != 128 && exit.status != 0 => Ok(exit),
            _ => Err(SystemdError::Job {
                verb: VERB,
                unit: unit.to_owned(),
                result,
            }),
        }
    }
}

impl Systemd for SystemBus {
    async fn unit(&self, name: &str) -> Result<Unit, SystemdError> {
        let (unit, service) = self.properties(name).await?;
        Ok(as_unit(&unit, &service))
    }

    async fn describe(&self, name: &str) -> Result<UnitProperties, SystemdError> {
        let (unit, service) = self.properties(name).await?;
        let host_path = |text: String| HostPath::new(text).ok();
        Ok(UnitProperties {
            fragment: host_path(text(&unit, "FragmentPath")),
            drop_ins: texts(&unit, "DropInPaths")
                .into_iter()
                .filter_map(host_path)
                .collect(),
            environment: texts(&service, "Environment"),
            environment_files: structures(&service, "EnvironmentFiles")
                .iter()
                .filter_map(|file| match file.fields() {
                    [Variant::Str(path), Variant::Bool(optional), ..] => {
                        Some((host_path(path.to_string())?, *optional))
                    }
                    _ => None,
                })
                .collect(),
            exec_start: structures(&service, "ExecStart")
                .first()
                .and_then(|command| command.fields().get(1)?.try_clone().ok())
                .and_then(|argv| Vec::<String>::try_from(argv).ok())
                .unwrap_or_default(),
            bound_to: ["Requires", "Requisite", "BindsTo", "PartOf"]
                .iter()
                .flat_map(|kind| texts(&unit, kind))
                .collect(),
            needed_by: ["RequiredBy", "BoundBy", "WantedBy"]
                .iter()
                .flat_map(|kind| texts(&unit, kind))
                .collect(),
            active_since_micros: number(&unit, "ActiveEnterTimestamp"),
            limits: limits(&service),
            unit: as_unit(&unit, &service),
        })
    }

    async fn started_after_boot(&self, name: &str) -> Result<Duration, SystemdError> {
        let began = self
            .call(CALL, async |manager| {
                manager.userspace_timestamp_monotonic().await
            })
            .await
            .map_err(|failure| failure.of("ask for the start of", "systemd"))?;
        let (unit, _) = self.properties(name).await?;
        let started = number(&unit, "InactiveExitTimestampMonotonic");
        Ok(Duration::from_micros(started.saturating_sub(began)))
    }

    async fn start(&self, name: &str) -> Result<(), SystemdError> {
        let queue = async |manager: &ManagerProxy<'_>| manager.start_unit(name, "replace").await;
        self.change("start", name, queue, |unit| unit.active == "active")
            .await
    }

    async fn stop(&self, name: &str) -> Result<(), SystemdError> {
        let queue = async |manager: &ManagerProxy<'_>| manager.stop_unit(name, "replace").await;
        let stopped = |unit: &Unit| matches!(unit.active.as_str(), "inactive" | "failed");
        match self.change("stop", name, queue, stopped).await {
            Err(SystemdError::Refused { .. }) if self.unit(name).await?.load == "not-found" => Ok(()),
            result => result,
        }
    }

    async fn restart(&self, name: &str) -> Result<(), SystemdError> {
        let queue = async |manager: &ManagerProxy<'_>| manager.restart_unit(name, "replace").await;
        // Whether it is the old process or the new one that is active cannot be seen afterwards.
        self.change("restart", name, queue, |_| false).await
    }

    async fn kill(&self, name: &str) -> Result<(), SystemdError> {
        let kill = async |manager: &ManagerProxy<'_>| manager.kill_unit(name, "main", SIGKILL).await;
        match self.call(CALL, kill).await {
            Err(failure @ Failure::Refused(..)) if self.unit(name).await?.main_pid != 0 => {
                Err(failure.of("kill", name))
            }
            Err(failure @ Failure::Lost(_)) => Err(failure.of("kill", name)),
            Ok(()) | Err(Failure::Refused(..)) => Ok(()),
        }
    }

    async fn enable(&self, name: &str) -> Result<(), SystemdError> {
        self.files("enable", name, false, async |manager| {
            manager.enable_unit_files(&[name], false, true).await.map(|_| ())
        })
        .await
    }

    async fn disable(&self, name: &str) -> Result<(), SystemdError> {
        self.files("disable", name, true, async |manager| {
            manager.disable_unit_files(&[name], false).await.map(|_| ())
        })
        .await
    }

    async fn mask(&self, name: &str) -> Result<(), SystemdError> {
        self.files("mask", name, false, async |manager| {
            manager.mask_unit_files(&[name], false, true).await.map(|_| ())
        })
        .await
    }

    async fn unmask(&self, name: &str) -> Result<(), SystemdError> {
        self.files("unmask", name, true, async |manager| {
            manager.unmask_unit_files(&[name], false).await.map(|_| ())
        })
        .await
    }

    async fn mask_until_boot(&self, name: &str) -> Result<(), SystemdError> {
        self.files("mask", name, false, async |manager| {
            manager.mask_unit_files(&[name], true, true).await.map(|_| ())
        })
        .await
    }

    async fn unmask_until_boot(&self, name: &str) -> Result<(), SystemdError> {
        self.files("unmask", name, true, async |manager| {
            manager.unmask_unit_files(&[name], true).await.map(|_| ())
        })
        .await
    }

    async fn reset_failed(&self, name: &str) -> Result<(), SystemdError> {
        match self
            .call(CALL, async |manager| manager.reset_failed_unit(name).await)
            .await
        {
            Err(failure) if !failure.is_absence() => Err(failure.of("reset", name)),
            _ => Ok(()),
        }
    }

    async fn reload(&self) -> Result<(), SystemdError> {
        match self.call(RELOAD, async |manager| manager.reload().await).await {
            Ok(()) => Ok(()),
            // systemd may lose the reply while it reloads; then it answers the next question.
            Err(Failure::Lost(_)) => self.version().await.map(|_| ()),
            Err(failure) => Err(failure.of("reload", "systemd")),
        }
    }
}

/// Whether systemd has `CollectMode` (236) and `AddRef` (232). An older systemd refuses a unit with a property that it does
/// not have; it keeps a failed unit until `reset-failed`, and a unit that succeeded needs no keeping. 0 is a systemd that did
/// not report its version.
const fn collects(version: u32) -> bool {
    version == 0 || version >= 236
}

/// The properties that keep a transient unit until its exit status is read or this connection is gone, and no longer.
fn kept_until_read(version: u32) -> Vec<(&'static str, Variant<'static>)> {
    if collects(version) {
        vec![
            ("CollectMode", Variant::from("inactive-or-failed")),
            ("AddRef", Variant::from(true)),
        ]
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests;
