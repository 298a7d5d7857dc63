//! The two identities of the agent. Everything on the Node and its pods is done as the node itself, with the
//! kubelet's own kubeconfig: where the server runs NodeRestriction this identity can touch no other node. The
//! service account can read and report on `NodeMigration`s and read `RuntimeMigration`s, nothing else.
//!
//! Both clients make no retries of their own: those hide a budget's refusal for minutes, and the agent looks
//! again anyway.

use std::{path::PathBuf, time::Duration};

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::{
    Api, Client, Config,
    api::{ListParams, Patch, PatchParams, VersionMatch},
};
use serde_json::{Value, json};

use super::{
    drain::evict::{Answer, EvictionVersion, evict},
    kubeconfig::{self, KubeconfigError},
};
use crate::api::{outage::may_pass, request::Drain, user_agent};

/// How long the API server may take to answer.
const ANSWER: Duration = Duration::from_secs(20);
/// The name under which the agent's fields are managed.
pub const FIELD_MANAGER: &str = "transship-agent";

/// An identity that cannot be used, or an API server that refuses or does not answer.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The kubelet's kubeconfig cannot be used.
    #[error("the kubelet's kubeconfig {path} cannot be used: {error}; is it mounted into the agent's pod?")]
    Kubeconfig {
        /// Where it should be.
        path: PathBuf,
        /// What is wrong.
        error: KubeconfigError,
    },
    /// The API server refused a request, or did not answer it.
    #[error("{what}: {}", kubeconfig::words(.error))]
    Api {
        /// The request.
        what: &'static str,
        /// The answer.
        error: Box<kube::Error>,
    },
}

impl IdentityError {
    /// Whether the object is not there, or not for this identity to read.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Api { error, .. }
            if matches!(&**error, kube::Error::Api(status) if matches!(status.code, 403 | 404)))
    }

    /// Whether it may pass by itself ([`may_pass`]): it is waited for, and never a failure.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Kubeconfig { .. } => false,
            Self::Api { error, .. } => may_pass(error),
        }
    }
}

/// Sets what all clients of the agent have in common.
pub fn plain(mut config: Config) -> Config {
    config.default_retry = false;
    config.read_timeout = Some(ANSWER);
    config.reset_reader_on_write = true;
    config.headers.push(user_agent(FIELD_MANAGER));
    config
}

/// The node's own identity.
pub struct NodeIdentity {
    kubeconfig: PathBuf,
    node: String,
    client: Option<(Client, EvictionVersion)>,
}

impl std::fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeIdentity")
            .field("kubeconfig", &self.kubeconfig)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl NodeIdentity {
    /// The identity of the node named `node`, from the kubelet's kubeconfig.
    pub fn new(kubeconfig: PathBuf, node: String) -> Self {
        Self {
            kubeconfig,
            node,
            client: None,
        }
    }

    /// Reads the kubeconfig and its certificates again before the next request: the kubelet rotates them.
    pub fn refresh(&mut self) {
        self.client = None;
    }

    async fn client(&mut self) -> Result<(Client, EvictionVersion), IdentityError> {
        if let Some((client, version)) = &self.client {
            return Ok((client.clone(), *version));
        }
        let unusable = |error| IdentityError::Kubeconfig {
            path: self.kubeconfig.clone(),
            error,
        };
        let config = kubeconfig::read(&self.kubeconfig).await.map_err(unusable)?;
        let client = Client::try_from(plain(config)).map_err(|_| {
            unusable(KubeconfigError::Content(
                "its certificates, its key or its token cannot be used",
            ))
        })?;
        let server = client
            .apiserver_version()
            .await
            .map_err(failed("ask the API server for its version"))?;
        let version = EvictionVersion::of(&server);
        self.client = Some((client.clone(), version));
        Ok((client, version))
    }

    /// After a refusal of the identity itself, it is read again.
    fn judge<T>(&mut self, result: Result<T, IdentityError>) -> Result<T, IdentityError> {
        if let Err(IdentityError::Api { error, .. }) = &result
            && !matches!(error.as_ref(), kube::Error::Api(status) if !matches!(status.code, 401 | 403))
        {
            self.refresh();
        }
        result
    }

    /// The Node.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub async fn node(&mut self) -> Result<Node, IdentityError> {
        let (client, _) = self.client().await?;
        let result = Api::<Node>::all(client)
            .get(&self.node)
            .await
            .map_err(failed("read the Node"));
        self.judge(result)
    }

    /// Patches the Node (a merge patch).
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub async fn patch_node(&mut self, patch: &Value) -> Result<(), IdentityError> {
        let (client, _) = self.client().await?;
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let result = Api::<Node>::all(client)
            .patch(&self.node, &parameters, &Patch::Merge(patch))
            .await
            .map_err(failed("patch the Node"));
        self.judge(result.map(|_| ()))
    }

    /// All pods that are bound to the node. `exactly` asks for the newest state, which costs the server a search
    /// through all pods of the cluster; otherwise its cache answers, which is indexed by node.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub async fn pods(&mut self, exactly: bool) -> Result<Vec<Pod>, IdentityError> {
        let (client, _) = self.client().await?;
        let mut parameters = ListParams::default().fields(&format!("spec.nodeName={}", self.node));
        if !exactly {
            parameters.version_match = Some(VersionMatch::NotOlderThan);
            parameters.resource_version = Some("0".to_owned());
        }
        let result = Api::<Pod>::all(client)
            .list(&parameters)
            .await
            .map_err(failed("list the pods of the node"));
        self.judge(result.map(|list| list.items))
    }

    /// A ConfigMap of `kube-system`; kubeadm lets nodes read its own.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub async fn config_map(&mut self, name: &str) -> Result<ConfigMap, IdentityError> {
        let (client, _) = self.client().await?;
        Api::namespaced(client, "kube-system")
            .get(name)
            .await
            .map_err(failed("read a ConfigMap of kubeadm"))
    }

    /// Whether the server keeps the node from what NodeRestriction forbids. It is tried, and nothing is changed: a
    /// label of the reserved kind on the own Node, as a dry run.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub async fn is_restricted(&mut self) -> Result<bool, IdentityError> {
        let (client, _) = self.client().await?;
        let parameters = PatchParams {
            dry_run: true,
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let label =
            json!({ "metadata": { "labels": { "node-restriction.kubernetes.io/transship": "probe" } } });
        let tried = Api::<Node>::all(client)
            .patch(&self.node, &parameters, &Patch::Merge(label))
            .await;
        match tried {
            Ok(_) => Ok(false),
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(true),
            Err(error) => Err(failed("try what NodeRestriction forbids")(error)),
        }
    }

    /// Asks for the eviction of a pod.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub async fn evict(&mut self, pod: &Pod, drain: &Drain) -> Result<Answer, IdentityError> {
        let (client, version) = self.client().await?;
        let result = evict(&client, version, pod, drain)
            .await
            .map_err(failed("evict a pod"));
        self.judge(result)
    }
}

fn failed(what: &'static str) -> impl FnOnce(kube::Error) -> IdentityError {
    move |error| IdentityError::Api {
        what,
        error: Box::new(error),
    }
}
