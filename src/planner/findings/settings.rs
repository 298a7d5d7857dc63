//! What becomes of Docker's settings: nothing is dropped in silence.

use crate::{
    plan::{
        codes::settings::{DOCKER_SETTING_APPROXIMATED, DOCKER_SETTING_CARRIED, DOCKER_SETTING_NOT_CARRIED},
        finding::Finding,
    },
    planner::{
        context::View,
        docker_registries,
        docker_settings::{self, Fate},
    },
};

/// What becomes of every setting of Docker that is set, proxies and limits included, where Docker is left.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let Some((docker, _)) = view.docker_left() else {
        return Vec::new();
    };
    let mut settings = docker_settings::settings(docker, view.daemon);
    settings.extend(docker_registries::registries(view).settings);
    settings.sort_by(|a, b| a.name.cmp(&b.name));
    settings
        .into_iter()
        .filter_map(|setting| {
            let name = format!("Docker's {}", setting.name);
            match setting.fate {
                Fate::Carried(how) => {
                    Some(DOCKER_SETTING_CARRIED.found(format!("{name}: {how}"), "Nothing is to be done."))
                }
                Fate::Approximated(how) => Some(DOCKER_SETTING_APPROXIMATED.found(
                    format!("{name}: {how}"),
                    "Check that this is enough for the pods of this node.",
                )),
                Fate::NotCarried(what) => {
                    Some(DOCKER_SETTING_NOT_CARRIED.found(format!("{name} is not carried over"), what))
                }
                Fate::DockersOwn => None,
            }
        })
        .collect()
}
