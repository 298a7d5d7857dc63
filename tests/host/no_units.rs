//! A systemd that knows no unit, and remembers what is masked.

use std::{
    cell::RefCell, collections::BTreeSet, fs, io::ErrorKind, os::unix::fs::symlink, path::PathBuf,
    time::Duration,
};

use transship::host::systemd::{Systemd, SystemdError, Unit, UnitProperties};

#[derive(Default)]
pub(crate) struct NoUnits {
    /// Units that were masked until the next boot at any time.
    pub(crate) ever_masked: RefCell<BTreeSet<String>>,
    /// Those that are now.
    pub(crate) masked: RefCell<BTreeSet<String>>,
    /// It refuses to reload.
    pub(crate) refuses_reload: bool,
    /// All units run.
    pub(crate) all_run: bool,
    /// What happens before it answers that there is no unit to start; without it every start succeeds.
    pub(crate) before_no_start: Option<Box<dyn Fn()>>,
    /// The host's `/run/systemd/system`, if masks shall be seen there, as links.
    pub(crate) run: Option<PathBuf>,
}

impl Systemd for NoUnits {
    async fn unit(&self, _: &str) -> Result<Unit, SystemdError> {
        Ok(Unit {
            load: "not-found".to_owned(),
            active: if self.all_run { "active" } else { "inactive" }.to_owned(),
            ..Unit::default()
        })
    }
    async fn describe(&self, name: &str) -> Result<UnitProperties, SystemdError> {
        Ok(UnitProperties {
            unit: self.unit(name).await?,
            ..UnitProperties::default()
        })
    }
    async fn started_after_boot(&self, _: &str) -> Result<Duration, SystemdError> {
        Ok(Duration::MAX)
    }
    async fn start(&self, name: &str) -> Result<(), SystemdError> {
        let Some(before) = &self.before_no_start else {
            return Ok(());
        };
        before();
        Err(SystemdError::Refused {
            verb: "start",
            unit: name.to_owned(),
            reason: format!("Unit {name} not found."),
        })
    }
    async fn stop(&self, _: &str) -> Result<(), SystemdError> {
        Ok(())
    }
    async fn restart(&self, _: &str) -> Result<(), SystemdError> {
        Ok(())
    }
    async fn kill(&self, _: &str) -> Result<(), SystemdError> {
        Ok(())
    }
    async fn enable(&self, _: &str) -> Result<(), SystemdError> {
        Ok(())
    }
    async fn disable(&self, _: &str) -> Result<(), SystemdError> {
        Ok(())
    }
    async fn mask(&self, _: &str) -> Result<(), SystemdError> {
        Ok(())
    }
    async fn unmask(&self, _: &str) -> Result<(), SystemdError> {
        Ok(())
    }
    async fn mask_until_boot(&self, name: &str) -> Result<(), SystemdError> {
        self.ever_masked.borrow_mut().insert(name.to_owned());
        self.masked.borrow_mut().insert(name.to_owned());
        if let Some(run) = &self.run {
            match symlink("/dev/null", run.join(name)) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => made.unwrap(),
            }
        }
        Ok(())
    }
    async fn unmask_until_boot(&self, name: &str) -> Result<(), SystemdError> {
        self.masked.borrow_mut().remove(name);
        if let Some(run) = &self.run {
            fs::remove_file(run.join(name)).unwrap();
        }
        Ok(())
    }
    async fn reset_failed(&self, _: &str) -> Result<(), SystemdError> {
        Ok(())
    }
    async fn reload(&self) -> Result<(), SystemdError> {
        if self.refuses_reload {
            return Err(SystemdError::Refused {
                verb: "reload",
                unit: "systemd".to_owned(),
                reason: "not enough space available on /run/systemd".to_owned(),
            });
        }
        Ok(())
    }
}
