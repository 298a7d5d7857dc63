//! A Docker Engine behind a real unix socket, with state. Its containers are those of a real node.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path as UrlPath, RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use futures::stream;
use serde_json::{Value, json};
use tokio::net::UnixListener;

/// The name of an image without one.
const NONE: &str = "<none>:<none>";

/// How the archive of an image is streamed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Archive {
    /// Its first line.
    pub(crate) record: String,
    /// How many chunks of 64 KiB follow.
    pub(crate) chunks: usize,
    /// The connection breaks after them.
    pub(crate) breaks: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub(crate) containers: Arc<Mutex<Vec<Value>>>,
    pub(crate) image_id: String,
    pub(crate) archive: Archive,
    /// The archive itself, if it is a real one.
    pub(crate) saved: Vec<u8>,
    /// Names and ids that were loaded.
    pub(crate) loaded: Arc<Mutex<Vec<(String, String)>>>,
    /// How many removals are refused at first, as those of zombies are.
    pub(crate) zombies: Arc<AtomicUsize>,
    /// Whether requests for all containers are refused, as while what Docker stands on starts: each one in its turn, and
    /// none after them.
    pub(crate) refusals: Arc<Mutex<VecDeque<bool>>>,
    /// Where every request that changes something is written down.
    log: PathBuf,
}

pub(crate) const CHUNK: usize = 64 * 1024;

impl Engine {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            containers: Arc::default(),
            image_id: String::new(),
            archive: Archive::default(),
            saved: Vec::new(),
            loaded: Arc::default(),
            zombies: Arc::default(),
            refusals: Arc::default(),
            log: root.join("log"),
        }
    }

    /// Serves at the socket.
    pub(crate) fn serve(&self, socket: &Path) {
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        let routes = Router::new()
            .route(
                "/version",
                get(|| async { json!({"Version": "20.10.24", "ApiVersion": "1.41"}).to_string() }),
            )
            .route(
                "/info",
                get(|| async { json!({"Driver": "vfs", "DockerRootDir": "/var/lib/docker"}).to_string() }),
            )
            .route("/images/json", get(images))
            .route("/images/load", post(load))
            .route("/images/{*rest}", get(image).delete(untag).post(tag))
            .route("/containers/json", get(list))
            .route("/containers/{id}/json", get(inspect))
            .route("/containers/{id}/stop", post(stop))
            .route("/containers/{id}", delete(remove))
            .with_state(self.clone());
        tokio::spawn(async move {
            axum::serve(listener, routes.layer(axum::extract::DefaultBodyLimit::disable())).await
        });
    }

    fn write_down(&self, verb: &str, id: &str) {
        use std::io::Write as _;
        let containers = self.containers.lock().unwrap();
        let one = containers.iter().find(|one| one["Id"] == id).unwrap();
        let name = one["Names"][0].as_str().unwrap();
        // `/k8s_server_host-port-r6c4k_lab_…`: what it is, and of which pod.
        let short: Vec<&str> = name.split('_').skip(1).take(2).collect();
        let mut log = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.log)
            .unwrap();
        writeln!(log, "{verb} {}", short.join(" ")).unwrap();
    }
}

async fn image(State(engine): State<Engine>, UrlPath(rest): UrlPath<String>) -> Response {
    if rest.ends_with("/json") {
        let loaded = engine.loaded.lock().unwrap();
        let name = rest.trim_end_matches("/json");
        if let Some((_, id)) = loaded.iter().find(|(one, id)| one == name || id == name) {
            let names = loaded.iter().filter(|(one, of)| of == id && one != NONE);
            let names: Vec<&String> = names.map(|(one, _)| one).collect();
            return json!({"Id": id, "RepoTags": names, "Size": 300_000})
                .to_string()
                .into_response();
        }
        return match engine.image_id.as_str() {
            "" => (
                StatusCode::NOT_FOUND,
                json!({"message": "No such image"}).to_string(),
            )
                .into_response(),
            id => json!({"Id": id}).to_string().into_response(),
        };
    }
    if !engine.saved.is_empty() {
        return engine.saved.into_response();
    }
    let mut first = engine.archive.record.clone().into_bytes();
    first.push(b'\n');
    let mut parts = vec![Ok(first)];
    parts.extend((0..engine.archive.chunks).map(|_| Ok(vec![0; CHUNK])));
    if engine.archive.breaks {
        parts.push(Err(std::io::Error::other("the disk is gone")));
    }
    Body::from_stream(stream::iter(parts)).into_response()
}

async fn load(State(engine): State<Engine>, archive: Bytes) -> Response {
    let first = String::from_utf8_lossy(archive.split(|byte| *byte == b'\n').next().unwrap()).into_owned();
    let Some((name, id)) = first.split_once(' ') else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    move_name(&mut engine.loaded.lock().unwrap(), name, id);
    json!({"stream": "Loaded image"}).to_string().into_response()
}

/// An image that has lost its last name stays.
fn move_name(loaded: &mut Vec<(String, String)>, name: &str, id: &str) {
    for (one, _) in loaded.iter_mut().filter(|(one, _)| one == name) {
        NONE.clone_into(one);
    }
    loaded.retain(|(one, of)| one != NONE || of != id);
    loaded.push((name.to_owned(), id.to_owned()));
}

async fn tag(
    State(engine): State<Engine>,
    UrlPath(rest): UrlPath<String>,
    RawQuery(query): RawQuery,
) -> StatusCode {
    let id = rest.trim_end_matches("/tag");
    let part = |name| parameter(query.clone(), name).unwrap();
    let name = format!("{}:{}", part("repo"), part("tag"));
    move_name(&mut engine.loaded.lock().unwrap(), &name, id);
    StatusCode::CREATED
}

async fn images(State(engine): State<Engine>) -> String {
    let loaded = engine.loaded.lock().unwrap();
    let one = |(name, id): &(String, String)| {
        json!({
            "Id": id, "RepoTags": [name], "RepoDigests": [], "ParentId": "", "Created": 0, "Size": 0,
            "SharedSize": 0, "Labels": {}, "Containers": 0
        })
    };
    loaded.iter().map(one).collect::<Value>().to_string()
}

async fn untag(State(engine): State<Engine>, UrlPath(name): UrlPath<String>) -> Response {
    let mut loaded = engine.loaded.lock().unwrap();
    let before = loaded.len();
    loaded.retain(|(one, id)| *one != name && *id != name);
    if loaded.len() == before {
        return (
            StatusCode::NOT_FOUND,
            json!({"message": "No such image"}).to_string(),
        )
            .into_response();
    }
    json!([{"Untagged": name}]).to_string().into_response()
}

/// A parameter of a query, with what is escaped in it.
fn parameter(query: Option<String>, name: &str) -> Option<String> {
    let query = query.unwrap_or_default();
    let value = query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let mut parts = value.split('%');
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        text.push(char::from(u8::from_str_radix(&part[..2], 16).unwrap()));
        text.push_str(&part[2..]);
    }
    Some(text)
}

async fn list(State(engine): State<Engine>, RawQuery(query): RawQuery) -> Response {
    let filters = parameter(query, "filters").map(|text| serde_json::from_str(&text).unwrap());
    let filters: Value = filters.unwrap_or_default();
    let wanted: Vec<&str> = filters["label"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let containers = engine.containers.lock().unwrap();
    if wanted.is_empty() && engine.refusals.lock().unwrap().pop_front() == Some(true) {
        let message = json!({"message": "containerd is not available"});
        return (StatusCode::INTERNAL_SERVER_ERROR, message.to_string()).into_response();
    }
    let matching = containers
        .iter()
        .filter(|one| wanted.iter().all(|label| one["Labels"].get(label).is_some()));
    matching.cloned().collect::<Value>().to_string().into_response()
}

fn known(engine: &Engine, id: &str) -> bool {
    engine
        .containers
        .lock()
        .unwrap()
        .iter()
        .any(|one| one["Id"] == id)
}

fn unknown() -> Response {
    (
        StatusCode::NOT_FOUND,
        json!({"message": "No such container"}).to_string(),
    )
        .into_response()
}

async fn inspect(State(engine): State<Engine>, UrlPath(id): UrlPath<String>) -> Response {
    if !known(&engine, &id) {
        return unknown();
    }
    json!({"Id": id, "State": {"Running": true, "Pid": 4647}})
        .to_string()
        .into_response()
}

async fn stop(
    State(engine): State<Engine>,
    UrlPath(id): UrlPath<String>,
    RawQuery(query): RawQuery,
) -> Response {
    if !known(&engine, &id) {
        return unknown();
    }
    engine.write_down(&format!("stop within {}", parameter(query, "t").unwrap()), &id);
    let mut containers = engine.containers.lock().unwrap();
    let stopped = containers.iter_mut().find(|one| one["Id"] == id.as_str());
    stopped.unwrap()["State"] = json!("exited");
    StatusCode::NO_CONTENT.into_response()
}

async fn remove(
    State(engine): State<Engine>,
    UrlPath(id): UrlPath<String>,
    RawQuery(query): RawQuery,
) -> Response {
    if !known(&engine, &id) {
        return unknown();
    }
    assert_eq!(parameter(query, "v").as_deref(), Some("false"), "volumes stay");
    let left = engine
        .zombies
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    if left.is_ok() {
        let message = json!({"message": format!("cannot remove - container {id} PID 787 is zombie and can not be killed")});
        return (StatusCode::INTERNAL_SERVER_ERROR, message.to_string()).into_response();
    }
    engine.write_down("remove", &id);
    engine
        .containers
        .lock()
        .unwrap()
        .retain(|one| one["Id"] != id.as_str());
    StatusCode::NO_CONTENT.into_response()
}
