//! cri-dockerd: a CRI in front of Docker Engine. Its containers and images are Docker's.

use semver::Version;
use serde_json::{Map, Value};

use super::{Planner, Source, SourcePart, Target, TargetPart, docker};
use crate::{
    api::request::Runtime,
    edit::{
        flags::{self, Change},
        unit_file,
    },
    plan::{
        assembler::file,
        facts::{CriDockerd, Docker, Facts},
        finding::Finding,
        findings::{
            View,
            runtimes::{SOURCE_NOT_ANSWERING, TARGET_NOT_INSTALLED, TARGET_VERSION_UNFIT},
        },
        kubelet_settings::{PodNetwork, Settings},
        planner::Request,
        step::{Endpoint, Restart, Step, UnitStep},
        version,
    },
};

/// The planner of cri-dockerd.
pub const PLANNER: Planner = Planner {
    runtime: Runtime::CriDockerd,
    source: Some(SourcePart { look: source, settle }),
    target: Some(TargetPart {
        look: target,
        prepare,
        check,
        tells_cgroup_driver: |target| version::upstream(&target.version) >= Some(Version::new(0, 3, 17)),
    }),
};

fn source<'a>(facts: &'a Facts, _: &Settings) -> Result<Source<'a>, Finding> {
    let (docker, engine) = docker::answering(facts)?;
    let (shim, cri) = facts
        .cri_dockerd
        .as_ref()
        .and_then(|shim| shim.cri.as_ref().map(|cri| (shim, cri)))
        .ok_or_else(|| {
            SOURCE_NOT_ANSWERING.found(
                "cri-dockerd does not answer, although the kubelet uses it",
                "Look at `systemctl status cri-docker`; a source that does not work cannot be rolled back to.",
            )
        })?;
    let mut network = PodNetwork::of_flags(&shim.service.exec_start);
    if network.plugin.is_empty() {
        // Its default since 0.2.5.
        network.plugin = "cni".to_owned();
    }
    Ok(Source {
        runtime: Runtime::CriDockerd,
        version: shim.version.clone(),
        cri: endpoint(shim),
        images: engine_of(docker),
        store: &engine.store,
        network,
        cgroup_driver: Some(&engine.cgroup_driver),
        told_cgroup_driver: cri.cgroup_driver.as_deref(),
        unit: docker::SERVICE,
    })
}

/// Its socket would start it again for anybody who asks, and through it Docker. So both units end, and Docker's
/// after them.
fn settle(view: &View<'_>) -> Vec<Step> {
    let own = view.cri_dockerd;
    let own = own.map(|shim| docker::ended(&shim.service, &shim.socket, &shim.endpoint));
    own.into_iter().flatten().chain(docker::settle(view)).collect()
}

fn target(facts: &Facts, _: &Request) -> Result<Target, Finding> {
    let docker = facts.docker.as_ref().ok_or_else(|| {
        TARGET_NOT_INSTALLED.found(
            "Docker Engine is not installed, and cri-dockerd stands on it",
            "Install Docker Engine and its units on the node.",
        )
    })?;
    let shim = facts.cri_dockerd.as_ref().ok_or_else(|| {
        TARGET_NOT_INSTALLED.found(
            "cri-dockerd is not installed",
            "Install cri-dockerd with its cri-docker.service and cri-docker.socket on the node; it may run beside the runtime in use.",
        )
    })?;
    Ok(Target {
        runtime: Runtime::CriDockerd,
        version: shim.version.clone(),
        cri: endpoint(shim),
        images: engine_of(docker),
        unit: docker::SERVICE.to_owned(),
        program: None,
        install: Vec::new(),
    })
}

fn endpoint(shim: &CriDockerd) -> Endpoint {
    Endpoint {
        runtime: Runtime::CriDockerd,
        socket: shim.endpoint.clone(),
    }
}

fn engine_of(docker: &Docker) -> Endpoint {
    Endpoint {
        runtime: Runtime::CriDockerd,
        socket: docker.endpoint.clone(),
    }
}

/// Docker ready, and cri-dockerd configured and started in front of it.
fn prepare(view: &View<'_>) -> Result<Vec<Step>, Finding> {
    let (Some(docker), Some(shim)) = (view.docker, view.cri_dockerd) else {
        return Ok(Vec::new());
    };
    let mut steps = docker::ready(view, docker)?;
    let text = drop_in(view, docker, shim);
    let files: Vec<Step> = file(&shim.drop_in.path, shim.drop_in.file.as_ref(), text, 0o644)
        .into_iter()
        .collect();
    // One whose files are right but whose CRI does not answer was started before they were.
    let restart = if files.is_empty() && shim.cri.is_some() {
        Restart::Never
    } else {
        Restart::Forwards
    };
    if restart == Restart::Forwards {
        steps.push(Step::Unit(UnitStep {
            unit: shim.service.name.clone(),
            active: None,
            boot: None,
            restart: Restart::Backwards,
            socket: None,
        }));
    }
    steps.extend(files);
    steps.extend(docker::started(
        &shim.service,
        &shim.socket,
        restart,
        &shim.endpoint,
    ));
    Ok(steps)
}

/// The drop-in: its command with what the source did for the pods' network and sandboxes, and after Docker, without
/// which it ends at its start.
fn drop_in(view: &View<'_>, docker: &Docker, shim: &CriDockerd) -> String {
    let network = &view.source.network;
    let set = |name: &str, value: &str| Change::Set {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let mut changes = vec![
        set("docker-endpoint", &format!("unix://{}", docker.endpoint)),
        set("pod-infra-container-image", &view.cargo.sandbox),
        set("network-plugin", &network.plugin),
        set("cni-conf-dir", &network.conf_dir),
        set("cni-bin-dir", &network.bin_dirs.join(",")),
        set("cni-cache-dir", &network.cache_dir),
    ];
    changes.extend(network.mtu.iter().map(|mtu| set("network-plugin-mtu", mtu)));
    changes.extend(network.hairpin_mode.iter().map(|mode| set("hairpin-mode", mode)));
    let words: Vec<String> = flags::change_words(&shim.service.exec_start, &changes)
        .iter()
        .map(|word| unit_file::word(word))
        .collect();
    format!(
        "# Written by Transship: cri-dockerd in front of Docker, with the settings of the runtime before it.\n[Unit]\nRequires={unit}\nAfter={unit}\n\n[Service]\nExecStart=\nExecStart={}\n",
        words.join(" "),
        unit = docker.service.name,
    )
}

fn check(view: &View<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = unfit(&view.target.version, &view.settings.version)
        .into_iter()
        .collect();
    if let Some(engine) = view.engine {
        findings.extend(unfit_engine(&view.target.version, &engine.version, view.daemon));
    }
    findings
}

/// CRI versions: kubelets up to 1.22 speak v1alpha2 alone, which 0.3.22 and 0.4.3 dropped; kubelets from 1.26 on
/// speak v1 alone, which came with 0.3.0.
fn unfit(found: &str, kubelet: &Version) -> Option<Finding> {
    let remedy = "Install a version of cri-dockerd that fits.";
    let Some(shim) = version::upstream(found) else {
        return Some(TARGET_VERSION_UNFIT.found(
            format!("cri-dockerd's version {found:?} is not understood"),
            remedy,
        ));
    };
    let dropped =
        Version::new(0, 3, 22) <= shim && shim < Version::new(0, 4, 0) || shim >= Version::new(0, 4, 3);
    let reason = if kubelet.minor <= 22 && dropped {
        "it needs the CRI v1alpha2, which cri-dockerd 0.3.22 and 0.4.3 dropped; use 0.3.21"
    } else if kubelet.minor >= 26 && shim < Version::new(0, 3, 0) {
        "it needs the CRI v1 of cri-dockerd 0.3 or later"
    } else {
        return None;
    };
    Some(TARGET_VERSION_UNFIT.found(
        format!("cri-dockerd {found} cannot serve kubelet {kubelet}: {reason}"),
        remedy,
    ))
}

/// Docker's API: from 29 on it refuses clients below 1.44 (`min-api-version`), which cri-dockerd before 0.3.16 are;
/// 0.4.0 to 0.4.2 ask for 1.42, which came with Docker 23.
fn unfit_engine(found: &str, engine: &str, daemon: &Map<String, Value>) -> Option<Finding> {
    let (shim, docker) = (version::upstream(found)?, version::upstream(engine)?);
    let reason = if docker.major >= 29
        && shim < Version::new(0, 3, 16)
        && !daemon.contains_key("min-api-version")
    {
        "Docker 29 refuses its API version; use cri-dockerd 0.3.16 or later, or set min-api-version in daemon.json"
    } else if docker.major < 23 && (Version::new(0, 4, 0)..Version::new(0, 4, 3)).contains(&shim) {
        "it needs the API of Docker 23; use cri-dockerd 0.4.3, or 0.3"
    } else {
        return None;
    };
    Some(TARGET_VERSION_UNFIT.found(
        format!("cri-dockerd {found} cannot use Docker {engine}: {reason}"),
        "Install a version of cri-dockerd that fits.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cri_version_and_dockers_api_decide_what_fits() {
        let fits = |shim, kubelet| unfit(shim, &version::upstream(kubelet).unwrap()).is_none();
        assert!(fits("0.4.3", "1.36.3") && !fits("0.2.6", "1.26.0"));
        assert!(fits("0.3.21", "1.22.0") && !fits("0.3.22", "1.22.0"));
        assert!(fits("0.4.1", "1.22.0") && !fits("0.4.3", "1.22.0") && !fits("", "1.23.0"));
        let (plain, allowed) = (
            Map::new(),
            Map::from_iter([("min-api-version".to_owned(), "1.24".into())]),
        );
        let works = |shim, docker, daemon| unfit_engine(shim, docker, daemon).is_none();
        assert!(works("0.4.3", "20.10.24+dfsg1", &plain) && !works("0.4.1", "20.10.24", &plain));
        assert!(works("0.3.16", "29.1.0", &plain) && !works("0.3.15", "29.1.0", &plain));
        assert!(works("0.3.15", "29.1.0", &allowed));
    }
}
