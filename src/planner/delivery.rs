//! Where the target runtime's files come from: what `target.from` means on one node.
//!
//! A planner asks [`delivery`] first. With a [`Delivery`] it puts its [`Delivery::step`] at the head of `Prepare`,
//! before the runtime's files and units, and writes the unit's drop-in (or, where there is no unit, a whole one in
//! `/etc/systemd/system`) with `ExecStart=` naming [`Delivery::program`] and [`Delivery::path_variable`], so that the
//! new daemon finds the new shim and the old daemon never does. [`Delivery::version`] is what the checks of
//! versions look at in place of the installed one. Without one the runtime is that of the facts.

use crate::{
    edit::daemon_json,
    plan::{
        codes::delivery::{
            ARCHIVE_ARCHITECTURE, ARCHIVE_URL_HAS_CREDENTIALS, ARCHIVE_VERSION_MISMATCH,
            ARCHIVE_VERSION_UNKNOWN, ORIGIN_NOT_UNDERSTOOD, PACKAGE_MANAGER_UNSUPPORTED,
            PACKAGE_VERSION_UNKNOWN, PACKAGE_WOULD_REPLACE,
        },
        digest::Digest,
        facts::{Facts, Os},
        finding::Finding,
        host_path::{HostPath, NotAHostPath},
        paths::{ARCHIVES, PROGRAM_DIRECTORIES},
        redaction::public,
        request::{ArchiveOrigin, Origin, PackageOrigin, Target},
        runtime::Runtime,
        step::{Archive, InstallStep, Package, PackageManager, Step},
        version,
    },
    planner::docker_proxies,
};

/// A runtime that the plan brings along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The step that brings it.
    pub step: Step,
    /// The daemon, for `ExecStart=`.
    pub program: HostPath,
    /// The directory of the daemon and its companions (shim, `ctr`).
    pub bin_dir: HostPath,
    /// containerd's own client; absent for other runtimes.
    pub ctr: Option<HostPath>,
    /// Its version, without `v`.
    pub version: String,
    /// It brings its own unit (a package); otherwise the plan writes one, or a drop-in of the one that is there.
    pub has_unit: bool,
}

impl Delivery {
    /// The assignment for the unit's `Environment=`: the directory before those that systemd searches by itself.
    pub fn path_variable(&self) -> String {
        format!("PATH={}:{}", self.bin_dir, PROGRAM_DIRECTORIES.join(":"))
    }
}

/// What the plan brings along; nothing where the runtime is installed already.
pub fn delivery(target: &Target, facts: &Facts) -> Result<Option<Delivery>, Finding> {
    match &target.from {
        Origin::Preinstalled(_) => Ok(None),
        Origin::Package(origin) => package(target, origin, facts).map(Some),
        Origin::Archive(origin) => archive(target, origin, facts).map(Some),
    }
}

/// A package, which brings its unit along.
fn package(target: &Target, origin: &PackageOrigin, facts: &Facts) -> Result<Delivery, Finding> {
    let runtime = target.runtime;
    if !origin.is_valid() {
        return Err(ORIGIN_NOT_UNDERSTOOD.found(
            format!("the package is called {:?}", origin.name),
            "Write the name of a package.",
        ));
    }
    let manager = manager(&facts.os).ok_or_else(|| {
        PACKAGE_MANAGER_UNSUPPORTED.found(
            format!("this node runs {} {}", facts.os.id, facts.os.version),
            "This version installs packages with apt (Debian, Ubuntu) and dnf (Fedora, RHEL 8 and later and what is \
             built from them, Amazon Linux 2023); use target.from.archive here.",
        )
    })?;
    let version = target
        .version
        .as_deref()
        .and_then(version::exact)
        .ok_or_else(|| {
            PACKAGE_VERSION_UNKNOWN.found(
                format!("{} may be installed in any version", origin.name),
                "Set target.version to the whole version (1.7.28): it is checked before anything is touched.",
            )
        })?;
    let installed = facts.installed().remove(&runtime).map(|found| found.version);
    if let Some(installed) = installed.filter(|found| version::upstream(found) != version::upstream(version))
    {
        return Err(PACKAGE_WOULD_REPLACE.found(
            format!(
                "{runtime} {installed} is installed, and the package {} in version {version} would replace its programs \
                 while containers depend on them",
                origin.name
            ),
            "Use target.from.archive, which is unpacked next to the installed files, or leave target.from out.",
        ));
    }
    let wrong = |error: NotAHostPath| ORIGIN_NOT_UNDERSTOOD.found(error.to_string(), "Use an archive.");
    let bin_dir = HostPath::new("/usr/bin").map_err(wrong)?;
    let profile = runtime.profile();
    Ok(Delivery {
        step: Step::Install(InstallStep::Package(Package {
            manager,
            name: origin.name.clone(),
            version: version.to_owned(),
            units: profile.units.iter().map(|unit| (*unit).to_owned()).collect(),
        })),
        program: bin_dir.join(profile.program).map_err(wrong)?,
        ctr: profile
            .client
            .map(|client| bin_dir.join(client))
            .transpose()
            .map_err(wrong)?,
        bin_dir,
        version: version.to_owned(),
        has_unit: true,
    })
}

/// What installs packages on this distribution. The releases that had yum before dnf are told by their number.
fn manager(os: &Os) -> Option<PackageManager> {
    let major = version::upstream(&os.version).map_or(0, |release| release.major);
    match (&*os.id, major) {
        ("debian" | "ubuntu", _) => Some(PackageManager::Apt),
        ("fedora" | "rocky" | "almalinux", _) | ("rhel" | "centos" | "ol", 8..) | ("amzn", 2023..) => {
            Some(PackageManager::Dnf)
        }
        _ => None,
    }
}

fn archive(target: &Target, origin: &ArchiveOrigin, facts: &Facts) -> Result<Delivery, Finding> {
    let named = Named::read(target.runtime, origin.file_name());
    let wrong = |what: String| {
        ORIGIN_NOT_UNDERSTOOD.found(
            what,
            "Write an https:// URL or file:// with an absolute path, and the 64 hex digits of the archive's SHA-256.",
        )
    };
    if !origin.has_valid_url() {
        return Err(wrong(format!("the archive's URL is {:?}", public(&origin.url))));
    }
    let authority = origin
        .url
        .strip_prefix("https://")
        .and_then(|rest| rest.split('/').next());
    if authority.is_some_and(|authority| authority.contains('@')) {
        return Err(ARCHIVE_URL_HAS_CREDENTIALS.found(
            format!("the archive's URL is {}", public(&origin.url)),
            "Take the user and the password out of the URL, change the password, and write them to \
             /etc/transship/archive-credentials on each node (mode 0600; docs/origins.md).",
        ));
    }
    let sha256 = Digest::from_hex(&origin.sha256)
        .ok_or_else(|| wrong(format!("the archive's SHA-256 is {:?}", origin.sha256)))?;
    let version = version_of(target, origin, named.as_ref())?;
    if let Some(arch) = named
        .and_then(|named| named.arch)
        .filter(|arch| *arch != facts.arch)
    {
        return Err(ARCHIVE_ARCHITECTURE.found(
            format!("{} is for {arch}, and this node is {}", origin.file_name(), facts.arch),
            "Migrate the nodes of each architecture with a RuntimeMigration of their own (kubernetes.io/arch).",
        ));
    }
    let place = Place::of(target.runtime, &version, &sha256).map_err(|error| wrong(error.to_string()))?;
    let (bin_dir, program, ctr) = (place.bin_dir, place.program, place.ctr);
    Ok(Delivery {
        step: Step::Install(InstallStep::Archive(Archive {
            url: origin.url.clone(),
            proxy: proxy(origin, facts),
            sha256,
            dir: place.dir,
            program: program.clone(),
            version: version.clone(),
        })),
        program,
        bin_dir,
        ctr,
        version,
        has_unit: false,
    })
}

/// The version of the archive: the one that is asked for, if that is a whole one, else the one in its name.
fn version_of(target: &Target, origin: &ArchiveOrigin, named: Option<&Named<'_>>) -> Result<String, Finding> {
    let wanted = target.version.as_deref();
    let asked = wanted.and_then(version::exact);
    let named = named.map(|named| named.version);
    let differs = |wanted: &str, named: &str| match asked {
        Some(asked) => asked != named,
        // What is neither a version nor a range is found with its own words.
        None => version::is_as_asked(named, wanted).is_ok_and(|fits| !fits),
    };
    if let Some((wanted, _)) = wanted.zip(named).filter(|(wanted, named)| differs(wanted, named)) {
        return Err(ARCHIVE_VERSION_MISMATCH.found(
            format!(
                "target.version asks for {wanted}, and the archive is {}",
                origin.file_name()
            ),
            "Name the archive of that version, or change target.version.",
        ));
    }
    match (asked, named) {
        (Some(version), _) | (None, Some(version)) => Ok(version.to_owned()),
        (None, None) => Err(ARCHIVE_VERSION_UNKNOWN.found(
            format!(
                "the name {:?} does not say which version of {} it is",
                origin.file_name(),
                target.runtime
            ),
            "Set target.version to the whole version (2.4.2), or name the archive as its project does.",
        )),
    }
}

/// What upstream's name of an archive says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named<'a> {
    version: &'a str,
    /// Architecture in Go's words.
    arch: Option<&'a str>,
}

impl<'a> Named<'a> {
    /// `containerd[-static]-2.4.2-linux-amd64.tar.gz`, `cri-dockerd-0.4.3.amd64.tgz`, `cri-o.amd64.v1.34.0.tar.gz`.
    fn read(runtime: Runtime, file: &'a str) -> Option<Self> {
        let stem = file
            .strip_suffix(".tar.gz")
            .or_else(|| file.strip_suffix(".tgz"))?;
        let form = runtime.profile().archive.as_ref()?;
        let mut prefixes = form.prefixes.iter();
        let rest = prefixes.find_map(|prefix| stem.strip_prefix(prefix))?;
        let (version, arch) = if form.architecture_first {
            let (arch, version) = rest.split_once(form.separator)?;
            (version, arch)
        } else {
            rest.rsplit_once(form.separator)?
        };
        Some(Self {
            version: version::exact(version)?,
            arch: Some(arch),
        })
    }
}

/// Where an archive's files come to lie.
struct Place {
    dir: HostPath,
    bin_dir: HostPath,
    program: HostPath,
    ctr: Option<HostPath>,
}

impl Place {
    /// In the layout of upstream's archives.
    fn of(runtime: Runtime, version: &str, sha256: &Digest) -> Result<Self, NotAHostPath> {
        let dir = HostPath::new(format!("{ARCHIVES}/{runtime}-{version}-{}", sha256.short()))?;
        let profile = runtime.profile();
        let bin = profile.archive.as_ref().map_or("bin", |form| form.bin_dir);
        let bin_dir = dir.join(bin)?;
        Ok(Self {
            program: bin_dir.join(profile.program)?,
            ctr: profile.client.map(|client| bin_dir.join(client)).transpose()?,
            dir,
            bin_dir,
        })
    }
}

/// The proxy that the node's runtime uses for this URL: the node is set up to fetch through it. Docker's where
/// Docker is installed, else that of the other runtimes.
fn proxy(origin: &ArchiveOrigin, facts: &Facts) -> Option<String> {
    let host = origin.url.strip_prefix("https://")?.split('/').next()?;
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let assignments = if let Some(docker) = &facts.docker {
        let text = docker.daemon_json.as_ref().map_or("{}", |file| &*file.text);
        // One that cannot be read has a finding of its own.
        docker_proxies::proxies(docker, &daemon_json::parse(text).unwrap_or_default())
    } else {
        let installed = facts.installed().into_values();
        installed
            .flat_map(|found| docker_proxies::proxies_of(found.service))
            .collect()
    };
    let value = |wanted: &str| {
        let found = assignments.iter().filter_map(|pair| pair.split_once('='));
        found
            .filter(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value)
            .next()
    };
    let spared = value("no_proxy").is_some_and(|list| spares(list, host));
    value("https_proxy").filter(|_| !spared).map(str::to_owned)
}

/// Whether a `NO_PROXY` list names this host (with or without its port): itself, a domain above it, or all.
fn spares(list: &str, host: &str) -> bool {
    let name = host.split(':').next().unwrap_or(host);
    list.split(',').map(str::trim).any(|entry| {
        let domain = entry.trim_start_matches('.');
        entry == "*"
            || entry == host
            || !domain.is_empty()
                && name
                    .strip_suffix(domain)
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn target(runtime: Runtime, version: Option<&str>, url: &str) -> Target {
        let mut target = serde_json::json!({
            "runtime": runtime,
            "from": { "archive": { "url": url, "sha256": HEX.to_uppercase() } },
        });
        if let Some(version) = version {
            target["version"] = version.into();
        }
        serde_json::from_value(target).unwrap()
    }

    fn facts() -> Facts {
        serde_json::from_str(include_str!(
            "../../tests/hosts/debian12-kubeadm-1.23-dockershim/facts.json"
        ))
        .unwrap()
    }

    #[rstest]
    #[case::containerd(
        Runtime::Containerd,
        None,
        "containerd-2.4.2-linux-amd64.tar.gz",
        "2.4.2",
        "bin/containerd"
    )]
    #[case::statically(
        Runtime::Containerd,
        None,
        "containerd-static-1.7.28-linux-amd64.tar.gz",
        "1.7.28",
        "bin/containerd"
    )]
    #[case::cri_dockerd(
        Runtime::CriDockerd,
        None,
        "cri-dockerd-0.4.3.amd64.tgz",
        "0.4.3",
        "cri-dockerd/cri-dockerd"
    )]
    #[case::cri_o(Runtime::CriO, None, "cri-o.amd64.v1.34.0.tar.gz", "1.34.0", "cri-o/bin/crio")]
    #[case::a_range_chooses_nothing(
        Runtime::Containerd,
        Some(">=2"),
        "containerd-2.4.2-linux-amd64.tar.gz",
        "2.4.2",
        "bin/containerd"
    )]
    #[case::said(Runtime::Containerd, Some("v2.4.2"), "blob", "2.4.2", "bin/containerd")]
    #[case::candidate(
        Runtime::Containerd,
        None,
        "containerd-2.5.0-rc.1-linux-amd64.tar.gz",
        "2.5.0-rc.1",
        "bin/containerd"
    )]
    fn upstream_names_say_the_version(
        #[case] runtime: Runtime,
        #[case] asked: Option<&str>,
        #[case] file: &str,
        #[case] version: &str,
        #[case] program: &str,
    ) {
        let target = target(runtime, asked, &format!("https://mirror/x/{file}?sig=1/2"));
        let found = delivery(&target, &facts()).unwrap().unwrap();
        let dir = format!("/opt/transship/{runtime}-{version}-001122334455");
        assert_eq!(found.version, version);
        assert_eq!(found.program.as_str(), format!("{dir}/{program}"));
        let Step::Install(InstallStep::Archive(step)) = found.step else {
            panic!("{:?}", found.step)
        };
        assert_eq!(step.dir.as_str(), dir);
        assert_eq!(step.sha256, Digest::from_hex(HEX).unwrap());
    }

    #[rstest]
    #[case::nameless(None, "file:///srv/blob.tgz", "ArchiveVersionUnknown")]
    #[case::part(Some("2.4"), "file:///srv/containerd.tar.gz", "ArchiveVersionUnknown")]
    #[case::another(
        Some("2.4.1"),
        "file:///srv/containerd-2.4.2-linux-amd64.tar.gz",
        "ArchiveVersionMismatch"
    )]
    #[case::outside_of_the_range(
        Some(">=3"),
        "file:///srv/containerd-2.4.2-linux-amd64.tar.gz",
        "ArchiveVersionMismatch"
    )]
    #[case::foreign(
        None,
        "file:///srv/containerd-2.4.2-linux-arm64.tar.gz",
        "ArchiveArchitecture"
    )]
    #[case::another_runtime(None, "file:///srv/cri-dockerd-0.4.3.amd64.tgz", "ArchiveVersionUnknown")]
    #[case::plain(Some("2.4.2"), "http://mirror/containerd.tgz", "OriginNotUnderstood")]
    #[case::credentials(
        Some("2.4.2"),
        "https://me:pw@mirror/containerd.tgz",
        "ArchiveUrlHasCredentials"
    )]
    #[case::a_user(
        Some("2.4.2"),
        "https://token@mirror/containerd.tgz",
        "ArchiveUrlHasCredentials"
    )]
    #[case::relative(Some("2.4.2"), "file://srv/../containerd.tgz", "OriginNotUnderstood")]
    fn an_archive_that_cannot_be_planned_blocks(
        #[case] asked: Option<&str>,
        #[case] url: &str,
        #[case] code: &str,
    ) {
        let found = delivery(&target(Runtime::Containerd, asked, url), &facts()).unwrap_err();
        assert_eq!(found.code, code, "{}", found.message);
    }

    #[test]
    fn a_package_is_installed_in_a_whole_version_beside_no_other() {
        let target = |version: &str| -> Target {
            let from = serde_json::json!({ "package": { "name": "containerd.io" } });
            let target = serde_json::json!({ "runtime": "containerd", "version": version, "from": from });
            serde_json::from_value(target).unwrap()
        };
        let mut facts = facts();
        let code = |version: &str, facts: &Facts| delivery(&target(version), facts).unwrap_err().code;
        assert_eq!(code(">=1.7", &facts), "PackageVersionUnknown");
        assert_eq!(code("1.7.28", &facts), "PackageWouldReplace");
        facts.containerd = None;
        let found = delivery(&target("1.7.28"), &facts).unwrap().unwrap();
        assert!(found.has_unit && found.program.as_str() == "/usr/bin/containerd");
        let Step::Install(InstallStep::Package(step)) = found.step else {
            panic!("{:?}", found.step)
        };
        assert_eq!((&*step.name, &*step.version), ("containerd.io", "1.7.28"));
    }

    #[rstest]
    #[case::debian("debian", "12", Some(PackageManager::Apt))]
    #[case::ubuntu("ubuntu", "22.04", Some(PackageManager::Apt))]
    #[case::fedora("fedora", "42", Some(PackageManager::Dnf))]
    #[case::rocky("rocky", "8.9", Some(PackageManager::Dnf))]
    #[case::alma("almalinux", "10.0", Some(PackageManager::Dnf))]
    #[case::rhel("rhel", "9.4", Some(PackageManager::Dnf))]
    #[case::stream("centos", "9", Some(PackageManager::Dnf))]
    #[case::oracle("ol", "8.10", Some(PackageManager::Dnf))]
    #[case::amazon("amzn", "2023", Some(PackageManager::Dnf))]
    #[case::rhel_with_yum("rhel", "7.9", None)]
    #[case::centos_with_yum("centos", "7", None)]
    #[case::oracle_with_yum("ol", "7.9", None)]
    #[case::amazon_with_yum("amzn", "2", None)]
    #[case::zypper("sles", "15.5", None)]
    fn each_distribution_has_its_package_manager(
        #[case] id: &str,
        #[case] release: &str,
        #[case] manager: Option<PackageManager>,
    ) {
        let mut facts = facts();
        facts.os = Os {
            id: id.to_owned(),
            version: release.to_owned(),
        };
        facts.containerd = None;
        let target = serde_json::json!({
            "runtime": "containerd",
            "version": "1.7.28",
            "from": { "package": { "name": "containerd.io" } },
        });
        let found = delivery(&serde_json::from_value(target).unwrap(), &facts);
        match manager {
            Some(manager) => {
                let Step::Install(InstallStep::Package(step)) = found.unwrap().unwrap().step else {
                    panic!("no package")
                };
                assert_eq!(step.manager, manager);
            }
            None => assert_eq!(found.unwrap_err().code, "PackageManagerUnsupported"),
        }
    }

    #[test]
    fn the_proxy_is_that_of_the_runtime() {
        let mut facts = facts();
        let url = "https://github.com/containerd/containerd-2.4.2-linux-amd64.tar.gz";
        let of = |facts: &Facts| {
            let found = delivery(&target(Runtime::Containerd, None, url), facts).unwrap();
            match found.unwrap().step {
                Step::Install(InstallStep::Archive(step)) => step.proxy,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(of(&facts), None);
        let docker = &mut facts.docker.as_mut().unwrap().service;
        docker.environment = vec!["HTTPS_PROXY=http://me:pw@proxy:3128".into()];
        assert_eq!(of(&facts).unwrap(), "http://me:pw@proxy:3128");
        let docker = &mut facts.docker.as_mut().unwrap().service;
        docker.environment.push("NO_PROXY=10.0.0.0/8,.github.com".into());
        assert_eq!(of(&facts), None);
    }

    #[test]
    fn no_proxy_names_hosts_and_domains() {
        for (list, host, spared) in [
            ("a.example,b.example", "b.example:8443", true),
            (".example", "b.example", true),
            ("example", "b.example", true),
            ("ample", "b.example", false),
            ("*", "b", true),
            ("", "b", false),
        ] {
            assert_eq!(spares(list, host), spared, "{list} {host}");
        }
    }

    #[test]
    fn fuzz_archive_names() {
        use crate::fuzz::{hold, samples};

        let facts = facts();
        hold(&samples("archives", &[]), |text| {
            for runtime in Runtime::targets() {
                if let Some(named) = Named::read(runtime, text) {
                    assert_eq!(version::exact(named.version), Some(named.version));
                }
                // A name becomes a directory of the node.
                if let Ok(place) = Place::of(runtime, text, &Digest::of(text)) {
                    assert!(place.program.as_str().starts_with(ARCHIVES), "{}", place.program);
                    assert!(!place.program.as_str().contains("/../"), "{}", place.program);
                }
            }
            drop(delivery(&target(Runtime::Containerd, None, text), &facts));
        });
    }
}
