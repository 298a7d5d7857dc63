//! A bus that is silent, a systemd that hangs on a bus that works, and an old systemd. The clock is paused, and goes on only
//! where somebody waits for a deadline; a call without one runs into that of the test.

use std::os::unix::net::UnixListener as Silent;

use tempfile::TempDir;
use tokio::{
    io::{self, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
};

use super::*;

/// Longer than all deadlines together.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// What of systemd works.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Works {
    /// Nothing but `Subscribe`.
    Nothing,
    /// It queues jobs, and none ever ends.
    Queue,
}

async fn serve(listener: UnixListener, works: Works) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(greet(stream, works));
    }
}

/// A bus for one client with a systemd of which nearly nothing works (D-Bus specification, "Authentication Protocol"
/// and "Message Protocol").
async fn greet(stream: UnixStream, works: Works) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let answer = if line.contains("BEGIN") {
            break;
        } else if line.contains("NEGOTIATE_UNIX_FD") {
            "AGREE_UNIX_FD\r\n"
        } else {
            "OK 0123456789abcdef0123456789abcdef\r\n"
        };
        stream.write_all(answer.as_bytes()).await?;
    }
    loop {
        let mut head = [0; 16];
        stream.read_exact(&mut head).await?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let mut rest = vec![0; (number(12).next_multiple_of(8) + number(4)) as usize];
        stream.read_exact(&mut rest).await?;
        let asks = |member: &str| rest.windows(member.len()).any(|part| part == member.as_bytes());
        let answer = if asks("Hello") {
            reply(number(8), "s", text(":1.7"))
        } else if asks("Subscribe") || asks("AddMatch") || asks("RemoveMatch") {
            reply(number(8), "", Vec::new())
        } else if works == Works::Nothing {
            continue;
        } else if asks("GetNameOwner") {
            reply(number(8), "s", text(":1.0"))
        } else if asks("GetAll\0") {
            // An empty array of pairs, which begin at multiples of 8.
            reply(number(8), "a{sv}", vec![0; 8])
        } else if asks("Get\0") {
            reply(number(8), "v", [vec![1, b's', 0, 0], text("252")].concat())
        } else if asks("StartTransientUnit") || asks("StartUnit") {
            reply(number(8), "o", text("/org/freedesktop/systemd1/job/7"))
        } else {
            continue;
        };
        stream.write_all(&answer).await?;
    }
}

/// A string, or the path of an object.
fn text(text: &str) -> Vec<u8> {
    let length = (text.len() as u32).to_le_bytes();
    [&length, text.as_bytes(), &[0]].concat()
}

/// The answer to the message of this number, with a body of this signature.
fn reply(to: u32, signature: &str, body: Vec<u8>) -> Vec<u8> {
    let mut fields = vec![5, 1, b'u', 0];
    fields.extend(to.to_le_bytes());
    if !signature.is_empty() {
        fields.extend([8, 1, b'g', 0, signature.len() as u8]);
        fields.extend(signature.as_bytes());
        fields.push(0);
    }
    let mut message = vec![b'l', 2, 1, 1];
    for number in [body.len() as u32, to, fields.len() as u32] {
        message.extend(number.to_le_bytes());
    }
    fields.resize(fields.len().next_multiple_of(8), 0);
    message.extend(fields);
    message.extend(body);
    message
}

/// A bus whose systemd works so far, and time that stands still from then on. The directory holds its socket.
async fn bus(works: Works) -> (TempDir, SystemBus) {
    let place = TempDir::new().unwrap();
    let socket = place.path().join("bus");
    tokio::spawn(serve(UnixListener::bind(&socket).unwrap(), works));
    let bus = SystemBus::at(&format!("unix:path={}", socket.display()))
        .await
        .unwrap();
    tokio::time::pause();
    (place, bus)
}

/// systemd takes the unit, and its signal never comes: what is waited for is what the unit may take and a call.
#[tokio::test]
async fn a_transient_unit_whose_job_never_ends_is_given_up() {
    let (_place, bus) = bus(Works::Queue).await;
    let run = bus.run_transient("a.service", &["/bin/true"], Duration::from_secs(600));
    let error = timeout(NEVER, run).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("no answer within 630 s"), "{error}");
}

#[tokio::test]
async fn every_call_of_a_systemd_that_hangs_has_a_deadline() {
    let (_place, bus) = bus(Works::Nothing).await;
    let all = async {
        [
            bus.unit("a.service").await.map(drop),
            bus.describe("a.service").await.map(drop),
            bus.started_after_boot("a.service").await.map(drop),
            bus.version().await.map(drop),
            bus.start("a.service").await,
            bus.stop("a.service").await,
            bus.restart("a.service").await,
            bus.kill("a.service").await,
            bus.enable("a.service").await,
            bus.disable("a.service").await,
            bus.mask("a.service").await,
            bus.unmask("a.service").await,
            bus.mask_until_boot("a.service").await,
            bus.unmask_until_boot("a.service").await,
            bus.reset_failed("a.service").await,
            bus.reload().await,
            bus.run_transient("a.service", &["/bin/true"], Duration::from_secs(1))
                .await
                .map(drop),
        ]
    };
    for (call, failed) in timeout(NEVER, all).await.unwrap().into_iter().enumerate() {
        let error = failed.unwrap_err().to_string();
        assert!(error.contains("no answer within"), "{call}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_does_not_answer_is_given_up() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("bus");
    let _silent = Silent::bind(&socket).unwrap();
    let error = SystemBus::at(&format!("unix:path={}", socket.display()))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no connection within 30 s"), "{error}");
}

#[test]
fn an_old_systemd_is_not_given_properties_that_it_does_not_have() {
    assert!(kept_until_read(219).is_empty() && kept_until_read(235).is_empty());
    let names: Vec<_> = kept_until_read(252).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["CollectMode", "AddRef"]);
}
