//! A systemd that knows no unit, and remembers what is masked. Test binaries take this file in with
//! `#[path = "support/no_units.rs"] mod no_units;`.

use std::{cell::RefCell, collections::BTreeSet};

use transship::host::systemd::{Systemd, SystemdError, Unit};

#[derive(Default)]
pub(crate) struct NoUnits {
    /// Units that were masked until the next boot at any time.
    pub(crate) ever_masked: RefCell<BTreeSet<String>>,
    /// Those that are now.
    pub(crate) masked: RefCell<BTreeSet<String>>,
}

impl Systemd for NoUnits {
    async fn unit(&self, _: &str) -> Result<Unit, SystemdError> {
        Ok(Unit {
            load: "not-found".to_owned(),
            ..Unit::default()
        })
    }
    async fn start(&self, _: &str) -> Result<(), SystemdError> {
        Ok(())
    }
    async fn stop(&self, _: &str) -> Result<(), SystemdError> {
        Ok(())
    }
    async fn restart(&self, _: &str) -> Result<(), SystemdError> {
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
        Ok(())
    }
    async fn unmask_until_boot(&self, name: &str) -> Result<(), SystemdError> {
        self.masked.borrow_mut().remove(name);
        Ok(())
    }
    async fn reset_failed(&self, _: &str) -> Result<(), SystemdError> {
        Ok(())
    }
    async fn reload(&self) -> Result<(), SystemdError> {
        Ok(())
    }
}
