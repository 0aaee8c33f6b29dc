//! Times in log lines and messages, all in the one form that the lines themselves begin with.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// UNIX seconds as people read them, in UTC: `2026-11-25T21:14:35Z`. Source: RFC 3339.
pub fn utc(unix_seconds: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(unix_seconds).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{unix_seconds} s after 1970"))
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
}
