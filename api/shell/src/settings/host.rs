//! What a host may be called.

use std::net::{IpAddr, Ipv6Addr};

/// Longest label and longest name, bytes. Source: RFC 1035, section 2.3.4.
const MAX_LABEL_BYTES: usize = 63;
const MAX_NAME_BYTES: usize = 253;

/// Whether `text` has the form of an IP address or of a host's name: labels of letters, digits, `-` and `_`, the last of which is
/// no number. Source: RFC 1123, section 2.1; underscores are used all the same.
pub(crate) fn has_form(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || is_address_with_zone(text) || is_name(text)
}

/// `fe80::1%eth0`.
fn is_address_with_zone(text: &str) -> bool {
    text.split_once('%').is_some_and(|(address, zone)| address.parse::<Ipv6Addr>().is_ok() && !zone.is_empty())
}

fn is_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= MAX_NAME_BYTES && name.split('.').all(is_label) && !name.rsplit('.').next().is_some_and(is_number)
}

fn is_label(label: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=MAX_LABEL_BYTES).contains(&label.len())
        && label.bytes().all(is_legal)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_a_name_by_its_form() {
        let long = "a".repeat(64);
        for legal in
            ["127.0.0.1", "::1", "fe80::1%eth0", "localhost", "metrics.example.org", "a_b", "x-1.example.", "4u"]
        {
            assert!(has_form(legal), "{legal}");
        }
        let illegal = [
            "",
            ".",
            "a..b",
            "no host",
            "http://x",
            "x:80",
            "[::1]",
            "-a",
            "a-",
            "300.1.1.1",
            "127.0.0",
            "h\u{f6}st",
            &long,
        ];
        for illegal in illegal {
            assert!(!has_form(illegal), "{illegal}");
        }
    }
}
