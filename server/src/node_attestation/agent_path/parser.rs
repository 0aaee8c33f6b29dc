//! Words to expressions, whose kinds fit.

use super::function::Function;
use super::lexer::{Piece, Token, pieces};
use super::value::{Kind, Value};
use super::{Expression, Field, Part, TemplateError};

/// Go's, and none of ours. Source: Go, text/template/parse.
const STATEMENTS: [&str; 10] =
    ["if", "else", "end", "range", "with", "define", "template", "block", "break", "continue"];

pub(super) fn parse(text: &str, fields: &[Field]) -> Result<Vec<Part>, TemplateError> {
    let parts = pieces(text)?.into_iter().map(|piece| match piece {
        Piece::Literal(text) => Ok(Part::Literal(text)),
        Piece::Action(tokens) => Parser { tokens: tokens.into_iter().peekable(), fields }.whole().map(Part::Of),
    });
    parts.collect()
}

struct Parser<'a, Tokens: Iterator<Item = Token>> {
    tokens: std::iter::Peekable<Tokens>,
    fields: &'a [Field],
}

impl<Tokens: Iterator<Item = Token>> Parser<'_, Tokens> {
    fn whole(mut self) -> Result<Expression, TemplateError> {
        let expression = self.pipeline()?;
        match self.tokens.next() {
            None => Ok(expression),
            Some(_) => Err(TemplateError::Syntax(")".to_owned())),
        }
    }

    /// `a | f x` is `f x a`.
    fn pipeline(&mut self) -> Result<Expression, TemplateError> {
        let mut expression = self.command(None)?;
        while self.tokens.next_if_eq(&Token::Pipe).is_some() {
            expression = self.command(Some(expression))?;
        }
        Ok(expression)
    }

    fn command(&mut self, piped: Option<Expression>) -> Result<Expression, TemplateError> {
        if let Some(Token::Word(name)) = self.tokens.next_if(|token| matches!(token, Token::Word(_))) {
            return self.call(&name, piped);
        }
        let value = self.operand()?;
        let stands_alone = piped.is_none() && matches!(self.tokens.peek(), None | Some(Token::Pipe | Token::Close));
        if !stands_alone {
            return Err(TemplateError::Arguments("what is no function takes no arguments".to_owned()));
        }
        Ok(value)
    }

    fn call(&mut self, name: &str, piped: Option<Expression>) -> Result<Expression, TemplateError> {
        if STATEMENTS.contains(&name) {
            return Err(TemplateError::Statement(name.to_owned()));
        }
        let function = Function::named(name).ok_or_else(|| TemplateError::Function(name.to_owned()))?;
        let mut arguments = Vec::new();
        while !matches!(self.tokens.peek(), None | Some(Token::Pipe | Token::Close)) {
            arguments.push(self.argument()?);
        }
        arguments.extend(piped);
        // The one way to a key that is no Go identifier.
        if let (Function::Index, [Expression::Field(map, Kind::Map), Expression::Constant(Value::Text(key))]) =
            (function, arguments.as_slice())
        {
            return Ok(Expression::Field(format!("{map}.{key}"), Kind::Text));
        }
        let kinds: Vec<Kind> = arguments.iter().map(Expression::kind).collect();
        match function.takes() == kinds {
            true => Ok(Expression::Call(function, arguments)),
            false => Err(TemplateError::Arguments(function.usage())),
        }
    }

    /// A single value. A field of [`Kind::Map`] is one only for `index`.
    fn argument(&mut self) -> Result<Expression, TemplateError> {
        match self.tokens.next() {
            Some(Token::Field(name)) => self.field(&name),
            Some(Token::Text(text)) => Ok(Expression::Constant(Value::Text(text))),
            Some(Token::Number(number)) => Ok(Expression::Constant(Value::Number(number))),
            Some(Token::Open) => {
                let inner = self.pipeline()?;
                let closed = self.tokens.next_if_eq(&Token::Close);
                closed.map(|_| inner).ok_or(TemplateError::Unclosed("\"(\""))
            }
            Some(Token::Word(name)) => {
                Err(TemplateError::Arguments(format!("write a call within a call in parentheses: ({name} ...)")))
            }
            Some(Token::Pipe) => Err(TemplateError::Syntax("|".to_owned())),
            Some(Token::Close) => Err(TemplateError::Syntax(")".to_owned())),
            None => Err(TemplateError::Syntax("{{}}".to_owned())),
        }
    }

    fn operand(&mut self) -> Result<Expression, TemplateError> {
        match self.argument()? {
            Expression::Field(name, Kind::Map) => {
                Err(TemplateError::Arguments(format!(".{name} is many values: name a key of it, .{name}.<key>")))
            }
            value => Ok(value),
        }
    }

    fn field(&self, name: &str) -> Result<Expression, TemplateError> {
        let is_it = |(field, kind): &&Field| match name.strip_prefix(field) {
            Some("") => true,
            Some(key) => *kind == Kind::Map && key.starts_with('.') && !key[1..].contains('.') && key.len() > 1,
            None => false,
        };
        match self.fields.iter().find(is_it) {
            Some((field, Kind::Map)) if name != *field => Ok(Expression::Field(name.to_owned(), Kind::Text)),
            Some((_, kind)) => Ok(Expression::Field(name.to_owned(), *kind)),
            None => {
                let known: Vec<String> = self.fields.iter().map(|(field, _)| format!(".{field}")).collect();
                Err(TemplateError::Field { name: name.to_owned(), known: known.join(", ") })
            }
        }
    }
}
