//! What a switch by hand is confirmed by: the pods that ran before it run under the target.

use k8s_cri::v1::ContainerMetadata;
use transship::{
    executor::control::Dir,
    node::pods::{Pods, Seen},
    plan::facts::{KubeletPod, PodRef, SANDBOX},
};

use super::*;
use crate::{crash_sweep::captured, fixtures};

/// The pods that run on a captured worker, a container each.
fn ran(facts: &transship::plan::facts::Facts) -> Vec<PodRef> {
    let engine = facts.docker.as_ref().unwrap().engine.as_ref().unwrap();
    let running = engine
        .store
        .containers
        .iter()
        .filter(|container| container.running);
    let of_pods = running.filter_map(|container| container.pod.clone());
    of_pods.filter(|pod| pod.container != SANDBOX).collect()
}

/// A pod as containerd lists it, with its container in this state.
fn start(world: &mut containerd::World, pod: &PodRef, state: ContainerState) {
    let metadata = PodSandboxMetadata {
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        uid: pod.uid.clone(),
        attempt: 0,
    };
    let sandbox = PodSandbox {
        id: format!("sandbox-of-{}", pod.name),
        metadata: Some(metadata),
        ..PodSandbox::default()
    };
    let container = Container {
        id: format!("container-of-{}", pod.name),
        pod_sandbox_id: sandbox.id.clone(),
        metadata: Some(ContainerMetadata {
            name: pod.container.clone(),
            attempt: 0,
        }),
        state: state.into(),
        ..Container::default()
    };
    world.containers.retain(|one| one.id != container.id);
    world.sandboxes.retain(|(one, _)| one.id != sandbox.id);
    world.containers.push(container);
    world.sandboxes.push((sandbox, NamespaceMode::Pod));
}

/// Each look is that of another shell, and a boot may lie between two: what ran before is read from the directory of the switch.
#[tokio::test]
async fn a_switch_by_hand_waits_for_the_pods_that_ran_before_it() {
    let host = Host::new(|_| {});
    let files = Files::new(host.root.path());
    let mut facts = fixtures::named("debian12-kubeadm-1.23-captured");
    let before = ran(&facts);
    let kubelet = facts.kubelet.as_mut().unwrap();
    for pod in &before {
        host.write(&format!("var/lib/kubelet/pods/{}/etc-hosts", pod.uid), "");
        kubelet.pods.push(KubeletPod {
            uid: pod.uid.clone(),
            name: None,
            containers: Vec::new(),
        });
    }
    let plan = captured::accepted(&facts, fixtures::request()).unwrap();
    let dir = Dir::new(&files, "hand-1").unwrap();
    dir.write_facts(&facts).unwrap();
    dir.write_plan(&plan).unwrap();
    let look = async || -> (Seen, String) {
        let mut pods = Pods::of(&files, &dir, &plan).unwrap().unwrap();
        let seen = pods.look().await.unwrap();
        let words = pods.words(&seen).unwrap_or_default();
        (seen, words)
    };
    let set = |pod: &PodRef, state| start(&mut host.containerd.world.lock().unwrap(), pod, state);

    let (seen, words) = look().await;
    assert_eq!((seen.before, seen.absent.len(), seen.steady), (8, 8, false));
    assert!(seen.api_may_be_away, "{words}");
    assert!(
        words.starts_with("8 of 8 pods that ran before do not run under containerd:"),
        "{words}"
    );

    before
        .iter()
        .for_each(|pod| set(pod, ContainerState::ContainerRunning));
    let (seen, words) = look().await;
    assert_eq!(
        (seen.absent, &*words, seen.steady),
        (Vec::new(), "", false),
        "not for long enough"
    );

    let (broken, deleted) = (&before[0], &before[1]);
    set(broken, ContainerState::ContainerExited);
    set(deleted, ContainerState::ContainerCreated);
    let (seen, words) = look().await;
    assert!(!seen.api_may_be_away, "{words}");
    assert_eq!(seen.absent.len(), 2, "{words}");
    let why = format!(
        "- {}/{}: its container {} has ended (exit code 128: StartError: no such runtime)\n",
        broken.namespace, broken.name, broken.container
    );
    assert!(words.contains(&why), "{words}");
    assert!(words.contains("was not started"), "{words}");

    fs::remove_dir_all(host.root.path().join("var/lib/kubelet/pods").join(&deleted.uid)).unwrap();
    let (seen, words) = look().await;
    assert_eq!((seen.before, seen.absent.len()), (7, 1), "{words}");
    assert!(
        words.starts_with("1 of 7 pods that ran before does not run"),
        "{words}"
    );
}

#[tokio::test]
async fn a_target_that_does_not_answer_confirms_nothing() {
    let root = TempDir::new().unwrap();
    let files = Files::new(root.path());
    let facts = fixtures::named("debian12-kubeadm-1.23-captured");
    let plan = captured::accepted(&facts, fixtures::request()).unwrap();
    let dir = Dir::new(&files, "hand-1").unwrap();
    assert!(
        Pods::of(&files, &dir, &plan).unwrap().is_none(),
        "nobody has looked before"
    );
    dir.write_facts(&facts).unwrap();
    let error = Pods::of(&files, &dir, &plan)
        .unwrap()
        .unwrap()
        .look()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("containerd.sock"), "{error:#}");
}
