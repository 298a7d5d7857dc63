//! Numbers of bytes as the kubelet (`10Mi`) and Docker (`10m`) write them, and as people read them.

/// The bytes of a quantity: a number, perhaps with a fraction, and a suffix. `Ki`, `Mi`, … are powers of 1024. So are
/// `k`, `m`, … for Docker, whose small `m` never means thousandths; the kubelet's `k` and `M` are rare enough here to be
/// read the same way. `None` if it is not a quantity.
pub fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let suffix = text[end..]
        .trim()
        .trim_end_matches(['b', 'B', 'i'])
        .to_ascii_lowercase();
    let shift = match &*suffix {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    let (whole, fraction) = text[..end].split_once('.').unwrap_or((&text[..end], ""));
    let whole: u64 = whole.parse().ok()?;
    let tenths: u64 = match fraction.get(..1) {
        Some(digit) => digit.parse().ok()?,
        None => 0,
    };
    let factor = 1u64 << shift;
    whole.checked_mul(factor)?.checked_add(factor / 10 * tenths)
}

/// The bytes of a limit of Docker's logs: powers of 1000 (`units.FromHumanSize`, in `daemon/logger/jsonfilelog`).
pub fn decimal(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let suffix = text[end..]
        .trim()
        .trim_end_matches(['b', 'B', 'i'])
        .to_ascii_lowercase();
    let power = ["", "k", "m", "g", "t"].iter().position(|unit| *unit == suffix)?;
    let number: u64 = text[..end].parse().ok()?;
    number.checked_mul(1000u64.pow(u32::try_from(power).ok()?))
}

/// Bytes for people, in powers of 1024: `50 MiB`, `3.5 GiB`.
pub fn words(bytes: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let Some((shift, unit)) = UNITS.into_iter().find(|(shift, _)| bytes >> shift > 0) else {
        return format!("{bytes} B");
    };
    let (whole, tenths) = (bytes >> shift, ((bytes >> (shift - 10)) % 1024) * 10 / 1024);
    if tenths == 0 || whole >= 100 {
        format!("{whole} {unit}")
    } else {
        format!("{whole}.{tenths} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_of_both_kinds_are_read() {
        for (text, wanted) in [
            ("10Mi", Some(10 << 20)),
            ("100m", Some(100 << 20)),
            ("1.5g", Some((1 << 30) + (1 << 30) / 10 * 5)),
            ("512kb", Some(512 << 10)),
            ("1048576", Some(1 << 20)),
            ("-1", None),
            ("", None),
            ("10x", None),
        ] {
            assert_eq!(bytes(text), wanted, "{text}");
        }
    }

    #[test]
    fn limits_of_dockers_logs_are_decimal() {
        for (text, wanted) in [
            ("100m", Some(100_000_000)),
            ("1GB", Some(1_000_000_000)),
            ("4096", Some(4096)),
            ("-1", None),
            ("1x", None),
        ] {
            assert_eq!(decimal(text), wanted, "{text}");
        }
    }

    #[test]
    fn bytes_are_short_for_people() {
        for (number, wanted) in [
            (12, "12 B"),
            (50 << 20, "50 MiB"),
            (3584 << 20, "3.5 GiB"),
            (500 << 30, "500 GiB"),
        ] {
            assert_eq!(words(number), wanted);
        }
    }
}
