//! `--format`: Go's text/template over JSON values, with docker's functions.
//!
//! Actions: pipelines, `if`/`else if`/`else`, `range` (with `else`, one or two variables, `break`, `continue`), `with`,
//! variables, comments, `{{-` and `-}}`. Functions: Go's `and or not eq ne lt le gt ge len index slice print printf println`
//! and docker's `json split join title lower upper pad truncate`. Not: `define`, `template`, `block`, `call`, methods.
//!
//! Values are JSON; an object is either a record, in which an unknown field is an error, or a map, in which it is
//! `<no value>`. Maps print and range in the order of their keys.

mod eval;
mod funcs;
mod lex;
mod parse;
mod printf;
mod value;

pub use crate::text::template::value::{Record, Shape, Value};

/// How deep actions, parentheses and values may nest.
const MAX_DEPTH: usize = 100;

/// A template that does not parse, or fails on a value. The texts are Go's as far as it goes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It does not parse.
    #[error("template parsing error: template: :{line}: {reason}")]
    Parse {
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// It parses, and fails on a value.
    #[error(
        "template parsing error: template: :{line}:{column}: executing \"\" at <{at}>: {reason}"
    )]
    Exec {
        /// From 1.
        line: usize,
        /// Bytes before it on the line.
        column: usize,
        /// The expression.
        at: String,
        /// What is wrong.
        reason: String,
    },
}

/// What is wrong with a template, and how many bytes of it follow.
#[derive(Debug)]
struct Fault {
    left: usize,
    reason: String,
}

/// What is wrong with a value, at which expression.
#[derive(Debug)]
struct ExecFault {
    left: usize,
    at: String,
    reason: String,
}

/// A parsed template.
#[derive(Debug, Clone)]
pub struct Template {
    text: String,
    nodes: Vec<parse::Node>,
}

impl Template {
    /// Parses a template.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        let nodes = lex::pieces(text).and_then(parse::parse);
        let nodes = nodes.map_err(|fault| TemplateError::Parse {
            line: place(text, fault.left).0,
            reason: fault.reason,
        })?;
        let text = text.to_owned();
        Ok(Template { text, nodes })
    }

    /// The text for one value.
    pub fn render(&self, value: &Value) -> Result<String, TemplateError> {
        self.execute(value, false)
    }

    /// The line above a table whose rows are rendered by this template; `names` has the columns' names.
    pub fn header(&self, names: &Value) -> Result<String, TemplateError> {
        self.execute(names, true)
    }

    fn execute(&self, value: &Value, header: bool) -> Result<String, TemplateError> {
        eval::render(&self.nodes, value, header).map_err(|fault| {
            let (line, column) = place(&self.text, fault.left);
            TemplateError::Exec {
                line,
                column,
                at: fault.at,
                reason: fault.reason,
            }
        })
    }
}

/// Line from 1, and bytes before it on the line, of what has `left` bytes from there on.
fn place(text: &str, left: usize) -> (usize, usize) {
    let before = text.get(..text.len().saturating_sub(left)).unwrap_or(text);
    let column = before
        .rfind('\n')
        .map_or(before.len(), |at| before.len() - at - 1);
    (before.matches('\n').count() + 1, column)
}

#[cfg(test)]
mod tests;
