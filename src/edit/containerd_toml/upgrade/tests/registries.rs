//! Registries of a 1.x file, which become files of their own.

use super::*;

/// The file with which 2.4.2 pulled all images of a registry with its own authority and a password, and of a plain one.
#[test]
fn mirrors_and_their_certificates_become_files() {
    let text = "version = 2\n\
        [CRI.registry.mirrors.'docker.io']\n# our proxy\nendpoint = ['https://mirror.example:5443', 'https://mirror.example:5443/v2/proxy']\n\
        [CRI.registry.mirrors.'*']\nendpoint = ['http://plain.example:5000']\n\
        [CRI.registry.configs.'mirror.example:5443'.tls]\ninsecure_skip_verify = true\n\
        [CRI.registry.configs.'mirror.example:5443'.auth]\nusername = 'u'\npassword = 'zq7' # keep\n\
        [CRI.registry.configs.'own.example'.tls]\nca_file = '/etc/ca.pem'\ncert_file = '/c.pem'\nkey_file = '/k.pem'\n\
        [CRI.registry.auths.'https://user:zq7@old.example/v1']\nauth = 'zq7'\n";
    let found = good(text);
    let file = |name: &str| {
        let path = format!("{CERTS}/{name}/hosts.toml");
        let file = found.registries.iter().find(|file| file.path == path);
        let file = file.unwrap_or_else(|| panic!("{name}: {:?}", found.registries));
        assert_eq!(file.mode, 0o644);
        file.text.as_str()
    };
    assert_eq!(
        file("docker.io"),
        r#"server = "https://registry-1.docker.io"

[host."https://mirror.example:5443"]
  capabilities = ["pull", "resolve"]
  skip_verify = true

[host."https://mirror.example:5443/v2/proxy"]
  capabilities = ["pull", "resolve"]
  override_path = true
  skip_verify = true
"#
    );
    assert_eq!(
        file("_default"),
        "[host.\"http://plain.example:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
    );
    // A registry with certificates alone: the mirrors of all registries first, then its own table, which 1.6 needs.
    assert_eq!(
        file("own.example"),
        r#"server = "https://own.example"

[host."http://plain.example:5000"]
  capabilities = ["pull", "resolve"]

[host."https://own.example"]
  capabilities = ["pull", "resolve"]
  ca = "/etc/ca.pem"
  client = [["/c.pem", "/k.pem"]]
"#
    );
    assert!(file("mirror.example:5443").contains("skip_verify = true\n"));
    assert_eq!(found.registries.len(), 4);
    let settled = found.settled.as_str();
    for line in [
        "# our proxy\nconfig_path = \"/etc/containerd/certs.d\"\n",
        ".registry.configs.'mirror.example:5443'.auth]\nusername = 'u'\npassword = 'zq7' # keep\n",
        ".registry.configs.\"old.example\".auth]\nauth = 'zq7'\n",
    ] {
        assert!(settled.contains(line), "{line} not in\n{settled}");
    }
    assert!(
        !settled.contains("mirrors") && !settled.contains("tls"),
        "{settled}"
    );
    held(&found, text);
    assert!(
        notes(&found).contains(
            &"CRI.registry.mirrors.\"docker.io\": translated to /etc/containerd/certs.d/docker.io/hosts.toml"
                .to_owned()
        )
    );
    assert!(notes(&found).contains(&"CRI.registry.auths.\"https://old.example\": translated to CRI.registry.configs.\"old.example\".auth".to_owned()));
}

#[test]
fn an_endpoint_is_read_as_containerd_1_x_reads_it() {
    let text = |endpoints: &str, rest: &str| {
        let text =
            format!("version = 2\n[CRI.registry.mirrors.'r.example']\nendpoint = [{endpoints}]\n{rest}");
        good(&text).registries.swap_remove(0).text
    };
    let host = |url: &str| format!("[host.\"{url}\"]\n");
    for (endpoint, wanted) in [
        ("'m.example'", "https://m.example"),
        ("'localhost:5000'", "http://localhost:5000"),
        ("'127.0.0.1:5000'", "http://127.0.0.1:5000"),
        ("'[::1]:5000'", "http://[::1]:5000"),
        ("'https://u:zq7@m.example/?q=zq7'", "https://m.example/"),
    ] {
        let text = text(endpoint, "");
        assert!(text.contains(&host(wanted)) && !text.contains("zq7"), "{text}");
        assert!(text.starts_with("server = \"https://r.example\"\n"), "{text}");
    }
    // A registry that is listed is not tried a second time in another way.
    let listed = text(
        "'http://r.example'",
        "[CRI.registry.configs.'r.example'.tls]\ninsecure_skip_verify = true\n",
    );
    assert_eq!(
        listed,
        "server = \"http://r.example\"\n\n[host.\"http://r.example\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
    );
    // Certificates of Docker's registry count for its images.
    let found = good("version = 2\n[CRI.registry.configs.'registry-1.docker.io'.tls]\nca_file = 'ca.pem'\n");
    let docker = found
        .registries
        .iter()
        .find(|file| file.path.ends_with("/docker.io/hosts.toml"));
    assert_eq!(
        docker.map(|file| file.text.as_str()),
        Some(
            "server = \"https://registry-1.docker.io\"\n\n[host.\"https://registry-1.docker.io\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"/ca.pem\"\n"
        )
    );
}
