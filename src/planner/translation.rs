//! What becomes of all settings of the runtime that is left.

use crate::planner::{context::View, docker_settings, other_settings, setting::Translation};

/// What becomes of them; nothing where the runtime stays.
pub fn of(view: &View<'_>) -> Translation {
    let mut settings = docker_settings::settings(view);
    settings.extend(other_settings::settings(view));
    let mut certificates_left = Vec::new();
    if let Some(takes) = view.takes() {
        let registries = (takes.registries)(view);
        settings.extend(registries.settings);
        certificates_left = registries.left;
    }
    settings.sort_by(|a, b| a.name.cmp(&b.name));
    Translation {
        settings,
        certificates_left,
    }
}
