//! The real dnf and rpm. Scripts of packages are in Lua, which rpm runs by itself: these roots have no shell.

use std::fs;

use rstest::rstest;
use transship::{
    executor::{decide::End, run::Outcome},
    plan::step::PackageManager,
};

use super::Host;

/// A package of the repository.
#[derive(Clone, Copy)]
struct Rpm<'a> {
    name: &'a str,
    version: &'a str,
    /// Further tags of its spec.
    tags: &'a str,
    /// Its scripts, as they stand in the spec.
    scripts: &'a str,
}

const fn rpm<'a>(name: &'a str, version: &'a str, tags: &'a str) -> Rpm<'a> {
    let scripts = "";
    Rpm {
        name,
        version,
        tags,
        scripts,
    }
}

const CONTAINERD: Rpm<'_> = rpm("containerd", "1.7.28", "Requires: runc >= 1.1");
const RUNC: Rpm<'_> = rpm("runc", "1.2.5", "");
const TOOL: Rpm<'_> = rpm("tool", "3.0", "Epoch: 1");

/// A script that is carried out where the unit is masked, and that hangs where it is told to.
const SCRIPT: &str = r#" -p <lua>
if posix.readlink("/run/systemd/system/containerd.service") ~= "/dev/null" then error("not masked") end
if posix.stat("/var/hang") then
  io.open("/var/hanging", "w"):close()
  while true do posix.sleep(1) end
end
"#;

/// A host whose repository has `rpms`, with `installed` of them installed.
fn host(rpms: &[Rpm<'_>], installed: &[&str]) -> Host {
    let query = "$ROOT/usr/bin/rpm -qa --qf '%{NAME} %{VERSION}-%{RELEASE}\n' | grep -v ^gpg-pubkey | sort";
    let host = Host::new(PackageManager::Dnf, query);
    let root = host.root.path().display().to_string();
    host.write("etc/dnf/dnf.conf", "[main]\n");
    host.write(
        "etc/yum.repos.d/repo.repo",
        &format!("[repo]\nname=repo\nbaseurl=file://{root}/srv/repo\ngpgcheck=1\n"),
    );
    // Debian has rpm's database elsewhere.
    host.write("var/root/.rpmmacros", "%_dbpath /var/lib/rpm\n");
    host.program(
        "rpm",
        &format!("/usr/bin/rpm --root={root} --dbpath=/var/lib/rpm"),
    );
    host.program(
        "dnf",
        &format!("env HOME={root}/var/root /usr/bin/dnf --installroot={root} --releasever=1"),
    );
    host.shell(
        "export GNUPGHOME=$ROOT/var/gnupg; mkdir -m 700 $GNUPGHOME
         gpg --batch --quiet --passphrase '' --quick-generate-key t@example.com rsa2048 sign never
         gpg --armor --export t@example.com > $GNUPGHOME/key; gpgconf --kill gpg-agent
         $ROOT/usr/bin/rpm --import $GNUPGHOME/key",
    );
    publish(&host, rpms);
    for name in installed {
        host.shell(&format!("$ROOT/usr/bin/dnf install -y {name}"));
    }
    host
}

/// Builds and signs packages with one file and one configuration file each, into the repository.
fn publish(host: &Host, rpms: &[Rpm<'_>]) {
    for rpm in rpms {
        let Rpm {
            name,
            version,
            tags,
            scripts,
        } = rpm;
        let spec = format!(
            "Name: {name}\nVersion: {version}\nRelease: 1\nSummary: t\nLicense: t\nBuildArch: noarch\n{tags}\n\
             %description\nt\n\
             %install\nmkdir -p %{{buildroot}}/usr/lib/{name} %{{buildroot}}/etc/{name}\n\
             echo {name} {version} >%{{buildroot}}/usr/lib/{name}/program\n\
             echo x >%{{buildroot}}/etc/{name}/{name}.conf\n\
             {scripts}\n\
             %files\n%dir /usr/lib/{name}\n/usr/lib/{name}/program\n%dir /etc/{name}\n\
             %config(noreplace) /etc/{name}/{name}.conf\n"
        );
        host.write("var/build/spec", &spec);
        host.shell(
            "rpmbuild --quiet -bb --define \"_topdir $ROOT/var/build\" --define \"_rpmdir $ROOT/var/build\" \
             --define '_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.rpm' $ROOT/var/build/spec
             GNUPGHOME=$ROOT/var/gnupg rpmsign --define '__gpg /usr/bin/gpg' --define '_gpg_name t@example.com' \
             --addsign $ROOT/var/build/*.rpm
             GNUPGHOME=$ROOT/var/gnupg gpgconf --kill gpg-agent
             mv $ROOT/var/build/*.rpm $ROOT/srv/repo",
        );
    }
    index(host);
}

/// Has the repository offer what is in it now.
fn index(host: &Host) {
    host.shell("createrepo_c --quiet $ROOT/srv/repo; $ROOT/usr/bin/dnf -q makecache --refresh");
}

/// How many archives lie below the executor's directory.
fn kept(host: &Host) -> usize {
    let entries = walkdir::WalkDir::new(host.at("var/lib/transship")).into_iter();
    entries
        .map(Result::unwrap)
        .filter(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "rpm")
        })
        .count()
}

#[test]
fn what_was_added_is_removed_again_and_nothing_else() {
    let scripts = format!("%pre{SCRIPT}\n%preun{SCRIPT}");
    let containerd = Rpm {
        tags: "Requires: runc >= 1.1\nRecommends: extra",
        scripts: &scripts,
        ..CONTAINERD
    };
    let newer = rpm("containerd", "2.0.0", "");
    let extra = rpm("extra", "1.0", "");
    let host = host(&[newer, containerd, extra, RUNC, TOOL], &["tool"]);
    let before = host.state();
    assert_eq!(host.run(), (Outcome::Prepared, String::new()));
    assert_eq!(host.packages(), "containerd 1.7.28-1\nrunc 1.2.5-1\ntool 3.0-1\n");
    assert_eq!(kept(&host), 0);
    assert_eq!(host.abort(), Outcome::Ended(End::RolledBack));
    assert_eq!(host.state(), before);
}

#[test]
fn what_is_installed_already_stays() {
    let host = host(&[CONTAINERD, RUNC], &["containerd"]);
    let before = host.state();
    assert_eq!(host.run(), (Outcome::Prepared, String::new()));
    assert_eq!(host.abort(), Outcome::Ended(End::RolledBack));
    assert_eq!(host.state(), before);
}

#[rstest]
#[case::conflict("Conflicts: tool", "conflicts with tool")]
#[case::obsolete("Obsoletes: tool < 1:4", "tool < 1:4 is obsoleted by containerd-1.7.28")]
fn a_package_that_pushes_another_one_out_is_refused(#[case] tag: &str, #[case] reason: &str) {
    let host = host(&[TOOL], &["tool"]);
    publish(&host, &[rpm("containerd", "1.7.28", tag)]);
    host.refuses(reason);
}

#[test]
fn a_package_that_upgrades_another_one_is_refused() {
    let needs = rpm("containerd", "1.7.28", "Requires: runc >= 1.3");
    let host = host(&[needs, RUNC], &["runc"]);
    publish(&host, &[rpm("runc", "1.3.0", "")]);
    host.refuses("would replace runc 1.2.5-1; nothing was installed");
}

#[test]
fn another_version_is_never_replaced() {
    let host = host(&[rpm("containerd", "1.6.20", "")], &["containerd"]);
    publish(&host, &[rpm("containerd", "1.7.28", "")]);
    host.refuses("containerd 1.6.20-1 is installed, and 1.7.28 was planned");
}

#[test]
fn a_version_that_no_repository_has_is_refused() {
    let candidate = rpm("containerd", "1.7.28~rc.1", "");
    host(&[rpm("containerd", "1.7.27", ""), candidate], &[])
        .refuses("no repository of this node has containerd 1.7.28, but 1.7.27-1, 1.7.28~rc.1-1");
    host(&[TOOL], &[]).refuses("no repository of this node has containerd 1.7.28, but none");
}

#[test]
fn a_package_that_nobody_signed_is_refused() {
    let host = host(&[CONTAINERD, RUNC], &[]);
    host.shell("rpmsign --delsign $ROOT/srv/repo/runc-*.rpm");
    index(&host);
    host.refuses("runc-1.2.5-1.noarch does not verify: no signature; `rpm --import`");
    assert_eq!(kept(&host), 0);
}

/// Whose key rpm does not know, though the repository names it: dnf would import it by itself.
#[test]
fn a_key_is_never_imported() {
    let host = host(&[CONTAINERD, RUNC], &[]);
    let key = format!("gpgkey=file://{}/var/gnupg/key\n", host.root.path().display());
    let repository = fs::read_to_string(host.at("etc/yum.repos.d/repo.repo")).unwrap();
    host.write("etc/yum.repos.d/repo.repo", &(repository + &key));
    host.shell("$ROOT/usr/bin/rpm -e gpg-pubkey");
    host.refuses("does not verify");
    assert_eq!(host.shell("$ROOT/usr/bin/rpm -qa gpg-pubkey"), "");
}

#[test]
fn a_file_of_nobody_is_not_replaced() {
    let host = host(&[CONTAINERD, RUNC], &[]);
    host.write("usr/lib/runc/program", "of my own\n");
    host.refuses("would replace /usr/lib/runc/program, which belongs to no package; nothing was installed");
}

#[test]
fn a_configuration_that_is_there_stays() {
    let host = host(&[CONTAINERD, RUNC], &[]);
    host.write("etc/containerd/containerd.conf", "of the plan\n");
    let before = host.state();
    assert_eq!(host.run(), (Outcome::Prepared, String::new()));
    let there = fs::read_to_string(host.at("etc/containerd/containerd.conf")).unwrap();
    assert_eq!(there, "of the plan\n");
    assert!(host.at("etc/containerd/containerd.conf.rpmnew").exists());
    assert_eq!(host.abort(), Outcome::Ended(End::RolledBack));
    assert_eq!(host.state(), before);
}

/// Taking the package back would write over it.
#[test]
fn a_package_that_left_its_configuration_is_refused() {
    let host = host(&[CONTAINERD, RUNC], &["containerd"]);
    host.write("etc/containerd/containerd.conf", "changed\n");
    host.shell("$ROOT/usr/bin/rpm -e containerd runc");
    host.refuses("/etc/containerd/containerd.conf.rpmsave is left of an earlier installation");
}

#[test]
fn an_image_based_system_is_refused() {
    let host = host(&[CONTAINERD, RUNC], &[]);
    host.write("run/ostree-booted", "");
    host.refuses("this host is an image");
}

#[test]
fn another_run_of_rpm_is_waited_for() {
    host(&[CONTAINERD, RUNC], &[]).aborts_when_free("var/lib/rpm/.rpm.lock");
}

#[test]
fn a_package_whose_script_fails_is_taken_back() {
    let broken = Rpm {
        scripts: "%pre -p <lua>\nerror(\"broken\")\n",
        ..CONTAINERD
    };
    host(&[broken, RUNC, TOOL], &["tool"]).refuses("lua script failed");
}

/// runc is in by then, and containerd not at all, or wholly but for the end of its script.
#[rstest]
fn an_interrupted_run_is_repeated_or_taken_back(
    #[values("%pre", "%post")] when: &str,
    #[values(false, true)] abort: bool,
) {
    let scripts = format!("{when}{SCRIPT}\n%preun{SCRIPT}");
    let containerd = Rpm {
        scripts: &scripts,
        ..CONTAINERD
    };
    let host = host(&[containerd, RUNC, TOOL], &["tool"]);
    host.write("etc/containerd/containerd.conf", "of the plan\n");
    let before = host.state();
    host.write("var/hang", "");
    assert_eq!(host.run_until(host.made("var/hanging")), None);
    fs::remove_file(host.at("var/hang")).unwrap();
    assert!(host.packages().contains("runc 1.2.5-1\n"));
    // As rpm leaves files that it was unpacking, and those of which it had unpacked all.
    host.write("usr/lib/containerd/program", "containerd 1.7.28\n");
    host.write("usr/lib/containerd/program;6b01ffd9", "cont");
    host.write("etc/containerd/containerd.conf.rpmnew;6b01ffd9", "");
    if !abort {
        assert_eq!(host.run(), (Outcome::Prepared, String::new()));
        assert_eq!(host.packages(), "containerd 1.7.28-1\nrunc 1.2.5-1\ntool 3.0-1\n");
        assert!(!host.at("usr/lib/containerd/program;6b01ffd9").exists());
    }
    assert_eq!(host.abort(), Outcome::Ended(End::RolledBack));
    assert_eq!(host.state(), before);
}

#[test]
fn what_another_package_needs_by_now_is_not_removed() {
    let user = rpm("user", "1.0", "Requires: containerd");
    let host = host(&[CONTAINERD, RUNC, user], &[]);
    assert_eq!(host.run(), (Outcome::Prepared, String::new()));
    host.shell("$ROOT/usr/bin/rpm -i $ROOT/srv/repo/user-1.0-1.rpm");
    let Outcome::Broken(why) = host.abort() else {
        panic!("it was removed")
    };
    assert!(
        why.contains("containerd is needed by (installed) user-1.0-1.noarch"),
        "{why}"
    );
    assert_eq!(host.packages(), "containerd 1.7.28-1\nrunc 1.2.5-1\nuser 1.0-1\n");
}
