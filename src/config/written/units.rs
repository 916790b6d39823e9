//! Times, sizes and rates as text with a unit: `"30s"`, `"4MiB"`, `"60/m"`.

use std::time::Duration;

/// The longest time a configuration may name.
const MAX_TIME: Duration = Duration::from_hours(366 * 24);

/// The largest size of a message or a body that a configuration may name, bytes.
const MAX_SIZE: u64 = 1 << 30;

/// The most memory that a configuration may name, bytes.
const MAX_MEMORY: u64 = 1 << 50;

/// The time that `text` names: a whole number and `ms`, `s`, `m`, `h` or `d`.
pub(in crate::config) fn time(text: &str) -> Result<Duration, &'static str> {
    const HELP: &str = "write a whole number and a unit (ms, s, m, h, d), for example \"30s\"";
    let (number, unit) = split(text).ok_or(HELP)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(HELP),
    };
    let time = number.checked_mul(millis).map(Duration::from_millis);
    time.filter(|time| *time <= MAX_TIME).ok_or("write a time of at most a year")
}

/// How many in which time `text` names: a whole number, a slash, and `s`, `m`, `h` or `d`.
pub(in crate::config) fn rate(text: &str) -> Result<(u64, Duration), &'static str> {
    const HELP: &str = "write a whole number, a slash and a unit of time (s, m, h, d), for example \"60/m\"";
    let (count, unit) = split(text).ok_or(HELP)?;
    let unit = unit.strip_prefix('/').ok_or(HELP)?;
    let period = match unit.strip_prefix(' ').unwrap_or(unit) {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_mins(1),
        "h" => Duration::from_hours(1),
        "d" => Duration::from_hours(24),
        _ => return Err(HELP),
    };
    Ok((count, period))
}

/// The number of bytes that `text` names: a whole number and `B`, `kB`, `MB`, `KiB`, `MiB` or `GiB`.
pub(in crate::config) fn size(text: &str) -> Result<usize, &'static str> {
    let size = bytes(text)?;
    usize::try_from(size).ok().filter(|_| size <= MAX_SIZE).ok_or("write a size of at most 1GiB")
}

/// As [`size`], for amounts of memory, which may be larger.
pub(in crate::config) fn memory(text: &str) -> Result<u64, &'static str> {
    bytes(text).and_then(|size| if size <= MAX_MEMORY { Ok(size) } else { Err("write a size of at most 1048576GiB") })
}

fn bytes(text: &str) -> Result<u64, &'static str> {
    const HELP: &str = "write a whole number and a unit (B, kB, MB, KiB, MiB, GiB), for example \"4MiB\"";
    let (number, unit) = split(text).ok_or(HELP)?;
    let bytes: u64 = match unit {
        "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(HELP),
    };
    number.checked_mul(bytes).ok_or("write a smaller size")
}

/// The number at the start of `text` and the unit behind it; one space may stand between.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let unit = text[end..].strip_prefix(' ').unwrap_or(&text[end..]);
    Some((text[..end].parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_carry_units() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("0s"), Ok(Duration::ZERO));
        assert_eq!(time("5 m"), Ok(Duration::from_mins(5)));
        for bad in ["", "30", "s", "-1s", "1.5s", "1 s s", "30S", "١s", "18446744073709551615d", "400d"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_carry_units() {
        assert_eq!(size("4MiB"), Ok(4 << 20));
        assert_eq!(size("10MB"), Ok(10_000_000));
        for bad in ["", "4", "MiB", "4mib", "4M", "2GiB", "99999999999999999999B"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
