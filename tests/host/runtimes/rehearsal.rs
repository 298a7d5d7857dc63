//! What is tried of a target before it serves, and how runtimes report.

use super::*;

fn rehearsal() -> Rehearsal {
    Rehearsal {
        cri: containerd_endpoint(),
        cgroup_parent: "transship.slice".into(),
        pod_network: true,
        proof: Proof::Own,
    }
}

#[rstest]
#[case::in_the_pod_network(NamespaceMode::Pod, 0)]
#[case::on_the_host(NamespaceMode::Node, 1)]
#[tokio::test]
async fn a_sandbox_of_the_kubelet_in_the_pod_network_is_proof(
    #[case] network: NamespaceMode,
    #[case] rehearsals: usize,
) {
    let host = Host::new(|_| {});
    host.containerd.world.lock().unwrap().sandboxes = vec![(sandbox("s1", "lab", "web"), network)];
    let after_start = |proof| Rehearsal { proof, ..rehearsal() };
    host.runtimes
        .rehearse(&after_start(Proof::KubeletOrOwn))
        .await
        .unwrap();
    let ran = |entry: &&String| *entry == "run in transship.slice";
    let log = host.containerd.world.lock().unwrap().log.clone();
    assert_eq!(log.iter().filter(ran).count(), rehearsals, "{log:?}");

    let waited = host
        .runtimes
        .rehearse(&after_start(Proof::Kubelet { within_secs: 1 }))
        .await;
    match rehearsals {
        0 => waited.unwrap(),
        _ => {
            let error = waited.unwrap_err().to_string();
            assert!(error.contains("no pod in the pod network has started"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_rehearsal_leaves_nothing_not_even_an_earlier_one() {
    let host = Host::new(|_| {});
    for _ in 0..2 {
        let left = (
            sandbox("left", "transship", "transship-rehearsal"),
            NamespaceMode::Pod,
        );
        host.containerd.world.lock().unwrap().sandboxes = vec![left];
        host.runtimes.rehearse(&rehearsal()).await.unwrap();
        let world = host.containerd.world.lock().unwrap();
        assert_eq!(world.sandboxes, []);
        assert!(world.log.contains(&"run in transship.slice".to_owned()));
        assert!(world.log.contains(&"remove sandbox left".to_owned()));
    }
    let foreign = (sandbox("s3", "lab", "web"), NamespaceMode::Pod);
    host.containerd.world.lock().unwrap().sandboxes = vec![foreign.clone()];
    host.runtimes.end_rehearsal(&rehearsal()).await.unwrap();
    assert_eq!(host.containerd.world.lock().unwrap().sandboxes, [foreign]);
}

#[tokio::test]
async fn a_sandbox_that_does_not_stay_ready_fails_the_rehearsal() {
    let host = Host::new(|_| {});
    host.containerd.world.lock().unwrap().new_state = NewSandbox::Ends;
    let error = host.runtimes.rehearse(&rehearsal()).await.unwrap_err();
    assert!(error.to_string().contains("did not stay ready"), "{error}");
    assert_eq!(host.containerd.world.lock().unwrap().sandboxes, []);
}

/// Without `SystemdCgroup` in effect runc takes the slice for a part of a directory's name.
#[rstest]
#[case::in_a_scope("0::/transship.slice/cri-containerd-sandbox-1.scope", true)]
#[case::in_a_directory(
    "0::/system.slice/containerd.service/transship.slice:cri-containerd:sandbox-1",
    false
)]
#[case::of_v1(
    "5:memory:/system.slice\n1:name=systemd:/transship.slice/cri-containerd-sandbox-1.scope",
    true
)]
#[case::of_another_runtime("0::/kata/overhead", true)]
#[tokio::test]
async fn a_sandbox_outside_the_slice_fails_the_rehearsal(#[case] cgroup: &str, #[case] is_right: bool) {
    let host = Host::new(|_| {});
    host.containerd.world.lock().unwrap().process = 4711;
    let process = host.root.path().join("proc/4711");
    fs::create_dir_all(&process).unwrap();
    fs::write(process.join("cgroup"), format!("{cgroup}\n")).unwrap();
    let rehearsed = host.runtimes.rehearse(&rehearsal()).await;
    assert_eq!(host.containerd.world.lock().unwrap().sandboxes, []);
    if is_right {
        return rehearsed.unwrap();
    }
    let error = rehearsed.unwrap_err().to_string();
    assert!(
        error.contains("/transship.slice:cri-containerd:sandbox-1")
            && error.contains("a scope in transship.slice"),
        "{error}"
    );
}

#[tokio::test]
async fn runtimes_say_how_they_are() {
    let host = Host::new(|_| {});
    let health = host.runtimes.health(&containerd_endpoint()).await.unwrap();
    assert_eq!(
        (health.version.as_str(), health.ready, health.network_ready),
        ("1.6.20~ds1", true, false)
    );
    let health = host.runtimes.health(&docker_endpoint()).await.unwrap();
    assert_eq!(
        (health.version.as_str(), health.ready, health.network_ready),
        ("20.10.24", true, true)
    );
    let nobody = Endpoint {
        socket: path("/run/none.sock"),
        ..containerd_endpoint()
    };
    let error = host.runtimes.health(&nobody).await.unwrap_err().to_string();
    assert!(
        error.contains("/run/none.sock") && error.contains("No such file"),
        "{error}"
    );
}
