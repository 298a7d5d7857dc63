//! The real apt and dpkg.

use std::{fs, os::unix::fs::PermissionsExt as _};

use transship::{
    executor::{decide::End, run::Outcome},
    plan::{
        digest::Digest,
        document::{PlannedStep, Section},
        host_path::HostPath,
        step::{Contents, FileStep, PackageManager, Step},
    },
};

use super::Host;

/// A package of the repository: name, version, further fields of its control file, a maintainer script.
type Deb<'a> = (&'a str, &'a str, &'a str, Option<(&'a str, &'a str)>);

const CONTAINERD: Deb<'_> = ("containerd", "1.7.28-1~debian", "Depends: runc (>= 1.1)\n", None);
const RUNC: Deb<'_> = ("runc", "1.2.5-1", "", None);
const TOOL: Deb<'_> = ("tool", "1:3.0-1", "", None);

/// A host whose repository has `debs`, with `installed` of them installed.
fn host(debs: &[Deb<'_>], installed: &[&str]) -> Host {
    let query = "$ROOT/usr/bin/dpkg-query -W -f='${Package} ${db:Status-Status} ${Version}\\n'";
    let host = Host::new(PackageManager::Apt, query);
    for directory in [
        "etc/apt/preferences.d",
        "etc/apt/apt.conf.d",
        "var/cache/apt/archives/partial",
        "var/lib/apt/lists/partial",
        "var/lib/dpkg/info",
        "var/lib/dpkg/updates",
        "var/log/apt",
    ] {
        fs::create_dir_all(host.at(directory)).unwrap();
    }
    host.write("var/lib/dpkg/status", "");
    let root = host.root.path().display().to_string();
    host.write(
        "etc/apt/sources.list",
        &format!("deb [trusted=yes] file:{root}/srv/repo ./\n"),
    );
    let options = format!(
        "-o Dir={root} -o Dir::State::status={root}/var/lib/dpkg/status -o Dir::Bin::dpkg={root}/usr/bin/dpkg \
         -o Dir::Bin::methods=/usr/lib/apt/methods -o APT::Sandbox::User=root -o APT::Architecture=amd64 \
         -o APT::Architectures=amd64"
    );
    for (name, real) in [
        ("apt-get", format!("/usr/bin/apt-get {options}")),
        ("apt-cache", format!("/usr/bin/apt-cache {options}")),
        (
            "dpkg",
            format!("/usr/bin/dpkg --force-architecture --force-script-chrootless --root={root}"),
        ),
        (
            "dpkg-query",
            format!("/usr/bin/dpkg-query --admindir={root}/var/lib/dpkg"),
        ),
    ] {
        host.program(name, &real);
    }
    for deb in debs {
        build(&host, deb);
    }
    host.shell("$ROOT/usr/bin/apt-get update");
    for name in installed {
        host.shell(&format!("$ROOT/usr/bin/apt-get install -y {name}"));
    }
    // What apt caches of its lists is no change of the host.
    host.shell("$ROOT/usr/bin/apt-cache gencaches");
    host
}

/// Builds a package with one file and one configuration file into the repository.
fn build(host: &Host, (name, version, fields, script): &Deb<'_>) {
    let write = |path: &str, text: &str, mode: u32| {
        let path = format!("tmp/{name}/{path}");
        host.write(&path, text);
        fs::set_permissions(host.at(&path), fs::Permissions::from_mode(mode)).unwrap();
    };
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: t <t@example.com>\n{fields}Description: t\n"
    );
    write("DEBIAN/control", &control, 0o644);
    write("DEBIAN/conffiles", &format!("/etc/{name}/{name}.conf\n"), 0o644);
    write(&format!("etc/{name}/{name}.conf"), "x\n", 0o644);
    write(
        &format!("usr/lib/{name}/program"),
        &format!("{name} {version}\n"),
        0o755,
    );
    if let Some((when, text)) = script {
        write(&format!("DEBIAN/{when}"), text, 0o755);
    }
    let file = format!("{name}_{}.deb", version.replace(':', "%3a"));
    host.shell(&format!(
        "dpkg-deb --build $ROOT/tmp/{name} $ROOT/srv/repo/{file}"
    ));
    let bytes = fs::read(host.at("srv/repo").join(&file)).unwrap();
    let digest = Digest::of(&bytes).to_string().replace("sha256:", "");
    let entry = format!(
        "{control}Filename: ./{file}\nSize: {}\nSHA256: {digest}\n\n",
        bytes.len()
    );
    let packages = host.at("srv/repo/Packages");
    let before = fs::read_to_string(&packages).unwrap_or_default();
    fs::write(packages, before + &entry).unwrap();
    fs::remove_dir_all(host.at("tmp")).unwrap();
}

#[test]
fn what_was_added_is_removed_again_and_nothing_else() {
    let newer = ("containerd", "2.0.0-1", "", None);
    let host = host(&[newer, CONTAINERD, RUNC, TOOL], &["tool"]);
    let before = host.state();
    assert_eq!(host.run(), (Outcome::Prepared, String::new()));
    assert_eq!(
        host.packages(),
        "containerd installed 1.7.28-1~debian\nrunc installed 1.2.5-1\ntool installed 1:3.0-1\n"
    );
    assert_eq!(host.abort(), Outcome::Ended(End::RolledBack));
    assert_eq!(host.state(), before);
}

/// A package whose unpacking gets stuck, the first time.
fn stuck() -> Deb<'static> {
    let script = "#!/bin/sh\nset -e\ncd $DPKG_ROOT/var\n[ ! -e pids ] || exit 0\n\
                  echo $PPID $$ >new\nmv new pids\nexec sleep 600\n";
    ("runc", "1.2.5-1", "", Some(("preinst", script)))
}

/// Dies with all that it has started while dpkg unpacks `runc`; see [`stuck`].
fn die_while_unpacking(host: &Host) {
    assert_eq!(host.run_until(host.made("var/pids")), None);
    for pid in fs::read_to_string(host.at("var/pids"))
        .unwrap()
        .split_whitespace()
    {
        let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    let states = host.packages();
    assert!(states.contains("runc half-installed"), "{states}");
}

#[test]
fn what_was_unpacked_in_part_is_installed_by_the_next_run() {
    let host = host(&[CONTAINERD, stuck()], &[]);
    die_while_unpacking(&host);
    assert_eq!(host.run(), (Outcome::Prepared, String::new()));
    assert_eq!(
        host.packages(),
        "containerd installed 1.7.28-1~debian\nrunc installed 1.2.5-1\n"
    );
}

#[test]
fn what_was_unpacked_in_part_is_removed_again() {
    let host = host(&[CONTAINERD, stuck(), TOOL], &["tool"]);
    let before = host.state();
    die_while_unpacking(&host);
    assert_eq!(host.abort(), Outcome::Ended(End::RolledBack));
    assert_eq!(host.state(), before);
}

/// dpkg keeps it, and takes it away with the package, although it never was the package's.
#[test]
fn a_configuration_that_was_there_before_is_put_back() {
    let mut host = host(&[CONTAINERD, RUNC], &[]);
    let at = host.at("etc/containerd/containerd.conf");
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
    let host = host(&[CONTAINERD, RUNC], &["containerd"]);
    let before = host.state();
    assert_eq!(host.run(), (Outcome::Prepared, String::new()));
    assert_eq!(host.abort(), Outcome::Ended(End::RolledBack));
    assert_eq!(host.state(), before);
}

#[test]
fn a_package_that_pushes_another_one_out_is_refused() {
    let pushes = ("containerd", "1.7.28-1", "Conflicts: tool\n", None);
    host(&[pushes, TOOL], &["tool"]).refuses("would remove tool; nothing was installed");
}

#[test]
fn a_package_that_upgrades_another_one_is_refused() {
    let needs = ("containerd", "1.7.28-1", "Depends: runc (>= 1.3)\n", None);
    let host = host(&[needs, RUNC], &["runc"]);
    build(&host, &("runc", "1.3.0-1", "", None));
    host.shell("$ROOT/usr/bin/apt-get update");
    host.refuses("would replace runc [1.2.5-1]; nothing was installed");
}

#[test]
fn another_version_is_never_replaced() {
    let older = ("containerd", "1.6.20~ds1-1", "", None);
    let host = host(&[older], &["containerd"]);
    build(&host, &("containerd", "1.7.28-1", "", None));
    host.shell("$ROOT/usr/bin/apt-get update");
    host.refuses("containerd 1.6.20~ds1-1 is installed, and 1.7.28 was planned");
}

#[test]
fn a_version_that_no_repository_has_is_refused() {
    let other = ("containerd", "1.7.27-1", "", None);
    host(&[other], &[]).refuses("no repository of this node has containerd 1.7.28, but 1.7.27-1");
    host(&[TOOL], &[]).refuses("no repository of this node has containerd 1.7.28, but none");
}

/// Purging it afterwards would take what the removal had left.
#[test]
fn a_package_that_left_its_configuration_is_refused() {
    let host = host(&[CONTAINERD, RUNC], &["containerd"]);
    host.shell("$ROOT/usr/bin/dpkg --remove containerd runc");
    host.refuses("config-files of it is left");
}

/// As after an abort that killed apt-get, and not the dpkg that it had started.
#[test]
fn another_run_of_dpkg_is_waited_for() {
    host(&[CONTAINERD, RUNC], &[]).aborts_when_free("var/lib/dpkg/lock");
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
    host(&[broken, RUNC, TOOL], &["tool"]).refuses("apt-get install: ");
}
