//! Takes sandboxes off their network (CNI DEL) when the server that put them there is gone: with the kubelet, the
//! dockershim has stopped. What it would have passed to the plugins stands in libcni's cache: the configuration as it
//! was at ADD, the arguments, and the result.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    edit::parse,
    host::{command, files::Files},
    plan::host_path::HostPath,
};

/// How long one plugin may take; those of some networks ask an API server.
const WITHIN: Duration = Duration::from_secs(20);
/// Where the `host-local` plugin keeps its address leases, a directory per network (its default; `dataDir` in the
/// plugin's configuration moves it).
const LEASES: &str = "/var/lib/cni/networks";
/// Where libcni's cache is, under containerd: the default of the library, and that of other servers.
const CACHES: [&str; 2] = ["/var/lib/cni", "/var/lib/cni/cache"];
/// The network that the dockershim adds for the loopback interface; it has no state outside of the sandbox.
const LOOPBACK: &str = "cni-loopback";

/// One interface of one sandbox: a file of libcni's cache (`libcni/api.go`, `cachedInfo`).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// Id of the sandbox.
    pub container_id: String,
    /// The network configuration or list as it was at ADD, in base64.
    config: String,
    /// Name of the interface in the sandbox.
    if_name: String,
    /// Name of the network.
    network_name: String,
    /// `CNI_ARGS`, as pairs.
    cni_args: Option<Vec<(String, String)>>,
    /// What the runtime offered for capabilities, by name (`portMappings`).
    capability_args: Option<Map<String, Value>>,
    /// What the last plugin of ADD returned.
    result: Option<Value>,
    /// The file.
    #[serde(skip)]
    file: Option<HostPath>,
}

impl Attachment {
    /// Whether ports of the node were to lead to it.
    pub fn has_host_ports(&self) -> bool {
        let ports = self
            .capability_args
            .as_ref()
            .and_then(|args| args.get("portMappings"));
        ports
            .and_then(Value::as_array)
            .is_some_and(|ports| !ports.is_empty())
    }
}

/// A plugin that is called, and what it gets on its standard input.
#[derive(Debug)]
struct Call {
    plugin: String,
    input: Value,
}

/// libcni's cache and the plugins on a host.
#[derive(Clone, Copy, Debug)]
pub struct Network<'a> {
    /// The host's files.
    pub files: &'a Files,
    /// libcni's cache (`/var/lib/cni/cache` for the dockershim).
    pub cache: &'a HostPath,
    /// Directories with plugins, the first one that has a plugin counts.
    pub bin_dirs: &'a [HostPath],
}

impl Network<'_> {
    /// All attachments in the cache by the id of their sandbox, and a sentence for every file that is no attachment.
    pub fn attachments(&self) -> (BTreeMap<String, Vec<Attachment>>, Vec<String>) {
        let (mut found, mut wrong) = (BTreeMap::<String, Vec<Attachment>>::new(), Vec::new());
        let results = self.cache.join("results");
        let names = results.as_ref().map(|results| self.files.list(results));
        let (Ok(results), Ok(Ok(names))) = (&results, names) else {
            return (
                found,
                vec![format!("libcni's cache {} cannot be read", self.cache)],
            );
        };
        for name in names {
            match self.attachment(results, &name) {
                Ok(attachment) => found
                    .entry(attachment.container_id.clone())
                    .or_default()
                    .push(attachment),
                Err(cause) => wrong.push(format!("{results}/{name} in libcni's cache: {cause}")),
            }
        }
        (found, wrong)
    }

    fn attachment(&self, results: &HostPath, name: &str) -> Result<Attachment, String> {
        let path = results.join(name).map_err(|error| error.to_string())?;
        let text = self
            .files
            .read_text(&path)
            .map_err(|error| error.to_string())?
            .unwrap_or_default();
        let mut attachment: Attachment = parse::json(&text).map_err(|error| error.to_string())?;
        attachment.file = Some(path);
        Ok(attachment)
    }

    /// Runs DEL for every plugin of an attachment, in reverse order, and removes the file from the cache.
    /// `netns` is the network namespace of the sandbox, empty when it is gone.
    ///
    /// # Errors
    /// A sentence that names the plugin and says what it said; the file stays in the cache, so that the next call
    /// tries again.
    pub async fn detach(&self, attachment: &Attachment, netns: &str) -> Result<(), String> {
        let about = |cause: String| {
            format!(
                "CNI DEL of {} in network {} for sandbox {}: {cause}",
                attachment.if_name, attachment.network_name, attachment.container_id
            )
        };
        if attachment.network_name != LOOPBACK {
            for call in calls(attachment).map_err(about)? {
                self.call(attachment, &call, netns).await.map_err(about)?;
            }
        }
        match &attachment.file {
            Some(file) => self.files.remove(file).map_err(|error| about(error.to_string())),
            None => Ok(()),
        }
    }

    async fn call(&self, attachment: &Attachment, call: &Call, netns: &str) -> Result<(), String> {
        let (plugin, directories) = self.find(&call.plugin)?;
        let arguments: Vec<String> = attachment
            .cni_args
            .iter()
            .flatten()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let mut command = command::command(plugin);
        command
            .env("CNI_COMMAND", "DEL")
            .env("CNI_CONTAINERID", &attachment.container_id)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", &attachment.if_name)
            .env("CNI_ARGS", arguments.join(";"))
            .env("CNI_PATH", directories);
        let output = command::run(command, call.input.to_string().as_bytes(), WITHIN)
            .await
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        // A plugin explains itself by JSON on standard output.
        let said: Value = parse::json(&output.stdout).unwrap_or_default();
        let words = said["msg"]
            .as_str()
            .map_or_else(|| output.stderr.trim().to_owned(), str::to_owned);
        Err(format!(
            "plugin {} ended with {}: {words}",
            call.plugin, output.status
        ))
    }

    /// The first plugin of this name, and the value of `CNI_PATH`.
    fn find(&self, plugin: &str) -> Result<(PathBuf, String), String> {
        if plugin.contains('/') {
            return Err(format!("{plugin:?} is not the name of a plugin"));
        }
        let mut directories = Vec::new();
        let mut found = None;
        for directory in self.bin_dirs {
            let path = directory.join(plugin).map_err(|error| error.to_string())?;
            if found.is_none() && self.files.exists(&path).map_err(|error| error.to_string())? {
                found = Some(self.files.real(&path).map_err(|error| error.to_string())?);
            }
            let directory = self.files.real(directory).map_err(|error| error.to_string())?;
            directories.push(directory.display().to_string());
        }
        let directories = directories.join(":");
        match found {
            Some(path) => Ok((path, directories)),
            None => Err(format!("plugin {plugin} is not in {directories}")),
        }
    }

    /// Frees the address leases of these sandboxes that are still there, and returns a sentence for each that was
    /// or could not be freed.
    pub fn free_leases(&self, gone: &[String]) -> Vec<String> {
        let mut said = Vec::new();
        let Ok(leases) = HostPath::new(LEASES) else {
            return said;
        };
        for network in self.files.list(&leases).unwrap_or_default() {
            let Ok(network) = leases.join(&network) else {
                continue;
            };
            for address in self.files.list(&network).unwrap_or_default() {
                let Ok(file) = network.join(&address) else {
                    continue;
                };
                // `lock` and `last_reserved_ip.N` are the plugin's own; no id stands in them.
                let text = self.files.read_text(&file).ok().flatten().unwrap_or_default();
                let owner = text.lines().next().unwrap_or_default().trim();
                if !owner.is_empty() && gone.iter().any(|id| id == owner) {
                    said.push(match self.files.remove(&file) {
                        Ok(()) => {
                            format!("address lease {file} of sandbox {owner} was left by its plugin; freed")
                        }
                        Err(error) => format!("address lease {file} of sandbox {owner} is left: {error}"),
                    });
                }
            }
        }
        said
    }
}

/// All attachments in the places where libcni's cache may be under containerd, as [`Network::attachments`] returns them.
pub(in crate::runtime) fn attachments_everywhere(
    files: &Files,
) -> (BTreeMap<String, Vec<Attachment>>, Vec<String>) {
    let (mut attachments, mut wrong) = (BTreeMap::<String, Vec<Attachment>>::new(), Vec::new());
    for cache in CACHES {
        let Ok(cache) = HostPath::new(cache) else { continue };
        let is_there = |results: HostPath| files.exists(&results).unwrap_or(false);
        if !cache.join("results").is_ok_and(is_there) {
            continue;
        }
        let network = Network {
            files,
            cache: &cache,
            bin_dirs: &[],
        };
        let (found, unreadable) = network.attachments();
        for (sandbox, these) in found {
            attachments.entry(sandbox).or_default().extend(these);
        }
        wrong.extend(unreadable);
    }
    (attachments, wrong)
}

/// What each plugin of an attachment is given, in the order of DEL (`libcni/api.go`, `buildOneConfig`).
fn calls(attachment: &Attachment) -> Result<Vec<Call>, String> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(&attachment.config)
        .map_err(|error| format!("the cached configuration is not base64: {error}"))?;
    let list: Map<String, Value> = parse::json(&bytes)
        .map_err(|error| format!("the cached configuration is not a JSON object: {error}"))?;
    let plugins = match list.get("plugins") {
        Some(Value::Array(plugins)) => plugins.clone(),
        // A configuration of one plugin.
        _ => vec![Value::Object(list.clone())],
    };
    plugins
        .into_iter()
        .rev()
        .map(|plugin| one_call(attachment, &list, plugin))
        .filter(|call| !call.as_ref().is_ok_and(is_idle))
        .collect()
}

/// Whether a plugin has nothing to undo: `portmap` does nothing at ADD when there are no ports to map
/// (`plugins/meta/portmap/main.go`), and at DEL would ask iptables a dozen times for chains that it never made.
fn is_idle(call: &Call) -> bool {
    let ports = call.input.pointer("/runtimeConfig/portMappings");
    call.plugin == "portmap" && ports.and_then(Value::as_array).is_none_or(Vec::is_empty)
}

fn one_call(attachment: &Attachment, list: &Map<String, Value>, plugin: Value) -> Result<Call, String> {
    let Value::Object(mut input) = plugin else {
        return Err("a plugin of the cached configuration is not a JSON object".to_owned());
    };
    let Some(kind) = input.get("type").and_then(Value::as_str).map(str::to_owned) else {
        return Err("a plugin of the cached configuration has no type".to_owned());
    };
    for key in ["name", "cniVersion"] {
        if let Some(value) = list.get(key) {
            input.insert(key.to_owned(), value.clone());
        }
    }
    // Plugins get only those arguments whose capability they declare.
    let declared = input
        .get("capabilities")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let runtime: Map<String, Value> = attachment
        .capability_args
        .iter()
        .flatten()
        .filter(|(name, _)| declared.get(*name).and_then(Value::as_bool) == Some(true))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if !runtime.is_empty() {
        input.insert("runtimeConfig".to_owned(), Value::Object(runtime));
    }
    // libcni passes it from version 0.4.0 of the configuration on; older plugins do not look at it, and newer ones
    // find the addresses of a sandbox that is gone in it, whatever the version.
    if let Some(result) = &attachment.result {
        input.insert("prevResult".to_owned(), result.clone());
    }
    Ok(Call {
        plugin: kind,
        input: Value::Object(input),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{hold, quiet, samples};

    #[test]
    fn fuzz_libcnis_cache() {
        hold(&samples("cni-cache", &[]), |text| {
            if let Some(attachment) = quiet(parse::json::<Attachment>(text))
                && let Some(calls) = quiet(calls(&attachment))
            {
                assert!(calls.iter().all(|call| call.input.is_object()));
            }
        });
        let networks = [
            "10-lab.conflist",
            "10-flannel.conflist",
            "10-calico.conflist",
            "10-bridge.conf",
        ];
        hold(&samples("cni-network", &networks), |text| {
            let attachment = serde_json::json!({
                "containerId": "abc", "ifName": "eth0", "networkName": "lab",
                "config": base64::engine::general_purpose::STANDARD.encode(text),
            });
            if let Ok(attachment) = parse::data::<Attachment>(attachment) {
                quiet(calls(&attachment).map(drop));
            }
        });
    }
}
