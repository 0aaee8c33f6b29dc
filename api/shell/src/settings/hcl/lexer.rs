//! Characters to tokens, with the line each begins on.

use std::fmt;

use super::{SyntaxError, error};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    String(String),
    Number(String),
    Equals,
    Colon,
    Comma,
    OpenBrace,
    CloseBrace,
    OpenBracket,
    CloseBracket,
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Never what it says: whoever gives another file than a configuration may have given one with a secret.
            Self::Word(_) => f.write_str("a word"),
            Self::Number(_) => f.write_str("a number"),
            Self::String(_) => f.write_str("text in quotes"),
            Self::Equals => f.write_str("\"=\""),
            Self::Colon => f.write_str("\":\""),
            Self::Comma => f.write_str("\",\""),
            Self::OpenBrace => f.write_str("\"{\""),
            Self::CloseBrace => f.write_str("\"}\""),
            Self::OpenBracket => f.write_str("\"[\""),
            Self::CloseBracket => f.write_str("\"]\""),
            Self::End => f.write_str("the end of the file"),
        }
    }
}

#[derive(Clone)]
pub(super) struct Lexer<'a> {
    rest: &'a str,
    line: u32,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text, line: 1 }
    }

    /// The next token, left in place.
    pub(super) fn peek(&self) -> Result<(u32, Token), SyntaxError> {
        self.clone().next()
    }

    /// The next token and its line.
    pub(super) fn next(&mut self) -> Result<(u32, Token), SyntaxError> {
        self.skip_blank()?;
        let line = self.line;
        let Some(c) = self.rest.chars().next() else { return Ok((line, Token::End)) };
        let token = match c {
            '=' => self.single(Token::Equals),
            ':' => self.single(Token::Colon),
            ',' => self.single(Token::Comma),
            '{' => self.single(Token::OpenBrace),
            '}' => self.single(Token::CloseBrace),
            '[' => self.single(Token::OpenBracket),
            ']' => self.single(Token::CloseBracket),
            '"' => Token::String(self.string()?),
            '<' if self.rest.starts_with("<<") => Token::String(self.here_document()?),
            '-' | '0'..='9' => Token::Number(self.take_while(|c| c.is_ascii_alphanumeric() || ".-+".contains(c))),
            c if c.is_alphabetic() || c == '_' => {
                Token::Word(self.take_while(|c| c.is_alphanumeric() || "_-.".contains(c)))
            }
            c => return error(line, format!("unexpected character {c:?}")),
        };
        Ok((line, token))
    }

    fn single(&mut self, token: Token) -> Token {
        self.rest = &self.rest[1..];
        token
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> String {
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        self.take(end).to_owned()
    }

    /// Moves `length` bytes on, counting lines.
    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count() as u32;
        self.rest = rest;
        taken
    }

    fn skip_blank(&mut self) -> Result<(), SyntaxError> {
        loop {
            let blank = self.rest.len() - self.rest.trim_start().len();
            self.take(blank);
            if self.rest.starts_with('#') || self.rest.starts_with("//") {
                self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                let Some(end) = self.rest.find("*/") else {
                    return error(self.line, "this comment is never closed: add \"*/\"".to_owned());
                };
                self.take(end + 2);
            } else {
                return Ok(());
            }
        }
    }

    /// A quoted string on one line. `${...}` stays as it is, and quotes inside it do not end the string.
    fn string(&mut self) -> Result<String, SyntaxError> {
        let line = self.line;
        let mut text = String::new();
        let mut braces = 0u32;
        let mut chars = self.rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' if braces == 0 => {
                    self.take(at + 1);
                    return Ok(text);
                }
                '\n' => break,
                '\\' if braces == 0 => {
                    let escape = chars.next().map_or('\n', |(_, c)| c);
                    let digits = match escape {
                        'u' => 4,
                        'U' => 8,
                        _ => 0,
                    };
                    let code: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                    text.push(unescape(escape, &code).ok_or_else(|| SyntaxError {
                        line,
                        reason: format!("\\{escape}{code} is no escape: write \\\\ for a backslash"),
                    })?);
                }
                '$' if chars.peek().is_some_and(|(_, next)| *next == '{') => {
                    chars.next();
                    text.push_str("${");
                    braces += 1;
                }
                c => {
                    braces = match c {
                        '{' if braces > 0 => braces + 1,
                        '}' if braces > 0 => braces - 1,
                        _ => braces,
                    };
                    text.push(c);
                }
            }
        }
        error(line, "this string is never closed: add '\"' on the same line".to_owned())
    }

    /// `<<NAME` lines `NAME`, or `<<-NAME` which removes the indentation the lines share with the closing name.
    fn here_document(&mut self) -> Result<String, SyntaxError> {
        let line = self.line;
        let unclosed =
            |name: &str| SyntaxError { line, reason: format!("this text is never closed: add a line {name}") };
        let head_end = self.rest.find('\n').unwrap_or(self.rest.len());
        let head = self.take(head_end)[2..].trim_end();
        let (indented, name) = head.strip_prefix('-').map_or((false, head), |name| (true, name));
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return error(line, "expected a name after \"<<\"".to_owned());
        }
        self.take(self.rest.len().min(1));
        let mut lines = Vec::new();
        loop {
            if self.rest.is_empty() {
                return Err(unclosed(name));
            }
            let length = self.rest.find('\n').unwrap_or(self.rest.len());
            let text = self.take(length);
            if text.trim() == name && (indented || text.trim_end() == name) {
                let indentation = if indented { text.len() - text.trim_start().len() } else { 0 };
                return Ok(lines.iter().map(|text: &&str| format!("{}\n", outdent(text, indentation))).collect());
            }
            lines.push(text);
            self.take(self.rest.len().min(1));
        }
    }
}

fn outdent(text: &str, indentation: usize) -> &str {
    let blank = text.len() - text.trim_start_matches([' ', '\t']).len();
    &text[indentation.min(blank)..]
}

fn unescape(escape: char, code: &str) -> Option<char> {
    match escape {
        'a' => Some('\x07'),
        'b' => Some('\x08'),
        'f' => Some('\x0c'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\x0b'),
        '\\' | '"' | '/' => Some(escape),
        'u' | 'U' => u32::from_str_radix(code, 16).ok().and_then(char::from_u32),
        _ => None,
    }
}
