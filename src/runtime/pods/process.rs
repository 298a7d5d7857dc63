//! The processes of containers, as the kernel knows them: who is the first one in a container, what a signal does to
//! it, and whether it has ended. A signal from here costs no request to the runtime, which learns of the end of a
//! container from its shim, as it does when a container ends by itself, and does its own bookkeeping afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    str::FromStr as _,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tokio::time::sleep;

use crate::{
    host::{files::Files, pidfd::HeldProcess},
    plan::host_path::HostPath,
    runtime::RuntimeError,
};

/// How often it is looked whether a process has ended.
const POLL: Duration = Duration::from_millis(10);
/// The same for all processes of a container, for which all of the host are looked at.
const LIST_POLL: Duration = Duration::from_millis(100);
/// How long the kernel may take to end a process that was killed; one in an uninterruptible wait takes longer.
const KILLED_WITHIN: Duration = Duration::from_secs(15);
/// How the kernel names a shim of containerd (`/proc/PID/comm`, 15 characters at most).
const SHIM: &str = "containerd-shim";
/// Programs that do nothing but wait, and those that do it under the name that they are called by.
const WAITERS: [&str; 2] = ["sleep", "pause"];
const BY_NAME: [&str; 3] = ["busybox", "coreutils", "toybox"];
/// Where the freezer of cgroups of version 1 is mounted.
const FREEZER: &str = "/sys/fs/cgroup/freezer";
/// Characters of a container's id.
const ID: usize = 64;

/// What the kernel says of a process (`/proc/PID/status`), as far as signals are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// How many PID namespaces it is in, the one of this file's reader included.
    depth: usize,
    /// Its id in the innermost one.
    innermost: u32,
    /// Its signals with a handler (`SigCgt`), the lowest bit for signal 1.
    catches: u64,
    /// Its signals that wait until it lets them in (`SigBlk`).
    blocks: u64,
    /// It has ended, and its parent has not looked yet. A first process ends after all others of its namespace.
    ended: bool,
}

impl Status {
    /// Reads the text of `/proc/PID/status`; nothing when a line is missing (kernels before 4.1 have no `NSpid`).
    pub fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        let mask = |name| u64::from_str_radix(field(name)?, 16).ok();
        let ids = field("NSpid")?;
        Some(Self {
            depth: ids.split_whitespace().count(),
            innermost: ids.split_whitespace().next_back()?.parse().ok()?,
            catches: mask("SigCgt")?,
            blocks: mask("SigBlk")?,
            ended: field("State")?.starts_with(['Z', 'X']),
        })
    }

    /// Whether it is the first process of a PID namespace below that of the reader.
    const fn is_first(&self) -> bool {
        self.depth > 1 && self.innermost == 1
    }

    /// Whether the kernel throws this signal away: to the first process of a PID namespace goes only what it has a
    /// handler for, or what it blocks and may still want (`kernel/signal.c`, `sig_task_ignored`). Without a signal:
    /// whether that is so for each one that an image may have chosen to end its containers.
    pub const fn is_deaf(&self, to: Option<Signal>) -> bool {
        let signals = match to {
            Some(signal) => 1 << (signal as u32 - 1),
            None => stop_signals(),
        };
        self.is_first() && (self.catches | self.blocks) & signals == 0
    }
}

/// All signals but those by which the kernel tells a process of something (a child, a terminal, a timer, a pipe, a
/// mistake) and those that cannot be caught. Images choose among the rest, real-time signals included.
const fn stop_signals() -> u64 {
    use Signal::*;
    let told = [
        SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGKILL, SIGSEGV, SIGPIPE, SIGALRM, SIGCHLD, SIGSTOP,
        SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGIO, SIGSYS,
    ];
    let (mut signals, mut next) = (u64::MAX, 0);
    while next < told.len() {
        signals &= !(1 << (told[next] as u32 - 1));
        next += 1;
    }
    signals
}

/// A stop signal as images name it: `SIGQUIT`, `QUIT` or `3`; nothing for those without a name here (real-time ones).
pub fn signal(name: &str) -> Option<Signal> {
    match name.parse::<i32>() {
        Ok(number) => Signal::try_from(number).ok(),
        Err(_) if name.starts_with("SIG") => Signal::from_str(name).ok(),
        Err(_) => Signal::from_str(&format!("SIG{name}")).ok(),
    }
}

/// The first process of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct First {
    /// The container's id, which stands in the path of its cgroup.
    container: String,
    pid: u32,
    status: Status,
}

impl First {
    /// See [`Status::is_deaf`].
    pub const fn is_deaf(&self, to: Option<Signal>) -> bool {
        self.status.is_deaf(to)
    }
}

/// Which shims are looked for.
#[derive(Clone, Copy, Debug)]
pub struct Shims {
    /// The namespace in their containerd (`-namespace`).
    pub namespace: &'static str,
    /// The sockets that this containerd may have (`-address`); empty where the ids are known, which tell enough.
    pub sockets: &'static [&'static str],
}

/// The processes of a host, in `/proc` below its files.
#[derive(Clone, Copy, Debug)]
pub struct Processes<'a>(pub &'a Files);

impl Processes<'_> {
    /// The first processes of these containers, by container. One that shares the PID namespace of its pod or of the
    /// host has none.
    pub fn first_of(&self, containers: &BTreeSet<&str>) -> BTreeMap<String, First> {
        let mut found = BTreeMap::<String, First>::new();
        for pid in self.all() {
            let cgroup = self.read(pid, "cgroup").unwrap_or_default();
            let Some(container) = ids(&cgroup).find(|id| containers.contains(id)) else {
                continue;
            };
            let Some(status) = self.status(pid).filter(Status::is_first) else {
                continue;
            };
            // A container may make containers of its own, whose cgroups lie below its own: they are deeper.
            if found
                .get(container)
                .is_none_or(|other| status.depth < other.status.depth)
            {
                let container = container.to_owned();
                found.insert(
                    container.clone(),
                    First {
                        container,
                        pid,
                        status,
                    },
                );
            }
        }
        found
    }

    /// The processes of these containers, by container; those that have ended are not among them.
    pub fn of(&self, containers: &BTreeSet<&str>) -> BTreeMap<String, Vec<u32>> {
        let mut found = BTreeMap::<String, Vec<u32>>::new();
        for pid in self.all() {
            let cgroup = self.read(pid, "cgroup").unwrap_or_default();
            if let Some(container) = ids(&cgroup).find(|id| containers.contains(id))
                && !self.has_ended(pid)
            {
                found.entry(container.to_owned()).or_default().push(pid);
            }
        }
        found
    }

    /// The shims of a containerd of this host, by the id of the sandbox or of the container that each one serves.
    pub fn shims(&self, of: Shims) -> BTreeMap<String, Vec<u32>> {
        let mut found = BTreeMap::<String, Vec<u32>>::new();
        for pid in self.all() {
            if let Some(id) = self.served_by(pid, of) {
                found.entry(id).or_default().push(pid);
            }
        }
        found
    }

    /// The sandbox or the container that a process serves, if it is such a shim.
    fn served_by(&self, pid: u32, of: Shims) -> Option<String> {
        let name = self.read(pid, "comm")?;
        if !name.trim_end().starts_with(SHIM) || self.has_ended(pid) || !self.is_of_the_host(pid) {
            return None;
        }
        let words = self.read(pid, "cmdline")?;
        let words: Vec<&str> = words.split_terminator('\0').collect();
        let value = |flag: &str| {
            let at = words
                .iter()
                .position(|word| word.trim_start_matches('-') == flag && word.starts_with('-'));
            at.and_then(|at| words.get(at + 1)).copied()
        };
        let served = value("address").is_some_and(|address| of.sockets.contains(&address));
        let its = value("namespace") == Some(of.namespace) && (of.sockets.is_empty() || served);
        value("id").filter(|_| its).map(str::to_owned)
    }

    /// Whether a process is root's and in no container. An engine of a user (rootless Docker), and an engine in a container
    /// (Docker in Docker, kind), have shims that look the same from here.
    fn is_of_the_host(&self, pid: u32) -> bool {
        let status = self.read(pid, "status").unwrap_or_default();
        let words = |name: &str| {
            let mut lines = status.lines();
            let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::split_whitespace)
        };
        // Kernels before 4.1 have no `NSpid`.
        let is_nested = words("NSpid").is_some_and(|ids| ids.count() > 1);
        let is_root = words("Uid").and_then(|mut ids| ids.next()) == Some("0");
        let cgroup = self.read(pid, "cgroup").unwrap_or_default();
        is_root && !is_nested && ids(&cgroup).next().is_none()
    }

    /// Ends a shim of containerd, which does not end on SIGTERM.
    ///
    /// # Errors
    /// When it is still there 15 seconds later.
    pub async fn end_shim(&self, of: Shims, id: &str) -> Result<(), RuntimeError> {
        let until = Instant::now() + KILLED_WITHIN;
        while let Some(pids) = self.shims(of).get(id) {
            if Instant::now() >= until {
                return Err(RuntimeError::new(format!(
                    "the shim {pids:?} of container {id} in containerd's namespace {} does not end, {} s after SIGKILL",
                    of.namespace,
                    KILLED_WITHIN.as_secs()
                )));
            }
            for &pid in pids {
                let is_it = || self.served_by(pid, of).as_deref() == Some(id);
                // Whether it exits is seen in the next round.
                let _ = signal_if(pid, Signal::SIGKILL, is_it);
            }
            sleep(LIST_POLL).await;
        }
        Ok(())
    }

    /// Asks the monitor of a sandbox of CRI-O's to end, which outlives its containers if it is one for the whole pod (conmonrs).
    pub fn end_monitor(&self, sandbox: &str) {
        let scope = format!("{MONITOR}{sandbox}");
        let monitors = |pid| {
            let cgroup = self.read(pid, "cgroup").unwrap_or_default();
            cgroup
                .trim_end()
                .split('/')
                .any(|part| part.trim_end_matches(".scope") == scope)
        };
        for pid in self.all().filter(|pid| monitors(*pid)) {
            let _ = signal_if(pid, Signal::SIGTERM, || monitors(pid));
        }
    }

    /// Sends a signal to each process of a container. Whether they exit is for the caller to see. One that is killed while it
    /// is frozen is thawed: it does not end before, under cgroups of version 1.
    pub fn signal_container(&self, container: &str, signal: Signal) {
        let pids = self.of(&BTreeSet::from([container])).remove(container);
        for pid in pids.into_iter().flatten() {
            let kills = signal == Signal::SIGKILL;
            let freezer = if kills { self.freezer(pid, container) } else { None };
            let _ = signal_if(pid, signal, || self.is_of(pid, container));
            if let Some(state) = freezer
                && let Err(error) = self.thaw(&state)
            {
                tracing::warn!(pid, container, %error, "a process that was killed could not be thawed");
            }
        }
    }

    /// The file that says whether the container of a process is frozen.
    fn freezer(&self, pid: u32, container: &str) -> Option<HostPath> {
        let cgroups = self.read(pid, "cgroup")?;
        let mut scopes = cgroups.lines().filter_map(|line| line.split_once(":freezer:"));
        let (_, scope) = scopes.find(|(_, scope)| scope.contains(container))?;
        HostPath::new(format!("{FREEZER}{scope}/freezer.state")).ok()
    }

    /// runc freezes a container while it writes its cgroups, and leaves it so when it dies in between.
    fn thaw(&self, state: &HostPath) -> io::Result<()> {
        match self.0.read_text(state)? {
            Some(text) if text.trim_end() != "THAWED" => self.0.order(state, "THAWED"),
            _ => Ok(()),
        }
    }

    /// Ends all processes of a container: by SIGTERM and so much time, then by SIGKILL.
    ///
    /// # Errors
    /// When some are left.
    pub async fn end_container(&self, id: &str, grace: Option<Duration>) -> Result<(), RuntimeError> {
        if let Some(grace) = grace {
            self.signal_container(id, Signal::SIGTERM);
            if self.none(id, grace).await {
                return Ok(());
            }
        }
        self.signal_container(id, Signal::SIGKILL);
        if self.none(id, KILLED_WITHIN).await {
            return Ok(());
        }
        let left = self.of(&BTreeSet::from([id])).remove(id);
        Err(RuntimeError::new(format!(
            "processes {:?} of container {id} do not end, {} s after SIGKILL",
            left.unwrap_or_default(),
            KILLED_WITHIN.as_secs()
        )))
    }

    /// Waits until a container has no process, at most `within`; answers whether that is so.
    pub async fn none(&self, container: &str, within: Duration) -> bool {
        let until = Instant::now() + within;
        while !self.of(&BTreeSet::from([container])).is_empty() {
            if Instant::now() >= until {
                return false;
            }
            sleep(LIST_POLL).await;
        }
        true
    }

    fn all(&self) -> impl Iterator<Item = u32> {
        let pids = HostPath::new("/proc").map(|proc| self.0.list(&proc).unwrap_or_default());
        let pids = pids.unwrap_or_default().into_iter();
        pids.filter_map(|name| name.parse().ok())
    }

    /// Whether a process is gone, or is nothing but an entry that its parent has not looked at yet.
    fn has_ended(&self, pid: u32) -> bool {
        self.read(pid, "status").is_none_or(|text| {
            text.lines()
                .any(|line| line.starts_with("State:\tZ") || line.starts_with("State:\tX"))
        })
    }

    /// Whether a first process that cannot be told to end will do nothing in its time either: it is a program that
    /// only waits, and no other process is in its container. Any other one, a shell that waits for its child, may
    /// yet write what it has in hand, and end.
    pub fn waits_for_nothing(&self, first: &First, signal: Option<Signal>) -> bool {
        if !first.is_deaf(signal) {
            return false;
        }
        let program = HostPath::new(format!("/proc/{}/exe", first.pid)).map(|exe| self.0.real(&exe));
        let program = program.ok().and_then(Result::ok);
        let program = program.as_deref().and_then(|path| path.file_name()?.to_str());
        let words = self.command_line(first);
        let called = words
            .first()
            .map(|word| word.rsplit('/').next().unwrap_or_default());
        let waits = match program {
            Some(name) if WAITERS.contains(&name) => true,
            Some(name) => BY_NAME.contains(&name) && called.is_some_and(|called| WAITERS.contains(&called)),
            None => false,
        };
        let container = first.container.as_str();
        let alone = || self.of(&BTreeSet::from([container])).remove(container);
        waits && alone().is_some_and(|pids| pids == [first.pid])
    }

    /// The program of a process and its arguments; empty when it is gone.
    pub fn command_line(&self, first: &First) -> Vec<String> {
        let words = self.read(first.pid, "cmdline").unwrap_or_default();
        words.split_terminator('\0').map(str::to_owned).collect()
    }

    /// Ends a process: by `signal`, and by SIGKILL when its time is over, or at once where it waits for nothing. With it
    /// end all processes of its PID namespace. Answers whether it was killed.
    ///
    /// # Errors
    /// When it still runs.
    pub async fn end(&self, first: &First, signal: Signal, grace: Duration) -> io::Result<bool> {
        if !self.waits_for_nothing(first, Some(signal)) {
            self.send(first, signal)?;
            if self.gone(first, grace).await {
                return Ok(false);
            }
        }
        self.send(first, Signal::SIGKILL)?;
        if self.gone(first, KILLED_WITHIN).await {
            return Ok(true);
        }
        Err(io::Error::other(format!(
            "process {} of container {} does not end, {} s after SIGKILL",
            first.pid,
            first.container,
            KILLED_WITHIN.as_secs()
        )))
    }

    fn send(&self, first: &First, signal: Signal) -> io::Result<()> {
        signal_if(first.pid, signal, || self.runs(first))
    }

    async fn gone(&self, first: &First, within: Duration) -> bool {
        let until = Instant::now() + within;
        while self.runs(first) {
            if Instant::now() >= until {
                return false;
            }
            sleep(POLL).await;
        }
        true
    }

    fn runs(&self, first: &First) -> bool {
        self.is_of(first.pid, &first.container) && self.status(first.pid).is_some_and(|status| !status.ended)
    }

    fn is_of(&self, pid: u32, container: &str) -> bool {
        let cgroup = self.read(pid, "cgroup").unwrap_or_default();
        ids(&cgroup).any(|id| id == container)
    }

    fn status(&self, pid: u32) -> Option<Status> {
        Status::parse(&self.read(pid, "status")?)
    }

    /// A file of a process; nothing when the process is gone.
    fn read(&self, pid: u32, name: &str) -> Option<String> {
        let path = HostPath::new(format!("/proc/{pid}/{name}")).ok()?;
        self.0.read_text(&path).ok().flatten()
    }
}

/// Sends a signal to the process with this ID, if it is the right one. It is held while that is looked at: the ID may
/// be another process's by now, and again a moment later.
fn signal_if(pid: u32, signal: Signal, is_it: impl FnOnce() -> bool) -> io::Result<()> {
    match HeldProcess::open(pid)? {
        Some(process) if is_it() => process.signal(signal),
        _ => Ok(()),
    }
}

/// How CRI-O calls the scope of a container's monitor, which is no process of the container.
const MONITOR: &str = "crio-conmon-";

/// The ids of containers in the text of `/proc/PID/cgroup`: `docker-ID.scope`, `cri-containerd-ID.scope`,
/// `…:cri-containerd:ID`, `crio-ID.scope`, `…/ID`.
fn ids(cgroup: &str) -> impl Iterator<Item = &str> {
    cgroup
        .split(['/', '\n'])
        .filter(|part| !part.starts_with(MONITOR))
        .flat_map(|part| part.split(|c: char| !c.is_ascii_hexdigit()))
        .filter(|word| word.len() == ID)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::pods::bundles::tests::{process, write};

    fn status(ids: &str, catches: &str, blocks: &str) -> Option<Status> {
        Status::parse(&format!(
            "Name:\tsleep\nState:\tS (sleeping)\nPid:\t4711\nNSpid:\t{ids}\nSigPnd:\t0000000000000000\n\
             SigBlk:\t{blocks}\nSigIgn:\t0000000000001000\nSigCgt:\t{catches}\n"
        ))
    }

    #[test]
    fn a_first_process_is_deaf_to_what_it_neither_catches_nor_blocks() {
        let (none, child, term, all) = ("0", "0000000000010000", "0000000000004000", "fffffffe7fbfeff");
        for (ids, catches, blocks, term_lost, all_lost) in [
            ("4711 1", none, none, true, true),
            // A shell waits for its children.
            ("4711 1", child, none, true, true),
            ("4711 1", term, none, false, false),
            ("4711 1", none, term, false, false),
            // SIGQUIT alone, and SIGRTMIN+3 alone.
            ("4711 1", "4", none, true, false),
            ("4711 1", "0000001000000000", none, true, false),
            ("4711 1", all, none, false, false),
            // With the lab between: three namespaces.
            ("4711 812 1", none, none, true, true),
            // Not the first process of its namespace, or of no namespace of its own.
            ("4711 7", none, none, false, false),
            ("4711", none, none, false, false),
            ("1", none, none, false, false),
        ] {
            let status = status(ids, catches, blocks).unwrap();
            let lost = (status.is_deaf(Some(Signal::SIGTERM)), status.is_deaf(None));
            assert_eq!(lost, (term_lost, all_lost), "{ids} {catches} {blocks}");
        }
    }

    /// What runc leaves that dies while it has frozen a container, as its shim is killed after a restart of containerd.
    #[test]
    fn a_process_that_is_killed_while_it_is_frozen_is_thawed() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        let [container, other] = ["c", "d"].map(|letter| letter.repeat(ID));
        let scope = |of: &str| format!("/kubepods.slice/docker-{of}.scope");
        let state = |of: &str| format!("sys/fs/cgroup/freezer{}/freezer.state", scope(of));
        for id in [&container, &other] {
            write(root, &state(id), "FROZEN\n");
        }
        let pid = process(root, &container, &["sleep", "600"]);
        let cgroup = format!("7:pids:/\n6:freezer:{0}\n0::{0}\n", scope(&container));
        write(root, &format!("proc/{pid}/cgroup"), &cgroup);
        let files = Files::new(root);
        let read = |of: &str| std::fs::read_to_string(root.join(state(of))).unwrap();
        Processes(&files).signal_container(&container, Signal::SIGCONT);
        assert_eq!(read(&container), "FROZEN\n");
        Processes(&files).signal_container(&container, Signal::SIGKILL);
        assert!(read(&container).starts_with("THAWED"));
        assert_eq!(read(&other), "FROZEN\n");
    }

    #[test]
    fn a_status_without_namespaces_says_nothing() {
        assert_eq!(
            Status::parse("State:\tS (sleeping)\nSigBlk:\t0\nSigCgt:\t0\n"),
            None
        );
        let ended = Status::parse("State:\tZ (zombie)\nNSpid:\t9 1\nSigBlk:\t0\nSigCgt:\t0\n");
        assert!(ended.unwrap().ended);
    }

    #[test]
    fn stop_signals_have_names_and_numbers() {
        for (name, wanted) in [
            ("SIGTERM", Some(Signal::SIGTERM)),
            ("QUIT", Some(Signal::SIGQUIT)),
            ("3", Some(Signal::SIGQUIT)),
            ("SIGRTMIN+3", None),
            ("37", None),
        ] {
            assert_eq!(signal(name), wanted, "{name}");
        }
    }

    #[test]
    fn ids_stand_in_the_paths_of_cgroups() {
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        for path in [
            format!("0::/kubepods.slice/kubepods-pod1_2.slice/docker-{id}.scope"),
            format!(
                "11:pids:/kubepods/besteffort/pod1-2/{id}\n1:name=systemd:/kubepods/besteffort/pod1-2/{id}"
            ),
            format!("0::/system.slice/kubepods-pod1.slice:cri-containerd:{id}"),
        ] {
            assert!(ids(&path).any(|found| found == id), "{path}");
        }
        assert_eq!(ids("0::/system.slice/docker.service").next(), None);
        // CRI-O's monitor of a container is none of its processes.
        let monitor = format!("1:name=systemd:/system.slice/crio-conmon-{id}.scope");
        assert_eq!(ids(&monitor).next(), None);
    }

    #[test]
    fn fuzz_process_status() {
        use crate::fuzz::{hold, samples};

        hold(&samples("proc-status", &[]), |text| {
            if let Some(status) = Status::parse(text) {
                assert!(status.depth > 0);
            }
        });
    }
}
