//! `transship node inspect` and `plan` as a person runs them.

use std::fs;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

fn transship(arguments: &[&str]) -> std::process::Output {
    Command::cargo_bin("transship")
        .unwrap()
        .args(arguments)
        .output()
        .unwrap()
}

fn facts(host: &str) -> String {
    format!("{}/tests/hosts/{host}/facts.json", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_exit_code_of_a_plan_says_whether_it_is_blocked() {
    let captured = facts("debian12-kubeadm-1.23-captured");
    let blocked = transship(&["node", "plan", "--facts", &captured]);
    let text = String::from_utf8(blocked.stdout).unwrap();
    assert_eq!(blocked.status.code(), Some(2), "{text}");
    assert!(text.contains("BLOCK ForeignContainers"), "{text}");
    assert!(text.contains("nothing is touched"), "{text}");

    for accepted in [&["--allow", "ForeignContainers"][..], &["--keep-source"]] {
        let arguments = [&["node", "plan", "--facts", &captured][..], accepted].concat();
        let ready = transship(&arguments);
        let text = String::from_utf8(ready.stdout).unwrap();
        assert_eq!(ready.status.code(), Some(0), "{text}");
        assert!(
            text.contains("dockershim 20.10.24+dfsg1 -> containerd 1.6.20~ds1"),
            "{text}"
        );
        assert!(
            text.contains("+++ /var/lib/kubelet/kubeadm-flags.env\n"),
            "{text}"
        );
    }
}

#[test]
fn an_origin_is_named_on_the_command_line() {
    let captured = facts("debian12-kubeadm-1.23-captured");
    let plan = |more: &[&str]| {
        let output = transship(&[&["node", "plan", "--facts", &captured][..], more].concat());
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let digest = "0".repeat(64);
    let nameless = ["--archive", "file:///srv/blob", "--sha256", &digest];
    let (code, said) = plan(&nameless);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("BLOCK ArchiveVersionUnknown"), "{said}");
    let (code, said) = plan(&["--package", "containerd.io", "--target-version", "1.7.28"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("BLOCK PackageWouldReplace: containerd 1.6.20~ds1 is installed"),
        "{said}"
    );
    for wrong in [
        &["--archive", "file:///srv/blob"][..],
        &["--sha256", &digest],
        &["--package", "containerd.io"],
        &[&nameless[..], &["--package", "x", "--target-version", "1.7.28"]].concat(),
    ] {
        assert_eq!(plan(wrong).0, Some(64), "{wrong:?}");
    }
}

#[test]
fn every_runtime_that_can_be_moved_to_is_a_target_on_the_command_line() {
    let captured = facts("debian12-kubeadm-1.23-captured");
    let digest = "0".repeat(64);
    let archive = [
        "--archive",
        "file:///srv/cri-dockerd-0.4.3.amd64.tgz",
        "--sha256",
        &digest,
    ];
    let command = [
        "node",
        "plan",
        "--target",
        "cri-dockerd",
        "--allow",
        "DockerSocketMounted",
        "--facts",
        &captured,
    ];
    let output = transship(&[&command[..], &archive].concat());
    let page = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{page}");
    assert!(page.contains("-> cri-dockerd 0.4.3"), "{page}");

    let help = transship(&["node", "switch", "--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(
        help.contains("[possible values: cri-dockerd, containerd, cri-o]"),
        "{help}"
    );
}

#[test]
fn a_sandbox_image_is_chosen_on_the_command_line() {
    let captured = facts("debian12-kubeadm-1.23-captured");
    let command = [
        "node",
        "plan",
        "--facts",
        &captured,
        "--sandbox-image",
        "example.com/pause:1",
    ];
    let output = transship(&command);
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(page.contains("example.com/pause:1"), "{page}");
}

#[test]
fn pods_that_nobody_drains_have_time_to_end() {
    let captured = facts("debian12-kubeadm-1.23-captured");
    let output = transship(&["node", "plan", "--keep-source", "--facts", &captured]);
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(
        page.contains("End the pods of dockershim (SIGTERM, at most 600 s)"),
        "{page}"
    );
}

#[test]
fn a_plan_is_the_same_every_time() {
    let captured = facts("debian12-kubeadm-1.23-captured");
    let plan = || {
        let output = transship(&[
            "node",
            "plan",
            "--keep-source",
            "-o",
            "json",
            "--facts",
            &captured,
        ]);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let first = plan();
    assert_eq!(first["verdict"], "ready");
    assert!(first["digest"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(first, plan());
}

#[test]
fn what_cannot_be_read_is_a_part_of_the_facts() {
    let root = TempDir::new().unwrap();
    let write = |name: &str, text: &[u8]| {
        let file = root.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    write("etc/os-release", b"ID=debian\nVERSION_ID=\"12\"\n");
    write("etc/machine-id", b"0123456789abcdef0123456789abcdef\n");
    write("etc/cni/net.d/10-lab.conflist", b"{}");
    write("etc/cni/net.d/readme", b"no configuration");
    write("etc/crictl.yaml", b"\xff\xfe");
    let output = root.path().join("facts.json");
    let (root_text, output_text) = (root.path().to_str().unwrap(), output.to_str().unwrap());
    let inspected = transship(&[
        "node",
        "inspect",
        "--root",
        root_text,
        "-o",
        "json",
        "--output",
        output_text,
    ]);
    assert!(inspected.status.success(), "{inspected:?}");
    assert!(inspected.stdout.is_empty());
    let facts: Value = serde_json::from_slice(&fs::read(&output).unwrap()).unwrap();
    assert_eq!(
        facts["os"],
        serde_json::json!({ "id": "debian", "version": "12" })
    );
    assert_eq!(facts["cni"]["configs"].as_array().unwrap().len(), 1);
    let unreadable = facts["unreadable"].to_string();
    assert!(unreadable.contains("crictl.yaml"), "{unreadable}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&output).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "facts hold secrets");
}

#[test]
fn the_page_for_people_holds_no_text_of_a_file() {
    let root = TempDir::new().unwrap();
    let daemon = root.path().join("etc/docker/daemon.json");
    fs::create_dir_all(daemon.parent().unwrap()).unwrap();
    fs::write(
        daemon,
        r#"{"proxies": {"http-proxy": "http://user:hunter2@proxy:3128"}}"#,
    )
    .unwrap();
    let socket = root.path().join("var/run/docker.sock");
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    fs::write(socket, "").unwrap();
    let inspect = |format| {
        let output = transship(&[
            "node",
            "inspect",
            "--root",
            root.path().to_str().unwrap(),
            "-o",
            format,
        ]);
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(inspect("json").contains("hunter2"), "the planner needs it");
    let page = inspect("text");
    assert!(page.contains("Docker") && !page.contains("hunter2"), "{page}");
}

#[test]
fn a_command_line_that_is_wrong_is_told_from_a_blocked_plan() {
    assert_eq!(
        transship(&["node", "plan", "--target", "rkt"]).status.code(),
        Some(64)
    );
    let missing = transship(&["node", "plan", "--facts", "/nonexistent/facts.json"]);
    assert_eq!(missing.status.code(), Some(1));
    let said = String::from_utf8(missing.stderr).unwrap();
    assert!(said.contains("/nonexistent/facts.json does not exist"), "{said}");
}

#[test]
fn every_command_refuses_arguments_that_mean_nothing() {
    for arguments in [
        &["node", "switch", "--confirm-within", "abc"][..],
        &["node", "switch", "--target", "rkt"],
        &["node", "switch", "--confirm", "perhaps"],
        &["node", "rollback", "--sideways"],
        &["node", "commit", "now"],
        &["node", "status", "-o", "poem"],
        &["executor", "run"],
        &["executor", "run", "--dir", "not/absolute"],
        &["executor", "install", "--dir", "/var/lib/../etc"],
        &["nonsense"],
    ] {
        let output = transship(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {said}");
        assert!(said.contains("error:"), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

/// Not on a node that has a switch: there these commands would act.
#[test]
fn without_a_switch_there_is_nothing_to_order() {
    assert!(
        !std::path::Path::new("/var/lib/transship").exists(),
        "this host has a switch"
    );
    for command in ["status", "commit", "rollback"] {
        let output = transship(&["node", command]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        assert!(
            said.contains("no switch was ever started on this node"),
            "{command}: {said}"
        );
        let elsewhere = transship(&["node", command, "--migration", "../../etc"]);
        let said = String::from_utf8(elsewhere.stderr).unwrap();
        assert_eq!(elsewhere.status.code(), Some(1), "{command}: {said}");
        assert!(
            said.contains("cannot be the name of a directory"),
            "{command}: {said}"
        );
    }
}

#[test]
fn the_exit_codes_of_status_are_in_its_help() {
    let help = transship(&["node", "status", "--help"]);
    let text = String::from_utf8(help.stdout).unwrap();
    for meaning in [
        "  0  there is nothing to wait for",
        "  3  the switch is under way",
    ] {
        assert!(text.contains(meaning), "{text}");
    }
}
