//! The two runtimes: whether the target fits the kubelet and what was asked for. Whether the pair can be planned at all is
//! [`pair`](crate::planner::pair)'s.

use crate::{
    plan::{
        codes::runtimes::{
            CGROUP_DRIVER_MISMATCH, CGROUP_DRIVER_NOT_TOLD, TARGET_VERSION_UNFIT, TARGET_VERSION_UNSUPPORTED,
        },
        finding::Finding,
        request::CgroupDriverChoice,
    },
    planner::{
        context::{DRIVER_FROM_CRI_SINCE, View},
        pair::version_as_asked,
        releases::{self, Misfit},
    },
};

/// Checks of the two runtimes together; those of the target alone are its planner's.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let target = &view.target;
    version_as_asked(
        target.runtime,
        &target.version,
        view.request.target.version.as_deref(),
    )
    .into_iter()
    .chain(fit(view))
    .chain(cgroup_driver(view))
    .chain(not_told(view))
    .collect()
}

/// Whether the target's release goes with the kubelet.
fn fit(view: &View<'_>) -> Option<Finding> {
    let (target, kubelet) = (&view.target, &view.settings.version);
    let pair = format!("{} {} with kubelet {kubelet}", target.runtime, target.version);
    Some(
        match releases::misfit(target.runtime, &target.version, kubelet)? {
            Misfit::Refused(why) => TARGET_VERSION_UNFIT.found(
                format!("{pair}: {why}"),
                "Install a version that fits, or bring one with target.from.",
            ),
            Misfit::Unsupported(listed) => TARGET_VERSION_UNSUPPORTED.found(
                format!("{pair}, with which {listed} are supported"),
                "Bring a supported version with target.from, or try this one on a node that may fail.",
            ),
        },
    )
}

/// Whether kubelets that ask the runtime for its cgroup driver get an answer.
fn not_told(view: &View<'_>) -> Option<Finding> {
    let (target, kubelet) = (&view.target, &view.settings.version);
    let later = releases::tells_driver_later(target.runtime, &target.version)
        .filter(|_| kubelet.minor >= DRIVER_FROM_CRI_SINCE)?;
    Some(CGROUP_DRIVER_NOT_TOLD.found(
        format!(
            "{} {} does not answer RuntimeConfig, so kubelet {kubelet} takes the driver from its own configuration",
            target.runtime, target.version
        ),
        format!("It will do until the upgrade to 1.38; {} {later} and later answer.", target.runtime),
    ))
}

fn cgroup_driver(view: &View<'_>) -> Option<Finding> {
    let kubelet = view.cgroup_driver();
    let configured = &view.settings.cgroup_driver;
    let asked = match view.request.target.cgroup_driver {
        CgroupDriverChoice::Auto => kubelet,
        CgroupDriverChoice::Systemd => "systemd",
        CgroupDriverChoice::Cgroupfs => "cgroupfs",
    };
    let tells = releases::tells_driver_later(view.target.runtime, &view.target.version).is_none();
    let message = match view.source.cgroup_driver {
        _ if asked != kubelet => {
            format!("the kubelet uses {kubelet}, and target.cgroupDriver asks for {asked}")
        }
        Some(source) if source != kubelet => {
            format!(
                "the kubelet uses {kubelet}, and {} uses {source}",
                view.source.runtime.store()
            )
        }
        _ if kubelet != configured && !tells => format!(
            "the kubelet is configured for {configured} and uses {kubelet} because {} says so, which {} {} would not",
            view.source.runtime, view.target.runtime, view.target.version
        ),
        _ => return None,
    };
    Some(CGROUP_DRIVER_MISMATCH.found(
        message,
        "Kubelet and runtime must use the same driver, and a driver cannot be changed under running pods: set target.cgroupDriver to Auto, or reinstall the node with the other driver.",
    ))
}
