//! Moments in words: one form for log lines and messages, with or without fractions of a second, another for the tables that SPIRE's
//! command line prints.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// A moment with its fraction of a second, in UTC, as JSON log lines tell it: `2026-11-25T21:14:35.5Z`. Source: RFC 3339.
pub fn utc_with_fraction(at: SystemTime) -> String {
    rfc3339(OffsetDateTime::from(at)).unwrap_or_default()
}

/// UNIX seconds as log lines begin with them and messages tell them, in UTC: `2026-11-25T21:14:35Z`. Source: RFC 3339.
pub fn utc(unix_seconds: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(unix_seconds).ok();
    at.and_then(rfc3339).unwrap_or_else(|| format!("{unix_seconds} s after 1970"))
}

/// UNIX seconds of a moment in that form, or another of RFC 3339's; `None` for what is none.
pub fn from_utc(text: &str) -> Option<i64> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp)
}

/// `None` for years of more than four digits.
fn rfc3339(at: OffsetDateTime) -> Option<String> {
    at.format(&Rfc3339).ok()
}

/// UNIX seconds as `2026-11-22 10:00:00 +0000 UTC`, the form of SPIRE's tables.
pub fn spire_time(unix_seconds: i64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] +0000 UTC");
    let time = OffsetDateTime::from_unix_timestamp(unix_seconds).ok();
    time.and_then(|time| time.format(format).ok()).unwrap_or_else(|| unix_seconds.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_shown_in_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(1_795_641_275), "2026-11-25T21:14:35Z");
        assert_eq!(utc(i64::MAX), format!("{} s after 1970", i64::MAX));
    }

    #[test]
    fn what_was_said_of_a_moment_is_that_moment() {
        assert_eq!(from_utc(&utc(1_795_641_275)), Some(1_795_641_275));
        assert_eq!(from_utc("2026-11-25T22:14:35.25+01:00"), Some(1_795_641_275));
        assert_eq!(["", "yesterday", "2026-11-25"].map(from_utc), [None; 3]);
    }

    #[test]
    fn a_fraction_of_a_second_is_told_where_it_is_asked_for() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_641_275_500);
        assert_eq!(utc_with_fraction(at), "2026-11-25T21:14:35.5Z");
    }

    #[test]
    fn times_of_tables_are_in_spires_form() {
        assert_eq!(spire_time(0), "1970-01-01 00:00:00 +0000 UTC");
        assert_eq!(spire_time(1_763_800_000), "2025-11-22 08:26:40 +0000 UTC");
        assert_eq!(spire_time(i64::MAX), i64::MAX.to_string());
    }
}
