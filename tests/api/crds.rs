//! The definitions: descriptions, and a real API server that refuses what the controller refuses.

use crate::server::{ADMIN, ApiServer, QUIET, Release};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use rstest::rstest;
use serde_json::{Value, json};
use transship::api::crd::{self, Cel};
use transship::api::migration::RuntimeMigration;
use transship::api::validation::validate;

#[test]
fn every_field_is_described() {
    for crd in crd::all(Cel::With) {
        let schema = crd.spec.versions[0]
            .schema
            .clone()
            .unwrap()
            .open_api_v3_schema
            .unwrap();
        let mut bare = Vec::new();
        undescribed(&schema, "", &mut bare);
        assert_eq!(bare, Vec::<String>::new());
    }
}

/// `docs/api.md` lists every field; `UPDATE=1` writes it anew.
#[test]
fn the_field_reference_is_what_the_definitions_say() {
    let page = crate::field_reference::page();
    for field in [
        "`spec.target.runtime`",
        "`spec.drain.timeout`",
        "`status.conditions[].reason`",
    ] {
        assert!(page.contains(&format!("| {field} |")), "no row of {field}");
    }
    crate::generated::holds("docs/api.md", &page);
}

/// It prints descriptions as formats, and nothing below a field that may be null.
#[test]
fn kubectl_explain_can_show_every_field() {
    fn trouble(schema: &JSONSchemaProps, path: &str, found: &mut Vec<String>) {
        if schema.description.as_ref().is_some_and(|text| text.contains('%')) {
            found.push(format!("{path}: %"));
        }
        for (name, field) in schema.properties.iter().flatten() {
            let path = format!("{path}.{name}");
            if field.nullable == Some(true) && field.properties.is_some() {
                found.push(format!("{path}: null"));
            }
            trouble(field, &path, found);
        }
    }
    for crd in crd::all(Cel::With) {
        let schema = crd.spec.versions[0].schema.clone().unwrap();
        let mut found = Vec::new();
        trouble(
            &schema.open_api_v3_schema.unwrap(),
            &crd.spec.names.kind,
            &mut found,
        );
        assert_eq!(found, Vec::<String>::new());
    }
}

fn undescribed(schema: &JSONSchemaProps, path: &str, bare: &mut Vec<String>) {
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        if field.description.as_ref().is_none_or(String::is_empty) {
            bare.push(path.clone());
        }
        undescribed(field, &path, bare);
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &field.items {
            undescribed(items, &path, bare);
        }
    }
}

/// A target that comes from `origin`.
fn from(origin: &Value, version: Option<&str>) -> Value {
    let mut target = json!({ "runtime": "containerd", "from": origin });
    if let Some(version) = version {
        target["version"] = version.into();
    }
    json!({ "target": target })
}

fn archive(url: &str, digit: char) -> Value {
    json!({ "archive": { "url": url, "sha256": digit.to_string().repeat(64) } })
}

fn migration(change: &Value) -> Value {
    let mut spec = json!({
        "nodeSelector": { "matchLabels": { "kubernetes.io/os": "linux" } },
        "target": { "runtime": "containerd" },
    });
    for (key, value) in change.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({
        "apiVersion": "transship.dev/v1alpha1",
        "kind": "RuntimeMigration",
        "metadata": { "generateName": "m-" },
        "spec": spec,
    })
}

/// RuntimeMigrations on a server that has both definitions. 1.23 evaluates rules in CEL behind its gate, but does not
/// know `oldSelf` yet: those are left out there.
async fn defined(server: &ApiServer, release: Release) -> Api<DynamicObject> {
    let client = server.client(ADMIN).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut rules = 0;
    for mut definition in crd::all(Cel::With) {
        let version = definition.spec.versions[0].schema.as_mut().unwrap();
        let schema = version.open_api_v3_schema.as_mut().unwrap();
        if let Some(validations) = &mut schema.x_kubernetes_validations {
            validations.retain(|rule| release == Release::New || !rule.rule.contains("oldSelf"));
            rules += validations.len();
        }
        definitions
            .create(&PostParams::default(), &definition)
            .await
            .unwrap();
    }
    assert!(rules > 0);
    let objects: Api<DynamicObject> = Api::all_with(client, &ApiResource::erase::<RuntimeMigration>(&()));
    for _ in 0..100 {
        if objects.list(&Default::default()).await.is_ok() {
            return objects;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("RuntimeMigrations are not served after 10 s");
}

#[rstest]
#[case(Release::Old, &["--feature-gates=CustomResourceValidationExpressions=true"])]
#[case(Release::New, &[])]
#[tokio::test]
async fn the_api_server_and_the_controller_agree(#[case] release: Release, #[case] flags: &[&str]) {
    let server = ApiServer::start(release, flags).await;
    let objects = defined(&server, release).await;

    let good = [
        json!({}),
        json!({ "strategy": { "maxUnavailable": "10%" } }),
        json!({ "strategy": { "maxUnavailable": "100%", "maxFailures": 3 } }),
        json!({ "strategy": { "maxUnavailable": 25 } }),
        json!({ "preflight": { "allow": ["DockerSocketMounted", "PodsBlockDrain"] } }),
        json!({ "drain": { "timeout": "1h30m", "gracePeriod": -1, "gracePeriodLimit": "1h" } }),
        json!({ "drain": { "mode": "InPlace" } }),
        json!({ "drain": { "mode": "Live" } }),
        json!({ "approvedPlans": [] }),
        json!({ "approvedPlans": [format!("sha256:{}", "0f".repeat(32)), format!("sha256:{}", "1e".repeat(32))] }),
        json!({ "drain": { "timeout": "1s" }, "rollback": { "confirmWithin": "30s" } }),
        json!({ "rollback": { "soak": "24h" } }),
        json!({ "strategy": { "controlPlane": "First" } }),
        json!({ "target": { "runtime": "cri-dockerd" } }),
        from(&json!({ "preinstalled": {} }), None),
        from(
            &archive("https://mirror/containerd-2.4.2-linux-amd64.tar.gz?sig=1", 'A'),
            None,
        ),
        from(&archive("file:///srv/containerd.tar.gz", '0'), Some("2.4.2")),
        from(&json!({ "package": { "name": "containerd.io" } }), Some("1.7.28")),
        json!({ "nodeSelector": { "matchExpressions": [{ "key": "a", "operator": "Exists" }] } }),
        json!({ "nodeSelector": { "matchExpressions": [{ "key": "a", "operator": "In", "values": ["b"] }] } }),
    ];
    let bad = [
        json!({ "nodeSelector": {} }),
        json!({ "nodeSelector": { "matchLabels": {} } }),
        json!({ "nodeSelector": { "matchExpressions": [] } }),
        json!({ "nodeSelector": { "matchExpressions": [{ "key": "a", "operator": "Near" }] } }),
        json!({ "nodeSelector": { "matchExpressions": [{ "key": "a", "operator": "Gt", "values": ["1"] }] } }),
        json!({ "target": { "runtime": "dockershim" } }),
        from(&json!({}), None),
        from(
            &json!({ "preinstalled": {}, "package": { "name": "containerd.io" } }),
            Some("1.7.28"),
        ),
        from(&archive("http://mirror/containerd.tar.gz", '0'), Some("2.4.2")),
        from(&archive("file://containerd.tar.gz", '0'), Some("2.4.2")),
        from(&archive("file:///srv/containerd.tar.gz", 'g'), Some("2.4.2")),
        from(
            &json!({ "archive": { "url": "file:///srv/containerd.tar.gz" } }),
            Some("2.4.2"),
        ),
        from(&json!({ "package": { "name": "-y" } }), Some("1.7.28")),
        from(&json!({ "package": { "name": "containerd.io" } }), Some(">=1.7")),
        from(&json!({ "package": { "name": "containerd.io" } }), None),
        json!({ "target": { "runtime": "docker" } }),
        json!({ "strategy": { "maxUnavailable": 0 } }),
        json!({ "strategy": { "maxUnavailable": -3 } }),
        json!({ "strategy": { "maxUnavailable": "0%" } }),
        json!({ "strategy": { "maxUnavailable": "101%" } }),
        json!({ "strategy": { "maxUnavailable": "010%" } }),
        json!({ "strategy": { "maxUnavailable": "5" } }),
        json!({ "strategy": { "maxUnavailable": "ten" } }),
        json!({ "strategy": { "maxFailures": 0 } }),
        json!({ "strategy": { "controlPlane": "Never" } }),
        json!({ "drain": { "mode": "Delete" } }),
        json!({ "drain": { "timeout": "soon" } }),
        json!({ "drain": { "timeout": "" } }),
        json!({ "drain": { "timeout": "0s" } }),
        json!({ "rollback": { "confirmWithin": "1s" } }),
        json!({ "rollback": { "confirmWithin": "0h0m29s" } }),
        json!({ "drain": { "gracePeriod": -2 } }),
        json!({ "drain": { "gracePeriodLimit": "often" } }),
        json!({ "rollback": { "confirmWithin": "5 minutes" } }),
        json!({ "rollback": { "soak": "a day" } }),
        json!({ "preflight": { "allow": ["Typo"] } }),
        json!({ "preflight": { "allow": ["PlanNotApproved"] } }),
        json!({ "approvedPlans": [format!("sha256:{}", "0f".repeat(31))] }),
        json!({ "approvedPlans": [format!("sha256:{}", "0F".repeat(32))] }),
        json!({ "approvedPlans": ["0f".repeat(32)] }),
        json!({ "preflight": { "allow": ["NoKubelet"] } }),
    ];
    let judged = good
        .iter()
        .map(|case| (case, true))
        .chain(bad.iter().map(|case| (case, false)));
    for (change, accepted) in judged {
        let object = migration(change);
        let by_controller = serde_json::from_value::<RuntimeMigration>(object.clone())
            .is_ok_and(|m| validate(&m.spec, None).is_empty());
        let answer = objects
            .create(&PostParams::default(), &serde_json::from_value(object).unwrap())
            .await;
        assert_eq!(answer.is_ok(), accepted, "API server, {change}: {answer:?}");
        if let Ok(created) = answer {
            let read = objects.get(&created.metadata.name.unwrap()).await.unwrap();
            assert_eq!(
                read.data["status"]["phase"], "Pending",
                "nobody has looked at it yet"
            );
        }
        assert_eq!(by_controller, accepted, "controller, {change}");
    }
}

/// What `oldSelf` guards, on a server that knows it: the same that the controller says on older ones.
#[tokio::test]
async fn what_was_asked_for_is_fixed_once_a_node_was_started() {
    let objects = defined(QUIET.of(Release::New).await, Release::New).await;
    let mut object = migration(&json!({ "mode": "Plan" }));
    object["metadata"] = json!({ "name": "m" });
    let created = objects
        .create(&PostParams::default(), &serde_json::from_value(object).unwrap())
        .await;
    created.unwrap();
    let edit = async |spec: &Value| {
        let patch = json!({ "spec": spec });
        objects
            .patch("m", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .map_err(|error| error.to_string())
    };
    edit(&json!({ "mode": "Apply", "source": { "keep": true } }))
        .await
        .unwrap();
    let started = json!({ "status": { "started": {
        "nodeSelector": { "matchLabels": { "kubernetes.io/os": "linux" } },
        "target": { "runtime": "containerd" }, "source": { "keep": true } } } });
    objects
        .patch_status("m", &PatchParams::default(), &Patch::Merge(&started))
        .await
        .unwrap();

    for (change, expected) in [
        (
            json!({ "mode": "Plan" }),
            "spec.mode: it stays Apply once a node was started",
        ),
        (
            json!({ "nodeSelector": { "matchLabels": { "more": "" } } }),
            "spec.nodeSelector: it cannot change once a node was started",
        ),
        (
            json!({ "target": { "runtime": "cri-dockerd" } }),
            "spec.target: it cannot change once a node was started",
        ),
        (
            json!({ "source": { "keep": false } }),
            "spec.source: it cannot change once a node was started",
        ),
        (
            json!({ "source": null }),
            "spec.source: it cannot change once a node was started",
        ),
    ] {
        let refused = edit(&change).await.unwrap_err();
        assert!(refused.contains(expected), "{change}: {refused}");
    }
    let free = json!({ "paused": true, "strategy": { "maxUnavailable": 3, "controlPlane": "First" } });
    edit(&free).await.unwrap();
}
