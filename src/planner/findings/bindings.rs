//! What the kubelet's unit says of units of the source, which are stopped after the switch. systemd adds up what all files of a unit say
//! of other units, so no drop-in could take it back (systemd.unit(5)): a person has to.

use std::collections::BTreeSet;

use crate::{
    plan::{
        codes::kubelet::{KUBELET_BOUND_TO_SOURCE, KUBELET_STARTS_SOURCE},
        facts::UnitFacts,
        finding::Finding,
        lists,
        step::{Boot, KUBELET_UNIT, Step},
    },
    planner::context::View,
};

/// Checks of the units that the plan stops; none where the runtime stays.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    if view.upgrades() {
        return Vec::new();
    }
    // Why there are none is said where the plan is put together.
    let steps = (view.parts.0.settle)(view).unwrap_or_default();
    let (mut stopped, mut masked) = (BTreeSet::new(), BTreeSet::new());
    for step in &steps {
        if let Step::Unit(unit) = step {
            if unit.active == Some(false) {
                stopped.insert(unit.unit.as_str());
            }
            if unit.boot == Some(Boot::Masked) {
                masked.insert(unit.unit.as_str());
            }
        }
    }
    let bound: Vec<String> = (view.kubelet.unit.bound_to.iter())
        .filter(|unit| stopped.contains(unit.as_str()))
        .cloned()
        .collect();
    // What only wants a masked unit starts without it.
    let started: Vec<String> = units(view)
        .filter(|unit| stopped.contains(unit.name.as_str()) && !masked.contains(unit.name.as_str()))
        .filter(|unit| !bound.contains(&unit.name) && unit.needed_by.iter().any(|by| by == KUBELET_UNIT))
        .map(|unit| unit.name.clone())
        .collect();
    let mut findings = Vec::new();
    if !bound.is_empty() {
        let bound = lists::many(&bound);
        findings.push(KUBELET_BOUND_TO_SOURCE.found(
            format!("{KUBELET_UNIT} does not run without {bound}, which the plan stops after the switch"),
            format!(
                "Remove {bound} from Requires=, BindsTo=, Requisite= and PartOf= of the kubelet's unit, run `systemctl daemon-reload`, \
                 and plan again; Docker can be kept with `source.keep`."
            ),
        ));
    }
    if !started.is_empty() {
        let started = lists::many(&started);
        findings.push(KUBELET_STARTS_SOURCE.found(
            format!("{KUBELET_UNIT} wants {started}, which the plan stops, and cannot mask: it starts again with the kubelet"),
            format!("Remove {started} from Wants= of the kubelet's unit, and run `systemctl daemon-reload`."),
        ));
    }
    findings
}

/// The units of all runtimes.
fn units<'a>(view: &View<'a>) -> impl Iterator<Item = &'a UnitFacts> {
    let docker = view.docker.into_iter();
    let docker = docker.flat_map(|docker| [&docker.service, &docker.socket]);
    let installed = view.facts.installed().into_values();
    docker.chain(installed.flat_map(|found| std::iter::once(found.service).chain(found.socket)))
}
