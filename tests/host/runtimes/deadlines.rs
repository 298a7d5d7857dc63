//! Runtimes and programs that hang: every call has a deadline. The clock is paused, and goes on only where somebody
//! waits for a deadline; a call without one runs into that of the test.

use std::{fmt::Display, fs, os::unix::net::UnixListener, path::Path, time::Duration};

use axum::{Router, body::Body, response::Response, routing::get};
use containerd_client::types::Descriptor;
use futures::stream;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{Instant, pause, sleep, timeout};
use transship::{
    host::files::Files,
    plan::{digest::Digest, step::Layers},
    runtime::{Runtimes, containerd::Containerd, cri::Cri, docker::Engine, hosted::HostRuntimes},
};

use super::{
    APP, APP_ID, Host, archive_of, containerd_endpoint, docker_endpoint, into_containerd, into_docker, path,
};

/// Longer than all deadlines together.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// How a call fails.
async fn failure<T, E: Display>(what: &str, call: impl Future<Output = Result<T, E>>) -> String {
    match timeout(NEVER, call).await {
        Ok(Ok(_)) => panic!("{what} succeeded"),
        Ok(Err(error)) => error.to_string(),
        Err(_) => panic!("{what} has no deadline"),
    }
}

/// Demands of each call that it fails, and not before somebody has waited for an answer.
macro_rules! have_deadlines {
    ($($call:expr),+ $(,)?) => {
        $(
            let began = Instant::now();
            let said = failure(stringify!($call), $call).await;
            assert!(began.elapsed() >= Duration::from_secs(10), "{}: {said}", stringify!($call));
        )+
    };
}

/// Somebody listens at a socket and says nothing.
fn silent(place: &TempDir) -> (std::path::PathBuf, UnixListener) {
    let socket = place.path().join("run/containerd/containerd.sock");
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listens = UnixListener::bind(&socket).unwrap();
    (socket, listens)
}

#[tokio::test(start_paused = true)]
async fn every_call_of_a_cri_has_a_deadline() {
    let place = TempDir::new().unwrap();
    let (socket, _listens) = silent(&place);
    let cri = Cri::connect(&socket).await.unwrap();
    for cri in [cri.clone(), cri.hurried()] {
        have_deadlines![
            cri.about(),
            cri.version(),
            cri.sandboxes(),
            cri.containers(),
            cri.images(),
            cri.image("a"),
            cri.mounts("a"),
            cri.sandbox("a"),
            cri.describe_sandbox("a"),
            cri.run_sandbox(Default::default()),
            cri.stop_container("a", 1),
            cri.remove_container("a"),
            cri.stop_sandbox("a"),
            cri.remove_sandbox("a"),
        ];
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_of_containerds_api_has_a_deadline() {
    let place = TempDir::new().unwrap();
    let (socket, _listens) = silent(&place);
    let api = Containerd::connect(&socket).await.unwrap();
    let digest = Digest::of("a");
    have_deadlines![
        api.lease(),
        api.end_lease(),
        api.target("a"),
        api.name("a", Descriptor::default()),
        api.remove_name("a"),
        api.has_snapshot(&digest),
        api.begin_snapshot(&digest, None),
        api.complete_snapshot(&digest),
        api.write("text/plain", b"a".to_vec(), &[]),
        api.cri_problem(),
        api.deprecations(),
        api.images_with_label("a"),
        api.records_of_other_runtimes("a"),
        api.specification_of("a"),
        api.forget_sandbox("a"),
    ];
}

/// Whoever can go another way waits for seconds, and whoever asks for a runtime's health does not wait for the reason.
#[tokio::test(start_paused = true)]
async fn a_containerd_that_hangs_is_waited_for_once() {
    let place = TempDir::new().unwrap();
    let (_socket, _listens) = silent(&place);
    let runtimes = HostRuntimes::new(Files::new(place.path()));
    for (most, health) in [(5, false), (15, true)] {
        let began = Instant::now();
        let containerd = containerd_endpoint();
        if health {
            failure("health", runtimes.health(&containerd)).await;
        } else {
            failure("answers", runtimes.answers(&containerd)).await;
        }
        assert_eq!(began.elapsed().as_secs(), most, "health: {health}");
    }
}

/// Docker Engine says its version, and of all others nothing, or that an answer begins.
fn half_dead(place: &TempDir, begins: bool) -> std::path::PathBuf {
    let socket = place.path().join("docker.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let version = || async { json!({"Version": "20.10.24", "ApiVersion": "1.41"}).to_string() };
    let hangs = move || async move {
        if !begins {
            std::future::pending::<()>().await;
        }
        Response::new(Body::from_stream(stream::pending::<
            Result<Vec<u8>, std::io::Error>,
        >()))
    };
    let routes = Router::new().route("/version", get(version)).fallback(hangs);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    socket
}

#[tokio::test(start_paused = true)]
async fn every_call_of_docker_has_a_deadline() {
    for begins in [false, true] {
        let place = TempDir::new().unwrap();
        let engine = Engine::connect(&half_dead(&place, begins)).await.unwrap();
        let nothing = || stream::pending::<std::io::Result<bytes::Bytes>>();
        have_deadlines![
            engine.info(),
            engine.containers(&["a"]),
            engine.container("a"),
            engine.stop_signal("a"),
            engine.images(),
            engine.image("a"),
            engine.image_id("a"),
            engine.remove_name("a"),
            engine.load(nothing(), Duration::from_secs(30)),
        ];
        if !begins {
            // Of these the status is the answer.
            have_deadlines![engine.tag("a", "b:1"), engine.stop("a", 1), engine.remove("a")];
        }
    }
    let place = TempDir::new().unwrap();
    let (socket, _listens) = silent(&place);
    let said = failure("connect", Engine::connect(&socket)).await;
    assert!(said.contains("does not answer"), "{said}");
}

/// Waits in real time until a program says that it hangs; from then on the clock goes on only to deadlines.
async fn skip_once_hung<T>(hung: &Path, call: impl Future<Output = T>) -> T {
    let skip = async {
        while !hung.exists() {
            sleep(Duration::from_millis(10)).await;
        }
        pause();
        std::future::pending().await
    };
    tokio::select! {
        done = call => done,
        () = skip => unreachable!("it waits for ever"),
    }
}

/// A host on which the program at this path hangs.
fn where_hangs(program: &str, host: Host) -> (Host, std::path::PathBuf) {
    where_is("hangs", program, host)
}

/// A host on which the program at this path is another one.
fn where_is(other: &str, program: &str, host: Host) -> (Host, std::path::PathBuf) {
    let root = host.root.path();
    let at = root.join(program);
    fs::remove_file(&at).unwrap();
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host/runtimes/bin");
    fs::hard_link(programs.join(other), &at).unwrap();
    let hung = at.parent().unwrap().parent().unwrap().join("hung");
    (host, hung)
}

/// One archive fits into the pipe, the other does not.
#[tokio::test]
async fn a_ctr_that_takes_no_archive_is_given_up() {
    for (chunks, says) in [(0, "ctr did not end within"), (320, "ctr stood still for")] {
        let (host, hung) = where_hangs(
            "bin/ctr",
            Host::new(|engine| {
                engine.image_id = APP_ID.to_owned();
                engine.archive = archive_of(&format!("{APP} {APP_ID}"), chunks);
            }),
        );
        let step = into_containerd(Layers::Streamed { why: String::new() });
        let carried = failure("import", host.runtimes.carry_image(&step, APP));
        let said = skip_once_hung(&hung, carried).await;
        assert!(said.contains(says), "{chunks}: {said}");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_ctr_that_makes_no_archive_is_given_up() {
    let (host, hung) = where_hangs("bin/ctr", Host::new(|_| {}));
    host.write("images", &format!("{APP} {APP_ID}\n"));
    let step = into_docker();
    let carried = failure("export", host.runtimes.carry_image(&step, APP));
    let said = skip_once_hung(&hung, carried).await;
    assert!(said.contains("ctr does not end"), "{said}");
}

/// What it left behind holds its standard error.
#[tokio::test]
async fn a_ctr_that_fails_is_not_waited_for() {
    let (host, hung) = where_is("fails", "bin/ctr", Host::new(|_| {}));
    host.write("images", &format!("{APP} {APP_ID}\n"));
    let step = into_docker();
    let carried = failure("export", host.runtimes.carry_image(&step, APP));
    let said = skip_once_hung(&hung, carried).await;
    assert!(said.contains("ctr ended with exit status: 3"), "{said}");
}

#[tokio::test]
async fn a_plugin_that_hangs_is_killed() {
    let (host, hung) = where_hangs("opt/cni/bin/bridge", Host::with_pods());
    let stopping = timeout(
        NEVER,
        host.stop_pods(docker_endpoint(), super::cri_dockerd_endpoint()),
    );
    let stopped = skip_once_hung(&hung, stopping).await.unwrap();
    let killed = |text: &String| text.contains("gave no answer within 20 s and was killed");
    assert!(stopped.left.iter().any(killed), "{:?}", stopped.left);
}

#[tokio::test]
async fn a_program_that_does_not_tell_its_version_is_killed() {
    let (host, hung) = where_hangs("bin/ctr", Host::new(|_| {}));
    let program = path("/bin/ctr");
    let asked = failure("version", host.runtimes.program_version(&program));
    let said = skip_once_hung(&hung, asked).await;
    assert!(
        said.contains("gave no answer within 10 s and was killed"),
        "{said}"
    );
}
