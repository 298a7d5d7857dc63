//! What becomes of Docker's settings: nothing is dropped in silence.

use crate::{
    plan::{
        codes::settings::{DOCKER_SETTING_APPROXIMATED, DOCKER_SETTING_CARRIED, DOCKER_SETTING_NOT_CARRIED},
        finding::Finding,
    },
    planner::{context::View, setting::Fate, translation::Translation},
};

/// What becomes of every setting of the source that is set, in the order of their names.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let settings = Translation::of(view).settings.into_iter();
    settings
        .filter_map(|setting| {
            let name = format!("Docker's {}", setting.name);
            let finding = match setting.fate {
                Fate::Carried(_, how) | Fate::Inherent(how) => {
                    DOCKER_SETTING_CARRIED.found(format!("{name}: {how}"), "Nothing is to be done.")
                }
                Fate::Approximated(_, how) => DOCKER_SETTING_APPROXIMATED.found(
                    format!("{name}: {how}"),
                    "Check that this is enough for the pods of this node.",
                ),
                Fate::NotCarried(what) => {
                    DOCKER_SETTING_NOT_CARRIED.found(format!("{name} is not carried over"), what)
                }
                Fate::SourcesOwn => return None,
            };
            Some(finding.about(setting.name))
        })
        .collect()
}
