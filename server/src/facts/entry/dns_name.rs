//! DNS names that may stand in a certificate.

/// Longest DNS name in text form, bytes. Source: RFC 1035 §2.3.4 (255 octets on the wire).
const MAX_NAME_BYTES: usize = 253;
/// Longest label, bytes. Source: RFC 1035 §2.3.4.
const MAX_LABEL_BYTES: usize = 63;

/// Whether `name` is a host name in letters, digits and hyphens, perhaps with one leading `*.`.
///
/// Internationalised names are written as A-labels (`xn--...`); a hyphen in third and fourth place means nothing else.
/// Source: RFC 1123 §2.1, RFC 5890 §2.3.1, RFC 6125 §6.4.3.
pub fn is_dns_name(name: &str) -> bool {
    let bare = name.strip_prefix("*.").unwrap_or(name);
    name.len() <= MAX_NAME_BYTES && bare.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let legal = bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let misleading = bytes.get(2..4) == Some(b"--") && !label[..2].eq_ignore_ascii_case("xn");
    !bytes.is_empty()
        && bytes.len() <= MAX_LABEL_BYTES
        && legal
        && !label.starts_with('-')
        && !label.ends_with('-')
        && !misleading
}

#[cfg(test)]
mod tests {
    use super::*;

    //= X509-03
    #[test]
    fn accepts_host_names_and_one_leading_wildcard() {
        let longest_label = "a".repeat(63);
        for name in [
            "a",
            "a.b",
            "*.b",
            "1.2",
            "_srv._tcp.example.org",
            "web-1.example.org",
            "xn--bcher-kva.example",
            "A.Example",
            &longest_label,
        ] {
            assert!(is_dns_name(name), "{name}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        let long_label = "a".repeat(64);
        let long_name = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(63)].join(".");
        for name in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "*",
            "*.",
            "*.*.a",
            "a.*.b",
            "a*.b",
            "*a.b",
            "-a",
            "a-",
            "a b",
            "é.example",
            "ab--c.example",
            "a/b",
            "a\0b",
            "spiffe://a",
            &long_label,
            &long_name,
        ] {
            assert!(!is_dns_name(name), "{name:?}");
        }
    }
}
