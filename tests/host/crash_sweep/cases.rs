//! What is swept over: a host before, and a plan for it. One is written by hand here, the others are the captured
//! hosts (`captured.rs`).

use std::collections::BTreeMap;

use transship::{
    api::request::{Runtime, RuntimeVersion},
    edit::containerd_toml::Carried,
    plan::{
        configuration::{ConfigurationWant, Form},
        digest::Digest,
        document::{FORMAT, Plan, PlannedStep, Section},
        effective::Effective,
        host_path::HostPath,
        step::{
            AwaitStep, Boot, ClearPods, Contents, Endpoint, FileStep, HOLD_FILE, ImagesStep, KUBELET_UNIT,
            KubeletStep, KubeletWant, Layers, Proof, Rehearsal, Restart, Side, Step, StopPods, UnitStep,
        },
    },
};

/// The executor's deadline in the sweep: short, for it is waited for often.
const CONFIRM_WITHIN_SECS: u32 = 8;

pub struct Case {
    pub name: String,
    pub plan: Plan,
    pub digest: Digest,
    pub files: Vec<(HostPath, u32, Vec<u8>)>,
    /// Name, whether it runs, what happens at boot.
    pub units: Vec<(String, bool, String)>,
    /// Links of units that nobody's `[Install]` section names: those that somebody made by hand.
    pub links: Vec<(HostPath, String)>,
    /// Units whose file lies where systemd does not look: it is known by its link alone.
    pub linked: Vec<String>,
    /// All that the plan carries.
    pub images: Vec<String>,
    pub target_unit: String,
    /// All that the plan unpacks or installs.
    pub unpacked: Vec<(HostPath, u32, Vec<u8>)>,
    /// Units that come with a package or with a file of the plan, each with that file.
    pub packaged: Vec<(String, HostPath)>,
    /// Docker's unit starts containerd's (`Wants=`), on which its engine stands.
    pub docker_wants_containerd: bool,
    /// For each unit, the units whose stop would stop it.
    pub bound: BTreeMap<String, Vec<String>>,
}

/// Files with their bytes; nothing for one that is not there.
pub type Bytes = BTreeMap<HostPath, Option<Vec<u8>>>;

pub fn path(text: &str) -> HostPath {
    HostPath::new(text).unwrap()
}

impl Case {
    pub fn new(
        name: &str,
        mut plan: Plan,
        mut files: Vec<(HostPath, u32, Vec<u8>)>,
        units: Vec<(String, bool, String)>,
    ) -> Self {
        plan.confirm_within_secs = CONFIRM_WITHIN_SECS;
        files.push((
            path("/etc/machine-id"),
            0o444,
            format!("{}\n", plan.machine_id).into_bytes(),
        ));
        files.push((path("/etc/hosts"), 0o644, b"127.0.0.1 localhost\n".to_vec()));
        files.push((path(BINARY), 0o755, b"#!".to_vec()));
        let mut images: Vec<String> = steps(&plan)
            .filter_map(|step| match step {
                Step::Images(step) => Some(step.names.clone()),
                _ => None,
            })
            .flatten()
            .collect();
        images.sort();
        images.dedup();
        let target_unit = unit_of(plan.target.runtime).to_owned();
        Self {
            name: name.to_owned(),
            digest: plan.digest(),
            plan,
            files,
            units,
            links: Vec::new(),
            linked: Vec::new(),
            images,
            target_unit,
            unpacked: Vec::new(),
            packaged: Vec::new(),
            docker_wants_containerd: false,
            bound: BTreeMap::new(),
        }
    }

    /// Another deadline.
    pub fn confirm_within(&mut self, secs: u32) {
        self.plan.confirm_within_secs = secs;
        self.digest = self.plan.digest();
    }

    /// A time between the confirmation and the commit.
    pub fn soak(&mut self, secs: u32) {
        self.plan.soak_secs = secs;
        self.digest = self.plan.digest();
    }

    /// No way back but by an order or the deadline.
    pub fn roll_back_by_hand(&mut self) {
        self.plan.rollback_automatic = false;
        self.digest = self.plan.digest();
    }

    pub fn dir_path(&self) -> HostPath {
        path(&format!("/var/lib/transship/{}", self.plan.migration))
    }

    /// Whether pods run on while their runtime is restarted in another version.
    pub fn upgrades(&self) -> bool {
        self.source() == self.target()
    }

    pub fn source(&self) -> Runtime {
        self.plan.source.runtime
    }

    pub fn target(&self) -> Runtime {
        self.plan.target.runtime
    }

    fn endpoint(&self, side: Side) -> Option<String> {
        steps(&self.plan).find_map(|step| match step {
            Step::Await(AwaitStep {
                side: this,
                kubelet: Some(want),
                ..
            }) if *this == side => want.endpoint.clone(),
            _ => None,
        })
    }

    pub fn source_endpoint(&self) -> Option<String> {
        self.endpoint(Side::Source)
    }

    pub fn target_endpoint(&self) -> Option<String> {
        self.endpoint(Side::Target)
    }

    /// The last unit that the plan masks.
    pub fn last_masked(&self) -> Option<String> {
        steps(&self.plan)
            .filter_map(|step| match step {
                Step::Unit(step) if step.boot == Some(Boot::Masked) => Some(step.unit.clone()),
                _ => None,
            })
            .last()
    }

    fn file_steps(&self) -> impl Iterator<Item = (usize, &FileStep)> {
        steps(&self.plan)
            .enumerate()
            .filter_map(|(index, step)| match step {
                Step::File(step) => Some((index, step)),
                _ => None,
            })
    }

    /// The file that a step changes.
    pub fn file_of(&self, step: usize) -> Option<&HostPath> {
        self.file_steps()
            .find(|(index, _)| *index == step)
            .map(|(_, step)| &step.path)
    }

    /// All files that the plan changes.
    pub fn all_files(&self) -> impl Iterator<Item = &HostPath> {
        self.file_steps().map(|(_, step)| &step.path)
    }

    /// The files of the plan that a unit reads when it starts. The hold does not change what the kubelet is, and of Docker's own
    /// unit only that changes which systemd reads without a restart.
    pub fn files_of(&self, unit: &str) -> Vec<HostPath> {
        let reads = |at: &str| {
            let of_unit = at.contains(&format!("/{unit}.d/")) || at.ends_with(&format!("/{unit}"));
            let configures = match unit {
                "containerd.service" => at.starts_with("/etc/containerd/"),
                "docker.service" => at.starts_with("/etc/docker/"),
                "crio.service" => at.starts_with("/etc/crio/") || at.starts_with("/etc/containers/"),
                KUBELET_UNIT => at.contains("kube"),
                _ => false,
            };
            let is_read_at_once = [HOLD, "/etc/systemd/system/docker.service"].contains(&at);
            (of_unit || configures) && !is_read_at_once
        };
        self.all_files()
            .filter(|path| reads(path.as_str()))
            .cloned()
            .collect()
    }

    /// The bytes of a unit's files before the plan.
    pub fn first_files(&self, unit: &str) -> Bytes {
        let before = |path: &HostPath| {
            self.files
                .iter()
                .find(|(at, ..)| at == path)
                .map(|(.., bytes)| bytes.clone())
        };
        self.files_of(unit)
            .into_iter()
            .map(|path| (path.clone(), before(&path)))
            .collect()
    }

    /// The bytes of a unit's files after the plan.
    pub fn final_files(&self, unit: &str) -> Bytes {
        let mut files = self.first_files(unit);
        for (_, step) in self.file_steps() {
            if let Some(bytes) = files.get_mut(&step.path) {
                *bytes = step.want.as_ref().map(|want| want.text.clone().into_bytes());
            }
        }
        files
    }

    /// What a unit shall be after the plan: running, and at boot.
    pub fn final_units(&self) -> BTreeMap<String, (bool, String)> {
        let mut units: BTreeMap<_, _> = self
            .units
            .iter()
            .map(|(name, active, boot)| (name.clone(), (*active, boot.clone())))
            .collect();
        for step in steps(&self.plan) {
            let Step::Unit(step) = step else { continue };
            let unit = units.entry(step.unit.clone()).or_default();
            unit.0 = step.active.unwrap_or(unit.0);
            match step.boot {
                Some(Boot::Enabled) => unit.1 = "enabled".to_owned(),
                Some(Boot::Disabled) => unit.1 = "disabled".to_owned(),
                Some(Boot::Masked) => unit.1 = "masked".to_owned(),
                None => {}
            }
        }
        units
    }
}

/// The unit that answers for a runtime.
pub fn unit_of(runtime: Runtime) -> &'static str {
    units_of(runtime)[0]
}

/// The units that must run for a runtime to answer, first the one that answers.
pub fn units_of(runtime: Runtime) -> &'static [&'static str] {
    match runtime {
        Runtime::Dockershim => &["docker.service"],
        Runtime::CriDockerd => &["cri-docker.service", "docker.service"],
        Runtime::Containerd => &["containerd.service"],
        Runtime::CriO => &["crio.service"],
    }
}

/// Where the executor's binary lies on these hosts.
pub const BINARY: &str = "/var/lib/transship/bin/0/transship";

fn steps(plan: &Plan) -> impl Iterator<Item = &Step> {
    plan.steps.iter().map(|planned| &planned.does)
}

/// The drop-in that holds the kubelet, in the case by hand.
pub const HOLD: &str = "/etc/systemd/system/kubelet.service.d/zz-transship-hold.conf";

/// A host and a plan with every primitive, in the order of a plan from dockershim to containerd; containerd is
/// neither running nor enabled, a unit drop-in is made in a directory that does not exist, a file is removed.
pub fn by_hand() -> Case {
    let hold = format!("[Unit]\nConditionPathExists=!{HOLD_FILE}\n");
    let docker = Endpoint {
        runtime: Runtime::Dockershim,
        socket: path("/var/run/docker.sock"),
    };
    let containerd = Endpoint {
        runtime: Runtime::Containerd,
        socket: path("/run/containerd/containerd.sock"),
    };
    let flag = "unix:///run/containerd/containerd.sock".to_owned();
    let files: Vec<(&str, u32, &str)> = vec![
        (
            "/etc/containerd/config.toml",
            0o640,
            "disabled_plugins = [\"cri\"]\n",
        ),
        ("/etc/cni/net.d/old.conf", 0o600, "{}\n"),
        (
            "/var/lib/kubelet/kubeadm-flags.env",
            0o600,
            "KUBELET_KUBEADM_ARGS=\"--network-plugin=cni\"\n",
        ),
        (
            "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf",
            0o644,
            "[Service]\n",
        ),
    ];
    let file = |at: &str, from: Option<&str>, want: Option<&str>| {
        Step::File(FileStep {
            path: path(at),
            planned_from: from.map(Digest::of),
            want: want.map(|text| Contents {
                text: text.to_owned(),
                mode: 0o644,
            }),
        })
    };
    let unit = |name: &str, active, boot, restart| {
        Step::Unit(UnitStep {
            unit: name.to_owned(),
            active,
            boot,
            restart,
            socket: None,
            effective: None,
        })
    };
    let images = Step::Images(ImagesStep {
        from: docker.clone(),
        to: containerd.clone(),
        names: ["a/pause:1", "b/proxy:1", "c/agent:1"]
            .map(str::to_owned)
            .to_vec(),
        layers: Layers::Linked {
            data_root: Some(path("/var/lib/docker")),
        },
        ctr: None,
        pull_directory: None,
    });
    let await_of = |side, runtime: &Endpoint, endpoint: Option<Option<String>>| {
        Step::Await(AwaitStep {
            side,
            runtime: runtime.clone(),
            version: None,
            configuration: (side == Side::Target && endpoint.is_none()).then(|| ConfigurationWant {
                command: vec!["containerd".to_owned()],
                form: Form::Containerd,
                systemd_cgroup: true,
                sandbox_image: "a/pause:1".to_owned(),
                carried: Carried::default(),
                handlers: Vec::new(),
            }),
            kubelet: endpoint.map(|endpoint| KubeletWant { endpoint }),
            within_secs: 10,
        })
    };
    let prepare = [
        unit("containerd.service", None, None, Restart::Backwards),
        file(files[0].0, Some(files[0].2), Some("version = 2\n")),
        file(
            "/etc/systemd/system/containerd.service.d/zz-transship.conf",
            None,
            Some("[Service]\nLimitNOFILE=1048576\n"),
        ),
        Step::Unit(UnitStep {
            unit: "containerd.service".to_owned(),
            active: Some(true),
            boot: Some(Boot::Enabled),
            restart: Restart::Forwards,
            socket: None,
            effective: Some(Effective::of_drop_in(
                &path("/etc/systemd/system/containerd.service.d/zz-transship.conf"),
                "[Service]\nLimitNOFILE=1048576\n",
            )),
        }),
        await_of(Side::Target, &containerd, None),
        images.clone(),
        Step::Rehearse(Rehearsal {
            cri: containerd.clone(),
            cgroup_parent: "transship.slice".to_owned(),
            pod_network: true,
            proof: Proof::Own,
        }),
    ];
    let switch = [
        file(HOLD, None, Some(&hold)),
        images,
        await_of(Side::Source, &docker, Some(None)),
        Step::Kubelet(KubeletStep {
            run: false,
            runtime: docker.clone(),
        }),
        Step::StopPods(StopPods {
            source: docker.clone(),
            target: containerd.clone(),
            grace_limit_secs: 5,
            cni_bin_dirs: vec![path("/opt/cni/bin")],
            cni_cache_dir: path("/var/lib/cni/cache"),
            engine: Some(docker.socket.clone()),
            source_units: ["containerd.service", "docker.service"]
                .map(str::to_owned)
                .to_vec(),
            target_units: vec!["containerd.service".to_owned()],
        }),
        file(
            files[2].0,
            Some(files[2].2),
            Some(&format!(
                "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint={flag}\"\n"
            )),
        ),
        file(files[3].0, Some(files[3].2), Some("[Service]\nEnvironment=A=b\n")),
        file(
            "/etc/crictl.yaml",
            None,
            Some(&format!("runtime-endpoint: {flag}\n")),
        ),
        file(files[1].0, Some(files[1].2), None),
        Step::Kubelet(KubeletStep {
            run: true,
            runtime: containerd.clone(),
        }),
        await_of(Side::Target, &containerd, Some(Some(flag.clone()))),
    ];
    let settle = [
        Step::ClearPods(ClearPods {
            source: docker.clone(),
            cni_bin_dirs: vec![path("/opt/cni/bin")],
            cni_cache_dir: path("/var/lib/cni/cache"),
        }),
        unit(
            "docker.service",
            Some(false),
            Some(Boot::Disabled),
            Restart::Never,
        ),
        unit("docker.socket", Some(false), Some(Boot::Masked), Restart::Never),
        unit("docker.service", None, Some(Boot::Masked), Restart::Never),
        file(HOLD, Some(&hold), None),
    ];
    let in_section =
        |section: Section, steps: Vec<Step>| steps.into_iter().map(move |does| PlannedStep { section, does });
    let plan = Plan {
        format: FORMAT,
        migration: "sweep".to_owned(),
        migration_name: None,
        node: "n1".to_owned(),
        machine_id: "00000000000000000000000000000001".to_owned(),
        source: RuntimeVersion {
            runtime: Runtime::Dockershim,
            version: "20.10".to_owned(),
        },
        target: RuntimeVersion {
            runtime: Runtime::Containerd,
            version: "1.6".to_owned(),
        },
        confirm_within_secs: CONFIRM_WITHIN_SECS,
        soak_secs: 0,
        prepared_for_secs: 900,
        rollback_automatic: true,
        findings: Vec::new(),
        steps: in_section(Section::Prepare, prepare.to_vec())
            .chain(in_section(Section::Switch, switch.to_vec()))
            .chain(in_section(Section::Settle, settle.to_vec()))
            .collect(),
        digest_key: String::new(),
    };
    let units = [
        (KUBELET_UNIT, true, "enabled"),
        ("docker.service", true, "enabled"),
        ("docker.socket", true, "enabled"),
        ("containerd.service", false, "disabled"),
    ];
    let case = Case::new(
        "by hand",
        plan,
        files
            .iter()
            .map(|(at, mode, text)| (path(at), *mode, text.as_bytes().to_vec()))
            .collect(),
        units
            .iter()
            .map(|(name, active, boot)| ((*name).to_owned(), *active, (*boot).to_owned()))
            .collect(),
    );
    let link = |at: &str, target: &str| (path(&format!("/etc/systemd/system/{at}")), target.to_owned());
    Case {
        links: vec![
            link(
                "kubelet.service.wants/docker.service",
                "/lib/systemd/system/docker.service",
            ),
            link("engine.service", "/lib/systemd/system/docker.service"),
            link("docker.socket", "/opt/docker/docker.socket"),
            link("sockets.target.wants/docker.socket", "/opt/docker/docker.socket"),
        ],
        linked: vec!["docker.socket".to_owned()],
        ..case
    }
}
