//! CRI-O as it was found, or as the plan is going to write its unit.

use std::borrow::Cow;

use crate::{
    plan::{
        facts::{Crio, Facts, UnitFacts},
        finding::Finding,
        paths::{CRIO_CONFIG, CRIO_DROP_IN, CRIO_SOCKET},
        runtime::Runtime,
        step::Endpoint,
    },
    planner::steps::{future_unit, maybe, path},
};

/// Its unit.
pub(super) const SERVICE: &str = "crio.service";

/// Where its CRI is.
pub(super) fn endpoint(crio: &Crio) -> Endpoint {
    Endpoint {
        runtime: Runtime::CriO,
        socket: crio.endpoint.clone(),
    }
}

/// CRI-O as it was found, or as the plan is going to write its unit.
pub(super) fn crio(facts: &Facts) -> Result<Cow<'_, Crio>, Finding> {
    if let Some(found) = &facts.crio {
        return Ok(Cow::Borrowed(found));
    }
    Ok(Cow::Owned(Crio {
        service: future_unit(SERVICE, &["crio"]),
        version: String::new(),
        effective: None,
        endpoint: path(CRIO_SOCKET)?,
        cri: None,
        store: None,
        config: maybe(facts, CRIO_CONFIG)?,
        drop_in: maybe(facts, CRIO_DROP_IN)?,
        policy: None,
        namespace_policies: Vec::new(),
        wipe: UnitFacts::default(),
    }))
}
