//! Packages, with the real package managers on roots of their own and repositories of files: what a transaction may
//! do, what it must not, and that undo takes away what was added and nothing else.

mod apt;
mod dnf;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::no_units::NoUnits;
use transship::{
    api::request::{Runtime, RuntimeVersion},
    executor::{
        control::{Dir, Order},
        decide::End,
        journal::Event,
        run::{self, Outcome},
    },
    host::files::Files,
    plan::{
        document::{FORMAT, Plan, PlannedStep, Section},
        host_path::HostPath,
        step::{Endpoint, InstallStep, KubeletStep, Package, PackageManager, Step},
    },
    runtime::hosted::HostRuntimes,
};

/// A host, and a plan that installs containerd 1.7.28 on it.
struct Host {
    root: tempfile::TempDir,
    plan: Plan,
    /// The command that prints all packages with their versions.
    query: &'static str,
}

impl Host {
    fn new(manager: PackageManager, query: &'static str) -> Self {
        let root = tempfile::tempdir().unwrap();
        for directory in [
            "etc",
            "run/systemd/system",
            "srv/repo",
            "usr/bin",
            "usr/lib",
            "var",
        ] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        fs::write(root.path().join("etc/machine-id"), "m\n").unwrap();
        // On a real host it is never empty, and so never removed with the last package.
        fs::write(root.path().join("usr/lib/os-release"), "").unwrap();
        Self {
            root,
            plan: plan(manager),
            query,
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// Runs a script with the root in `$ROOT`, which must succeed.
    fn shell(&self, script: &str) -> String {
        let ran = Command::new("sh")
            .args(["-e", "-c", script])
            .env("ROOT", self.root.path())
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{script}: {said}");
        String::from_utf8(ran.stdout).unwrap()
    }

    /// Puts a program into the root that is the one of this machine, made to work on the root.
    fn program(&self, name: &str, real: &str) {
        let file = self.at("usr/bin").join(name);
        fs::write(&file, format!("#!/bin/sh\nexec {real} \"$@\"\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn write(&self, path: &str, text: &str) {
        let file = self.at(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn dir(&self) -> Dir {
        let files = Files::new(self.root.path());
        Dir::at(&files, HostPath::new("/var/lib/transship/packages").unwrap())
    }

    /// Runs the executor until it comes to rest; answers why it failed, too.
    fn run(&self) -> (Outcome, String) {
        self.run_until(std::future::pending::<()>()).unwrap()
    }

    /// Runs the executor unless `killed` comes first: it dies then, with the program that it has started.
    fn run_until(&self, killed: impl Future<Output = ()>) -> Option<(Outcome, String)> {
        let files = Files::new(self.root.path());
        let dir = self.dir();
        dir.write_plan(&self.plan).unwrap();
        let clock = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let systemd = NoUnits {
            run: Some(self.at("run/systemd/system")),
            ..NoUnits::default()
        };
        let runtimes = HostRuntimes::new(files.clone());
        let outcome = clock.block_on(async {
            tokio::select! {
                outcome = run::run(&files, &dir, &systemd, &runtimes) => Some(outcome.unwrap()),
                () = killed => None,
            }
        })?;
        assert!(systemd.masked.borrow().is_empty(), "no mask is left");
        let events = dir.journal().unwrap().into_iter().map(|record| record.event);
        let why = events.filter_map(|event| match event {
            Event::Failed { error, .. } => Some(error),
            Event::Started { .. } => {
                assert!(systemd.ever_masked.borrow().contains("containerd.service"));
                None
            }
            _ => None,
        });
        Some((outcome, why.collect()))
    }

    /// Comes when there is a file at `path`.
    async fn made(&self, path: &str) {
        while !self.at(path).exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn abort(&self) -> Outcome {
        self.dir().order(Order::Abort, &self.plan.digest()).unwrap();
        // Without the network: the repository is gone.
        fs::rename(self.at("srv"), self.at("gone")).unwrap();
        let (outcome, why) = self.run();
        fs::rename(self.at("gone"), self.at("srv")).unwrap();
        assert_eq!(why, "");
        outcome
    }

    /// Every package that is known, with its version.
    fn packages(&self) -> String {
        self.shell(self.query)
    }

    /// Files and directories, but the repository and what package managers and the executor write down for themselves.
    fn tree(&self) -> BTreeMap<PathBuf, String> {
        walkdir::WalkDir::new(self.root.path())
            .into_iter()
            .filter_entry(|entry| ![self.at("var"), self.at("srv")].contains(&entry.path().to_owned()))
            .map(Result::unwrap)
            .map(|entry| {
                let text = entry
                    .file_type()
                    .is_file()
                    .then(|| fs::read_to_string(entry.path()).unwrap());
                (entry.into_path(), text.unwrap_or_default())
            })
            .collect()
    }

    /// All that must be as before once a plan is taken back.
    fn state(&self) -> (BTreeMap<PathBuf, String>, String) {
        (self.tree(), self.packages())
    }

    /// Demands that the transaction is refused for this reason, and that nothing is changed.
    fn refuses(&self, reason: &str) {
        let before = self.state();
        let (outcome, why) = self.run();
        assert_eq!(outcome, Outcome::Ended(End::RolledBack), "{why}");
        assert!(why.contains(reason), "{why}");
        assert_eq!(self.state(), before);
    }

    /// Prepares, and demands that an abort waits until nobody else holds the record lock on the file `lock`, and leaves
    /// nothing.
    fn aborts_when_free(&self, lock: &str) {
        // Longer than the executor's own tries take.
        const HELD: Duration = Duration::from_secs(10);
        use nix::{
            fcntl::{FcntlArg, fcntl},
            libc,
        };
        let before = self.state();
        assert_eq!(self.run(), (Outcome::Prepared, String::new()));
        let lock = fs::File::create(self.at(lock)).unwrap();
        let whole = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        fcntl(&lock, FcntlArg::F_SETLK(&whole)).unwrap();
        let began = Instant::now();
        let other = thread::spawn(move || {
            thread::sleep(HELD);
            drop(lock);
        });
        assert_eq!(self.abort(), Outcome::Ended(End::RolledBack));
        other.join().unwrap();
        assert_eq!(self.state(), before);
        assert!(began.elapsed() >= HELD);
    }
}

fn plan(manager: PackageManager) -> Plan {
    let step = Step::Install(InstallStep::Package(Package {
        manager,
        name: "containerd".to_owned(),
        version: "1.7.28".to_owned(),
        units: vec!["containerd.service".to_owned()],
    }));
    let steps = [
        (Section::Prepare, step),
        (
            Section::Switch,
            Step::Kubelet(KubeletStep {
                run: false,
                runtime: Endpoint {
                    runtime: Runtime::Dockershim,
                    socket: HostPath::new("/var/run/docker.sock").unwrap(),
                },
            }),
        ),
    ];
    Plan {
        format: FORMAT,
        migration: "packages".to_owned(),
        migration_name: None,
        node: "n".to_owned(),
        machine_id: "m".to_owned(),
        source: RuntimeVersion {
            runtime: Runtime::CriDockerd,
            version: "20.10.24".to_owned(),
        },
        target: RuntimeVersion {
            runtime: Runtime::Containerd,
            version: "1.7.28".to_owned(),
        },
        confirm_within_secs: 60,
        soak_secs: 0,
        prepared_for_secs: 900,
        rollback_automatic: true,
        findings: Vec::new(),
        steps: steps
            .into_iter()
            .map(|(section, does)| PlannedStep { section, does })
            .collect(),
        digest_key: String::new(),
    }
}
