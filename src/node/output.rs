//! How results are printed.

use anyhow::Context as _;
use serde::Serialize;

/// The form of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people; secrets are left out.
    #[default]
    Text,
    /// Everything, secrets of configuration files included.
    Json,
    /// Everything, secrets of configuration files included.
    Yaml,
}

impl Format {
    /// The result in this form, with a newline at its end.
    pub(super) fn render<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<String> {
        Ok(match self {
            Self::Text => text(value),
            Self::Json => serde_json::to_string_pretty(value).context("write the result as JSON")? + "\n",
            Self::Yaml => serde_saphyr::to_string(value).context("write the result as YAML")?,
        })
    }
}

/// Bytes for people: `46.4 MB`.
pub(super) fn size(bytes: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (bytes, "B");
    let mut tenths = 0;
    for next in units {
        if value < 1000 {
            break;
        }
        (tenths, value, unit) = (value % 1000 / 100, value / 1000, next);
    }
    if unit == "B" {
        format!("{value} B")
    } else {
        format!("{value}.{tenths} {unit}")
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_short() {
        for (bytes, wanted) in [
            (0, "0 B"),
            (999, "999 B"),
            (46_499_123, "46.4 MB"),
            (21_000_000_000, "21.0 GB"),
        ] {
            assert_eq!(super::size(bytes), wanted);
        }
    }
}
