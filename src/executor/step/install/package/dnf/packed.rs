//! What is in the packages that dnf fetched, as rpm tells it.

use crate::plan::host_path::HostPath;

/// A package that was fetched.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    /// Where it lies on this machine.
    pub(super) archive: String,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) contents: Vec<Content>,
}

/// What is in a package.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) path: HostPath,
    /// rpm's `FILEFLAGS`.
    flags: u32,
    /// Type and permission bits, as of `stat`.
    mode: u32,
}

impl Content {
    pub(super) const fn is_directory(&self) -> bool {
        const TYPE: u32 = 0o170_000;
        const DIRECTORY: u32 = 0o040_000;
        self.mode & TYPE == DIRECTORY
    }

    /// Whether a file that is there already stays, and this one is put beside it (`%config(noreplace)`).
    pub(super) const fn gives_way(&self) -> bool {
        const CONFIG: u32 = 1 << 0;
        const NO_REPLACE: u32 = 1 << 4;
        const BOTH: u32 = CONFIG | NO_REPLACE;
        self.flags & BOTH == BOTH
    }
}

impl Packed {
    /// Reads what `rpm -qp` prints with [`Packed::FORMAT`].
    pub(super) fn read(archive: &str, listing: &str) -> Option<Self> {
        let mut lines: Vec<&str> = listing.lines().collect();
        let (name, version) = lines.pop()?.strip_prefix("package\t")?.split_once('\t')?;
        let contents = lines.into_iter().map(|line| {
            let mut columns = line.splitn(3, '\t');
            Some(Content {
                flags: columns.next()?.parse().ok()?,
                mode: columns.next()?.parse().ok()?,
                path: HostPath::new(columns.next()?).ok()?,
            })
        });
        Some(Self {
            archive: archive.to_owned(),
            name: name.to_owned(),
            version: version.to_owned(),
            contents: contents.collect::<Option<_>>()?,
        })
    }

    /// The name comes last, and so tells that the listing is whole: what a program prints is kept up to a limit.
    pub(super) const FORMAT: &str =
        "[%{FILEFLAGS}\t%{FILEMODES}\t%{FILENAMES}\n]package\t%{NAME}\t%{VERSION}\n";
}

pub(super) fn names(packed: &[Packed]) -> Vec<String> {
    packed.iter().map(|packed| packed.name.clone()).collect()
}

/// The configuration files of these packages that leave alone what is there.
pub(super) fn configuration(packed: &[Packed]) -> Vec<HostPath> {
    packed
        .iter()
        .flat_map(|packed| &packed.contents)
        .filter(|content| content.gives_way() && !content.is_directory())
        .map(|content| content.path.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARCHIVE: &str = "/var/lib/transship/archives/containerd.io.rpm";

    #[test]
    fn a_listing_that_was_cut_off_is_not_believed() {
        let whole = "17\t33188\t/etc/containerd/config.toml\n0\t16877\t/opt/containerd\n\
             0\t33261\t/usr/bin/containerd\npackage\tcontainerd.io\t1.7.28\n";
        let packed = Packed::read(ARCHIVE, whole).unwrap();
        assert_eq!((&*packed.name, &*packed.version), ("containerd.io", "1.7.28"));
        let told: Vec<(bool, bool)> = packed
            .contents
            .iter()
            .map(|content| (content.gives_way(), content.is_directory()))
            .collect();
        assert_eq!(told, [(true, false), (false, true), (false, false)]);
        assert_eq!(
            configuration(&[packed])[0].as_str(),
            "/etc/containerd/config.toml"
        );
        for cut in 0..=whole.len() - "package\tcontainerd.io\t1.7.28\n".len() {
            assert!(
                Packed::read(ARCHIVE, &whole[..cut]).is_none(),
                "{:?}",
                &whole[..cut]
            );
        }
        let empty = Packed::read(ARCHIVE, "package\tmeta\t1\n").unwrap();
        assert!(empty.contents.is_empty());
    }

    #[test]
    fn fuzz_listings() {
        use crate::fuzz::{hold, samples};

        hold(&samples("rpm-listing", &[]), |text| {
            if let Some(packed) = Packed::read(ARCHIVE, text) {
                assert_eq!(
                    packed.contents.len() + 1,
                    text.lines().count(),
                    "no line is passed over"
                );
            }
        });
    }
}
