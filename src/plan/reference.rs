//! Names of images. Docker lists familiar names (`nginx:1.25`), containerd and the kubelet use full references
//! (`docker.io/library/nginx:1.25`).

/// The full reference that a familiar name stands for, by the rules of `distribution/reference`: without a
/// registry it is Docker Hub's, without a namespace there it is `library/`, without tag and digest it is
/// `:latest`; a digest makes the tag beside it void.
pub fn full(name: &str) -> String {
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (name, None),
    };
    // A colon in the last part separates the tag; one before it belongs to the registry's port.
    let (repository, tag) = match rest.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (rest, None),
    };
    let (registry, path) = match repository.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path),
        _ => ("docker.io", repository),
    };
    let registry = if registry == "index.docker.io" {
        "docker.io"
    } else {
        registry
    };
    let library = if registry == "docker.io" && !path.contains('/') {
        "library/"
    } else {
        ""
    };
    match digest {
        Some(digest) => format!("{registry}/{library}{path}@{digest}"),
        None => format!("{registry}/{library}{path}:{}", tag.unwrap_or("latest")),
    }
}

/// Repository and tag of a full reference with a tag.
pub fn repository_and_tag(full: &str) -> (&str, &str) {
    full.rsplit_once(':').unwrap_or((full, "latest"))
}

/// The full references among what a runtime lists; Docker lists `<none>` for what is missing.
pub fn named<'a>(listed: impl IntoIterator<Item = &'a String>) -> impl Iterator<Item = String> {
    listed
        .into_iter()
        .filter(|name| !name.contains("<none>"))
        .map(|name| full(name))
}

#[cfg(test)]
mod tests {
    use super::full;

    #[test]
    fn names_become_full_references() {
        for (name, wanted) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.25", "docker.io/library/nginx:1.25"),
            ("grafana/grafana:11", "docker.io/grafana/grafana:11"),
            ("index.docker.io/library/nginx:1", "docker.io/library/nginx:1"),
            ("localhost/app", "localhost/app:latest"),
            ("registry:5000/app", "registry:5000/app:latest"),
            ("registry:5000/app:2", "registry:5000/app:2"),
            ("registry.k8s.io/pause:3.6", "registry.k8s.io/pause:3.6"),
            ("nginx@sha256:ab", "docker.io/library/nginx@sha256:ab"),
            ("quay.io/a/b:1@sha256:ab", "quay.io/a/b@sha256:ab"),
        ] {
            assert_eq!(full(name), wanted, "{name}");
            assert_eq!(full(wanted), wanted, "full references stay as they are");
        }
    }
}
