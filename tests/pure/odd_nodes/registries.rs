//! Settings of registries: Docker's mirrors, registries without a valid certificate, and certificates.

use super::*;

const HUB: &str = "/etc/containerd/certs.d/docker.io/hosts.toml";
const PATH: &str = "config_path = \"/etc/containerd/certs.d\"\n";

/// What cannot come along is accepted.
fn to_containerd() -> Request {
    let mut request = super::to_containerd();
    request.preflight.allow = vec!["DockerSettingNotCarried".to_owned()];
    request
}

/// The messages about a setting that is carried, approximated or not carried.
fn fates(facts: &Facts, name: &str) -> Vec<(String, String)> {
    let start = format!("Docker's {name}");
    let found = findings(facts, &super::to_containerd()).into_iter();
    found
        .filter(|finding| finding.message.starts_with(&start))
        .map(|finding| {
            (
                finding.code.clone(),
                format!("{} {}", finding.message, finding.remedy),
            )
        })
        .collect()
}

#[test]
fn mirrors_are_asked_for_docker_hub() {
    let mut facts = lab();
    daemon_json(
        &mut facts,
        r#"{"registry-mirrors": ["https://m.example/", "https://m.example", "http://10.1.2.3:5000", "https://p.example/docker/hub/"]}"#,
    );
    docker(&mut facts)
        .service
        .exec_start
        .push("--registry-mirror=https://second.example".to_owned());
    facts.registry_directories = vec![registry(
        "/etc/docker/certs.d/m.example",
        &["ca.crt", "own.cert", "own.key"],
    )];
    assert_eq!(
        written(&facts, &to_containerd(), HUB).unwrap(),
        r#"# Written by Transship: registry-mirrors of Docker.
server = "https://registry-1.docker.io"

[host."https://m.example"]
  capabilities = ["pull", "resolve"]
  ca = "/etc/docker/certs.d/m.example/ca.crt"
  client = [["/etc/docker/certs.d/m.example/own.cert", "/etc/docker/certs.d/m.example/own.key"]]

[host."http://10.1.2.3:5000"]
  capabilities = ["pull", "resolve"]

[host."https://p.example/docker/hub/v2"]
  capabilities = ["pull", "resolve"]
  override_path = true

[host."https://second.example"]
  capabilities = ["pull", "resolve"]
"#
    );
    assert!(written(&facts, &to_containerd(), CONFIG).unwrap().contains(PATH));
    let [(code, text)] = &fates(&facts, "registry-mirrors")[..] else {
        panic!("{:?}", fates(&facts, "registry-mirrors"))
    };
    assert!(
        code == "DockerSettingCarried" && text.contains("https://second.example"),
        "{text}"
    );
    // What is named must be what containerd reads in the end.
    let outcome = plan(&facts, &to_containerd());
    let wanted = outcome
        .plan()
        .unwrap()
        .steps
        .iter()
        .find_map(|step| match &step.does {
            Step::Await(wait) => wait.configuration.clone(),
            _ => None,
        });
    assert_eq!(
        wanted.unwrap().carried.registries.as_deref(),
        Some("/etc/containerd/certs.d")
    );
}

/// Docker tries TLS, then plain HTTP; containerd has no networks.
#[test]
fn insecure_registries_are_tried_both_ways() {
    let mut facts = lab();
    daemon_json(
        &mut facts,
        r#"{"insecure-registries": ["HTTP://r.example:5000", "10.0.0.0/8", "docker.io"]}"#,
    );
    let hosts = |facts: &Facts, host: &str| {
        written(
            facts,
            &to_containerd(),
            &format!("/etc/containerd/certs.d/{host}/hosts.toml"),
        )
    };
    assert_eq!(
        hosts(&facts, "r.example:5000").unwrap(),
        r#"# Written by Transship: insecure-registries of Docker.
server = "https://r.example:5000"

[host."https://r.example:5000"]
  capabilities = ["pull", "resolve"]
  skip_verify = true

[host."http://r.example:5000"]
  capabilities = ["pull", "resolve"]
"#
    );
    let found = fates(&facts, "insecure-registries");
    let codes: Vec<&str> = found.iter().map(|(code, _)| code.as_str()).collect();
    assert_eq!(codes, ["DockerSettingApproximated", "DockerSettingCarried"]);
    assert!(found[0].1.contains("by an address in 10.0.0.0/8"), "{found:?}");
    // The registries of this node's images are known.
    let image = facts
        .docker
        .as_mut()
        .unwrap()
        .engine
        .as_mut()
        .unwrap()
        .store
        .images
        .first_mut();
    image.unwrap().names.push("10.9.8.7:5000/team/app:1".to_owned());
    assert!(
        hosts(&facts, "10.9.8.7:5000")
            .unwrap()
            .contains("skip_verify = true")
    );
    let found = fates(&facts, "insecure-registries");
    let codes: Vec<&str> = found.iter().map(|(code, _)| code.as_str()).collect();
    assert_eq!(
        codes,
        ["DockerSettingApproximated", "DockerSettingCarried"],
        "{found:?}"
    );
    assert!(found[0].1.contains("10.9.8.7:5000"), "{found:?}");
}

#[test]
fn what_is_written_already_is_not_written_again_and_what_others_wrote_stays() {
    let mut facts = lab();
    daemon_json(&mut facts, r#"{"registry-mirrors": ["https://m.example"]}"#);
    let text = written(&facts, &to_containerd(), HUB).unwrap();
    let config = written(&facts, &to_containerd(), CONFIG).unwrap();
    facts.containerd.as_mut().unwrap().effective = Some(config);
    let mut there = registry("/etc/containerd/certs.d/docker.io", &["hosts.toml"]);
    there.hosts = Some(Digest::of(&text));
    facts.registry_directories = vec![there.clone()];
    assert_eq!(written(&facts, &to_containerd(), HUB), None);
    assert_eq!(fates(&facts, "registry-mirrors")[0].0, "DockerSettingCarried");
    there.hosts = Some(Digest::of("server = \"https://mine.example\"\n"));
    facts.registry_directories = vec![there];
    assert_eq!(written(&facts, &to_containerd(), HUB), None);
    let (code, text) = &fates(&facts, "registry-mirrors")[0];
    assert!(
        code == "DockerSettingApproximated" && text.contains("https://m.example"),
        "{text}"
    );
    assert!(
        !written(&facts, &to_containerd(), CONFIG)
            .unwrap()
            .contains("config_path")
    );
}

#[test]
fn certificates_are_named_where_docker_has_them() {
    let mut facts = lab();
    let harbor = |facts: &Facts| {
        let path = "/etc/containerd/certs.d/harbor.example.org:443/hosts.toml";
        written(facts, &to_containerd(), path)
    };
    let config = |facts: &Facts| written(facts, &to_containerd(), CONFIG).unwrap();
    assert!(!config(&facts).contains("config_path"));
    facts.registry_directories = vec![
        registry(
            "/etc/docker/certs.d/harbor.example.org:443",
            &["a.crt", "b.crt", "own.cert", "own.key", "without.cert"],
        ),
        registry("/etc/docker/certs.d/docker.io", &["ca.crt"]),
        registry("/etc/docker/certs.d/empty.example.org", &[]),
        registry("/etc/docker/certs.d/[fd00::1]:5000", &["ca.crt"]),
    ];
    assert_eq!(
        harbor(&facts).unwrap(),
        r#"# Written by Transship: certs.d of Docker.
server = "https://harbor.example.org:443"

[host."https://harbor.example.org:443"]
  capabilities = ["pull", "resolve"]
  ca = ["/etc/docker/certs.d/harbor.example.org:443/a.crt", "/etc/docker/certs.d/harbor.example.org:443/b.crt"]
  client = [["/etc/docker/certs.d/harbor.example.org:443/own.cert", "/etc/docker/certs.d/harbor.example.org:443/own.key"]]
"#
    );
    assert!(config(&facts).contains(PATH));
    assert_eq!(fates(&facts, "certs.d")[0].0, "DockerSettingCarried");
    let finding = one(&facts, &to_containerd(), "RegistryCertificates");
    assert!(
        finding.message.contains("[fd00::1]:5000")
            && !finding.message.contains("docker.io")
            && !finding.message.contains("harbor"),
        "{finding:?}"
    );
    // Docker reads no certificates for a registry whose own it does not check.
    daemon_json(
        &mut facts,
        r#"{"insecure-registries": ["harbor.example.org:443"]}"#,
    );
    let text = harbor(&facts).unwrap();
    assert!(
        text.contains("skip_verify = true") && !text.contains(".crt"),
        "{text}"
    );
    // containerd looks for this spelling of the directory first.
    daemon_json(&mut facts, "{}");
    facts.registry_directories.push(registry(
        "/etc/containerd/certs.d/harbor.example.org_443_",
        &["ca.crt"],
    ));
    let read = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = '/etc/containerd/certs.d'\n";
    facts.containerd.as_mut().unwrap().effective = Some(read.to_owned());
    assert_eq!(harbor(&facts), None);
    let finding = one(&facts, &to_containerd(), "RegistryCertificates");
    assert!(finding.message.contains("harbor.example.org:443"), "{finding:?}");
    // And the other way round.
    let mut facts = fixtures::named("debian12-kubeadm-1.36-control-plane-containerd-2.4");
    facts.registry_directories = vec![registry(
        "/etc/containerd/certs.d/harbor.example.org",
        &["ca.crt"],
    )];
    let read = "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d'\n";
    facts.containerd.as_mut().unwrap().effective = Some(read.to_owned());
    let found = about(&facts, &to_cri_dockerd(), "certs.d");
    assert!(
        found[0]
            .remedy
            .contains("/etc/docker/certs.d/harbor.example.org/ca.crt"),
        "{found:?}"
    );
}

/// Files that nothing has read so far do not come into effect with ours; what an earlier plan has written is read.
#[test]
fn files_that_nothing_reads_stay_so() {
    let mut facts = lab();
    daemon_json(&mut facts, r#"{"registry-mirrors": ["https://m.example"]}"#);
    facts.registry_directories = vec![registry("/etc/containerd/certs.d/_default", &["hosts.toml"])];
    let own = "/etc/containerd/transship-certs.d/docker.io/hosts.toml";
    let text = written(&facts, &to_containerd(), own).unwrap();
    let config = written(&facts, &to_containerd(), CONFIG).unwrap();
    assert!(
        config.contains("config_path = \"/etc/containerd/transship-certs.d\"\n"),
        "{config}"
    );
    let mut there = registry("/etc/containerd/transship-certs.d/docker.io", &["hosts.toml"]);
    there.hosts = Some(Digest::of(&text));
    facts.registry_directories.push(there);
    config_toml(&mut facts, &config);
    facts.containerd.as_mut().unwrap().effective = Some(config.clone());
    assert_eq!(written(&facts, &to_containerd(), own), None);
    assert!(written(&facts, &to_containerd(), CONFIG).is_none_or(|after| after == config));
}

/// What containerd would not load with, or would not read.
#[test]
fn settings_that_cannot_stand_next_to_others_are_told() {
    let cri = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry";
    for (text, version, expected) in [
        (
            format!("{cri}.mirrors.'docker.io']\nendpoint = ['https://x']\n"),
            "1.6.20",
            "registry.mirrors",
        ),
        (
            format!("{cri}.configs.'r.example'.tls]\nca_file = '/x'\n"),
            "1.7.35",
            "registry.mirrors",
        ),
        (
            format!("{cri}]\nconfig_path = '/opt/certs.d'\n"),
            "1.6.20",
            "/opt/certs.d",
        ),
    ] {
        let mut facts = lab();
        daemon_json(&mut facts, r#"{"registry-mirrors": ["https://m.example"]}"#);
        facts.registry_directories = vec![registry("/etc/docker/certs.d/harbor.example.org", &["ca.crt"])];
        let containerd = facts.containerd.as_mut().unwrap();
        (containerd.version, containerd.effective) = (version.to_owned(), Some(text.clone()));
        config_toml(&mut facts, &text);
        let (code, said) = &fates(&facts, "registry-mirrors")[0];
        assert!(
            code == "DockerSettingNotCarried" && said.contains(expected),
            "{said}"
        );
        assert!(
            written(&facts, &to_containerd(), CONFIG)
                .is_none_or(|text| !text.contains("/etc/docker/certs.d"))
        );
        one(&facts, &to_containerd(), "RegistryCertificates");
    }
    // Docker's directory becomes ours, unless somebody has written a hosts.toml there.
    let mut facts = lab();
    daemon_json(&mut facts, r#"{"registry-mirrors": ["https://m.example"]}"#);
    let text = format!("{cri}]\nconfig_path = '/etc/docker/certs.d'\n");
    facts.containerd.as_mut().unwrap().effective = Some(text.clone());
    config_toml(&mut facts, &text);
    assert!(
        written(&facts, &to_containerd(), CONFIG)
            .unwrap()
            .contains(PATH.trim_end())
    );
    let mut there = registry("/etc/docker/certs.d/r.example", &["hosts.toml"]);
    there.hosts = Some(Digest::of("server = 'https://r.example'\n"));
    facts.registry_directories = vec![there];
    assert_eq!(fates(&facts, "registry-mirrors")[0].0, "DockerSettingNotCarried");
}
