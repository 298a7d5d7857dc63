//! Certificates of registries that containerd and Docker have: CRI-O gets links to them, and reads Docker's where they lie.

use transship::{
    edit::hosts_toml,
    plan::{facts::Pem, step::LinkStep, words},
};

use super::{crio, *};

const OLD: &str = "/etc/pki/r.crt";
const RELATIVE: &str = "/etc/containerd/certs.d/s.example/own.crt";
const BOTH: &str = "/etc/containerd/certs.d/both.pem";
const CERTIFICATE: Pem = Pem {
    certificate: true,
    key: false,
};
const KEY: Pem = Pem {
    certificate: false,
    key: true,
};

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
cert_file = "/etc/pki/r.cert"
key_file = "/etc/pki/r.key"
"#;
    facts.containerd.as_mut().unwrap().effective = Some(text.to_owned());
    let mut named = registry("/etc/containerd/certs.d/s.example", &["hosts.toml", "own.crt"]);
    let hosts = "[host.\"https://m.s.example\"]\nca = \"own.crt\"\nclient = [\"../both.pem\", [\"/etc/pki/r.cert\", \"/etc/pki/r.key\"]]\n";
    named.said = hosts_toml::read(hosts);
    let lies = registry(
        "/etc/containerd/certs.d/t.example",
        &["a.crt", "b.crt", "client.cert", "client.key"],
    );
    facts.registry_directories = vec![named, lies];
    let of_both = Pem {
        certificate: true,
        key: true,
    };
    let inside = "/etc/containerd/certs.d/t.example";
    let all = [
        (OLD, CERTIFICATE),
        ("/etc/pki/r.cert", CERTIFICATE),
        ("/etc/pki/r.key", KEY),
        (RELATIVE, CERTIFICATE),
        (BOTH, of_both),
        (&format!("{inside}/a.crt"), CERTIFICATE),
        (&format!("{inside}/b.crt"), CERTIFICATE),
        (&format!("{inside}/client.cert"), CERTIFICATE),
        (&format!("{inside}/client.key"), KEY),
    ];
    facts.registry_pems = all.map(|(name, pem)| (path(name), pem)).into();
    facts
}

fn asked() -> Request {
    let mut request = fixtures::from_archive(Runtime::CriO);
    request.preflight.allow = vec!["NftMissing".to_owned()];
    request
}

/// The links of a plan, each with its file.
fn links(facts: &Facts) -> Vec<(String, String)> {
    let mut request = asked();
    request.preflight.allow.push("SettingNotCarried".to_owned());
    let outcome = plan(facts, &request);
    let steps = &outcome
        .plan()
        .unwrap_or_else(|| panic!("{:?}", outcome.findings))
        .steps;
    let links = steps.iter().filter_map(|planned| match &planned.does {
        Step::Link(LinkStep { path, to, .. }) => Some((path.to_string(), to.to_string())),
        _ => None,
    });
    links.collect()
}

fn codes(facts: &Facts, subject: &str) -> Vec<String> {
    let found = about(facts, &asked(), subject).into_iter();
    found.map(|finding| finding.code).collect()
}

#[test]
fn certificates_of_containerd_come_along_to_cri_o_as_links() {
    let facts = on_containerd();
    let inside = "/etc/containerd/certs.d/t.example";
    let wanted = [
        ("m.s.example/transship.crt", RELATIVE),
        ("m.s.example/transship.cert", BOTH),
        ("m.s.example/transship.key", BOTH),
        ("m.s.example/transship-2.cert", "/etc/pki/r.cert"),
        ("m.s.example/transship-2.key", "/etc/pki/r.key"),
        ("t.example/transship.crt", &format!("{inside}/a.crt")),
        ("t.example/transship-2.crt", &format!("{inside}/b.crt")),
        ("t.example/transship.cert", &format!("{inside}/client.cert")),
        ("t.example/transship.key", &format!("{inside}/client.key")),
        ("r.example:5000/transship.crt", OLD),
        ("r.example:5000/transship.cert", "/etc/pki/r.cert"),
        ("r.example:5000/transship.key", "/etc/pki/r.key"),
    ];
    let wanted = wanted.map(|(name, to)| (format!("/etc/containers/certs.d/{name}"), to.to_owned()));
    assert_eq!(links(&facts), wanted);
    assert_eq!(codes(&facts, "registry.configs.tls"), ["SettingCarried"]);
    assert_eq!(codes(&facts, "certs.d"), ["SettingCarried"]);
    let request = asked();
    let outcome = plan(&facts, &request);
    let diff = words::diff(outcome.plan().unwrap(), &facts);
    let line = "# /etc/containers/certs.d/t.example/transship.key: a link to /etc/containerd/certs.d/t.example/client.key\n";
    assert!(diff.contains(line), "{diff}");
}

#[test]
fn links_that_are_there_are_left_and_others_of_ours_are_changed() {
    let mut facts = on_containerd();
    let mut there = registry(
        "/etc/containers/certs.d/r.example:5000",
        &["transship.crt", "transship.cert", "transship.key"],
    );
    for (name, to) in [("transship.crt", OLD), ("transship.cert", "/etc/pki/old.cert")] {
        there.links.insert(name.to_owned(), to.to_owned());
    }
    facts.registry_directories.push(there);
    let names: Vec<String> = links(&facts).into_iter().map(|(path, _)| path).collect();
    assert!(
        !names.iter().any(|name| name.contains("r.example:5000")),
        "{names:?}"
    );
    // The key is a file of somebody's own.
    let remedy = &about(&facts, &asked(), "registry.configs.tls")[0].remedy;
    let wanted = "/etc/pki/r.cert to /etc/containers/certs.d/r.example:5000/client.cert and /etc/pki/r.key to \
                  /etc/containers/certs.d/r.example:5000/client.key";
    assert!(remedy.contains(wanted), "{remedy}");
    let there = facts.registry_directories.last_mut().unwrap();
    there
        .links
        .insert("transship.key".to_owned(), "/etc/pki/r.key".to_owned());
    let names: Vec<String> = links(&facts).into_iter().map(|(path, _)| path).collect();
    let changed = "/etc/containers/certs.d/r.example:5000/transship.cert";
    assert!(names.iter().any(|name| name == changed), "{names:?}");
    assert!(
        !names.iter().any(|name| name.ends_with("5000/transship.key")),
        "{names:?}"
    );
}

/// A file that is not there, cannot be read, or has no key.
#[test]
fn certificates_that_cannot_be_linked_are_told() {
    let mut facts = on_containerd();
    facts.registry_pems.remove(&path(OLD));
    facts.registry_pems.insert(path("/etc/pki/r.key"), CERTIFICATE);
    let found = about(&facts, &asked(), "registry.configs.tls");
    let place = "/etc/containers/certs.d/r.example:5000";
    let wanted = format!(
        "{OLD} to {place}/ca.crt, /etc/pki/r.cert to {place}/client.cert and /etc/pki/r.key to {place}/client.key"
    );
    assert_eq!(found.len(), 1);
    assert!(found[0].remedy.contains(&wanted), "{found:?}");
    assert_eq!(codes(&facts, "certs.d"), ["SettingNotCarried", "SettingCarried"]);
}

/// CRI-O looks for the directory of Docker Hub by its name in the names of images.
#[test]
fn an_authority_of_docker_hub_has_its_directory() {
    let mut facts = on_containerd();
    facts.registry_directories = vec![registry("/etc/containerd/certs.d/docker.io", &["ca.crt"])];
    let file = path("/etc/containerd/certs.d/docker.io/ca.crt");
    facts.registry_pems.insert(file.clone(), CERTIFICATE);
    let wanted = "/etc/containers/certs.d/docker.io/transship.crt".to_owned();
    assert!(links(&facts).contains(&(wanted, file.to_string())));
}

/// CRI-O reads Docker's directory, where there is none of its own.
#[test]
fn certificates_in_dockers_directory_need_no_link() {
    let mut facts = on_containerd();
    let containerd = facts.containerd.as_mut().unwrap();
    let text = containerd.effective.take().unwrap();
    containerd.effective = Some(text.replace("/etc/containerd/certs.d", "/etc/docker/certs.d"));
    facts.registry_directories = vec![registry("/etc/docker/certs.d/t.example", &["ca.crt"])];
    let file = path("/etc/docker/certs.d/t.example/ca.crt");
    facts.registry_pems.insert(file.clone(), CERTIFICATE);
    assert!(links(&facts).iter().all(|(path, _)| path.contains("r.example")));
    assert_eq!(codes(&facts, "certs.d"), ["SettingCarried"]);
    let own = registry("/etc/containers/certs.d/t.example", &["own.crt"]);
    facts.registry_directories.push(own);
    let wanted = "/etc/containers/certs.d/t.example/transship.crt".to_owned();
    assert!(links(&facts).contains(&(wanted, file.to_string())));
}

#[test]
fn cri_o_reads_dockers_certificates_by_itself() {
    let mut facts = crio::with_crio();
    facts.registry_directories = vec![registry("/etc/docker/certs.d/r.example", &["ca.crt"])];
    let about = |facts: &Facts| about(facts, &fixtures::to(Runtime::CriO), "certs.d");
    let found = about(&facts);
    assert_eq!(found[0].code, "DockerSettingCarried");
    assert!(
        found[0].message.contains("CRI-O reads /etc/docker/certs.d"),
        "{found:?}"
    );
    let own = registry("/etc/containers/certs.d/r.example", &["own.crt"]);
    facts.registry_directories.push(own);
    let found = about(&facts);
    assert_eq!(found[0].code, "DockerSettingNotCarried");
    assert!(
        found[0].remedy.contains("/etc/docker/certs.d for r.example"),
        "{found:?}"
    );
}

/// Links of an earlier plan lead to what containerd has anyway.
#[test]
fn links_of_an_earlier_plan_are_left_without_a_word() {
    let mut facts = crio::on_crio();
    let text = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = '/etc/containerd/certs.d'\n";
    facts.containerd.as_mut().unwrap().effective = Some(text.to_owned());
    let mut there = registry("/etc/containerd/certs.d/r.example", &["hosts.toml", "own.crt"]);
    there.said = hosts_toml::read("server = \"https://r.example\"\nca = \"own.crt\"\n");
    there.hosts = Some(Digest::of("another file"));
    let mut ours = registry("/etc/containers/certs.d/r.example", &["transship.crt"]);
    let to = "/etc/containerd/certs.d/r.example/own.crt";
    ours.links.insert("transship.crt".to_owned(), to.to_owned());
    facts.registry_directories = vec![there, ours];
    let request = fixtures::to(Runtime::Containerd);
    assert_eq!(of(&facts, &request, "RegistryCertificates"), []);
    facts.registry_directories[1].files.push("own.crt".to_owned());
    assert_eq!(of(&facts, &request, "RegistryCertificates").len(), 1);
}
