//! What a template computes with.

/// A kind of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A whole number.
    Number,
    /// Strings in an order.
    List,
    /// Strings by their keys.
    Map,
}

/// A value. Of a map only single strings are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as the kinds")]
pub enum Value {
    Text(String),
    Number(i64),
    List(Vec<String>),
}

impl Value {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Text(_) => Kind::Text,
            Self::Number(_) => Kind::Number,
            Self::List(_) => Kind::List,
        }
    }

    /// As it stands in a path.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            // As Go prints one; no path has room for the brackets.
            Self::List(texts) => format!("[{}]", texts.join(" ")),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Kind {
    /// For an operator.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Number => "a number",
            Self::List => "a list",
            Self::Map => "one of its keys",
        }
    }
}
