//! An image for the sandbox of a daemon that is only tried: Transship's own program, which waits. No store of the node has to
//! give an image away for it, and nothing is pulled.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, Header};
use tokio::time::{Instant, sleep};

use super::{RuntimeError, cri::Cri};
use crate::host::command::{command, run};

/// How long `ctr` may take to import it.
const WITHIN: Duration = Duration::from_secs(120);
/// How long the CRI may take to learn of it: it follows containerd's events.
const NOTICED: Duration = Duration::from_secs(10);
/// How often it is asked meanwhile.
const POLL: Duration = Duration::from_millis(50);
/// Bytes that are read at once.
const CHUNK: usize = 1 << 16;

/// Makes an image `name` of `program` in the directory `scratch`, and imports it with `ctr`.
///
/// # Errors
/// When the CRI does not have it afterwards.
pub async fn bring(
    cri: &Cri,
    ctr: &Path,
    scratch: &Path,
    program: &Path,
    name: &str,
) -> Result<(), RuntimeError> {
    let failed = |cause: String| RuntimeError(format!("the image {name} was not made: {cause}"));
    let archive = archive(scratch, program, name).map_err(|error| failed(error.to_string()))?;
    let mut import = command(ctr);
    import
        .arg("--address")
        .arg(cri.socket())
        .args(["--namespace", "k8s.io", "images", "import"])
        .arg(&archive);
    let output = run(import, b"", WITHIN)
        .await
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!(
            "ctr ended with {}: {}",
            output.status,
            output.stderr.trim()
        )));
    }
    let deadline = Instant::now() + NOTICED;
    while cri.image(name).await?.is_none() {
        if Instant::now() >= deadline {
            return Err(failed("the CRI does not list it after its import".to_owned()));
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// Writes the image as `docker save` does, and returns its path.
fn archive(scratch: &Path, program: &Path, name: &str) -> io::Result<PathBuf> {
    let layer = scratch.join("layer.tar");
    let mut tree = Builder::new(File::create(&layer)?);
    let mut file = File::open(program)?;
    let mut header = Header::new_gnu();
    header.set_size(file.metadata()?.len());
    header.set_mode(0o755);
    tree.append_data(&mut header, "pause", &mut file)?;
    tree.into_inner()?;

    let config = json!({
        "architecture": match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        },
        "os": "linux",
        "config": {"Entrypoint": ["/pause", "executor", "pause"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer)?)]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    let path = scratch.join("image.tar");
    let mut image = Builder::new(File::create(&path)?);
    for (name, text) in [("config.json", &config), ("manifest.json", &manifest)] {
        let text = text.to_string();
        let mut header = Header::new_gnu();
        header.set_size(u64::try_from(text.len()).unwrap_or(u64::MAX));
        header.set_mode(0o644);
        image.append_data(&mut header, name, text.as_bytes())?;
    }
    image.append_path_with_name(&layer, "layer.tar")?;
    image.into_inner()?;
    Ok(path)
}

fn digest(path: &Path) -> io::Result<String> {
    let (mut file, mut hash, mut piece) = (File::open(path)?, Sha256::new(), vec![0; CHUNK]);
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            break;
        }
        hash.update(piece.get(..count).unwrap_or_default());
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest in the configuration is that of the layer as it lies in the archive: containerd verifies it.
    #[test]
    fn the_layer_has_the_digest_that_the_configuration_names() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("program");
        std::fs::write(&program, vec![7; 3 * CHUNK + 5]).unwrap();
        let image = archive(directory.path(), &program, "example.org/a:1").unwrap();
        let mut found = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(File::open(image).unwrap()).entries().unwrap() {
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
