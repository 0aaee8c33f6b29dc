//! Moments in words: one form for log lines and messages, another for the tables that SPIRE's command line prints.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// UNIX seconds as log lines begin with them and messages tell them, in UTC: `2026-11-25T21:14:35Z`. Source: RFC 3339.
pub fn utc(unix_seconds: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(unix_seconds).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{unix_seconds} s after 1970"))
}

/// UNIX seconds as `2026-11-22 10:00:00 +0000 UTC`, the form of SPIRE's tables.
pub fn spire_time(unix_seconds: i64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] +0000 UTC");
    let time = OffsetDateTime::from_unix_timestamp(unix_seconds).ok();
    time.and_then(|time| time.format(format).ok()).unwrap_or_else(|| unix_seconds.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(1_795_641_275), "2026-11-25T21:14:35Z");
        assert_eq!(utc(i64::MAX), format!("{} s after 1970", i64::MAX));
    }

    #[test]
    fn times_of_tables_are_in_spires_form() {
        assert_eq!(spire_time(0), "1970-01-01 00:00:00 +0000 UTC");
        assert_eq!(spire_time(1_763_800_000), "2025-11-22 08:26:40 +0000 UTC");
        assert_eq!(spire_time(i64::MAX), i64::MAX.to_string());
    }
}
