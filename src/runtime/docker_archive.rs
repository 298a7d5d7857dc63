//! An archive as `docker save` makes it, of an image whose layers lie unpacked. The archive of each layer is the very one
//! that it was made of, poured from its files and the data of `tar-split`. Nothing is staged on disk or held in memory.

use std::io::{self, Read};

use bytes::Bytes;
use futures::{StreamExt as _, stream, stream::BoxStream};
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

/// Bytes as they come.
pub(super) type Pieces = BoxStream<'static, io::Result<Bytes>>;

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
pub(super) fn archive(files: &Files, image: Image, name: &str) -> Pieces {
    let (files, name) = (files.clone(), name.to_owned());
    poured(move |pouring| pouring.image(&files, &image, &name))
}

/// The archive of one layer, as it was.
pub(super) fn layer_archive(files: &Files, layer: Layer) -> Pieces {
    let files = files.clone();
    poured(move |pouring| pouring.contents(&files, &layer))
}

/// All that somebody reads.
pub(super) fn read_out(mut from: impl Read + Send + 'static) -> Pieces {
    poured(move |pouring| {
        let mut piece = vec![0; PIECE];
        loop {
            match from.read(&mut piece)? {
                0 => return Ok(()),
                count => pouring.write(&piece[..count])?,
            }
        }
    })
}

/// What a thread writes, piece by piece, as fast as it is read.
fn poured(work: impl FnOnce(&mut Pouring) -> io::Result<()> + Send + 'static) -> Pieces {
    let (to, from) = channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut pouring = Pouring {
            to,
            piece: Vec::with_capacity(PIECE),
        };
        if let Err(error) = work(&mut pouring).and_then(|()| pouring.flush()) {
            // A reader that has gone needs no reason.
            drop(pouring.to.blocking_send(Err(error)));
        }
    });
    stream::unfold(from, |mut from: Receiver<io::Result<Bytes>>| async {
        from.recv().await.map(|piece| (piece, from))
    })
    .boxed()
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
        self.write(&[0; 2 * BLOCK as usize])
    }

    fn layer(&mut self, files: &Files, layer: &Layer, name: &str) -> io::Result<()> {
        let length = length(files, layer)?;
        self.header(name, length)?;
        self.contents(files, layer)?;
        self.pad(length)
    }

    fn contents(&mut self, files: &Files, layer: &Layer) -> io::Result<()> {
        let (read, _) = files.open(data(layer)?)?;
        let open = |name: &[u8]| files.open_in(&layer.directory, name);
        tar_split::assemble(read, open, |piece| self.write(piece))
            .map_err(|error| of(&layer.directory, &error))
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

/// The file with a layer's data of tar-split.
fn data(layer: &Layer) -> io::Result<&HostPath> {
    match &layer.tar_split {
        TarSplit::Kept(data) => Ok(data),
        _ => Err(io::Error::other(format!(
            "layer {} has no tar-split data",
            layer.diff_id
        ))),
    }
}

/// The length of the archive of a layer, in bytes.
///
/// # Errors
/// When its data cannot be read.
pub(super) fn length(files: &Files, layer: &Layer) -> io::Result<u64> {
    let (read, _) = files.open(data(layer)?)?;
    tar_split::length(read)
}

fn of(directory: &HostPath, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the archive of {directory}: {error}"))
}
