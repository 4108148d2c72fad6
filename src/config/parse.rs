//! YAML text to a [`Node`] tree.
//!
//! Nesting is bounded while events come in, and so is what aliases expand to,
//! before anything walks it. The builder only builds; what it is built from is
//! judged by `notation`.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use crate::log::Plain;

use super::notation::Notation;
use super::problem::{Position, Problem, Spot};
use super::text;
use super::tree::{Content, Node, Scalar};

/// The deepest nesting of lists and maps; the schema needs five levels.
const DEEPEST: usize = 16;

/// The most nodes that a document may be with all aliases written out.
const HEAVIEST: usize = 65_536;

/// How many times larger than its text aliases may make a document. serde_yaml
/// gives up at 100 jumps an event.
const FACTOR: usize = 64;

/// What was read of a document.
pub(super) struct Document {
    /// The tree; `None` when the document is empty or was given up.
    pub root: Option<Node>,
    /// What is wrong whatever the keys mean.
    pub problems: Vec<Problem>,
}

/// Reads a document. The problems have no file yet.
pub(super) fn parse(text: &str) -> Document {
    let mut builder = Builder {
        notation: Notation::of(text),
        open: Vec::new(),
        anchors: HashMap::new(),
        documents: 0,
        nodes: 0,
        aliases: false,
    };
    let mut parser = Parser::new_from_str(text);
    let mut root = None;
    while let Some(event) = parser.next_event() {
        let step = match event {
            Ok((event, span)) => builder.take(event, span),
            Err(error) => Err(not_yaml(&error, text)),
        };
        match step {
            Ok(Some(node)) => root = Some(node),
            Ok(None) => {}
            Err(problem) => {
                // What was built so far is half a document: judging it would
                // report what is only missing yet.
                builder.notation.problems.push(problem);
                return Document {
                    root: None,
                    problems: builder.notation.problems,
                };
            }
        }
    }
    let most = HEAVIEST.min(builder.nodes.saturating_mul(FACTOR));
    if root.as_ref().is_some_and(|node| node.weight > most) {
        let found = if builder.aliases {
            "a document that is too large with its aliases written out"
        } else {
            "a document that is too large"
        };
        let expected = format!("at most {most} values");
        let problem = Problem::new(found, expected).at(Spot::START);
        builder.notation.problems.push(problem);
        root = None;
    }
    Document {
        root,
        problems: builder.notation.problems,
    }
}

/// saphyr counts lines from 1 and columns from 0.
pub(super) fn position(marker: Marker) -> Position {
    Position::new(marker.line(), marker.col() + 1)
}

/// The place of text that no alias led to.
pub(super) fn spot(at: Position) -> Spot {
    Spot { at, via: None }
}

fn not_yaml(error: &ScanError, text: &str) -> Problem {
    let info = error.info();
    let line = error.marker().line().saturating_sub(1);
    let line = text::lines(text).nth(line).unwrap_or_default();
    let item = line.trim_start().strip_prefix("- ").map(str::trim_start);
    let pattern = item.is_some_and(|item| item.starts_with(['*', '&', '[', '{']));
    let expected = if pattern || info.contains("alias") || info.contains("anchor") {
        "YAML, in which a pattern stands in quotes if it begins with `*`, `&`, `[` or `{`"
    } else {
        "YAML"
    };
    let found = format!("text that is not YAML ({})", Plain(info));
    Problem::new(found, expected).at(spot(position(*error.marker())))
}

/// A list or map whose end has not come yet.
struct Open {
    at: Position,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    Map(Vec<(Node, Node)>, Option<Node>),
}

struct Builder<'t> {
    notation: Notation<'t>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    documents: usize,
    nodes: usize,
    aliases: bool,
}

impl Builder<'_> {
    /// Takes one event; returns the root when it is complete.
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<Option<Node>, Problem> {
        let at = position(span.start);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let found = "a second YAML document";
                    return Err(Problem::new(found, "one document a file").at(spot(at)));
                }
                Ok(None)
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.notation.node(&span, anchor, tag.as_deref());
                let scalar = Scalar {
                    text: text.into_owned(),
                    plain: style == ScalarStyle::Plain,
                };
                self.notation.scalar(&scalar, at);
                self.nodes += 1;
                Ok(self.place(Node::leaf(at, scalar), anchor, Some(span.end)))
            }
            Event::SequenceStart(anchor, tag) => {
                self.notation.node(&span, anchor, tag.as_deref());
                self.enter(&span, anchor, Inside::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.notation.node(&span, anchor, tag.as_deref());
                self.enter(&span, anchor, Inside::Map(Vec::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => Ok(self.leave()),
            Event::Alias(anchor) => self.alias(anchor, &span),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(None),
        }
    }

    fn enter(
        &mut self,
        span: &Span,
        anchor: usize,
        inside: Inside,
    ) -> Result<Option<Node>, Problem> {
        let at = position(span.start);
        if self.open.len() == DEEPEST {
            return Err(too_deep(at));
        }
        self.nodes += 1;
        self.open.push(Open { at, anchor, inside });
        Ok(None)
    }

    fn alias(&mut self, anchor: usize, span: &Span) -> Result<Option<Node>, Problem> {
        let at = position(span.start);
        let Some(node) = self.anchors.get(&anchor) else {
            let found = "an alias inside the value that it stands for";
            return Err(Problem::new(found, "a value that ends").at(spot(at)));
        };
        if self.open.len() + node.height > DEEPEST {
            return Err(too_deep(at));
        }
        let used = Node {
            via: Some(at),
            ..node.clone()
        };
        self.aliases = true;
        self.nodes += 1;
        Ok(self.place(used, 0, Some(span.end)))
    }

    fn leave(&mut self) -> Option<Node> {
        let open = self.open.pop()?;
        let content = match open.inside {
            Inside::List(items) => Content::List(Rc::new(items)),
            Inside::Map(entries, _) => {
                self.notation.keys(&entries);
                Content::Map(Rc::new(entries))
            }
        };
        self.place(Node::branch(open.at, content), open.anchor, None)
    }

    /// Puts a complete node where it belongs; returns it if it is the root.
    fn place(&mut self, node: Node, anchor: usize, end: Option<Marker>) -> Option<Node> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            return Some(node);
        };
        match &mut parent.inside {
            Inside::List(items) => items.push(node),
            Inside::Map(entries, key) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    self.notation.key(&node, end);
                    *key = Some(node);
                }
            },
        }
        None
    }
}

fn too_deep(at: Position) -> Problem {
    let found = format!("nesting deeper than {DEEPEST} levels");
    Problem::new(found, "a sensor's few levels").at(spot(at))
}
