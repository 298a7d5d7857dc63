//! What anybody may read of somebody's configuration. A line of a diff shows its key, and its value only where the
//! key is one that Transship sets or one of a short list that holds no secret: a list of the keys that do hold
//! secrets would never be whole. Whatever leaves the node goes through [`mod@sentence`] as well, in which the forms that
//! secrets have are hidden: what a foreign program prints cannot be foreseen.

mod sentence;

pub use sentence::{Published, sentence};

/// Stands for what is not shown.
const HIDDEN: &str = "…";
/// Stands for a user and a password.
const HIDDEN_USER: &str = "…@";

/// A URL as anybody may read it: without user and password, and without the query, which often signs a request.
pub fn public(url: &str) -> String {
    let plain = &url[..url.find(['?', '#']).unwrap_or(url.len())];
    let (scheme, rest) = plain.split_at(plain.find("://").map_or(0, |at| at + 3));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, address) = match authority.rsplit_once('@') {
        Some((_, address)) => (HIDDEN_USER, address),
        None => ("", authority),
    };
    // A password with a slash or a question mark in it ends up where the address should be.
    if is_address(address) {
        format!("{scheme}{user}{address}{path}")
    } else {
        format!("{scheme}{HIDDEN}")
    }
}

/// A host, with a port or without one.
fn is_address(text: &str) -> bool {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    host.chars()
        .all(|c| c.is_ascii_alphanumeric() || ".-_[]:".contains(c))
        && (!host.contains(':') || host.starts_with('['))
        && port.chars().all(|c| c.is_ascii_digit())
}

/// Keys of TOML, JSON, YAML and units whose values are shown: those that Transship sets, and a few around them.
const KEYS: [&str; 94] = [
    "After",
    "Before",
    "BinaryName",
    "Delegate",
    "Description",
    "Documentation",
    "EnvironmentFile",
    "ExecReload",
    "ExecStartPre",
    "KillMode",
    "LimitCORE",
    "LimitLOCKS",
    "LimitMEMLOCK",
    "LimitMSGQUEUE",
    "LimitNICE",
    "LimitNOFILE",
    "LimitNPROC",
    "LimitRTPRIO",
    "LimitSIGPENDING",
    "LimitSTACK",
    "ListenStream",
    "OOMScoreAdjust",
    "PartOf",
    "Requires",
    "Restart",
    "RestartSec",
    "SocketGroup",
    "SocketMode",
    "SocketUser",
    "StartLimitBurst",
    "StartLimitInterval",
    "SystemdCgroup",
    "TasksMax",
    "TimeoutSec",
    "TimeoutStartSec",
    "Type",
    "WantedBy",
    "Wants",
    "apiVersion",
    "bin_dir",
    "bin_dirs",
    "ca",
    "capabilities",
    "cgroupDriver",
    "cgroup_manager",
    "clusterDNS",
    "clusterDomain",
    "conf_dir",
    "config_path",
    "conmon_cgroup",
    "containerRuntimeEndpoint",
    "default_capabilities",
    "default_runtime",
    "default_runtime_name",
    "default_sysctls",
    "default_ulimits",
    "disable",
    "disabled_plugins",
    "enable_selinux",
    "enable_unprivileged_icmp",
    "enable_unprivileged_ports",
    "exec-opts",
    "global_auth_file",
    "image-endpoint",
    "imageServiceEndpoint",
    "image_pull_progress_timeout",
    "imports",
    "insecure",
    "kind",
    "location",
    "max_concurrent_downloads",
    "network_dir",
    "override_path",
    "path",
    "pause_image",
    "pids_limit",
    "plugin_dirs",
    "pull_progress_timeout",
    "root",
    "runtime-endpoint",
    "runtime_path",
    "runtime_root",
    "runtime_type",
    "sandbox",
    "sandbox_image",
    "selinux",
    "server",
    "signature_policy",
    "skip_verify",
    "snapshotter",
    "state",
    "staticPodPath",
    "systemd_cgroup",
    "version",
];

/// First names of the tables of containerd's and CRI-O's files, and sections of units.
const TABLES: [&str; 13] = [
    "Install", "Service", "Socket", "Unit", "cgroup", "crio", "debug", "grpc", "host", "metrics", "plugins",
    "registry", "ttrpc",
];

/// Flags of the kubelet and of cri-dockerd whose values are shown.
const FLAGS: [&str; 20] = [
    "cgroup-driver",
    "cni-bin-dir",
    "cni-cache-dir",
    "cni-conf-dir",
    "config",
    "container-runtime",
    "container-runtime-endpoint",
    "docker-endpoint",
    "hairpin-mode",
    "hostname-override",
    "image-pull-progress-deadline",
    "image-service-endpoint",
    "ipv6-dual-stack",
    "kubeconfig",
    "network-plugin",
    "network-plugin-mtu",
    "node-ip",
    "pod-infra-container-image",
    "runtime-cgroups",
    "v",
];

/// A line of a file, without its line break, as anybody may read it.
pub fn line(text: &str) -> String {
    let body = text.trim_start();
    let (indent, body) = (&text[..text.len() - body.len()], body.trim_end());
    let shown = if body.starts_with("# Written by Transship")
        || body.chars().all(|c| "{}[](),-".contains(c))
        || is_header(body)
    {
        body.to_owned()
    } else if body.starts_with('#') {
        format!("# {HIDDEN}")
    } else if is_flag(body) {
        flags(body)
    } else {
        assignment(body).unwrap_or_else(|| HIDDEN.to_owned())
    };
    format!("{indent}{shown}")
}

/// `[plugins."io.containerd.grpc.v1.cri".cni]` or `[Service]`. A list in one line looks much the same, but for its
/// first name.
fn is_header(body: &str) -> bool {
    let inner = body.strip_prefix('[').and_then(|body| body.strip_suffix(']'));
    let inner = inner.map(|inner| {
        let double = inner.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
        double.unwrap_or(inner)
    });
    inner.is_some_and(|inner| {
        let first = inner.split('.').next().unwrap_or_default();
        TABLES.contains(&first)
            && inner
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".-_:/\"'".contains(c))
    })
}

/// `key = value`, `key: value` or `KEY=value`, with the value if it may be read; nothing where there is no key.
fn assignment(body: &str) -> Option<String> {
    let (key, between, value) = split(body)?;
    let name = key.trim_start_matches("- ").trim_matches(['"', '\'']);
    let shown = if value.is_empty() {
        String::new()
    } else if name == "Environment" {
        variable_in_quotes(value)
    } else if name == "ExecStart" {
        command(value)
    } else if KEYS.contains(&name) {
        plain(value)
    } else {
        variable(name, value)
    };
    Some(format!("{key}{between}{shown}"))
}

/// A line as its key, the sign after it with the blanks around, and its value.
fn split(body: &str) -> Option<(&str, &str, &str)> {
    let listed = body.strip_prefix("- ").unwrap_or(body);
    let start = body.len() - listed.len();
    let end = match listed.chars().next()? {
        quote @ ('"' | '\'') => listed[1..].find(quote)? + 2,
        _ => listed
            .find(|c: char| c.is_whitespace() || matches!(c, '=' | ':'))
            .unwrap_or(listed.len()),
    };
    let key = &listed[..end];
    let name = |c: char| c.is_ascii_alphanumeric() || "._-/:\"'".contains(c);
    if key.len() > 80 || !key.chars().all(name) {
        return None;
    }
    let after = listed[end..].trim_start();
    let sign = after.chars().next().filter(|c| matches!(c, '=' | ':'))?;
    let value = after[1..].trim_start();
    let is_name = match sign {
        // What comes out of base64 may have this sign, too.
        '=' => listed[end..].starts_with(char::is_whitespace) || is_known(key) || is_command_line(value),
        // `http://…` is no key.
        _ => value.is_empty() || after[1..].starts_with(char::is_whitespace) || key.starts_with('"'),
    };
    let sign_end = body.len() - value.len();
    is_name.then(|| (&body[..start + end], &body[start + end..sign_end], value))
}

/// Keys of which a value may be shown, in whole or in part.
fn is_known(name: &str) -> bool {
    KEYS.contains(&name) || matches!(name, "Environment" | "ExecStart") || Variable::of(name).is_some()
}

/// The value of a key that may be read: one scalar or a flat list of them, so that nothing else comes along in its
/// line.
fn plain(value: &str) -> String {
    let (value, comment) = match value.split_once(" #") {
        Some((value, _)) => (value.trim_end(), format!(" # {HIDDEN}")),
        None => (value, String::new()),
    };
    let bare = value.strip_suffix(',').unwrap_or(value);
    let flat = match bare.chars().next() {
        Some('[') => bare[1..].strip_suffix(']').is_some_and(is_list),
        Some(quote @ ('"' | '\'')) => bare.len() > 1 && bare[1..].find(quote) == Some(bare.len() - 2),
        _ => !bare.contains(['[', ']', '{', '}', '"', '\'', ',']),
    };
    if flat && is_public(bare) {
        format!("{value}{comment}")
    } else {
        HIDDEN.to_owned()
    }
}

/// Nothing, or strings in quotes with commas between them.
fn is_list(inner: &str) -> bool {
    let is_string = |word: &str| {
        let inner = ['"', '\'']
            .into_iter()
            .find_map(|quote| word.strip_prefix(quote)?.strip_suffix(quote));
        inner.is_some_and(|inner| !inner.contains(['"', '\'', '[', ']', '{', '}']))
    };
    inner.trim().is_empty() || inner.split(',').map(str::trim).all(is_string)
}

/// Nothing in it is the end of a user and a password.
fn is_public(value: &str) -> bool {
    value.split('@').skip(1).all(|after| after.starts_with("sha256:"))
}

/// `"NAME=value"` of a unit's `Environment=`, one variable.
fn variable_in_quotes(value: &str) -> String {
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let quote = if inner.is_some() { "\"" } else { "" };
    let inner = inner.unwrap_or(value);
    match inner.split_once('=') {
        Some((name, value)) if !inner.contains('"') && is_variable(name) => {
            format!("{quote}{name}={}{quote}", variable(name, value))
        }
        _ => HIDDEN.to_owned(),
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Environment variables of which something may be read.
enum Variable {
    /// A proxy, with its user and password hidden.
    Proxy,
    /// A list of hosts or directories.
    Plain,
    /// The kubelet's flags.
    Flags,
}

impl Variable {
    fn of(name: &str) -> Option<Self> {
        match &*name.to_ascii_uppercase() {
            "HTTP_PROXY" | "HTTPS_PROXY" | "ALL_PROXY" => Some(Self::Proxy),
            "NO_PROXY" | "PATH" => Some(Self::Plain),
            _ => name.starts_with("KUBELET_").then_some(Self::Flags),
        }
    }
}

/// The value of an environment variable, as far as it may be read.
fn variable(name: &str, value: &str) -> String {
    let quoted = |quote: &'static str| Some((quote, value.strip_prefix(quote)?.strip_suffix(quote)?));
    let (quote, inner) = quoted("\"").or_else(|| quoted("'")).unwrap_or(("", value));
    let shown = match Variable::of(name) {
        Some(Variable::Proxy) => proxy(inner),
        Some(Variable::Plain) if is_public(inner) => inner.to_owned(),
        Some(Variable::Flags) => flags(inner),
        None if is_command_line(value) => flags(inner),
        Some(Variable::Plain) | None => return HIDDEN.to_owned(),
    };
    format!("{quote}{shown}{quote}")
}

/// The scheme, the host and the port of a proxy; some leave the scheme out.
fn proxy(value: &str) -> String {
    let schemes = ["http://", "https://", "socks5://", "socks5h://"];
    let scheme = schemes
        .into_iter()
        .find(|scheme| value.starts_with(scheme))
        .unwrap_or_default();
    let rest = &value[scheme.len()..];
    // The last sign, for a password may have one.
    let (user, address) = match rest.rsplit_once('@') {
        Some((_, address)) => (HIDDEN_USER, address),
        None => ("", rest),
    };
    if is_address(address.trim_end_matches('/')) {
        format!("{scheme}{user}{address}")
    } else {
        HIDDEN.to_owned()
    }
}

/// A command line: its program, its variables, and its flags.
fn command(value: &str) -> String {
    match value.split_once(' ') {
        Some((program, words)) if program.starts_with('/') => format!("{program} {}", flags(words)),
        None if value.starts_with('/') => value.to_owned(),
        _ => HIDDEN.to_owned(),
    }
}

/// A flag that may be read, in a variable of many lines.
fn is_flag(body: &str) -> bool {
    let name = body.strip_prefix("--").map(|flag| flag.split(['=', ' ']).next());
    name.flatten().is_some_and(|name| FLAGS.contains(&name))
}

/// Whether the value of a variable is a kubelet's command line, whatever the variable is called: its first word is a
/// flag, and one that may be read is among its words.
fn is_command_line(value: &str) -> bool {
    let inner = value.trim_matches(['"', '\'']);
    inner.starts_with("--") && inner.split(' ').any(is_flag)
}

/// Flags with the values of those that may be read.
pub fn flags(text: &str) -> String {
    let mut known = false;
    let words = text.split(' ').map(|word| {
        if word.is_empty() {
            return String::new();
        }
        let takes = std::mem::replace(&mut known, false);
        let inner = word.strip_prefix('"').and_then(|word| word.strip_suffix('"'));
        let inner = inner.filter(|inner| inner.starts_with("--") && !inner.contains('"'));
        if let Some(inner) = inner {
            return format!("\"{}\"", flags(inner));
        }
        let Some(flag) = word.strip_prefix("--") else {
            let variable = word
                .strip_prefix('$')
                .is_some_and(|name| is_variable(name.trim_matches(['{', '}'])));
            return if variable || word == "\\" || (takes && is_public(word)) {
                word.to_owned()
            } else {
                HIDDEN.to_owned()
            };
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        if name.is_empty()
            || !name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        {
            return HIDDEN.to_owned();
        }
        let shown = FLAGS.contains(&name);
        match value {
            Some(value) if shown && is_public(value) => format!("--{name}={value}"),
            Some(_) => format!("--{name}={HIDDEN}"),
            None => {
                known = shown;
                format!("--{name}")
            }
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_in_quotes_is_a_flag() {
        assert_eq!(
            flags("\"--node-ip=${NODE_IP}\" \"--token=a\" \"--x\"y\""),
            "\"--node-ip=${NODE_IP}\" \"--token=…\" …"
        );
    }

    #[test]
    fn what_transship_sets_is_shown_and_what_it_does_not_know_is_not() {
        for (text, shown) in [
            ("", ""),
            ("# password = \"x\"", "# …"),
            (
                "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"r.example:5000\".auth]",
                "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"r.example:5000\".auth]",
            ),
            ("[\"Bearer token\"]", "…"),
            (
                "  sandbox_image = \"k8s.gcr.io/pause:3.6\" # old",
                "  sandbox_image = \"k8s.gcr.io/pause:3.6\" # …",
            ),
            (
                "sandbox = \"r/pause@sha256:0123\"",
                "sandbox = \"r/pause@sha256:0123\"",
            ),
            ("sandbox = \"a\", password = \"b\"", "sandbox = …"),
            ("SystemdCgroup = true", "SystemdCgroup = true"),
            ("bin_dirs = [\"/opt/cni/bin\"]", "bin_dirs = [\"/opt/cni/bin\"]"),
            ("imports = [\"/a\"], headers = [\"b\"]", "imports = …"),
            ("password = \"x\"", "password = …"),
            (
                "\"r.example:5000\" = { auth = { username = \"u\", password = \"INLINEPW\" } }",
                "\"r.example:5000\" = …",
            ),
            ("Authorization = [\"Bearer HDRTOKEN\"]", "Authorization = …"),
            ("{\"auths\":{\"r\":{\"auth\":\"eDp5\"}}}", "…"),
            (
                "  \"exec-opts\": [\"native.cgroupdriver=systemd\"],",
                "  \"exec-opts\": [\"native.cgroupdriver=systemd\"],",
            ),
            ("  },", "  },"),
            ("eDp5cGFzcw==", "…"),
            ("registry_token: abc", "registry_token: …"),
            (
                "containerRuntimeEndpoint: unix:///run/a.sock",
                "containerRuntimeEndpoint: unix:///run/a.sock",
            ),
            ("- token=abc", "…"),
            ("- token: abc", "- token: …"),
            ("HTTPS_PROXY=me:s3cr3t@proxy:3128", "HTTPS_PROXY=…@proxy:3128"),
            (
                "http_proxy='http://me:p@s/s@proxy:3128/'",
                "http_proxy='http://…@proxy:3128/'",
            ),
            ("https_proxy=me:s3cr3t", "https_proxy=…"),
            (
                "Environment=\"HTTP_PROXY=http://me:pa:ss@[::1]:3128\"",
                "Environment=\"HTTP_PROXY=http://…@[::1]:3128\"",
            ),
            (
                "Environment=\"NO_PROXY=localhost,10.0.0.0/8\"",
                "Environment=\"NO_PROXY=localhost,10.0.0.0/8\"",
            ),
            ("Environment=\"A=b\" \"PATH=c\"", "Environment=…"),
            ("ExecStart=", "ExecStart="),
            (
                "ExecStart=/usr/bin/kubelet --v=2 --token=x --config /etc/k.yaml --other y $A",
                "ExecStart=/usr/bin/kubelet --v=2 --token=… --config /etc/k.yaml --other … $A",
            ),
            (
                "KUBELET_EXTRA_ARGS=\"--node-ip=10.0.0.1 --x='a b'\"",
                "KUBELET_EXTRA_ARGS=\"--node-ip=10.0.0.1 --x=… …\"",
            ),
            ("KUBELET_EXTRA_ARGS=", "KUBELET_EXTRA_ARGS="),
            ("TOKEN=abc", "…"),
            ("--node-ip=10.0.0.1 --x=y \\", "--node-ip=10.0.0.1 --x=… \\"),
            ("--x=y", "…"),
        ] {
            assert_eq!(line(text), shown);
        }
    }

    #[test]
    fn a_url_is_shown_without_what_signs_it() {
        for (url, shown) in [
            (
                "https://me:pw@mirror/a.tgz?X-Signature=abc#x",
                "https://…@mirror/a.tgz",
            ),
            ("file:///srv/a.tgz", "file:///srv/a.tgz"),
            ("https://h:8443/@a/b.tgz", "https://h:8443/@a/b.tgz"),
            ("http://me:p/w@h/x", "http://…"),
            ("http://me:p?w@h/x", "http://…"),
        ] {
            assert_eq!(public(url), shown);
        }
    }
}
