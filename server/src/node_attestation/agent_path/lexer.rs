//! The words of a template.

use super::TemplateError;

/// A word between the braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// `.Subject.CommonName`, without the dot in front.
    Field(String),
    /// A function or a keyword.
    Word(String),
    Text(String),
    Number(i64),
    Pipe,
    Open,
    Close,
}

/// A piece of a template: what stands there, or what stands between braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    Action(Vec<Token>),
}

/// Source: Go, text/template/parse, lex.go: `{{- ` and ` -}}` take the space beside them away, `{{/* */}}` says nothing.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let (mut pieces, mut rest, mut trim) = (Vec::new(), text, false);
    loop {
        let (literal, action) = rest.split_once("{{").map_or((rest, None), |(literal, action)| (literal, Some(action)));
        let literal = if trim { literal.trim_start() } else { literal };
        let Some(action) = action else {
            pieces.push(Piece::Literal(literal.to_owned()));
            return Ok(pieces);
        };
        let trimmed = action.strip_prefix('-').filter(|action| action.starts_with(char::is_whitespace));
        pieces.push(Piece::Literal(if trimmed.is_some() { literal.trim_end() } else { literal }.to_owned()));
        let (tokens, trims, after) = read_action(trimmed.unwrap_or(action))?;
        pieces.extend(tokens.map(Piece::Action));
        (rest, trim) = (after, trims);
    }
}

/// The words up to `}}`, none of a comment; whether the space behind is taken away; what follows.
fn read_action(action: &str) -> Result<(Option<Vec<Token>>, bool, &str), TemplateError> {
    if let Some(comment) = action.trim_start().strip_prefix("/*") {
        let (_, after) = comment.split_once("*/").ok_or(TemplateError::Unclosed("a comment"))?;
        let (trims, after) = end(after.trim_start()).ok_or(TemplateError::Unclosed("a comment"))?;
        return Ok((None, trims, after));
    }
    let (mut tokens, mut rest) = (Vec::new(), action);
    loop {
        let spaced = rest.trim_start();
        if let Some((trims, after)) = end(spaced) {
            return Ok((Some(tokens), trims, after));
        }
        let (token, after) = token(spaced)?;
        tokens.push(token);
        rest = after;
    }
}

fn end(rest: &str) -> Option<(bool, &str)> {
    let trims = rest.strip_prefix("-}}").map(|after| (true, after));
    trims.or_else(|| rest.strip_prefix("}}").map(|after| (false, after)))
}

fn token(rest: &str) -> Result<(Token, &str), TemplateError> {
    let first = rest.chars().next().ok_or(TemplateError::Unclosed("\"{{\""))?;
    let after = &rest[first.len_utf8()..];
    match first {
        '|' => Ok((Token::Pipe, after)),
        '(' => Ok((Token::Open, after)),
        ')' => Ok((Token::Close, after)),
        '"' => quoted(after),
        '`' => {
            let (text, after) = after.split_once('`').ok_or(TemplateError::Unclosed("a text"))?;
            Ok((Token::Text(text.to_owned()), after))
        }
        '.' => {
            let name = word(after, |c| is_letter(c) || c == '.').map_err(|_| TemplateError::Syntax(".".to_owned()));
            name.map(|(name, after)| (Token::Field(name), after))
        }
        '-' | '0'..='9' => {
            let (digits, after) = split_while(after, |c| c.is_ascii_digit());
            let number = format!("{first}{digits}");
            number.parse().map(|value| (Token::Number(value), after)).map_err(|_| TemplateError::Syntax(number))
        }
        _ => word(rest, is_letter).map(|(name, after)| (Token::Word(name), after)),
    }
}

fn is_letter(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word(rest: &str, belongs: fn(char) -> bool) -> Result<(String, &str), TemplateError> {
    let (name, after) = split_while(rest, belongs);
    if name.is_empty() {
        let shown: String = rest.split("}}").next().unwrap_or_default().chars().take(16).collect();
        return Err(TemplateError::Syntax(shown.trim().to_owned()));
    }
    Ok((name.to_owned(), after))
}

fn split_while(text: &str, belongs: fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// The escapes that paths may need: `\"` and `\\`.
fn quoted(rest: &str) -> Result<(Token, &str), TemplateError> {
    let (mut text, mut chars) = (String::new(), rest.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Text(text), &rest[at + 1..])),
            '\\' => match chars.next() {
                Some((_, c @ ('"' | '\\'))) => text.push(c),
                other => return Err(TemplateError::Syntax(format!("\\{}", other.map_or(' ', |(_, c)| c)))),
            },
            c => text.push(c),
        }
    }
    Err(TemplateError::Unclosed("a text"))
}
