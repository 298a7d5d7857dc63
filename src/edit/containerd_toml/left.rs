//! What a configuration has that another runtime must be given, or that is told where containerd is left.

use toml_edit::{Item, TableLike, Value};

use super::{CRI, CRI_IMAGES, CRI_RUNTIME, UNPRIVILEGED, parse, plain};

/// Registries in the form of 1.x: `registry.mirrors`, `registry.configs`, `registry.auths` and `registry.headers`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OldRegistries {
    /// Registries with the URLs that are asked for their images, in this order. `*` stands for all others.
    pub mirrors: Vec<(String, Vec<String>)>,
    /// Hosts whose certificate is not checked.
    pub insecure: Vec<String>,
    /// Hosts with certificates of their own.
    pub certificates: Vec<String>,
    /// Hosts with credentials.
    pub credentials: Vec<String>,
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
            let urls = list.filter_map(Value::as_str).map(str::to_owned).collect();
            found.mirrors.push((host.to_owned(), urls));
        }
        for (host, config) in table("configs").into_iter().flat_map(TableLike::iter) {
            let tls = |key: &str| config.get("tls").and_then(|tls| tls.get(key));
            if tls("insecure_skip_verify").and_then(Item::as_bool) == Some(true) {
                found.insecure.push(host.to_owned());
            }
            let named = |key| {
                tls(key)
                    .and_then(Item::as_str)
                    .is_some_and(|path| !path.is_empty())
            };
            if ["ca_file", "cert_file", "key_file"].into_iter().any(named) {
                found.certificates.push(host.to_owned());
            }
            if config.get("auth").is_some_and(|auth| !auth.is_none()) {
                found.credentials.push(host.to_owned());
            }
        }
        let auths = table("auths").into_iter().flat_map(TableLike::iter);
        found.credentials.extend(auths.map(|(host, _)| host.to_owned()));
        found.headers |= table("headers").is_some_and(|headers| {
            // Sent by default: who asks.
            headers.iter().any(|(name, _)| name != "User-Agent")
        });
    }
    found.credentials.sort_unstable();
    found.credentials.dedup();
    found
}

/// Settings on which pods may depend, with what containerd does by itself.
const TOLD: [(&str, &str); 8] = [
    ("cdi_spec_dirs", "\"/etc/cdi\",\"/var/run/cdi\""),
    ("device_ownership_from_security_context", "false"),
    ("disable_apparmor", "false"),
    ("disable_proc_mount", "false"),
    ("ignore_image_defined_volumes", "false"),
    ("max_container_log_line_size", "16384"),
    ("restrict_oom_score_adj", "false"),
    ("unset_seccomp_profile", "\"\""),
];

/// Those of these settings that are other than what containerd does by itself, with their values.
pub fn told(text: &str) -> Vec<(&'static str, String)> {
    let Ok(document) = parse(text) else {
        return Vec::new();
    };
    let value = |key: &str| {
        let of = |plugin: &str| document.get("plugins")?.get(plugin)?.get(key)?.as_value();
        of(CRI_RUNTIME).or_else(|| of(CRI)).map(plain)
    };
    TOLD.into_iter()
        .filter_map(|(key, default)| Some((key, value(key).filter(|found| found != default)?)))
        .collect()
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
[plugins."io.containerd.grpc.v1.cri"]
enable_unprivileged_ports = true
enable_unprivileged_icmp = true
unset_seccomp_profile = "runtime/default"
max_container_log_line_size = 16384
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
base_runtime_spec = "/etc/containerd/base.json"
[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]
endpoint = ["https://m.example", "https://registry-1.docker.io"]
[plugins."io.containerd.grpc.v1.cri".registry.configs."r.example:5000".tls]
insecure_skip_verify = true
ca_file = ""
[plugins."io.containerd.grpc.v1.cri".registry.configs."s.example".tls]
ca_file = "/etc/s.crt"
[plugins."io.containerd.grpc.v1.cri".registry.configs."s.example".auth]
username = "me"
[plugins."io.containerd.grpc.v1.cri".registry.auths."https://t.example"]
username = "me"
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
            certificates: vec![text("s.example")],
            credentials: vec![text("https://t.example"), text("s.example")],
            headers: false,
        };
        assert_eq!(old_registries(TEXT), wanted);
        assert_eq!(
            told(TEXT),
            [("unset_seccomp_profile", text("\"runtime/default\""))]
        );
        assert!(unprivileged(TEXT, false) && !unprivileged("version = 2\n", false) && unprivileged("", true));
        assert_eq!(own_specifications(TEXT), ["runc"]);
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
                unprivileged(text, true),
            );
        });
    }
}
