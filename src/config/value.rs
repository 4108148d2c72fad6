//! What single values mean: durations, sizes, counts, names.
//!
//! The checks and the typed load both come here, so that a value cannot pass one
//! and mean something else to the other.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected};

use super::problem::quoted;

/// The units of a duration, in milliseconds, largest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a duration: a whole number and a unit, nothing else.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(*factor)
        .map(Duration::from_millis)
}

/// Reads a duration or `off`, which is none.
pub(super) fn limit(text: &str) -> Option<Option<Duration>> {
    match text {
        "off" => Some(None),
        text => duration(text).map(Some),
    }
}

/// Reads a share in percent, from 1% to 100%, or `off`, which is none.
pub(super) fn share(text: &str) -> Option<Option<u32>> {
    if text == "off" {
        return Some(None);
    }
    let percent = count(text.strip_suffix('%')?)?;
    let percent = u32::try_from(percent).ok()?;
    (1..=100).contains(&percent).then_some(Some(percent))
}

/// The units of a size, in bytes, largest first.
const SIZES: [(&str, usize); 3] = [("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];

/// Reads a size: a whole number of bytes, or with KiB or MiB behind it.
pub(super) fn size(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = SIZES.iter().find(|(name, _)| *name == unit)?;
    number.parse::<usize>().ok()?.checked_mul(*factor)
}

/// Reads a count: decimal digits without a sign or leading zeros, as serde_yaml
/// reads a number.
pub(super) fn count(text: &str) -> Option<usize> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let padded = text.len() > 1 && text.starts_with('0');
    if digits && !padded {
        text.parse().ok()
    } else {
        None
    }
}

/// What keeps a text from being a sensor id or a tag, which stand in event ids
/// between `|` and `@` and in logs between spaces.
pub(super) fn name_fault(text: &str) -> Option<String> {
    let bad = text
        .chars()
        .find(|&c| matches!(c, '|' | '@') || c.is_whitespace() || c.is_control())?;
    Some(match bad {
        '|' | '@' => format!("`{bad}` in {}", quoted(text)),
        _ if bad.is_control() => format!("a control character in {}", quoted(text)),
        _ => format!("white space in {}", quoted(text)),
    })
}

/// A duration as a configuration writes it.
pub(super) struct Written(pub Duration);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        for (unit, factor) in UNITS {
            if ms >= u128::from(factor) && ms.is_multiple_of(u128::from(factor)) {
                return write!(f, "{}{unit}", ms / u128::from(factor));
            }
        }
        write!(f, "{ms}ms")
    }
}

/// A size as a configuration writes it.
pub(super) struct WrittenSize(pub usize);

impl fmt::Display for WrittenSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in SIZES {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// A duration in a typed load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Period(pub Duration);

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Period, D::Error> {
        let text = String::deserialize(deserializer)?;
        duration(&text)
            .map(Period)
            .ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &"a duration"))
    }
}

/// A duration or `off` in a typed load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit(pub Option<Duration>);

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Limit, D::Error> {
        let text = String::deserialize(deserializer)?;
        limit(&text)
            .map(Limit)
            .ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &"a duration or `off`"))
    }
}

/// A share or `off` in a typed load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share(pub Option<u32>);

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
        let text = String::deserialize(deserializer)?;
        share(&text)
            .map(Share)
            .ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &"a share or `off`"))
    }
}

/// A size in a typed load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size(pub usize);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        let text = String::deserialize(deserializer)?;
        size(&text)
            .map(Size)
            .ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &"a size"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_whole_percentage_or_off() {
        for (text, percent) in [("1%", Some(1)), ("100%", Some(100)), ("off", None)] {
            assert_eq!(share(text), Some(percent), "{text}");
        }
        for text in [
            "0%",
            "101%",
            "10",
            "%",
            "1.5%",
            " 5%",
            "OFF",
            "010%",
            "99999999999999999999%",
        ] {
            assert_eq!(share(text), None, "{text}");
        }
    }

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        for (text, ms) in [
            ("500ms", 500),
            ("60s", 60_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)));
            let back = Written(Duration::from_millis(ms)).to_string();
            assert_eq!(duration(&back), Some(Duration::from_millis(ms)));
        }
        for text in [
            "",
            "s",
            "5",
            "-5s",
            "+5s",
            "1.5s",
            "5 s",
            "5S",
            "5sec",
            "1h30m",
            "٣s",
            "18446744073709551616s",
            "18446744073709551615h",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_size_is_bytes_or_binary_units() {
        assert_eq!(size("4096"), Some(4096));
        assert_eq!(size("4KiB"), Some(4096));
        assert_eq!(size("8MiB"), Some(8 << 20));
        for text in [
            "",
            "MiB",
            "8MB",
            "8mib",
            "8 MiB",
            "1GiB",
            "18446744073709551615MiB",
        ] {
            assert_eq!(size(text), None, "{text}");
        }
        assert_eq!(WrittenSize(8 << 20).to_string(), "8MiB");
        assert_eq!(WrittenSize(1025).to_string(), "1025");
    }

    #[test]
    fn a_count_is_what_serde_yaml_takes_for_a_number() {
        for text in ["0", "1", "65536", "01", "+1", "1_0", "1.0", "0x10", ""] {
            let theirs = serde_yaml::from_str::<usize>(text).ok();
            if let Some(ours) = count(text) {
                assert_eq!(Some(ours), theirs, "{text}");
            }
        }
        assert_eq!(count("65536"), Some(65536));
        assert_eq!(count("01"), None);
    }
}
