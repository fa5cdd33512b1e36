//! Pieces to nodes.

use crate::text::template::lex::{Piece, Placed, Token};
use crate::text::template::{Fault, MAX_DEPTH, funcs};

/// A part of a template.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// As it is.
    Text(String),
    /// Prints a pipeline, or sets a variable.
    Action(Pipeline),
    /// `if`.
    If(Branch),
    /// `with`.
    With(Branch),
    /// `range`.
    Range(Branch),
    /// `break`.
    Break,
    /// `continue`.
    Continue,
}

/// An action with a body.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    /// What decides.
    pub pipe: Pipeline,
    /// When it is true, or for each element.
    pub body: Vec<Node>,
    /// Else.
    pub otherwise: Vec<Node>,
}

/// Commands, each given the result of the one before as its last argument.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    /// Variables set.
    pub variables: Vec<String>,
    /// `:=` rather than `=`.
    pub declares: bool,
    /// Never empty.
    pub commands: Vec<Command>,
}

/// A function or value and its arguments; never empty.
pub(super) type Command = Vec<Operand>;

/// An expression and its place.
#[derive(Debug, Clone)]
pub(super) struct Operand {
    /// The expression.
    pub expr: Expr,
    /// Bytes of the template from its beginning on.
    pub left: usize,
}

/// An operand.
#[derive(Debug, Clone)]
pub(super) enum Expr {
    /// `.`
    Dot,
    /// `nil`
    Nil,
    /// `true`
    Bool(bool),
    /// A number.
    Int(i128),
    /// A number.
    Float(f64),
    /// A string.
    Text(String),
    /// `.A.B`
    Field(Vec<String>),
    /// `$x.A.B`
    Variable(String, Vec<String>),
    /// The name of a function.
    Function(String),
    /// `(...).A`
    Pipe(Box<Pipeline>, Vec<String>),
}

/// The nodes of a template.
pub(super) fn parse(pieces: Vec<Piece>) -> Result<Vec<Node>, Fault> {
    let mut parser = Parser {
        pieces: pieces.into_iter(),
        variables: vec![String::new()],
        ranges: 0,
    };
    match parser.list(0)? {
        (nodes, Stop::Eof) => Ok(nodes),
        (_, Stop::End(left)) => Err(fault(left, "unexpected {{end}}")),
        (_, Stop::Else(left, _)) => Err(fault(left, "unexpected {{else}}")),
    }
}

fn fault(left: usize, reason: impl Into<String>) -> Fault {
    let reason = reason.into();
    Fault { left, reason }
}

/// What ended a list, and where.
enum Stop {
    Eof,
    End(usize),
    /// With the tokens after `else`.
    Else(usize, Vec<Placed>),
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    /// Names in scope; "" is `$`.
    variables: Vec<String>,
    ranges: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    If,
    With,
    Range,
}

impl Kind {
    fn of(word: &str) -> Option<Kind> {
        match word {
            "if" => Some(Kind::If),
            "with" => Some(Kind::With),
            "range" => Some(Kind::Range),
            _ => None,
        }
    }
}

impl Parser {
    fn list(&mut self, depth: usize) -> Result<(Vec<Node>, Stop), Fault> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let mut tokens = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens) => tokens,
            };
            let left = tokens.first().map_or(0, |t| t.left);
            let word = match tokens.first().map(|t| &t.token) {
                Some(Token::Word(word)) => word.clone(),
                _ => String::new(),
            };
            match word.as_str() {
                "end" if tokens.len() == 1 => return Ok((nodes, Stop::End(left))),
                "else" => return Ok((nodes, Stop::Else(left, tokens.split_off(1)))),
                "break" | "continue" if tokens.len() == 1 => {
                    if self.ranges == 0 {
                        return Err(fault(left, format!("{{{{{word}}}}} outside {{{{range}}}}")));
                    }
                    nodes.push(if word == "break" {
                        Node::Break
                    } else {
                        Node::Continue
                    });
                }
                "end" | "break" | "continue" => {
                    return Err(fault(left, format!("unexpected token in {word}")));
                }
                "define" | "template" | "block" => {
                    return Err(fault(left, format!("{{{{{word}}}}} is not supported")));
                }
                word => nodes.push(match Kind::of(word) {
                    Some(kind) => self.branch(kind, tokens.split_off(1), left, depth)?,
                    None => Node::Action(self.pipeline(&tokens, left, depth, 1)?),
                }),
            }
        }
        Ok((nodes, Stop::Eof))
    }

    fn branch(
        &mut self,
        kind: Kind,
        tokens: Vec<Placed>,
        left: usize,
        depth: usize,
    ) -> Result<Node, Fault> {
        if depth >= MAX_DEPTH {
            return Err(fault(left, "nested too deeply"));
        }
        let scope = self.variables.len();
        let most = if kind == Kind::Range { 2 } else { 1 };
        let pipe = self.pipeline(&tokens, left, depth, most)?;
        self.ranges += usize::from(kind == Kind::Range);
        let (body, end) = self.list(depth + 1)?;
        self.ranges -= usize::from(kind == Kind::Range);
        let otherwise = match end {
            Stop::End(_) => Vec::new(),
            Stop::Eof => return Err(fault(0, "unexpected EOF")),
            Stop::Else(left, mut rest) if !rest.is_empty() => {
                // `else if`, `else with`: one `end` for both.
                let again = match rest.first().map(|t| &t.token) {
                    Some(Token::Word(word)) => Kind::of(word),
                    _ => None,
                };
                match again.filter(|again| *again == kind && kind != Kind::Range) {
                    Some(kind) => vec![self.branch(kind, rest.split_off(1), left, depth + 1)?],
                    None => return Err(fault(left, "unexpected token in else")),
                }
            }
            Stop::Else(..) => match self.list(depth + 1)? {
                (nodes, Stop::End(_)) => nodes,
                (_, Stop::Eof) => return Err(fault(0, "unexpected EOF")),
                (_, Stop::Else(left, _)) => {
                    return Err(fault(left, "expected end; found {{else}}"));
                }
            },
        };
        self.variables.truncate(scope);
        let branch = Branch {
            pipe,
            body,
            otherwise,
        };
        Ok(match kind {
            Kind::If => Node::If(branch),
            Kind::With => Node::With(branch),
            Kind::Range => Node::Range(branch),
        })
    }

    /// A whole action. At most `most` variables may be declared.
    fn pipeline(
        &mut self,
        tokens: &[Placed],
        left: usize,
        depth: usize,
        most: usize,
    ) -> Result<Pipeline, Fault> {
        let mut rest = tokens;
        let (variables, declares) = self.declaration(&mut rest, most)?;
        let mut pipe = self.commands(&mut rest, left, depth)?;
        if let Some(extra) = rest.first() {
            return Err(fault(extra.left, "unexpected right paren"));
        }
        if declares {
            self.variables.extend(variables.iter().cloned());
        }
        (pipe.variables, pipe.declares) = (variables, declares);
        Ok(pipe)
    }

    /// `$x :=`, `$x =`, `$i, $x :=`; nothing is consumed if it is none.
    fn declaration(&self, rest: &mut &[Placed], most: usize) -> Result<(Vec<String>, bool), Fault> {
        let mut names = Vec::new();
        let mut at = *rest;
        while let [
            Placed {
                token: Token::Variable(name),
                left,
            },
            sign,
            tail @ ..,
        ] = at
        {
            names.push(name.clone());
            at = tail;
            match sign.token {
                Token::Comma if names.len() < most => {}
                Token::Declare | Token::Assign => {
                    let declares = sign.token == Token::Declare;
                    if !declares
                        && let Some(unknown) = names.iter().find(|n| !self.variables.contains(n))
                    {
                        return Err(fault(*left, format!("undefined variable \"${unknown}\"")));
                    }
                    *rest = tail;
                    return Ok((names, declares));
                }
                Token::Comma => return Err(fault(sign.left, "too many declarations")),
                _ => break,
            }
        }
        Ok((Vec::new(), false))
    }

    /// Commands up to the end or a closing parenthesis, which stays.
    fn commands(&self, rest: &mut &[Placed], left: usize, depth: usize) -> Result<Pipeline, Fault> {
        let mut commands = Vec::new();
        loop {
            let mut command: Command = Vec::new();
            while let [first, ..] = rest {
                if matches!(first.token, Token::Pipe | Token::Close) {
                    break;
                }
                command.push(self.operand(rest, depth)?);
            }
            if command.is_empty() {
                let left = rest.first().map_or(left, |t| t.left);
                return Err(fault(left, "missing value for command"));
            }
            let is_value = |c: &Command| {
                let value = c.first().map(|f| &f.expr);
                !matches!(
                    value,
                    Some(Expr::Function(_) | Expr::Field(_) | Expr::Variable(..) | Expr::Pipe(..))
                )
            };
            if !commands.is_empty() && is_value(&command) {
                let left = command.first().map_or(left, |f| f.left);
                return Err(fault(left, "non executable command in pipeline stage"));
            }
            commands.push(command);
            match rest {
                [
                    Placed {
                        token: Token::Pipe, ..
                    },
                    tail @ ..,
                ] => *rest = tail,
                _ => {
                    return Ok(Pipeline {
                        variables: Vec::new(),
                        declares: false,
                        commands,
                    });
                }
            }
        }
    }

    fn operand(&self, rest: &mut &[Placed], depth: usize) -> Result<Operand, Fault> {
        let Some((Placed { token, left }, tail)) = rest.split_first() else {
            return Err(fault(0, "missing value for command"));
        };
        let left = *left;
        *rest = tail;
        let expr = match token {
            Token::Dot => Expr::Dot,
            Token::Int(n) => Expr::Int(*n),
            Token::Float(n) => Expr::Float(*n),
            Token::Text(text) => Expr::Text(text.clone()),
            Token::Field { name, .. } => {
                let mut path = vec![name.clone()];
                path.extend(fields(rest));
                Expr::Field(path)
            }
            Token::Variable(name) if self.variables.contains(name) => {
                Expr::Variable(name.clone(), fields(rest))
            }
            Token::Variable(name) => {
                return Err(fault(left, format!("undefined variable \"${name}\"")));
            }
            Token::Word(word) => match word.as_str() {
                "true" => Expr::Bool(true),
                "false" => Expr::Bool(false),
                "nil" => Expr::Nil,
                name if funcs::exists(name) => Expr::Function(name.to_owned()),
                name => return Err(fault(left, format!("function \"{name}\" not defined"))),
            },
            Token::Open => {
                if depth >= MAX_DEPTH {
                    return Err(fault(left, "nested too deeply"));
                }
                let inner = self.commands(rest, left, depth + 1)?;
                let [
                    Placed {
                        token: Token::Close,
                        ..
                    },
                    tail @ ..,
                ] = rest
                else {
                    return Err(fault(left, "unclosed left paren"));
                };
                *rest = tail;
                Expr::Pipe(Box::new(inner), fields(rest))
            }
            Token::Close => return Err(fault(left, "unexpected right paren")),
            Token::Pipe | Token::Comma | Token::Declare | Token::Assign => {
                return Err(fault(left, "unexpected token in operand"));
            }
        };
        Ok(Operand { expr, left })
    }
}

/// Fields that follow without a blank.
fn fields(rest: &mut &[Placed]) -> Vec<String> {
    let mut path = Vec::new();
    while let [
        Placed {
            token: Token::Field { name, joined: true },
            ..
        },
        tail @ ..,
    ] = rest
    {
        path.push(name.clone());
        *rest = tail;
    }
    path
}
