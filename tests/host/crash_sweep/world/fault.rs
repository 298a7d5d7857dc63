//! What can go wrong in the world of a sweep.

use transship::api::request::Runtime;

use crate::crash_sweep::random::Random;

/// What goes wrong in this world, in every life of the executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    /// containerd does not start with the new configuration.
    TargetRefusesConfig,
    /// The second image cannot be carried, after the first was.
    CarryFails,
    /// The rehearsal leaves its sandbox behind and fails.
    RehearsalFails,
    /// The pods of the source end, but the runtime reports a failure.
    StopPodsFails,
    /// What is left of the source's pods goes, but the runtime reports a failure.
    ClearPodsFails,
    /// The kubelet starts under the target and never becomes healthy.
    KubeletUnhealthy,
    /// The kubelet dies and is restarted again and again under the target.
    KubeletCrashes,
    /// Stopping the last of the source's units has its effect and is reported as failed.
    StopFails,
    /// Somebody masks the kubelet while it is stopped.
    KubeletMasked,
    /// This step has its effect forwards, and is reported as failed.
    StepFails(usize),
    /// The first effect of this step, or its first call, has no effect and is reported as failed.
    StepRefused(usize),
    /// This call to systemd or to a runtime, counted over all lives, is not answered and has no effect.
    CallHangs(usize),
    /// This call, counted in the same way, has its effect, and its answer is lost.
    AnswerLost(usize),
    /// The disk is full from this effect of a life on, until the reserve is given back.
    DiskFull(u64),
    /// A drop-in of somebody else, of which the plan knows nothing, beats that of the target.
    Overridden,
    /// A file that containerd imports, or that CRI-O reads last, sets another cgroup driver.
    ImportWins,
    /// Somebody else writes this file of the plan before this effect of the first life.
    Edited {
        file: usize,
        at: u64,
    },
    /// `/etc` is read-only from the kubelet's stop on.
    ReadOnly,
    /// containerd dies after the pods of the source have ended, and does not come back with its new files.
    TargetDies,
    /// From the kubelet's start under the target on containerd answers nobody, and Docker, which stands on it, neither,
    /// until somebody kills it or the machine boots; where CRI-O is the target, it alone.
    TargetHangs,
    /// The sandboxes of the target's pods cannot leave their network.
    SandboxSticks,
    /// After a boot each runtime answers after a time of its own.
    SlowBoot(Late),
    /// dpkg is killed while it unpacks this package, forwards.
    UnpackingDies(&'static str),
    /// The script of the target's package fails, after it has had its effect.
    ScriptFails,
}

/// After how many seconds the runtimes answer after a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    pub containerd: u64,
    pub docker: u64,
    pub cri_dockerd: u64,
    pub cri_o: u64,
}

impl Late {
    /// Seconds that differ, one of their orders drawn.
    pub fn drawn(random: &mut Random) -> Self {
        let mut left = vec![2, 6, 10, 14];
        let mut next = || left.swap_remove(random.below(left.len() as u64) as usize);
        Self {
            containerd: next(),
            docker: next(),
            cri_dockerd: next(),
            cri_o: next(),
        }
    }

    pub(super) const fn of(self, runtime: Runtime) -> u64 {
        match runtime {
            Runtime::Dockershim => self.docker,
            Runtime::CriDockerd => self.cri_dockerd,
            Runtime::Containerd => self.containerd,
            Runtime::CriO => self.cri_o,
        }
    }
}

/// What somebody else writes.
pub const EDITED: &[u8] = b"# somebody else's\n";
