//! The end-to-end scenarios on real nodes: each is a script in `tests/e2e/`, which a person can run alone too.
//! They share one lab, so they run one at a time: `cargo test --features lab --test e2e -- --test-threads=1`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

static FAILED: AtomicBool = AtomicBool::new(false);

fn scenario(name: &str) -> io::Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e").join(name);
    let status = Command::new(&script).env("TRANSSHIP_CAUSES", causes()).status()?;
    if !status.success() {
        FAILED.store(true, Ordering::Relaxed);
    }
    assert!(
        status.success(),
        "{} ended with {status}; its output above says why",
        script.display()
    );
    Ok(())
}

/// Where the scenarios write why they fail: a file per run, which its last test prints.
fn causes() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("causes-{}", std::process::id()))
}

#[test]
fn a_both_workers_move_while_the_workload_is_served() -> io::Result<()> {
    scenario("main-job")
}

#[test]
fn b_bad_workers_go_back_and_the_migration_says_so() -> io::Result<()> {
    scenario("goes-back")
}

#[test]
fn c_a_migration_deleted_in_the_middle_ends_on_one_side() -> io::Result<()> {
    scenario("deleted-in-the-middle")
}

#[test]
fn d_a_real_systemd_follows_the_rules_of_the_crash_sweeps() -> io::Result<()> {
    scenario("systemd-rules")
}

#[test]
fn d_nodes_die_in_the_middle_and_end_on_one_side() -> io::Result<()> {
    scenario("power-cuts")
}

#[test]
fn e_one_node_and_a_shell() -> io::Result<()> {
    scenario("by-hand")
}

#[test]
fn f_an_image_lies_in_two_stores_and_once_on_the_disk() -> io::Result<()> {
    scenario("images")
}

#[test]
fn g_from_dockershim_to_cri_dockerd_and_back() -> io::Result<()> {
    scenario("cri-dockerd")
}

#[test]
fn g_kubelet_1_24_starts_after_the_move_and_not_before_it() -> io::Result<()> {
    scenario("before-1.24")
}

#[test]
fn g_kubesprays_layout_moves_to_cri_dockerd_and_to_containerd() -> io::Result<()> {
    scenario("kubespray")
}

#[test]
fn h_the_only_control_plane_moves_with_the_operator_on_it() -> io::Result<()> {
    scenario("control-plane")
}

#[test]
fn i_a_cluster_of_one_node_moves_in_place() -> io::Result<()> {
    scenario("one-node")
}

#[test]
fn j_a_current_kubernetes_moves_from_cri_dockerd_and_back() -> io::Result<()> {
    scenario("current-kubernetes")
}

#[test]
fn k_containerd_is_upgraded_in_place() -> io::Result<()> {
    scenario("containerd-2")
}

#[test]
fn z_nothing_of_the_lab_is_left() -> io::Result<()> {
    let ended = scenario("nothing-left");
    if FAILED.load(Ordering::Relaxed) {
        println!("what failed in this run:\n{}", fs::read_to_string(causes())?);
    }
    ended
}
