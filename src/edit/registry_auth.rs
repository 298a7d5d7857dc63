//! Credentials of registries: of each one the user, and the file in which containers/image, and so CRI-O, has them
//! (containers-auth.json(5), the form of Docker's `config.json`).

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    hosts_toml::{DOCKER, DOCKER_REGISTRY, is_named_host},
    parse,
};

/// Root alone may read a file with credentials.
pub const MODE: u32 = 0o600;

/// A user of a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The host of the registry, with its port if there is one: `registry-1.docker.io` for Docker Hub.
    pub host: String,
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
    /// A token that stands for both.
    pub token: String,
}

/// Nothing but the host.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl Credential {
    /// With a user and a password in base64, as `auth` has them.
    pub fn decoded(host: &str, auth: &str) -> Option<Self> {
        let text = String::from_utf8(STANDARD.decode(auth).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Self {
            host: host.to_owned(),
            user: user.to_owned(),
            password: password.trim_matches('\0').to_owned(),
            token: String::new(),
        })
    }

    /// Whether the file can have it: user and password stand in one text with a colon between them, and names of images have no
    /// address of IPv6.
    pub fn can_be_written(&self) -> bool {
        !self.user.contains(':') && is_named_host(&self.host)
    }
}

/// The text of a file with these credentials.
pub fn text(credentials: &[Credential]) -> String {
    let entry = |one: &Credential| {
        let host = if one.host == DOCKER_REGISTRY {
            DOCKER
        } else {
            &one.host
        };
        let auth = STANDARD.encode(format!("{}:{}", one.user, one.password));
        let mut entry = json!({ "auth": auth });
        if !one.token.is_empty() {
            entry["identitytoken"] = Value::from(&*one.token);
        }
        (host.to_owned(), entry)
    };
    let auths: Map<String, Value> = credentials.iter().map(entry).collect();
    format!("{:#}\n", json!({ "auths": auths }))
}

/// What a file has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Credentials of whole registries.
    pub credentials: Vec<Credential>,
    /// What else stands there, in words: a part of a registry, and programs that have credentials.
    pub other: Vec<String>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: Map<String, Value>,
    #[serde(default, rename = "credHelpers")]
    helpers: Map<String, Value>,
    #[serde(default, rename = "credsStore")]
    store: String,
}

/// Reads a file.
pub fn read(text: &str) -> Read {
    let mut found = Read::default();
    let Ok(file) = parse::json::<File>(text) else {
        found
            .other
            .push("what is not in the form of Docker's config.json".to_owned());
        return found;
    };
    for (key, entry) in &file.auths {
        let given = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        let Some(mut one) = Credential::decoded(host_of(key), given("auth")) else {
            continue;
        };
        given("identitytoken").clone_into(&mut one.token);
        if one.can_be_written() {
            found.credentials.retain(|known| known.host != one.host);
            found.credentials.push(one);
        } else {
            found.other.push(key.clone());
        }
    }
    let helpers = file.helpers.keys().map(|key| format!("credHelpers of {key}"));
    found.other.extend(helpers);
    if !file.store.is_empty() {
        found.other.push("credsStore".to_owned());
    }
    found
}

/// The registry of a key: a host, a part of its images, or a URL of Docker's.
fn host_of(key: &str) -> &str {
    let rest = ["https://", "http://"]
        .into_iter()
        .find_map(|scheme| key.strip_prefix(scheme));
    let host = rest.map_or(key, |rest| rest.split('/').next().unwrap_or_default());
    if [DOCKER, "index.docker.io"].contains(&host) {
        DOCKER_REGISTRY
    } else {
        host
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(host: &str, user: &str, password: &str, token: &str) -> Credential {
        Credential {
            host: host.to_owned(),
            user: user.to_owned(),
            password: password.to_owned(),
            token: token.to_owned(),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let all = [
            credential("registry-1.docker.io", "me", "a:b", ""),
            credential("r.example:5000", "", "", "token"),
        ];
        let text = text(&all);
        assert_eq!(
            text,
            "{\n  \"auths\": {\n    \"docker.io\": {\n      \"auth\": \"bWU6YTpi\"\n    },\n    \"r.example:5000\": {\n      \
             \"auth\": \"Og==\",\n      \"identitytoken\": \"token\"\n    }\n  }\n}\n"
        );
        assert_eq!(read(&text).credentials, all);
    }

    #[test]
    fn what_is_no_whole_registry_is_told() {
        let text = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "bWU6cHc="}, "q.example/project": {"auth": "bWU6cHc="},
            "empty.example": {}}, "credHelpers": {"e.example": "ecr-login"}, "credsStore": "pass"}"#;
        let wanted = Read {
            credentials: vec![credential("registry-1.docker.io", "me", "pw", "")],
            other: ["q.example/project", "credHelpers of e.example", "credsStore"]
                .map(str::to_owned)
                .to_vec(),
        };
        assert_eq!(read(text), wanted);
        assert!(read("no").credentials.is_empty() && read("no").other.len() == 1);
    }

    #[test]
    fn nobody_sees_a_password() {
        let shown = format!("{:?}", credential("r.example", "me", "secret", "token"));
        assert_eq!(shown, "Credential { host: \"r.example\", .. }");
        assert!(!credential("r.example", "a:b", "", "").can_be_written());
        assert_eq!(Credential::decoded("r.example", "no colon"), None);
    }

    #[test]
    fn fuzz_credentials() {
        use crate::fuzz::{hold, samples};

        let seed = text(&[credential("r.example", "me", "pw", "")]);
        hold(&samples("registry-auth", &[&seed]), |sample| {
            let found = read(sample);
            let again = read(&text(&found.credentials));
            assert_eq!(again.credentials.len(), found.credentials.len());
        });
    }
}
