//! containerd's files for registries: `hosts.toml` in a directory with the registry's name (`docs/hosts.md` of containerd).

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use toml_edit::{Array, Item, TableLike, Value};

use super::parse;

/// Everybody may read the files, as those that containerd's manual writes.
pub const MODE: u32 = 0o644;
/// The registry behind docker.io.
pub const DOCKER_REGISTRY: &str = "registry-1.docker.io";
/// The name of Docker Hub in the names of images.
pub const DOCKER: &str = "docker.io";

/// An address that is tried for a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `http` or `https`.
    pub scheme: String,
    /// Host, with its port if there is one.
    pub host: String,
    /// With its leading slash; empty for the API's own.
    pub path: String,
}

impl Endpoint {
    /// An address without a path.
    pub fn new(scheme: &str, host: &str) -> Self {
        Self {
            scheme: scheme.to_owned(),
            host: host.to_owned(),
            path: String::new(),
        }
    }

    /// The address as one text.
    pub fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.host, self.path)
    }
}

/// What is needed for a connection, without credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The certificate of the registry is not checked.
    pub skip_verify: bool,
    /// Files with certificates of authorities.
    pub ca: Vec<String>,
    /// Files with a client's certificate and its key.
    pub client: Vec<(String, String)>,
}

impl Tls {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The line that names the registry itself, which is tried last.
pub fn server(endpoint: &Endpoint) -> String {
    let path = if endpoint.path.is_empty() {
        ""
    } else {
        "override_path = true\n"
    };
    format!("server = {}\n{path}", quoted(&endpoint.url()))
}

/// The table of one address. `tls` is written for `https` alone: with it a plain registry would be tried over TLS first.
pub fn host(endpoint: &Endpoint, tls: Option<&Tls>) -> String {
    let mut text = format!("[host.{}]\n", quoted(&endpoint.url()));
    text.push_str("  capabilities = [\"pull\", \"resolve\"]\n");
    if !endpoint.path.is_empty() {
        text.push_str("  override_path = true\n");
    }
    let Some(tls) = tls.filter(|_| endpoint.scheme == "https") else {
        return text;
    };
    if tls.skip_verify {
        text.push_str("  skip_verify = true\n");
    }
    match &tls.ca[..] {
        [] => {}
        [one] => {
            let _ = writeln!(text, "  ca = {}", quoted(one));
        }
        more => {
            let _ = writeln!(text, "  ca = {}", Value::from(Array::from_iter(more)));
        }
    }
    if !tls.client.is_empty() {
        let pairs = tls.client.iter().map(|(cert, key)| Array::from_iter([cert, key]));
        let _ = writeln!(text, "  client = {}", Value::from(Array::from_iter(pairs)));
    }
    text
}

/// A URL with the path of its API, which is left out where it is the usual one (`/v2`).
pub fn api(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find('/').map_or(url.len(), |at| start + at);
    let (address, path) = url.split_at(end);
    match path.trim_end_matches('/') {
        "" | "/v2" => address.to_owned(),
        path => format!("{address}{path}"),
    }
}

/// The same of a URL of which the path is one before `/v2`, unless it ends with that (`hosts.go` in `core/remotes/docker/config` of
/// containerd).
fn api_below(url: &str) -> String {
    let api = api(url);
    let has_path = api.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    if has_path && !api.ends_with("/v2") {
        format!("{api}/v2")
    } else {
        api
    }
}

/// A host with or without a port, which is safe as the name of a directory.
pub fn is_host(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    !text.is_empty() && !text.starts_with('.') && text.len() < 256 && text.chars().all(allowed)
}

/// Such a host by a name or an address of IPv4: containerd 1.x reads no address of IPv6 in these files, and names of images have none.
pub fn is_named_host(text: &str) -> bool {
    is_host(text) && !text.contains('[')
}

/// A path of a file, which may be one from the directory of the file on, as containerd joins them (`makeAbsPath` in `hosts.go`).
pub fn absolute(path: &str, directory: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    let mut parts: Vec<&str> = directory.split('/').collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.len() > 1 => drop(parts.pop()),
            ".." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// What a file says, without what may be a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Said {
    /// The registry itself, where it is another one than the directory is named after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Addresses that are asked, in the order of the file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
    /// Headers are sent, or an address has a user.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub secrets: bool,
}

/// An address that is asked for the images of a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Address {
    /// Its URL, with the path of its API as [`api`] has it; empty for the registry that the directory is named after.
    pub url: String,
    /// Its certificate is not checked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skip_verify: bool,
    /// Files with the certificates of authorities against which it is checked; a path may be one below the file's directory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ca: Vec<String>,
    /// Files with the certificate of a client and its key, by such paths: twice the same where one file has both.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub client: Vec<(String, String)>,
}

impl Address {
    /// What a table says of one.
    fn read(url: String, table: &dyn TableLike) -> Self {
        let ca = table.get("ca").and_then(Item::as_value);
        let paths = ca.map(|ca| match ca.as_array() {
            Some(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            None => ca.as_str().map(str::to_owned).into_iter().collect(),
        });
        Self {
            url,
            skip_verify: is_on(table, "skip_verify"),
            ca: paths.unwrap_or_default(),
            client: table.get("client").map(clients).unwrap_or_default(),
        }
    }

    /// Whether certificates are named for it.
    pub const fn has_certificates(&self) -> bool {
        !self.client.is_empty() || !self.ca.is_empty()
    }
}

/// The pairs of `client`: one file with both, or a list of such files and of pairs (`parseHostConfig` in `hosts.go`, which refuses
/// the whole file with anything else).
fn clients(item: &Item) -> Vec<(String, String)> {
    let both = |file: &str| (file.to_owned(), file.to_owned());
    let pair = |value: &Value| match value.as_array() {
        Some(pair) => match &pair.iter().filter_map(Value::as_str).collect::<Vec<_>>()[..] {
            [cert, ""] => Some(both(cert)),
            [cert, key] => Some(((*cert).to_owned(), (*key).to_owned())),
            _ => None,
        },
        None => value.as_str().map(both),
    };
    match item.as_array() {
        Some(list) => list.iter().filter_map(pair).collect(),
        None => item.as_str().map(both).into_iter().collect(),
    }
}

fn has(table: &dyn TableLike, key: &str) -> bool {
    table.get(key).is_some_and(|item| !item.is_none())
}

fn is_on(table: &dyn TableLike, key: &str) -> bool {
    table.get(key).and_then(Item::as_bool) == Some(true)
}

/// Reads a file; `None` if it is no TOML.
pub fn read(text: &str) -> Option<Said> {
    let document = parse::toml(text).ok()?;
    let mut said = Said::default();
    let root = document.as_table();
    said.secrets |= has(root, "header");
    let server = document.get("server").and_then(Item::as_str).unwrap_or_default();
    let api = |table: &dyn TableLike, url: &str| {
        if is_on(table, "override_path") {
            api(url)
        } else {
            api_below(url)
        }
    };
    if server.contains('@') {
        said.secrets = true;
    } else if !server.is_empty() {
        said.server = Some(api(root, server));
    }
    // Without a server these are settings of the registry that the directory is named after.
    let url = said.server.clone().unwrap_or_default();
    let itself = Address::read(url, root);
    if itself.skip_verify || itself.has_certificates() {
        said.addresses.push(itself);
    }
    let hosts = document.get("host").and_then(Item::as_table_like);
    for (url, host) in hosts.into_iter().flat_map(TableLike::iter) {
        let Some(host) = host.as_table_like() else {
            continue;
        };
        said.secrets |= has(host, "header");
        if url.contains('@') {
            said.secrets = true;
            continue;
        }
        said.addresses.push(Address::read(api(host, url), host));
    }
    Some(said)
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_without_its_secrets() {
        let text = "server = \"https://registry-1.docker.io\"\n[host.\"https://m.example\"]\n  skip_verify = true\n  ca = \"/a.crt\"\n\
            [host.\"https://m.example\".header]\n  authorization = \"secret\"\n[host.\"https://me:pw@n.example\"]\n";
        let said = read(text).unwrap();
        let address = Address {
            url: "https://m.example".to_owned(),
            skip_verify: true,
            ca: vec!["/a.crt".to_owned()],
            client: Vec::new(),
        };
        let wanted = Said {
            server: Some("https://registry-1.docker.io".to_owned()),
            addresses: vec![address],
            secrets: true,
        };
        assert_eq!(said, wanted);
        assert_eq!(read("= no"), None);
    }

    #[test]
    fn fuzz_hosts() {
        use crate::fuzz::{hold, samples};

        hold(&samples("hosts-toml", &[]), |text| {
            let said = read(text).unwrap_or_default();
            assert!(said.addresses.iter().all(|address| !address.url.contains('@')));
        });
    }

    #[test]
    fn the_certificates_of_clients_are_pairs_or_one_file() {
        for (text, wanted) in [
            ("\"c.pem\"", &[("c.pem", "c.pem")][..]),
            (
                "[\"c.pem\", [\"/a/d.cert\", \"../d.key\"], [\"e.pem\", \"\"]]",
                &[("c.pem", "c.pem"), ("/a/d.cert", "../d.key"), ("e.pem", "e.pem")],
            ),
            ("[[\"c.pem\"]]", &[]),
            ("1", &[]),
        ] {
            let said = read(&format!("[host.\"https://m.example\"]\nclient = {text}\n")).unwrap();
            let wanted: Vec<_> = wanted
                .iter()
                .map(|(cert, key)| ((*cert).to_owned(), (*key).to_owned()))
                .collect();
            assert_eq!(said.addresses[0].client, wanted, "{text}");
        }
        for (path, wanted) in [
            ("a.key", "/d/r/a.key"),
            ("./k/a.key", "/d/r/k/a.key"),
            ("../a.key", "/d/a.key"),
            ("/a.key", "/a.key"),
        ] {
            assert_eq!(absolute(path, "/d/r"), wanted);
        }
    }

    #[test]
    fn a_url_has_the_path_of_its_api() {
        for (url, override_path, wanted) in [
            ("https://m.example", false, "https://m.example"),
            ("https://m.example/v2/", false, "https://m.example"),
            ("https://m.example/hub", false, "https://m.example/hub/v2"),
            ("https://m.example/hub/v2", false, "https://m.example/hub/v2"),
            ("https://m.example/v2/hub", true, "https://m.example/v2/hub"),
            ("m.example/v2/hub", true, "m.example/v2/hub"),
        ] {
            let said = read(&format!("[host.\"{url}\"]\noverride_path = {override_path}\n"));
            assert_eq!(said.unwrap().addresses[0].url, wanted);
        }
    }

    #[test]
    fn a_table_names_what_the_connection_needs() {
        let tls = Tls {
            skip_verify: true,
            ca: vec!["/a/1.crt".into(), "/a/2.crt".into()],
            client: vec![("/a/c.cert".into(), "/a/c.key".into())],
        };
        let endpoint = Endpoint::new("https", "r.example:5000");
        assert_eq!(
            host(&endpoint, Some(&tls)),
            "[host.\"https://r.example:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  skip_verify = true\n  \
             ca = [\"/a/1.crt\", \"/a/2.crt\"]\n  client = [[\"/a/c.cert\", \"/a/c.key\"]]\n"
        );
        let plain = Endpoint::new("http", "r.example:5000");
        assert_eq!(
            host(&plain, Some(&tls)),
            "[host.\"http://r.example:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
        );
    }
}
