//! The captured hosts in `tests/hosts` with the plan that the planner makes for them, as cases: which files and units
//! they have is read out of their facts.

use std::collections::{BTreeMap, BTreeSet};

use transship::{
    api::request::{Preflight, Runtime},
    plan::{document::Plan, facts::Facts, host_path::HostPath, step::Step},
    planner::{self, request::Request},
};

use crate::{
    crash_sweep::cases::{Case, path},
    fixtures,
};

/// The hosts in `tests/hosts` of which the planner makes a plan, one for each target that they can go to.
pub fn captured() -> Vec<Case> {
    let cases: Vec<Case> = fixtures::cases()
        .into_iter()
        .filter_map(|(name, facts, request)| case_of(&name, &facts, request))
        .collect();
    let pairs: BTreeSet<_> = cases.iter().map(|case| (case.source(), case.target())).collect();
    assert_eq!(pairs, fixtures::pairs(), "every pair is swept");
    cases
}

/// A containerd from an archive that takes the place of Docker's.
pub fn replaced() -> Case {
    let facts = fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    case_of("replaced", &facts, fixtures::from_archive(Runtime::Containerd)).unwrap()
}

/// A newer containerd from an archive that takes over the pods of the older one.
pub fn upgraded() -> Case {
    let (facts, request) = fixtures::upgrade();
    case_of("upgraded", &facts, request).unwrap()
}

/// The case of a host and a request, without what is brought: that is swept for itself.
fn case_of(name: &str, facts: &Facts, request: Request) -> Option<Case> {
    let facts = &with_names_of_packages(facts);
    let mut plan = accepted(facts, request)?;
    plan.steps
        .retain(|planned| !matches!(planned.does, Step::Install(_)));
    Some(of_plan(name, facts, plan))
}

/// The plan of a request. Findings that a person may accept are accepted: what is swept is the plan.
pub fn accepted(facts: &Facts, request: Request) -> Option<Plan> {
    let first = planner::plan(facts, &request);
    let allow = first
        .findings
        .iter()
        .map(|finding| finding.code.to_string())
        .collect();
    let accepted = Request {
        migration: "sweep".to_owned(),
        preflight: Preflight { allow },
        ..request
    };
    planner::plan(facts, &accepted).plan().cloned()
}

/// The host with the names that packages give to the units of cri-dockerd, which the world has: Kubespray's have others.
pub fn with_names_of_packages(facts: &Facts) -> Facts {
    let text = serde_json::to_string(facts).unwrap();
    let text = ["service", "socket"].iter().fold(text, |text, kind| {
        text.replace(&format!("cri-dockerd.{kind}"), &format!("cri-docker.{kind}"))
    });
    serde_json::from_str(&text).unwrap()
}

/// A host with a plan for it.
pub fn of_plan(name: &str, facts: &Facts, plan: Plan) -> Case {
    let mut found = Found::default();
    found.collect(&serde_json::to_value(facts).unwrap());
    let files = found.files.into_values().collect();
    let units: Vec<_> = found.units.into_values().collect();
    let mut case = Case::new(name, plan, files, units);
    case.bound = found.bound;
    let of_docker = facts.docker.iter().flat_map(|docker| &docker.service.exec_start);
    case.docker_wants_containerd = of_docker
        .into_iter()
        .any(|word| word.starts_with("--containerd="));
    let is_new = |path: &&HostPath| {
        let at = path.as_str().strip_prefix("/etc/systemd/system/");
        at.is_some_and(|name| !name.contains('/') && !case.units.iter().any(|(unit, ..)| unit == name))
    };
    let name_of = |path: &HostPath| path.as_str().rsplit('/').next().unwrap().to_owned();
    case.packaged = case
        .all_files()
        .filter(is_new)
        .map(|path| (name_of(path), path.clone()))
        .collect();
    case
}

/// Every file with its text, and every unit, wherever in the facts it is.
#[derive(Default)]
struct Found {
    files: BTreeMap<String, (HostPath, u32, Vec<u8>)>,
    units: BTreeMap<String, (String, bool, String)>,
    bound: BTreeMap<String, Vec<String>>,
}

impl Found {
    fn collect(&mut self, json: &serde_json::Value) {
        let text = |name: &str| json.get(name).and_then(|value| value.as_str());
        if let (Some(at), Some(content), Some(mode)) = (text("path"), text("text"), json.get("mode")) {
            let mode = u32::try_from(mode.as_u64().unwrap()).unwrap();
            let file = (path(at), mode, content.as_bytes().to_vec());
            self.files.insert(at.to_owned(), file);
        }
        if let (Some(name), Some(load), Some(active), Some(boot)) =
            (text("name"), text("load"), text("active"), text("boot"))
            && load != "not-found"
            && !name.is_empty()
        {
            let unit = (name.to_owned(), active == "active", boot.to_owned());
            self.units.insert(name.to_owned(), unit);
            let bound = json.get("boundTo").and_then(|value| value.as_array());
            let bound = bound.into_iter().flatten().filter_map(|unit| unit.as_str());
            self.bound
                .insert(name.to_owned(), bound.map(str::to_owned).collect());
        }
        match json {
            serde_json::Value::Array(inner) => inner.iter().for_each(|json| self.collect(json)),
            serde_json::Value::Object(inner) => inner.values().for_each(|json| self.collect(json)),
            _ => {}
        }
    }
}
