//! The two runtimes: whether the pair can be planned, and whether the target fits the kubelet.

use super::{Code, DRIVER_FROM_CRI_SINCE, View};
use crate::{
    api::request::{CgroupDriverChoice, Runtime},
    plan::{
        facts::{Facts, UnitFacts},
        finding::Finding,
        kubelet_settings::Settings,
        planner::Request,
        runtimes::{Planner, Source, SourcePart, Target, TargetPart, store_of},
        support::{self, Misfit},
        version,
    },
};

/// Nothing to do.
pub const ALREADY_ON_TARGET: Code = Code::info(
    "AlreadyOnTarget",
    "The node uses the target runtime; nothing is touched",
);
/// An endpoint of something unknown.
pub const UNKNOWN_ENDPOINT: Code = Code::block(
    "UnknownEndpoint",
    "The kubelet's CRI endpoint is that of no runtime that is known",
);
/// Not this pair.
pub const UNSUPPORTED_PAIR: Code = Code::block(
    "UnsupportedPair",
    "This version does not move from this runtime to that one",
);
/// The source does not answer.
pub const SOURCE_NOT_ANSWERING: Code = Code::block(
    "SourceNotAnswering",
    "The source runtime does not answer, so its containers and images are not known",
);
/// The target is not there.
pub const TARGET_NOT_INSTALLED: Code =
    Code::block("TargetNotInstalled", "The target runtime is not installed");
/// The target's unit is masked.
pub const TARGET_MASKED: Code = Code::block("TargetMasked", "The target's unit is masked");
/// The target cannot serve this kubelet.
pub const TARGET_VERSION_UNFIT: Code = Code::block(
    "TargetVersionUnfit",
    "The target's version cannot serve this kubelet",
);
/// The target was not tested with this kubelet.
pub const TARGET_VERSION_UNSUPPORTED: Code = Code::warn(
    "TargetVersionUnsupported",
    "The target's version is older than those that its project supports with this kubelet",
);
/// Not the version that was asked for.
pub const TARGET_VERSION_MISMATCH: Code = Code::block(
    "TargetVersionMismatch",
    "The target's version is not the one that `target.version` asks for",
);
/// The CRI is switched off.
pub const CRI_DISABLED: Code = Code::info(
    "CriDisabled",
    "containerd's CRI is switched off; it will be switched on",
);
/// The CRI does not answer.
pub const CRI_NOT_ANSWERING: Code = Code::warn(
    "CriNotAnswering",
    "containerd runs and its CRI, which is not switched off, does not answer",
);
/// Two cgroup drivers.
pub const CGROUP_DRIVER_MISMATCH: Code = Code::block(
    "CgroupDriverMismatch",
    "The cgroup drivers of kubelet, source and request differ",
);
/// The target does not answer `RuntimeConfig`.
pub const CGROUP_DRIVER_NOT_TOLD: Code = Code::warn(
    "CgroupDriverNotTold",
    "The target's version does not tell the kubelet its cgroup driver, which kubelets from 1.38 on are announced to need",
);
/// Docker gets the kubelet's cgroup driver.
pub const DOCKER_DRIVER_CHANGES: Code = Code::info(
    "DockerDriverChanges",
    "Docker, under which nothing runs, gets the kubelet's cgroup driver in `daemon.json`",
);
/// The group of cri-dockerd's socket.
pub const DOCKER_GROUP_MISSING: Code = Code::block_unless_allowed(
    "DockerGroupMissing",
    "There is no group `docker`, to which the socket of cri-dockerd belongs",
);

/// All codes of this module.
pub const CODES: &[Code] = &[
    ALREADY_ON_TARGET,
    UNKNOWN_ENDPOINT,
    UNSUPPORTED_PAIR,
    SOURCE_NOT_ANSWERING,
    TARGET_NOT_INSTALLED,
    TARGET_MASKED,
    TARGET_VERSION_UNFIT,
    TARGET_VERSION_UNSUPPORTED,
    TARGET_VERSION_MISMATCH,
    CRI_DISABLED,
    CRI_NOT_ANSWERING,
    CGROUP_DRIVER_MISMATCH,
    CGROUP_DRIVER_NOT_TOLD,
    DOCKER_DRIVER_CHANGES,
    DOCKER_GROUP_MISSING,
];

/// What is to be done between the runtime in use and the one that is asked for.
#[derive(Clone, Debug)]
pub enum Pair<'a> {
    /// Nothing: the node uses the target already.
    Same,
    /// A move from one to the other, both at hand.
    Move {
        /// The runtime that is left.
        source: Box<Source<'a>>,
        /// The runtime that is gone to.
        target: Box<Target>,
        /// The two parts of its plan.
        parts: (SourcePart, TargetPart),
    },
}

/// Which pair it is, or why it cannot be planned. The runtime in use is the one behind the kubelet's endpoint.
pub fn pair<'a>(facts: &'a Facts, settings: &Settings, request: &Request) -> Result<Pair<'a>, Finding> {
    let source = settings.runtime.ok_or_else(|| {
        UNKNOWN_ENDPOINT.found(
            format!("the kubelet's CRI endpoint is {:?}", settings.endpoint),
            "This node is left as it is: the runtime behind that endpoint is not one that Transship knows.",
        )
    })?;
    let target = request.target.runtime;
    let parts = Planner::of(source)
        .and_then(|planner| planner.source)
        .zip(Planner::of(target).and_then(|planner| planner.target));
    let Some((leave, arrive)) = parts else {
        return Err(UNSUPPORTED_PAIR.found(
            format!("the node uses {source}, and {target} is asked for"),
            "This version moves from dockershim, cri-dockerd and containerd to cri-dockerd and containerd.",
        ));
    };
    if source == target {
        return same(facts, settings, request, (leave, arrive));
    }
    Ok(Pair::Move {
        source: Box::new((leave.look)(facts, settings)?),
        target: Box::new((arrive.look)(facts, request)?),
        parts: (leave, arrive),
    })
}

/// A node that uses the runtime that is asked for, if its version is the one that is asked for.
fn same<'a>(
    facts: &'a Facts,
    settings: &Settings,
    request: &Request,
    (leave, arrive): (SourcePart, TargetPart),
) -> Result<Pair<'a>, Finding> {
    // Whatever serves the kubelet is there; where its unit is not the usual one, its version is not known.
    let runs = (leave.look)(facts, settings).ok().map(|source| source.version);
    let asked = (arrive.look)(facts, request).ok();
    let delivered = asked.as_ref().and_then(|target| target.delivery.as_ref());
    let installed = asked
        .as_ref()
        .filter(|_| delivered.is_none())
        .map(|target| target.version.clone());
    let wanted = request.target.version.as_deref();
    let wanted = wanted.or(delivered.map(|delivery| &*delivery.version));
    let mismatch = runs
        .or(installed)
        .and_then(|found| version_as_asked(request.target.runtime, &found, wanted));
    mismatch.map_or(Ok(Pair::Same), Err)
}

/// The finding that says that the node is on the target already.
pub fn already_there(settings: &Settings) -> Finding {
    ALREADY_ON_TARGET.found(
        format!("the kubelet uses {}", settings.endpoint),
        "Nothing is to be done.",
    )
}

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
    Some(match support::misfit(target.runtime, &target.version, kubelet)? {
        Misfit::Refused(why) => TARGET_VERSION_UNFIT.found(
            format!("{pair}: {why}"),
            "Install a version that fits, or bring one with target.from.",
        ),
        Misfit::Unsupported(listed) => TARGET_VERSION_UNSUPPORTED.found(
            format!("{pair}, with which {listed} are supported"),
            "Bring a supported version with target.from, or try this one on a node that may fail.",
        ),
    })
}

/// Whether kubelets that ask the runtime for its cgroup driver get an answer.
fn not_told(view: &View<'_>) -> Option<Finding> {
    let (target, kubelet) = (&view.target, &view.settings.version);
    let later = support::tells_driver_later(target.runtime, &target.version)
        .filter(|_| kubelet.minor >= DRIVER_FROM_CRI_SINCE)?;
    Some(CGROUP_DRIVER_NOT_TOLD.found(
        format!(
            "{} {} does not answer RuntimeConfig, so kubelet {kubelet} takes the driver from its own configuration",
            target.runtime, target.version
        ),
        format!("It will do until the upgrade to 1.38; {} {later} and later answer.", target.runtime),
    ))
}

/// The finding for a unit of the target that cannot be started.
pub fn not_loaded(unit: &UnitFacts) -> Option<Finding> {
    (unit.load != "loaded").then(|| {
        TARGET_MASKED.found(
            format!("{} is {}", unit.name, unit.load),
            format!(
                "If you masked it after its installation to keep the new runtime from starting, unmask it now \
                 (`systemctl unmask {}`): the plan starts it beside the source. Otherwise install its unit.",
                unit.name
            ),
        )
    })
}

fn version_as_asked(runtime: Runtime, found: &str, wanted: Option<&str>) -> Option<Finding> {
    let wanted = wanted?;
    let requirement = match version::requirement(wanted) {
        Ok(requirement) => requirement,
        Err(_) => {
            return Some(TARGET_VERSION_MISMATCH.found(
                format!("target.version {wanted:?} is neither a version nor a range"),
                "Write a version (1.7.28) or a semver range (>=1.6, <2).",
            ));
        }
    };
    let fits = version::upstream(found).is_some_and(|version| requirement.matches(&version));
    (!fits).then(|| {
        TARGET_VERSION_MISMATCH.found(
            format!("{runtime} {found} is installed, and {wanted} is asked for"),
            "Install that version on the node, or change target.version.",
        )
    })
}

fn cgroup_driver(view: &View<'_>) -> Option<Finding> {
    let kubelet = view.cgroup_driver();
    let configured = &view.settings.cgroup_driver;
    let asked = match view.request.target.cgroup_driver {
        CgroupDriverChoice::Auto => kubelet,
        CgroupDriverChoice::Systemd => "systemd",
        CgroupDriverChoice::Cgroupfs => "cgroupfs",
    };
    let tells = support::tells_driver_later(view.target.runtime, &view.target.version).is_none();
    let message = match view.source.cgroup_driver {
        _ if asked != kubelet => {
            format!("the kubelet uses {kubelet}, and target.cgroupDriver asks for {asked}")
        }
        Some(source) if source != kubelet => {
            format!(
                "the kubelet uses {kubelet}, and {} uses {source}",
                store_of(view.source.runtime)
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
