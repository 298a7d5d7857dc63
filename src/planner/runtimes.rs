//! The runtimes that a node can leave or go to. A plan is one source part and one target part, which the
//! [`recipes`](crate::planner::recipes) put together. The planner of a runtime is one file here with its
//! [`Planner`], and one line in [`PLANNERS`]; CONTRIBUTING.md has what else a new runtime needs.

pub mod containerd;
pub mod cri_dockerd;
pub mod crio;
pub mod docker;
pub mod dockershim;

use crate::{plan::runtime::Runtime, planner::context::Planner};

/// Every runtime that can be planned.
pub const PLANNERS: [Planner; 4] = [
    dockershim::PLANNER,
    cri_dockerd::PLANNER,
    containerd::PLANNER,
    crio::PLANNER,
];

/// The planner of a runtime.
pub fn planner_of(runtime: Runtime) -> Option<Planner> {
    PLANNERS.into_iter().find(|planner| planner.runtime == runtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_say_what_planners_can_do() {
        for runtime in Runtime::ALL {
            let planner = planner_of(runtime);
            let (leave, arrive) = planner.map_or((false, false), |planner| {
                (planner.source.is_some(), planner.target.is_some())
            });
            let profile = runtime.profile();
            assert_eq!(
                (profile.is_source, profile.is_target),
                (leave, arrive),
                "{runtime}"
            );
        }
    }
}
