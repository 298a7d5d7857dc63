//! The images in the store of Docker's `overlay2` storage driver, as they lie below its data root. The engine's API
//! does not show where a layer is.
//!
//! See moby's `image/fs.go` and `layer/filestore.go`: the layout has been the same since Docker 1.10.

use serde::Deserialize;

use super::{
    RuntimeError,
    unpacked::{Compressed, Compression, Image, Layer, TarSplit, hex, layers},
};
use crate::{
    edit::parse,
    host::files::Files,
    plan::{digest::Digest, host_path::HostPath},
};

/// What Docker notes of the archive that a layer was pulled as.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pulled {
    digest: Digest,
}

/// The image with this id in the store below `data_root`.
///
/// # Errors
/// When the store does not hold it in the form that is known, naming the file.
pub(super) fn image(files: &Files, data_root: &HostPath, id: &str) -> Result<Image, RuntimeError> {
    let at = |name: String| data_root.join(&name).map_err(RuntimeError::of);
    let read = |path: &HostPath| match files.read(path) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(RuntimeError::new(format!("there is no {path}"))),
        Err(error) => Err(RuntimeError::caused(format!("cannot {error}"), error)),
    };
    let text =
        |path: &HostPath| String::from_utf8(read(path)?).map_err(|error| RuntimeError::because(path, error));
    let path = at(format!("image/overlay2/imagedb/content/sha256/{}", hex(id)))?;
    let config = read(&path)?;
    if Digest::of(&config).as_str() != id {
        return Err(RuntimeError::new(format!(
            "{path} is damaged: its digest is another"
        )));
    }
    let mut found: Vec<Layer> = Vec::new();
    for (diff_id, chain_id) in layers(&config, &path)? {
        let layer = at(format!(
            "image/overlay2/layerdb/sha256/{}",
            hex(chain_id.as_str())
        ))?;
        let file = |name: &str| {
            let path = layer.join(name).map_err(RuntimeError::of)?;
            text(&path).map(|text| text.trim().to_owned())
        };
        if file("diff")? != diff_id.as_str() {
            return Err(RuntimeError::new(format!(
                "{layer} is another layer than {diff_id}"
            )));
        }
        let split = layer.join("tar-split.json.gz").map_err(RuntimeError::of)?;
        let kept = files.exists(&split).map_err(RuntimeError::of)?;
        let pulled = at(format!(
            "image/overlay2/distribution/v2metadata-by-diffid/sha256/{}",
            hex(diff_id.as_str())
        ))?;
        found.push(Layer {
            size: file("size")?
                .parse()
                .map_err(|error| RuntimeError::because(format!("{layer}/size"), error))?,
            directory: at(format!("overlay2/{}/diff", file("cache-id")?))?,
            tar_split: if kept {
                TarSplit::Kept(split)
            } else {
                TarSplit::Missing
            },
            compressed: compressed(files, &pulled),
            diff_id,
            chain_id,
        });
    }
    Ok(Image {
        config,
        manifests: Vec::new(),
        layers: found,
    })
}

/// The archive that a layer was last pulled as, or pushed as. It spares a later pull, and nothing depends on it.
fn compressed(files: &Files, pulled: &HostPath) -> Option<Compressed> {
    let bytes = files.read(pulled).ok()??;
    let last = parse::json::<Vec<Pulled>>(bytes).ok()?.pop()?;
    Digest::is_written(last.digest.as_str()).then_some(Compressed {
        digest: last.digest,
        size: None,
        by: Compression::Gzip,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layers_of_an_image_are_found_by_their_chain() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let path = |text: &str| HostPath::new(text).unwrap();
        let (first, second) = (Digest::of("first"), Digest::of("second"));
        let chain = Digest::of(format!("{first} {second}"));
        let config =
            format!(r#"{{"os":"linux","rootfs":{{"type":"layers","diff_ids":["{first}","{second}"]}}}}"#);
        let id = Digest::of(&config);
        let write = |name: String, text: &str| {
            let at = path("/data/image/overlay2").join(&name).unwrap();
            files.write(&at, text.as_bytes(), 0o600).unwrap();
        };
        write(format!("imagedb/content/sha256/{}", &id.as_str()[7..]), &config);
        for (chain, diff, cache) in [(&first, &first, "aa"), (&chain, &second, "bb")] {
            let layer = format!("layerdb/sha256/{}", &chain.as_str()[7..]);
            write(format!("{layer}/diff"), diff.as_str());
            write(format!("{layer}/size"), "1024");
            write(format!("{layer}/cache-id"), cache);
        }
        let pulled = Digest::of("pulled");
        let metadata =
            format!(r#"[{{"Digest":"{first}","SourceRepository":"r/a"}},{{"Digest":"{pulled}","HMAC":""}}]"#);
        write(
            format!(
                "distribution/v2metadata-by-diffid/sha256/{}",
                &second.as_str()[7..]
            ),
            &metadata,
        );
        write(
            format!("layerdb/sha256/{}/tar-split.json.gz", &first.as_str()[7..]),
            "",
        );
        let found = image(&files, &path("/data"), id.as_str()).unwrap();
        assert!(matches!(&found.layers[0].tar_split, TarSplit::Kept(at) if files.exists(at).unwrap()));
        assert_eq!(found.layers[1].tar_split, TarSplit::Missing);
        let compressed: Vec<_> = found
            .layers
            .iter()
            .map(|layer| layer.compressed.clone())
            .collect();
        assert_eq!(compressed[0], None);
        assert_eq!(compressed[1].as_ref().map(|found| &found.digest), Some(&pulled));
        let layers: Vec<_> = found
            .layers
            .iter()
            .map(|layer| (&layer.chain_id, layer.directory.as_str(), layer.size))
            .collect();
        assert_eq!(
            layers,
            [
                (&first, "/data/overlay2/aa/diff", 1024),
                (&chain, "/data/overlay2/bb/diff", 1024)
            ]
        );

        write(
            format!("layerdb/sha256/{}/diff", &chain.as_str()[7..]),
            first.as_str(),
        );
        let wrong = image(&files, &path("/data"), id.as_str())
            .unwrap_err()
            .to_string();
        assert!(wrong.contains("another layer"), "{wrong}");
        write(format!("imagedb/content/sha256/{}", &id.as_str()[7..]), "{}");
        let wrong = image(&files, &path("/data"), id.as_str())
            .unwrap_err()
            .to_string();
        assert!(wrong.contains("damaged"), "{wrong}");
        let gone = image(&files, &path("/elsewhere"), id.as_str())
            .unwrap_err()
            .to_string();
        assert!(gone.contains("there is no"), "{gone}");
    }
}
