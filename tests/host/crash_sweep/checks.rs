//! What a node must be in the end: one of the two, wholly.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use transship::{
    executor::{control::STATE, decide::End, unit::UNIT},
    plan::{
        document::PlannedStep,
        host_path::HostPath,
        step::{HOLD_FILE, Restart, Step},
    },
};

use crate::crash_sweep::{
    cases::Case,
    world::{Fault, Tree, World, stores},
};

/// What the node is after so many steps of the plan: every file as planned, all others untouched.
pub fn planned(case: &Case, before: &Tree, steps: usize) -> Tree {
    let mut tree = before.clone();
    for (path, mode, bytes) in &case.unpacked {
        tree.insert(path.relative().into(), (0o100_000 | mode, Some(bytes.clone())));
    }
    for step in case.plan.steps.iter().take(steps) {
        if let transship::plan::step::Step::File(step) = &step.does {
            let at = std::path::PathBuf::from(step.path.relative());
            match &step.want {
                Some(want) => {
                    let mode = tree.get(&at).map_or(0o100_000 | want.mode, |(mode, _)| *mode);
                    tree.insert(at, (mode, Some(want.text.clone().into_bytes())));
                }
                None => drop(tree.remove(&at)),
            }
        }
    }
    tree
}

pub fn files_only(tree: Tree) -> Tree {
    tree.into_iter()
        // What the links of units mean is looked at on its own.
        .filter(|(_, (mode, bytes))| bytes.is_some() && mode & 0o170_000 != 0o120_000)
        .collect()
}

/// What differs, in words.
pub fn differing(found: &Tree, wanted: &Tree) -> Vec<String> {
    let paths: BTreeSet<_> = found.keys().chain(wanted.keys()).collect();
    let differ = paths
        .into_iter()
        .filter(|path| found.get(*path) != wanted.get(*path));
    differ
        .map(|path| {
            let in_words = |tree: &Tree| match tree.get(path) {
                Some((mode, Some(bytes))) => format!("{mode:o} {:?}", String::from_utf8_lossy(bytes)),
                Some((mode, None)) => format!("{mode:o} directory"),
                None => "nothing".to_owned(),
            };
            format!(
                "{}: {}, not {}",
                path.display(),
                in_words(found),
                in_words(wanted)
            )
        })
        .collect()
}

/// Whether a step after the commit failed.
fn stays(journal: &str) -> bool {
    let committed = journal.find("\"event\":\"committed\"");
    committed.is_some_and(|at| journal[at..].contains("\"event\":\"failed\""))
}

/// Demands that the node is in the one of the two states that `end` names, wholly.
pub fn check(world: &Arc<World>, before: &Tree, end: End, schedule: &str) {
    let case = &world.case;
    world.boot_ends();
    let state = world.state();
    assert_eq!(state.violations, Vec::<String>::new(), "{schedule}");
    assert!(!state.rehearsing, "{schedule}: the rehearsal's sandbox is left");
    assert!(
        !state.leaked,
        "{schedule}: the kubelet was stopped while it created pods {}",
        world.journal()
    );
    assert!(
        !state.lost,
        "{schedule}: a pod that its runtime lost is left {}",
        world.journal()
    );
    assert!(
        state.masked.is_empty(),
        "{schedule}: {:?} are masked",
        state.masked
    );
    for left in ["archives", ".archives.transship"] {
        let path = HostPath::new(format!("{STATE}/{left}")).unwrap();
        assert!(
            !world.free_files().exists(&path).unwrap(),
            "{schedule}: {path} is left"
        );
    }
    assert!(
        world
            .free_files()
            .read(&HostPath::new(HOLD_FILE).unwrap())
            .unwrap()
            .is_none(),
        "{schedule}: held"
    );
    let unit_file = HostPath::new(format!("/etc/systemd/system/{UNIT}")).unwrap();
    assert!(
        !world.free_files().exists(&unit_file).unwrap(),
        "{schedule}: {unit_file} is left"
    );
    let own = &state.units[UNIT];
    assert_ne!(
        world.boot(UNIT, own),
        "enabled",
        "{schedule}: the executor would start again"
    );
    let (runtime, units) = match end {
        End::Committed => {
            // Where the last section could not be done, the switch stays committed without it.
            let steps = if stays(&world.journal()) {
                case.plan.switched()
            } else {
                case.plan.steps.len()
            };
            let planned = files_only(planned(case, before, steps));
            let found = files_only(world.tree());
            assert_eq!(differing(&found, &planned), [""; 0], "{schedule}");
            let all = world.tree();
            for planned in case.plan.steps.iter().take(steps) {
                if let Step::Link(link) = &planned.does {
                    let found = all.get(Path::new(link.path.relative()));
                    let to = found.and_then(|(_, bytes)| bytes.as_deref());
                    assert_eq!(to, Some(link.to.as_str().as_bytes()), "{schedule}: {}", link.path);
                }
            }
            (case.target(), case.final_units())
        }
        End::RolledBack => {
            assert_eq!(differing(&world.tree(), before), [""; 0], "{schedule}");
            for (unit, _) in &case.packaged {
                assert!(!state.units.contains_key(unit), "{schedule}: {unit} is left");
            }
            let units = case
                .units
                .iter()
                .map(|(name, active, boot)| (name.clone(), (*active, boot.clone())));
            (case.source(), units.collect())
        }
    };
    assert_eq!(
        state.pods.iter().copied().collect::<Vec<_>>(),
        [runtime],
        "{schedule}: pods"
    );
    // Those that stick leave their network once the source serves.
    assert_eq!(
        state.sandboxes.iter().copied().collect::<Vec<_>>(),
        [runtime],
        "{schedule}: sandboxes"
    );
    for (name, expected) in units {
        let unit = &state.units[&name];
        assert_eq!(
            (unit.active, world.boot(&name, unit)),
            expected,
            "{schedule}: {name}"
        );
        if unit.active {
            assert_eq!(
                *unit.runs_with,
                world.would_run_with(&state, &name),
                "{schedule}: {name} runs with other files"
            );
        }
    }
    let (source, before) = stores(case);
    let images = &state.images[&case.target()];
    match end {
        End::Committed => assert_eq!(*images, source, "{schedule}: images"),
        // A target that does not answer keeps its images; that is journalled.
        End::RolledBack if keeps_images(world.fault) || refuses_a_restart(world) => {}
        End::RolledBack => assert_eq!(*images, before, "{schedule}: images"),
    }
}

/// Whether the target has started and got images, and does not start any more once it has its last files.
fn refuses_a_restart(world: &World) -> bool {
    let at_once = |step: &PlannedStep| matches!(&step.does, Step::Unit(unit) if unit.restart == Restart::ForwardsAtOnce);
    world.fault == Fault::TargetRefusesConfig && world.case.plan.steps.iter().any(at_once)
}

/// Whether the target may not answer when its images would be taken back.
const fn keeps_images(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::TargetDies | Fault::TargetHangs | Fault::SandboxSticks | Fault::CallHangs(_)
    )
}
