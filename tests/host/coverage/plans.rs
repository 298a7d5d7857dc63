//! What the plans of the captured hosts have in them.

use std::collections::BTreeSet;

use transship::{
    api::request::{DrainMode, Runtime},
    plan::{
        document::Plan,
        facts::Facts,
        step::{InstallStep, Layers, Proof, Step},
    },
    planner::request::Request,
};

use super::{Pair, Row};
use crate::{crash_sweep::captured, fixtures};

/// A captured host, what is asked for, and the plan.
pub(super) struct Planned {
    pub(super) facts: Facts,
    pub(super) request: Request,
    pub(super) plan: Plan,
}

impl Planned {
    fn of(facts: Facts, request: Request) -> Option<Self> {
        let plan = captured::accepted(&facts, request.clone())?;
        Some(Self { facts, request, plan })
    }

    pub(super) fn pair(&self) -> Pair {
        (self.plan.source.runtime, self.plan.target.runtime)
    }

    fn has(&self, what: &dyn Fn(&Step) -> bool) -> bool {
        self.plan.steps.iter().any(|planned| what(&planned.does))
    }
}

/// All of them.
pub(super) fn planned() -> Vec<Planned> {
    let (facts, request) = fixtures::upgrade();
    let upgrade = ("upgrade".to_owned(), facts, request);
    let cases = fixtures::cases().into_iter().chain([upgrade]);
    cases
        .filter_map(|(_, facts, request)| Planned::of(facts, request))
        .collect()
}

/// The same hosts with a target that is installed, and with one that the plan brings along, beside what is installed or alone.
fn otherwise(planned: &[Planned]) -> [Vec<Planned>; 3] {
    let with = |request: fn(Runtime) -> Request, installed: bool| {
        let mut seen = BTreeSet::new();
        let hosts = planned.iter().filter_map(|one| {
            let (source, target) = one.pair();
            let (mut facts, request) = (one.facts.clone(), request(target));
            match target {
                _ if seen.contains(&one.pair()) => return None,
                Runtime::CriO if installed => facts.crio = Some(fixtures::installed_cri_o()),
                _ if installed || source == target => {}
                Runtime::CriDockerd => facts.cri_dockerd = None,
                Runtime::CriO => facts.crio = None,
                _ => facts.containerd = None,
            }
            let planned = Planned::of(facts, request)?;
            seen.insert(planned.pair());
            Some(planned)
        });
        hosts.collect::<Vec<_>>()
    };
    let mut archives = with(fixtures::from_archive, false);
    archives.extend(with(fixtures::from_archive, true));
    [
        with(fixtures::to, true),
        archives,
        with(fixtures::from_package, false),
    ]
}

pub(super) fn rows() -> Vec<Row> {
    let planned = planned();
    let otherwise = otherwise(&planned);
    let all = || planned.iter().chain(otherwise.iter().flatten());
    let row = |what: &str, is: &dyn Fn(&Planned) -> bool| {
        Row::of(what, all().filter(|one| is(one)).map(Planned::pair))
    };
    let with = |what: &str, has: &dyn Fn(&Step) -> bool| row(what, &|one| one.has(has));
    let found = |one: &Planned, codes: &[&str]| {
        let findings = &one.plan.findings;
        findings.iter().any(|finding| codes.contains(&&*finding.code))
    };
    let mut hosts = Row::new("captured hosts");
    for one in &planned {
        let count = hosts.marks.entry(one.pair()).or_insert_with(|| "0".to_owned());
        *count = (count.parse::<u32>().unwrap() + 1).to_string();
    }
    let mut rows = vec![
        hosts,
        row("a worker", &|one| {
            one.facts.kubelet.as_ref().unwrap().static_pod_images.is_empty()
        }),
        row("a control plane node", &|one| {
            !one.facts.kubelet.as_ref().unwrap().static_pod_images.is_empty()
        }),
        row("a target that is installed", &|one| {
            !one.has(&|step| matches!(step, Step::Install(_)))
        }),
    ];
    for (what, package) in [
        ("a target from an archive", false),
        ("a target from a package", true),
    ] {
        rows.push(with(what, &|step| match step {
            Step::Install(InstallStep::Archive(_)) => !package,
            Step::Install(InstallStep::Package(_)) => package,
            _ => false,
        }));
    }
    rows.extend([
        with("step `File`", &|step| matches!(step, Step::File(_))),
        with("step `Link`", &|step| matches!(step, Step::Link(_))),
        with("step `Unit`", &|step| matches!(step, Step::Unit(_))),
        with("step `Images`, layers linked", &|step| {
            matches!(step, Step::Images(images) if matches!(images.layers, Layers::Linked { .. }))
        }),
        with("step `Images`, layers streamed", &|step| {
            matches!(step, Step::Images(images) if matches!(images.layers, Layers::Streamed { .. }))
        }),
        with("step `Rehearse`, in the pod network", &|step| {
            matches!(step, Step::Rehearse(rehearsal) if rehearsal.pod_network && rehearsal.proof == Proof::Own)
        }),
        with("step `Rehearse`, proof of the pod network after the switch", &|step| {
            matches!(step, Step::Rehearse(rehearsal) if rehearsal.proof != Proof::Own)
        }),
        with("step `RehearseDaemon`", &|step| matches!(step, Step::RehearseDaemon(_))),
        with("step `StopPods`", &|step| matches!(step, Step::StopPods(_))),
        with("step `ClearPods`", &|step| matches!(step, Step::ClearPods(_))),
        with("step `Kubelet`", &|step| matches!(step, Step::Kubelet(_))),
        with("step `Await`", &|step| matches!(step, Step::Await(_))),
        with("steps `Tasks` and `Shims`", &|step| matches!(step, Step::Tasks(_) | Step::Shims(_))),
        with("effective configuration of the target compared", &|step| {
            matches!(step, Step::Await(wait) if wait.configuration.is_some())
        }),
        with("effective settings of its unit compared", &|step| {
            matches!(step, Step::Unit(unit) if unit.effective.is_some())
        }),
        row("Docker's settings translated", &|one| {
            found(one, &["DockerSettingCarried", "DockerSettingApproximated"])
        }),
        row("changes that pods see are told", &|one| {
            found(one, &["UnprivilegedPorts", "LogsShrink", "LogsGrow", "LocalhostChanges", "CapabilitiesChange"])
        }),
        {
            let in_place = planned.iter().filter_map(|one| {
                let mut request = one.request.clone();
                request.drain.mode = DrainMode::InPlace;
                Planned::of(one.facts.clone(), request)
            });
            Row::of("in place, without a drain", in_place.map(|one| one.pair()))
        },
    ]);
    rows
}
