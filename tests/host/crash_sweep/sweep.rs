//! The schedules of deaths: the executor dies at every moment, and again while it recovers.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use transship::executor::{decide::End, run::Outcome, unit::UNIT};

use crate::crash_sweep::{
    cases::Case,
    checks::check,
    disk::Left,
    lives::{Others, begin, begin_undo, live_on},
    random::{Random, seed, whole},
    world::{Fault, Moment, path},
};

/// The link that makes the executor start at a boot.
const WANTED: &str = "/etc/systemd/system/multi-user.target.wants/transship-executor.service";

/// How an executor dies.
#[derive(Clone, Copy, Debug)]
pub enum Death {
    /// Alone.
    Killed,
    /// With the machine.
    PowerCut(Left),
}

/// Dies as `death` says at `moment`; answers the moment after it, and whether the machine has to boot.
pub fn die(moment: &Moment, death: Death) -> (Moment, bool) {
    match death {
        Death::Killed => (moment.clone(), false),
        Death::PowerCut(left) => (moment.after_power_cut(left), true),
    }
}

/// What is swept: a case, what goes wrong, what the others do, and at how many effects of the recovery from a first
/// crash the executor dies once more: at every n-th, or at none.
pub struct Sweep<'a> {
    case: &'a Arc<Case>,
    fault: Fault,
    others: Others,
    again: Option<Again>,
    /// A first death at every moment, or at every n-th alone.
    every: usize,
    /// Whether power cuts leave a drawn part of what was not synced, too.
    parts: bool,
    seed: u64,
}

/// At which effects of a recovery the executor dies once more.
#[derive(Clone, Copy, Debug)]
pub enum Again {
    /// Every n-th of all.
    Every(usize),
    /// So many of each of some recoveries, all of them drawn at random.
    Drawn { of_each: usize },
}

/// One recovery of so many is drawn.
pub const DRAWN_OF: u64 = 150;

/// What came of it.
#[derive(Debug, Default)]
pub struct Swept {
    /// Lives after a death that differed from all others.
    schedules: usize,
    /// Of those, after a power cut that left a drawn part.
    drawn: usize,
    committed: usize,
    rolled_back: usize,
}

impl<'a> Sweep<'a> {
    /// One death each.
    pub fn new(case: &'a Arc<Case>, fault: Fault, others: Others) -> Self {
        Self {
            case,
            fault,
            others,
            again: None,
            every: 1,
            parts: whole(),
            seed: seed(),
        }
    }

    /// A second death at every n-th effect of all recoveries, or at more of them where nothing is left out.
    pub fn again(self, every: usize) -> Self {
        let every = if whole() { every.min(50) } else { every };
        Self {
            again: Some(Again::Every(every)),
            ..self
        }
    }

    /// First deaths at every n-th moment alone, beginning with a drawn one, unless the whole is swept.
    pub fn sampled(self, every: usize) -> Self {
        Self {
            every: if whole() { 1 } else { every },
            ..self
        }
    }

    /// Power cuts that leave a drawn part of what was not synced, too.
    pub fn parts(self) -> Self {
        Self { parts: true, ..self }
    }

    /// Second deaths that are drawn at random.
    pub fn drawn(self) -> Self {
        Self {
            again: Some(Again::Drawn { of_each: 2 }),
            ..self
        }
    }

    /// Kills the executor before every effect, lets it recover, and kills it again while it recovers. Two deaths
    /// that leave the same world are one.
    pub fn run(&self) -> Swept {
        let name = format!("{}, {:?}, {:?}", self.case.name, self.fault, self.others);
        let world = begin(self.case, self.fault);
        let before = world.tree();
        if self.others == Others::Undo {
            begin_undo(&world);
        }
        world.take_moments();
        let mut random = Random(self.seed);
        let first = random.below(self.every as u64) as usize;
        let mut swept = Swept::default();
        let mut seen = HashSet::new();
        let mut counter = 0;
        let mut queue = VecDeque::from([(world.moment(), false, Vec::<(usize, Death)>::new())]);
        while let Some((start, boot, deaths)) = queue.pop_front() {
            let schedule = format!("{name}, SWEEP_SEED={}: died at {deaths:?}", self.seed);
            world.restore(&start);
            if boot {
                world.reboot();
            }
            let keep = match (deaths.len(), self.again) {
                (0, _) | (1, Some(Again::Every(_))) => true,
                (1, Some(Again::Drawn { .. })) => random.below(DRAWN_OF) == 0,
                _ => false,
            };
            // After a boot systemd starts what is enabled; without one it restarts what failed.
            let own = world.state().units[UNIT].clone();
            let lives = !boot || world.boot(UNIT, &own) == "enabled";
            if lives {
                match live_on(&world, self.others, keep) {
                    Ok(Outcome::Ended(_)) => {}
                    other => panic!("{schedule}: {other:?}"),
                }
            }
            let end = if world.journal().contains("\"event\":\"rolledBack\"") {
                swept.rolled_back += 1;
                End::RolledBack
            } else {
                swept.committed += 1;
                End::Committed
            };
            check(&world, &before, end, &schedule);
            // Only a power cut between the two leaves the link, which nothing follows.
            let link = world.free_files().read_link(&path(WANTED)).unwrap();
            assert!(
                !lives || link.is_none(),
                "{schedule}: {WANTED} is left by an executor that lived"
            );
            swept.schedules += 1;
            let moments = world.take_moments();
            for (at, moment) in moments.iter().enumerate() {
                counter += 1;
                let dies = if deaths.is_empty() {
                    at % self.every == first
                } else {
                    match self.again {
                        Some(Again::Every(n)) => counter % n == 0,
                        Some(Again::Drawn { of_each }) => random.below(moments.len() as u64) < of_each as u64,
                        None => false,
                    }
                };
                if !dies {
                    continue;
                }
                let part = self
                    .parts
                    .then(|| Death::PowerCut(Left::Drawn(random.below(u64::MAX))));
                let deaths_here = [
                    Death::Killed,
                    Death::PowerCut(Left::All),
                    Death::PowerCut(Left::Names),
                    Death::PowerCut(Left::Nothing),
                ];
                for death in deaths_here.into_iter().chain(part) {
                    let (after, boot) = die(moment, death);
                    if seen.insert(after.digest(boot)) {
                        swept.drawn += usize::from(matches!(death, Death::PowerCut(Left::Drawn(_))));
                        let deaths = deaths.iter().copied().chain([(at, death)]).collect();
                        queue.push_back((after, boot, deaths));
                    }
                }
            }
        }
        eprintln!("{name}: {swept:?}");
        swept
    }

    /// Runs it, and demands that it ends in this one way, however often the executor dies.
    pub fn ends(&self, end: End) -> usize {
        let swept = self.run();
        let other = match end {
            End::Committed => swept.rolled_back,
            End::RolledBack => swept.committed,
        };
        assert_eq!(
            other, 0,
            "{}, {:?}, {:?}",
            self.case.name, self.fault, self.others
        );
        swept.schedules
    }
}
