//! What a CRI says of itself and holds.

use std::{collections::BTreeMap, path::Path};

use k8s_cri::v1::{
    CgroupDriver, Container as CriContainer, ContainerState, Image as CriImage, PodSandbox, PodSandboxState,
};

use crate::{
    plan::facts::{Container, CriFacts, Image, JOB_LABELS, PodRef, SANDBOX, Store},
    runtime::{RuntimeError, cri::Cri, reference},
};

/// What the CRI behind a socket says of itself.
pub(super) async fn facts(socket: &Path) -> Result<CriFacts, RuntimeError> {
    let about = Cri::connect(socket).await?.about().await?;
    Ok(CriFacts {
        name: about.name,
        version: about.version,
        api_version: about.api_version,
        runtime_ready: about.runtime_ready,
        network_ready: about.network_ready,
        cgroup_driver: about.cgroup_driver.map(|driver| {
            match driver {
                CgroupDriver::Systemd => "systemd",
                CgroupDriver::Cgroupfs => "cgroupfs",
            }
            .to_owned()
        }),
    })
}

/// What the CRI behind a socket holds. Sandboxes are listed among the containers, as Docker Engine does it.
pub(super) async fn store(socket: &Path) -> Result<Store, RuntimeError> {
    let cri = Cri::connect(socket).await?;
    let (sandboxes, containers, images) = tokio::try_join!(cri.sandboxes(), cri.containers(), cri.images())?;
    let pods: BTreeMap<String, PodRef> = sandboxes
        .iter()
        .map(|sandbox| (sandbox.id.clone(), pod(sandbox)))
        .collect();
    let mut of_pods = Vec::new();
    for container in containers {
        let mut container = self::container(container, &pods);
        // The list does not say them.
        if container.running {
            container.mounts = cri.mounts(&container.id).await?;
        }
        of_pods.push(container);
    }
    Ok(Store {
        containers: sandboxes.iter().map(self::sandbox).chain(of_pods).collect(),
        images: images.into_iter().map(image).collect(),
    })
}

fn pod(sandbox: &PodSandbox) -> PodRef {
    let metadata = sandbox.metadata.clone().unwrap_or_default();
    PodRef {
        namespace: metadata.namespace,
        name: metadata.name,
        uid: metadata.uid,
        container: SANDBOX.to_owned(),
    }
}

fn sandbox(sandbox: &PodSandbox) -> Container {
    Container {
        id: sandbox.id.clone(),
        name: format!("sandbox of {}", pod(sandbox).name),
        // The CRI does not say; it is the sandbox image, which is carried anyway.
        image_id: String::new(),
        running: sandbox.state() == PodSandboxState::SandboxReady,
        pod: Some(pod(sandbox)),
        mounts: Vec::new(),
        no_new_privileges: false,
        of_job: JOB_LABELS.iter().any(|label| sandbox.labels.contains_key(*label)),
    }
}

fn container(container: CriContainer, pods: &BTreeMap<String, PodRef>) -> Container {
    let running = container.state() == ContainerState::ContainerRunning;
    let name = container.metadata.unwrap_or_default().name;
    let pod = pods.get(&container.pod_sandbox_id).map(|pod| PodRef {
        container: name.clone(),
        ..pod.clone()
    });
    // CRI-O's reference is a name with a digest (`ListContainers`); newer runtimes tell the id, too.
    let image_id = Some(container.image_id).filter(|id| !id.is_empty());
    Container {
        id: container.id,
        image_id: image_id.unwrap_or(container.image_ref),
        name,
        running,
        pod,
        mounts: Vec::new(),
        no_new_privileges: false,
        of_job: false,
    }
}

fn image(image: CriImage) -> Image {
    Image {
        names: reference::named(&image.repo_tags).collect(),
        digests: reference::named(&image.repo_digests).collect(),
        id: image.id,
        size: image.size,
    }
}

#[cfg(test)]
mod tests {
    use k8s_cri::v1::{ContainerMetadata, PodSandboxMetadata};

    use super::*;

    #[test]
    fn containers_belong_to_the_pod_of_their_sandbox() {
        let sandbox = PodSandbox {
            id: "s1".into(),
            metadata: Some(PodSandboxMetadata {
                name: "web".into(),
                namespace: "lab".into(),
                uid: "u".into(),
                attempt: 0,
            }),
            ..PodSandbox::default()
        };
        let pods = BTreeMap::from([("s1".to_owned(), pod(&sandbox))]);
        let listed = CriContainer {
            id: "c1".into(),
            pod_sandbox_id: "s1".into(),
            image_ref: "sha256:ab".into(),
            state: ContainerState::ContainerRunning.into(),
            metadata: Some(ContainerMetadata {
                name: "server".into(),
                attempt: 0,
            }),
            ..CriContainer::default()
        };
        let seen = container(listed, &pods);
        let pod = seen.pod.unwrap();
        assert_eq!(
            (pod.name.as_str(), pod.container.as_str(), seen.running),
            ("web", "server", true)
        );
        assert!(
            self::sandbox(&sandbox).running,
            "SandboxReady is the default state"
        );
    }
}
