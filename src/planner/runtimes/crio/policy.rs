//! Policies of signatures. CRI-O asks one before it pulls an image (`DefaultPolicy` in `internal/storage/image.go`), and, where its
//! configuration names one or the namespace has its own, again before it starts a container (`verifyImageSignature` in
//! `server/container_create.go`). Images that come along have no signatures in its store.

use std::{borrow::Cow, collections::BTreeSet};

use super::settings::lacks_policy;
use crate::{
    edit::policy_json::Policy,
    plan::{
        codes::crio::IMAGE_POLICY_REFUSES,
        facts::TextFile,
        finding::Finding,
        lists,
        paths::{CONTAINERS_POLICY, CRIO_POLICY},
        reference::full,
        step::Layers,
    },
    planner::{context::View, steps::path},
};

/// An image of the registry at a loopback address from which CRI-O pulls what cannot be linked; the port is another one each time.
const LOOPBACK: &str = "127.0.0.1:0/transship/image:carried";

/// What policies of signatures refuse.
pub(super) fn check(view: &View<'_>, layers: &Layers) -> Vec<Finding> {
    let crio = view.facts.crio.as_ref();
    let mut findings = Vec::new();
    // A policy that the plan writes takes everything.
    let brought = if lacks_policy(view) {
        CRIO_POLICY
    } else {
        CONTAINERS_POLICY
    };
    let main = match crio {
        Some(crio) => crio.policy.as_ref(),
        None if view.target.is_unpacked() => path(brought).ok().and_then(|path| view.facts.text_at(&path)),
        // A package brings a configuration that names a policy of its own.
        None => None,
    };
    if let Some(file) = main {
        let is_asked_again = view.crio_conf.signature_policy().is_some() || lacks_policy(view);
        let names = &view.carried.names;
        let run = names
            .iter()
            .filter(|name| is_asked_again && **name != view.carried.sandbox);
        findings.extend(refused(
            file,
            run.map(Cow::Borrowed),
            matches!(layers, Layers::Streamed { .. }),
        ));
    }
    for file in crio.iter().flat_map(|crio| &crio.namespace_policies) {
        let namespace = file
            .path
            .as_str()
            .rsplit('/')
            .next()
            .and_then(|name| name.strip_suffix(".json"));
        let containers = view.source.store.containers.iter().filter(|container| {
            let pod = container.pod.as_ref();
            pod.is_some_and(|pod| Some(pod.namespace.as_str()) == namespace)
        });
        let ids: BTreeSet<&str> = containers.map(|container| container.image_id.as_str()).collect();
        let images = view.source.store.images.iter();
        let used = images.filter(|image| ids.contains(image.id.as_str()) && !ids.is_empty());
        let names = used
            .flat_map(|image| &image.names)
            .map(|name| Cow::Owned(full(name)));
        findings.extend(refused(
            file,
            names.filter(|name| **name != view.carried.sandbox),
            false,
        ));
    }
    findings
}

/// What a policy refuses of these images, and whether it refuses to pull from this node.
fn refused<'a>(file: &TextFile, names: impl Iterator<Item = Cow<'a, String>>, pulls: bool) -> Vec<Finding> {
    let at = &file.path;
    let policy = match Policy::read(&file.text) {
        Ok(policy) => policy,
        Err(error) => {
            return vec![IMAGE_POLICY_REFUSES.found(
                format!("{at} cannot be read, so CRI-O pulls no image with it: {error}"),
                "Correct the file, and plan again.",
            )];
        }
    };
    let mut findings = Vec::new();
    if pulls && !policy.takes_unsigned(LOOPBACK) {
        findings.push(IMAGE_POLICY_REFUSES.found(
            format!("{at} refuses images without a signature from 127.0.0.1, where CRI-O would pull those that cannot be linked"),
            format!(
                "Write \"*.0.0.1\": [{{\"type\": \"insecureAcceptAnything\"}}] into transports.docker of {at} until the switch is over, \
                 or let both stores lie on one file system; then plan again."
            ),
        ));
    }
    let mut names: Vec<String> = names
        .filter(|name| !policy.takes_unsigned(name))
        .map(Cow::into_owned)
        .collect();
    names.sort_unstable();
    names.dedup();
    if !names.is_empty() {
        findings.push(IMAGE_POLICY_REFUSES.found(
            format!(
                "{at} refuses {} without a signature, and images that come along have none: CRI-O would not start containers of {}",
                lists::count(names.len(), "image"),
                lists::some(&names)
            ),
            format!(
                "Let {at} take them (insecureAcceptAnything for their registry) until CRI-O has pulled them itself, or leave such nodes \
                 out with a selector."
            ),
        ));
    }
    findings
}
