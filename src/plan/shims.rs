//! Which programs the shims of a node's pods run. A pod keeps its shim for its life: after an upgrade in place it has the new
//! program only once it is created again, and the old one must stay until then.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    document::Plan,
    step::{InstallStep, Step},
};

/// How the file names of the shims of runc begin. Shims of other runtimes (kata, runsc) are not containerd's.
const RUNC: &str = "containerd-shim-runc-";

/// The pods whose shims run one program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShimUse {
    /// Path of the program on the node.
    pub program: String,
    /// Pods that run on it.
    #[schemars(range(max = 1_000_000))]
    pub pods: u32,
    /// Containers that run on it and are not of pods, as Docker's.
    #[schemars(range(max = 1_000_000))]
    pub others: u32,
}

impl Plan {
    /// Those of all shims of a node that the version before an upgrade in place brought: the new ones are in the directory of the
    /// plan's archive. Empty for other plans.
    pub fn old_shims(&self, all: &[ShimUse]) -> Vec<ShimUse> {
        let new = self.steps.iter().find_map(|planned| match &planned.does {
            Step::Install(InstallStep::Archive(archive)) => Some(format!("{}/", archive.dir)),
            _ => None,
        });
        let Some(new) = new.filter(|_| self.keeps_pods()) else {
            return Vec::new();
        };
        let is_old = |shim: &&ShimUse| {
            let name = shim.program.rsplit('/').next().unwrap_or_default();
            name.starts_with(RUNC) && !shim.program.starts_with(&new)
        };
        all.iter().filter(is_old).cloned().collect()
    }
}
