//! The two runtimes: whether the pair can be planned, and whether the target fits the kubelet.

use semver::Version;

use super::{Code, View};
use crate::{
    api::request::{CgroupDriverChoice, Runtime},
    edit::containerd_toml,
    plan::{
        facts::{Containerd, Docker, Engine, Facts},
        finding::Finding,
        kubelet_settings::Settings,
        planner::Request,
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
/// Docker Engine does not answer.
pub const SOURCE_NOT_ANSWERING: Code = Code::block(
    "SourceNotAnswering",
    "The source runtime does not answer, so its containers and images are not known",
);
/// containerd is not there.
pub const TARGET_NOT_INSTALLED: Code =
    Code::block("TargetNotInstalled", "The target runtime is not installed");
/// containerd.service is masked.
pub const TARGET_MASKED: Code = Code::block("TargetMasked", "The target's unit is masked");
/// containerd cannot serve this kubelet.
pub const TARGET_VERSION_UNFIT: Code = Code::block(
    "TargetVersionUnfit",
    "The target's version cannot serve this kubelet",
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
/// Two cgroup drivers.
pub const CGROUP_DRIVER_MISMATCH: Code = Code::block(
    "CgroupDriverMismatch",
    "The cgroup drivers of kubelet, source and request differ",
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
    TARGET_VERSION_MISMATCH,
    CRI_DISABLED,
    CGROUP_DRIVER_MISMATCH,
];

/// What is to be done between the runtime in use and the one that is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Pair<'a> {
    /// Nothing: the node uses the target already.
    Same,
    /// dockershim to containerd, both at hand.
    DockershimToContainerd {
        /// Docker Engine.
        docker: &'a Docker,
        /// The engine, answering.
        engine: &'a Engine,
        /// containerd.
        containerd: &'a Containerd,
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
    if source == target {
        return match facts
            .containerd
            .as_ref()
            .filter(|_| target == Runtime::Containerd)
        {
            Some(containerd) => version_as_asked(&containerd.version, request).map_or(Ok(Pair::Same), Err),
            None => Ok(Pair::Same),
        };
    }
    if (source, target) != (Runtime::Dockershim, Runtime::Containerd) {
        return Err(UNSUPPORTED_PAIR.found(
            format!("the node uses {source}, and {target} is asked for"),
            "This version moves from dockershim to containerd.",
        ));
    }
    let engine = facts
        .docker
        .as_ref()
        .and_then(|docker| docker.engine.as_ref().map(|engine| (docker, engine)));
    let (docker, engine) = engine.ok_or_else(|| {
        SOURCE_NOT_ANSWERING.found(
            "Docker Engine does not answer, although the kubelet uses it",
            "Look at `systemctl status docker`; a source that does not work cannot be rolled back to.",
        )
    })?;
    let containerd = facts.containerd.as_ref().ok_or_else(|| {
        TARGET_NOT_INSTALLED.found(
            "containerd is not installed",
            "Install containerd and its containerd.service on the node; it may run beside Docker.",
        )
    })?;
    Ok(Pair::DockershimToContainerd {
        docker,
        engine,
        containerd,
    })
}

/// The finding that says that the node is on the target already.
pub fn already_there(settings: &Settings) -> Finding {
    ALREADY_ON_TARGET.found(
        format!("the kubelet uses {}", settings.endpoint),
        "Nothing is to be done.",
    )
}

/// Checks of the two runtimes.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let containerd = view.containerd;
    let mut findings = Vec::new();
    if containerd.service.load != "loaded" {
        findings.push(TARGET_MASKED.found(
            format!("containerd.service is {}", containerd.service.load),
            "Unmask it (`systemctl unmask containerd`), or install its unit.",
        ));
    }
    findings.extend(unfit(&containerd.version, &view.settings.version));
    findings.extend(version_as_asked(&containerd.version, view.request));
    let text = containerd
        .config
        .file
        .as_ref()
        .map_or("", |file| file.text.as_str());
    if containerd_toml::disables_cri(text).unwrap_or(false) {
        findings.push(CRI_DISABLED.found(
            format!("{} disables the CRI plugin", containerd.config.path),
            "The plan switches it on; Docker does not need it to be off.",
        ));
    }
    findings.extend(cgroup_driver(view));
    findings
}

/// CRI versions: kubelets up to 1.22 speak v1alpha2 alone, which containerd 2.0 removed; kubelets from 1.26 on
/// speak v1 alone, which containerd has from 1.6.15 on in the form that they need. containerd before 1.5 is older
/// than anything that was tested with a kubelet from 1.20 on.
fn unfit(found: &str, kubelet: &Version) -> Option<Finding> {
    let remedy = "Install a version that fits; docs of containerd: RELEASES.md, \"Kubernetes Support\".";
    let Some(containerd) = version::upstream(found) else {
        return Some(TARGET_VERSION_UNFIT.found(
            format!("containerd's version {found:?} is not understood"),
            remedy,
        ));
    };
    let reason = if kubelet.minor <= 22 && containerd >= Version::new(2, 0, 0) {
        "it needs the CRI v1alpha2, which containerd 2.0 removed; use 1.6 or 1.7"
    } else if kubelet.minor >= 26 && containerd < Version::new(1, 6, 15) {
        "it needs the CRI v1 of containerd 1.6.15 or later"
    } else if containerd < Version::new(1, 5, 0) {
        "it needs containerd 1.5 or later"
    } else {
        return None;
    };
    Some(TARGET_VERSION_UNFIT.found(
        format!("containerd {found} cannot serve kubelet {kubelet}: {reason}"),
        remedy,
    ))
}

fn version_as_asked(found: &str, request: &Request) -> Option<Finding> {
    let wanted = request.target.version.as_ref()?;
    let requirement = match version::requirement(wanted) {
        Ok(requirement) => requirement,
        Err(error) => {
            return Some(TARGET_VERSION_MISMATCH.found(
                format!("target.version {wanted:?} is neither a version nor a range: {error}"),
                "Write a version (1.7.28) or a semver range (>=1.6, <2).",
            ));
        }
    };
    let fits = version::upstream(found).is_some_and(|version| requirement.matches(&version));
    (!fits).then(|| {
        TARGET_VERSION_MISMATCH.found(
            format!("containerd {found} is installed, and target.version asks for {wanted}"),
            "Install that version on the node, or change target.version.",
        )
    })
}

fn cgroup_driver(view: &View<'_>) -> Option<Finding> {
    let kubelet = &view.settings.cgroup_driver;
    let asked = match view.request.target.cgroup_driver {
        CgroupDriverChoice::Auto => kubelet,
        CgroupDriverChoice::Systemd => "systemd",
        CgroupDriverChoice::Cgroupfs => "cgroupfs",
    };
    let docker = &view.engine.cgroup_driver;
    let message = if asked != kubelet {
        format!("the kubelet uses {kubelet}, and target.cgroupDriver asks for {asked}")
    } else if docker != kubelet {
        format!("the kubelet uses {kubelet}, and Docker uses {docker}")
    } else {
        return None;
    };
    Some(CGROUP_DRIVER_MISMATCH.found(
        message,
        "Kubelet and runtime must use the same driver, and a driver cannot be changed under running pods: set target.cgroupDriver to Auto, or reinstall the node with the other driver.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cri_version_decides_what_fits() {
        let fits = |containerd, kubelet| unfit(containerd, &version::upstream(kubelet).unwrap()).is_none();
        assert!(fits("1.6.20~ds1", "1.23.17") && fits("2.1.0", "1.23.17"));
        assert!(fits("1.7.28", "1.22.0") && !fits("2.0.0", "1.22.0"));
        assert!(fits("1.6.15", "1.26.0") && !fits("1.6.8", "1.26.0"));
        assert!(!fits("1.4.13", "1.21.0") && !fits("devel", "1.23.0"));
    }
}
