//! Lifetimes on the command line: seconds, as SPIRE takes them, or a duration.

use crate::settings::parse_duration;

const TOO_LONG: &str = "more than 2147483647 seconds, or 596523h";

/// A number of seconds from 0 to the wire's most (i32), written as Go writes numbers (`3600`, `0xe10`), or a duration (`1h`).
pub fn lifetime_seconds(text: &str) -> Result<i32, &'static str> {
    if text.strip_prefix('-').is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit())) {
        return Err("a time cannot be negative");
    }
    if text.len() > 9 && text.bytes().all(|digit| digit.is_ascii_digit()) && number(text).is_none() {
        return Err(TOO_LONG);
    }
    if let Some(seconds) = number(text) {
        return i32::try_from(seconds).map_err(|_| TOO_LONG);
    }
    let duration = parse_duration(text).map_err(|_| "not a number of seconds, or a duration such as 1h30m")?;
    if duration.subsec_nanos() != 0 {
        return Err("not a whole number of seconds");
    }
    i32::try_from(duration.as_secs()).map_err(|_| TOO_LONG)
}

/// As [`lifetime_seconds`], and not 0.
pub fn positive_seconds(text: &str) -> Result<i32, &'static str> {
    match lifetime_seconds(text)? {
        0 => Err("must be at least one second"),
        seconds => Ok(seconds),
    }
}

/// Source: Go's `strconv.ParseInt` with base 0.
fn number(text: &str) -> Option<u32> {
    let lower = text.to_ascii_lowercase().replace('_', "");
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    // from_str_radix would take a sign behind the prefix.
    if digits.starts_with(['+', '-']) { None } else { u32::from_str_radix(digits, radix).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_durations_mean_the_same() {
        for (text, seconds) in [
            ("0", 0),
            ("3600", 3600),
            ("0xe10", 3600),
            ("0o10", 8),
            ("010", 8),
            ("1h", 3600),
            ("1h30m", 5400),
            ("90s", 90),
        ] {
            assert_eq!(lifetime_seconds(text), Ok(seconds), "{text}");
        }
        for bad in
            ["", "-1", "1.5", "1500ms", "0x", "0x-1", "4294967296", "2147483648", "soon", "1h x", "08", "-", "-soon"]
        {
            assert!(lifetime_seconds(bad).is_err(), "{bad}");
        }
        for long in ["4294967296", "2147483648", "99999999999999", "596524h"] {
            assert_eq!(lifetime_seconds(long), Err(TOO_LONG), "{long}");
        }
        for negative in ["-1", "-5m"] {
            assert_eq!(lifetime_seconds(negative), Err("a time cannot be negative"), "{negative}");
        }
        assert!(positive_seconds("0").is_err() && positive_seconds("0s").is_err());
        assert_eq!(positive_seconds("24h"), Ok(86_400));
    }
}
