//! What the API server tells that the node cannot know, read with the node's own identity while planning.

use super::identity::{IdentityError, NodeIdentity};
use crate::{plan::finding::Finding, planner::findings::kubeadm};

/// What kubeadm's memory and the server's admission mean for a node; `node` where kubeadm made it.
///
/// # Errors
/// The API server does not answer. What it refuses to tell is a finding.
pub(super) async fn findings(
    identity: &mut NodeIdentity,
    node: Option<&kubeadm::Node>,
) -> Result<Vec<Finding>, IdentityError> {
    let mut findings = Vec::new();
    if let Some(node) = node {
        let kubelet = config_map(identity, &node.kubelet_configs()).await?;
        let cluster = config_map(identity, &[kubeadm::KUBEADM_CONFIG.to_owned()]).await?;
        findings.extend(kubeadm::check(node, &kubelet, &cluster));
    }
    if !identity.is_restricted().await? {
        findings.push(kubeadm::unrestricted());
    }
    Ok(findings)
}

/// The first of these ConfigMaps that can be read.
async fn config_map(identity: &mut NodeIdentity, names: &[String]) -> Result<kubeadm::Read, IdentityError> {
    let mut refusals = Vec::new();
    for name in names {
        match identity.config_map(name).await {
            Ok(map) => {
                let data = map.data.unwrap_or_default().into_iter().collect();
                let name = name.clone();
                return Ok(Ok(kubeadm::ConfigMap { name, data }));
            }
            Err(error) if error.is_refusal() => refusals.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    Ok(Err(refusals.join("; ")))
}
