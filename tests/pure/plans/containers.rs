//! The containers and images that a plan spares, names or carries.

use super::*;

#[test]
fn images_are_carried_as_asked() {
    let names = |transfer: Transfer| -> Vec<String> {
        let request = Request {
            images: transship::api::request::Images { transfer },
            ..fixtures::request()
        };
        let outcome = plan(&fixtures::named(LAB), &request);
        let steps = &outcome.plan().unwrap().steps;
        let mut lists = steps.iter().filter_map(|step| match &step.does {
            Step::Images(images) => Some(images.names.clone()),
            _ => None,
        });
        let (first, again) = (lists.next().unwrap(), lists.next().unwrap());
        assert_eq!(first, again, "checked again before the kubelet is stopped");
        first
    };
    assert_eq!(names(Transfer::None), ["registry.k8s.io/pause:3.6"]);
    assert_eq!(names(Transfer::InUse).len(), 3);
    assert_eq!(names(Transfer::All).len(), 4);
}

/// Where Docker ends, and where the way back has to stop it; not where it stays in peace.
#[rstest]
#[case::ends(false, false, true)]
#[case::kept(true, false, false)]
#[case::replaced(false, true, true)]
#[case::kept_over_another_containerd(true, true, true)]
fn containers_that_are_not_kubernetes_are_spared(
    #[case] keep: bool,
    #[case] archive: bool,
    #[case] blocks: bool,
) {
    let mut request = if archive {
        fixtures::from_archive(Runtime::Containerd)
    } else {
        fixtures::request()
    };
    request.source.keep = keep;
    let clean = fixtures::named(LAB);
    assert_eq!(blocking(&clean, &request), [""; 0]);
    for (name, image, code) in [
        ("registry", "docker.io/library/registry:2", "ForeignContainers"),
        ("etcd-backup", "docker.io/library/busybox:1", "EtcdInDocker"),
        ("etcd1", "docker.io/library/x:1", "EtcdInDocker"),
        (
            "store",
            "docker.io/rancher/mirrored-coreos-etcd:v3.5.9",
            "EtcdInDocker",
        ),
        ("store", "registry.example/etcd/backup:etcd", "ForeignContainers"),
        ("setcd", "docker.io/library/etcdkeeper:1", "ForeignContainers"),
    ] {
        let mut facts = clean.clone();
        container(name, None, &mut facts);
        let store = &mut engine(&mut facts).store;
        store.images.push(Image {
            id: "sha256:of-it".to_owned(),
            names: vec![image.to_owned()],
            digests: Vec::new(),
            size: 1,
        });
        store.containers.last_mut().unwrap().image_id = "sha256:of-it".to_owned();
        let expected = if blocks { vec![code] } else { Vec::new() };
        assert_eq!(blocking(&facts, &request), expected, "{name} of {image}");
        request.preflight.allow = vec![code.to_owned()];
        let stays = blocks && code == "EtcdInDocker";
        assert_eq!(
            plan(&facts, &request).plan().is_none(),
            stays,
            "{name} of {image}"
        );
        request.preflight.allow.clear();
    }
}

/// In whichever store the pods are, and whatever the socket is called in them.
#[rstest]
#[case::dockershim(LAB, Runtime::Containerd, "/var/run/dockershim.sock", true)]
#[case::dockershim_to_another_shim(
    "debian12-kubeadm-1.23-control-plane-dockershim",
    Runtime::CriDockerd,
    "/run/dockershim.sock",
    true
)]
#[case::cri_dockerd(
    "debian12-kubeadm-1.36-cri-dockerd",
    Runtime::Containerd,
    "/run/cri-dockerd.sock",
    true
)]
#[case::containerd(
    "debian12-kubeadm-1.36-control-plane-containerd-2.4",
    Runtime::CriDockerd,
    "/run/containerd/containerd.sock",
    true
)]
#[case::the_targets(LAB, Runtime::Containerd, "/run/containerd/containerd.sock", false)]
fn pods_that_use_the_cri_are_named(
    #[case] host: &str,
    #[case] target: Runtime,
    #[case] socket: &str,
    #[case] found: bool,
) {
    let mut facts = fixtures::named(host);
    let engine = facts.docker.as_mut().and_then(|docker| docker.engine.as_mut());
    let containerd = facts
        .containerd
        .as_mut()
        .and_then(|containerd| containerd.store.as_mut());
    let stores = engine
        .map(|engine| &mut engine.store)
        .into_iter()
        .chain(containerd);
    let of_pod = |one: &&mut Container| one.running && one.pod.is_some();
    let user = stores
        .flat_map(|store| &mut store.containers)
        .find(of_pod)
        .unwrap();
    user.mounts.push(socket.to_owned());
    let pod = user.pod.clone().unwrap();
    let findings = plan(&facts, &fixtures::to(target)).findings;
    let named = |finding: &&Finding| finding.code == "CriSocketMounted";
    let users = findings.iter().find(named).map(|finding| finding.message.clone());
    assert_eq!(users.is_some(), found);
    assert!(users.is_none_or(|users| users.ends_with(&format!(": {}/{}", pod.namespace, pod.name))));
}

/// What is streamed is written more than once: see the two factors of the finding.
#[rstest]
#[case::into_containerd("debian12-kubeadm-1.23-dockershim", Runtime::Containerd, 2)]
#[case::into_docker("debian12-kubeadm-1.36-control-plane-containerd-2.4", Runtime::CriDockerd, 4)]
fn images_that_are_streamed_need_room(#[case] host: &str, #[case] target: Runtime, #[case] times: u64) {
    const RESERVE: u64 = 512 << 20;
    let mut facts = fixtures::named(host);
    if let Some(engine) = facts.docker.as_mut().and_then(|docker| docker.engine.as_mut()) {
        engine.storage_driver = "vfs".to_owned();
    }
    let source = if target == Runtime::Containerd {
        &mut engine(&mut facts).store
    } else {
        facts.containerd.as_mut().unwrap().store.as_mut().unwrap()
    };
    source.images.iter_mut().for_each(|image| image.size = 1 << 30);
    let images = source.images.clone();
    let request = fixtures::to(target);
    let outcome = plan(&facts, &request);
    let carried = outcome
        .plan()
        .unwrap()
        .steps
        .iter()
        .find_map(|step| match &step.does {
            Step::Images(images) => Some(&images.names),
            _ => None,
        });
    let carried = carried.unwrap();
    let of_them = |image: &&Image| image.names.iter().any(|name| carried.contains(name));
    let needed = (images.iter().filter(of_them).count() as u64 * times) << 30;
    for (free, expected) in [
        (needed + RESERVE, &[][..]),
        (needed + RESERVE - 1, &["DiskSpace"]),
    ] {
        facts.disks.iter_mut().for_each(|disk| disk.free = free);
        assert_eq!(blocking(&facts, &request), *expected, "{free} free");
    }
}
