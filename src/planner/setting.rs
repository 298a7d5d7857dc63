//! A setting of the source: the model between those who read settings and those who write them.
//!
//! A setting that comes along holds what the target is given for it, and the planner of the target writes nothing but what
//! it finds here: what is reported as carried is an edit of the plan.

use std::borrow::Cow;

use crate::{
    edit::{containerd_toml::Handler, hosts_toml::Tls, registry_auth::Credential},
    plan::{facts::Limits, kubelet_settings::LogLimits},
};

/// What a source that is not Docker has set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its key in the source's configuration, or what it is.
    pub name: String,
    /// What it is, in the words of no runtime.
    pub what: What,
}

impl Left {
    /// A setting of this name.
    pub fn new(name: impl Into<String>, what: What) -> Self {
        Self {
            name: name.into(),
            what,
        }
    }
}

/// What such a setting is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Proxies as `NAME=value`.
    Proxies(Vec<String>),
    /// The number of open files that pods inherit from its unit.
    Inherited(Limits),
    /// Limits of containers.
    Ulimits(Vec<Ulimit>),
    /// How many layers of an image are downloaded at the same time.
    Downloads(u32),
    /// Containers get labels of SELinux.
    Selinux,
    /// Processes without privileges may bind ports under 1024 and send pings.
    Unprivileged,
    /// A runtime beside the usual one.
    Handler(Handler),
    /// The runtime of pods that name none.
    DefaultHandler(String),
    /// URLs that are asked for the images of a registry before the registry itself.
    Mirrors {
        /// The registry.
        registry: String,
        /// The URLs, with the paths of their APIs as [`api`](crate::edit::hosts_toml::api) has them.
        urls: Vec<String>,
    },
    /// The images of a registry are in another one.
    Moved {
        /// The registry, by its name in the names of images.
        registry: String,
        /// The URL of the other one, as those of mirrors.
        url: String,
    },
    /// Registries whose certificate is not checked.
    Insecure(Vec<String>),
    /// Certificates of registries: those of their authorities, and those that clients show.
    Certificates(Vec<Certificates>),
    /// Users of registries.
    Credentials(Vec<Credential>),
    /// What is not quite the same afterwards: in words.
    Near(String),
    /// What pods may depend on, and nothing is given for: what to do.
    Lost(String),
}

/// The certificates of a registry of one's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// The host of the registry, with its port if there is one.
    pub host: String,
    /// The files with them.
    pub tls: Tls,
}

/// A limit of containers (setrlimit(2)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// Docker's name of it (`nofile`).
    pub name: String,
    /// Its limits.
    pub limits: Limits,
}

impl Ulimit {
    /// Whether it is the number of open files.
    pub fn is_nofile(&self) -> bool {
        self.name == "nofile"
    }
}

impl std::fmt::Display for Ulimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |limit: u64| match limit {
            u64::MAX => "-1".to_owned(),
            limit => limit.to_string(),
        };
        let (soft, hard) = (number(self.limits.soft), number(self.limits.hard));
        write!(f, "{}={soft}:{hard}", self.name)
    }
}

/// A setting that is set, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key in the source's configuration, or what it is.
    pub name: String,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It means the same afterwards, by what the target is given; in words.
    Carried(Given, Cow<'static, str>),
    /// It means the same afterwards without any doing; why.
    Inherent(Cow<'static, str>),
    /// What comes afterwards is not quite the same: what the target is given, if anything, and both in words.
    Approximated(Option<Given>, Cow<'static, str>),
    /// It stays behind; what to do.
    NotCarried(Cow<'static, str>),
    /// It concerns the source itself, or what pods do not use.
    SourcesOwn,
}

/// What the target is given for a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// Proxies as `NAME=value`.
    Proxies(Vec<String>),
    /// Files with the settings of registries, all below one directory.
    Registries {
        /// The directory.
        directory: &'static str,
        /// The files.
        files: Vec<RegistryFile>,
    },
    /// Links to files with certificates of registries.
    Links(Vec<FileLink>),
    /// How many layers of an image are downloaded at the same time, 0 for all.
    Downloads(u32),
    /// Where images and containers are kept.
    Root(String),
    /// Containers get labels of SELinux.
    Selinux,
    /// Processes without privileges may bind ports under 1024 and send pings.
    Unprivileged,
    /// The number of open files that pods inherit from the target's unit.
    Inherited(Limits),
    /// Limits of containers.
    Ulimits(Vec<Ulimit>),
    /// A runtime beside runc.
    Handler(Handler),
    /// The runtime of pods that name none.
    DefaultHandler(String),
    /// How much of a container's log the kubelet keeps.
    Logs(LogLimits),
    /// Users of registries.
    Credentials(Vec<Credential>),
}

impl Fate {
    /// What the target is given, if anything.
    pub fn given(&self) -> Option<&Given> {
        match self {
            Self::Carried(given, _) => Some(given),
            Self::Approximated(given, _) => given.as_ref(),
            Self::Inherent(_) | Self::NotCarried(_) | Self::SourcesOwn => None,
        }
    }
}

impl Setting {
    /// A setting of this name.
    pub fn new(name: impl Into<String>, fate: Fate) -> Self {
        Self {
            name: name.into(),
            fate,
        }
    }
}

/// A file with the settings of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryFile {
    /// Where it is.
    pub path: String,
    /// Its text.
    pub text: String,
    /// It lies there already, with this text.
    pub is_there: bool,
}

/// A link to a file of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLink {
    /// Where it is.
    pub path: String,
    /// The file.
    pub to: String,
    /// Where it leads already, if it is there.
    pub planned_from: Option<String>,
}

/// What becomes of settings of registries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registries {
    /// What becomes of each setting.
    pub settings: Vec<Setting>,
    /// The source's directories whose certificates stay behind.
    pub left: Vec<String>,
}

/// What becomes of all settings of a source. It is made once per plan ([`translation`](crate::planner::translation)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// Each setting, in the order of their names.
    pub settings: Vec<Setting>,
    /// The source's directories of registries whose certificates stay behind.
    pub certificates_left: Vec<String>,
}

impl Translation {
    fn given(&self) -> impl Iterator<Item = &Given> {
        self.settings.iter().filter_map(|setting| setting.fate.given())
    }

    /// Proxies as `NAME=value`.
    pub fn proxies(&self) -> &[String] {
        let mut found = self.given().filter_map(|given| match given {
            Given::Proxies(proxies) => Some(proxies.as_slice()),
            _ => None,
        });
        found.next().unwrap_or_default()
    }

    /// How many layers of an image are downloaded at the same time.
    pub fn downloads(&self) -> Option<u32> {
        self.given().find_map(|given| match given {
            Given::Downloads(number) => Some(*number),
            _ => None,
        })
    }

    /// Where images and containers are kept, if it is another place than before.
    pub fn root(&self) -> Option<&str> {
        self.given().find_map(|given| match given {
            Given::Root(path) => Some(path.as_str()),
            _ => None,
        })
    }

    /// Whether containers get labels of SELinux.
    pub fn selinux(&self) -> bool {
        self.given().any(|given| *given == Given::Selinux)
    }

    /// Whether processes without privileges may bind ports under 1024 and send pings.
    pub fn unprivileged(&self) -> bool {
        self.given().any(|given| *given == Given::Unprivileged)
    }

    /// The number of open files that pods inherit from the target's unit, where the source is not Docker.
    pub fn inherited(&self) -> Option<Limits> {
        self.given().find_map(|given| match given {
            Given::Inherited(limits) => Some(*limits),
            _ => None,
        })
    }

    /// Limits of containers, where the source is not Docker.
    pub fn ulimits(&self) -> &[Ulimit] {
        let mut found = self.given().filter_map(|given| match given {
            Given::Ulimits(ulimits) => Some(ulimits.as_slice()),
            _ => None,
        });
        found.next().unwrap_or_default()
    }

    /// The directory with the settings of registries.
    pub fn registries(&self) -> Option<&'static str> {
        self.given().find_map(|given| match given {
            Given::Registries { directory, .. } => Some(*directory),
            _ => None,
        })
    }

    /// The files with the settings of registries.
    pub fn registry_files(&self) -> impl Iterator<Item = &RegistryFile> {
        self.given().flat_map(|given| match given {
            Given::Registries { files, .. } => files.as_slice(),
            _ => &[],
        })
    }

    /// Links to files with certificates of registries.
    pub fn links(&self) -> impl Iterator<Item = &FileLink> {
        self.given().flat_map(|given| match given {
            Given::Links(links) => links.as_slice(),
            _ => &[],
        })
    }

    /// Users of registries.
    pub fn credentials(&self) -> &[Credential] {
        let mut found = self.given().filter_map(|given| match given {
            Given::Credentials(credentials) => Some(credentials.as_slice()),
            _ => None,
        });
        found.next().unwrap_or_default()
    }

    /// Runtimes beside runc.
    pub fn handlers(&self) -> impl Iterator<Item = &Handler> {
        self.given().filter_map(|given| match given {
            Given::Handler(handler) => Some(handler),
            _ => None,
        })
    }

    /// How much of a container's log the kubelet keeps.
    pub fn logs(&self) -> Option<&LogLimits> {
        self.given().find_map(|given| match given {
            Given::Logs(limits) => Some(limits),
            _ => None,
        })
    }

    /// The runtime of pods that name none, where it is not runc.
    pub fn default_handler(&self) -> Option<&str> {
        self.given().find_map(|given| match given {
            Given::DefaultHandler(name) => Some(name.as_str()),
            _ => None,
        })
    }
}
