//! YAML text to a [`Node`] tree.
//!
//! Nesting is bounded while events come in, and so is what aliases expand to,
//! before anything walks it. The builder only builds; what it is built from is
//! judged by `notation`.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::rc::Rc;

use crate::log::Plain;
use crate::sys::yaml::{Event, Fault, Mark, Prefix, Step, Yaml};

use super::notation::{self, Notation};
use super::problem::{Position, Problem, Spot, quoted};
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
    let mut root = None;
    for event in Yaml::new(text) {
        let step = match event {
            Ok(event) => builder.take(event),
            Err(fault) => Err(not_yaml(&fault, text)),
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

/// The position of a mark.
pub(super) fn position(mark: Mark) -> Position {
    Position::new(mark.line, mark.column)
}

/// The place of text that no alias led to.
pub(super) fn spot(at: Position) -> Spot {
    Spot { at, via: None }
}

fn not_yaml(fault: &Fault, text: &str) -> Problem {
    let (context, start) = match &fault.within {
        Some((context, start)) => (context.as_str(), *start),
        None => ("", fault.at),
    };
    if context == "while scanning an anchor" {
        let name = notation::behind(text, start).strip_prefix('&');
        let ends = |c: char| c.is_whitespace() || ",[]{}".contains(c);
        let name = name.and_then(|name| name.split(ends).next());
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            let found = format!("anchor {}", quoted(name));
            return Problem::new(found, "letters, digits, `-` and `_`").at(spot(position(start)));
        }
    }
    // What is missing at the end of the text was begun somewhere, a key whose colon
    // is missed may stand lines above, and what is no alias is most often a pattern.
    let alias = context == "while scanning an alias";
    let key = context == "while scanning a simple key";
    let ended = text.trim_end().len() <= fault.at.byte;
    let at = position(if alias || key || ended {
        start
    } else {
        fault.at
    });
    let line = text::lines(text).nth(at.line as usize - 1);
    let line = line.unwrap_or_default().trim_start();
    let item = line.strip_prefix("- ").map(str::trim_start);
    let pattern = item.is_some_and(|item| item.starts_with(['*', '&', '[', '{']));
    let expected = if pattern || alias {
        "YAML, in which a pattern stands in quotes if it begins with `*`, `&`, `[` or `{`"
    } else {
        "YAML"
    };
    let comma = if context.is_empty() { "" } else { ", " };
    let info = format!("{context}{comma}{}", fault.problem);
    let found = format!("text that is not YAML ({})", Plain(&info));
    Problem::new(found, expected).at(spot(at))
}

/// A list or map whose end has not come yet.
struct Open {
    at: Position,
    anchor: Option<String>,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    Map(Vec<(Node, Node)>, Option<Node>),
}

/// What an anchor stands for.
struct Anchor {
    at: Position,
    /// `None` until it has ended.
    node: Option<Node>,
}

struct Builder<'t> {
    notation: Notation<'t>,
    open: Vec<Open>,
    anchors: HashMap<String, Anchor>,
    documents: usize,
    nodes: usize,
    aliases: bool,
}

impl Builder<'_> {
    /// Takes one event; returns the root when it is complete.
    fn take(&mut self, event: Event) -> Result<Option<Node>, Problem> {
        let at = position(event.start);
        match event.step {
            Step::Document => {
                self.documents += 1;
                if self.documents > 1 {
                    let found = "a second YAML document";
                    return Err(Problem::new(found, "one document a file").at(spot(at)));
                }
                Ok(None)
            }
            Step::Scalar(prefix, text, plain) => {
                let anchor = self.begin(prefix, at);
                self.nodes += 1;
                let node = Node::leaf(at, Scalar { text, plain });
                Ok(self.place(node, anchor, Some(event.end)))
            }
            Step::List(prefix) => self.enter(prefix, at, Inside::List(Vec::new())),
            Step::Map(prefix) => self.enter(prefix, at, Inside::Map(Vec::new(), None)),
            Step::End => Ok(self.leave()),
            Step::Alias(name) => self.alias(&name, at, event.end),
        }
    }

    /// Takes what stands before a node; returns its anchor.
    fn begin(&mut self, prefix: Prefix, at: Position) -> Option<String> {
        if let Some(tag) = &prefix.tag {
            self.notation.tag(tag, at);
        }
        let name = prefix.anchor?;
        match self.anchors.entry(name.clone()) {
            Slot::Vacant(slot) => {
                slot.insert(Anchor { at, node: None });
            }
            // serde_yaml loses count of anchors then, and takes one for another.
            Slot::Occupied(slot) => self.notation.again("anchor", &name, at, slot.get().at),
        }
        Some(name)
    }

    fn enter(
        &mut self,
        prefix: Prefix,
        at: Position,
        inside: Inside,
    ) -> Result<Option<Node>, Problem> {
        let anchor = self.begin(prefix, at);
        if self.open.len() == DEEPEST {
            return Err(too_deep(at));
        }
        self.nodes += 1;
        self.open.push(Open { at, anchor, inside });
        Ok(None)
    }

    fn alias(&mut self, name: &str, at: Position, end: Mark) -> Result<Option<Node>, Problem> {
        let wrong =
            |found: String, expected: String| Err(Problem::new(found, expected).at(spot(at)));
        let Some(anchor) = self.anchors.get(name) else {
            return wrong(
                format!("alias {} without its anchor", quoted(name)),
                format!(
                    "{} before it, or a pattern in quotes",
                    quoted(&format!("&{name}"))
                ),
            );
        };
        let Some(node) = &anchor.node else {
            let found = "an alias inside the value that it stands for";
            return wrong(found.to_owned(), "a value that ends".to_owned());
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
        Ok(self.place(used, None, Some(end)))
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
    fn place(&mut self, node: Node, anchor: Option<String>, end: Option<Mark>) -> Option<Node> {
        if let Some(anchor) = anchor.and_then(|name| self.anchors.get_mut(&name)) {
            anchor.node = Some(node.clone());
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
