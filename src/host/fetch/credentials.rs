//! Credentials for servers of archives. They stand in a file of the node that root alone can read, in the form of
//! netrc (curl(1) and ftp(1) read it too), because a URL stands in the specs of the custom resources, which many may
//! read:
//!
//! ```text
//! machine mirror.example login me password s3cr3t
//! ```

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    host::files::{Files, is_private},
    plan::host_path::{HostPath, NotAHostPath},
};

/// Where the credentials are.
pub const CREDENTIALS: &str = "/etc/transship/archive-credentials";

/// A file of credentials that is not used. Nothing of its text is in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum CredentialsError {
    /// It cannot be read.
    #[error("cannot {0}")]
    Io(#[from] std::io::Error),
    /// Its path is not one.
    #[error(transparent)]
    Path(#[from] NotAHostPath),
    /// Others may have read it.
    #[error(
        "{CREDENTIALS} has the mode {0:o}, with which others than root can read it; change the credentials, and run \
         `chmod 600 {CREDENTIALS}`"
    )]
    Open(u32),
    /// It is not netrc.
    #[error(
        "{CREDENTIALS}, line {0}: lines have the form `machine HOST login USER password PASSWORD`; the entry `default` \
         and macros are not used"
    )]
    Syntax(usize),
}

/// The value of `Authorization:` for `host`, which may have a port: an entry with the port counts before one without.
/// `None` if there is no file, or no entry for the host.
pub(super) fn authorization(files: &Files, host: &str) -> Result<Option<String>, CredentialsError> {
    let path = HostPath::new(CREDENTIALS)?;
    let Some(attributes) = files.attributes(&path)? else {
        return Ok(None);
    };
    if !is_private(attributes.mode) {
        return Err(CredentialsError::Open(attributes.mode));
    }
    let entries = read(&files.read_text(&path)?.unwrap_or_default())?;
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let found = [host, name].into_iter().find_map(|wanted| {
        let mut entries = entries.iter();
        entries.find(|entry| entry.machine.eq_ignore_ascii_case(wanted))
    });
    Ok(found.map(|entry| {
        let pair = format!("{}:{}", entry.login, entry.password);
        format!("Basic {}", STANDARD.encode(pair))
    }))
}

#[derive(Default)]
struct Entry {
    machine: String,
    login: String,
    password: String,
}

fn read(text: &str) -> Result<Vec<Entry>, CredentialsError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut words = text.lines().enumerate().flat_map(|(index, line)| {
        let line = if line.trim_start().starts_with('#') {
            ""
        } else {
            line
        };
        line.split_whitespace().map(move |word| (index + 1, word))
    });
    while let Some((line, keyword)) = words.next() {
        let wrong = || CredentialsError::Syntax(line);
        let value = words.next().map(|(_, word)| word.to_owned()).ok_or_else(wrong)?;
        match keyword {
            "machine" => entries.push(Entry {
                machine: value,
                ..Entry::default()
            }),
            "login" => entries.last_mut().ok_or_else(wrong)?.login = value,
            "password" => entries.last_mut().ok_or_else(wrong)?.password = value,
            _ => return Err(wrong()),
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn with(text: &str, mode: u32) -> (tempfile::TempDir, Files) {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        files
            .write(&HostPath::new(CREDENTIALS).unwrap(), text.as_bytes(), mode)
            .unwrap();
        (root, files)
    }

    #[test]
    fn a_host_gets_its_own_credentials_and_no_others() {
        let text = "# of the mirror\nmachine mirror.example\n  login me\n  password pw\n\
            machine mirror.example:8443 login you password zq7\n";
        let (_root, files) = with(text, 0o600);
        let of = |host: &str| authorization(&files, host).unwrap();
        assert_eq!(of("mirror.example").as_deref(), Some("Basic bWU6cHc="));
        assert_eq!(of("Mirror.Example:443").as_deref(), Some("Basic bWU6cHc="));
        assert_eq!(of("mirror.example:8443").as_deref(), Some("Basic eW91OnpxNw=="));
        assert_eq!(of("evil.mirror.example"), None);
        assert_eq!(
            authorization(&Files::new("/nowhere"), "mirror.example").unwrap(),
            None
        );
    }

    #[rstest]
    #[case::open("machine a login b password zq7\n", 0o640, "chmod 600")]
    #[case::everywhere("default login b password zq7\n", 0o600, "line 1")]
    #[case::other("\nmachine a login b password zq7\nzq7 zq7\n", 0o600, "line 3")]
    #[case::cut("machine a login b password", 0o600, "line 1")]
    #[case::headless("password zq7\n", 0o600, "line 1")]
    fn a_file_that_is_not_used_says_why_and_nothing_else(
        #[case] text: &str,
        #[case] mode: u32,
        #[case] says: &str,
    ) {
        let (_root, files) = with(text, mode);
        let said = authorization(&files, "a").unwrap_err().to_string();
        assert!(said.contains(says) && !said.contains("zq7"), "{said}");
    }

    #[test]
    fn fuzz_credentials() {
        use crate::fuzz::{hold, quiet, samples};

        hold(&samples("netrc", &[]), |text| {
            quiet(read(text).map(drop));
        });
    }
}
