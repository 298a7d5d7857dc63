//! Packages, with the real apt and dpkg on a root of their own and a repository of files: what a transaction may do, what
//! it must not, and that undo takes away what was added and nothing else.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is a test")]

#[path = "support/no_units.rs"]
mod no_units;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use no_units::NoUnits;
use transship::{
    api::request::Runtime,
    executor::{
        control::{Dir, Order},
        decide::End,
        journal::Event,
        run::{self, Outcome},
    },
    host::files::Files,
    plan::{
        digest::Digest,
        document::{FORMAT, Plan, PlannedStep, Section},
        host_path::HostPath,
        step::{Contents, FileStep, InstallStep, KubeletStep, Package, PackageManager, Step},
    },
    runtime::hosted::HostRuntimes,
};

struct Host {
    root: tempfile::TempDir,
    plan: Plan,
}

/// A package of the repository: name, version, further fields of its control file, a maintainer script.
type Deb<'a> = (&'a str, &'a str, &'a str, Option<(&'a str, &'a str)>);

const CONTAINERD: Deb<'_> = ("containerd", "1.7.28-1~debian", "Depends: runc (>= 1.1)\n", None);
const RUNC: Deb<'_> = ("runc", "1.2.5-1", "", None);
const TOOL: Deb<'_> = ("tool", "1:3.0-1", "", None);

fn shell(script: &str, root: &Path) -> String {
    let ran = Command::new("sh")
        .args(["-e", "-c", script])
        .env("ROOT", root)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{script}: {said}");
    String::from_utf8(ran.stdout).unwrap()
}

impl Host {
    /// A host whose repository has `debs`, with `installed` of them installed.
    fn new(debs: &[Deb<'_>], installed: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let host = Self { plan: plan(), root };
        let at = host.root.path();
        for directory in [
            "etc/apt/preferences.d",
            "etc/apt/apt.conf.d",
            "srv/repo",
            "usr/bin",
            "var/cache/apt/archives/partial",
            "var/lib/apt/lists/partial",
            "var/lib/dpkg/info",
            "var/lib/dpkg/updates",
            "var/log/apt",
        ] {
            fs::create_dir_all(at.join(directory)).unwrap();
        }
        fs::write(at.join("etc/machine-id"), "m\n").unwrap();
        fs::write(at.join("var/lib/dpkg/status"), "").unwrap();
        let source = format!("deb [trusted=yes] file:{}/srv/repo ./\n", at.display());
        fs::write(at.join("etc/apt/sources.list"), source).unwrap();
        let options = format!(
            "-o Dir={0} -o Dir::State::status={0}/var/lib/dpkg/status -o Dir::Bin::dpkg={0}/usr/bin/dpkg \
             -o Dir::Bin::methods=/usr/lib/apt/methods -o APT::Sandbox::User=root -o APT::Architecture=amd64 \
             -o APT::Architectures=amd64",
            at.display()
        );
        for (tool, real) in [
            ("apt-get", format!("/usr/bin/apt-get {options}")),
            ("apt-cache", format!("/usr/bin/apt-cache {options}")),
            (
                "dpkg",
                format!(
                    "/usr/bin/dpkg --force-architecture --force-script-chrootless --root={}",
                    at.display()
                ),
            ),
            (
                "dpkg-query",
                format!("/usr/bin/dpkg-query --admindir={}/var/lib/dpkg", at.display()),
            ),
        ] {
            let file = at.join("usr/bin").join(tool);
            fs::write(&file, format!("#!/bin/sh\nexec {real} \"$@\"\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        for deb in debs {
            host.build(deb);
        }
        shell("$ROOT/usr/bin/apt-get update", at);
        for name in installed {
            shell(&format!("$ROOT/usr/bin/apt-get install -y {name}"), at);
        }
        // What apt caches of its lists is no change of the host.
        shell("$ROOT/usr/bin/apt-cache gencaches", at);
        host
    }

    /// Builds a package with one file and one configuration file into the repository.
    fn build(&self, (name, version, fields, script): &Deb<'_>) {
        let at = self.root.path();
        let tree = at.join("tmp").join(name);
        let write = |path: &str, text: String, mode: u32| {
            let file = tree.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        };
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: t <t@example.com>\n{fields}Description: t\n"
        );
        write("DEBIAN/control", control.clone(), 0o644);
        write("DEBIAN/conffiles", format!("/etc/{name}/{name}.conf\n"), 0o644);
        write(&format!("etc/{name}/{name}.conf"), "x\n".to_owned(), 0o644);
        write(
            &format!("usr/lib/{name}/program"),
            format!("{name} {version}\n"),
            0o755,
        );
        if let Some((when, text)) = script {
            write(&format!("DEBIAN/{when}"), (*text).to_owned(), 0o755);
        }
        let file = format!("{name}_{}.deb", version.replace(':', "%3a"));
        shell(
            &format!("dpkg-deb --build $ROOT/tmp/{name} $ROOT/srv/repo/{file}"),
            at,
        );
        let bytes = fs::read(at.join("srv/repo").join(&file)).unwrap();
        let digest = Digest::of(&bytes).to_string().replace("sha256:", "");
        let entry = format!(
            "{control}Filename: ./{file}\nSize: {}\nSHA256: {digest}\n\n",
            bytes.len()
        );
        let packages = at.join("srv/repo/Packages");
        let before = fs::read_to_string(&packages).unwrap_or_default();
        fs::write(packages, before + &entry).unwrap();
        fs::remove_dir_all(at.join("tmp")).unwrap();
    }

    fn files(&self) -> Files {
        Files::new(self.root.path())
    }

    fn run(&self) -> (Outcome, String) {
        self.run_until(std::future::pending::<()>()).unwrap()
    }

    /// Runs unless `killed` comes first.
    fn run_until(&self, killed: impl Future<Output = ()>) -> Option<(Outcome, String)> {
        let files = self.files();
        let dir = Dir::at(&files, HostPath::new("/var/lib/transship/packages").unwrap());
        dir.write_plan(&self.plan).unwrap();
        let clock = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let systemd = NoUnits::default();
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

    /// Dies with all that it has started while dpkg unpacks `runc`; see [`stuck`].
    fn die_while_unpacking(&self) {
        let pids = self.root.path().join("var/pids");
        let stuck = async {
            while !pids.exists() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert_eq!(self.run_until(stuck), None);
        for pid in fs::read_to_string(pids).unwrap().split_whitespace() {
            let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        let states = self.packages();
        assert!(states.contains("runc half-installed"), "{states}");
    }

    fn abort(&self) -> Outcome {
        let files = self.files();
        let dir = Dir::at(&files, HostPath::new("/var/lib/transship/packages").unwrap());
        dir.order(Order::Abort, &self.plan.digest()).unwrap();
        // Without the network: the repository is gone.
        fs::rename(self.root.path().join("srv"), self.root.path().join("gone")).unwrap();
        let (outcome, why) = self.run();
        fs::rename(self.root.path().join("gone"), self.root.path().join("srv")).unwrap();
        assert_eq!(why, "");
        outcome
    }

    /// Every package that dpkg knows, with status and version.
    fn packages(&self) -> String {
        shell(
            "$ROOT/usr/bin/dpkg-query -W -f='${Package} ${db:Status-Status} ${Version}\\n'",
            self.root.path(),
        )
    }

    /// Files and directories, but what apt and dpkg write down for themselves.
    fn tree(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        walkdir::WalkDir::new(self.root.path())
            .into_iter()
            .map(Result::unwrap)
            .filter(|entry| !entry.path().starts_with(self.root.path().join("var")))
            .map(|entry| {
                let bytes = entry
                    .file_type()
                    .is_file()
                    .then(|| fs::read(entry.path()).unwrap());
                (entry.path().to_owned(), bytes.unwrap_or_default())
            })
            .collect()
    }

    /// Demands that the transaction is refused for this reason, and that nothing is changed.
    fn refuses(&self, reason: &str) {
        let (tree, packages) = (self.tree(), self.packages());
        let (outcome, why) = self.run();
        assert_eq!(outcome, Outcome::Ended(End::RolledBack), "{why}");
        assert!(why.contains(reason), "{why}");
        assert_eq!((self.tree(), self.packages()), (tree, packages));
    }
}

fn plan() -> Plan {
    let step = Step::Install(InstallStep::Package(Package {
        manager: PackageManager::Apt,
        name: "containerd".to_owned(),
        version: "1.7.28".to_owned(),
        units: vec!["containerd.service".to_owned()],
    }));
    let steps = [
        (Section::Prepare, step),
        (Section::Switch, Step::Kubelet(KubeletStep { run: false })),
    ];
    Plan {
        format: FORMAT,
        migration: "packages".to_owned(),
        node: "n".to_owned(),
        machine_id: "m".to_owned(),
        source: (Runtime::CriDockerd, "20.10.24".to_owned()),
        target: (Runtime::Containerd, "1.7.28".to_owned()),
        confirm_within_secs: 60,
        rollback_automatic: true,
        findings: Vec::new(),
        steps: steps
            .into_iter()
            .map(|(section, does)| PlannedStep { section, does })
            .collect(),
    }
}

#[test]
fn what_was_added_is_removed_again_and_nothing_else() {
    let newer = ("containerd", "2.0.0-1", "", None);
    let host = Host::new(&[newer, CONTAINERD, RUNC, TOOL], &["tool"]);
    let (tree, packages) = (host.tree(), host.packages());
    assert_eq!(host.run(), (Outcome::Prepared, String::new()));
    assert_eq!(
        host.packages(),
        "containerd installed 1.7.28-1~debian\nrunc installed 1.2.5-1\ntool installed 1:3.0-1\n"
    );
    assert_eq!(host.abort(), Outcome::Ended(End::RolledBack));
    assert_eq!((host.tree(), host.packages()), (tree, packages));
}

/// A package whose unpacking gets stuck, the first time.
fn stuck() -> Deb<'static> {
    let script = "#!/bin/sh\nset -e\ncd $DPKG_ROOT/var\n[ ! -e pids ] || exit 0\n\
                  echo $PPID $$ >new\nmv new pids\nexec sleep 600\n";
    ("runc", "1.2.5-1", "", Some(("preinst", script)))
}

#[test]
fn what_was_unpacked_in_part_is_installed_by_the_next_run() {
    let host = Host::new(&[CONTAINERD, stuck()], &[]);
    host.die_while_unpacking();
    assert_eq!(host.run(), (Outcome::Prepared, String::new()));
    assert_eq!(
        host.packages(),
        "containerd installed 1.7.28-1~debian\nrunc installed 1.2.5-1\n"
    );
}

#[test]
fn what_was_unpacked_in_part_is_removed_again() {
    let host = Host::new(&[CONTAINERD, stuck(), TOOL], &["tool"]);
    let (tree, packages) = (host.tree(), host.packages());
    host.die_while_unpacking();
    assert_eq!(host.abort(), Outcome::Ended(End::RolledBack));
    assert_eq!((host.tree(), host.packages()), (tree, packages));
}

/// dpkg keeps it, and takes it away with the package, although it never was the package's.
#[test]
fn a_configuration_that_was_there_before_is_put_back() {
    let mut host = Host::new(&[CONTAINERD, RUNC], &[]);
    let at = host.root.path().join("etc/containerd/containerd.conf");
    fs::create_dir(at.parent().unwrap()).unwrap();
    fs::write(&at, "mine\n").unwrap();
    let does = Step::File(FileStep {
        path: HostPath::new("/etc/containerd/containerd.conf").unwrap(),
        planned_from: Some(Digest::of("mine\n")),
        want: Some(Contents {
            text: "planned\n".to_owned(),
            mode: 0o644,
        }),
    });
    let section = Section::Prepare;
    host.plan.steps.insert(0, PlannedStep { section, does });
    let tree = host.tree();
    assert_eq!(host.run(), (Outcome::Prepared, String::new()));
    assert_eq!(fs::read_to_string(&at).unwrap(), "planned\n");
    assert_eq!(host.abort(), Outcome::Ended(End::RolledBack));
    assert_eq!(host.tree(), tree);
}

#[test]
fn what_is_installed_already_stays() {
    let host = Host::new(&[CONTAINERD, RUNC], &["containerd"]);
    let (tree, packages) = (host.tree(), host.packages());
    assert_eq!(host.run(), (Outcome::Prepared, String::new()));
    assert_eq!(host.abort(), Outcome::Ended(End::RolledBack));
    assert_eq!((host.tree(), host.packages()), (tree, packages));
}

#[test]
fn a_package_that_pushes_another_one_out_is_refused() {
    let pushes = ("containerd", "1.7.28-1", "Conflicts: tool\n", None);
    Host::new(&[pushes, TOOL], &["tool"]).refuses("would remove tool; nothing was installed");
}

#[test]
fn a_package_that_upgrades_another_one_is_refused() {
    let needs = ("containerd", "1.7.28-1", "Depends: runc (>= 1.3)\n", None);
    let host = Host::new(&[needs, RUNC], &["runc"]);
    host.build(&("runc", "1.3.0-1", "", None));
    shell("$ROOT/usr/bin/apt-get update", host.root.path());
    host.refuses("would replace runc [1.2.5-1]; nothing was installed");
}

#[test]
fn another_version_is_never_replaced() {
    let older = ("containerd", "1.6.20~ds1-1", "", None);
    let host = Host::new(&[older], &["containerd"]);
    host.build(&("containerd", "1.7.28-1", "", None));
    shell("$ROOT/usr/bin/apt-get update", host.root.path());
    host.refuses("containerd 1.6.20~ds1-1 is installed, and 1.7.28 was planned");
}

#[test]
fn a_version_that_no_repository_has_is_refused() {
    let other = ("containerd", "1.7.27-1", "", None);
    Host::new(&[other], &[]).refuses("no repository of this node has containerd 1.7.28, but 1.7.27-1");
    Host::new(&[TOOL], &[]).refuses("no repository of this node has containerd 1.7.28, but none");
}

/// Purging it afterwards would take what the removal had left.
#[test]
fn a_package_that_left_its_configuration_is_refused() {
    let host = Host::new(&[CONTAINERD, RUNC], &["containerd"]);
    shell("$ROOT/usr/bin/dpkg --remove containerd runc", host.root.path());
    host.refuses("config-files of it is left");
}

/// As after an abort that killed apt-get, and not the dpkg that it had started.
#[test]
fn another_run_of_dpkg_is_waited_for() {
    // Longer than the executor's own tries take.
    const HELD: Duration = Duration::from_secs(10);
    use nix::{
        fcntl::{FcntlArg, fcntl},
        libc,
    };
    let host = Host::new(&[CONTAINERD, RUNC], &[]);
    let packages = host.packages();
    assert_eq!(host.run(), (Outcome::Prepared, String::new()));
    let lock = fs::File::create(host.root.path().join("var/lib/dpkg/lock")).unwrap();
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
    assert_eq!(host.abort(), Outcome::Ended(End::RolledBack));
    other.join().unwrap();
    assert!(began.elapsed() >= HELD);
    assert_eq!(host.packages(), packages);
}

/// It is half configured then.
#[test]
fn a_package_that_cannot_be_configured_is_taken_back() {
    let broken = (
        "containerd",
        "1.7.28-1",
        "Depends: runc\n",
        Some(("postinst", "#!/bin/sh\nexit 1\n")),
    );
    Host::new(&[broken, RUNC, TOOL], &["tool"]).refuses("apt-get install: ");
}
