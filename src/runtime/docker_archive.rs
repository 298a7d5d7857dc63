//! An archive as `docker save` makes it, of an image whose layers lie unpacked. The archive of each layer is the very one
//! that it was made of, poured from its files and the data of `tar-split`. Nothing is staged on disk or held in memory.

use std::io;

use bytes::Bytes;
use futures::{Stream, stream};
use serde_json::json;
use tar::Header;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{
    RuntimeError, tar_split,
    unpacked::{Image, Layer, TarSplit, hex},
};
use crate::{
    host::files::Files,
    plan::{digest::Digest, host_path::HostPath},
};

/// Pieces that wait for the reader.
const AHEAD: usize = 16;
/// Bytes of a piece.
const PIECE: usize = 1 << 18;
/// Bytes of a block of an archive.
const BLOCK: u64 = 512;

/// Where each layer's data of `tar-split` are.
///
/// # Errors
/// When a layer has none: its archive cannot be made again.
pub(super) fn check(image: &Image) -> Result<(), RuntimeError> {
    let missing = |layer: &&Layer| !matches!(layer.tar_split, TarSplit::Kept(_));
    match image.layers.iter().find(missing) {
        Some(layer) => Err(RuntimeError::new(format!(
            "the archive of its layer {} cannot be made again: the store has no tar-split data of it",
            layer.diff_id
        ))),
        None => Ok(()),
    }
}

/// The archive of an image, with this name in it if it is one with a tag.
pub(super) fn archive(
    files: &Files,
    image: Image,
    name: &str,
) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    let (to, from) = channel(AHEAD);
    let (files, name) = (files.clone(), name.to_owned());
    tokio::task::spawn_blocking(move || {
        let mut pouring = Pouring {
            to,
            piece: Vec::with_capacity(PIECE),
        };
        if let Err(error) = pouring.image(&files, &image, &name) {
            // A reader that has gone needs no reason.
            drop(pouring.to.blocking_send(Err(error)));
        }
    });
    stream::unfold(from, |mut from: Receiver<io::Result<Bytes>>| async {
        from.recv().await.map(|piece| (piece, from))
    })
}

struct Pouring {
    to: Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Pouring {
    fn image(&mut self, files: &Files, image: &Image, name: &str) -> io::Result<()> {
        let config = format!("{}.json", hex(Digest::of(&image.config).as_str()));
        self.member(&config, &image.config)?;
        let mut names = Vec::new();
        for (at, layer) in image.layers.iter().enumerate() {
            let name = format!("{at:04}/layer.tar");
            self.layer(files, layer, &name)?;
            names.push(name);
        }
        let tags = if name.contains('@') { vec![] } else { vec![name] };
        let manifest = json!([{"Config": config, "RepoTags": tags, "Layers": names}]);
        self.member("manifest.json", manifest.to_string().as_bytes())?;
        self.write(&[0; 2 * BLOCK as usize])?;
        self.flush()
    }

    fn layer(&mut self, files: &Files, layer: &Layer, name: &str) -> io::Result<()> {
        let TarSplit::Kept(data) = &layer.tar_split else {
            return Err(io::Error::other(format!(
                "layer {} has no tar-split data",
                layer.diff_id
            )));
        };
        let (read, _) = files.open(data)?;
        let length = tar_split::length(read)?;
        self.header(name, length)?;
        let (read, _) = files.open(data)?;
        let open = |name: &[u8]| files.open_in(&layer.directory, name);
        tar_split::assemble(read, open, |piece| self.write(piece))
            .map_err(|error| of(&layer.directory, &error))?;
        self.pad(length)
    }

    fn member(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.header(name, bytes.len() as u64)?;
        self.write(bytes)?;
        self.pad(bytes.len() as u64)
    }

    fn header(&mut self, name: &str, length: u64) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_path(name)?;
        header.set_size(length);
        header.set_mode(0o644);
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn pad(&mut self, length: u64) -> io::Result<()> {
        let over = length % BLOCK;
        let zeros = usize::try_from((BLOCK - over) % BLOCK).unwrap_or_default();
        self.write(&vec![0; zeros])
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() < PIECE {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let sent = self.to.blocking_send(Ok(Bytes::from(piece)));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

fn of(directory: &HostPath, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the archive of {directory}: {error}"))
}
