//! An image for the sandbox of a daemon that is only tried: Transship's own program, which waits. No store of the node has to
//! give an image away for it, and nothing is pulled.

use std::{
    io::{self, Read},
    path::Path,
    time::Duration,
};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, Header};
use tokio::time::{Instant, sleep};

use super::{Cause, RuntimeError, cri::Cri};
use crate::{
    host::{
        command::{command, run},
        files::{Files, NewFile},
    },
    plan::host_path::HostPath,
};

/// This process's program.
const OWN: &str = "/proc/self/exe";
/// How long `ctr` may take to import it.
const WITHIN: Duration = Duration::from_secs(120);
/// How long the CRI may take to learn of it: it follows containerd's events.
const NOTICED: Duration = Duration::from_secs(10);
/// How often it is asked meanwhile.
const POLL: Duration = Duration::from_millis(50);

/// Makes an image `name` of Transship's own program in the directory `scratch`, and imports it with `ctr`.
///
/// # Errors
/// When the CRI does not have it afterwards.
pub async fn bring(
    files: &Files,
    cri: &Cri,
    ctr: &Path,
    scratch: &HostPath,
    name: &str,
) -> Result<(), RuntimeError> {
    let failed = |cause: Cause| RuntimeError::because(format!("the image {name} was not made"), cause);
    let archive = HostPath::new(OWN)
        .map_err(io::Error::other)
        .and_then(|program| archive(files, scratch, &program, name))
        .and_then(|archive| files.real(&archive))
        .map_err(|error| failed(error.into()))?;
    let mut import = command(ctr);
    import
        .arg("--address")
        .arg(cri.socket())
        .args(["--namespace", "k8s.io", "images", "import"])
        .arg(&archive);
    let output = run(import, b"", WITHIN)
        .await
        .map_err(|error| failed(error.into()))?;
    if !output.status.success() {
        let words = format!("ctr ended with {}: {}", output.status, output.stderr.trim());
        return Err(failed(words.into()));
    }
    let deadline = Instant::now() + NOTICED;
    while cri.image(name).await?.is_none() {
        if Instant::now() >= deadline {
            return Err(failed("the CRI does not list it after its import".into()));
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// Writes the image as `docker save` does, and returns its path.
fn archive(files: &Files, scratch: &HostPath, program: &HostPath, name: &str) -> io::Result<HostPath> {
    let [layer, image] = ["layer.tar", "image.tar"].map(|name| scratch.join(name).map_err(io::Error::other));
    let (layer, image) = (layer?, image?);
    let (program, length) = files.open(program)?;
    let mut tree = Builder::new(Hashed::new(files.create(&layer)?));
    append(&mut tree, "pause", 0o755, length, program)?;
    let digest = tree.into_inner()?.finish()?;

    let config = json!({
        "architecture": match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        },
        "os": "linux",
        "config": {"Entrypoint": ["/pause", "executor", "pause"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    let mut tree = Builder::new(Hashed::new(files.create(&image)?));
    for (name, text) in [
        ("config.json", config.to_string()),
        ("manifest.json", manifest.to_string()),
    ] {
        append(&mut tree, name, 0o644, text.len() as u64, text.as_bytes())?;
    }
    let (layer, length) = files.open(&layer)?;
    append(&mut tree, "layer.tar", 0o644, length, layer)?;
    tree.into_inner()?.finish()?;
    Ok(image)
}

fn append(
    tree: &mut Builder<Hashed<'_>>,
    name: &str,
    mode: u32,
    length: u64,
    bytes: impl Read,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(length);
    header.set_mode(mode);
    tree.append_data(&mut header, name, bytes)
}

/// A file that is written, and the digest of what was written.
struct Hashed<'a> {
    file: NewFile<'a>,
    hash: Sha256,
}

impl<'a> Hashed<'a> {
    fn new(file: NewFile<'a>) -> Self {
        Self {
            file,
            hash: Sha256::new(),
        }
    }

    fn finish(self) -> io::Result<String> {
        self.file.finish(0o600)?;
        let digest = self.hash.finalize();
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl io::Write for Hashed<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.file.write(piece)?;
        self.hash.update(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest in the configuration is that of the layer as it lies in the archive: containerd verifies it.
    #[test]
    fn the_layer_has_the_digest_that_the_configuration_names() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path());
        let path = |text| HostPath::new(text).unwrap();
        std::fs::write(directory.path().join("program"), vec![7; 200_005]).unwrap();
        std::fs::create_dir(directory.path().join("scratch")).unwrap();
        let image = archive(&files, &path("/scratch"), &path("/program"), "example.org/a:1").unwrap();
        let image = std::fs::File::open(files.real(&image).unwrap()).unwrap();
        let mut found = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(image).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            found.insert(entry.path().unwrap().display().to_string(), bytes);
        }
        let config: serde_json::Value = serde_json::from_slice(&found["config.json"]).unwrap();
        let wanted = crate::plan::digest::Digest::of(&found["layer.tar"]).to_string();
        assert_eq!(config["rootfs"]["diff_ids"][0], json!(wanted));
        let mut layer = tar::Archive::new(&*found["layer.tar"]);
        let entry = layer.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().display().to_string(), "pause");
        assert_eq!(entry.header().mode().unwrap(), 0o755);
    }
}
