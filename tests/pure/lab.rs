//! What tests of plans have in common: the node that most of them change, and what blocks it.

use transship::{
    plan::{
        cluster::PodFacts,
        facts::{Engine, Facts},
        finding::Severity,
    },
    planner::{
        plan,
        request::{Request, Verdict},
    },
};

/// A node of the lab with dockershim, Docker 20.10.24 and containerd 1.6.20.
pub(crate) const LAB: &str = "debian12-kubeadm-1.23-dockershim";

/// Docker Engine of a node on which it answers.
pub(crate) fn engine(facts: &mut Facts) -> &mut Engine {
    facts.docker.as_mut().unwrap().engine.as_mut().unwrap()
}

/// What the API server reports of the pods, for a request that changes it.
pub(crate) fn with_pods(request: &mut Request) -> &mut PodFacts {
    &mut request.cluster.get_or_insert_default().pods
}

/// The codes that block.
pub(crate) fn blocking(facts: &Facts, request: &Request) -> Vec<String> {
    let outcome = plan(facts, request);
    let codes: Vec<String> = outcome
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Block)
        .map(|finding| finding.code.clone())
        .collect();
    assert_eq!(
        matches!(outcome.verdict, Verdict::Blocked | Verdict::Held(_)),
        !codes.is_empty(),
        "{:?}",
        outcome.findings
    );
    codes
}
