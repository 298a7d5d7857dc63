//! What the dockershim and cri-dockerd keep of each sandbox that they made: a file named by its id
//! (`dockershim/docker_checkpoint.go`; cri-dockerd took the form over). Both put the same labels on the same engine's
//! containers, and only these files tell whose a sandbox is.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    edit::parse,
    host::files::Files,
    plan::{host_path::HostPath, runtime::Runtime},
    runtime::RuntimeError,
};

/// Ids of the sandboxes of which this server has a checkpoint.
///
/// # Errors
/// When the directory cannot be read.
pub fn sandboxes(files: &Files, of: Runtime) -> Result<BTreeSet<String>, RuntimeError> {
    let Some(directory) = of.profile().checkpoints else {
        return Ok(BTreeSet::new());
    };
    let directory = HostPath::new(directory).map_err(RuntimeError::of)?;
    let names = files.list(&directory).map_err(RuntimeError::of)?;
    Ok(names.into_iter().collect())
}

/// Ids of the sandboxes that are the other server's, where source and target share one engine.
///
/// # Errors
/// As [`sandboxes`].
pub fn foreign(files: &Files, own: Runtime, other: Runtime) -> Result<BTreeSet<String>, RuntimeError> {
    let mine = sandboxes(files, own)?;
    Ok(sandboxes(files, other)?.difference(&mine).cloned().collect())
}

/// The same of every other server.
///
/// # Errors
/// As [`sandboxes`].
pub fn all_foreign(files: &Files, own: Runtime) -> Result<BTreeSet<String>, RuntimeError> {
    let others = Runtime::ALL.into_iter().filter(|other| *other != own);
    let foreign: Result<Vec<_>, _> = others.map(|other| foreign(files, own, other)).collect();
    Ok(foreign?.into_iter().flatten().collect())
}

/// Whether ports of the node lead to a sandbox; nothing when its checkpoint cannot be read.
pub fn has_host_ports(files: &Files, of: Runtime, sandbox: &str) -> Option<bool> {
    let file = HostPath::new(of.profile().checkpoints?)
        .ok()?
        .join(sandbox)
        .ok()?;
    has_ports(&files.read_text(&file).ok()??)
}

fn has_ports(checkpoint: &str) -> Option<bool> {
    let checkpoint: Value = parse::json(checkpoint).ok()?;
    let data = checkpoint.get("data")?;
    let ports = data.get("port_mappings").and_then(Value::as_array);
    // All ports of a pod are there; those without one of the node have none or 0.
    let leads = |port: &Value| {
        port.get("host_port")
            .and_then(Value::as_u64)
            .is_some_and(|port| port > 0)
    };
    Some(ports.is_some_and(|ports| ports.iter().any(leads)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_the_node_stand_in_the_checkpoint() {
        for (checkpoint, wanted) in [
            (
                r#"{"version":"v1","name":"host-port-r6c4k","namespace":"lab","data":{"port_mappings":[{"protocol":"tcp","container_port":8080,"host_port":8888,"host_ip":""}]},"checksum":1}"#,
                Some(true),
            ),
            (
                r#"{"version":"v1","name":"web","namespace":"lab","data":{"port_mappings":[{"protocol":"tcp","container_port":8080,"host_port":0}]},"checksum":1}"#,
                Some(false),
            ),
            (
                r#"{"version":"v1","name":"x","namespace":"lab","data":{"host_network":true},"checksum":1}"#,
                Some(false),
            ),
            ("{", None),
        ] {
            assert_eq!(has_ports(checkpoint), wanted, "{checkpoint}");
        }
    }

    #[test]
    fn fuzz_checkpoints() {
        use crate::fuzz::{hold, samples};

        hold(&samples("checkpoint", &[]), |text| {
            has_ports(text);
        });
    }
}
