//! The functions of templates, as sprig and Go have them.

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use ironroot_text::hex::hex;

use super::NoName;
use super::value::{Kind, Value};

/// A function, the last argument of which is the one that a pipe gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Default,
    First,
    Index,
    Join,
    Last,
    Lower,
    Nospace,
    Replace,
    Sha1sum,
    Sha256sum,
    SplitList,
    Substr,
    Trim,
    TrimAll,
    TrimPrefix,
    TrimSuffix,
    Trunc,
    Upper,
}

/// Name, what it takes, what it gives.
const ALL: [(Function, &str, &[Kind], Kind); 18] = {
    use Kind::{List, Number, Text};
    [
        (Function::Default, "default", &[Text, Text], Text),
        (Function::First, "first", &[List], Text),
        (Function::Index, "index", &[List, Number], Text),
        (Function::Join, "join", &[Text, List], Text),
        (Function::Last, "last", &[List], Text),
        (Function::Lower, "lower", &[Text], Text),
        (Function::Nospace, "nospace", &[Text], Text),
        (Function::Replace, "replace", &[Text, Text, Text], Text),
        (Function::Sha1sum, "sha1sum", &[Text], Text),
        (Function::Sha256sum, "sha256sum", &[Text], Text),
        (Function::SplitList, "splitList", &[Text, Text], List),
        (Function::Substr, "substr", &[Number, Number, Text], Text),
        (Function::Trim, "trim", &[Text], Text),
        (Function::TrimAll, "trimAll", &[Text, Text], Text),
        (Function::TrimPrefix, "trimPrefix", &[Text, Text], Text),
        (Function::TrimSuffix, "trimSuffix", &[Text, Text], Text),
        (Function::Trunc, "trunc", &[Number, Text], Text),
        (Function::Upper, "upper", &[Text], Text),
    ]
};

impl Function {
    pub(super) fn named(name: &str) -> Option<Self> {
        ALL.iter().find(|(_, known, ..)| *known == name).map(|(function, ..)| *function)
    }

    pub(super) fn names() -> String {
        ALL.map(|(_, name, ..)| name).join(", ")
    }

    pub(super) fn takes(self) -> &'static [Kind] {
        self.row().2
    }

    pub(super) fn result(self) -> Kind {
        self.row().3
    }

    /// For an operator who called it wrongly.
    pub(super) fn usage(self) -> String {
        let (_, name, takes, _) = self.row();
        let takes: Vec<&str> = takes.iter().map(|kind| kind.name()).collect();
        format!("{name} takes {}", takes.join(", "))
    }

    fn row(self) -> &'static (Self, &'static str, &'static [Kind], Kind) {
        ALL.iter().find(|(function, ..)| *function == self).expect("each function has its row: a test looks")
    }

    /// `arguments` are of the kinds that it takes: the parser has looked.
    pub(super) fn apply(self, arguments: &[Value]) -> Result<Value, NoName> {
        use Value::{List, Number, Text};
        Ok(Text(match (self, arguments) {
            (Self::Default, [Text(default), Text(text)]) => if text.is_empty() { default } else { text }.clone(),
            (Self::First, [List(list)]) => list.first().ok_or(NoName::Element)?.clone(),
            (Self::Index, [List(list), Number(place)]) => {
                let place = usize::try_from(*place).map_err(|_| NoName::Element)?;
                list.get(place).ok_or(NoName::Element)?.clone()
            }
            (Self::Join, [Text(between), List(list)]) => list.join(between),
            (Self::Last, [List(list)]) => list.last().ok_or(NoName::Element)?.clone(),
            (Self::Lower, [Text(text)]) => text.to_lowercase(),
            (Self::Nospace, [Text(text)]) => text.split_whitespace().collect(),
            (Self::Replace, [Text(old), Text(new), Text(text)]) => text.replace(old, new),
            (Self::Sha1sum, [Text(text)]) => hexadecimal(&SHA1_FOR_LEGACY_USE_ONLY, text),
            (Self::Sha256sum, [Text(text)]) => hexadecimal(&SHA256, text),
            (Self::SplitList, [Text(at), Text(text)]) => {
                return Ok(List(text.split(at.as_str()).map(str::to_owned).collect()));
            }
            (Self::Substr, [Number(start), Number(end), Text(text)]) => substr(*start, *end, text)?,
            (Self::Trim, [Text(text)]) => text.trim().to_owned(),
            (Self::TrimAll, [Text(set), Text(text)]) => text.trim_matches(|c| set.contains(c)).to_owned(),
            (Self::TrimPrefix, [Text(prefix), Text(text)]) => {
                text.strip_prefix(prefix.as_str()).unwrap_or(text).to_owned()
            }
            (Self::TrimSuffix, [Text(suffix), Text(text)]) => {
                text.strip_suffix(suffix.as_str()).unwrap_or(text).to_owned()
            }
            (Self::Trunc, [Number(length), Text(text)]) => trunc(*length, text)?,
            (Self::Upper, [Text(text)]) => text.to_uppercase(),
            (function, arguments) => unreachable!("the parser fits {arguments:?} to {function:?}"),
        }))
    }
}

fn hexadecimal(algorithm: &'static Algorithm, text: &str) -> String {
    hex(digest(algorithm, text.as_bytes()).as_ref())
}

/// The first bytes, or of a negative length the last ones. Source: sprig, `trunc`.
fn trunc(length: i64, text: &str) -> Result<String, NoName> {
    let bytes = usize::try_from(length.unsigned_abs()).unwrap_or(usize::MAX).min(text.len());
    let cut = if length < 0 { text.get(text.len() - bytes..) } else { text.get(..bytes) };
    cut.map(str::to_owned).ok_or(NoName::Cut)
}

/// From a byte to before another; a negative number is the text's own begin or end, as is an end beyond it. Source: sprig, `substr`.
fn substr(start: i64, end: i64, text: &str) -> Result<String, NoName> {
    let start = usize::try_from(start).unwrap_or(0);
    let end = usize::try_from(end).unwrap_or(text.len()).min(text.len());
    text.get(start..end).map(str::to_owned).ok_or(NoName::Cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_function_has_its_row_and_its_implementation() {
        for (function, name, takes, gives) in ALL {
            assert_eq!(Function::named(name), Some(function));
            let argument = |kind: &Kind| match kind {
                Kind::Number => Value::Number(0),
                Kind::List => Value::List(vec!["x".to_owned()]),
                Kind::Text | Kind::Map => Value::from("x"),
            };
            let arguments: Vec<Value> = takes.iter().map(argument).collect();
            assert_eq!(function.apply(&arguments).expect(name).kind(), gives, "{name}");
        }
    }
}
