//! Durations as Go writes them: `1h30m`, `300ms`, `10s`.

use std::time::Duration;

use thiserror::Error;

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum DurationError {
    #[error("not a duration: write numbers with units, such as 90s, 10m or 1h30m (units: ns, us, ms, s, m, h)")]
    Syntax,
    #[error("a duration here cannot be negative")]
    Negative,
    /// More than Go's largest duration, about 292 years.
    #[error("too long: at most 2562047h")]
    TooLong,
}

/// Parses a Go duration that is not negative.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    if text.starts_with('-') {
        return Err(DurationError::Negative);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(DurationError::Syntax);
    }
    let mut nanoseconds: u128 = 0;
    while !rest.is_empty() {
        let (part, after) = split_part(rest)?;
        nanoseconds = nanoseconds.checked_add(part).ok_or(DurationError::TooLong)?;
        rest = after;
    }
    let nanoseconds = i64::try_from(nanoseconds).map_err(|_| DurationError::TooLong)?;
    Ok(Duration::from_nanos(nanoseconds.unsigned_abs()))
}

/// The same, or a number of seconds without a unit: for flags that people type.
pub fn parse_timeout(text: &str) -> Result<Duration, DurationError> {
    match !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit()) {
        true => parse_duration(&format!("{text}s")),
        false => parse_duration(text),
    }
}

/// The shortest usual way to write `duration`: `1h30m`, `10s`, `1.5s`; zero is `0s`.
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = String::new();
    if hours > 0 {
        text.push_str(&format!("{hours}h"));
    }
    if minutes > 0 {
        text.push_str(&format!("{minutes}m"));
    }
    let fraction = format!("{:09}", duration.subsec_nanos());
    let fraction = fraction.trim_end_matches('0');
    if !fraction.is_empty() {
        text.push_str(&format!("{seconds}.{fraction}s"));
    } else if seconds > 0 || text.is_empty() {
        text.push_str(&format!("{seconds}s"));
    }
    text
}

/// One number with its unit in nanoseconds, and the text after it.
fn split_part(text: &str) -> Result<(u128, &str), DurationError> {
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(DurationError::Syntax)?;
    let (number, rest) = text.split_at(number_end);
    let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let unit_nanoseconds: u128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(DurationError::Syntax),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(DurationError::Syntax);
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| DurationError::TooLong)? };
    let whole = whole.checked_mul(unit_nanoseconds).ok_or(DurationError::TooLong)?;
    Ok((whole.saturating_add(fraction_of(fraction, unit_nanoseconds)), rest))
}

/// `unit * 0.fraction`; digits beyond a nanosecond of an hour are dropped.
fn fraction_of(fraction: &str, unit: u128) -> u128 {
    let digits = &fraction[..fraction.len().min(15)];
    digits.parse::<u128>().map_or(0, |value| value * unit / 10u128.pow(digits.len() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_without_a_unit_is_seconds_where_people_type_it() {
        for (text, seconds) in
            [("5", Some(5)), ("0", Some(0)), ("2m", Some(120)), ("99999999999", None), ("", None), ("-5", None)]
        {
            assert_eq!(parse_timeout(text).ok(), seconds.map(Duration::from_secs), "{text:?}");
        }
        assert!(parse_duration("5").is_err(), "in a file it is as in SPIRE's");
    }

    #[test]
    fn reads_what_go_reads() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("0s", 0),
            ("1h30m", 5_400_000_000_000),
            ("300ms", 300_000_000),
            ("10s", 10_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1us2ns", 1_002),
            ("1µs", 1_000),
            ("+5s", 5_000_000_000),
            ("168h", 604_800_000_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses_and_negative_ones() {
        use DurationError::{Negative, Syntax, TooLong};
        for (text, why) in [
            ("", Syntax),
            ("5", Syntax),
            ("s", Syntax),
            (".s", Syntax),
            ("1.2.3s", Syntax),
            ("1 h", Syntax),
            ("1d", Syntax),
            ("1hour", Syntax),
            ("-1s", Negative),
            ("2562048h", TooLong),
            ("99999999999999999999999999999999999999999h", TooLong),
        ] {
            assert_eq!(parse_duration(text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for text in ["0s", "10s", "1h30m", "24h", "1.5s", "0.3s", "1h0.000000001s"] {
            assert_eq!(format_duration(parse_duration(text).expect("a duration")), text);
        }
    }
}
