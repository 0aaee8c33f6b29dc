//! Moments in the words of logs and tables.

use time::OffsetDateTime;
use time::macros::format_description;

/// UNIX seconds as `2026-11-22 10:00:00 +0000 UTC`, the form SPIRE prints.
pub fn utc(unix_seconds: i64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] +0000 UTC");
    let time = OffsetDateTime::from_unix_timestamp(unix_seconds).ok();
    time.and_then(|time| time.format(format).ok()).unwrap_or_else(|| unix_seconds.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_spires_form() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 +0000 UTC");
        assert_eq!(utc(1_763_800_000), "2025-11-22 08:26:40 +0000 UTC");
        assert_eq!(utc(i64::MAX), i64::MAX.to_string());
    }
}
