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

async fn serve(listener: UnixListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(greet(stream));
    }
}

/// A bus for one client: it answers the greeting and `Subscribe`, and nothing else (D-Bus specification, "Authentication
/// Protocol" and "Message Protocol").
async fn greet(stream: UnixStream) -> io::Result<()> {
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
        if asks("Hello") {
            stream.write_all(&reply(number(8), Some(":1.7"))).await?;
        } else if asks("Subscribe") || asks("AddMatch") {
            stream.write_all(&reply(number(8), None)).await?;
        }
    }
}

/// The answer to the message of this number.
fn reply(to: u32, text: Option<&str>) -> Vec<u8> {
    let mut fields = vec![5, 1, b'u', 0];
    fields.extend(to.to_le_bytes());
    let mut body = Vec::new();
    if let Some(text) = text {
        fields.extend([8, 1, b'g', 0, 1, b's', 0]);
        body.extend((text.len() as u32).to_le_bytes());
        body.extend(text.as_bytes());
        body.push(0);
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

#[tokio::test]
async fn every_call_of_a_systemd_that_hangs_has_a_deadline() {
    let place = TempDir::new().unwrap();
    let socket = place.path().join("bus");
    tokio::spawn(serve(UnixListener::bind(&socket).unwrap()));
    let bus = SystemBus::at(&format!("unix:path={}", socket.display()))
        .await
        .unwrap();
    tokio::time::pause();
    let all = async {
        [
            bus.unit("a.service").await.map(drop),
            bus.describe("a.service").await.map(drop),
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
