//! HCL version 1, the syntax of SPIRE's files, with the line of everything.
//!
//! Read: attributes, blocks with labels, `key = { }` (the same as `key { }`), lists, quoted keys, several attributes on
//! one line, commas or none between them, here-documents, the three comment styles. `${...}` is literal text. And a whole
//! file in JSON, as SPIRE's Helm chart writes it, which is the same with `"key": value`.

mod lexer;

use thiserror::Error;

use super::Origin;
use lexer::{Lexer, Token};

/// Deepest nesting of blocks and lists accepted.
const MAX_DEPTH: usize = 32;

/// The content of a file or block.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Body {
    pub(super) items: Vec<Item>,
}

impl Body {
    /// The first unlabelled block named `key`, made if there is none.
    pub(super) fn block_mut(&mut self, key: &str) -> &mut Body {
        let is_it = |item: &Item| item.key == key && item.labels.is_empty() && matches!(item.value, Value::Block(_));
        let position = self.items.iter().position(is_it).unwrap_or_else(|| {
            let value = Value::Block(Body::default());
            self.items.push(Item { key: key.to_owned(), labels: Vec::new(), origin: Origin::File, value });
            self.items.len() - 1
        });
        match &mut self.items[position].value {
            Value::Block(body) => body,
            _ => unreachable!("the position of a block"),
        }
    }
}

/// `key = value`, or `key "label" { ... }`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) key: String,
    pub(super) labels: Vec<String>,
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// The right side of an item.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    String(String),
    /// As written: integer, fraction or hexadecimal.
    Number(String),
    Bool(bool),
    List(Vec<(Origin, Value)>),
    Block(Body),
}

impl Value {
    /// What kind of value it is, with its article, for messages about mistakes.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Number(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::List(_) => "a list",
            Self::Block(_) => "a block",
        }
    }
}

/// The first place where a text stops being HCL.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub(super) struct SyntaxError {
    pub(super) line: u32,
    pub(super) reason: String,
}

/// Parses a whole file.
pub(super) fn parse(text: &str) -> Result<Body, SyntaxError> {
    let mut parser = Parser { lexer: Lexer::new(text), depth: 0, is_json: false };
    let (line, first) = parser.lexer.peek()?;
    if first != Token::OpenBrace {
        return parser.body(None);
    }
    parser.lexer.next()?;
    parser.is_json = true;
    let body = parser.body(Some(line))?;
    match parser.lexer.next()? {
        (_, Token::End) => Ok(body),
        (line, token) => error(line, format!("expected nothing behind the last \"}}\", found {token}")),
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    depth: usize,
    is_json: bool,
}

impl Parser<'_> {
    /// Items up to the closing brace of the block opened on line `opened`, or the end of the file.
    fn body(&mut self, opened: Option<u32>) -> Result<Body, SyntaxError> {
        let mut body = Body::default();
        loop {
            let (line, token) = self.lexer.next()?;
            match (token, opened) {
                (Token::Comma, _) => {}
                (Token::End, None) | (Token::CloseBrace, Some(_)) => return Ok(body),
                (Token::End, Some(opened)) => {
                    return error(line, format!("the file ends inside the block opened on line {opened}: add \"}}\""));
                }
                (Token::Word(key) | Token::String(key), _) => body.items.extend(self.item(key, line)?),
                (token, _) => return error(line, format!("expected a key, found {token}")),
            }
        }
    }

    /// `None`: `null` in JSON, which says that nothing is given.
    fn item(&mut self, key: String, key_line: u32) -> Result<Option<Item>, SyntaxError> {
        let mut labels = Vec::new();
        let origin = Origin::Line(key_line);
        loop {
            let (line, token) = self.lexer.next()?;
            match token {
                Token::Equals if labels.is_empty() => {
                    let value = self.value()?;
                    return Ok(Some(Item { key, labels, origin, value }));
                }
                Token::Colon if labels.is_empty() && self.is_json => {
                    if matches!(self.lexer.peek()?, (_, Token::Word(word)) if word == "null") {
                        self.lexer.next()?;
                        return Ok(None);
                    }
                    let value = self.value()?;
                    return Ok(Some(Item { key, labels, origin, value }));
                }
                Token::OpenBrace => {
                    let value = Value::Block(self.block(line)?);
                    return Ok(Some(Item { key, labels, origin, value }));
                }
                Token::String(label) | Token::Word(label) if line == key_line => labels.push(label),
                token => return error(line, format!("expected \"=\" or \"{{\" after a key, found {token}")),
            }
        }
    }

    fn value(&mut self) -> Result<Value, SyntaxError> {
        let (line, token) = self.lexer.next()?;
        match token {
            Token::String(text) => Ok(Value::String(text)),
            Token::Number(text) => Ok(Value::Number(text)),
            Token::OpenBrace => Ok(Value::Block(self.block(line)?)),
            Token::OpenBracket => self.list(line),
            Token::Word(word) if word == "true" => Ok(Value::Bool(true)),
            Token::Word(word) if word == "false" => Ok(Value::Bool(false)),
            Token::Word(word) if word == "null" && self.is_json => {
                error(line, "null is no value in a list: leave it out".to_owned())
            }
            Token::Word(_) => error(line, "a word without quotes is not a value: put text in quotes".to_owned()),
            token => error(line, format!("expected a value, found {token}")),
        }
    }

    fn block(&mut self, line: u32) -> Result<Body, SyntaxError> {
        self.nested(line, |parser| parser.body(Some(line)))
    }

    fn list(&mut self, opened: u32) -> Result<Value, SyntaxError> {
        self.nested(opened, |parser| {
            let mut values = Vec::new();
            loop {
                let (line, token) = parser.lexer.peek()?;
                match token {
                    Token::CloseBracket => {
                        parser.lexer.next()?;
                        return Ok(Value::List(values));
                    }
                    Token::Comma => {
                        parser.lexer.next()?;
                    }
                    Token::End => {
                        return error(
                            line,
                            format!("the file ends inside the list opened on line {opened}: add \"]\""),
                        );
                    }
                    _ => values.push((Origin::Line(line), parser.value()?)),
                }
            }
        })
    }

    fn nested<T>(
        &mut self,
        line: u32,
        read: impl FnOnce(&mut Self) -> Result<T, SyntaxError>,
    ) -> Result<T, SyntaxError> {
        if self.depth == MAX_DEPTH {
            return error(line, format!("nested more than {MAX_DEPTH} deep"));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }
}

fn error<T>(line: u32, reason: String) -> Result<T, SyntaxError> {
    Err(SyntaxError { line, reason })
}

#[cfg(test)]
mod tests;
