//! What is in an archive of a layer besides the contents of its files, so that the very same archive can be made of the
//! files again: the data of `tar-split` (github.com/vbatts/tar-split), which Docker Engine and CRI-O keep for each layer.
//! A line of JSON is either bytes of the archive, or a file whose content comes there; all of it is in gzip.

use std::{
    collections::HashSet,
    io::{self, BufRead, BufReader, Read, Write},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};

use crate::edit::parse;

/// A file whose content comes here.
const FILE: u8 = 1;
/// Bytes of the archive.
const SEGMENT: u8 = 2;
/// The longest line, in bytes: writers cut what stands after the end of an archive into pieces of 1 MiB.
const LONGEST_LINE: u64 = 64 << 20;
/// Bytes of a block of an archive: a header, or what contents are filled up to.
const BLOCK: usize = 512;
/// Most bytes of the headers before one file.
const MOST_HEADERS: usize = 1 << 20;
/// Bytes that are read at once.
const CHUNK: usize = 1 << 16;

#[derive(Deserialize, Serialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// In base64: a name that is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name_raw: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// In base64: the bytes of a segment, the CRC-64 of a file.
    payload: Option<String>,
    #[serde(default)]
    position: u64,
}

/// A part of an archive.
enum Part {
    Bytes(Vec<u8>),
    File { name: Vec<u8>, size: u64 },
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

fn part(line: &[u8]) -> io::Result<Part> {
    let entry: Entry = parse::json(line).map_err(|error| invalid(error.to_string()))?;
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| invalid("a text is not base64"));
    match entry.kind {
        SEGMENT => decode(&entry.payload.unwrap_or_default()).map(Part::Bytes),
        FILE => Ok(Part::File {
            name: match entry.name_raw {
                Some(raw) => decode(&raw)?,
                None => entry.name.unwrap_or_default().into_bytes(),
            },
            size: entry.size.unwrap_or_default(),
        }),
        _ => Err(invalid("an entry is neither bytes nor a file")),
    }
}

/// Calls `each` for every part, in order.
fn parts(data: impl Read, mut each: impl FnMut(Part) -> io::Result<()>) -> io::Result<()> {
    let mut lines = BufReader::with_capacity(CHUNK, MultiGzDecoder::new(data));
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        each(part(&line)?)?;
    }
}

/// The length of the archive that these data are of, in bytes.
///
/// # Errors
/// When they cannot be read.
pub(super) fn length(data: impl Read) -> io::Result<u64> {
    let mut length: u64 = 0;
    parts(data, |part| {
        let more = match part {
            Part::Bytes(bytes) => bytes.len() as u64,
            Part::File { size, .. } => size,
        };
        length = length
            .checked_add(more)
            .ok_or_else(|| invalid("it is too long"))?;
        Ok(())
    })?;
    Ok(length)
}

/// Makes the archive again, in pieces that `write` gets; `open` finds a file by its name in the archive, and its length.
///
/// # Errors
/// When the data cannot be read, a file has another length than it had, or `open` or `write` fail.
pub(super) fn assemble<R: Read>(
    data: impl Read,
    mut open: impl FnMut(&[u8]) -> io::Result<(R, u64)>,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut piece = vec![0; CHUNK];
    parts(data, |part| match part {
        Part::Bytes(bytes) => write(&bytes),
        Part::File { size: 0, .. } => Ok(()),
        Part::File { name, size } => {
            let (mut file, mut left) = open(&name)?;
            if left != size {
                let name = String::from_utf8_lossy(&name).into_owned();
                return Err(invalid(format!("{name:?} has {left} bytes, and had {size}")));
            }
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                file.read_exact(&mut piece[..most])?;
                write(&piece[..most])?;
                left -= most as u64;
            }
            Ok(())
        }
    })
}

/// The data of an archive, and its length in bytes; `None` if it is of a form that is rare and not read here (sparse
/// files, global headers, a name that stands there twice).
///
/// # Errors
/// When the archive cannot be read.
pub(super) fn describe(archive: impl Read) -> io::Result<Option<(Vec<u8>, u64)>> {
    let mut walk = Walk {
        archive: BufReader::with_capacity(CHUNK, archive),
        length: 0,
        segment: Vec::new(),
        names: HashSet::new(),
        lines: GzEncoder::new(Vec::new(), Compression::default()),
        position: 0,
    };
    if !walk.entries()? {
        return Ok(None);
    }
    walk.flush()?;
    Ok(Some((walk.lines.finish()?, walk.length)))
}

/// An archive that is being described.
struct Walk<R> {
    archive: R,
    length: u64,
    /// Bytes since the last file.
    segment: Vec<u8>,
    names: HashSet<Vec<u8>>,
    lines: GzEncoder<Vec<u8>>,
    position: u64,
}

impl<R: BufRead> Walk<R> {
    /// Whether all of it could be described.
    fn entries(&mut self) -> io::Result<bool> {
        // What extended headers say of the next file.
        let (mut name, mut size) = (None, None);
        let mut headers = 0;
        loop {
            if self.archive.fill_buf()?.is_empty() {
                return Ok(true);
            }
            let mut block = [0; BLOCK];
            self.archive.read_exact(&mut block)?;
            self.keep(&block);
            if block.iter().all(|byte| *byte == 0) {
                return self.end();
            }
            let Some(length) = number(&block[124..136]) else {
                return Ok(false);
            };
            let kind = block[156];
            if matches!(kind, b'x' | b'L' | b'K') {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                headers += 1;
                if length > MOST_HEADERS || headers > BLOCK {
                    return Ok(false);
                }
                let mut text = vec![0; length];
                self.archive.read_exact(&mut text)?;
                self.keep(&text);
                self.pad(length as u64)?;
                match kind {
                    b'L' => name = Some(until_nul(&text).to_vec()),
                    b'x' => match extended(&text) {
                        Some((found, length)) => (name, size) = (found.or(name), length.or(size)),
                        None => return Ok(false),
                    },
                    _ => {}
                }
                continue;
            }
            let content = size.take().unwrap_or(length);
            let header_only = (b'1'..=b'6').contains(&kind);
            if matches!(kind, b'g' | b'S') || (header_only && content > 0) {
                return Ok(false);
            }
            let name = name.take().unwrap_or_else(|| plain_name(&block));
            headers = 0;
            if !self.names.insert(clean(&name)) {
                return Ok(false);
            }
            self.file(name, content)?;
        }
    }

    /// What stands after the last file: nothing but zeros, as many as there are.
    fn end(&mut self) -> io::Result<bool> {
        let mut piece = vec![0; CHUNK];
        loop {
            let count = self.archive.read(&mut piece)?;
            if count == 0 {
                return Ok(true);
            }
            if piece[..count].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            self.keep(&piece[..count]);
            if self.segment.len() >= MOST_HEADERS {
                self.flush()?;
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.segment.extend_from_slice(bytes);
    }

    /// The zeros after contents of this length.
    fn pad(&mut self, length: u64) -> io::Result<()> {
        let over = usize::try_from(length % BLOCK as u64).unwrap_or_default();
        if over > 0 {
            let mut padding = vec![0; BLOCK - over];
            self.archive.read_exact(&mut padding)?;
            self.keep(&padding);
        }
        Ok(())
    }

    fn file(&mut self, name: Vec<u8>, size: u64) -> io::Result<()> {
        self.flush()?;
        let (mut left, mut sum) = (size, Crc64::new());
        let mut piece = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK))];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            self.archive.read_exact(&mut piece[..most])?;
            sum.add(&piece[..most]);
            left -= most as u64;
        }
        self.length += size;
        let (name, name_raw) = match String::from_utf8(name) {
            Ok(name) => (Some(name), None),
            Err(raw) => (None, Some(STANDARD.encode(raw.as_bytes()))),
        };
        self.write(Entry {
            kind: FILE,
            name,
            name_raw,
            size: (size > 0).then_some(size),
            payload: (size > 0).then(|| STANDARD.encode(sum.bytes())),
            position: 0,
        })?;
        self.pad(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.segment.is_empty() {
            return Ok(());
        }
        let payload = Some(STANDARD.encode(&self.segment));
        self.segment.clear();
        self.write(Entry {
            kind: SEGMENT,
            name: None,
            name_raw: None,
            size: None,
            payload,
            position: 0,
        })
    }

    fn write(&mut self, mut entry: Entry) -> io::Result<()> {
        entry.position = self.position;
        self.position += 1;
        let mut line = serde_json::to_vec(&entry).map_err(io::Error::other)?;
        line.push(b'\n');
        self.lines.write_all(&line)
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number of a header: octal digits, or the bytes of a number if the first bit is set. `None` if it is neither.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let high = u64::from(first & 0x7f);
        return rest.iter().try_fold(high, |number, byte| {
            number.checked_mul(256)?.checked_add(u64::from(*byte))
        });
    }
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.trim_matches(['\0', ' ']);
    if digits.is_empty() {
        return Some(0);
    }
    u64::from_str_radix(digits, 8).ok()
}

/// The name in a header that no extended header gives another one.
fn plain_name(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&block[..100]);
    // POSIX; GNU has other fields there.
    let prefix = if &block[257..263] == b"ustar\0" {
        until_nul(&block[345..500])
    } else {
        &[]
    };
    if prefix.is_empty() {
        name.to_vec()
    } else {
        [prefix, b"/", name].concat()
    }
}

/// Path and size in an extended header of POSIX: lines of `<length> <key>=<value>`. `None` if it cannot be read, or is
/// of a sparse file.
fn extended(mut text: &[u8]) -> Option<(Option<Vec<u8>>, Option<u64>)> {
    let (mut name, mut size) = (None, None);
    while !until_nul(text).is_empty() {
        let blank = text.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&text[..blank]).ok()?.parse().ok()?;
        let record = text.get(blank + 1..length)?.strip_suffix(b"\n")?;
        text = &text[length..];
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" if !value.is_empty() => name = Some(value.to_vec()),
            b"size" => size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
            _ if key.starts_with(b"GNU.sparse") => return None,
            _ => {}
        }
    }
    Some((name, size))
}

/// The name as those compare it who refuse one that stands there twice.
fn clean(name: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = name
        .split(|byte| *byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .collect();
    parts.join(&b'/')
}

/// CRC-64 of ISO 3309, as Go's `crc64.ISO`.
struct Crc64 {
    table: [u64; 256],
    sum: u64,
}

impl Crc64 {
    fn new() -> Self {
        let mut table = [0; 256];
        for (value, at) in (0_u64..).zip(&mut table) {
            *at = (0..8).fold(value, |sum, _| {
                if sum & 1 == 1 {
                    (sum >> 1) ^ 0xD800_0000_0000_0000
                } else {
                    sum >> 1
                }
            });
        }
        Self { table, sum: !0 }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.sum = bytes.iter().fold(self.sum, |sum, byte| {
            self.table[usize::from(sum.to_le_bytes()[0] ^ byte)] ^ (sum >> 8)
        });
    }

    fn bytes(&self) -> [u8; 8] {
        (!self.sum).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, io::Cursor};

    use tar::{Builder, EntryType, Header};

    use super::*;
    use crate::fuzz::{hold, quiet, samples};

    /// An archive with everything that layers have, and the contents of its files.
    fn archive() -> (Vec<u8>, HashMap<Vec<u8>, Vec<u8>>) {
        let mut files = HashMap::new();
        let mut builder = Builder::new(Vec::new());
        let long = format!("{}/file", "directory".repeat(20));
        let big = vec![b'x'; CHUNK * 2 + 7];
        for (name, content) in [
            ("etc/a", &b"one"[..]),
            ("etc/empty", b""),
            (&long, b"two"),
            ("big", &big),
        ] {
            let mut header = Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, content).unwrap();
            files.insert(name.as_bytes().to_vec(), content.to_vec());
        }
        let pax = [("path", &b"p\xc3\xa4x"[..]), ("mtime", b"1.5")];
        builder.append_pax_extensions(pax).unwrap();
        let mut header = Header::new_ustar();
        header.set_size(4);
        builder.append_data(&mut header, "short", &b"four"[..]).unwrap();
        files.insert("päx".as_bytes().to_vec(), b"four".to_vec());
        for (name, kind) in [("usr/", EntryType::Directory), ("link", EntryType::Symlink)] {
            let mut header = Header::new_ustar();
            header.set_entry_type(kind);
            header.set_size(0);
            builder.append_link(&mut header, name, "etc/a").unwrap();
        }
        let mut raw = Header::new_old();
        raw.as_mut_bytes()[..3].copy_from_slice(b"\xff/x");
        raw.set_size(2);
        raw.set_cksum();
        builder.append(&raw, &b"no"[..]).unwrap();
        files.insert(b"\xff/x".to_vec(), b"no".to_vec());
        let mut archive = builder.into_inner().unwrap();
        // Archives are filled up to records of 10 KiB, and more.
        archive.resize(archive.len() + 3 * MOST_HEADERS, 0);
        (archive, files)
    }

    fn again(data: &[u8], files: &HashMap<Vec<u8>, Vec<u8>>) -> io::Result<Vec<u8>> {
        let mut made = Vec::new();
        let open = |name: &[u8]| {
            let content = files.get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
            let length = content.len() as u64;
            Ok((Cursor::new(content), length))
        };
        assemble(data, open, |piece| {
            made.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(made)
    }

    #[test]
    fn an_archive_is_made_again_from_its_files() {
        let (archive, mut files) = archive();
        let (data, size) = describe(&*archive).unwrap().unwrap();
        assert_eq!(size, archive.len() as u64);
        assert_eq!(length(&*data).unwrap(), size);
        assert!(again(&data, &files).unwrap() == archive);
        files.insert(b"etc/a".to_vec(), b"other".to_vec());
        let error = again(&data, &files).unwrap_err().to_string();
        assert!(error.contains("etc/a"), "{error}");
        files.remove(&b"etc/a"[..]);
        assert!(again(&data, &files).is_err());
    }

    #[test]
    fn what_is_rare_is_not_described() {
        let entry = |name: &str, kind: u8, size: u64| {
            let mut header = Header::new_gnu();
            header.set_path(name).unwrap();
            header.set_size(size);
            header.as_mut_bytes()[156] = kind;
            header.set_cksum();
            let mut bytes = header.as_bytes().to_vec();
            bytes.resize(BLOCK * if size > 0 { 2 } else { 1 }, 0);
            bytes
        };
        for entries in [
            [entry("a", b'0', 0), entry("./a", b'0', 0)],
            [entry("a", b'g', 0), entry("b", b'0', 0)],
            [entry("a", b'S', 0), entry("b", b'0', 0)],
            [entry("a", b'2', 7), entry("b", b'0', 0)],
            [vec![0; BLOCK], entry("b", b'0', 0)],
        ] {
            assert_eq!(describe(&*entries.concat()).unwrap(), None);
        }
        assert!(
            describe(&entry("a", b'0', 7)[..BLOCK + 3]).is_err(),
            "it is cut off"
        );
        assert!(describe(&b""[..]).unwrap().is_some());
    }

    #[test]
    fn the_sum_is_that_of_go() {
        let mut sum = Crc64::new();
        sum.add(b"123456789");
        assert_eq!(sum.bytes(), 0xB909_56C7_75A4_1001_u64.to_be_bytes());
    }

    #[test]
    fn fuzz_the_data_of_a_layer() {
        hold(&samples("tar-split", &[]), |text| {
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(text.as_bytes()).unwrap();
            let packed = packed.finish().unwrap();
            if let Some(length) = quiet(length(&*packed)) {
                // A file of a length that the data name.
                let open = |_: &[u8]| Err::<(Cursor<Vec<u8>>, u64), _>(io::Error::other("there is none"));
                let mut made = 0;
                let whole = assemble(&*packed, open, |piece| {
                    made += piece.len() as u64;
                    Ok(())
                });
                assert!(made <= length);
                let _ = quiet(whole);
            }
            drop(quiet(describe(text.as_bytes())));
        });
    }
}
