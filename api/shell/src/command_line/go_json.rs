//! Files in JSON as Go's `encoding/json` reads them: a key counts in any case, and `null` is as not given.

use serde::de::IgnoredAny;

/// The text with each key in the case of `known`, and without what is `null` in an object. Everything stays at its line and column, so
/// that a mistake is found where it is told of. A text that is no JSON stays as it is.
pub fn as_go_reads(text: &str, known: &[&str]) -> String {
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return text.to_owned();
    }
    let mut bytes = text.as_bytes().to_vec();
    let mut at = 0;
    while let Some(begin) = find(&bytes, at, |byte| byte == b'"') {
        let end = end_of_text(&bytes, begin);
        at = end;
        let Some(colon) = behind_blanks(&bytes, end).filter(|colon| bytes[*colon] == b':') else { continue };
        let key = begin + 1..end - 1;
        if let Some(known) = known.iter().find(|known| known.as_bytes().eq_ignore_ascii_case(&bytes[key.clone()])) {
            bytes[key].copy_from_slice(known.as_bytes());
        }
        let value = behind_blanks(&bytes, colon + 1).unwrap_or(bytes.len());
        if bytes[value..].starts_with(b"null") {
            at = value + b"null".len();
            blank(&mut bytes, begin, at);
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// Behind the quote that ends the text that begins at `begin`.
fn end_of_text(bytes: &[u8], begin: usize) -> usize {
    let mut at = begin + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Blanks what an object has between two places, and the comma that parted it from the rest.
fn blank(bytes: &mut [u8], begin: usize, end: usize) {
    bytes[begin..end].fill(b' ');
    let before = bytes[..begin].iter().rposition(|byte| !byte.is_ascii_whitespace());
    match (behind_blanks(bytes, end), before) {
        (Some(comma), _) if bytes[comma] == b',' => bytes[comma] = b' ',
        (_, Some(comma)) if bytes[comma] == b',' => bytes[comma] = b' ',
        _ => {}
    }
}

fn behind_blanks(bytes: &[u8], from: usize) -> Option<usize> {
    find(bytes, from, |byte| !byte.is_ascii_whitespace())
}

fn find(bytes: &[u8], from: usize, is_it: impl Fn(u8) -> bool) -> Option<usize> {
    bytes.get(from..)?.iter().position(|byte| is_it(*byte)).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn keys_count_in_any_case_and_null_is_as_not_given() {
        for (text, wanted) in [
            (
                r#"{"SPIFFE_ID": "A", "Hint":"SPIFFE_ID", "other": 1}"#,
                json!({"spiffe_id": "A", "hint": "SPIFFE_ID", "other": 1}),
            ),
            (r#"{"hint": null}"#, json!({})),
            (r#"{"a": null, "hint": "x", "b" : null , "c":null}"#, json!({"hint": "x"})),
            (r#"{"a": [{"HINT": null, "b": 1}, null], "c": "null"}"#, json!({"a": [{"b": 1}, null], "c": "null"})),
            (r#"{"a": "\"HINT\": null", "b": "ö\\"}"#, json!({"a": "\"HINT\": null", "b": "ö\\"})),
        ] {
            let read = as_go_reads(text, &["spiffe_id", "hint"]);
            assert_eq!(serde_json::from_str::<Value>(&read).expect("JSON"), wanted, "{text}");
            assert_eq!(read.len(), text.len(), "everything stays in its place: {text}");
        }
        for broken in ["{\"a\": null", "{, \"a\": null}", "null x", "\"", ""] {
            assert_eq!(as_go_reads(broken, &["hint"]), broken);
        }
    }
}
