//! Reads the kubelet's kubeconfig as kubectl and the kubelet do (`client-go/tools/clientcmd`): the first document
//! counts, of a repeated key the last value, unknown fields do not matter, and files are named relative to the
//! kubeconfig. A kubeconfig holds the node's credentials, so no error says more than the place and the kind of a
//! mistake.

use std::{io::ErrorKind, path::Path};

use kube::{
    Config,
    client::AuthError,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError as Refused, LoadDataError},
};
use serde_json::Value;

use crate::{
    edit::parse::{self, ParseError},
    host::files::Files,
    plan::host_path::{HostPath, NotAHostPath},
};

/// A kubeconfig that cannot be used. Nothing of its text is in it.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// Its path is not one.
    #[error(transparent)]
    Path(#[from] NotAHostPath),
    /// It cannot be read.
    #[error("cannot {0}")]
    Io(#[from] std::io::Error),
    /// There is no such file.
    #[error("there is no such file")]
    Missing,
    /// It is not a kubeconfig.
    #[error(transparent)]
    Syntax(#[from] ParseError),
    /// What it says cannot be used.
    #[error("{0}")]
    Content(&'static str),
    /// A file that it names cannot be read.
    #[error("the file that it names as {field} cannot be read: {error}")]
    File {
        /// The field.
        field: &'static str,
        /// Why; the path would be a part of the text.
        error: ErrorKind,
    },
}

/// What the current context of the kubeconfig at `path` says of the server and of the identity.
///
/// # Errors
/// See [`KubeconfigError`].
pub(super) async fn read(path: &Path) -> Result<Config, KubeconfigError> {
    let path = HostPath::new(path.to_string_lossy())?;
    let text = Files::new("/")
        .read_text(&path)?
        .ok_or(KubeconfigError::Missing)?;
    let directory = path
        .as_str()
        .rsplit_once('/')
        .map_or("", |(directory, _)| directory);
    let kubeconfig = parse(&text, directory)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let config = config.map_err(|error| refused(&error))?;
    let user = &config.auth_info;
    let given = user.client_certificate_data.is_some() || user.client_key_data.is_some();
    for (field, path) in [
        (
            "client-certificate",
            user.client_certificate.as_ref().filter(|_| !given),
        ),
        ("client-key", user.client_key.as_ref().filter(|_| !given)),
        (
            "tokenFile",
            user.token_file.as_ref().filter(|_| user.token.is_none()),
        ),
    ] {
        // The client reads them, and says less when they are not there.
        let Some(path) = path.and_then(|path| HostPath::new(path.as_str()).ok()) else {
            continue;
        };
        let found = Files::new("/").read(&path).map_err(|error| error.kind());
        if let Some(error) = found.map_or_else(Some, |found| found.is_none().then_some(ErrorKind::NotFound)) {
            return Err(KubeconfigError::File { field, error });
        }
    }
    Ok(config)
}

fn parse(text: &str, directory: &str) -> Result<Kubeconfig, ParseError> {
    let mut document: Value = parse::lenient_yaml(text)?.unwrap_or_default();
    if document.is_null() {
        document = Value::Object(serde_json::Map::new());
    }
    if let Some(fields) = document.as_object_mut() {
        // Nothing here reads them, so they must not be in the way.
        fields.remove("preferences");
        fields.remove("extensions");
    }
    as_texts(&mut document);
    for (list, inner, needed, paths) in [
        ("clusters", "cluster", None, &["certificate-authority"][..]),
        ("contexts", "context", Some("cluster"), &[]),
        (
            "users",
            "user",
            None,
            &["client-certificate", "client-key", "tokenFile"],
        ),
    ] {
        for named in document
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            complete(named, "name");
            as_texts(named);
            let Some(inner) = named.get_mut(inner).filter(|inner| inner.is_object()) else {
                continue;
            };
            needed.into_iter().for_each(|field| complete(inner, field));
            as_texts(inner);
            if let Some(fields) = inner.as_object_mut() {
                fields.remove("extensions");
            }
            paths.iter().for_each(|field| resolve(inner, field, directory));
            if let Some(exec) = inner.get_mut("exec")
                && exec["command"]
                    .as_str()
                    .is_some_and(|command| command.contains('/'))
            {
                resolve(exec, "command", directory);
            }
        }
    }
    parse::data(document)
}

/// A text that is missing is an empty one, as in Go.
fn complete(value: &mut Value, field: &str) {
    if let Some(fields) = value.as_object_mut()
        && fields.get(field).is_none_or(Value::is_null)
    {
        fields.insert(field.to_owned(), Value::String(String::new()));
    }
}

/// Fields of clusters that are true or false.
const FLAGS: [&str; 2] = ["insecure-skip-tls-verify", "disable-compression"];

/// Makes texts of numbers and the like where Go needs texts, as its YAML reader does.
fn as_texts(value: &mut Value) {
    for (field, value) in value.as_object_mut().into_iter().flatten() {
        if (value.is_number() || value.is_boolean()) && !FLAGS.contains(&field.as_str()) {
            *value = Value::String(value.to_string());
        }
    }
}

/// Makes a path absolute; an empty one is none.
fn resolve(value: &mut Value, field: &str, directory: &str) {
    let Some(fields) = value.as_object_mut() else {
        return;
    };
    match fields.get(field).and_then(Value::as_str) {
        Some("") => {
            fields.remove(field);
        }
        Some(path) if !path.starts_with('/') => {
            let path = format!("{directory}/{path}");
            fields.insert(field.to_owned(), Value::String(path));
        }
        _ => {}
    }
}

fn refused(error: &Refused) -> KubeconfigError {
    let file = |field, error: &LoadDataError| match error {
        LoadDataError::ReadFile(error, _) => KubeconfigError::File {
            field,
            error: error.kind(),
        },
        _ => KubeconfigError::Content("its certificates or its key are not base64, or it names none"),
    };
    match error {
        Refused::LoadCertificateAuthority(error) => file("certificate-authority", error),
        Refused::LoadClientCertificate(error) => file("client-certificate", error),
        Refused::LoadClientKey(error) => file("client-key", error),
        Refused::CurrentContextNotSet => KubeconfigError::Content("it has no current-context"),
        Refused::LoadContext(_) => KubeconfigError::Content("its current-context is not among its contexts"),
        Refused::LoadClusterOfContext(_) => {
            KubeconfigError::Content("the cluster of its current-context is not among its clusters")
        }
        Refused::MissingClusterUrl => {
            KubeconfigError::Content("the cluster of its current-context has no server")
        }
        Refused::ParseClusterUrl(_) => KubeconfigError::Content("the server of its cluster is not a URL"),
        Refused::ParseProxyUrl(_) => KubeconfigError::Content("the proxy-url of its cluster is not a URL"),
        Refused::ParseCertificates(_) => KubeconfigError::Content("its certificate authority is not PEM"),
        _ => KubeconfigError::Content("what it says cannot be used"),
    }
}

/// What the API server or the client says. Nothing is told of credentials that cannot be used: the words may be
/// those of an exec plugin, or hold the credentials.
pub(super) fn words(error: &kube::Error) -> String {
    const CREDENTIALS: &str = "the credentials of the kubeconfig cannot be used; look at its token, tokenFile or exec plugin on the node";
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<AuthError>() {
            return CREDENTIALS.to_owned();
        }
        cause = error.source();
    }
    match error {
        kube::Error::Auth(_) => CREDENTIALS.to_owned(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const GOOD: &str = "apiVersion: v1
kind: Config
clusters:
- name: k
  cluster:
    server: https://127.0.0.1:6443
users:
- name: n
  user:
    token: first
contexts:
- name: c
  context:
    cluster: k
    user: n
current-context: c
";

    async fn read_text(text: &str) -> Result<Config, KubeconfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path()).await
    }

    #[rstest]
    #[case::plain(GOOD.to_owned())]
    #[case::numbers(GOOD.replace("name: c", "name: 1").replace("current-context: c", "current-context: 1").replace("first", "007"))]
    #[case::repeated(GOOD.replace("    token: first\n", "    token: first\n    token: second\n"))]
    #[case::unknown(format!("{GOOD}preferences: 7\nextensions: {{}}\nnew-field:\n  a: 1\n"))]
    #[case::no_names(GOOD.replace("- name: n\n  user", "- user").replace("user: n", "user: \"\""))]
    #[case::second_document(format!("{GOOD}---\n: [\n").replace("---\n: [\n", "---\nkind: Other\n"))]
    #[case::empty_paths(GOOD.replace("    token:", "    client-key: \"\"\n    tokenFile: \"\"\n    token:"))]
    #[case::json(r#"{"clusters":[{"name":"k","cluster":{"server":"https://127.0.0.1:6443","new":1}}],"users":[],"contexts":[{"name":"c","context":{"cluster":"k"}}],"current-context":"c"}"#.to_owned())]
    #[tokio::test]
    async fn what_kubectl_reads_is_read(#[case] text: String) {
        let config = read_text(&text).await.unwrap();
        assert_eq!(config.cluster_url.to_string(), "https://127.0.0.1:6443/");
    }

    #[test]
    fn the_last_value_counts_and_paths_are_relative_to_the_file() {
        let text = GOOD.replace(
            "    token: first\n",
            "    client-key: /a.key\n    client-key: b.key\n    client-certificate: /c.pem\n",
        );
        let user = parse(&text, "/etc/kubernetes").unwrap().auth_infos[0]
            .auth_info
            .clone()
            .unwrap();
        assert_eq!(user.client_key.as_deref(), Some("/etc/kubernetes/b.key"));
        assert_eq!(user.client_certificate.as_deref(), Some("/c.pem"));
    }

    #[tokio::test]
    async fn a_file_that_is_not_mounted_is_named_by_its_field() {
        let text = GOOD.replace(
            "    token: first\n",
            "    client-key: zq7\n    client-certificate: zq7\n",
        );
        let said = read_text(&text).await.unwrap_err().to_string();
        assert!(
            said.starts_with("the file that it names as client-") && !said.contains("zq7"),
            "{said}"
        );
    }

    proptest! {
        /// Wherever a secret stands in a kubeconfig, and whatever is broken around it, nothing of it is said.
        #[test]
        fn no_error_shows_a_part_of_the_kubeconfig(
            at in 0..GOOD.len(),
            length in 0..12usize,
            sign in prop::sample::select(vec!["", ": ", "\n", "\n  ", "\"", "[", "- ", "@", "://"]),
        ) {
            let end = (at + length).min(GOOD.len());
            let text = format!("{}zq7{sign}zq7{}", &GOOD[..at], &GOOD[end..]);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            if let Err(error) = runtime.block_on(read_text(&text)) {
                let said = format!("{error} {error:?}");
                prop_assert!(!said.contains("zq7"), "{}", said);
            }
        }
    }

    #[test]
    fn fuzz_kubeconfigs() {
        use crate::fuzz::{hold, quiet, samples};

        hold(&samples("kubeconfig", &[]), |text| {
            quiet(parse(text, "/etc/kubernetes"));
        });
    }
}
