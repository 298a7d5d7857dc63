//! The runtime that a node uses and the one that is asked for: whether there is a plan from one to the other.

use crate::{
    plan::{
        codes::runtimes::{
            ALREADY_ON_TARGET, TARGET_VERSION_MISMATCH, TARGET_VERSION_OLDER, UNKNOWN_ENDPOINT,
        },
        facts::Facts,
        finding::Finding,
        kubelet_settings::Settings,
        request::Origin,
        runtime::Runtime,
        version,
    },
    planner::{
        context::{Source, SourcePart, Target, TargetPart},
        refusals,
        request::Request,
        runtimes,
    },
};

/// What is to be done between the runtime in use and the one that is asked for.
#[derive(Clone, Debug)]
pub enum Pair<'a> {
    /// Nothing: the node uses the target already.
    Same,
    /// A move from one runtime to another, whose pods take the place of those of the first.
    Replace(Box<Both<'a>>),
    /// A newer version of the runtime in use, which takes over its pods.
    Upgrade(Box<Both<'a>>),
}

/// The two runtimes of a plan, both at hand.
#[derive(Clone, Debug)]
pub struct Both<'a> {
    /// The runtime that is left.
    pub source: Source<'a>,
    /// The runtime that is gone to.
    pub target: Target,
    /// The two parts of the plan.
    pub parts: (SourcePart, TargetPart),
}

/// Which pair it is, or why it cannot be planned. The runtime in use is the one behind the kubelet's endpoint.
pub fn pair<'a>(facts: &'a Facts, settings: &Settings, request: &Request) -> Result<Pair<'a>, Finding> {
    let source = settings.runtime.ok_or_else(|| {
        UNKNOWN_ENDPOINT.found(
            format!("the kubelet's CRI endpoint is {:?}", settings.endpoint),
            "This node is left as it is: Transship does not support the runtime at that endpoint.",
        )
    })?;
    let target = request.target.runtime;
    let parts = runtimes::planner_of(source)
        .and_then(|planner| planner.source)
        .zip(runtimes::planner_of(target).and_then(|planner| planner.target));
    let Some((leave, arrive)) = parts else {
        return Err(refusals::pair(source, target));
    };
    if source == target {
        return same(facts, settings, request, (leave, arrive));
    }
    Ok(Pair::Replace(Box::new(Both {
        source: (leave.look)(facts, settings)?,
        target: (arrive.look)(facts, request)?,
        parts: (leave, arrive),
    })))
}

/// A node that uses the runtime that is asked for, if its version is the one that is asked for.
fn same<'a>(
    facts: &'a Facts,
    settings: &Settings,
    request: &Request,
    (leave, arrive): (SourcePart, TargetPart),
) -> Result<Pair<'a>, Finding> {
    // Whatever serves the kubelet is there; where its unit is not the usual one, its version is not known.
    let source = (leave.look)(facts, settings);
    let runs = source.as_ref().ok().map(|source| source.version.clone());
    let asked = (arrive.look)(facts, request);
    // A version that is brought is not that of the node only because one of the two is not known.
    let is_brought = !matches!(request.target.from, Origin::Preinstalled(_)) && arrive.upgrade.is_some();
    let is_there = runs.as_deref().zip(request.target.version.as_deref());
    let is_there = is_there.is_some_and(|(runs, wanted)| version::is_as_asked(runs, wanted).unwrap_or(false));
    let (source, asked) = if is_brought && !is_there {
        (Some(source?), Some(asked?))
    } else {
        (source.ok(), asked.ok())
    };
    let delivered = asked.as_ref().and_then(|target| target.delivery.as_ref());
    let installed = asked
        .as_ref()
        .filter(|_| delivered.is_none())
        .map(|target| target.version.clone());
    let wanted = request.target.version.as_deref();
    let wanted = wanted.or(delivered.map(|delivery| &*delivery.version));
    let mismatch = runs
        .or(installed)
        .and_then(|found| version_as_asked(request.target.runtime, &found, wanted));
    let Some(mismatch) = mismatch else {
        return Ok(Pair::Same);
    };
    match (source, asked) {
        (Some(source), Some(target)) if arrive.upgrade.is_some() && target.is_unpacked() => {
            newer(&source, &target)?;
            Ok(Pair::Upgrade(Box::new(Both {
                source,
                target,
                parts: (leave, arrive),
            })))
        }
        _ => Err(mismatch),
    }
}

/// Whether a version is newer than the one in use.
fn newer(source: &Source<'_>, target: &Target) -> Result<(), Finding> {
    let versions = version::release(&source.version).zip(version::release(&target.version));
    match versions {
        Some((runs, wanted)) if wanted > runs => Ok(()),
        Some(_) => Err(TARGET_VERSION_OLDER.found(
            format!(
                "{} {} serves this node, and {} is asked for",
                source.runtime, source.version, target.version
            ),
            "Bring a newer version. To return to an older one, roll the upgrade back.",
        )),
        None => Err(TARGET_VERSION_MISMATCH.found(
            format!(
                "{:?} and {:?} of {} cannot be compared",
                source.version, target.version, source.runtime
            ),
            "Set target.version to the whole version (2.4.2).",
        )),
    }
}

/// The finding that says that the node is on the target already.
pub fn already_there(settings: &Settings) -> Finding {
    ALREADY_ON_TARGET.found(
        format!("the kubelet uses {}", settings.endpoint),
        "Nothing is to be done.",
    )
}

/// The finding for a version of `runtime` that is not the one that is asked for.
pub fn version_as_asked(runtime: Runtime, found: &str, wanted: Option<&str>) -> Option<Finding> {
    let wanted = wanted?;
    let Ok(fits) = version::is_as_asked(found, wanted) else {
        return Some(TARGET_VERSION_MISMATCH.found(
            format!("target.version {wanted:?} is neither a version nor a range"),
            "Write a version (1.7.28) or a semver range (>=1.6, <2).",
        ));
    };
    (!fits).then(|| {
        TARGET_VERSION_MISMATCH.found(
            format!("{runtime} {found} is installed, and {wanted} is asked for"),
            "Install that version on the node, or change target.version.",
        )
    })
}
