//! Nodes as installers lay them out: `tests/hosts` has one of each, and these are the places in which they differ.

use rstest::rstest;

use super::*;

const KUBESPRAY: &str = "debian11-kubespray-2.19-dockershim";

/// The flags of the kubelet after the plan, from the files that it writes.
fn flags_after(facts: &Facts, request: &Request) -> Vec<String> {
    let mut unit = facts.kubelet.as_ref().unwrap().unit.clone();
    for file in &mut unit.environment_files {
        if let Some(text) = written(facts, request, file.path.as_str()) {
            file.text = text;
        }
    }
    transship::plan::kubelet_arguments::command(&unit)
}

/// Every flag but those of the runtime stays, in whichever variable it stands.
#[rstest]
#[case::kubespray(KUBESPRAY, &["--network-plugin", "--cni-conf-dir", "--cni-bin-dir"])]
#[case::kops("ubuntu2004-kops-1.22-dockershim", &["--network-plugin", "--cni-conf-dir", "--cni-bin-dir", "--non-masquerade-cidr"])]
fn the_flags_of_an_installer_stay(#[case] host: &str, #[case] gone: &[&str]) {
    let mut facts = fixtures::named(host);
    let request = to_containerd();
    facts.containerd.as_mut().unwrap().version = "1.6.20".to_owned();
    let after = flags_after(&facts, &request);
    let before = &facts.kubelet.as_ref().unwrap().command_line;
    let name = |word: &String| word.split('=').next().unwrap_or_default().to_owned();
    for word in before {
        let stays = after.iter().any(|flag| name(flag) == name(word));
        assert_eq!(stays, !gone.contains(&name(word).as_str()), "{word}: {after:#?}");
    }
    for flag in [
        "--container-runtime=remote",
        "--container-runtime-endpoint=unix:///run/containerd/containerd.sock",
    ] {
        assert!(after.iter().any(|word| word == flag), "{after:#?}");
    }
}

/// The last drop-in that sets a variable decides, and the drop-in of the plan comes after it.
#[test]
fn the_last_drop_in_decides_and_ours_is_the_last() {
    let facts = fixtures::named("debian12-kubeadm-1.23-drop-ins");
    let text = written(
        &facts,
        &to_containerd(),
        transship::plan::kubelet_arguments::DROP_IN,
    )
    .unwrap();
    assert!(
        text.contains("Environment=\"KUBELET_EXTRA_ARGS=--v=2 --cgroup-driver=systemd\""),
        "{text}"
    );
    assert!(
        !text.contains("GODEBUG"),
        "what is not changed is not written: {text}"
    );
}

/// The cluster would lose a member with it: whoever asks is told what it is, and cannot accept it.
#[test]
fn etcd_in_docker_is_named_as_what_it_is() {
    let facts = fixtures::named("rocky8-kubespray-2.19-control-plane-etcd-in-docker");
    let mut request = fixtures::from_archive(Runtime::Containerd);
    let finding = one(&facts, &request, "EtcdInDocker");
    assert!(
        finding.message.contains("etcd1") && finding.message.contains("lose a member of etcd"),
        "{finding:?}"
    );
    assert!(
        finding.remedy.contains("etcd_deployment_type: host"),
        "{finding:?}"
    );
    request.preflight.allow = vec!["EtcdInDocker".to_owned(), "ForeignContainers".to_owned()];
    assert!(plan(&facts, &request).plan().is_none());
    // Under cri-dockerd Docker goes on.
    let mut facts = facts;
    facts.cri_dockerd = fixtures::named("minikube-1.25-kubeadm-1.23-dockershim").cri_dockerd;
    assert_eq!(of(&facts, &to_cri_dockerd(), "EtcdInDocker"), []);
}

/// Each move in the words of Kubespray's inventory.
#[test]
fn kubesprays_variables_are_those_of_the_move() {
    let code = "KubesprayWouldUndo";
    let remedy = |facts: &Facts, request: &Request| one(facts, request, code).remedy;
    let facts = fixtures::named(KUBESPRAY);
    let to_crio = fixtures::from_archive(Runtime::CriO);
    for (request, variables) in [
        (
            to_containerd(),
            "container_manager: containerd, etcd_deployment_type: host (in the place of docker), resolvconf_mode: host_resolvconf",
        ),
        (
            to_crio,
            "container_manager: crio, etcd_deployment_type: host (in the place of docker), resolvconf_mode: host_resolvconf",
        ),
    ] {
        let remedy = remedy(&facts, &request);
        assert!(remedy.contains(variables), "{remedy}");
    }
    let mut facts = facts;
    facts.cri_dockerd = fixtures::named("minikube-1.25-kubeadm-1.23-dockershim").cri_dockerd;
    let to_shim = remedy(&facts, &to_cri_dockerd());
    assert!(
        to_shim.contains("container_manager: docker, cri_dockerd_enabled: true")
            && !to_shim.contains("resolvconf"),
        "{to_shim}"
    );
    let newer = fixtures::named("ubuntu2204-kubespray-2.24-control-plane-containerd");
    let upgrade = remedy(&newer, &fixtures::from_archive(Runtime::Containerd));
    assert!(upgrade.contains("containerd_version: 2.4.2"), "{upgrade}");
}

/// The kubelet of Kubespray wants the unit of its runtime, which cannot be masked.
#[test]
fn kubesprays_kubelet_no_longer_starts_cri_o() {
    let facts = fixtures::named("ubuntu2204-kubespray-2.24-cri-o");
    let mut request = fixtures::from_archive(Runtime::Containerd);
    // It names the file always; without credentials in the inventory it is empty.
    request.preflight.allow = vec!["SettingNotCarried/global_auth_file".to_owned()];
    assert_eq!(of(&facts, &request, "KubeletStartsCrio"), []);
    let text = written(&facts, &request, "/etc/systemd/system/kubelet.service").unwrap();
    assert!(
        !text.contains("Wants=crio.service") && text.contains("After=crio.service"),
        "{text}"
    );
}

/// Their next start writes the files again.
#[rstest]
#[case::minikube(
    "minikube-1.38-kubeadm-1.35-cri-dockerd",
    to_containerd(),
    "--container-runtime=containerd"
)]
#[case::minikube_cri_o(
    "minikube-1.38-kubeadm-1.35-cri-dockerd",
    fixtures::from_archive(Runtime::CriO),
    "--container-runtime=cri-o"
)]
#[case::kops(
    "ubuntu2004-kops-1.22-dockershim",
    fixtures::from_archive(Runtime::Containerd),
    "spec.containerRuntime: containerd"
)]
#[case::kops_cri_o(
    "ubuntu2004-kops-1.22-dockershim",
    fixtures::from_archive(Runtime::CriO),
    "leave this node out"
)]
fn an_installer_that_writes_its_files_again_is_named(
    #[case] host: &str,
    #[case] request: Request,
    #[case] remedy: &str,
) {
    let finding = one(&fixtures::named(host), &request, "InstallerWouldUndo");
    assert!(finding.remedy.contains(remedy), "{finding:?}");
    assert_eq!(
        of(&fixtures::named(KUBESPRAY), &request, "InstallerWouldUndo"),
        []
    );
}

/// Kubespray up to 2.25 writes `systemdCgroup`.
#[test]
fn a_containerd_of_kubespray_is_upgraded() {
    let facts = fixtures::named("ubuntu2204-kubespray-2.24-control-plane-containerd");
    let request = fixtures::from_archive(Runtime::Containerd);
    assert_eq!(of(&facts, &request, "CgroupDriverMismatch"), []);
}
