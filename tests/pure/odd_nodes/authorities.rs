//! Certificates of registries that containerd has: CRI-O gets those of authorities, and a person is told the rest.

use transship::{edit::hosts_toml, plan::facts::MaybeFile};

use super::{crio, *};

const OLD: &str = "/etc/pki/r.crt";
const RELATIVE: &str = "/etc/containerd/certs.d/s.example/own.crt";
const LIES: &str = "/etc/containerd/certs.d/t.example/ca.crt";

/// One in the form of 1.x, one in a `hosts.toml`, and one that lies there as Docker has it.
fn on_containerd() -> Facts {
    let mut facts = crio::on_containerd();
    let text = r#"version = 3
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "registry.k8s.io/pause:3.10.2"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "/etc/containerd/certs.d"
[plugins."io.containerd.cri.v1.images".registry.configs."r.example:5000".tls]
ca_file = "/etc/pki/r.crt"
"#;
    facts.containerd.as_mut().unwrap().effective = Some(text.to_owned());
    let mut named = registry("/etc/containerd/certs.d/s.example", &["hosts.toml", "own.crt"]);
    named.said = hosts_toml::read("[host.\"https://m.s.example\"]\nca = \"own.crt\"\n");
    let lies = registry(
        "/etc/containerd/certs.d/t.example",
        &["ca.crt", "client.cert", "client.key"],
    );
    facts.registry_directories = vec![named, lies];
    for name in [OLD, RELATIVE, LIES] {
        facts.files.push(MaybeFile {
            path: path(name),
            file: Some(file(name, &format!("-----BEGIN CERTIFICATE-----\n{name}\n"))),
        });
    }
    facts
}

fn to_crio() -> Request {
    let mut request = fixtures::from_archive(Runtime::CriO);
    request.preflight.allow = ["SettingNotCarried", "NftMissing"].map(str::to_owned).to_vec();
    request
}

#[test]
fn authorities_of_containerd_come_along_to_cri_o() {
    let facts = on_containerd();
    for (host, from) in [
        ("r.example:5000", OLD),
        ("m.s.example", RELATIVE),
        ("t.example", LIES),
    ] {
        let at = format!("/etc/containers/certs.d/{host}/transship.crt");
        let text = written(&facts, &to_crio(), &at).unwrap_or_else(|| panic!("{at} is not written"));
        assert!(text.contains(from), "{text}");
    }
    let codes = |subject: &str| -> Vec<String> {
        let found = about(&facts, &fixtures::from_archive(Runtime::CriO), subject);
        found
            .into_iter()
            .map(|finding| finding.code.to_string())
            .collect()
    };
    assert_eq!(codes("registry.configs.tls"), ["SettingCarried"]);
    // The client's key.
    assert_eq!(codes("certs.d"), ["SettingNotCarried", "SettingCarried"]);
}

#[test]
fn authorities_that_are_there_are_left() {
    let mut facts = on_containerd();
    let at = "/etc/containers/certs.d/t.example/transship.crt";
    let text = written(&facts, &to_crio(), at).unwrap();
    facts.files.push(MaybeFile {
        path: path(at),
        file: Some(file(at, &text)),
    });
    assert_eq!(written(&facts, &to_crio(), at), None);
}

/// A file that is not there, or holds a private key, was not read.
#[test]
fn authorities_that_are_not_known_are_told() {
    let mut facts = on_containerd();
    facts.files.retain(|file| file.path.as_str() != OLD);
    let request = fixtures::from_archive(Runtime::CriO);
    let found = about(&facts, &request, "registry.configs.tls");
    let wanted = "/etc/pki/r.crt to /etc/docker/certs.d/r.example:5000/ca.crt";
    assert!(found[0].remedy.contains(wanted), "{found:?}");
}
