//! Archives that are not what they should be: the executor refuses each, says why, and leaves nothing behind. It is
//! the real executor on real files with real programs; systemd alone has nothing to do.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use crate::archives::{Tar, containerd_says, foreign_program, gzip, program};
use crate::no_units::NoUnits;
use rstest::rstest;
use tar::EntryType;
use transship::{
    api::request::{Runtime, RuntimeVersion},
    executor::{
        control::{Dir, Order},
        decide::End,
        journal::{self, Event},
        run::{self, Outcome},
    },
    host::files::{Effect, Files},
    plan::{
        digest::Digest,
        document::{FORMAT, Plan, PlannedStep, Section},
        host_path::HostPath,
        step::{Archive, Endpoint, InstallStep, KubeletStep, Step},
    },
    runtime::hosted::HostRuntimes,
};

const VERSION: &str = "2.4.2";
const DIR: &str = "/opt/transship/containerd-2.4.2-0123456789ab";

fn path(text: &str) -> HostPath {
    HostPath::new(text).unwrap()
}

/// A host with an archive and a plan to install it.
struct Host {
    root: PathBuf,
    plan: Plan,
    files: Files,
}

/// Everything on the host but Transship's own state: mode, links and bytes.
type Tree = BTreeMap<PathBuf, (u32, u64, Vec<u8>)>;

impl Host {
    fn new(root: &Path, packed: &[u8], sha256: Digest) -> Self {
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(root.join("srv")).unwrap();
        fs::write(root.join("etc/machine-id"), "m\n").unwrap();
        fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
        fs::write(root.join("srv/archive.tar.gz"), packed).unwrap();
        let step = Step::Install(InstallStep::Archive(Archive {
            url: "file:///srv/archive.tar.gz".to_owned(),
            proxy: None,
            sha256,
            dir: path(DIR),
            program: path(&format!("{DIR}/bin/containerd")),
            version: VERSION.to_owned(),
        }));
        let plan = Plan {
            format: FORMAT,
            migration: "archives".to_owned(),
            migration_name: None,
            node: "n".to_owned(),
            machine_id: "m".to_owned(),
            source: RuntimeVersion {
                runtime: Runtime::Dockershim,
                version: "20.10.24".to_owned(),
            },
            target: RuntimeVersion {
                runtime: Runtime::Containerd,
                version: VERSION.to_owned(),
            },
            confirm_within_secs: 60,
            soak_secs: 0,
            prepared_for_secs: 900,
            rollback_automatic: true,
            digest_key: String::new(),
            findings: Vec::new(),
            // Nobody lets the switch begin; the plan only goes on behind the step.
            steps: vec![
                PlannedStep {
                    section: Section::Prepare,
                    does: step,
                },
                PlannedStep {
                    section: Section::Switch,
                    does: Step::Kubelet(KubeletStep {
                        run: false,
                        runtime: Endpoint {
                            runtime: Runtime::Dockershim,
                            socket: HostPath::new("/var/run/docker.sock").unwrap(),
                        },
                    }),
                },
            ],
        };
        Self {
            root: root.to_owned(),
            plan,
            files: Files::new(root),
        }
    }

    fn dir(&self) -> Dir {
        Dir::at(&self.files, path("/var/lib/transship/archives"))
    }

    /// Starts the executor, and answers how it ended and why.
    fn run(&self) -> (Outcome, String) {
        self.dir().write_plan(&self.plan).unwrap();
        let runtimes = HostRuntimes::new(self.files.clone());
        let clock = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let outcome = clock
            .block_on(run::run(&self.files, &self.dir(), &NoUnits::default(), &runtimes))
            .unwrap();
        let why = self
            .dir()
            .journal()
            .unwrap()
            .into_iter()
            .find_map(|record| match record.event {
                Event::Failed { error, .. } => Some(error),
                _ => None,
            });
        (outcome, why.unwrap_or_default())
    }

    fn tree(&self) -> Tree {
        walkdir::WalkDir::new(&self.root)
            .into_iter()
            .map(Result::unwrap)
            .filter(|entry| !entry.path().starts_with(self.root.join("var")))
            .map(|entry| {
                let data = entry.path().symlink_metadata().unwrap();
                let bytes = if data.is_file() {
                    fs::read(entry.path()).unwrap()
                } else {
                    Vec::new()
                };
                let names = if data.is_file() { data.nlink() } else { 1 };
                (entry.path().to_owned(), (data.permissions().mode(), names, bytes))
            })
            .collect()
    }

    /// Demands that the archive is refused for this reason, and that nothing is left.
    fn refuses(&self, reason: &str) {
        let before = self.tree();
        let (outcome, why) = self.run();
        assert_eq!(outcome, Outcome::Ended(End::RolledBack), "{why}");
        assert!(why.contains(reason), "{why}");
        assert_eq!(self.tree(), before, "{why}");
    }
}

fn sound() -> Tar {
    Tar::containerd(VERSION)
}

fn cut(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    assert!(at < bytes.len());
    bytes.truncate(at);
    bytes
}

/// A tar without its end: cut off behind so many bytes.
fn cut_tar(at: usize) -> Vec<u8> {
    gzip(&cut(sound().0, at))
}

fn only(bytes: &[u8], mode: u32) -> Vec<u8> {
    Tar::default().file("bin/containerd", mode, bytes).packed()
}

#[rstest]
#[case::cut_off_gzip(cut(sound().packed(), 300), "damaged, cut off")]
#[case::gzip_without_its_end({ let all = sound().packed(); let end = all.len() - 4; cut(all, end) }, "damaged, cut off")]
#[case::cut_off_in_a_file(cut_tar(1536 + 100), "damaged, cut off")]
#[case::cut_off_in_a_header(cut_tar(1536 - 100), "damaged, cut off")]
#[case::cut_off_between_entries(cut_tar(1536), "damaged, cut off")]
#[case::a_page_instead(b"<html>Please log in</html>".to_vec(), "no tar in gzip")]
#[case::not_packed(sound().0, "no tar in gzip")]
#[case::something_behind_it([sound().packed(), b"more".to_vec()].concat(), "damaged")]
#[case::a_wrong_checksum({ let mut tar = sound().0; tar[0] ^= 1; gzip(&tar) }, "checksum")]
#[case::up(sound().file("../x", 0o644, b"x").packed(), "\"../x\" in the archive leads out")]
#[case::up_and_down(sound().file("bin/../../x", 0o644, b"x").packed(), "leads out of its directory")]
#[case::absolute(sound().file("/etc/cron.d/x", 0o644, b"x").packed(), "is an absolute path")]
#[case::link_to_an_absolute_path(sound().link("etc", "/etc").packed(), "is a link to \"/etc\", out of")]
#[case::link_out(sound().link("bin/x", "../../..").packed(), "out of the archive")]
#[case::write_through_a_link(
    sound().link("out", "/etc").file("out/hosts", 0o644, b"x").packed(),
    "is a link to \"/etc\", out of"
)]
#[case::write_through_a_link_inside(
    sound().link("lib", "bin").file("lib/x", 0o644, b"x").packed(),
    "lies below \"lib\", which is not a directory"
)]
#[case::link_through_a_link(
    sound().link("bin/up", "..").link("x", "bin/up/../etc").packed(),
    "is a link to \"bin/up/../etc\", out of"
)]
#[case::hard_link_to_an_absolute_path(sound().hard_link("x", "/etc/hosts").packed(), "is a link to \"/etc/hosts\", out of")]
#[case::hard_link_out(sound().hard_link("x", "../../../etc/hosts").packed(), "out of the archive")]
#[case::hard_link_to_a_link(
    sound().link("l", "bin").hard_link("x", "l").packed(),
    "is a link to \"l\", which is not a file in the archive"
)]
#[case::pipe(sound().entry(EntryType::Fifo, "x", 0o644, "", b"").packed(), "is a pipe")]
#[case::device(sound().entry(EntryType::Block, "x", 0o644, "", b"").packed(), "is a device")]
#[case::terminal(sound().entry(EntryType::Char, "x", 0o644, "", b"").packed(), "is a device")]
#[case::unknown(sound().entry(EntryType::new(b'V'), "x", 0o644, "", b"").packed(), "neither file nor")]
#[case::setuid(sound().file("bin/su", 0o4755, b"x").packed(), "is setuid")]
#[case::twice(sound().file("bin/containerd", 0o755, b"x").packed(), "is there twice")]
#[case::a_file_where_a_directory_is(sound().file("bin", 0o644, b"x").packed(), "is there twice")]
#[case::another_layout(
    Tar::default().file("usr/bin/containerd", 0o755, b"x").packed(),
    "has no bin/containerd"
)]
#[case::a_directory_instead(Tar::default().directory("bin/containerd").packed(), "is not a file")]
#[case::not_executable(only(&program(&containerd_says(VERSION)), 0o644), "is not executable")]
#[case::a_script(
    only(b"#!/bin/sh\necho containerd 2.4.2\n", 0o755),
    "is not a program for Linux"
)]
#[case::another_machine(only(&foreign_program(&containerd_says(VERSION)), 0o755), "is a program for")]
#[case::half_a_program(only(&program("")[..40], 0o755), "could not be started")]
#[case::another_version(Tar::containerd("2.4.1").packed(), "and 2.4.2 was planned")]
#[case::bomb(sound().header(EntryType::Regular, "x", 0o644, "", 3 << 30).packed(), "more than 2 GiB")]
#[case::a_name_without_end(
    sound().entry(EntryType::GNULongName, "././@LongLink", 0o644, "", &vec![b'x'; 8 << 20]).packed(),
    "more than its headers say"
)]
#[case::entries_without_end(
    (0..10_001).fold(sound(), |tar, _| tar.directory("bin/")).packed(),
    "more than 10000 entries"
)]
fn a_bad_archive_leaves_nothing(#[case] packed: Vec<u8>, #[case] reason: &str) {
    let root = tempfile::tempdir().unwrap();
    let digest = Digest::of(&packed);
    Host::new(root.path(), &packed, digest).refuses(reason);
}

#[test]
fn a_wrong_digest_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new(root.path(), &sound().packed(), Digest::of("another"));
    host.refuses("nothing of it was unpacked");
}

#[test]
fn an_archive_that_is_not_there_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let packed = sound().packed();
    let host = Host::new(root.path(), &packed, Digest::of(&packed));
    fs::remove_file(root.path().join("srv/archive.tar.gz")).unwrap();
    host.refuses("cannot fetch file:///srv/archive.tar.gz");
    let pipe = root.path().join("srv/archive.tar.gz");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::remove_dir_all(root.path().join("var")).unwrap();
    host.refuses("not a regular file");
}

/// A sound one, with all that may be in one: it is unpacked, and gone after an abort.
#[test]
fn a_good_archive_is_there_and_gone_again() {
    let root = tempfile::tempdir().unwrap();
    let packed = sound()
        .link("bin/current", "../bin/containerd")
        .hard_link("bin/second", "bin/containerd")
        .file("./share/doc/README", 0o664, &vec![b'x'; 3 << 20])
        .packed();
    let host = Host::new(root.path(), &packed, Digest::of(&packed));
    let before = host.tree();
    assert_eq!(host.run(), (Outcome::Prepared, String::new()));
    let dir = root.path().join(path(DIR).relative());
    let mode = |name: &str| dir.join(name).metadata().unwrap().mode() & 0o7777;
    assert_eq!((mode("bin/containerd"), mode("share/doc/README")), (0o755, 0o644));
    assert_eq!(
        fs::read_link(dir.join("bin/current")).unwrap().as_os_str(),
        "../bin/containerd"
    );
    assert_eq!(dir.join("bin/second").metadata().unwrap().nlink(), 2);
    let said = Command::new(dir.join("bin/containerd")).output().unwrap();
    assert_eq!(String::from_utf8(said.stdout).unwrap(), containerd_says(VERSION));
    let beside: Vec<_> = fs::read_dir(root.path().join("opt/transship")).unwrap().collect();
    assert_eq!(beside.len(), 1, "nothing else is left: {beside:?}");

    host.dir().order(Order::Abort, &host.plan.digest()).unwrap();
    assert_eq!(host.run().0, Outcome::Ended(End::RolledBack));
    assert_eq!(host.tree(), before);
}

/// What was there before a migration is used, and outlives it.
#[test]
fn an_archive_that_was_there_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let packed = sound().packed();
    let host = Host::new(root.path(), &packed, Digest::of(&packed));
    assert_eq!(host.run().0, Outcome::Prepared);
    fs::remove_dir_all(root.path().join("var")).unwrap();
    fs::remove_file(root.path().join("srv/archive.tar.gz")).unwrap();
    // What an executor that died was building.
    let scratch = root
        .path()
        .join("opt/transship/.containerd-2.4.2-0123456789ab.transship/tree");
    let before = host.tree();
    fs::create_dir_all(&scratch).unwrap();
    fs::write(scratch.join("half"), "x").unwrap();
    assert_eq!(host.run(), (Outcome::Prepared, String::new()));
    assert_eq!(host.tree(), before);
    host.dir().order(Order::Abort, &host.plan.digest()).unwrap();
    assert_eq!(host.run().0, Outcome::Ended(End::RolledBack));
    assert_eq!(host.tree(), before);
}

/// Names the directory of a real, small file system; set for the process that runs inside its mount namespace.
const SMALL_DISK: &str = "TRANSSHIP_TEST_SMALL_DISK";

/// Runs the test of this name again with a file system of its own.
fn on_a_small_disk(test: &str, megabytes: u32) {
    let disk = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size={megabytes}m small \"$0\" && exec \"$@\"");
    let root = nix::unistd::geteuid().is_root();
    let ran = Command::new("unshare")
        .arg(if root { "-m" } else { "-rm" })
        .args(["sh", "-c", &script])
        .arg(disk.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("bad_archives::{test}"), "--nocapture"])
        .env(SMALL_DISK, disk.path())
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

/// Somebody else fills the disk while a file is being unpacked. The journal is on it, too.
#[test]
fn a_disk_that_fills_leaves_nothing() {
    let Some(disk) = std::env::var_os(SMALL_DISK).map(PathBuf::from) else {
        return on_a_small_disk("a_disk_that_fills_leaves_nothing", 90);
    };
    let packed = sound().file("large", 0o644, &vec![b'x'; 8 << 20]).packed();
    let mut host = Host::new(&disk, &packed, Digest::of(&packed));
    let before = host.tree();
    let filler = disk.join("filler");
    let (filled, fill) = (Arc::new(AtomicBool::new(false)), filler.clone());
    let hook = {
        let (filled, pieces) = (filled.clone(), AtomicU32::new(0));
        move |effect: Effect<'_>| {
            let large = matches!(effect, Effect::Change(path) if path.ends_with("tree/large"));
            if large && pieces.fetch_add(1, Ordering::SeqCst) == 3 {
                let written = std::io::copy(
                    &mut std::io::Read::take(std::io::repeat(7), 1 << 30),
                    &mut fs::File::create(&fill).unwrap(),
                );
                assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
                filled.store(true, Ordering::SeqCst);
            }
            Ok(())
        }
    };
    host.files = Files::new(&disk).with_hook(Arc::new(hook));
    let (outcome, why) = host.run();
    assert!(filled.load(Ordering::SeqCst), "{why}");
    assert_eq!(outcome, Outcome::Ended(End::RolledBack), "{why}");
    assert!(why.contains("No space left"), "{why}");
    fs::remove_file(&filler).unwrap();
    assert_eq!(host.tree(), before);
}

/// There is no room from the start: it is found out before anything is written.
#[test]
fn an_archive_without_room_is_refused() {
    let Some(disk) = std::env::var_os(SMALL_DISK).map(PathBuf::from) else {
        return on_a_small_disk("an_archive_without_room_is_refused", 80);
    };
    let packed = sound().file("large", 0o644, &vec![b'x'; 40 << 20]).packed();
    Host::new(&disk, &packed, Digest::of(&packed)).refuses("the archive unpacks to");
    fs::remove_dir_all(disk.join("var")).unwrap();
    fs::write(disk.join("large"), vec![7; 30 << 20]).unwrap();
    Host::new(&disk, &packed, Digest::of(&packed)).refuses("make room");
}

/// A journal that tells what undo needs comes before anything is touched.
#[test]
fn the_journal_comes_first() {
    let root = tempfile::tempdir().unwrap();
    let packed = sound().packed();
    let mut host = Host::new(root.path(), &packed, Digest::of(&packed));
    let (at, seen) = (root.path().to_owned(), Arc::new(AtomicBool::new(false)));
    let told = seen.clone();
    host.files = Files::new(root.path()).with_hook(Arc::new(move |effect| {
        if matches!(effect, Effect::Change(path) if path.starts_with(at.join("opt"))) {
            let journal = journal::read(&Files::new(&at), &path("/var/lib/transship/archives/journal"));
            let started = journal
                .unwrap()
                .iter()
                .any(|record| matches!(record.event, Event::Started { step: 0, .. }));
            assert!(started);
            told.store(true, Ordering::SeqCst);
        }
        Ok(())
    }));
    assert_eq!(host.run().0, Outcome::Prepared);
    assert!(seen.load(Ordering::SeqCst));
}
