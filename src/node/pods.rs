//! The pods that ran before a switch by hand, and what of them runs now. By the operator a switch is confirmed when the API reports
//! the pods Ready again that were Ready before; by hand nobody asks the API, and the target is asked over its CRI.
//!
//! What ran before is in the facts that lie next to the plan since before its first step, so that a power cut, or another shell,
//! changes nothing. A pod is waited for if the kubelet still has a directory of it: one that was drained, deleted or replaced
//! since has none. Of a pod those containers must run that ran before, so that neither one that has done its work counts nor
//! one that never ran. The pods of a Job do not count: what of them failed with the switch, the Job replaces by another pod.
//!
//! A kubelet that does not reach its API server starts static pods alone. Then the others do not run, and nobody can tell
//! whether they could: the switch is not confirmed by itself, as it is by the operator.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::Instant;

use crate::{
    executor::control::{ControlError, Dir},
    host::files::Files,
    inspect::known_pods,
    plan::{
        document::Plan,
        facts::{Facts, SANDBOX},
        lists,
        runtime::Runtime,
        step::{AwaitStep, Endpoint, Side, Step},
    },
    runtime::{
        hosted::HostRuntimes,
        running::{PodContainer, PodContainerState, RunningPod},
    },
};

/// How long the same containers must run. A container that ends at once is started twice within this time: the kubelet waits
/// before its third start alone (`doBackOff` in `pkg/kubelet/kuberuntime/kuberuntime_manager.go`).
const STEADY: Duration = Duration::from_secs(5);
/// Most pods that are listed.
const SHOWN: usize = 10;

/// A pod that ran before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Before {
    uid: String,
    /// Namespace and name.
    name: String,
    /// The containers that ran.
    containers: BTreeSet<String>,
    /// The kubelet had a directory of it.
    known: bool,
}

impl Before {
    /// Whether the kubelet reads it from the node and not from the API: it computes the UID (`applyDefaults` in
    /// `pkg/kubelet/config/common.go`), which has no form of an RFC 4122 then.
    fn is_static(&self) -> bool {
        !self.uid.contains('-')
    }
}

/// The pods that ran under `source`.
fn before(facts: &Facts, source: Runtime) -> Vec<Before> {
    let all = facts
        .store(source)
        .into_iter()
        .flat_map(|store| &store.containers);
    let of_pods = all.filter_map(|container| Some((container, container.pod.as_ref()?)));
    let of_jobs: BTreeSet<&str> = of_pods
        .clone()
        .filter(|(container, _)| container.of_job)
        .map(|(_, pod)| &*pod.uid)
        .collect();
    let kubelet = facts.kubelet.as_ref();
    let known: BTreeSet<&str> = kubelet
        .iter()
        .flat_map(|kubelet| &kubelet.pods)
        .map(|pod| &*pod.uid)
        .collect();
    let mut pods = BTreeMap::<(String, &str), Before>::new();
    for (container, pod) in of_pods {
        if !container.running || pod.container == SANDBOX || of_jobs.contains(&*pod.uid) {
            continue;
        }
        let name = format!("{}/{}", pod.namespace, pod.name);
        let entry = pods.entry((name.clone(), &pod.uid)).or_insert_with(|| Before {
            uid: pod.uid.clone(),
            name,
            containers: BTreeSet::new(),
            known: known.contains(&*pod.uid),
        });
        entry.containers.insert(pod.container.clone());
    }
    pods.into_values().collect()
}

/// A pod that does not run as before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Absent<'a> {
    pod: &'a Before,
    why: Why<'a>,
}

/// Why a pod does not run as before.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Why<'a> {
    /// It has no sandbox that is ready.
    NoSandbox,
    /// A container, by its name, was not started.
    NotStarted(&'a str),
    /// A container, by its name, has ended.
    Ended(&'a str, &'a PodContainer),
}

impl std::fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoSandbox => f.write_str("it has no sandbox that is ready"),
            Self::NotStarted(name) => write!(f, "its container {name} was not started"),
            Self::Ended(name, _) => write!(f, "its container {name} has ended"),
        }
    }
}

/// What runs of the pods that ran before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Compared<'a> {
    /// The ids of their containers.
    running: BTreeSet<&'a str>,
    absent: Vec<Absent<'a>>,
}

/// Compares the pods that ran before with those that run `now`; `gone` are those that the kubelet has removed since.
fn compare<'a>(before: &'a [Before], gone: &BTreeSet<&str>, now: &'a [RunningPod]) -> Compared<'a> {
    let mut compared = Compared::default();
    for pod in before.iter().filter(|pod| !gone.contains(&*pod.uid)) {
        let Some(found) = now.iter().find(|found| found.uid == pod.uid) else {
            let why = Why::NoSandbox;
            compared.absent.push(Absent { pod, why });
            continue;
        };
        let mut wrong = None;
        for name in &pod.containers {
            let container = found.containers.get(name);
            match container.map(|container| (container, container.state)) {
                Some((container, PodContainerState::Runs)) => {
                    compared.running.insert(&container.id);
                }
                Some((container, PodContainerState::Ended)) => {
                    wrong.get_or_insert(Why::Ended(name, container));
                }
                Some((_, PodContainerState::Made)) | None => {
                    wrong.get_or_insert(Why::NotStarted(name));
                }
            }
        }
        compared.absent.extend(wrong.map(|why| Absent { pod, why }));
    }
    compared
}

/// The pods that ran before a switch, and who is asked for them now.
#[derive(Debug)]
pub struct Pods {
    files: Files,
    facts: Facts,
    before: Vec<Before>,
    target: Endpoint,
    steady: Option<(BTreeSet<String>, Instant)>,
}

/// What was seen of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How many ran before.
    pub before: usize,
    /// Those that do not run now, with the reason, a clause each.
    pub absent: Vec<String>,
    /// The others run, and none of those runs that the API server has: the kubelet may not reach it.
    pub api_may_be_away: bool,
    /// All run, and for long enough.
    pub steady: bool,
}

impl Pods {
    /// The pods of the switch in `dir`.
    ///
    /// # Errors
    /// When its facts cannot be read.
    pub fn of(files: &Files, dir: &Dir, plan: &Plan) -> Result<Option<Self>, ControlError> {
        let Some(facts) = dir.facts()? else {
            return Ok(None);
        };
        let Some(target) = target(plan) else {
            return Ok(None);
        };
        Ok(Some(Self {
            files: files.clone(),
            before: before(&facts, plan.source.runtime),
            facts,
            target: target.runtime.clone(),
            steady: None,
        }))
    }

    /// Looks which of them run now.
    ///
    /// # Errors
    /// When the target or the kubelet's directories cannot be read.
    pub async fn look(&mut self) -> anyhow::Result<Seen> {
        let known = match &self.facts.kubelet {
            Some(kubelet) => known_pods(&self.files, kubelet).context("looking for the kubelet's pods")?,
            None => BTreeSet::new(),
        };
        // Where there was no directory of a pod that ran, they say nothing of it.
        let gone = self
            .before
            .iter()
            .filter(|pod| pod.known && !known.contains(&pod.uid));
        let gone = gone.map(|pod| &*pod.uid).collect();
        let runtimes = HostRuntimes::new(self.files.clone());
        let now = runtimes.running_pods(&self.target).await?;
        let compared = compare(&self.before, &gone, &now);
        let mut absent = Vec::new();
        for Absent { pod, why } in &compared.absent {
            let ended = match why {
                Why::Ended(_, container) => runtimes.why_ended(&self.target, &container.id).await?,
                Why::NoSandbox | Why::NotStarted(_) => String::new(),
            };
            let ended = if ended.is_empty() {
                ended
            } else {
                format!(" ({ended})")
            };
            absent.push(format!("{}: {why}{ended}", pod.name));
        }
        let running: BTreeSet<String> = compared.running.iter().map(|id| (*id).to_owned()).collect();
        let seen = self.seen(&compared, &gone, absent);
        Ok(Seen {
            steady: self.keeps_steady(running, seen.absent.is_empty()),
            ..seen
        })
    }

    /// What was seen, with the pods that are `absent` in words.
    fn seen(&self, compared: &Compared<'_>, gone: &BTreeSet<&str>, absent: Vec<String>) -> Seen {
        let of_api = |pod: &&Before| !pod.is_static() && !gone.contains(&*pod.uid);
        let lacking = compared.absent.iter();
        let lacking = lacking.filter(|absent| absent.why == Why::NoSandbox && !absent.pod.is_static());
        let lacking = lacking.count();
        Seen {
            before: self.before.len() - gone.len(),
            api_may_be_away: lacking > 0
                && lacking == absent.len()
                && lacking == self.before.iter().filter(of_api).count(),
            steady: false,
            absent,
        }
    }

    /// Whether all run, and the same containers have run for long enough.
    fn keeps_steady(&mut self, running: BTreeSet<String>, all: bool) -> bool {
        let now = Instant::now();
        match &self.steady {
            _ if !all => self.steady = None,
            Some((before, since)) if *before == running => return now - *since >= STEADY,
            // Nothing ran: nothing is waited for.
            _ if running.is_empty() => return true,
            _ => self.steady = Some((running, now)),
        }
        false
    }

    /// What was seen in words: which pods do not run; nothing if all do.
    pub fn words(&self, seen: &Seen) -> Option<String> {
        if seen.absent.is_empty() {
            return None;
        }
        let mut lines = vec![format!(
            "{} of {} that ran before {} not run under {}:",
            seen.absent.len(),
            lists::count(seen.before, "pod"),
            if seen.absent.len() == 1 { "does" } else { "do" },
            self.target.runtime
        )];
        lines.extend(seen.absent.iter().take(SHOWN).map(|pod| format!("- {pod}")));
        if let Some(more) = seen.absent.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            lines.push(format!("- and {more} more"));
        }
        lines.push("`journalctl -u kubelet` has the reasons.".to_owned());
        if seen.api_may_be_away {
            lines.push(
                "None of the pods that the API server has runs: a kubelet that does not reach its API server starts static \
                 pods alone."
                    .to_owned(),
            );
        }
        Some(lines.join("\n"))
    }
}

/// What is awaited of the target last.
pub(super) fn target(plan: &Plan) -> Option<&AwaitStep> {
    plan.steps.iter().rev().find_map(|planned| match &planned.does {
        Step::Await(
            step @ AwaitStep {
                side: Side::Target, ..
            },
        ) => Some(step),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::plan::facts::{Container, KubeletPod, PodRef};

    /// A worker as it was captured: eight pods under Docker, none of them static. The kubelet has a directory of each.
    fn facts() -> Facts {
        let text = include_str!("../../tests/hosts/debian12-kubeadm-1.23-captured/facts.json");
        let mut facts: Facts = crate::edit::parse::json(text).unwrap();
        let directory = |pod: Before| KubeletPod {
            uid: pod.uid,
            name: None,
            containers: Vec::new(),
        };
        let pods = before(&facts, Runtime::Dockershim).into_iter().map(directory);
        facts.kubelet.as_mut().unwrap().pods = pods.collect();
        facts
    }

    /// All containers of Docker.
    fn containers(facts: &mut Facts) -> &mut Vec<Container> {
        let docker = facts.docker.as_mut().unwrap();
        &mut docker.engine.as_mut().unwrap().store.containers
    }

    /// What runs once every pod runs again.
    fn all_run(before: &[Before]) -> Vec<RunningPod> {
        let containers = |pod: &Before| {
            let named = pod.containers.iter().map(|name| {
                let id = format!("{}-{name}", pod.uid);
                let state = PodContainerState::Runs;
                (name.clone(), PodContainer { id, state })
            });
            named.collect()
        };
        let pods = before.iter().map(|pod| RunningPod {
            uid: pod.uid.clone(),
            containers: containers(pod),
        });
        pods.collect()
    }

    #[rstest]
    #[case::it_runs(Some(PodContainerState::Runs), None)]
    #[case::it_cannot_start(Some(PodContainerState::Ended), Some("its container server has ended"))]
    #[case::it_is_made(Some(PodContainerState::Made), Some("its container server was not started"))]
    #[case::its_image_is_missing(None, Some("its container server was not started"))]
    fn a_pod_runs_when_the_containers_run_that_ran_before(
        #[case] state: Option<PodContainerState>,
        #[case] why: Option<&str>,
    ) {
        let before = before(&facts(), Runtime::Dockershim);
        let mut now = all_run(&before);
        let of_web = now.last_mut().unwrap();
        let mut server = of_web.containers.remove("server").unwrap();
        // One that has done its work, and did not run before either.
        let done = PodContainer {
            id: "init".to_owned(),
            state: PodContainerState::Ended,
        };
        of_web.containers.insert("init".to_owned(), done);
        if let Some(state) = state {
            server.state = state;
            of_web.containers.insert("server".to_owned(), server);
        }
        let compared = compare(&before, &BTreeSet::new(), &now);
        let absent: Vec<_> = compared
            .absent
            .iter()
            .map(|absent| (absent.pod.name.clone(), absent.why.to_string()))
            .collect();
        let expected = why.map(|why| ("lab/web-99f8d89b5-bcvmb".to_owned(), why.to_owned()));
        assert_eq!(absent, Vec::from_iter(expected));
        assert_eq!(compared.running.len(), 8 - absent.len());
    }

    #[test]
    fn pods_without_a_sandbox_do_not_run() {
        let before = before(&facts(), Runtime::Dockershim);
        let compared = compare(&before, &BTreeSet::new(), &[]);
        assert_eq!((compared.absent.len(), compared.running.len()), (8, 0));
        assert!(compared.absent.iter().all(|absent| absent.why == Why::NoSandbox));
    }

    /// Drained, deleted or replaced pods have no directory any more. Those of a Job fail with the switch, and what had ended
    /// before it does not start again.
    #[test]
    fn pods_that_are_not_started_again_are_not_waited_for() {
        let mut facts = facts();
        for container in containers(&mut facts) {
            let Some(pod) = &container.pod else { continue };
            container.of_job = pod.name == "member-1" && pod.container == SANDBOX;
            container.running &= !pod.name.starts_with("per-node");
        }
        let before = before(&facts, Runtime::Dockershim);
        let names: Vec<&str> = before.iter().map(|pod| pod.name.as_str()).collect();
        assert_eq!(names.len(), 6, "{names:?}");
        assert!(!names.contains(&"lab/member-1"), "{names:?}");
        let gone: BTreeSet<&str> = before.iter().take(2).map(|pod| pod.uid.as_str()).collect();
        assert_eq!(compare(&before, &gone, &all_run(&before[2..])).absent, []);
        assert_eq!(
            compare(&before, &BTreeSet::new(), &all_run(&before[2..]))
                .absent
                .len(),
            2
        );
    }

    fn pods(facts: Facts) -> Pods {
        Pods {
            files: Files::new("/nowhere"),
            before: before(&facts, Runtime::Dockershim),
            facts,
            target: Endpoint {
                runtime: Runtime::CriO,
                socket: crate::plan::host_path::HostPath::new("/run/crio/crio.sock").unwrap(),
            },
            steady: None,
        }
    }

    fn ids(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    /// A container that ends at once runs at many looks, each time with another id.
    #[tokio::test(start_paused = true)]
    async fn pods_must_run_on_with_the_same_containers() {
        let mut pods = pods(facts());
        let mut after = async |secs, running: &[&str], all| {
            tokio::time::advance(Duration::from_secs(secs)).await;
            pods.keeps_steady(ids(running), all)
        };
        assert!(!after(0, &["a", "b"], true).await);
        assert!(!after(4, &["a", "b"], true).await);
        assert!(!after(1, &["a", "c"], true).await, "b was started again");
        assert!(!after(4, &["a"], false).await, "it has ended again");
        assert!(!after(4, &["a", "d"], true).await);
        assert!(after(5, &["a", "d"], true).await);
        assert!(after(0, &[], true).await, "nothing ran before");
    }

    #[test]
    fn an_api_server_that_may_be_away_is_said() {
        let mut facts = facts();
        let pod = PodRef {
            namespace: "kube-system".to_owned(),
            name: "etcd-n1".to_owned(),
            uid: "0123456789abcdef0123456789abcdef".to_owned(),
            container: "etcd".to_owned(),
        };
        containers(&mut facts).push(Container {
            id: "e".to_owned(),
            name: "etcd".to_owned(),
            image_id: String::new(),
            running: true,
            pod: Some(pod),
            mounts: Vec::new(),
            no_new_privileges: false,
            of_job: false,
        });
        let pods = pods(facts);
        let all = all_run(&pods.before);
        let is_static = |pod: &&RunningPod| !pod.uid.contains('-');
        let seen = |now: &[RunningPod]| {
            let compared = compare(&pods.before, &BTreeSet::new(), now);
            pods.seen(
                &compared,
                &BTreeSet::new(),
                vec!["lab/web: it ended".to_owned(); compared.absent.len()],
            )
        };
        let words = |now: &[RunningPod]| pods.words(&seen(now)).unwrap_or_default();
        let of_static: Vec<RunningPod> = all.iter().filter(is_static).cloned().collect();
        let of_api: Vec<RunningPod> = all.iter().filter(|pod| !is_static(pod)).cloned().collect();
        assert!(words(&of_static).contains("does not reach its API server"));
        let one = words(&of_api);
        assert!(
            one.starts_with("1 of 9 pods that ran before does not run under cri-o:"),
            "{one}"
        );
        assert!(!one.contains("API server"), "{one}");
        assert!(!words(&[]).contains("API server"), "no static pod runs either");
        assert!(!words(&all[1..]).contains("API server"));
        assert_eq!(words(&all), "");
    }
}
