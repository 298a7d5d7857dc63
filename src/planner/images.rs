//! Which images are carried into the target's store.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    plan::{
        facts::{Image, Kubelet, KubeletPod, SANDBOX, Store},
        reference::full,
        request::Transfer,
    },
    planner::request::Request,
};

/// The images of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CarriedImages {
    /// The sandbox image, as a full reference.
    pub sandbox: String,
    /// Names that are carried, tags and digests, the sandbox image first, the others in order.
    pub names: Vec<String>,
    /// Bytes of their images in the source's store.
    pub bytes: u64,
    /// Bytes of the largest of them.
    pub largest: u64,
    /// Images without which the node could not come back, that the source does not have by that name.
    pub missing: Vec<String>,
    /// Images in use that have a digest for a name, and no tag, where the target cannot be given such a name.
    pub by_digest: Vec<String>,
    /// Pods whose image has no name at all.
    pub nameless: Vec<String>,
    /// Pods of the kubelet that do not have all their containers yet, by name or UID, so that nobody can say which images they
    /// use: every image of the store is carried.
    pub unknown: Vec<String>,
}

impl CarriedImages {
    /// What `request` wants carried out of the source's `store`. `sandbox` is the target's sandbox image.
    pub fn of(store: &Store, kubelet: &Kubelet, request: &Request, sandbox: &str) -> Self {
        // Docker Engine gives nobody a name with a digest but what it pulls itself.
        let digests = request.target.runtime.profile().takes_digests;
        let names_of = |image: &Image| -> Vec<String> {
            let digests = image.digests.iter().filter(|_| digests);
            image.names.iter().chain(digests).map(|name| full(name)).collect()
        };
        let by_name: BTreeMap<String, &Image> = store
            .images
            .iter()
            .flat_map(|image| names_of(image).into_iter().map(move |name| (name, image)))
            .collect();
        let by_id: BTreeMap<&str, &Image> = store
            .images
            .iter()
            .map(|image| (image.id.as_str(), image))
            .collect();
        let mut carried = Self {
            sandbox: full(sandbox),
            ..Self::default()
        };
        let mut names = BTreeSet::new();
        let always = request
            .pods()
            .into_iter()
            .flat_map(|pods| &pods.images)
            .chain(&kubelet.static_pod_images)
            .map(|name| full(name));
        for name in std::iter::once(carried.sandbox.clone()).chain(always) {
            if by_name.contains_key(&name) {
                names.insert(name);
            } else if !carried.missing.contains(&name) {
                carried.missing.push(name);
            }
        }
        if request.images.transfer != Transfer::None {
            for (image, pod) in used(store, &by_id, &by_name) {
                match image {
                    Some(image) if !names_of(image).is_empty() => names.extend(names_of(image)),
                    Some(Image { digests, .. }) if !digests.is_empty() => {
                        carried.by_digest.extend(digests.clone())
                    }
                    _ => carried.nameless.push(pod),
                }
            }
        }
        if request.images.transfer == Transfer::InUse && request.pods().is_none() {
            carried.unknown = unknown(store, kubelet);
        }
        if request.images.transfer == Transfer::All || !carried.unknown.is_empty() {
            names.extend(by_name.keys().cloned());
        }
        for list in [&mut carried.by_digest, &mut carried.nameless] {
            list.sort_unstable();
            list.dedup();
        }
        let ids: BTreeSet<&str> = names
            .iter()
            .filter_map(|name| by_name.get(name))
            .map(|image| &*image.id)
            .collect();
        let sizes = ids.iter().filter_map(|id| Some(by_id.get(id)?.size));
        carried.bytes = sizes.clone().sum();
        carried.largest = sizes.max().unwrap_or_default();
        carried.names.extend(names.take(&carried.sandbox));
        carried.names.extend(names);
        carried
    }
}

/// The pods that do not have all their containers: none at all beside the sandbox, or not one of those that they had before.
fn unknown(store: &Store, kubelet: &Kubelet) -> Vec<String> {
    let lacks = |pod: &&KubeletPod| {
        let of_pod = store
            .containers
            .iter()
            .filter_map(|container| container.pod.as_ref());
        let there: BTreeSet<&str> = of_pod
            .filter(|of_pod| of_pod.uid == pod.uid && of_pod.container != SANDBOX)
            .map(|of_pod| of_pod.container.as_str())
            .collect();
        there.is_empty() || !pod.containers.iter().all(|name| there.contains(name.as_str()))
    };
    let pods = kubelet.pods.iter().filter(lacks);
    pods.map(|pod| pod.name.clone().unwrap_or_else(|| format!("UID {}", pod.uid)))
        .collect()
}

/// The image of every container of a pod, with the pod.
fn used<'a>(
    store: &'a Store,
    by_id: &BTreeMap<&str, &'a Image>,
    by_name: &BTreeMap<String, &'a Image>,
) -> impl Iterator<Item = (Option<&'a Image>, String)> {
    store.containers.iter().filter_map(|container| {
        let pod = container.pod.as_ref()?;
        // A CRI does not say which image a sandbox has; it is the sandbox image, which is carried anyway.
        if container.image_id.is_empty() {
            return None;
        }
        let by_id = by_id.get(&*container.image_id);
        // Older releases of CRI-O name the image with its digest.
        let image = by_id.or_else(|| by_name.get(&container.image_id)).copied();
        Some((image, format!("{}/{}", pod.namespace, pod.name)))
    })
}
