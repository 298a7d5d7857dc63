//! Settings of registries of CRI-O and of all tools of containers/image: `registries.conf` and the files of
//! `registries.conf.d` (containers-registries.conf(5)). They hold no credentials.

use toml_edit::{Item, Table, TableLike, Value};

use super::{
    hosts_toml::{DOCKER, DOCKER_REGISTRY, is_host},
    parse,
};

/// What files say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistriesConf {
    /// Registries with the URLs that are asked for their images before the registry itself, with the paths of their APIs.
    pub mirrors: Vec<(String, Vec<String>)>,
    /// Registries whose images are in another place, with the URL of that, as mirrors have it.
    pub moved: Vec<(String, String)>,
    /// Hosts whose certificate is not checked, and that are asked over plain HTTP after that.
    pub insecure: Vec<String>,
    /// Where images without a registry in their name are looked for.
    pub search: Vec<String>,
    /// Names without a registry that stand for images of another one than Docker Hub.
    pub aliases: Vec<String>,
    /// What else stands there, in words, with what to do.
    pub other: Vec<String>,
}

impl RegistriesConf {
    /// Takes in a file. What is no TOML says nothing.
    pub fn read(&mut self, text: &str) {
        let Ok(document) = parse::toml(text) else { return };
        let texts = |key: &str| -> Vec<String> {
            let list = document.get(key).and_then(Item::as_array).into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let search = texts("unqualified-search-registries");
        if !search.is_empty() {
            self.search = search;
        }
        let aliases = document.get("aliases").and_then(Item::as_table_like);
        for (name, image) in aliases.into_iter().flat_map(TableLike::iter) {
            let image = image.as_str().unwrap_or_default();
            if !image.is_empty() && !image.starts_with("docker.io/") {
                self.aliases.push(name.to_owned());
            }
        }
        let helpers = texts("credential-helpers");
        if helpers.iter().any(|name| name != "containers-auth.json") {
            self.other.push(format!(
                "credential-helpers ({}): give pods imagePullSecrets",
                helpers.join(", ")
            ));
        }
        if document.get("registries").is_some() {
            let v1 = "tables of version 1 (registries.search, .insecure, .block): write them as [[registry]]";
            self.other.push(v1.to_owned());
        }
        let tables = document.get("registry").and_then(Item::as_array_of_tables);
        for table in tables.into_iter().flat_map(|tables| tables.iter()) {
            self.registry(table);
        }
    }

    fn registry(&mut self, table: &Table) {
        let text = |key: &str| {
            table
                .get(key)
                .and_then(Item::as_str)
                .filter(|text| !text.is_empty())
        };
        let is_on = |key: &str| table.get(key).and_then(Item::as_bool) == Some(true);
        let Some(name) = text("prefix").or_else(|| text("location")) else {
            return;
        };
        let location = text("location").unwrap_or(name);
        if is_on("blocked") {
            let what = format!("{name} is blocked: keep its images out where pods are admitted");
            self.other.push(what);
            return;
        }
        if name.starts_with("*.") {
            let what = format!("{name} stands for many registries: name each one whose images pods use");
            self.other.push(what);
            return;
        }
        // Docker Hub by the name of its host, as Kubespray writes it.
        let is_itself = location == name || (name == DOCKER && location == DOCKER_REGISTRY);
        if !is_host(name) {
            self.other.push(if is_itself {
                format!(
                    "{name} is a part of a registry: let the whole registry have the setting, or do without"
                )
            } else {
                format!("{name} is looked for in {location}: let pods name {location}")
            });
            return;
        }
        if !is_itself {
            let Some((host, url)) = url_of(location) else {
                let what = format!("{name} is looked for in {location}: let pods name {location}");
                self.other.push(what);
                return;
            };
            self.moved.push((name.to_owned(), url));
            if is_on("insecure") {
                self.insecure.push(host);
            }
        } else if is_on("insecure") {
            self.insecure.push(name.to_owned());
        }
        let mut urls = Vec::new();
        for mirror in mirrors(table) {
            let at = mirror.get("location").and_then(Item::as_str).unwrap_or_default();
            let is_for_all = matches!(
                mirror.get("pull-from-mirror").and_then(Item::as_str),
                None | Some("all" | "")
            );
            let Some((host, url)) = url_of(at).filter(|_| is_for_all) else {
                let what =
                    format!("the mirror {at} of {name}: use one for all pulls, by a name with no user");
                self.other.push(what);
                continue;
            };
            let plain = url.replacen("https", "http", 1);
            urls.push(url);
            if mirror.get("insecure").and_then(Item::as_bool) == Some(true) {
                urls.push(plain);
                self.insecure.push(host);
            }
        }
        if !urls.is_empty() {
            self.mirrors.push((name.to_owned(), urls));
        }
    }
}

/// The host of a location, and its URL with the path of its API: what stands behind the host comes before the name of the image, which
/// comes after `/v2`.
fn url_of(location: &str) -> Option<(String, String)> {
    let at = location.trim_end_matches('/');
    let (host, path) = at.split_at(at.find('/').unwrap_or(at.len()));
    let below = if path.is_empty() { "" } else { "/v2" };
    is_host(host).then(|| (host.to_owned(), format!("https://{host}{below}{path}")))
}

/// The mirrors of a registry, as tables of their own or in one line.
fn mirrors(registry: &Table) -> Vec<&dyn TableLike> {
    let item = registry.get("mirror");
    if let Some(tables) = item.and_then(Item::as_array_of_tables) {
        return tables.iter().map(|table| table as &dyn TableLike).collect();
    }
    let list = item.and_then(Item::as_array).into_iter().flatten();
    list.filter_map(Value::as_inline_table)
        .map(|table| table as &dyn TableLike)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_read_as_containers_image_reads_them() {
        let mut found = RegistriesConf::default();
        found.read("unqualified-search-registries = [\"quay.io\"]\ncredential-helpers = [\"containers-auth.json\"]\n");
        found.read(
            r#"
[aliases]
fedora = "registry.fedoraproject.org/fedora"
busybox = "docker.io/library/busybox"
[[registry]]
prefix = "docker.io"
location = "registry-1.docker.io"
[[registry.mirror]]
location = "m.example"
[[registry.mirror]]
location = "10.1.2.3:5000"
insecure = true
[[registry.mirror]]
location = "p.example/hub"
[[registry.mirror]]
location = "d.example"
pull-from-mirror = "digest-only"
[[registry]]
prefix = "r.example:5000"
insecure = true
[[registry]]
prefix = "example.com/foo"
location = "internal.example/bar"
[[registry]]
prefix = "old.example"
location = "new.example/old"
insecure = true
[[registry]]
prefix = "q.example/part"
insecure = true
[[registry]]
prefix = "*.w.example"
location = "w.example"
[[registry]]
location = "bad.example"
blocked = true
"#,
        );
        let text = |text: &str| text.to_owned();
        let urls = [
            "https://m.example",
            "https://10.1.2.3:5000",
            "http://10.1.2.3:5000",
            "https://p.example/v2/hub",
        ]
        .map(text);
        let wanted = RegistriesConf {
            mirrors: vec![(text("docker.io"), urls.to_vec())],
            moved: vec![(text("old.example"), text("https://new.example/v2/old"))],
            insecure: vec![text("10.1.2.3:5000"), text("r.example:5000"), text("new.example")],
            search: vec![text("quay.io")],
            aliases: vec![text("fedora")],
            other: vec![
                text("the mirror d.example of docker.io: use one for all pulls, by a name with no user"),
                text(
                    "example.com/foo is looked for in internal.example/bar: let pods name internal.example/bar",
                ),
                text(
                    "q.example/part is a part of a registry: let the whole registry have the setting, or do without",
                ),
                text("*.w.example stands for many registries: name each one whose images pods use"),
                text("bad.example is blocked: keep its images out where pods are admitted"),
            ],
        };
        assert_eq!(found, wanted);
        found.read("= no");
        assert_eq!(found, wanted);
    }

    #[test]
    fn fuzz_registries() {
        use crate::fuzz::{hold, samples};

        hold(&samples("registries-conf", &[]), |text| {
            let mut found = RegistriesConf::default();
            found.read(text);
            assert!(found.insecure.iter().all(|host| is_host(host)));
        });
    }
}
