//! Files as people have them.

use rstest::rstest;
use transship::{
    edit::yaml,
    plan::facts::{Facts, Limits},
};

use super::*;

/// A JSON configuration that names the endpoint, from kubelet 1.27 on.
#[test]
fn a_json_configuration_of_the_kubelet_is_edited() {
    let mut facts = fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    let text = "{\n  \"kind\": \"KubeletConfiguration\",\n  \"apiVersion\": \"kubelet.config.k8s.io/v1beta1\",\n  \"cgroupDriver\": \"systemd\",\n  \"containerRuntimeEndpoint\": \"unix:///var/run/cri-dockerd.sock\"\n}\n";
    let config = kubelet(&mut facts).config.as_mut().unwrap();
    let at = config.path.to_string();
    *config = file(&at, text);
    let edited = written(&facts, &to_containerd(), &at).unwrap();
    assert_eq!(
        edited,
        text.replace("/var/run/cri-dockerd.sock", "/run/containerd/containerd.sock")
    );
}

/// What the kubelet's own reader accepts.
#[rstest]
#[case::twice("containerRuntimeEndpoint: unix:///a\n", "")]
#[case::more_documents("", "---\ncontainerRuntimeEndpoint: unix:///a\n")]
fn duplicate_keys_and_further_documents_are_accepted(#[case] before: &str, #[case] after: &str) {
    let mut facts = fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    let config = kubelet(&mut facts).config.as_mut().unwrap();
    let (at, text) = (config.path.to_string(), format!("{before}{}{after}", config.text));
    *config = file(&at, &text);
    let edited = written(&facts, &to_containerd(), &at).unwrap();
    let named = yaml::get(&edited, "containerRuntimeEndpoint").unwrap();
    assert_eq!(named.as_deref(), Some("unix:///run/containerd/containerd.sock"));
}

#[rstest]
#[case::empty("", "20.10.24", "DaemonJsonBroken")]
#[case::blank(" \n", "20.10.24", "DaemonJsonBroken")]
#[case::accepted_later("", "23.0.0", "")]
#[case::byte_order_mark("\u{feff}{}\n", "20.10.24", "DaemonJsonBroken")]
#[case::byte_order_mark_later("\u{feff}{\"debug\": true}\r\n", "23.0.0", "")]
fn an_odd_daemon_json_is_what_docker_takes_it_for(
    #[case] text: &str,
    #[case] version: &str,
    #[case] code: &str,
) {
    let mut facts = lab();
    daemon_json(&mut facts, text);
    engine(&mut facts).version = version.into();
    let wanted: Vec<&str> = Some(code).filter(|code| !code.is_empty()).into_iter().collect();
    assert_eq!(blocking(&facts, &to_containerd()), wanted);
}

#[test]
fn a_daemon_json_that_docker_has_not_read_is_not_trusted() {
    let mut facts = lab();
    daemon_json(&mut facts, "{}");
    docker(&mut facts).daemon_json_unread = true;
    let mut request = to_containerd();
    assert_eq!(blocking(&facts, &request), ["DaemonJsonUnread"]);
    request.preflight.allow = vec!["DaemonJsonUnread".into()];
    assert_eq!(blocking(&facts, &request), [""; 0]);
}

/// The command that translates came with containerd 2.0.
#[rstest]
#[case::before("1.6.20", "config migrate", "Move it aside")]
#[case::since("2.1.0", "Move it aside", "config migrate")]
fn a_file_of_version_1_has_a_remedy_that_can_be_followed(
    #[case] version: &str,
    #[case] not: &str,
    #[case] remedy: &str,
) {
    let mut facts = lab();
    facts.containerd.as_mut().unwrap().version = version.into();
    config_toml(
        &mut facts,
        "oom_score = -999\n[plugins]\n[plugins.cri]\nsandbox_image = \"a\"\n",
    );
    let finding = one(&facts, &to_containerd(), "ContainerdConfigBroken");
    assert!(
        finding.remedy.contains(remedy) && !finding.remedy.contains(not),
        "{finding:?}"
    );
}

/// What `sed` over the default configuration makes of it: the CRI plugin does not load.
#[test]
fn systemd_cgroup_of_the_old_runtime_is_known() {
    let mut facts = lab();
    config_toml(
        &mut facts,
        "version = 2\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    systemd_cgroup = true\n",
    );
    let containerd = facts.containerd.as_mut().unwrap();
    containerd.cri = None;
    containerd.cri_problem =
        Some("`systemd_cgroup` only works for runtime io.containerd.runtime.v1.linux".into());
    let finding = one(&facts, &to_containerd(), "CriNotAnswering");
    assert!(
        finding
            .message
            .contains("systemd_cgroup = true keeps the plugin from loading"),
        "{finding:?}"
    );
    assert!(finding.message.contains("only works for runtime"), "{finding:?}");
    let config = written(&facts, &to_containerd(), CONFIG).unwrap();
    assert!(config.contains("systemd_cgroup = false\n"), "{config}");
}

/// A running target whose CRI does not answer for a reason of its own is told before the switch.
#[test]
fn a_cri_that_does_not_answer_is_told_with_containerds_reason() {
    let mut facts = lab();
    assert_eq!(of(&facts, &to_containerd(), "CriNotAnswering"), []);
    config_toml(&mut facts, "version = 2\n");
    let containerd = facts.containerd.as_mut().unwrap();
    containerd.cri = None;
    containerd.cri_problem = Some("invalid plugin config: no such snapshotter".into());
    let finding = one(&facts, &to_containerd(), "CriNotAnswering");
    assert!(finding.message.contains("no such snapshotter"), "{finding:?}");
    // Switched off is something else.
    config_toml(&mut facts, "version = 2\ndisabled_plugins = [\"cri\"]\n");
    assert_eq!(of(&facts, &to_containerd(), "CriNotAnswering"), []);
    assert_eq!(of(&facts, &to_containerd(), "CriDisabled").len(), 1);
}

/// A reader of JSON with numbers of 53 bits keeps them.
#[test]
fn facts_and_plans_hold_no_number_that_readers_of_json_change() {
    fn largest(value: &serde_json::Value) -> u64 {
        match value {
            serde_json::Value::Number(number) => number.as_u64().unwrap_or_default(),
            serde_json::Value::Array(list) => list.iter().map(largest).max().unwrap_or_default(),
            serde_json::Value::Object(map) => map.values().map(largest).max().unwrap_or_default(),
            _ => 0,
        }
    }
    for (name, mut facts) in fixtures::all() {
        if let Some(docker) = &mut facts.docker {
            docker.service.limit_nofile = Limits {
                soft: 1024,
                hard: u64::MAX,
            };
        }
        let plan = serde_json::to_value(plan(&facts, &to_containerd()).plan()).unwrap();
        assert!(largest(&plan) < 1 << 53, "{name}: {plan}");
        let value = serde_json::to_value(&facts).unwrap();
        assert!(largest(&value) < 1 << 53, "{name}");
        assert_eq!(serde_json::from_value::<Facts>(value).unwrap(), facts, "{name}");
    }
}

/// A file that cannot be read is named with the place, and with nothing of its text.
#[rstest]
#[case::json("DaemonJsonBroken", "/etc/docker/daemon.json: line 3, column 1: ", |f: &mut Facts| daemon_json(f, "{\n  \"zq7\": 1,\n}"))]
#[case::toml("ContainerdConfigBroken", "/etc/containerd/config.toml: line 2: ", |f: &mut Facts| config_toml(f, "version = 2\n[zq7\n"))]
#[case::yaml("KubeletConfigBroken", "/var/lib/kubelet/config.yaml: line ", |f: &mut Facts| {
    kubelet(f).config = Some(file("/var/lib/kubelet/config.yaml", "a: 1\nb: {zq7\n"));
})]
fn messages_name_the_place(#[case] code: &str, #[case] wanted: &str, #[case] spoil: fn(&mut Facts)) {
    let mut facts = lab();
    spoil(&mut facts);
    let message = one(&facts, &to_containerd(), code).message;
    assert!(message.starts_with(wanted), "{message}");
    for word in ["serde", "expected value", "EOF", "zq7"] {
        assert!(!message.contains(word), "{message}");
    }
}

/// What Docker's unit gives to containers wins against drop-ins with the names that guides use, and what cannot be beaten
/// blocks the plan.
#[test]
fn a_drop_in_of_somebody_else_does_not_beat_the_plan() {
    let mut facts = lab();
    let proxy = "HTTPS_PROXY=http://new.example.org:3128";
    docker(&mut facts).service.environment = vec![proxy.to_owned()];
    let old = "[Service]\nEnvironment=HTTPS_PROXY=http://old.example.org:3128\n";
    let at = |name: &str| format!("/etc/systemd/system/containerd.service.d/{name}");
    let with = |facts: &Facts, name: &str| {
        let mut facts = facts.clone();
        facts.containerd.as_mut().unwrap().service.drop_ins = vec![file(&at(name), old)];
        facts
    };
    for name in ["http-proxy.conf", "override.conf", "proxy-environment.conf"] {
        let facts = with(&facts, name);
        assert_eq!(of(&facts, &to_containerd(), "DropInShadowed"), [], "{name}");
        let outcome = plan(&facts, &to_containerd());
        let steps = &outcome.plan().unwrap().steps;
        let compared = steps.iter().find_map(|step| match &step.does {
            Step::Unit(step) => step.effective.as_ref(),
            _ => None,
        });
        let compared = compared.unwrap();
        assert_eq!(compared.environment, [proxy], "{name}");
        assert!(*compared.drop_in.as_str() > *at(name), "{name}");
    }
    let finding = one(&with(&facts, "zzz.conf"), &to_containerd(), "DropInShadowed");
    assert!(
        finding.message.contains(&at("zzz.conf")) && finding.message.contains("Environment"),
        "{finding:?}"
    );
    let variables = file(
        "/etc/default/containerd",
        "HTTPS_PROXY=http://old.example.org:3128\n",
    );
    facts.containerd.as_mut().unwrap().service.environment_files = vec![variables];
    let finding = one(&facts, &to_containerd(), "DropInShadowed");
    assert!(finding.message.contains("/etc/default/containerd"), "{finding:?}");
}

/// apt keeps a file that is there, and removes it with the package in which there is one, after which the way back writes it again.
#[rstest]
#[case::none(None)]
#[case::one(Some("runtime-endpoint: unix:///run/containerd/containerd.sock\n"))]
fn crictl_is_told_before_a_package_that_has_its_file(#[case] text: Option<&str>) {
    const CRICTL: &str = "/etc/crictl.yaml";
    let mut facts = fixtures::named("debian12-kubeadm-1.36-control-plane-containerd-2.4");
    facts.cri_dockerd = None;
    fixtures::ready_for_cri_o(&mut facts);
    let there = facts.files.iter_mut().find(|found| found.path.as_str() == CRICTL);
    there.unwrap().file = text.map(|text| file(CRICTL, text));
    for (runtime, before) in [(Runtime::CriO, true), (Runtime::CriDockerd, false)] {
        let outcome = plan(&facts, &fixtures::from_package(runtime));
        let steps = &outcome.plan().unwrap().steps;
        let crictl = steps
            .iter()
            .position(|step| matches!(&step.does, Step::File(file) if file.path.as_str() == CRICTL));
        let package = steps
            .iter()
            .position(|step| matches!(&step.does, Step::Install(_)));
        assert_eq!(crictl.unwrap() < package.unwrap(), before, "{runtime}");
    }
}
