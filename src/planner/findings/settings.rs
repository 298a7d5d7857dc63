//! What becomes of the source's settings: nothing is dropped in silence.

use crate::{
    plan::{
        codes::settings::{
            DOCKER_SETTING_APPROXIMATED, DOCKER_SETTING_CARRIED, DOCKER_SETTING_NOT_CARRIED,
            SETTING_APPROXIMATED, SETTING_CARRIED, SETTING_NOT_CARRIED,
        },
        finding::Finding,
    },
    planner::{
        context::View,
        setting::{Fate, Given},
    },
};

/// What a person does about what is not quite the same.
const ENOUGH: &str = "Check that this is enough for the pods of this node.";

/// What becomes of every setting of the source that is set, in the order of their names.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let settings = view.translation.settings.iter().cloned();
    let [carried, approximated, not_carried] = if view.source.runtime.runs_on_docker() {
        [
            DOCKER_SETTING_CARRIED,
            DOCKER_SETTING_APPROXIMATED,
            DOCKER_SETTING_NOT_CARRIED,
        ]
    } else {
        [SETTING_CARRIED, SETTING_APPROXIMATED, SETTING_NOT_CARRIED]
    };
    let source = view.source.runtime.store();
    settings
        .filter_map(|setting| {
            let name = format!("{source}'s {}", setting.name);
            let finding = match setting.fate {
                Fate::Carried(Given::Handler(handler), how) => {
                    carried.found(format!("{name}: {how}"), runtime_class(&handler.name))
                }
                Fate::Carried(_, how) | Fate::Inherent(how) => {
                    carried.found(format!("{name}: {how}"), "Nothing is to be done.")
                }
                Fate::Approximated(Some(Given::Handler(handler)), how) => {
                    let remedy = format!("{ENOUGH} {}", runtime_class(&handler.name));
                    approximated.found(format!("{name}: {how}"), remedy)
                }
                Fate::Approximated(_, how) => approximated.found(format!("{name}: {how}"), ENOUGH),
                Fate::NotCarried(what) => not_carried.found(format!("{name} is not carried over"), what),
                Fate::SourcesOwn => return None,
            };
            Some(finding.about(setting.name))
        })
        .collect()
}

/// What pods need that name a runtime: a `RuntimeClass`, whose handler is a label of DNS
/// (`pkg/apis/node/validation/validation.go` of Kubernetes).
fn runtime_class(handler: &str) -> String {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_label = (1..64).contains(&handler.len())
        && handler.chars().all(allowed)
        && !handler.starts_with('-')
        && !handler.ends_with('-');
    if !is_label {
        return format!(
            "No RuntimeClass can name it: a handler has lower-case letters, digits and `-` alone. Give {handler} such a name where \
             pods are to choose it."
        );
    }
    let class = serde_json::json!({
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": { "name": handler },
        "handler": handler,
    });
    format!(
        "Pods choose it by a RuntimeClass whose handler is {handler}. Where there is none yet: kubectl apply -f - <<< '{class}'"
    )
}
