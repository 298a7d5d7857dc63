//! No word, diff, finding or digest of a plan shows a secret.

use super::*;

#[test]
fn no_secret_is_in_the_words() {
    for (name, facts, request) in fixtures::cases() {
        let outcome = plan(&facts, &request);
        let words = in_words(&facts, &outcome);
        for secret in ["s3cr", "hunter2"] {
            assert!(!words.contains(secret), "{name}: {secret}");
        }
    }
}

/// Ways to write a secret into containerd's configuration, the kubelet's and an environment file; `<Q>` is the
/// secret in quotes, `<P>` as it is.
const LAYOUTS: [(usize, &str); 13] = [
    (
        0,
        "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"r.example:5000\".auth]\npassword = <Q>\n",
    ),
    (
        0,
        "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs]\n\"r.example:5000\" = { auth = { username = \"u\", password = <Q> } }\n",
    ),
    (
        0,
        "[plugins.\"io.containerd.grpc.v1.cri\".registry.headers]\nAuthorization = [<Q>]\n",
    ),
    (
        0,
        "[plugins.\"io.containerd.grpc.v1.cri\".registry.headers]\n\"Authorization\"=[\n  <Q>,\n]\n",
    ),
    (
        0,
        "[plugins.\"io.containerd.grpc.v1.cri\"]\nregistry = { headers = { Authorization = [<Q>] } }\nsandbox_image = \"a\" # <P>\n",
    ),
    (0, "# password = <Q>\n"),
    (0, "[plugins.other]\nkey = \"\"\"\n<P>\n\"\"\"\n"),
    (1, "staticPodURLHeader:\n  Authorization:\n  - <Q>\n"),
    (1, "staticPodURLHeader: {Authorization: [<Q>]}\n"),
    (1, "staticPodURLHeader:\n  Authorization: [\n    <Q>\n  ]\n"),
    (2, "HTTPS_PROXY=\"http://me:<P>@proxy:3128\"\n"),
    (2, "HTTPS_PROXY=\"me:<P>@proxy:3128\"\nREGISTRY_TOKEN=\"<P>\"\n"),
    (3, "me:<P>@proxy:3128"),
];

/// Nor do the findings, where a file cannot be read or says something else than what runs.
#[rstest]
#[case::yaml("KubeletConfigBroken", |f: &mut Facts| text(f.kubelet.as_mut().unwrap().config.as_mut().unwrap(), "staticPodURLHeader:\n  Authorization: [zq7, \"\n"))]
#[case::toml("ContainerdConfigBroken", |f: &mut Facts| config(f, "version = 2\n[x]\npassword = zq7\n"))]
#[case::json("DaemonJsonBroken", |f: &mut Facts| text(f.docker.as_mut().unwrap().daemon_json.as_mut().unwrap(), "{\"x\": zq7}"))]
#[case::quote("FlagsNotEditable", |f: &mut Facts| flags(f, "KUBELET_KUBEADM_ARGS=\"--token=zq7 '\"\n"))]
#[case::backslash("FlagsNotEditable", |f: &mut Facts| flags(f, "KUBELET_KUBEADM_ARGS='--token=zq7\\ b'\n"))]
#[case::differs("KubeletArgumentsDiffer", |f: &mut Facts| f.kubelet.as_mut().unwrap().command_line.extend(["--token=zq7".into(), "--other".into(), "zq7".into()]))]
fn no_secret_is_in_a_finding(#[case] code: &str, #[case] spoil: fn(&mut Facts)) {
    let mut facts = fixtures::named(LAB);
    spoil(&mut facts);
    let outcome = plan(&facts, &fixtures::request());
    let found = outcome.findings.iter().find(|finding| finding.code == code);
    let message = &found.unwrap_or_else(|| panic!("{:?}", outcome.findings)).message;
    assert!(!message.contains("zq7"), "{message}");
}

/// systemd shows a unit's `Environment=` to everybody on D-Bus, and every file may be read that is not for root alone.
#[test]
fn a_proxys_password_is_in_a_file_for_root_alone() {
    let mut facts = fixtures::named("debian11-kubeadm-1.23-proxies");
    let written = |facts: &Facts| -> Vec<FileStep> {
        let outcome = plan(facts, &fixtures::request());
        let steps = outcome.plan().unwrap().steps.iter();
        let files = steps.filter_map(|step| match &step.does {
            Step::File(file) if file.path.as_str().contains("/containerd.service.d/") => Some(file.clone()),
            _ => None,
        });
        files.collect()
    };
    let files = written(&facts);
    let [environment, drop_in] = &files[..] else {
        panic!("{files:?}")
    };
    let (environment_text, drop_in_text) = (
        environment.want.as_ref().unwrap(),
        &drop_in.want.as_ref().unwrap().text,
    );
    assert!(
        environment_text
            .text
            .contains("HTTP_PROXY=\"http://svc:s3cr%25t@proxy.example.org:3128\"\n")
    );
    assert_eq!(environment_text.mode, 0o600);
    let named = format!("EnvironmentFile={}\n", environment.path);
    assert!(
        drop_in_text.contains(&named) && !drop_in_text.contains("s3cr"),
        "{drop_in_text}"
    );

    // One that is there and open to others is closed; where there is nothing to change nothing is.
    let there = |mode| TextFile {
        path: environment.path.clone(),
        digest: Digest::of(&environment_text.text),
        text: environment_text.text.clone(),
        mode,
    };
    let drop_in_there = TextFile {
        path: drop_in.path.clone(),
        digest: Digest::of(drop_in_text),
        text: drop_in_text.clone(),
        mode: 0o644,
    };
    facts.containerd.as_mut().unwrap().drop_in.file = Some(drop_in_there);
    for (mode, steps) in [(0o644, 1), (0o600, 0)] {
        facts.files.retain(|file| file.path != environment.path);
        facts.files.push(MaybeFile {
            path: environment.path.clone(),
            file: Some(there(mode)),
        });
        assert_eq!(written(&facts).len(), steps, "{mode:o}");
    }
}

/// The digest is shown beside the diff, in which passwords are hidden.
#[test]
fn no_password_can_be_tried_out_on_the_digest_of_a_plan() {
    let mut facts = fixtures::named("debian11-kubeadm-1.23-proxies");
    // Nor on those of its files.
    let outcome = plan(&facts, &fixtures::request());
    let page = in_words(&facts, &outcome);
    for step in &outcome.plan().unwrap().steps {
        let Step::File(file) = &step.does else { continue };
        let new = file.want.as_ref().map(|want| Digest::of(&want.text));
        for digest in [&file.planned_from, &new].into_iter().flatten() {
            assert!(!page.contains(digest.as_str()), "{}", file.path);
        }
    }
    let mut shown = |key: &str| {
        facts.digest_key = key.to_owned();
        let outcome = plan(&facts, &fixtures::request());
        let page = transship::node::plan::page(&facts, &outcome);
        let digest = outcome.plan().unwrap().digest();
        assert!(page.contains(digest.as_str()) && !page.contains(key), "{page}");
        digest
    };
    let first = shown("key-of-one-node");
    assert_eq!(shown("key-of-one-node"), first);
    assert_ne!(shown("key-of-another"), first);
}

proptest! {
    /// However a secret is written, neither the words nor the diff show a part of it.
    #[test]
    fn no_secret_of_a_file_is_in_the_words_or_the_diff(
        layouts in prop::collection::btree_set(0..LAYOUTS.len(), 1..5),
        sign in prop::sample::select(vec!["", "@", ":", "/", "?", "#", " #", "=", " ", ",", " --", "]", "}"]),
    ) {
        let mut facts = fixtures::named("debian11-kubeadm-1.23-proxies");
        let secret = format!("zq7a{sign}zq7b");
        let quoted = format!("\"{secret}\"");
        let mut written = [const { String::new() }; 4];
        for (file, layout) in layouts.into_iter().map(|index| LAYOUTS[index]) {
            // One table of a name, and one key of the others.
            let goes_along = file == 0 && !(layout.starts_with('[') && written[0].contains('['));
            if goes_along || written[file].is_empty() {
                written[file].push_str(&layout.replace("<Q>", &quoted).replace("<P>", &secret));
            }
        }
        let [toml, yaml, variables, proxy] = written;
        config(&mut facts, &format!("version = 2\n{toml}"));
        let kubelet = facts.kubelet.as_mut().unwrap();
        let file = kubelet.config.as_mut().unwrap();
        let old = file.text.clone();
        text(file, &format!("{yaml}{old}"));
        let file = &mut kubelet.unit.environment_files[0];
        let old = file.text.clone();
        text(file, &format!("{variables}{old}"));
        if !proxy.is_empty() {
            facts.docker.as_mut().unwrap().service.environment = vec![format!("HTTPS_PROXY={proxy}")];
        }
        let outcome = plan(&facts, &fixtures::request());
        prop_assert!(outcome.plan().is_some(), "{:?}", outcome.findings);
        let words = in_words(&facts, &outcome);
        prop_assert!(!words.contains("zq7"), "{}", words);
    }

    /// Nor where Docker's file is in one line, or in many.
    #[test]
    fn no_secret_of_dockers_file_is_in_the_diff(pretty: bool, sign in prop::sample::select(vec!["@", ":", "/", "=", ", "])) {
        let mut facts = fixtures::named("debian12-kubeadm-1.36-control-plane-containerd-2.4");
        // Docker, which does not run, would use another cgroup driver than the kubelet.
        facts.cgroup_version = 1;
        let secret = format!("zq7a{sign}zq7b");
        let settings = serde_json::json!({
            "proxies": { "https-proxy": format!("http://me:{secret}@proxy:3128"), "no-proxy": "localhost" },
            "http-headers": ["a", secret],
        });
        let docker = facts.docker.as_mut().unwrap();
        let new = if pretty { serde_json::to_string_pretty(&settings).unwrap() } else { settings.to_string() };
        docker.daemon_json = Some(TextFile {
            path: HostPath::new("/etc/docker/daemon.json").unwrap(),
            digest: Digest::of(&new),
            text: new,
            mode: 0o600,
        });
        let outcome = plan(&facts, &fixtures::to(Runtime::CriDockerd));
        let words = in_words(&facts, &outcome);
        prop_assert!(words.contains("+  \"exec-opts\": [\"native.cgroupdriver=systemd\"],\n"), "{}", words);
        prop_assert!(!words.contains("zq7"), "{}", words);
    }
}
