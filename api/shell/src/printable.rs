//! What may stand in a line that people read: no character that ends it, hides in it, or has a terminal show it in another order.
//!
//! One rule for what commands print and for what is logged. A value of somebody else's goes into a text by [`shown`]; a whole text, whose
//! line ends are its own, by [`printable`].

use std::borrow::Cow;
use std::fmt::{self, Display};

/// Line and paragraph separator: neither is a control character by its category. Source: Unicode Standard, 5.8.
const SEPARATORS: std::ops::RangeInclusive<char> = '\u{2028}'..='\u{2029}';
/// Characters that have a terminal show a line in another order than it is. Source: Unicode Standard Annex 9, 2.1, 2.2, 2.4 and 2.6.
const REORDERING: [std::ops::RangeInclusive<char>; 4] =
    ['\u{202a}'..='\u{202e}', '\u{2066}'..='\u{2069}', '\u{200e}'..='\u{200f}', '\u{61c}'..='\u{61c}'];

/// Whether a line may have the character: no control character (C0, DEL and C1, the line's end and tabs among them), no separator of
/// lines, none that reorders.
pub fn is_printable(c: char) -> bool {
    let reorders = |c: char| REORDERING.iter().any(|range| range.contains(&c));
    !(c.is_control() || SEPARATORS.contains(&c) || reorders(c))
}

/// `text` with what is not printable escaped, but for line ends and tabs.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_printable(c) || c == '\n' || c == '\t')
}

/// `value` as one value of a line: all that is not printable is escaped, so that it can neither end its line nor begin a column.
pub fn shown(value: impl Display) -> Shown {
    let value = value.to_string();
    match escaped(&value, is_printable) {
        Cow::Owned(escaped) => Shown(escaped),
        Cow::Borrowed(_) => Shown(value),
    }
}

/// See [`shown`]. Pads as a text does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown(String);

impl Shown {
    /// The text.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

fn escaped(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(&keep) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match keep(c) {
            true => escaped.push(c),
            false => escaped.extend(c.escape_default()),
        }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_one_line_and_one_column_whatever_it_holds() {
        assert_eq!(shown("1.2\n3\t4\r\u{1b}[31m").to_string(), "1.2\\n3\\t4\\r\\u{1b}[31m");
        for c in ['\u{7f}', '\u{85}', '\u{9b}', '\u{2028}', '\u{2029}', '\u{202e}', '\u{2066}', '\u{200f}', '\u{61c}'] {
            assert_eq!(shown(c).to_string(), c.escape_default().to_string());
            assert_eq!(printable(&c.to_string()), c.escape_default().to_string());
        }
    }

    #[test]
    fn what_is_printable_stays_as_it_is() {
        for text in ["", "spiffe://td/a b", "C:\\dir\\n \"x\" = ü€ 日本 👩\u{200d}🔧"] {
            assert_eq!((shown(text).to_string(), printable(text)), (text.to_owned(), text.into()));
        }
        assert_eq!(printable("a\tb\nc\n"), "a\tb\nc\n");
        assert_eq!(format!("{:<4}|", shown("ab")), "ab  |");
    }
}
