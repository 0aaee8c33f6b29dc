//! `agent_path_template`: what an agent is called, from what was proven of its node.
//!
//! The part of Go's text/template that names things: texts, fields, calls of functions, pipes. What is left out (statements,
//! variables, functions that make no part of a path) is refused by name when the configuration is read, as is a field that this
//! way to attest does not have: SPIRE finds that out when the first device attests.
//!
//! Source: Go, text/template; SPIRE, pkg/common/agentpathtemplate; the functions are sprig's.

mod function;
mod lexer;
mod parser;
mod value;

use thiserror::Error;

use function::Function;
pub use value::{Kind, Value};

/// Longest template accepted, bytes; a SPIFFE ID has at most 2048.
const MAX_TEMPLATE_BYTES: usize = 1024;

/// A field that templates may name, without the dot in front; of [`Kind::Map`] the key follows after a dot.
pub type Field = (&'static str, Kind);

/// A template that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPathTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Of(Expression),
}

/// What stands between the braces. The kinds fit: the parser has looked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expression {
    Constant(Value),
    Field(String, Kind),
    Call(Function, Vec<Expression>),
}

/// Why a template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// Nobody needs so much.
    #[error("a template has at most {MAX_TEMPLATE_BYTES} bytes")]
    TooLong,
    /// SPIRE would refuse each device.
    #[error("begin it with \"/\": it is what follows /spire/agent in the agent's ID")]
    NoSlash,
    /// `{{` without `}}`, or a text without its closing quote.
    #[error("{0} is not closed")]
    Unclosed(&'static str),
    /// What is in no expression of ours.
    #[error("{0:?} is not understood here: write a field such as .Fingerprint, a text in quotes, a number, or a call")]
    Syntax(String),
    /// `if`, `range` and the like.
    #[error("the statement {0} is not supported: only fields, texts and calls of functions are")]
    Statement(String),
    /// Not one of ours.
    #[error("the function {0} is not supported: there are {known}", known = Function::names())]
    Function(String),
    /// This way to attest proves nothing of that name.
    #[error("there is no field .{name}: there are {known}")]
    #[expect(missing_docs, reason = "the message names the fields")]
    Field { name: String, known: String },
    /// Too few, too many, or of another kind.
    #[error("{0}")]
    Arguments(String),
}

/// What was proven of a node gives its agent no name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoName {
    /// A key that this node does not have.
    #[error("agent_path_template asks for .{0}, which this node does not have")]
    Missing(String),
    /// A list without such an element.
    #[error("agent_path_template asks for an element that a list of this node does not have")]
    Element,
    /// A text that cannot be cut there.
    #[error("agent_path_template cuts a character in two")]
    Cut,
}

impl AgentPathTemplate {
    /// Reads `text`, which may name `fields`.
    pub fn parse(text: &str, fields: &[Field]) -> Result<Self, TemplateError> {
        if text.len() > MAX_TEMPLATE_BYTES {
            return Err(TemplateError::TooLong);
        }
        if !text.starts_with('/') {
            return Err(TemplateError::NoSlash);
        }
        parser::parse(text, fields).map(|parts| Self { parts })
    }

    /// The path of a node's agent behind `/spire/agent`. `value`: of each field that the template was read with; of a
    /// [`Kind::Map`] it is asked for `name.key`.
    pub fn render(&self, value: &impl Fn(&str) -> Option<Value>) -> Result<String, NoName> {
        let mut path = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => path.push_str(text),
                Part::Of(expression) => path.push_str(&expression.evaluate(value)?.shown()),
            }
        }
        Ok(path)
    }
}

impl Expression {
    fn kind(&self) -> Kind {
        match self {
            Self::Constant(value) => value.kind(),
            Self::Field(_, kind) => *kind,
            Self::Call(function, _) => function.result(),
        }
    }

    fn evaluate(&self, value: &impl Fn(&str) -> Option<Value>) -> Result<Value, NoName> {
        match self {
            Self::Constant(constant) => Ok(constant.clone()),
            Self::Field(name, _) => value(name).ok_or_else(|| NoName::Missing(name.clone())),
            Self::Call(function, arguments) => {
                let arguments: Result<Vec<_>, _> = arguments.iter().map(|argument| argument.evaluate(value)).collect();
                function.apply(&arguments?)
            }
        }
    }
}

#[cfg(test)]
mod tests;
