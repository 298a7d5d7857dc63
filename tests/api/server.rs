//! A real kube-apiserver with its etcd.
//!
//! The binaries come from the lab's cache. There is no controller manager, no scheduler and no kubelet: a test plays
//! them. Identities are static tokens, and authorization is the real `Node,RBAC` with `NodeRestriction`, so what the
//! API refuses here it refuses in a cluster. Both processes end with the test process, however that ends.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use kube::config::{
    AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext,
};
use kube::{Client, Config};
use serde_json::json;
use tokio::sync::OnceCell;

/// A release of Kubernetes whose parts the lab builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// 1.23.17: no rules in CEL, no admission policies, tokens that do not name their node.
    Old,
    /// 1.36.3: all of these.
    New,
}

impl Release {
    /// Kubernetes and the etcd that serves it.
    const fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::Old => ("kubernetes-1.23.17", "etcd-bookworm"),
            Self::New => ("kubernetes-1.36.3", "etcd-3.6.16"),
        }
    }

    /// The plain manifest for a server of this release.
    pub(crate) const fn manifest(self) -> &'static str {
        match self {
            Self::Old => concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/install-1.22.yaml"),
            Self::New => concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/install.yaml"),
        }
    }
}

/// The namespace that the chart is installed into.
pub(crate) const NAMESPACE: &str = "transship";
/// `system:masters`.
pub(crate) const ADMIN: &str = "admin";
/// The service account of the chart's controller.
pub(crate) const CONTROLLER: &str = "system:serviceaccount:transship:transship-controller";
/// The service account of the chart's agent.
pub(crate) const AGENT: &str = "system:serviceaccount:transship:transship-agent";

/// The identity of the kubelet of a node (`w1` to `w30`).
pub(crate) fn kubelet(node: &str) -> String {
    format!("system:node:{node}")
}

/// A running API server.
#[derive(Debug)]
pub(crate) struct ApiServer {
    release: Release,
    url: String,
}

/// An API server of each release for tests that do not disturb each other. They end with the test process.
pub(crate) struct Servers([OnceCell<ApiServer>; 2]);

/// For tests that start no controller and no agent, and have nodes and namespaces of their own.
pub(crate) static QUIET: Servers = Servers::new();

impl Servers {
    pub(crate) const fn new() -> Self {
        Self([OnceCell::const_new(), OnceCell::const_new()])
    }

    /// The API server of this release; the first caller starts it.
    pub(crate) async fn of(&'static self, release: Release) -> &'static ApiServer {
        self.0[release as usize]
            .get_or_init(|| ApiServer::start(release, &[RESTRICTED]))
            .await
    }
}

/// Confines a kubelet to its own node, as kubeadm does.
pub(crate) const RESTRICTED: &str = "--enable-admission-plugins=NodeRestriction";

impl ApiServer {
    /// Starts an API server with more flags than those that all have, and waits until it is ready.
    pub(crate) async fn start(release: Release, flags: &[&str]) -> Self {
        let (kubernetes, etcd) = release.parts();
        let directory = directory();
        let (etcd_port, etcd_peer, port) = (free_port(), free_port(), free_port());
        fs::write(directory.join("tokens.csv"), tokens()).unwrap();
        let key = directory.join("service-accounts.key");
        let made = Command::new("openssl")
            .args(["ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out"])
            .arg(&key)
            .output()
            .expect("the tests of the API need openssl (Debian: apt-get install openssl)");
        assert!(
            made.status.success(),
            "openssl: {}",
            String::from_utf8_lossy(&made.stderr)
        );

        let etcd_url = format!("http://127.0.0.1:{etcd_port}");
        let mut store = Command::new(part(etcd, "etcd"));
        store
            .arg("--data-dir")
            .arg(directory.join("etcd"))
            .args([
                "--listen-client-urls",
                &etcd_url,
                "--advertise-client-urls",
                &etcd_url,
            ])
            .arg(format!("--listen-peer-urls=http://127.0.0.1:{etcd_peer}"));
        spawn(store, &directory.join("etcd.log"));

        let mut server = Command::new(part(kubernetes, "kube-apiserver"));
        server
            .arg(format!("--etcd-servers={etcd_url}"))
            .args(["--bind-address=127.0.0.1", &format!("--secure-port={port}")])
            .arg(format!("--cert-dir={}", directory.join("certificates").display()))
            .arg(format!(
                "--token-auth-file={}",
                directory.join("tokens.csv").display()
            ))
            .arg("--authorization-mode=Node,RBAC")
            // Without a controller manager no service account exists that a pod could be given.
            .arg("--disable-admission-plugins=ServiceAccount")
            .args([
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-cluster-ip-range=10.0.0.0/24",
            ])
            .arg(format!("--service-account-key-file={}", key.display()))
            .arg(format!("--service-account-signing-key-file={}", key.display()))
            .args(flags);
        spawn(server, &directory.join("kube-apiserver.log"));

        let started = Self {
            release,
            url: format!("https://127.0.0.1:{port}"),
        };
        started.wait_until_ready(&directory).await;
        started
    }

    async fn wait_until_ready(&self, directory: &Path) {
        let client = self.client(ADMIN).await;
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
            match client.request_text(request).await {
                Ok(_) => return,
                Err(error) if Instant::now() > deadline => {
                    let log = fs::read_to_string(directory.join("kube-apiserver.log")).unwrap_or_default();
                    let end = log.lines().last().unwrap_or_default();
                    panic!("the API server is not ready after 90 s ({error}); its log ends: {end}");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// A client that speaks as one of the identities.
    pub(crate) async fn client(&self, user: &str) -> Client {
        self.client_with(&token(user)).await
    }

    /// A client that speaks as a new pod of the agent's DaemonSet on this node, with the token that a kubelet would
    /// have given to it.
    pub(crate) async fn agent_on(&self, node: &str) -> Client {
        let (_, account) = AGENT.rsplit_once(':').unwrap();
        let pod = json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": format!("agent-of-{node}"), "namespace": NAMESPACE },
            "spec": { "nodeName": node, "serviceAccountName": account, "hostNetwork": true,
                "containers": [{ "name": "agent", "image": "transship" }] } });
        self.kubectl(&["create", "-f", "-"], &pod.to_string());
        let request = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": { "audiences": [], "boundObjectRef": { "apiVersion": "v1", "kind": "Pod",
                "name": format!("agent-of-{node}") } } });
        let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token");
        let answer = self.kubectl(&["create", "--raw", &path, "-f", "-"], &request.to_string());
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        self.client_with(answer["status"]["token"].as_str().unwrap())
            .await
    }

    async fn client_with(&self, token: &str) -> Client {
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(self.kubeconfig_with(token), &options)
            .await
            .unwrap();
        Client::try_from(config).unwrap()
    }

    /// A kubeconfig for one of the identities.
    pub(crate) fn kubeconfig(&self, user: &str) -> Kubeconfig {
        self.kubeconfig_with(&token(user))
    }

    fn kubeconfig_with(&self, token: &str) -> Kubeconfig {
        let named = || "test".to_owned();
        Kubeconfig {
            clusters: vec![NamedCluster {
                name: named(),
                cluster: Some(Cluster {
                    server: Some(self.url.clone()),
                    insecure_skip_tls_verify: Some(true),
                    ..Cluster::default()
                }),
                ..NamedCluster::default()
            }],
            auth_infos: vec![NamedAuthInfo {
                name: named(),
                auth_info: Some(AuthInfo {
                    token: Some(token.to_owned().into()),
                    ..AuthInfo::default()
                }),
                ..NamedAuthInfo::default()
            }],
            contexts: vec![NamedContext {
                name: named(),
                context: Some(Context {
                    cluster: named(),
                    user: Some(named()),
                    ..Context::default()
                }),
                ..NamedContext::default()
            }],
            current_context: Some(named()),
            ..Kubeconfig::default()
        }
    }

    /// Runs the real kubectl as the admin and returns what it printed; its failure fails the test.
    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        self.try_kubectl(arguments, input)
            .unwrap_or_else(|errors| panic!("kubectl {}: {errors}", arguments.join(" ")))
    }

    /// The same; its error is what kubectl says when it fails.
    pub(crate) fn try_kubectl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut child = Command::new(part(self.release.parts().0, "kubectl"))
            .args([
                "--server",
                &self.url,
                "--insecure-skip-tls-verify",
                "--token",
                &token(ADMIN),
            ])
            .args([
                "--kubeconfig",
                "/dev/null",
                "--cache-dir",
                concat!(env!("CARGO_TARGET_TMPDIR"), "/kubectl"),
            ])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap())
        } else {
            Err(String::from_utf8(output.stderr).unwrap())
        }
    }
}

/// A file of the lab's cache.
pub(crate) fn part(name: &str, file: &str) -> PathBuf {
    let cache = std::env::var_os("TRANSSHIP_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/transship"),
        PathBuf::from,
    );
    let path = cache.join(name).join(file);
    assert!(
        path.exists(),
        "{} is missing; build it with: tests/lab/lab parts",
        path.display()
    );
    path
}

/// A directory of this process; those of processes that are gone are removed.
fn directory() -> PathBuf {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("api-server");
    fs::create_dir_all(&all).unwrap();
    for entry in fs::read_dir(&all).unwrap().flatten() {
        let owner = entry
            .file_name()
            .to_string_lossy()
            .split('-')
            .next()
            .unwrap_or_default()
            .to_owned();
        if !Path::new("/proc").join(&owner).exists() {
            // Another test binary may be removing it too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    (0..)
        .map(|n| all.join(format!("{}-{n}", std::process::id())))
        // Two servers may be starting at the same time: who makes it has it.
        .find(|d| fs::create_dir(d).is_ok())
        .unwrap()
}

/// Starts a process that ends when this one ends. `setpriv` ties it to the thread that started it, so that thread
/// must live as long as the process.
fn spawn(command: Command, log: &Path) {
    let log = fs::File::create(log).unwrap();
    let mut tied = Command::new("setpriv");
    tied.args(["--pdeathsig", "KILL"])
        .arg(command.get_program())
        .args(command.get_args());
    tied.stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        sender.send(tied.spawn().map(drop)).unwrap();
        loop {
            std::thread::park();
        }
    });
    receiver
        .recv()
        .unwrap()
        .expect("setpriv of util-linux starts the process");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn token(user: &str) -> String {
    format!("token-of-{}", user.replace(':', "-"))
}

fn tokens() -> String {
    let accounts = format!("system:serviceaccounts,system:serviceaccounts:{NAMESPACE}");
    let nodes = (1..=30).map(|n| (kubelet(&format!("w{n}")), "system:nodes".to_owned()));
    [
        (ADMIN.to_owned(), "system:masters".to_owned()),
        (CONTROLLER.to_owned(), accounts.clone()),
        (AGENT.to_owned(), accounts),
    ]
    .into_iter()
    .chain(nodes)
    .map(|(user, groups)| format!("{},{user},{user},\"{groups}\"\n", token(&user)))
    .collect()
}
