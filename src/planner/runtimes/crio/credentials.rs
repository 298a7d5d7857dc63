//! Credentials of registries: what CRI-O is given in a file of its own, which root alone reads, and what it has in one where it is
//! left.
//!
//! CRI-O pulls with what the kubelet sends along, and with what stands in `global_auth_file` where that sends nothing
//! (`server/image_pull.go`); so does containerd with `registry.configs.*.auth`. Both ask each registry and each mirror with
//! what is written for its own host.

use crate::{
    edit::{
        crio_conf::Printed,
        registry_auth::{self, Credential},
    },
    plan::{facts::MaybeFile, finding::Finding, lists, paths::CRIO_CREDENTIALS, step::Step},
    planner::{
        context::View,
        other_settings,
        setting::{Fate, Given, Left, What},
        steps::{file, maybe, path},
    },
};

/// What the setting is called.
const AUTH_FILE: &str = "global_auth_file";

/// What becomes of credentials under CRI-O.
pub(super) fn fate(view: &View<'_>, credentials: &[Credential]) -> Fate {
    let hosts = other_settings::hosts(credentials);
    let theirs = view.crio_conf.global_auth_file();
    match theirs.filter(|path| path != CRIO_CREDENTIALS) {
        Some(path) => Fate::NotCarried(
            format!(
                "CRI-O has its credentials in {path} ({AUTH_FILE}), which stays as it is: see that those for {hosts} stand there, in \
                 the form of Docker's config.json, and accept this."
            )
            .into(),
        ),
        None => Fate::Carried(
            Given::Credentials(credentials.to_vec()),
            format!("{CRIO_CREDENTIALS}, which root alone can read, has those for {hosts} ({AUTH_FILE})").into(),
        ),
    }
}

/// The file of CRI-O's credentials, if it gets one, or has one of an earlier plan.
pub(super) fn auth_file(view: &View<'_>, earlier: &Printed) -> Option<String> {
    let given = !view.translation.credentials().is_empty();
    let ours = given.then(|| CRIO_CREDENTIALS.to_owned());
    ours.or_else(|| earlier.global_auth_file())
}

/// The step that writes it; it must be there before CRI-O starts.
pub(super) fn prepare(view: &View<'_>) -> Result<Option<Step>, Finding> {
    let credentials = view.translation.credentials();
    if credentials.is_empty() {
        return Ok(None);
    }
    let MaybeFile { path, file: old } = maybe(view.facts, CRIO_CREDENTIALS)?;
    let text = registry_auth::text(credentials);
    Ok(file(&path, old.as_ref(), text, registry_auth::MODE))
}

/// The credentials that CRI-O has.
pub(super) fn left(view: &View<'_>, printed: &Printed, target: &str, found: &mut Vec<Left>) {
    let Some(auth_file) = printed.global_auth_file() else {
        return;
    };
    let path = path(&auth_file).ok();
    // One that is not there has none, as Kubespray leaves it.
    let mut seen = view.facts.files.iter();
    if seen.any(|found| Some(&found.path) == path.as_ref() && found.file.is_none()) {
        return;
    }
    let text = path.and_then(|path| view.facts.text_at(&path));
    let Some(read) = text.map(|file| registry_auth::read(&file.text)) else {
        let what = other_settings::credentials_for_pods(&format!("what {auth_file} names"));
        found.push(Left::new(AUTH_FILE, What::Lost(what)));
        return;
    };
    if !read.credentials.is_empty() {
        found.push(Left::new(AUTH_FILE, What::Credentials(read.credentials)));
    }
    if !read.other.is_empty() {
        let what = format!(
            "{target} is given credentials of whole registries alone, and {auth_file} has more. {}",
            other_settings::credentials_for_pods(&lists::many(&read.other))
        );
        found.push(Left::new(AUTH_FILE, What::Lost(what)));
    }
}
