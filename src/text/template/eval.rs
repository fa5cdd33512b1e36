//! Nodes to text.

use crate::text::template::parse::{Branch, Command, Expr, Node, Operand, Pipeline};
use crate::text::template::value::{Shape, Value};
use crate::text::template::{ExecFault, funcs};

/// The most that is printed or visited: a template is small, what it repeats need not be.
const MAX_STEPS: usize = 1_000_000;
/// The most bytes that are moved: a value is looked at again for each part of it, and a text may be doubled each time.
const MAX_MOVED: usize = 256 << 20;

/// A field that is not there: Go's `<no value>`.
const NO_VALUE: &str = "<no value>";

enum Flow {
    Next,
    Break,
    Continue,
}

struct State {
    header: bool,
    out: String,
    variables: Vec<(String, Value)>,
    steps: usize,
    moved: usize,
}

/// A value, or that a map has none.
type Found = Option<Value>;

/// The text of nodes for a value.
///
/// With `header`, for the line above a table: functions that change a text leave it.
pub(super) fn render(nodes: &[Node], value: &Value, header: bool) -> Result<String, ExecFault> {
    let mut state = State {
        header,
        out: String::new(),
        variables: vec![(String::new(), value.clone())],
        steps: 0,
        moved: 0,
    };
    state.list(nodes, value)?;
    Ok(state.out)
}

impl State {
    fn list(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, ExecFault> {
        let scope = self.variables.len();
        let mut flow = Flow::Next;
        for node in nodes {
            flow = match node {
                Node::Text(text) => {
                    self.out.push_str(text);
                    Flow::Next
                }
                Node::Action(pipe) => {
                    let value = self.pipeline(pipe, dot)?;
                    if pipe.variables.is_empty() {
                        match value {
                            None | Some(Value::Nil) => self.out.push_str(NO_VALUE),
                            Some(value) => self.out.push_str(&value.to_string()),
                        }
                    }
                    Flow::Next
                }
                Node::If(branch) => self.branch(branch, dot, false)?,
                Node::With(branch) => self.branch(branch, dot, true)?,
                Node::Range(branch) => self.range(branch, dot)?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if !matches!(flow, Flow::Next) {
                break;
            }
        }
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn branch(&mut self, branch: &Branch, dot: &Value, with: bool) -> Result<Flow, ExecFault> {
        let scope = self.variables.len();
        let value = self.pipeline(&branch.pipe, dot)?;
        let flow = match value {
            Some(value) if value.is_true() => {
                self.list(&branch.body, if with { &value } else { dot })
            }
            _ => self.list(&branch.otherwise, dot),
        }?;
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn range(&mut self, branch: &Branch, dot: &Value) -> Result<Flow, ExecFault> {
        let scope = self.variables.len();
        let value = self.commands(&branch.pipe, dot)?.map(Value::settled);
        let entries: Vec<(Value, Value)> = match value {
            None | Some(Value::Nil) => Vec::new(),
            Some(Value::List(list)) => {
                let numbered = list.into_iter().enumerate();
                let number = |i: usize| Value::Int(i128::try_from(i).unwrap_or(i128::MAX));
                numbered.map(|(i, value)| (number(i), value)).collect()
            }
            Some(Value::Map(map)) => map.into_iter().map(|(k, v)| (Value::Text(k), v)).collect(),
            Some(Value::Int(n)) => {
                let n = n.clamp(0, i128::try_from(MAX_STEPS).unwrap_or(0));
                (0..n).map(|i| (Value::Int(i), Value::Int(i))).collect()
            }
            Some(other) => {
                let reason = format!("range can't iterate over {other}");
                return Err(fault(&branch.pipe, reason));
            }
        };
        if entries.is_empty() {
            return self.list(&branch.otherwise, dot);
        }
        for (key, value) in entries {
            self.step(&branch.pipe)?;
            match branch.pipe.variables.as_slice() {
                [] => {}
                [one] => self.set(&branch.pipe, one, value.clone()),
                [first, second, ..] => {
                    self.set(&branch.pipe, first, key);
                    self.set(&branch.pipe, second, value.clone());
                }
            }
            let flow = self.list(&branch.body, &value)?;
            if branch.pipe.declares {
                self.variables.truncate(scope);
            }
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        self.variables.truncate(scope);
        Ok(Flow::Next)
    }

    /// Counts work, so that nested ranges end.
    fn step(&mut self, pipe: &Pipeline) -> Result<(), ExecFault> {
        self.steps += 1;
        if self.steps > MAX_STEPS || self.out.len() > MAX_STEPS.saturating_mul(100) {
            return Err(fault(pipe, "it prints too much"));
        }
        Ok(())
    }

    /// Counts bytes that are moved, as [`State::step`] counts steps.
    fn weigh(&mut self, value: &Value) -> Result<(), &'static str> {
        self.moved = self.moved.saturating_add(value.weight());
        match self.moved > MAX_MOVED {
            true => Err("it looks at too much"),
            false => Ok(()),
        }
    }

    fn set(&mut self, pipe: &Pipeline, name: &str, value: Value) {
        let known = self
            .variables
            .iter_mut()
            .rev()
            .find(|(known, _)| known == name);
        match known {
            Some((_, slot)) if !pipe.declares => *slot = value,
            _ => self.variables.push((name.to_owned(), value)),
        }
    }

    /// The value of a pipeline, its variable set.
    fn pipeline(&mut self, pipe: &Pipeline, dot: &Value) -> Result<Found, ExecFault> {
        let value = self.commands(pipe, dot)?;
        for name in &pipe.variables {
            self.set(pipe, name, value.clone().unwrap_or(Value::Nil));
        }
        Ok(value)
    }

    fn commands(&mut self, pipe: &Pipeline, dot: &Value) -> Result<Found, ExecFault> {
        self.step(pipe)?;
        let mut result: Option<Found> = None;
        for command in &pipe.commands {
            result = Some(self.command(command, dot, result)?);
        }
        Ok(result.flatten())
    }

    /// A function with its arguments, or a value alone.
    fn command(
        &mut self,
        command: &Command,
        dot: &Value,
        last: Option<Found>,
    ) -> Result<Found, ExecFault> {
        let Some((first, rest)) = command.split_first() else {
            return Ok(None);
        };
        let weigh = |state: &mut State, value: &Value| state.weigh(value).map_err(|r| at(first, r));
        let Expr::Function(name) = &first.expr else {
            if !rest.is_empty() || last.is_some() {
                let reason = format!("can't give argument to non-function {}", show(&first.expr));
                return Err(at(first, reason));
            }
            let found = self.operand(first, dot)?;
            found.iter().try_for_each(|value| weigh(self, value))?;
            return Ok(found);
        };
        if name == "and" || name == "or" {
            return self.short_circuit(name == "or", first, rest, dot, last);
        }
        let mut arguments = Vec::new();
        for argument in rest {
            let value = self.operand(argument, dot)?.unwrap_or(Value::Nil);
            weigh(self, &value)?;
            arguments.push(value);
        }
        arguments.extend(last.map(|last| last.unwrap_or(Value::Nil)));
        if name != "json" {
            arguments = arguments.into_iter().map(Value::settled).collect();
        }
        let heading = arguments
            .first()
            .filter(|_| self.header && funcs::keeps_headers(name));
        match heading.map_or_else(|| funcs::call(name, &arguments), |text| Ok(text.clone())) {
            Ok(value) => {
                weigh(self, &value)?;
                Ok(Some(value))
            }
            Err(reason) => Err(at(first, format!("error calling {name}: {reason}"))),
        }
    }

    /// `and`, `or`: arguments after the one that decides are not looked at.
    fn short_circuit(
        &mut self,
        until: bool,
        function: &Operand,
        rest: &[Operand],
        dot: &Value,
        last: Option<Found>,
    ) -> Result<Found, ExecFault> {
        let mut result = None;
        for argument in rest {
            let value = self.operand(argument, dot)?.unwrap_or(Value::Nil);
            if value.is_true() == until {
                return Ok(Some(value));
            }
            result = Some(value);
        }
        match (last, result) {
            (Some(last), _) => Ok(last),
            (None, Some(result)) => Ok(Some(result)),
            (None, None) => Err(at(function, "wrong number of args: want at least 1 got 0")),
        }
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Found, ExecFault> {
        match &operand.expr {
            Expr::Dot => Ok(Some(dot.clone())),
            Expr::Nil => Err(at(operand, "nil is not a command")),
            Expr::Bool(b) => Ok(Some(Value::Bool(*b))),
            Expr::Int(n) => Ok(Some(Value::Int(*n))),
            Expr::Float(n) => Ok(Some(Value::Float(*n))),
            Expr::Text(text) => Ok(Some(Value::Text(text.clone()))),
            Expr::Field(path) => walk(operand, dot, path),
            Expr::Variable(name, path) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                match found {
                    Some((_, value)) => walk(operand, value, path),
                    None => Err(at(operand, format!("undefined variable: ${name}"))),
                }
            }
            Expr::Function(_) => self.command(&vec![operand.clone()], dot, None),
            Expr::Pipe(pipe, path) => match self.commands(pipe, dot)? {
                Some(value) => walk(operand, &value, path),
                None if path.is_empty() => Ok(None),
                None => Err(at(operand, "nil data; no entry for key")),
            },
        }
    }
}

/// Follows fields.
fn walk(operand: &Operand, value: &Value, path: &[String]) -> Result<Found, ExecFault> {
    let mut here = value;
    for (i, name) in path.iter().enumerate() {
        here = match here {
            Value::Record(record) => match record.get(name) {
                Some(value) => value,
                None => return Err(at(operand, format!("map has no entry for key \"{name}\""))),
            },
            Value::Map(map) => match map.get(name) {
                Some(value) => value,
                None if i + 1 == path.len() => return Ok(None),
                None => return Err(at(operand, format!("map has no entry for key \"{name}\""))),
            },
            Value::Unset(Shape::Map) if i + 1 == path.len() => return Ok(None),
            Value::Nil => {
                return Err(at(
                    operand,
                    format!("nil pointer evaluating interface {{}}.{name}"),
                ));
            }
            other => {
                let kind = other.type_name();
                let reason = format!("can't evaluate field {name} in type {kind}");
                return Err(at(operand, reason));
            }
        };
    }
    Ok(Some(here.clone()))
}

fn at(operand: &Operand, reason: impl Into<String>) -> ExecFault {
    ExecFault {
        left: operand.left,
        at: show(&operand.expr),
        reason: reason.into(),
    }
}

fn fault(pipe: &Pipeline, reason: impl Into<String>) -> ExecFault {
    let first = pipe.commands.first().and_then(|command| command.first());
    match first {
        Some(operand) => at(operand, reason),
        None => ExecFault {
            left: 0,
            at: String::new(),
            reason: reason.into(),
        },
    }
}

/// An expression as it was written, more or less.
fn show(expr: &Expr) -> String {
    let fields = |path: &[String]| {
        path.iter()
            .map(|name| format!(".{name}"))
            .collect::<String>()
    };
    match expr {
        Expr::Dot => ".".to_owned(),
        Expr::Nil => "nil".to_owned(),
        Expr::Bool(b) => b.to_string(),
        Expr::Int(n) => n.to_string(),
        Expr::Float(n) => n.to_string(),
        Expr::Text(text) => format!("{text:?}"),
        Expr::Field(path) => fields(path),
        Expr::Variable(name, path) => format!("${name}{}", fields(path)),
        Expr::Function(name) => name.clone(),
        Expr::Pipe(_, path) => format!("(...){}", fields(path)),
    }
}
