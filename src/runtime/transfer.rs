//! Carries an image between Docker Engine and containerd: linked where it can be, otherwise the archive that one
//! makes is streamed into the other; nothing is staged on disk or held in memory. The answer of the store that got
//! it is the proof: under the same name it must know an image of the same id, which in both is the digest of the
//! configuration.

use std::{ffi::OsString, io, process::ExitStatus, process::Stdio, time::Duration};

use bytes::Bytes;
use containerd_client::types::Descriptor;
use futures::{Stream, StreamExt as _, stream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};

use super::{
    Carried, Cause, Means, RuntimeError, containerd::Containerd, cri::Cri, docker::Engine, link::link,
    overlay2,
};
use crate::{
    host::{
        command::{bounded, command, run},
        files::Files,
    },
    plan::{host_path::HostPath, step::Layers},
};

/// How long `ctr` may take to say what it can do.
const ASK: Duration = Duration::from_secs(30);
/// How long the stream may stand still. The engine packs a layer before it sends the first byte of it.
pub(super) const STALLED: Duration = Duration::from_secs(300);
/// How long what `ctr` printed is read after its exit.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long the store that gets an image may take to unpack the layers after the last byte.
pub(super) const UNPACK: Duration = Duration::from_secs(900);
/// How long containerd's CRI may take to learn of a change of the store: it follows containerd's events.
const NOTICED: Duration = Duration::from_secs(5);
/// How often it is asked meanwhile.
const POLL: Duration = Duration::from_millis(20);
/// Bytes that are read at once.
const CHUNK: usize = 1 << 16;

/// Of an image that is there already.
pub(super) const NAMED: Carried = Carried {
    bytes: 0,
    means: Means::Named,
};

/// containerd, by its CRI, its own API, and its client `ctr`, which knows the archives of images.
#[derive(Clone, Debug)]
pub struct Store {
    /// Its CRI.
    pub cri: Cri,
    /// Its own API.
    pub api: Containerd,
    /// `ctr`.
    pub ctr: OsString,
}

/// Carries the image of this name (a full reference) from Docker Engine into containerd.
///
/// # Errors
/// When containerd's CRI does not list it afterwards under this name and with the engine's image id; the cause
/// that was given.
pub async fn into_containerd(
    files: &Files,
    from: &Engine,
    to: &Store,
    layers: &Layers,
    name: &str,
) -> Result<Carried, RuntimeError> {
    let wanted = from.image_id(name).await?;
    // Docker Engine on containerd's image store calls an image by the digest of its manifest.
    let is_wanted = |target: Descriptor| target.digest == wanted;
    if to.api.target(name).await?.is_some_and(is_wanted) {
        return Ok(NAMED);
    }
    let linking = async {
        let Layers::Linked { data_root } = layers else {
            return Ok(None);
        };
        let data_root = data_root_of(from, data_root.as_ref()).await?;
        let image = overlay2::image(files, &data_root, &wanted)?;
        link(files, &image, &to.api, name).await.map(Some)
    };
    take(to, name, &wanted, Box::pin(linking), Box::pin(from.export(name))).await
}

/// Docker's data root: the one that is named, or the one that the engine names.
pub(super) async fn data_root_of(
    engine: &Engine,
    named: Option<&HostPath>,
) -> Result<HostPath, RuntimeError> {
    match named {
        Some(root) => Ok(root.clone()),
        None => {
            HostPath::new(engine.info().await?.docker_root_dir.unwrap_or_default()).map_err(RuntimeError::of)
        }
    }
}

/// Takes an image into containerd: under another name if it is there, linked by `linking`, which returns the bytes of its
/// layers or nothing where they are not to be linked, or else from the archive.
///
/// # Errors
/// As [`into_containerd`].
pub(super) async fn take(
    to: &Store,
    name: &str,
    wanted: &str,
    linking: impl Future<Output = Result<Option<u64>, RuntimeError>>,
    archive: impl Stream<Item = Result<impl AsRef<[u8]>, RuntimeError>>,
) -> Result<Carried, RuntimeError> {
    keep_replaced(to, name, wanted).await?;
    // The CRI plugin keeps every image under its id too.
    if let Some(target) = to.api.target(wanted).await? {
        to.api.name(name, target).await?;
        proven(to, name, wanted, "").await?;
        return Ok(NAMED);
    }
    let linked = async {
        let Some(bytes) = linking.await? else {
            return Ok(None);
        };
        proven(to, name, wanted, "").await.map(|()| Some(bytes))
    };
    let instead = match linked.await {
        Ok(Some(bytes)) => {
            return Ok(Carried {
                bytes,
                means: Means::Linked,
            });
        }
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(image = name, %error, "streaming an image that cannot be linked");
            Some(error.to_string())
        }
    };
    let bytes = Box::pin(import(archive, to, name, wanted)).await?;
    Ok(Carried {
        bytes,
        means: Means::Streamed { instead },
    })
}

/// Keeps the image that is about to lose its name under its id, as the CRI plugin keeps those that it pulls: the way
/// back gives the name to it again, and until then nothing of it may be collected.
async fn keep_replaced(to: &Store, name: &str, wanted: &str) -> Result<(), RuntimeError> {
    let there = to.cri.image(name).await?.filter(|there| there.id != wanted);
    let Some(there) = there else { return Ok(()) };
    match to.api.target(name).await? {
        Some(target) => to.api.name(&there.id, target).await,
        None => Ok(()),
    }
}

async fn import(
    archive: impl Stream<Item = Result<impl AsRef<[u8]>, RuntimeError>>,
    to: &Store,
    name: &str,
    wanted: &str,
) -> Result<u64, RuntimeError> {
    let mut import = ctr_images(to);
    import.arg("import");
    if name.contains('@') {
        // An archive names tags only. The index of the archive is kept under the name with the digest,
        // so that pods which are pinned by digest find their image.
        import.args(["--index-name", name]);
    }
    import.arg("-").stdin(Stdio::piped());
    let say =
        |cause: Cause| RuntimeError::because(format!("image {name} was not carried into containerd"), cause);
    let mut child = import
        .spawn()
        .map_err(|error| say(RuntimeError::because("ctr could not be started", error).into()))?;
    let (bytes, status, words) = feed(&mut child, archive)
        .await
        .map_err(|error| say(error.into()))?;
    if !status.success() {
        return Err(say(format!("ctr ended with {status}: {}", words.trim()).into()));
    }
    proven(to, name, wanted, words.trim()).await.map(|()| bytes)
}

/// Makes sure that containerd's CRI knows the image by this name.
async fn proven(to: &Store, name: &str, wanted: &str, words: &str) -> Result<(), RuntimeError> {
    let say =
        |cause: Cause| RuntimeError::because(format!("image {name} was not carried into containerd"), cause);
    let Some(id) = noticed(&to.cri, name, |id| id == Some(wanted)).await? else {
        return Err(say(format!(
            "containerd's CRI does not list it afterwards {words}"
        )
        .into()));
    };
    // Docker Engine on containerd's image store calls an image by the digest of its manifest.
    let target = to.api.target(name).await?;
    if id == wanted || target.is_some_and(|target| target.digest == wanted) {
        return Ok(());
    }
    Err(say(format!(
        "containerd has {id} under this name, and it should be {wanted}"
    )
    .into()))
}

/// Carries the image of this name (a full reference) from containerd into Docker Engine.
///
/// # Errors
/// When the engine does not know it afterwards under this name and with the id that containerd's CRI gives; the
/// cause that was given. An image whose layers containerd has unpacked and discarded has no archive.
pub async fn into_docker(from: &Store, to: &Engine, name: &str) -> Result<Carried, RuntimeError> {
    let say =
        |cause: Cause| RuntimeError::because(format!("image {name} was not carried into Docker"), cause);
    let image = from.cri.image(name).await?;
    let wanted = image
        .ok_or_else(|| say("containerd's CRI does not list it".into()))?
        .id;
    let target = from.api.target(name).await?;
    let is_it = |id: &str| id == wanted || target.as_ref().is_some_and(|target| target.digest == id);
    if to
        .image(name)
        .await?
        .and_then(|image| image.id)
        .is_some_and(|id| is_it(&id))
    {
        return Ok(NAMED);
    }
    let mut export = ctr_images(from);
    export.arg("export");
    if exports_by_transfer(from).await? {
        export.arg("--local");
    }
    export.args(["-", name]);
    let mut child = export
        .spawn()
        .map_err(|error| say(RuntimeError::because("ctr could not be started", error).into()))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let words = tokio::spawn(bounded(stderr));
    let loaded = match stdout {
        Some(stdout) => to.load(archive(stdout), UNPACK).await,
        None => Ok(()),
    };
    let status = timeout(STALLED, child.wait())
        .await
        .map_err(|_| say("ctr does not end".into()))?
        .map_err(|error| say(error.into()))?;
    if !status.success() {
        // A process that it has left behind may keep the pipe open.
        let words = match timeout(LAST_WORDS, words).await {
            Ok(read) => read.map_err(io::Error::other).flatten().unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        let words = String::from_utf8_lossy(&words);
        // ctr has no code for it; these are containerd's words since 1.0.
        let remedy = if words.contains("not found") {
            "; containerd has no archives of layers that were linked or discarded: pull the image into Docker"
        } else {
            ""
        };
        return Err(say(
            format!("ctr ended with {status}: {}{remedy}", words.trim()).into()
        ));
    }
    loaded.map_err(|error| say(error.into()))?;
    let found = to
        .image(name)
        .await?
        .ok_or_else(|| say("the engine has no image of this name afterwards".into()))?;
    let id = found.id.unwrap_or_default();
    if !is_it(&id) {
        return Err(say(format!(
            "Docker has {id} under this name, containerd has {wanted}"
        )
        .into()));
    }
    Ok(Carried {
        bytes: found
            .size
            .and_then(|size| u64::try_from(size).ok())
            .unwrap_or_default(),
        means: Means::Streamed { instead: None },
    })
}

/// Whether `ctr` lets the server write archives (2.0 and later do, unless told otherwise): then it ends, with success,
/// when the server has, and what is still on its way to standard output is cut off.
async fn exports_by_transfer(store: &Store) -> Result<bool, RuntimeError> {
    let mut help = ctr_images(store);
    help.args(["export", "--help"]);
    let said = run(help, b"", ASK).await.map_err(RuntimeError::of)?;
    Ok(String::from_utf8_lossy(&said.stdout).contains("--local"))
}

/// The id under which the CRI knows a name, as soon as it is as expected or the time is up.
pub(super) async fn noticed(
    cri: &Cri,
    name: &str,
    expected: impl Fn(Option<&str>) -> bool,
) -> Result<Option<String>, RuntimeError> {
    let mut left = NOTICED.as_millis() / POLL.as_millis();
    loop {
        let id = cri.image(name).await?.map(|image| image.id);
        if expected(id.as_deref()) || left == 0 {
            return Ok(id);
        }
        left -= 1;
        sleep(POLL).await;
    }
}

fn ctr_images(store: &Store) -> Command {
    let mut images = command(&store.ctr);
    images
        .arg("--address")
        .arg(store.cri.socket())
        .args(["--namespace", "k8s.io", "images"]);
    images
}

/// The archive that a child writes, chunk by chunk.
fn archive(stdout: ChildStdout) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::try_unfold(stdout, |mut stdout| async {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = timeout(STALLED, stdout.read_buf(&mut chunk));
        let count = read.await.map_err(|_| io::Error::other("ctr stood still"))??;
        Ok((count > 0).then(|| (Bytes::from(chunk), stdout)))
    })
}

/// Pours the archive into the child and waits for its end: bytes, exit status, and what it said.
async fn feed(
    child: &mut Child,
    archive: impl Stream<Item = Result<impl AsRef<[u8]>, RuntimeError>>,
) -> Result<(u64, ExitStatus, String), RuntimeError> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    // Read beside the pouring: a child whose pipe is full stands still.
    let words = tokio::spawn(async { tokio::try_join!(bounded(stdout), bounded(stderr)) });
    let bytes = match stdin {
        Some(stdin) => pour(stdin, archive).await?,
        None => 0,
    };
    let pipe = |error: io::Error| RuntimeError::because("talking to ctr", error);
    let end = async {
        let status = child.wait().await.map_err(pipe)?;
        let (_progress, complaint) = words.await.map_err(io::Error::other).flatten().map_err(pipe)?;
        Ok((bytes, status, String::from_utf8_lossy(&complaint).into_owned()))
    };
    timeout(UNPACK, end).await.unwrap_or_else(|_| {
        Err(RuntimeError::new(format!(
            "ctr did not end within {} s",
            UNPACK.as_secs()
        )))
    })
}

/// Writes the archive and closes the pipe, which is its end for `ctr`. When the engine fails in the middle, the
/// caller drops the child, and with it the half archive.
async fn pour(
    mut stdin: ChildStdin,
    archive: impl Stream<Item = Result<impl AsRef<[u8]>, RuntimeError>>,
) -> Result<u64, RuntimeError> {
    let stalled = |who: &str| RuntimeError::new(format!("{who} stood still for {} s", STALLED.as_secs()));
    let mut archive = std::pin::pin!(archive);
    let mut bytes = 0;
    while let Some(chunk) = timeout(STALLED, archive.next())
        .await
        .map_err(|_| stalled("the source"))?
    {
        let chunk = chunk?;
        match timeout(STALLED, stdin.write_all(chunk.as_ref()))
            .await
            .map_err(|_| stalled("ctr"))?
        {
            Ok(()) => bytes += chunk.as_ref().len() as u64,
            // It ended early; its exit status and its words say why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => return Err(RuntimeError::because("talking to ctr", error)),
        }
    }
    Ok(bytes)
}
