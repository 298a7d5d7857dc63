//! The chart: linted, rendered for old and new servers; and every file that is generated: definitions from the code,
//! plain manifests from the chart.

use std::process::Command;

use crate::generated::{holds, repository};
use crate::server::part;
use transship::api::crd::{self, Cel};
use transship::api::migration::{MigrationPhase, NodeCounts};
use transship::metrics::Metrics;

fn helm(arguments: &[&str]) -> String {
    run(Command::new(part("helm-3.22.0", "helm")).args(arguments))
}

fn run(command: &mut Command) -> String {
    let output = command.current_dir(repository("")).output().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{command:?}\n{out}\n{err}");
    out.into_owned()
}

fn rendered(version: &str, values: &[&str]) -> String {
    let mut arguments = vec![
        "template",
        "transship",
        "charts/transship",
        "--namespace",
        "transship",
    ];
    arguments.extend(["--kube-version", version]);
    for value in values {
        arguments.extend(["--set", value]);
    }
    helm(&arguments)
}

#[test]
fn helm_finds_nothing_to_say() {
    helm(&["lint", "--strict", "charts/transship"]);
}

#[test]
fn an_unknown_value_is_refused() {
    let output = Command::new(part("helm-3.22.0", "helm"))
        .args(["template", "charts/transship", "--set", "agnet.port=1"])
        .current_dir(repository(""))
        .output()
        .unwrap();
    assert!(!output.status.success());
}

#[test]
fn servers_get_what_they_understand() {
    for (version, cel, policy) in [
        ("1.22.0", false, false),
        ("1.23.17", false, false),
        ("1.25.0", true, false),
        ("1.30.2", true, true),
        ("1.36.3", true, true),
    ] {
        let text = rendered(version, &[]);
        assert_eq!(text.contains("x-kubernetes-validations"), cel, "{version}");
        assert_eq!(text.contains("ValidatingAdmissionPolicy"), policy, "{version}");
        assert_eq!(
            text.matches("helm.sh/resource-policy: keep").count(),
            2,
            "{version}"
        );
    }
}

/// The agent is in the host's network, where any pod could reach a port of it.
#[test]
fn the_agent_listens_nowhere() {
    let text = rendered("1.36.3", &["monitoring.podMonitor.enabled=true"]);
    let objects = || text.split("\n---\n");
    let agent = objects()
        .find(|object| object.contains("kind: DaemonSet"))
        .unwrap();
    for word in ["containerPort", "hostPort", "LISTEN", "Probe"] {
        assert!(!agent.contains(word), "{word}:\n{agent}");
    }
    let monitor = objects()
        .find(|object| object.contains("kind: PodMonitor"))
        .unwrap();
    assert!(
        monitor.contains("app.kubernetes.io/component: controller"),
        "{monitor}"
    );
    let help = Command::new(env!("CARGO_BIN_EXE_transship"))
        .args(["agent", "--help"])
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&help.stdout).contains("listen"));
}

#[test]
fn no_pod_is_privileged() {
    let text = rendered(
        "1.36.3",
        &[
            "monitoring.podMonitor.enabled=true",
            "monitoring.prometheusRule.enabled=true",
        ],
    );
    assert!(!text.contains("privileged: true"));
    assert!(!text.contains("hostPID"));
    assert_eq!(
        text.matches("drop: [ALL]").count(),
        3,
        "controller, agent and the guard"
    );
    assert!(text.contains("kind: PodMonitor") && text.contains("alert: TransshipMigrationStalled"));
}

fn definitions_are_what_the_code_produces() {
    for crd in crd::all(Cel::With) {
        let name = crd.metadata.name.clone().unwrap();
        let (plural, _) = name.split_once('.').unwrap();
        holds(
            &format!("crds/{plural}.yaml"),
            &serde_saphyr::to_string(&crd).unwrap(),
        );
    }
    for (cel, file) in [(Cel::With, "cel"), (Cel::Without, "no-cel")] {
        let mut text = String::new();
        for mut crd in crd::all(cel) {
            let keep = ("helm.sh/resource-policy".to_owned(), "keep".to_owned());
            crd.metadata.annotations = Some([keep].into());
            text += &format!("---\n{}", serde_saphyr::to_string(&crd).unwrap());
        }
        holds(&format!("charts/transship/files/crds/{file}.yaml"), &text);
    }
}

fn manifests_are_what_the_chart_renders() {
    const NAMESPACE: &str = "# Generated from charts/transship; do not edit.\n\
        apiVersion: v1\nkind: Namespace\nmetadata:\n  name: transship\n  labels:\n    \
        pod-security.kubernetes.io/enforce: privileged\n";
    for (version, file) in [("1.30.0", "install"), ("1.22.0", "install-1.22")] {
        let text = rendered(version, &["uninstallGuard.enabled=false"]);
        holds(&format!("manifests/{file}.yaml"), &format!("{NAMESPACE}{text}"));
    }
}

/// In this order: each is made from the one before.
#[test]
fn generated_files_are_up_to_date() {
    definitions_are_what_the_code_produces();
    manifests_are_what_the_chart_renders();
}

#[test]
fn the_alerts_fire_when_they_should() {
    let promtool = part("prometheus-bookworm", "promtool");
    run(Command::new(&promtool).args(["check", "rules", "charts/transship/files/rules.yaml"]));
    run(Command::new(&promtool).args(["test", "rules", "charts/transship/tests/rules_test.yaml"]));
}

/// Names and labels in a text of Prometheus' query language, with the values that a matcher asks for.
fn series(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    text.match_indices("transship_")
        .map(|(at, _)| {
            let rest = &text[at..];
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let matchers = rest[end..]
                .strip_prefix('{')
                .and_then(|matchers| matchers.split_once('}'))
                .map_or("", |(inside, _)| inside);
            let labels = matchers
                .split(',')
                .filter_map(|matcher| matcher.split_once('='))
                .map(|(label, value)| (label.to_owned(), value.trim_matches(['~', '"']).to_owned()))
                .collect();
            (rest[..end].to_owned(), labels)
        })
        .collect()
}

#[test]
fn the_alerts_ask_for_what_is_exported() {
    let metrics = Metrics::new().unwrap();
    metrics.migration("m", MigrationPhase::Running, &NodeCounts::default(), Some(1.0));
    let exported = series(&metrics.text().unwrap());
    for file in [
        "charts/transship/files/rules.yaml",
        "charts/transship/tests/rules_test.yaml",
    ] {
        let text = std::fs::read_to_string(repository(file)).unwrap();
        let asked = series(&text);
        assert!(!asked.is_empty());
        for (name, labels) in asked {
            let of_name: Vec<_> = exported.iter().filter(|(other, _)| *other == name).collect();
            let has = |label: &str, fits: &dyn Fn(&str) -> bool| {
                of_name
                    .iter()
                    .any(|(_, present)| present.iter().any(|(l, value)| l == label && fits(value)))
            };
            // All rules are about migrations, and aggregate by them.
            assert!(has("migration", &|_| true), "{file}: {name} is not exported");
            for (label, values) in labels.iter().filter(|(label, _)| label != "migration") {
                for value in values.split('|') {
                    assert!(
                        has(label, &|v| v == value),
                        "{file}: {name} has no {label} {value}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_links_of_the_alerts_lead_where_the_user_says() {
    let home = "https://wiki.example.com/transship";
    let text = rendered(
        "1.23.17",
        &[
            "monitoring.prometheusRule.enabled=true",
            &format!("monitoring.runbookUrl={home}"),
        ],
    );
    assert!(text.contains(&format!("runbook_url: {home}#transshipmigrationstalled")));
    assert!(!text.contains("docs/runbooks.md"));
}

#[test]
fn the_agent_is_let_through_to_the_system_bus() {
    let annotation = "container.apparmor.security.beta.kubernetes.io/agent: unconfined";
    let field = "appArmorProfile: { type: Unconfined }";
    for (version, old) in [("1.23.17", true), ("1.29.9", true), ("1.30.2", false)] {
        let text = rendered(version, &[]);
        assert_eq!(
            (text.contains(annotation), text.contains(field)),
            (old, !old),
            "{version}"
        );
        assert!(text.contains("seLinuxOptions: { type: spc_t }"));
    }
    let text = rendered("1.30.2", &["agent.appArmorProfile=", "agent.seLinuxType="]);
    assert!(!text.contains("appArmorProfile") && !text.contains("seLinuxOptions"));
}

/// On control planes the keys of the cluster and the admin's kubeconfig lie in /etc/kubernetes.
#[test]
fn the_agent_sees_no_key_of_the_cluster() {
    let text = rendered("1.30.2", &[]);
    let mounted: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("hostPath: { path: "))
        .collect();
    assert_eq!(
        mounted,
        [
            "/run/dbus, type: Directory }",
            "/var/lib/transship, type: DirectoryOrCreate }",
            "/etc/kubernetes/kubelet.conf, type: File }",
            "/var/lib/kubelet/pki, type: Directory }",
        ]
    );
    assert!(text.contains("mountPath: /etc/kubernetes/kubelet.conf, readOnly: true }"));
}

#[test]
fn every_alert_has_its_runbook() {
    let rules = std::fs::read_to_string(repository("charts/transship/files/rules.yaml")).unwrap();
    let runbooks = std::fs::read_to_string(repository("docs/runbooks.md")).unwrap();
    let alerts: Vec<_> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(!alerts.is_empty());
    for alert in alerts {
        assert!(
            runbooks.contains(&format!("## {alert}\n")),
            "docs/runbooks.md has no section {alert}"
        );
        assert!(
            rules.contains(&format!("runbooks.md#{}", alert.to_lowercase())),
            "{alert} has no link"
        );
    }
}
