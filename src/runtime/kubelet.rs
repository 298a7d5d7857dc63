//! Asks the running kubelet how it is: its `/healthz`, and the endpoint that its flags or its files name.

use std::time::Duration;

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{Cause, KubeletHealth, RuntimeError};
use crate::{
    edit::{flags, parse},
    host::files::Files,
    plan::{host_path::HostPath, kubelet_settings},
};

/// How long the kubelet may take to answer.
const WITHIN: Duration = Duration::from_secs(5);

/// What of KubeletConfiguration says where `/healthz` is.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    healthz_port: Option<u16>,
    healthz_bind_address: Option<String>,
}

/// Asks the kubelet with this process id. One that runs no more, or does not answer, is not healthy.
///
/// # Errors
/// When `/proc` or the kubelet's configuration cannot be read.
pub async fn health(files: &Files, main_pid: u32) -> Result<KubeletHealth, RuntimeError> {
    let flags = command_line(files, main_pid)?;
    let said = |cause: Cause| RuntimeError::because("the kubelet's configuration", cause);
    let configs = configs(files, &flags).map_err(|error| said(error.into()))?;
    let texts = configs.iter().map(|(path, text)| (path.as_str(), text.as_str()));
    let merged = kubelet_settings::merged_config(texts).map_err(|error| said(error.into()))?;
    let main =
        flags::value(&flags, "config").and_then(|path| configs.iter().find(|(at, _)| at.as_str() == path));
    let healthy = !flags.is_empty() && answers(&flags, main.map(|(_, text)| text.as_str())).await;
    Ok(KubeletHealth {
        healthy,
        endpoint: kubelet_settings::named_endpoint(&flags, &merged),
    })
}

/// The file of `--config` and those of `--config-dir`, in the order in which they are merged.
fn configs(files: &Files, flags: &[String]) -> std::io::Result<Vec<(HostPath, String)>> {
    let mut paths: Vec<HostPath> = flags::value(flags, "config")
        .into_iter()
        .filter_map(|path| HostPath::new(path).ok())
        .collect();
    if let Some(directory) = flags::value(flags, "config-dir").and_then(|path| HostPath::new(path).ok()) {
        let names = files.list(&directory)?;
        let drop_ins = names.iter().filter(|name| name.ends_with(".conf"));
        paths.extend(drop_ins.filter_map(|name| HostPath::new(format!("{directory}/{name}")).ok()));
    }
    let mut texts = Vec::new();
    for path in paths {
        if let Some(text) = files.read_text(&path)? {
            texts.push((path, text));
        }
    }
    Ok(texts)
}

/// Whether a kubelet with these flags and the configuration in this text answers `ok`. One whose `/healthz` is
/// turned off does: that it runs is then all that can be known.
pub async fn answers(flags: &[String], config: Option<&str>) -> bool {
    match address(flags, config) {
        Some(address) => timeout(WITHIN, answers_ok(&address)).await.unwrap_or(false),
        None => true,
    }
}

/// The arguments of a process, its name first; none when there is no such process.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn command_line(files: &Files, pid: u32) -> Result<Vec<String>, RuntimeError> {
    let path = HostPath::new(format!("/proc/{pid}/cmdline")).map_err(RuntimeError::of)?;
    let bytes = files.read(&path).map_err(RuntimeError::of)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.split_terminator('\0').map(str::to_owned).collect())
}

/// Where `/healthz` is served: the flags beat the configuration file. Nowhere when its port is 0.
fn address(flags: &[String], config: Option<&str>) -> Option<String> {
    let config: Config = config
        .and_then(|text| parse::lenient_yaml(text).ok().flatten())
        .unwrap_or_default();
    let port = flags::value(flags, "healthz-port")
        .and_then(|port| port.parse().ok())
        .or(config.healthz_port);
    let host = flags::value(flags, "healthz-bind-address")
        .map(str::to_owned)
        .or(config.healthz_bind_address);
    let host = match host.as_deref() {
        None | Some("" | "0.0.0.0" | "::") => "127.0.0.1",
        Some(host) => host,
    };
    let port = port.unwrap_or(10248);
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    (port != 0).then(|| format!("{host}:{port}"))
}

async fn answers_ok(address: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /healthz HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = ask.await.unwrap_or_default();
    let text = String::from_utf8_lossy(&answer);
    let status = text.split_whitespace().nth(1);
    status == Some("200") && text.trim_end().ends_with("ok")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tokio::{net::TcpListener, time::Instant};

    use super::*;

    fn kubelet(arguments: &[&str], config: &str) -> (tempfile::TempDir, Files) {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let line: String = arguments.iter().map(|argument| format!("{argument}\0")).collect();
        files
            .write(&HostPath::new("/proc/7/cmdline").unwrap(), line.as_bytes(), 0o444)
            .unwrap();
        files
            .write(
                &HostPath::new("/etc/kubelet.yaml").unwrap(),
                config.as_bytes(),
                0o644,
            )
            .unwrap();
        (root, files)
    }

    /// Answers one request with this text.
    async fn serve(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /healthz HTTP/1.0\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        port
    }

    #[tokio::test]
    async fn the_configured_port_is_asked_and_the_last_endpoint_counts() {
        let port = serve("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let flags = [
            "/usr/bin/kubelet",
            "--config=/etc/kubelet.yaml",
            "--container-runtime-endpoint=unix:///first.sock",
            "--container-runtime-endpoint",
            "unix:///run/containerd/containerd.sock",
        ];
        let (_root, files) = kubelet(
            &flags,
            &format!("kind: KubeletConfiguration\nhealthzPort: {port}\n"),
        );
        let health = health(&files, 7).await.unwrap();
        assert_eq!(
            health.endpoint.as_deref(),
            Some("unix:///run/containerd/containerd.sock")
        );
        assert!(health.healthy);
    }

    /// The kubelet reads `_` in the name of a flag as `-`.
    #[tokio::test]
    async fn the_port_of_a_flag_is_asked_however_it_is_spelled() {
        let port = serve("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let flag = format!("--healthz_port={port}");
        let (_root, files) = kubelet(&["kubelet", &flag], "kind: KubeletConfiguration\n");
        assert!(health(&files, 7).await.unwrap().healthy);
    }

    #[tokio::test]
    async fn without_a_flag_the_configuration_and_its_drop_ins_name_the_endpoint() {
        let config = "kind: KubeletConfiguration\nhealthzPort: 0\ncontainerRuntimeEndpoint: unix:///a\n";
        let flags = [
            "kubelet",
            "--config=/etc/kubelet.yaml",
            "--config-dir=/etc/kubelet.d",
        ];
        let (_root, files) = kubelet(&flags, config);
        assert_eq!(
            health(&files, 7).await.unwrap().endpoint.as_deref(),
            Some("unix:///a")
        );
        let drop_in = HostPath::new("/etc/kubelet.d/10-runtime.conf").unwrap();
        files
            .write(&drop_in, b"containerRuntimeEndpoint: unix:///b\n", 0o644)
            .unwrap();
        assert_eq!(
            health(&files, 7).await.unwrap().endpoint.as_deref(),
            Some("unix:///b")
        );
    }

    #[tokio::test]
    async fn a_kubelet_that_says_no_or_is_gone_is_not_healthy() {
        let port = serve("HTTP/1.0 500 Internal Server Error\r\n\r\nnot ok").await;
        let (_root, files) = kubelet(&["kubelet", &format!("--healthz-port={port}")], "");
        let sick = health(&files, 7).await.unwrap();
        assert_eq!(
            sick,
            KubeletHealth {
                healthy: false,
                endpoint: None
            }
        );
        assert!(!health(&files, 8).await.unwrap().healthy, "there is no process 8");
    }
    /// Time stands still, and goes on only where somebody waits for a deadline.
    #[rstest]
    #[case::nothing("")]
    #[case::half_an_answer("HTTP/1.0 200 OK\r\n\r\nok")]
    #[tokio::test]
    async fn a_kubelet_that_stops_answering_is_not_healthy_after_5_s(#[case] answer: &'static str) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            // It keeps the connection open.
            std::future::pending::<()>().await;
        });
        let (_root, files) = kubelet(&["kubelet", &format!("--healthz-port={port}")], "");
        tokio::time::pause();
        let asked = Instant::now();
        let never = Duration::from_secs(24 * 60 * 60);
        let found = timeout(never, health(&files, 7)).await.unwrap().unwrap();
        assert!(!found.healthy);
        let waited = asked.elapsed();
        assert!(waited >= WITHIN && waited < 2 * WITHIN, "{waited:?}");
    }
}
