//! Nodes whose containerd is upgraded while their pods run: what each finding needs to be found.

mod versions;

use rstest::rstest;
use transship::{
    api::request::Runtime,
    plan::{
        document::Plan,
        facts::{Containerd, Facts, ForeignRecord, Task, TextFile, UnitFacts},
        finding::{Finding, Severity},
        request::Origin,
    },
    planner::{
        plan,
        request::{Request, Verdict},
    },
};

use super::{file, path, registry};
use crate::fixtures;

const NODE: &str = "debian12-kubeadm-1.30-containerd";
/// What every upgrade of that node from 1.7 to 2.4 is told.
const USUAL: [&str; 4] = [
    "ContainerdRestarts",
    "ContainerdConfigTranslated",
    "UpgradeBeyondSupport",
    "SeccompProfileChanges",
];

/// The checks of an upgrade, with an archive of 2.4.2.
fn found(facts: &Facts) -> Vec<Finding> {
    found_with(facts, &fixtures::from_archive(Runtime::Containerd))
}

fn found_with(facts: &Facts, request: &Request) -> Vec<Finding> {
    plan(facts, request).findings
}

fn codes(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.code.as_str()).collect()
}

fn node() -> Facts {
    fixtures::named(NODE)
}

/// The node with another kubelet, which uses containerd.
fn of_kubelet(version: &str) -> Facts {
    let mut facts = node();
    let kubelet = facts.kubelet.as_mut().unwrap();
    kubelet.version = version.to_owned();
    kubelet.command_line.push("--container-runtime=remote".to_owned());
    facts
}

fn containerd(facts: &mut Facts) -> &mut Containerd {
    facts.containerd.as_mut().unwrap()
}

/// The one finding of a code after a change; without the change there is none.
fn after(change: impl FnOnce(&mut Facts), code: &str) -> Finding {
    let mut facts = node();
    assert!(
        !codes(&found(&facts)).contains(&code),
        "{code} without the change"
    );
    change(&mut facts);
    let mut findings = found(&facts);
    findings.retain(|finding| finding.code == code);
    assert_eq!(findings.len(), 1, "{code}: {:?}", found(&facts));
    findings.remove(0)
}

#[test]
fn a_sound_node_is_told_what_the_upgrade_means() {
    let findings = found(&node());
    assert_eq!(codes(&findings), USUAL);
    assert!(
        findings.iter().all(|finding| finding.severity == Severity::Info),
        "{findings:?}"
    );
    let restarts = &findings[0].message;
    assert!(
        restarts.contains("1.7.20 is replaced by 2.4.2 while 4 pods keep running"),
        "{restarts}"
    );
    let translated = &findings[1].message;
    for line in [
        "enable_unprivileged_ports: written out as false",
        "enable_unprivileged_icmp: written out as false",
        "bin_dir: written out as /opt/cni/bin",
        "disable: written out as true",
    ] {
        assert!(translated.contains(line), "{line} not in {translated}");
    }
}

/// Another pair of runtimes is not an upgrade.
#[test]
fn a_move_from_docker_is_not_told_of_upgrades() {
    let facts = fixtures::named(crate::lab::LAB);
    let outcome = plan(&facts, &fixtures::from_archive(Runtime::Containerd));
    assert!(!codes(&outcome.findings).contains(&"ContainerdRestarts"));
}

#[test]
fn a_process_outside_its_cgroup_is_repaired_and_named() {
    let found = after(
        |facts| containerd(facts).upgrade.tasks[0].lost_pids = true,
        "ProcessesOutsideCgroup",
    );
    assert_eq!(found.severity, Severity::Info);
    assert!(found.message.contains("/"), "{}", found.message);
    assert!(
        found.message.contains("web/shop") || found.message.contains("kube-system/"),
        "{}",
        found.message
    );
}

#[test]
fn a_pod_on_two_shims_blocks_and_can_be_accepted() {
    let found = after(
        |facts| containerd(facts).upgrade.tasks[0].shim_pid += 1,
        "PodSplit",
    );
    assert_eq!(found.severity, Severity::Block);
    // A container whose shim is not known says nothing.
    let mut facts = node();
    containerd(&mut facts).upgrade.tasks[0].shim_pid = 0;
    assert_eq!(codes(&self::found(&facts)), USUAL);
}

#[test]
fn a_missing_shim_blocks_and_names_the_program_and_the_pods() {
    let missing = |facts: &mut Facts| {
        let task = &mut containerd(facts).upgrade.tasks[0];
        (task.shim_present, task.shim) = (false, "/usr/bin/gone".to_owned());
    };
    let found = after(missing, "ShimMissing");
    assert_eq!(found.severity, Severity::Block);
    assert!(
        found.message.starts_with("/usr/bin/gone does not exist"),
        "{}",
        found.message
    );
}

/// A task of which the CRI has no record is named by its id.
#[test]
fn a_container_of_nobody_is_named_by_its_id_and_namespace() {
    let task = Task {
        namespace: "default".into(),
        id: "0123456789abcdef".into(),
        pid: 9,
        lost_pids: true,
        shim_present: true,
        ..Task::default()
    };
    let found = after(
        |facts| containerd(facts).upgrade.tasks.push(task),
        "ProcessesOutsideCgroup",
    );
    assert!(
        found
            .message
            .ends_with("container 0123456789ab in containerd's namespace default"),
        "{}",
        found.message
    );
}

#[rstest]
#[case("io.containerd.runtime.v1.linux", "RuntimeGone", Severity::Block)]
#[case("io.containerd.runc.v1", "RuntimeGone", Severity::Block)]
#[case("io.containerd.kata.v2", "OtherShims", Severity::Warn)]
fn records_of_other_runtimes_are_found(
    #[case] runtime: &str,
    #[case] code: &str,
    #[case] severity: Severity,
) {
    let record = ForeignRecord {
        namespace: "k8s.io".into(),
        id: "0123456789abcdef".into(),
        runtime: runtime.into(),
    };
    let found = after(
        |facts| containerd(facts).upgrade.foreign_records.push(record),
        code,
    );
    assert_eq!(found.severity, severity);
    assert!(found.message.contains(runtime), "{}", found.message);
}

#[rstest]
#[case("1.23.17", true)]
#[case("1.25.16", true)]
// A kubelet that knows v1 alone is not the client.
#[case("1.30.4", false)]
fn a_kubelet_that_may_use_v1alpha2_blocks(#[case] kubelet: &str, #[case] blocks: bool) {
    let mut facts = of_kubelet(kubelet);
    containerd(&mut facts).upgrade.deprecations = vec!["io.containerd.deprecation/cri-api-v1alpha2".into()];
    let findings = found(&facts);
    let used = findings.iter().find(|finding| finding.code == "CriV1alpha2Used");
    assert_eq!(
        used.map(|finding| finding.severity),
        blocks.then_some(Severity::Block)
    );
    let listed = findings
        .iter()
        .find(|finding| finding.code == "DeprecatedFeatures")
        .unwrap();
    assert!(
        listed.message.ends_with(": cri-api-v1alpha2"),
        "{}",
        listed.message
    );
}

#[rstest]
#[case::told_by_nobody("cgroupDriver: systemd", "cgroupDriver: cgroupfs", true)]
#[case::agreed("cgroupDriver: systemd", "cgroupDriver: systemd", false)]
fn a_cgroup_driver_that_containerd_would_override_blocks(
    #[case] from: &str,
    #[case] to: &str,
    #[case] blocks: bool,
) {
    let mut facts = node();
    let config: &mut TextFile = facts.kubelet.as_mut().unwrap().config.as_mut().unwrap();
    assert!(config.text.contains(from));
    config.text = config.text.replace(from, to);
    let mismatch = found(&facts)
        .into_iter()
        .find(|finding| finding.code == "CgroupDriverMismatch");
    assert_eq!(
        mismatch.as_ref().map(|finding| finding.severity),
        blocks.then_some(Severity::Block)
    );
    if let Some(mismatch) = mismatch {
        assert!(
            mismatch
                .message
                .contains("configured for cgroupfs, and the handler runc of containerd uses systemd")
        );
    }
}

#[rstest]
#[case::variable(UnitFacts { environment: vec!["ENABLE_CRI_SANDBOXES=1".into()], ..UnitFacts::default() })]
#[case::in_a_file(UnitFacts { environment_files: vec![file("/etc/default/containerd", "A=b\nENABLE_CRI_SANDBOXES=1\n")], ..UnitFacts::default() })]
fn sandboxes_of_the_experiment_block(#[case] unit: UnitFacts) {
    let change = |facts: &mut Facts| {
        let service = &mut containerd(facts).service;
        service.environment.extend(unit.environment);
        service.environment_files.extend(unit.environment_files);
    };
    assert_eq!(after(change, "CriSandboxesEnabled").severity, Severity::Block);
}

fn configuration(facts: &mut Facts, rest: &str) {
    let text = format!(
        "version = 2\n{}\n",
        rest.replace("CRI", "plugins.'io.containerd.grpc.v1.cri'")
    );
    containerd(facts).config.file = Some(file("/etc/containerd/config.toml", &text));
}

#[test]
fn a_key_that_cannot_be_translated_blocks() {
    let change = |facts: &mut Facts| configuration(facts, "[CRI]\nsystemd_cgroup = true");
    let found = after(change, "ContainerdConfigNotTranslated");
    assert_eq!(found.severity, Severity::Block);
    assert!(
        found.message.contains("config.toml: plugins."),
        "{}",
        found.message
    );
}

#[test]
fn a_key_that_is_dropped_warns() {
    let change = |facts: &mut Facts| {
        configuration(
            facts,
            "[CRI.containerd.runtimes.runc.options]\nCriuPath = '/opt/criu'",
        )
    };
    let found = after(change, "ContainerdConfigDropped");
    assert_eq!(found.severity, Severity::Warn);
    assert!(
        found
            .message
            .contains("CriuPath: dropped, containerd 2.x looks for criu in its PATH"),
        "{}",
        found.message
    );
}

#[test]
fn a_handler_with_a_shim_of_its_own_warns() {
    let text =
        "[CRI.containerd.runtimes.own]\nruntime_type = 'io.containerd.runc.v2'\nruntime_path = '/opt/shim'";
    let found = after(|facts| configuration(facts, text), "HandlerHasShim");
    assert_eq!(found.severity, Severity::Warn);
    assert!(
        found.message.contains("runtimes.own.runtime_path"),
        "{}",
        found.message
    );
}

#[test]
fn credentials_do_not_stand_in_a_finding() {
    let mut facts = node();
    configuration(
        &mut facts,
        "[CRI.registry.mirrors.'docker.io']\nendpoint = ['https://user:zq7@mirror.example']\n\
         [CRI.registry.configs.'mirror.example'.auth]\npassword = 'zq7'\n[CRI.registry.auths.'https://zq7:zq7@old.example']\nauth = 'zq7'",
    );
    let findings = found(&facts);
    let shown = format!("{findings:?}");
    assert!(
        shown.contains("registry.mirrors.\\\"docker.io\\\": translated to"),
        "{shown}"
    );
    assert!(!shown.contains("zq7"), "{shown}");
}

/// Settings of registries that nothing has read so far must not come into effect.
#[test]
fn registries_that_lie_unread_stay_unread() {
    let mut facts = node();
    configuration(
        &mut facts,
        "[CRI.registry.mirrors.'docker.io']\nendpoint = ['https://mirror.example']",
    );
    let translated = |facts: &Facts| {
        let findings = found(facts);
        findings
            .into_iter()
            .find(|finding| finding.code == "ContainerdConfigTranslated")
            .unwrap()
            .message
    };
    assert!(translated(&facts).contains("/etc/containerd/certs.d/docker.io/hosts.toml"));
    facts.registry_directories = vec![registry("/etc/containerd/certs.d/other.example", &[])];
    assert!(translated(&facts).contains("/etc/containerd/transship-certs.d/docker.io/hosts.toml"));
}

#[test]
fn plugins_of_nri_stay_off_and_are_named() {
    let found = after(
        |facts| containerd(facts).upgrade.nri_plugins = vec!["10-log".into()],
        "NriPluginsStayOff",
    );
    assert_eq!(found.severity, Severity::Info);
    // Where NRI is on, they run today.
    let mut facts = node();
    containerd(&mut facts).upgrade.nri_plugins = vec!["10-log".into()];
    configuration(
        &mut facts,
        "[plugins.'io.containerd.nri.v1.nri']\ndisable = false",
    );
    assert!(!codes(&self::found(&facts)).contains(&"NriPluginsStayOff"));
}

#[test]
fn files_that_nothing_imports_are_named() {
    let change = |facts: &mut Facts| {
        containerd(facts).upgrade.not_imported = vec![path("/etc/containerd/conf.d/gpu.toml")]
    };
    let found = after(change, "ConfDNotImported");
    assert!(
        found.message.contains("/etc/containerd/conf.d/gpu.toml"),
        "{}",
        found.message
    );
}

#[test]
fn dockers_containers_on_the_same_containerd_are_counted() {
    let change = |facts: &mut Facts| {
        let tasks = &mut containerd(facts).upgrade.tasks;
        let task = Task {
            namespace: "moby".into(),
            ..tasks[0].clone()
        };
        tasks.push(task);
    };
    let found = after(change, "DockerOnContainerd");
    assert_eq!(found.severity, Severity::Warn);
    assert!(
        found.message.starts_with("Docker runs 1 container "),
        "{}",
        found.message
    );
}

#[test]
fn a_docker_that_stops_with_containerd_blocks() {
    let change = |facts: &mut Facts| {
        let mut docker = fixtures::named(crate::lab::LAB).docker.unwrap();
        docker.service.active = "active".into();
        docker.service.bound_to = vec!["containerd.service".into()];
        facts.docker = Some(docker);
    };
    let found = after(change, "DockerBoundToContainerd");
    assert_eq!(found.severity, Severity::Block);
    // In an administrator's own file, as Kubespray writes it, the plan weakens it, and the way back restores it last.
    let mut facts = node();
    change(&mut facts);
    let name = "/etc/systemd/system/docker.service";
    let docker = facts.docker.as_mut().unwrap();
    docker.service.fragment = Some(path(name));
    docker.own_unit = Some(file(name, "[Unit]\nBindsTo=containerd.service\n[Service]\n"));
    let outcome = plan(&facts, &fixtures::from_archive(Runtime::Containerd));
    assert!(!codes(&outcome.findings).contains(&"DockerBoundToContainerd"));
    let words = outcome.plan().unwrap().words();
    let at = |wanted: &str| words.iter().position(|words| words.contains(wanted)).unwrap();
    assert!(
        at(name) < at("(When undone: restart containerd.service"),
        "{words:#?}"
    );
}

#[test]
fn images_of_schema_1_are_named() {
    let change =
        |facts: &mut Facts| containerd(facts).upgrade.schema_1_images = vec!["r.example/old:1".into()];
    let found = after(change, "Schema1Images");
    assert_eq!(found.severity, Severity::Warn);
    assert!(found.message.ends_with(": r.example/old:1"), "{}", found.message);
}

/// What 2.x does not have is of no interest to an upgrade within 1.x or from 2.x.
#[rstest]
#[case::within_1_7("1.7.20", "1.7.35")]
#[case::from_2_3("2.3.0", "2.4.2")]
fn other_upgrades_are_not_told_of_2_0(#[case] from: &str, #[case] to: &str) {
    let mut facts = node();
    let found = containerd(&mut facts);
    found.version = from.into();
    found.cri.as_mut().unwrap().version = from.into();
    found.upgrade.foreign_records = vec![ForeignRecord {
        namespace: "k8s.io".into(),
        id: "a".into(),
        runtime: "io.containerd.runc.v1".into(),
    }];
    found.upgrade.not_imported = vec![path("/etc/containerd/conf.d/gpu.toml")];
    found.upgrade.schema_1_images = vec!["r.example/old:1".into()];
    found.upgrade.deprecations = vec!["io.containerd.deprecation/cri-api-v1alpha2".into()];
    let mut request = fixtures::from_archive(Runtime::Containerd);
    let Origin::Archive(origin) = &mut request.target.from else {
        panic!("an archive");
    };
    origin.url = origin.url.replace("2.4.2", to);
    let findings = found_with(&facts, &request);
    let mut wanted = vec!["ContainerdRestarts", "DeprecatedFeatures"];
    // The dump is of 1.7, and names no directory of plugins in the words of 2.x.
    wanted.extend((to == "2.4.2").then_some("ContainerdConfigTranslated"));
    let mut codes = codes(&findings);
    codes.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(codes, wanted, "{findings:?}");
}

/// No pod stops, no file of the kubelet is changed, and the socket stays.
#[test]
fn what_concerns_pods_that_stop_is_not_found() {
    let mut facts = node();
    let kubelet = facts.kubelet.as_mut().unwrap();
    kubelet.static_pod_images = vec!["registry.k8s.io/etcd:3.5.15-0".into()];
    kubelet.command_line.push("--v=4".into());
    let containers = &mut containerd(&mut facts).store.as_mut().unwrap().containers;
    containers[1].mounts = vec!["/run/containerd/containerd.sock".into()];
    assert_eq!(codes(&found(&facts)), USUAL);
}

#[test]
fn a_kubelet_that_speaks_v1alpha2_alone_cannot_go_to_2_x() {
    let facts = of_kubelet("1.22.17");
    let findings = found(&facts);
    let unfit = findings
        .iter()
        .find(|finding| finding.code == "TargetVersionUnfit")
        .unwrap();
    assert_eq!(unfit.severity, Severity::Block);
    assert!(
        unfit
            .message
            .contains("v1alpha2 alone, which containerd dropped in 2.0.0"),
        "{}",
        unfit.message
    );
}

/// Whether and how long it soaks is not part of what the plan does.
#[test]
fn an_upgrade_soaks_as_long_as_it_is_asked_to() {
    let facts = node();
    let mut request = fixtures::from_archive(Runtime::Containerd);
    let soon = plan(&facts, &request).plan().unwrap().clone();
    assert_eq!(soon.soak_secs, 0, "not by itself");
    request.rollback.soak = "24h".parse().unwrap();
    let later = plan(&facts, &request).plan().unwrap().clone();
    assert_eq!(later.soak_secs, 86_400);
    assert_eq!(later.digest(), soon.digest());
    let read: Plan = serde_json::from_str(&serde_json::to_string(&later).unwrap()).unwrap();
    assert_eq!(read, later);
}

#[test]
fn a_supported_upgrade_is_not_called_unsupported() {
    let mut request = fixtures::from_archive(Runtime::Containerd);
    let Origin::Archive(origin) = &mut request.target.from else {
        panic!("an archive");
    };
    origin.url = origin.url.replace("2.4.2", "2.3.1");
    let findings = found_with(&node(), &request);
    assert!(
        !codes(&findings).contains(&"UpgradeBeyondSupport"),
        "{findings:?}"
    );
}

#[test]
fn a_containerd_that_does_not_answer_is_not_called_upgraded() {
    let mut facts = node();
    containerd(&mut facts).cri = None;
    assert_eq!(codes(&found(&facts)), ["SourceNotAnswering"]);
}

#[test]
fn a_package_is_refused_with_the_archive_to_use() {
    let found = found_with(&node(), &fixtures::from_package(Runtime::Containerd));
    assert!(
        found[0]
            .message
            .contains("the package containerd.io in version 2.4.2"),
        "{found:?}"
    );
    assert!(found[0].remedy.contains("target.from.archive"), "{found:?}");
}
