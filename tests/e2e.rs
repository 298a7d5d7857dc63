//! The end-to-end scenarios on real nodes: each is a script in `tests/e2e/`, which a person can run alone too.
//! A scenario mostly waits, so two run at the same time, each in a lane: labs of its own, which the lane's next scenario
//! takes over. `cargo test --features lab --test e2e -- --test-threads=2 --nocapture`. The long ones are begun first.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

static FAILED: AtomicBool = AtomicBool::new(false);

/// What the directories of a lane's labs end on (`tests/e2e/common.sh`): those of the first one are a person's, too.
static LANES: [(&str, Mutex<()>); 2] = [("", Mutex::new(())), ("-2", Mutex::new(()))];

/// A lane that nobody is in.
fn free_lane() -> (&'static str, MutexGuard<'static, ()>) {
    loop {
        for (suffix, lane) in &LANES {
            match lane.try_lock() {
                Ok(guard) => return (suffix, guard),
                Err(TryLockError::Poisoned(guard)) => return (suffix, guard.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn scenario(name: &'static str) -> io::Result<()> {
    let (suffix, _lane) = free_lane();
    run(name, suffix)
}

fn run(name: &'static str, lane: &str) -> io::Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e").join(name);
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(&script);
    command
        .env("TRANSSHIP_CAUSES", causes())
        .env("TRANSSHIP_LANE", lane);
    let mut child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // It holds the ends of the pipe that are written to.
    drop(command);
    let (all_read, read) = mpsc::channel();
    thread::spawn(move || {
        // The receiver is gone if nobody waits any more.
        let _ = all_read.send(print_lines(name, reader));
    });
    let status = child.wait()?;
    // Something that the scenario has left in the background may hold the pipe for longer.
    if let Ok(printed) = read.recv_timeout(Duration::from_secs(10)) {
        printed?;
    }
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

/// Two scenarios print at the same time: each line names its own.
fn print_lines(name: &str, output: impl Read) -> io::Result<()> {
    for line in BufReader::new(output).split(b'\n') {
        println!("{name}: {}", String::from_utf8_lossy(&line?));
    }
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
fn b_a_current_kubernetes_moves_from_cri_dockerd_and_back() -> io::Result<()> {
    scenario("current-kubernetes")
}

#[test]
fn c_workers_and_the_control_plane_move_to_cri_o_and_back() -> io::Result<()> {
    scenario("cri-o")
}

#[test]
fn d_nodes_die_in_the_middle_and_end_on_one_side() -> io::Result<()> {
    scenario("power-cuts")
}

#[test]
fn e_containerd_is_upgraded_in_place() -> io::Result<()> {
    scenario("containerd-2")
}

#[test]
fn f_one_node_and_a_shell() -> io::Result<()> {
    scenario("by-hand")
}

#[test]
fn g_bad_workers_go_back_and_the_migration_says_so() -> io::Result<()> {
    scenario("goes-back")
}

#[test]
fn h_a_cluster_of_one_node_moves_in_place() -> io::Result<()> {
    scenario("one-node")
}

#[test]
fn i_kubesprays_layout_moves_to_cri_dockerd_and_to_containerd() -> io::Result<()> {
    scenario("kubespray")
}

#[test]
fn j_the_only_control_plane_moves_with_the_operator_on_it() -> io::Result<()> {
    scenario("control-plane")
}

#[test]
fn k_from_dockershim_to_cri_dockerd_and_back() -> io::Result<()> {
    scenario("cri-dockerd")
}

#[test]
fn l_an_image_lies_in_two_stores_and_once_on_the_disk() -> io::Result<()> {
    scenario("images")
}

#[test]
fn m_kubelet_1_24_starts_after_the_move_and_not_before_it() -> io::Result<()> {
    scenario("before-1.24")
}

#[test]
fn n_a_migration_deleted_in_the_middle_ends_on_one_side() -> io::Result<()> {
    scenario("deleted-in-the-middle")
}

#[test]
fn o_a_real_systemd_follows_the_rules_of_the_crash_sweeps() -> io::Result<()> {
    scenario("systemd-rules")
}

/// The last one to begin; it waits for the one before it.
#[test]
fn z_nothing_of_the_labs_is_left() -> io::Result<()> {
    let lanes = LANES
        .each_ref()
        .map(|(_, lane)| lane.lock().unwrap_or_else(PoisonError::into_inner));
    let ended = run("nothing-left", "");
    drop(lanes);
    if FAILED.load(Ordering::Relaxed) {
        println!("what failed in this run:\n{}", fs::read_to_string(causes())?);
    }
    ended
}
