//! Times and lengths in words.

use ironroot_api::utc;
use maud::{Markup, html};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// A length in its two largest units: `3 d 4 h`.
pub(super) fn length(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let units = [(YEAR, "y"), (DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (1, "s")];
    let Some(first) = units.iter().position(|(unit, _)| seconds >= *unit) else { return "0 s".to_owned() };
    let (unit, name) = units[first];
    let rest = seconds % unit;
    match units.get(first + 1).filter(|(next, _)| rest >= *next) {
        Some((next, smaller)) => format!("{} {name} {} {smaller}", seconds / unit, rest / next),
        None => format!("{} {name}", seconds / unit),
    }
}

/// A moment in the past, as seen from `now`; `never` for 0.
pub(super) fn ago(at: i64, now: i64) -> Markup {
    html! {
        @if at == 0 { "never" }
        @else { time datetime=(utc(at)) title=(utc(at)) { (length(now - at)) " ago" } }
    }
}

/// An end, as seen from `now`.
pub(super) fn left(until: i64, now: i64) -> Markup {
    html! {
        time datetime=(utc(until)) title=(utc(until)) class=[(until <= now).then_some("bad")] {
            @if until > now { (length(until - now)) } @else { "ended " (length(now - until)) " ago" }
        }
    }
}

/// A moment.
pub(super) fn moment(at: i64) -> Markup {
    html! { time datetime=(utc(at)) { (utc(at)) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_told_in_their_two_largest_units() {
        for (seconds, told) in [
            (-5, "0 s"),
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_661, "1 h 1 min"),
            (3 * DAY + 4 * HOUR + 59, "3 d 4 h"),
            (10 * YEAR + DAY, "10 y 1 d"),
            (YEAR + HOUR, "1 y"),
        ] {
            assert_eq!(length(seconds), told);
        }
    }

    #[test]
    fn what_has_ended_is_told_apart_from_what_is_good() {
        assert!(left(100, 40).into_string().contains(">1 min<"));
        let ended = left(40, 100).into_string();
        assert!(ended.contains("class=\"bad\"") && ended.contains("ended 1 min ago"), "{ended}");
        assert_eq!(ago(0, 5).into_string(), "never");
    }
}
