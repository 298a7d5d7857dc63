//! What a configuration has that another runtime must be given, or that is told where containerd is left.

use toml_edit::{Item, TableLike, Value};

use super::{CRI, CRI_IMAGES, CRI_RUNTIME, UNPRIVILEGED, parse, plain};
use crate::edit::{
    hosts_toml::{Tls, api},
    registry_auth::Credential,
};

/// Registries in the form of 1.x: `registry.mirrors`, `registry.configs`, `registry.auths` and `registry.headers`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OldRegistries {
    /// Registries with the URLs that are asked for their images, in this order, with the paths of their APIs as [`api`] has them. `*`
    /// stands for all others.
    pub mirrors: Vec<(String, Vec<String>)>,
    /// Hosts whose certificate is not checked.
    pub insecure: Vec<String>,
    /// Hosts with certificates of their own.
    pub certificates: Vec<(String, Tls)>,
    /// Users of registries.
    pub credentials: Vec<Credential>,
    /// Hosts with credentials that no file can have, or that are none.
    pub other_credentials: Vec<String>,
    /// Headers are sent with each request.
    pub headers: bool,
}

/// Registries in the form of 1.x, best of the effective configuration.
pub fn old_registries(text: &str) -> OldRegistries {
    let mut found = OldRegistries::default();
    let Ok(document) = parse(text) else { return found };
    let registry = |plugin: &str| document.get("plugins")?.get(plugin)?.get("registry");
    for registry in [CRI_IMAGES, CRI].into_iter().filter_map(registry) {
        let table = |name: &str| registry.get(name).and_then(Item::as_table_like);
        for (host, mirror) in table("mirrors").into_iter().flat_map(TableLike::iter) {
            let list = mirror
                .get("endpoint")
                .and_then(Item::as_array)
                .into_iter()
                .flatten();
            let urls = list.filter_map(Value::as_str).map(api).collect();
            found.mirrors.push((host.to_owned(), urls));
        }
        for (host, config) in table("configs").into_iter().flat_map(TableLike::iter) {
            let tls = |key: &str| config.get("tls").and_then(|tls| tls.get(key));
            if tls("insecure_skip_verify").and_then(Item::as_bool) == Some(true) {
                found.insecure.push(host.to_owned());
            }
            let named = |key| {
                let path = tls(key).and_then(Item::as_str);
                path.filter(|path| !path.is_empty()).map(str::to_owned)
            };
            let own = Tls {
                skip_verify: false,
                ca: named("ca_file").into_iter().collect(),
                client: named("cert_file").zip(named("key_file")).into_iter().collect(),
            };
            if !own.is_empty() {
                found.certificates.push((host.to_owned(), own));
            }
            if let Some(auth) = config.get("auth").and_then(Item::as_table_like) {
                found.credential(host, auth);
            }
        }
        // They win over the others (`internal/cri/config/config.go`).
        for (url, auth) in table("auths").into_iter().flat_map(TableLike::iter) {
            if let Some(auth) = auth.as_table_like() {
                found.credential(host_of(url), auth);
            }
        }
        found.headers |= table("headers").is_some_and(|headers| {
            // Sent by default: who asks.
            headers.iter().any(|(name, _)| name != "User-Agent")
        });
    }
    found
}

impl OldRegistries {
    /// As containerd reads it (`ParseAuth` of `internal/cri/server/images/image_pull.go`).
    fn credential(&mut self, host: &str, auth: &dyn TableLike) {
        let given = |key: &str| auth.get(key).and_then(Item::as_str).unwrap_or_default();
        let (user, token, both) = (given("username"), given("identitytoken"), given("auth"));
        let one = Credential {
            host: host.to_owned(),
            user: user.to_owned(),
            password: if user.is_empty() { "" } else { given("password") }.to_owned(),
            token: if user.is_empty() { token } else { "" }.to_owned(),
        };
        let one = if !user.is_empty() || !token.is_empty() {
            Some(one)
        } else if both.is_empty() {
            return;
        } else {
            Credential::decoded(host, both)
        };
        self.credentials.retain(|known| known.host != host);
        match one.filter(Credential::can_be_written) {
            Some(one) => self.credentials.push(one),
            None => self.other_credentials.push(host.to_owned()),
        }
    }
}

/// The host of a URL, without its user.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// Settings on which pods may depend, with what containerd does by itself (`internal/cri/config/config.go`).
const TOLD: [(&[&str], &str); 16] = [
    (&["cdi_spec_dirs"], "\"/etc/cdi\",\"/var/run/cdi\""),
    (&["cni", "conf_template"], "\"\""),
    (&["cni", "ip_pref"], "\"\""),
    (&["cni", "max_conf_num"], "1"),
    (&["device_ownership_from_security_context"], "false"),
    (&["disable_apparmor"], "false"),
    (&["disable_hugetlb_controller"], "false"),
    (&["disable_proc_mount"], "false"),
    (&["enable_tls_streaming"], "false"),
    (&["ignore_image_defined_volumes"], "false"),
    (&["image_decryption", "key_model"], "\"node\""),
    (&["max_container_log_line_size"], "16384"),
    (&["restrict_oom_score_adj"], "false"),
    (&["selinux_category_range"], "1024"),
    (&["stream_idle_timeout"], "\"4h0m0s\""),
    (&["unset_seccomp_profile"], "\"\""),
];

/// The same of runtimes that is no part of a [`Handler`](super::Handler).
const TOLD_OF_RUNTIMES: [(&str, &str); 5] = [
    ("cgroup_writable", "false"),
    ("cni_conf_dir", "\"\""),
    ("cni_max_conf_num", "0"),
    ("privileged_without_host_devices_all_devices_allowed", "false"),
    ("snapshotter", "\"\""),
];

/// Those of these settings that are other than what containerd does by itself, with their values.
pub fn told(text: &str) -> Vec<(String, String)> {
    let Ok(document) = parse(text) else {
        return Vec::new();
    };
    let of = |path: &[&str]| {
        let plugins = document.get("plugins")?;
        [CRI_RUNTIME, CRI_IMAGES, CRI].iter().find_map(|plugin| {
            let plugin = plugins.get(plugin)?;
            path.iter().try_fold(plugin, |item, key| item.get(key))
        })
    };
    let mut found = Vec::new();
    for (path, default) in TOLD {
        let value = of(path).and_then(Item::as_value).map(plain);
        found.extend(
            value
                .filter(|value| value != default)
                .map(|value| (path.join("."), value)),
        );
    }
    let runtimes = of(&["containerd", "runtimes"]).and_then(Item::as_table_like);
    for (name, runtime) in runtimes.into_iter().flat_map(TableLike::iter) {
        for (key, default) in TOLD_OF_RUNTIMES {
            let value = runtime.get(key).and_then(Item::as_value).map(plain);
            let value = value.filter(|value| value != default);
            found.extend(value.map(|value| (format!("runtimes.{name}.{key}"), value)));
        }
    }
    found
}

/// Plugins that are programs of their own (`proxy_plugins`), and those that decrypt images (`stream_processors`).
pub fn own_plugins(text: &str) -> Vec<String> {
    let Ok(document) = parse(text) else {
        return Vec::new();
    };
    let of = |table: &str| {
        let names = document.get(table).and_then(Item::as_table_like);
        let names = names.into_iter().flat_map(TableLike::iter);
        names.map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
    };
    // These are in each configuration that `config default` printed.
    let mut decrypt = of("stream_processors");
    decrypt.retain(|name| !name.starts_with("io.containerd.ocicrypt.decoder."));
    of("proxy_plugins").into_iter().chain(decrypt).collect()
}

/// Whether processes without privileges may bind ports under 1024 and send pings, as the effective configuration says; `by_default` is
/// what containerd does by itself.
pub fn unprivileged(text: &str, by_default: bool) -> bool {
    let Ok(document) = parse(text) else {
        return by_default;
    };
    let of = |plugin: &str, key: &str| document.get("plugins")?.get(plugin)?.get(key)?.as_bool();
    let is_on = |key| {
        of(CRI_RUNTIME, key)
            .or_else(|| of(CRI, key))
            .unwrap_or(by_default)
    };
    UNPRIVILEGED.into_iter().all(is_on)
}

/// Runtimes whose containers are made from a specification of somebody's own (`base_runtime_spec`).
pub fn own_specifications(text: &str) -> Vec<String> {
    let Ok(document) = parse(text) else {
        return Vec::new();
    };
    let runtimes = |plugin: &str| {
        document
            .get("plugins")?
            .get(plugin)?
            .get("containerd")?
            .get("runtimes")
    };
    let found = runtimes(CRI_RUNTIME)
        .or_else(|| runtimes(CRI))
        .and_then(Item::as_table_like);
    let has_one = |(_, runtime): &(&str, &Item)| {
        let path = runtime.get("base_runtime_spec").and_then(Item::as_str);
        path.is_some_and(|path| !path.is_empty())
    };
    let named = found.into_iter().flat_map(TableLike::iter).filter(has_one);
    named.map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"version = 2
[proxy_plugins.stargz]
type = "snapshot"
[stream_processors."io.containerd.ocicrypt.decoder.v1.tar"]
path = "ctd-decoder"
[plugins."io.containerd.grpc.v1.cri"]
enable_unprivileged_ports = true
enable_unprivileged_icmp = true
unset_seccomp_profile = "runtime/default"
max_container_log_line_size = 16384
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
base_runtime_spec = "/etc/containerd/base.json"
cni_conf_dir = "/etc/cni/other"
[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]
endpoint = ["https://m.example", "https://registry-1.docker.io"]
[plugins."io.containerd.grpc.v1.cri".registry.configs."r.example:5000".tls]
insecure_skip_verify = true
ca_file = ""
[plugins."io.containerd.grpc.v1.cri".registry.configs."s.example".tls]
ca_file = "/etc/s.crt"
[plugins."io.containerd.grpc.v1.cri".registry.configs."s.example".auth]
username = "me"
password = "pw"
[plugins."io.containerd.grpc.v1.cri".registry.configs."u.example".auth]
auth = "no colon"
[plugins."io.containerd.grpc.v1.cri".registry.configs."v.example".auth]
identitytoken = ""
[plugins."io.containerd.grpc.v1.cri".registry.auths."https://me:pw@t.example/v1"]
auth = "bWU6cHc="
"#;

    #[test]
    fn what_is_left_is_read() {
        let text = |text: &str| text.to_owned();
        let wanted = OldRegistries {
            mirrors: vec![(
                text("docker.io"),
                vec![text("https://m.example"), text("https://registry-1.docker.io")],
            )],
            insecure: vec![text("r.example:5000")],
            certificates: vec![(
                text("s.example"),
                Tls {
                    ca: vec![text("/etc/s.crt")],
                    ..Tls::default()
                },
            )],
            credentials: ["s.example", "t.example"]
                .iter()
                .filter_map(|host| Credential::decoded(host, "bWU6cHc="))
                .collect(),
            other_credentials: vec![text("u.example")],
            headers: false,
        };
        assert_eq!(old_registries(TEXT), wanted);
        assert_eq!(
            told(TEXT),
            [
                (text("unset_seccomp_profile"), text("\"runtime/default\"")),
                (text("runtimes.runc.cni_conf_dir"), text("\"/etc/cni/other\"")),
            ]
        );
        assert!(unprivileged(TEXT, false) && !unprivileged("version = 2\n", false) && unprivileged("", true));
        assert_eq!(own_specifications(TEXT), ["runc"]);
        assert_eq!(own_plugins(TEXT), ["stargz"]);
        assert_eq!(old_registries("= no"), OldRegistries::default());
    }

    #[test]
    fn fuzz_what_is_left() {
        use crate::fuzz::{hold, samples};

        hold(&samples("containerd-toml", &[TEXT]), |text| {
            let _ = (
                old_registries(text),
                told(text),
                own_specifications(text),
                own_plugins(text),
                unprivileged(text, true),
            );
        });
    }
}
