//! Credentials of registries: given to the next runtime in a file that root alone reads, or told without them.

use transship::plan::{facts::MaybeFile, words};

use super::{
    crio::{self, CRIO_CONF, on_crio},
    *,
};

const AUTH_FILE: &str = "/etc/crio/transship-auth.json";

/// As containerd 1.x and 2.x have them.
const OF_CONTAINERD: &str = r#"version = 3
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "registry.k8s.io/pause:3.10.2"
[plugins."io.containerd.cri.v1.images".registry.configs."registry-1.docker.io".auth]
username = "me"
password = "s3cret"
[plugins."io.containerd.cri.v1.images".registry.configs."r.example:5000".auth]
auth = "bWU6czNjcmV0"
[plugins."io.containerd.cri.v1.images".registry.configs."t.example".auth]
identitytoken = "t0ken"
[plugins."io.containerd.cri.v1.images".registry.configs."odd.example".auth]
auth = "s3cret without base64"
"#;

fn on_containerd() -> Facts {
    let mut facts = crio::on_containerd();
    facts.containerd.as_mut().unwrap().effective = Some(OF_CONTAINERD.to_owned());
    facts
}

fn to_crio() -> Request {
    let mut request = fixtures::from_archive(Runtime::CriO);
    let allowed = ["SettingNotCarried", "NftMissing"].map(str::to_owned);
    request.preflight.allow = allowed.to_vec();
    request
}

/// The mode and the text that the plan gives to a file.
fn wanted(facts: &Facts, request: &Request, at: &str) -> Option<(u32, String)> {
    let outcome = plan(facts, request);
    let steps = &outcome
        .plan()
        .unwrap_or_else(|| panic!("{:?}", outcome.findings))
        .steps;
    steps.iter().find_map(|step| match &step.does {
        Step::File(file) if file.path.as_str() == at => {
            file.want.as_ref().map(|want| (want.mode, want.text.clone()))
        }
        _ => None,
    })
}

/// What anybody may read of a plan.
fn shown(facts: &Facts, request: &Request) -> String {
    let outcome = plan(facts, request);
    let planned = outcome.plan().unwrap_or_else(|| panic!("{:?}", outcome.findings));
    let sections = planned.sections();
    format!(
        "{:?}\n{sections:?}\n{}",
        outcome.findings,
        words::diff(planned, facts)
    )
}

#[test]
fn credentials_of_containerd_come_along_to_cri_o() {
    let facts = on_containerd();
    let request = to_crio();
    let wanted = wanted(&facts, &request, AUTH_FILE).unwrap();
    let text = r#"{
  "auths": {
    "docker.io": {
      "auth": "bWU6czNjcmV0"
    },
    "r.example:5000": {
      "auth": "bWU6czNjcmV0"
    },
    "t.example": {
      "auth": "Og==",
      "identitytoken": "t0ken"
    }
  }
}
"#;
    assert_eq!(wanted, (0o600, text.to_owned()));
    let conf = written(&facts, &request, CRIO_CONF).unwrap();
    let line = format!("global_auth_file = {AUTH_FILE:?}\n");
    assert!(conf.contains(&line), "{conf}");
    let found = about(
        &facts,
        &fixtures::from_archive(Runtime::CriO),
        "registry.configs.auth",
    );
    let codes: Vec<&str> = found.iter().map(|finding| &*finding.code).collect();
    assert_eq!(codes, ["SettingNotCarried", "SettingCarried"]);
    assert!(found[1].message.contains("t.example") && found[0].remedy.contains("odd.example"));
    let shown = shown(&facts, &request);
    for secret in ["s3cret", "t0ken", "bWU6"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(shown.contains(&line), "{shown}");
}

/// The file must be there before CRI-O starts.
#[test]
fn credentials_are_written_before_cri_o_starts() {
    let outcome = plan(&on_containerd(), &to_crio());
    let steps = &outcome.plan().unwrap().steps;
    let at = |wanted: &str| {
        steps.iter().position(|step| match &step.does {
            Step::File(file) => file.path.as_str() == wanted,
            Step::Unit(unit) => unit.unit == wanted && unit.active == Some(true),
            _ => false,
        })
    };
    assert!(at(AUTH_FILE) < at(CRIO_CONF) && at(CRIO_CONF) < at("crio.service"));
}

/// Somebody has chosen a file of his own.
#[test]
fn credentials_stay_behind_where_cri_o_has_a_file() {
    let mut facts = on_containerd();
    let mut found = crio::with_crio().crio.unwrap();
    found.effective = Some("[crio.image]\nglobal_auth_file = \"/etc/crio/mine.json\"\n".to_owned());
    facts.crio = Some(found.clone());
    let request = fixtures::to(Runtime::CriO);
    let found_now = about(&facts, &request, "registry.configs.auth");
    assert!(
        found_now
            .iter()
            .all(|finding| finding.code == "SettingNotCarried")
            && format!("{found_now:?}").contains("/etc/crio/mine.json"),
        "{found_now:?}"
    );
    // One of an earlier plan is ours.
    found.effective = Some(format!("[crio.image]\nglobal_auth_file = {AUTH_FILE:?}\n"));
    facts.crio = Some(found);
    let found_now = about(&facts, &request, "registry.configs.auth");
    assert!(
        found_now.iter().any(|finding| finding.code == "SettingCarried"),
        "{found_now:?}"
    );
}

#[test]
fn credentials_of_cri_o_come_along_to_containerd() {
    let mut facts = on_crio();
    let printed = "[crio.image]\npause_image = \"registry.k8s.io/pause:3.6\"\nglobal_auth_file = \"/etc/crio/mine.json\"\n";
    facts.crio.as_mut().unwrap().effective = Some(printed.to_owned());
    let found = about(&facts, &to_containerd(), "global_auth_file");
    assert_eq!(found[0].code, "SettingNotCarried", "{found:?}");
    let text =
        r#"{"auths": {"docker.io": {"auth": "bWU6czNjcmV0"}, "q.example/part": {"auth": "bWU6czNjcmV0"}}}"#;
    facts.files.push(MaybeFile {
        path: path("/etc/crio/mine.json"),
        file: Some(file("/etc/crio/mine.json", text)),
    });
    let mut request = to_containerd();
    request.preflight.allow = vec!["SettingNotCarried/global_auth_file".to_owned()];
    let (mode, text) = wanted(&facts, &request, CONFIG).unwrap();
    assert_eq!(mode, 0o600);
    let lines = "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"registry-1.docker.io\".auth]\nusername = \"me\"\n\
                 password = \"s3cret\"\n";
    assert!(text.contains(lines), "{text}");
    let found = about(&facts, &to_containerd(), "global_auth_file");
    assert!(found[0].remedy.contains("q.example/part"), "{found:?}");
    let shown = shown(&facts, &request);
    assert!(!shown.contains("s3cret") && !shown.contains("bWU6"), "{shown}");
}

/// As Kubespray leaves it: a file without a credential, or no file.
#[test]
fn an_empty_file_of_cri_o_is_left_without_a_word() {
    for text in [None, Some("{}"), Some("{\"auths\": {}}")] {
        let mut facts = on_crio();
        let printed = "[crio.image]\npause_image = \"registry.k8s.io/pause:3.6\"\nglobal_auth_file = \"/etc/crio/config.json\"\n";
        facts.crio.as_mut().unwrap().effective = Some(printed.to_owned());
        facts.files.push(MaybeFile {
            path: path("/etc/crio/config.json"),
            file: text.map(|text| file("/etc/crio/config.json", text)),
        });
        assert_eq!(
            about(&facts, &to_containerd(), "global_auth_file"),
            [],
            "{text:?}"
        );
    }
}

/// Docker pulls with what the kubelet sends along.
#[test]
fn credentials_are_told_where_docker_is_gone_to() {
    let found = about(&on_containerd(), &to_cri_dockerd(), "registry.configs.auth");
    assert!(
        format!("{found:?}").contains("registry-1.docker.io") && found[0].remedy.contains("config.json"),
        "{found:?}"
    );
    assert!(!format!("{found:?}").contains("s3cret"));
}
