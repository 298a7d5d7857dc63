//! Archives (tar in gzip) from elsewhere. One is looked through entirely before a byte of it is unpacked, and whatever
//! could reach outside of its directory, or is no plain file, directory or link, is refused.
//!
//! Owners, extended attributes and times in it mean nothing: files belong to this process, and are 0755 if their
//! owner may execute them, else 0644.

use std::{
    cell::Cell,
    collections::BTreeMap,
    io::{self, Read},
    rc::Rc,
};

use flate2::read::MultiGzDecoder;
use tar::{Entry, EntryType};

use super::files::{Files, PIECE};
use crate::plan::host_path::HostPath;

/// Most bytes that an archive may unpack to: ten times what containerd's do.
const MOST_BYTES: u64 = 2 << 30;
/// Most entries of an archive.
const MOST_ENTRIES: usize = 10_000;
/// Most bytes of the headers that stand before an entry's data (long names are files in them).
const MOST_HEADERS: u64 = 1 << 20;
/// Two blocks of zeros end an archive; one without them was cut off.
const END: u64 = 1024;

/// An archive that is not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// What was made of it could not be written.
    #[error("cannot {0}")]
    Io(#[from] io::Error),
    /// It cannot be read to its end.
    #[error("the archive is damaged, cut off or no tar in gzip: {0}")]
    Damaged(io::Error),
    /// Something in it is not unpacked.
    #[error("{entry:?} in the archive {why}; nothing of it was unpacked")]
    Refused {
        /// The entry, as it calls itself.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// It is larger than anything that is meant to be unpacked.
    #[error("the archive holds more than {0}; nothing of it was unpacked")]
    TooLarge(String),
    /// The daemon is not where upstream's layout has it.
    #[error("the archive has no {0}; is it one of this runtime, in the layout that its project releases?")]
    NoProgram(String),
}

/// What an archive holds, looked through to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    members: Vec<Member>,
    /// Bytes of all its files.
    pub bytes: u64,
}

/// A file, directory or link in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    /// Relative, without `.` and `..`.
    path: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    File {
        size: u64,
        executable: bool,
    },
    /// A symbolic link, to a relative target that stays inside.
    Link(String),
    /// Another name of a file that came before.
    SecondName(String),
}

/// Looks through an archive of which `program` (a relative path) is to be run on this machine.
///
/// # Errors
/// When it, or anything in it, is not to be unpacked.
pub async fn look_through(archive: impl Read, program: &str) -> Result<Contents, ArchiveError> {
    let mut found = Found::default();
    let reader = Reader::new(archive);
    let mut first = Vec::new();
    reader
        .each(async |entry, left| {
            let Some(member) = found.member(entry)? else {
                return Ok(());
            };
            left.set(member.size() + MOST_HEADERS);
            let is_program = member.path == program;
            let read = drain(entry, |piece| {
                if is_program && first.len() < elf::HEADER {
                    first.extend(piece.iter().take(elf::HEADER));
                }
                Ok(())
            })
            .await?;
            if read != member.size() {
                return Err(ArchiveError::Damaged(io::ErrorKind::UnexpectedEof.into()));
            }
            found.members.push(member);
            Ok(())
        })
        .await?;
    let kind = found.members.iter().find(|member| member.path == program);
    match kind.map(|member| &member.kind) {
        Some(Kind::File { executable: true, .. }) => {}
        Some(Kind::File { .. }) => return Err(refused(program, "is not executable")),
        Some(_) => return Err(refused(program, "is not a file")),
        None => return Err(ArchiveError::NoProgram(program.to_owned())),
    }
    elf::runs_here(&first).map_err(|why| refused(program, why))?;
    Ok(Contents {
        members: found.members,
        bytes: found.bytes,
    })
}

/// Unpacks an archive that was looked through into the empty directory `into`. All bytes are durable afterwards.
///
/// # Errors
/// When it is not whole in `into`, which then holds a part of it.
pub async fn unpack(
    archive: impl Read,
    contents: &Contents,
    files: &Files,
    into: &HostPath,
) -> Result<(), ArchiveError> {
    let inside = |path: &str| into.join(path).map_err(io::Error::other);
    let mut members = contents.members.iter();
    let reader = Reader::new(archive);
    reader
        .each(async |entry, left| {
            if is_mark(entry) || Found::path(entry)?.is_empty() {
                return Ok(());
            }
            let changed = || ArchiveError::Damaged(io::Error::other("it changed while it was unpacked"));
            let member = members.next().ok_or_else(changed)?;
            left.set(member.size() + MOST_HEADERS);
            let path = inside(&member.path)?;
            if let Some(parent) = path.parent() {
                files.create_dir_all(&parent)?;
            }
            match &member.kind {
                Kind::Directory => files.create_dir_all(&path)?,
                Kind::Link(target) => files.link(&path, target)?,
                Kind::SecondName(first) => files.hard_link(&path, &inside(first)?)?,
                Kind::File { size, executable } => {
                    let mut file = files.create(&path)?;
                    if drain(entry, |piece| Ok(file.write(piece)?)).await? != *size {
                        return Err(changed());
                    }
                    file.finish(if *executable { 0o755 } else { 0o644 })?;
                }
            }
            Ok(())
        })
        .await?;
    Ok(files.sync_tree(into)?)
}

fn refused(entry: impl Into<String>, why: impl Into<String>) -> ArchiveError {
    ArchiveError::Refused {
        entry: entry.into(),
        why: why.into(),
    }
}

/// What was found so far.
#[derive(Default)]
struct Found {
    members: Vec<Member>,
    /// Every path, and whether it is a directory; those above an entry are.
    paths: BTreeMap<String, bool>,
    entries: usize,
    bytes: u64,
}

impl Found {
    /// The entry, if it may be unpacked; nothing for one that only describes others.
    fn member(&mut self, entry: &Entry<'_, impl Read>) -> Result<Option<Member>, ArchiveError> {
        self.entries += 1;
        if self.entries > MOST_ENTRIES {
            return Err(ArchiveError::TooLarge(format!("{MOST_ENTRIES} entries")));
        }
        if is_mark(entry) {
            return Ok(None);
        }
        let path = Self::path(entry)?;
        let kind = Self::kind(entry, &path)?;
        let size = if let Kind::File { size, .. } = kind {
            size
        } else {
            0
        };
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > MOST_BYTES {
            return Err(ArchiveError::TooLarge(format!("{} GiB", MOST_BYTES >> 30)));
        }
        if path.is_empty() {
            return match kind {
                Kind::Directory => Ok(None),
                _ => Err(refused("", "has no name")),
            };
        }
        if let Kind::SecondName(first) = &kind {
            let known = self
                .members
                .iter()
                .find(|member| member.path == *first)
                .map(|member| &member.kind);
            if !matches!(known, Some(Kind::File { .. })) {
                return Err(refused(
                    path,
                    format!("is a link to {first:?}, which is not a file in the archive"),
                ));
            }
        }
        self.take(&path, kind == Kind::Directory)?;
        Ok(Some(Member { path, kind }))
    }

    /// Notes a path, and those above it as directories. What would be written through something else than a
    /// directory of this archive is refused.
    fn take(&mut self, path: &str, is_directory: bool) -> Result<(), ArchiveError> {
        for (at, _) in path.match_indices('/') {
            if !*self.paths.entry(path[..at].to_owned()).or_insert(true) {
                return Err(refused(
                    path,
                    format!("lies below {:?}, which is not a directory", &path[..at]),
                ));
            }
        }
        match self.paths.insert(path.to_owned(), is_directory) {
            Some(was) if !(was && is_directory) => Err(refused(path, "is there twice")),
            _ => Ok(()),
        }
    }

    /// The path of an entry, empty for the archive's own root.
    fn path(entry: &Entry<'_, impl Read>) -> Result<String, ArchiveError> {
        let bytes = entry.path_bytes();
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return Err(refused(String::from_utf8_lossy(&bytes), "is not named in UTF-8"));
        };
        plain(text).map_err(|why| refused(text, why))
    }

    fn kind(entry: &Entry<'_, impl Read>, path: &str) -> Result<Kind, ArchiveError> {
        let header = entry.header();
        let what = match header.entry_type() {
            EntryType::Regular => {
                let mode = header.mode().map_err(ArchiveError::Damaged)?;
                if mode & 0o7000 != 0 {
                    return Err(refused(path, "is setuid, setgid or sticky"));
                }
                let (size, executable) = (entry.size(), mode & 0o100 != 0);
                return Ok(Kind::File { size, executable });
            }
            EntryType::Directory => return Ok(Kind::Directory),
            EntryType::Symlink => {
                let target = Self::target(entry, path)?;
                return if stays_inside(path, &target) {
                    Ok(Kind::Link(target))
                } else {
                    Err(refused(
                        path,
                        format!("is a link to {target:?}, out of the archive"),
                    ))
                };
            }
            EntryType::Link => {
                let target = Self::target(entry, path)?;
                let first = plain(&target);
                return first
                    .map(Kind::SecondName)
                    .map_err(|_| refused(path, format!("is a link to {target:?}, out of the archive")));
            }
            EntryType::Fifo => "a pipe",
            EntryType::Char | EntryType::Block => "a device",
            _ => "neither file nor directory nor link",
        };
        Err(refused(path, format!("is {what}")))
    }

    fn target(entry: &Entry<'_, impl Read>, path: &str) -> Result<String, ArchiveError> {
        let bytes = entry.link_name_bytes().unwrap_or_default();
        String::from_utf8(bytes.into_owned()).map_err(|_| refused(path, "is a link to no UTF-8"))
    }
}

/// Whether an entry only describes all others (pax's global header).
fn is_mark(entry: &Entry<'_, impl Read>) -> bool {
    entry.header().entry_type() == EntryType::XGlobalHeader
}

/// A relative path without `.`, `..` and empty parts.
fn plain(path: &str) -> Result<String, &'static str> {
    if path.starts_with('/') {
        return Err("is an absolute path");
    }
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    if parts.contains(&"..") {
        return Err("leads out of its directory");
    }
    if parts.iter().any(|part| part.contains('\0')) {
        return Err("holds a NUL");
    }
    Ok(parts.join("/"))
}

/// Whether a symbolic link at `path` stays inside. `..` may stand at the front of its target alone: further back it
/// could follow another link, and mean another directory than it seems to.
fn stays_inside(path: &str, target: &str) -> bool {
    let mut parts = target.split('/').filter(|part| !matches!(*part, "" | "."));
    let up = parts.clone().take_while(|part| *part == "..").count();
    let depth = path.matches('/').count();
    !target.is_empty()
        && !target.starts_with('/')
        && up <= depth
        && parts.by_ref().skip(up).all(|part| part != "..")
}

impl Member {
    const fn size(&self) -> u64 {
        match self.kind {
            Kind::File { size, .. } => size,
            Kind::Directory | Kind::Link(_) | Kind::SecondName(_) => 0,
        }
    }
}

/// Reads an entry to its end, a piece at a time; others are served in between. Answers how many bytes there were.
async fn drain(
    entry: &mut impl Read,
    mut with: impl FnMut(&[u8]) -> Result<(), ArchiveError>,
) -> Result<u64, ArchiveError> {
    let (mut piece, mut all) = (Vec::with_capacity(PIECE), 0);
    loop {
        piece.clear();
        entry
            .take(PIECE as u64)
            .read_to_end(&mut piece)
            .map_err(ArchiveError::Damaged)?;
        if piece.is_empty() {
            return Ok(all);
        }
        all += piece.len() as u64;
        with(&piece)?;
        tokio::task::yield_now().await;
    }
}

/// An archive that is being read.
struct Reader<R: Read> {
    tar: tar::Archive<Guard<R>>,
    left: Rc<Cell<u64>>,
}

/// Lets through only so many bytes, and counts the zeros at their end.
struct Guard<R> {
    inner: R,
    left: Rc<Cell<u64>>,
    zeros: u64,
}

impl<R: Read> Reader<MultiGzDecoder<R>> {
    fn new(archive: R) -> Self {
        let left = Rc::new(Cell::new(0));
        Self {
            tar: tar::Archive::new(Guard {
                inner: MultiGzDecoder::new(archive),
                left: left.clone(),
                zeros: 0,
            }),
            left,
        }
    }
}

impl<R: Read> Reader<R> {
    /// Calls `each` with every entry and with what may still be read, and sees to it that the archive ends as one
    /// does.
    async fn each(
        mut self,
        mut each: impl AsyncFnMut(&mut Entry<'_, Guard<R>>, &Cell<u64>) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        self.left.set(MOST_HEADERS);
        for entry in self.tar.entries().map_err(ArchiveError::Damaged)? {
            each(&mut entry.map_err(ArchiveError::Damaged)?, &self.left).await?;
            self.left.set(MOST_HEADERS);
        }
        let mut guard = self.tar.into_inner();
        io::copy(&mut guard, &mut io::sink()).map_err(ArchiveError::Damaged)?;
        if guard.zeros < END {
            return Err(ArchiveError::Damaged(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }
}

impl<R: Read> Read for Guard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer
            .len()
            .min(usize::try_from(self.left.get()).unwrap_or(usize::MAX));
        if most == 0 && !buffer.is_empty() {
            return Err(io::Error::other("more than its headers say"));
        }
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - read as u64);
        let zeros = buffer[..read].iter().rev().take_while(|byte| **byte == 0).count();
        self.zeros = if zeros == read { self.zeros } else { 0 } + zeros as u64;
        Ok(read)
    }
}

/// Programs as Linux runs them.
mod elf {
    /// Bytes that say for which machine a program is.
    pub(super) const HEADER: usize = 20;

    /// Machines by their numbers in `e_machine`.
    const MACHINES: [(u16, &str); 7] = [
        (62, "x86_64"),
        (183, "aarch64"),
        (40, "arm"),
        (243, "riscv64"),
        (21, "powerpc64"),
        (22, "s390x"),
        (3, "x86"),
    ];

    /// Whether a file that begins so is a program for this machine; else what it is.
    pub(super) fn runs_here(first: &[u8]) -> Result<(), String> {
        let machine = match first {
            [
                0x7f,
                b'E',
                b'L',
                b'F',
                _,
                order,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                low,
                high,
                ..,
            ] => {
                let number = [*low, *high];
                if *order == 2 {
                    u16::from_be_bytes(number)
                } else {
                    u16::from_le_bytes(number)
                }
            }
            _ => return Err("is not a program for Linux (ELF)".to_owned()),
        };
        let known = MACHINES.iter().find(|(number, _)| *number == machine);
        let name = known.map_or("an unknown machine", |(_, name)| name);
        if name == std::env::consts::ARCH {
            Ok(())
        } else {
            Err(format!(
                "is a program for {name}, and this machine is {}",
                std::env::consts::ARCH
            ))
        }
    }
}
