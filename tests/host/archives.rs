//! Archives as projects release them, and programs that say their version.
#![allow(dead_code, reason = "every test binary uses its part")]

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use tar::{EntryType, Header};

/// A program for this machine that prints `says` and ends.
pub(crate) fn program(says: &str) -> Vec<u8> {
    elf(machine(), &code(says), says)
}

/// The same bytes as a program for a machine that this is not.
pub(crate) fn foreign_program(says: &str) -> Vec<u8> {
    let other = if machine() == 62 { 183 } else { 62 };
    elf(other, &code(says), says)
}

fn machine() -> u16 {
    match std::env::consts::ARCH {
        "x86_64" => 62,
        "aarch64" => 183,
        other => panic!("no test program for {other}"),
    }
}

/// Where the code is loaded, behind its headers.
const START: u32 = 0x40_0078;

/// write(1, text, length); exit(0).
fn code(says: &str) -> Vec<u8> {
    let length = u32::try_from(says.len()).unwrap();
    if machine() == 62 {
        let mut code = vec![0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0xbe];
        code.extend((START + 31 + 2).to_le_bytes());
        code.push(0xba);
        code.extend(length.to_le_bytes());
        code.extend([0x0f, 0x05, 0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]);
        assert_eq!(code.len(), 31);
        // Up to the text.
        code.extend([0x90, 0x90]);
        return code;
    }
    [
        0xd280_0020,               // mov x0, #1
        0x1000_00e1,               // adr x1, .+28
        0xd280_0002 | length << 5, // mov x2, #length
        0xd280_0808,               // mov x8, #64
        0xd400_0001,               // svc #0
        0xd280_0000,               // mov x0, #0
        0xd280_0ba8,               // mov x8, #93
        0xd400_0001,               // svc #0
    ]
    .into_iter()
    .flat_map(u32::to_le_bytes)
    .collect()
}

fn elf(machine: u16, code: &[u8], says: &str) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
    bytes.extend(machine.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    let all = 0x78 + (code.len() + says.len()) as u64;
    for word in [u64::from(START), 64, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    // One segment with all of the file, readable and executable.
    bytes.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, 0x40_0000, 0x40_0000, all, all, 0x1000] {
        bytes.extend(u64::to_le_bytes(word));
    }
    assert_eq!(bytes.len(), 0x78);
    bytes.extend(code);
    bytes.extend(says.as_bytes());
    bytes
}

/// What `containerd --version` prints.
pub(crate) fn containerd_says(version: &str) -> String {
    format!("containerd github.com/containerd/containerd/v2 v{version} 0123456789abcdef\n")
}

/// A tar that is being written, entry by entry, sound or not.
#[derive(Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    /// containerd's archive in upstream's layout.
    pub(crate) fn containerd(version: &str) -> Self {
        Self::default()
            .directory("bin/")
            .file("bin/containerd-shim-runc-v2", 0o755, b"the shim")
            .file("bin/containerd", 0o755, &program(&containerd_says(version)))
    }

    pub(crate) fn file(self, path: &str, mode: u32, bytes: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, mode, "", bytes)
    }

    pub(crate) fn directory(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, 0o755, "", b"")
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, 0o777, target, b"")
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, 0o755, target, b"")
    }

    /// Any entry; what the `tar` crate would not write is written all the same.
    pub(crate) fn entry(self, kind: EntryType, path: &str, mode: u32, target: &str, bytes: &[u8]) -> Self {
        let mut tar = self.header(kind, path, mode, target, bytes.len() as u64);
        tar.0.extend(bytes);
        tar.0.resize(tar.0.len().next_multiple_of(512), 0);
        tar
    }

    /// The header of an entry alone.
    pub(crate) fn header(mut self, kind: EntryType, path: &str, mode: u32, target: &str, size: u64) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self
    }

    /// The tar with its end, in gzip.
    pub(crate) fn packed(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        gzip(&self.0)
    }
}

/// Bytes in gzip.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}
