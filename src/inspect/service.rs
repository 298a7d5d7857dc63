//! What an upgrade of a containerd that serves the kubelet depends on: what it runs, what its records hold, and what
//! containerd 2.x would find and 1.x does not look at.

use std::{path::Path, time::Duration};

use tokio::time::timeout;

use super::{
    notes::{Host, Notes},
    tasks, units,
};
use crate::{
    edit::containerd_toml,
    plan::{
        facts::{Containerd, ForeignRecord},
        host_path::HostPath,
        paths::{CONTAINERD_CONF_D, CONTAINERD_STATE, NRI_PLUGINS, RUNC_SHIM},
    },
    runtime::{RuntimeError, containerd},
};

/// How long containerd may take to answer each question.
const WITHIN: Duration = Duration::from_secs(10);

/// Label of an image that was converted when it was pulled (`remotes/docker/schema1`).
const SCHEMA_1: &str = "io.containerd.image/converted-docker-schema1";

/// Adds what is found to `containerd`.
pub(super) async fn inspect(host: &Host, found: &mut Containerd, notes: &Notes) {
    let files = &host.files;
    let state = found.effective.as_deref().and_then(containerd_toml::state);
    let state = notes.keep(HostPath::new(state.as_deref().unwrap_or(CONTAINERD_STATE)));
    let tasks = state.and_then(|state| notes.keep(tasks::living(files, &state)));
    found.upgrade.tasks = tasks.unwrap_or_default();
    found.upgrade.nri_plugins = notes.list(files, NRI_PLUGINS);
    let (pattern, imported) = (format!("{CONTAINERD_CONF_D}/*.toml"), &found.imported);
    let present = notes
        .keep(HostPath::new(pattern))
        .map(|pattern| units::matching(files, &pattern, notes));
    let paths = present
        .into_iter()
        .flatten()
        .filter_map(|path| notes.keep(HostPath::new(path)));
    found.upgrade.not_imported = paths
        .filter(|path| !imported.iter().any(|file| file.path == *path))
        .collect();
    let Some(socket) = notes.keep(files.real(&found.endpoint)) else {
        return;
    };
    if host.live && found.service.active == "active" {
        let (deprecations, records, images) =
            tokio::join!(deprecations(&socket), records(&socket), schema_1_images(&socket));
        found.upgrade.schema_1_images = notes.keep(images).unwrap_or_default();
        found.upgrade.deprecations = notes.keep(deprecations).unwrap_or_default();
        found.upgrade.foreign_records = notes.keep(records).unwrap_or_default();
    }
}

async fn deprecations(socket: &Path) -> Result<Vec<String>, RuntimeError> {
    in_time("deprecated features", async {
        containerd::Containerd::connect(socket)
            .await?
            .deprecations()
            .await
    })
    .await
}

async fn schema_1_images(socket: &Path) -> Result<Vec<String>, RuntimeError> {
    in_time("images", async {
        let containerd = containerd::Containerd::connect(socket).await?;
        containerd.images_with_label(SCHEMA_1).await
    })
    .await
}

async fn records(socket: &Path) -> Result<Vec<ForeignRecord>, RuntimeError> {
    let listed = in_time("containers", async {
        let containerd = containerd::Containerd::connect(socket).await?;
        containerd.records_of_other_runtimes(RUNC_SHIM).await
    });
    let record = |(namespace, id, runtime)| ForeignRecord {
        namespace,
        id,
        runtime,
    };
    Ok(listed.await?.into_iter().map(record).collect())
}

async fn in_time<T>(
    what: &str,
    asked: impl Future<Output = Result<T, RuntimeError>>,
) -> Result<T, RuntimeError> {
    timeout(WITHIN, asked).await.unwrap_or_else(|_| {
        Err(RuntimeError::new(format!(
            "containerd did not list its {what} within {} s",
            WITHIN.as_secs()
        )))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::files::Files,
        plan::facts::{Facts, TextFile},
    };

    #[tokio::test]
    async fn tasks_are_where_the_configuration_in_effect_says() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let write = |path: &str, text: &str| {
            files
                .write(&HostPath::new(path).unwrap(), text.as_bytes(), 0o644)
                .unwrap();
        };
        write("/data/run/io.containerd.runtime.v2.task/k8s.io/a/init.pid", "7");
        write(
            "/run/containerd/io.containerd.runtime.v2.task/k8s.io/b/init.pid",
            "7",
        );
        write("/proc/7/stat", "7 (a) S 1 1\n");
        write("/opt/nri/plugins/10-log", "");
        for name in ["a.toml", "b.toml", "c.txt"] {
            write(&format!("/etc/containerd/conf.d/{name}"), "version = 2\n");
        }
        let facts = include_str!("../../tests/hosts/debian12-kubeadm-1.30-containerd/facts.json");
        let facts: Facts = serde_json::from_str(facts).unwrap();
        let mut containerd = facts.containerd.unwrap();
        containerd.effective = Some("state = '/data/run'\n".to_owned());
        let imported = containerd.config.file.clone().unwrap();
        containerd.imported = vec![TextFile {
            path: HostPath::new("/etc/containerd/conf.d/a.toml").unwrap(),
            ..imported
        }];
        let (host, notes) = (Host { files, live: false }, Notes::default());
        inspect(&host, &mut containerd, &notes).await;
        let ids = |containerd: &Containerd| -> Vec<String> {
            containerd
                .upgrade
                .tasks
                .iter()
                .map(|task| task.id.clone())
                .collect()
        };
        assert_eq!(ids(&containerd), ["a"]);
        assert_eq!(containerd.upgrade.nri_plugins, ["10-log"]);
        let not_imported: Vec<&str> = containerd
            .upgrade
            .not_imported
            .iter()
            .map(HostPath::as_str)
            .collect();
        assert_eq!(not_imported, ["/etc/containerd/conf.d/b.toml"]);
        assert_eq!(notes.0.take(), Vec::<String>::new());
        containerd.effective = None;
        inspect(&host, &mut containerd, &notes).await;
        assert_eq!(ids(&containerd), ["b"]);
    }
}
