//! Carries an image from Docker Engine into containerd: the engine's archive is streamed into the standard input of
//! `ctr images import`; nothing is staged on disk or held in memory. containerd's own answer is the proof: under
//! the same name its CRI must know an image of the same id, which in both is the digest of the configuration.

use std::{ffi::OsStr, io, path::Path, process::ExitStatus, process::Stdio, time::Duration};

use futures::{Stream, StreamExt as _};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, ChildStdin, Command},
    time::{sleep, timeout},
};

use super::{RuntimeError, cri::Cri, docker::Engine};
use crate::host::command::{bounded, command, run};

/// How long the stream may stand still. The engine packs a layer before it sends the first byte of it.
const STALLED: Duration = Duration::from_secs(300);
/// How long containerd may take to unpack the layers after the last byte.
const UNPACK: Duration = Duration::from_secs(900);
/// How long removing a name may take, garbage collection included.
const REMOVE: Duration = Duration::from_secs(120);
/// How long containerd's CRI may take to learn of a change that `ctr` made: it follows containerd's events.
const NOTICED: Duration = Duration::from_secs(5);
/// How often it is asked meanwhile.
const POLL: Duration = Duration::from_millis(50);

/// Carries the image of this name (a full reference), and returns how many bytes went through.
///
/// # Errors
/// When containerd's CRI does not know it afterwards under this name and with the engine's image id; the cause
/// that `ctr` or the engine gave.
pub async fn carry(from: &Engine, to: &Cri, ctr: &OsStr, name: &str) -> Result<u64, RuntimeError> {
    let wanted = from.image_id(name).await?;
    let mut import = ctr_images(ctr, to.socket());
    import.arg("import");
    if name.contains('@') {
        // The engine's archive names tags only. The index of the archive is kept under the name with the digest,
        // so that pods which are pinned by digest find their image.
        import.args(["--index-name", name]);
    }
    import.arg("-").stdin(Stdio::piped());
    let say = |cause: String| RuntimeError(format!("image {name} was not carried into containerd: {cause}"));
    let mut child = import
        .spawn()
        .map_err(|error| say(format!("ctr could not be started: {error}")))?;
    let (bytes, status, words) = feed(&mut child, from.export(name))
        .await
        .map_err(|error| say(error.0))?;
    // A `ctr` that failed has nothing to be waited for; one that succeeded may have replaced another image.
    let found = noticed(to, name, |id| id == Some(wanted.as_str()) || !status.success()).await?;
    match found {
        Some(id) if id == wanted => Ok(bytes),
        _ if !status.success() => Err(say(format!("ctr ended with {status}: {}", words.trim()))),
        Some(id) => Err(say(format!(
            "containerd knows it as {id}, Docker as {wanted}; Docker's containerd image store is not supported"
        ))),
        None => Err(say(format!(
            "containerd's CRI does not know it afterwards; ctr said: {}",
            words.trim()
        ))),
    }
}

/// Removes a name from containerd's store, and the record under the image's id that the CRI plugin adds, when no
/// name is left that needs it.
///
/// CRI's own `RemoveImage` would not do: it removes every name of the image, those that were there before too.
///
/// # Errors
/// When the name is still there.
pub async fn remove(from: &Cri, ctr: &OsStr, name: &str) -> Result<(), RuntimeError> {
    let Some(image) = from.image(name).await? else {
        return Ok(());
    };
    let words = remove_record(from, ctr, name).await?;
    if noticed(from, name, |id| id.is_none()).await?.is_some() {
        return Err(RuntimeError(format!(
            "image {name} is still in containerd's store; ctr said: {}",
            words.trim()
        )));
    }
    let unnamed = from.image(&image.id).await?;
    if unnamed.is_some_and(|image| image.repo_tags.is_empty() && image.repo_digests.is_empty()) {
        remove_record(from, ctr, &image.id).await?;
    }
    Ok(())
}

async fn remove_record(from: &Cri, ctr: &OsStr, name: &str) -> Result<String, RuntimeError> {
    let mut remove = ctr_images(ctr, from.socket());
    remove.args(["rm", "--sync", name]);
    let output = run(remove, b"", REMOVE)
        .await
        .map_err(|error| RuntimeError(error.to_string()))?;
    Ok(output.stderr)
}

/// The id under which the CRI knows a name, as soon as it is as expected or the time is up.
async fn noticed(
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

fn ctr_images(ctr: &OsStr, socket: &Path) -> Command {
    let mut images = command(ctr);
    images
        .arg("--address")
        .arg(socket)
        .args(["--namespace", "k8s.io", "images"]);
    images
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
    let pipe = |error: io::Error| RuntimeError(format!("talking to ctr: {error}"));
    let end = async {
        let status = child.wait().await.map_err(pipe)?;
        let (_progress, complaint) = words.await.map_err(io::Error::other).flatten().map_err(pipe)?;
        Ok((bytes, status, String::from_utf8_lossy(&complaint).into_owned()))
    };
    timeout(UNPACK, end).await.unwrap_or_else(|_| {
        Err(RuntimeError(format!(
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
    let stalled = |who: &str| RuntimeError(format!("{who} stood still for {} s", STALLED.as_secs()));
    let mut archive = std::pin::pin!(archive);
    let mut bytes = 0;
    while let Some(chunk) = timeout(STALLED, archive.next())
        .await
        .map_err(|_| stalled("the engine"))?
    {
        let chunk = chunk?;
        match timeout(STALLED, stdin.write_all(chunk.as_ref()))
            .await
            .map_err(|_| stalled("ctr"))?
        {
            Ok(()) => bytes += chunk.as_ref().len() as u64,
            // It ended early; its exit status and its words say why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => return Err(RuntimeError(format!("talking to ctr: {error}"))),
        }
    }
    Ok(bytes)
}
