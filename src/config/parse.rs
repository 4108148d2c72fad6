//! YAML text to a [`Node`] tree.
//!
//! What YAML can do and a configuration has no use for is refused here: tags,
//! merge keys (which serde_yaml would take for a key named `<<`), keys that are
//! lists or maps, a second document. Nesting is bounded while events come in,
//! and so is what aliases expand to, before anything walks it.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::problem::{Position, Problem, Spot, escaped, quoted};
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
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    let mut root = None;
    while let Some(event) = parser.next_event() {
        let step = match event {
            Ok((event, span)) => builder.take(event, position(span.start)),
            Err(error) => Err(not_yaml(&error)),
        };
        match step {
            Ok(Some(node)) => root = Some(node),
            Ok(None) => {}
            Err(problem) => {
                // What was built so far is half a document: judging it would
                // report what is only missing yet.
                builder.problems.push(problem);
                return Document {
                    root: None,
                    problems: builder.problems,
                };
            }
        }
    }
    let most = HEAVIEST.min(builder.nodes.saturating_mul(FACTOR));
    if root.as_ref().is_some_and(|node| node.weight > most) {
        let found = "a document that is too large with its aliases written out";
        let expected = format!("at most {most} values");
        let problem = Problem::new(found, expected).at(Spot::START);
        builder.problems.push(problem);
        root = None;
    }
    Document {
        root,
        problems: builder.problems,
    }
}

/// saphyr counts lines from 1 and columns from 0.
fn position(marker: Marker) -> Position {
    Position::new(marker.line(), marker.col() + 1)
}

fn spot(at: Position) -> Spot {
    Spot { at, via: None }
}

fn not_yaml(error: &ScanError) -> Problem {
    let info = error.info();
    let expected = if info.contains("alias") || info.contains("anchor") {
        "YAML, in which a text that begins with `*` or `&` stands in quotes"
    } else {
        "YAML"
    };
    let found = format!("text that is not YAML ({})", escaped(info));
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

#[derive(Default)]
struct Builder {
    problems: Vec<Problem>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    documents: usize,
    nodes: usize,
}

impl Builder {
    /// Takes one event; returns the root when it is complete.
    fn take(&mut self, event: Event<'_>, at: Position) -> Result<Option<Node>, Problem> {
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
                self.refuse_tag(tag.as_deref(), at);
                let scalar = Scalar {
                    text: text.into_owned(),
                    plain: style == ScalarStyle::Plain,
                };
                self.nodes += 1;
                Ok(self.place(leaf(at, scalar), anchor))
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                self.enter(at, anchor, Inside::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                self.enter(at, anchor, Inside::Map(Vec::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => Ok(self.leave()),
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(None),
        }
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, at: Position) {
        if let Some(tag) = tag {
            let name = if tag.is_yaml_core_schema() {
                format!("!!{}", tag.suffix)
            } else {
                tag.to_string()
            };
            let found = format!("YAML tag {}", quoted(&name));
            self.problems
                .push(Problem::new(found, "a value without a tag").at(spot(at)));
        }
    }

    fn enter(
        &mut self,
        at: Position,
        anchor: usize,
        inside: Inside,
    ) -> Result<Option<Node>, Problem> {
        if self.open.len() == DEEPEST {
            return Err(too_deep(at));
        }
        self.nodes += 1;
        self.open.push(Open { at, anchor, inside });
        Ok(None)
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Result<Option<Node>, Problem> {
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
        self.nodes += 1;
        Ok(self.place(used, 0))
    }

    fn leave(&mut self) -> Option<Node> {
        let open = self.open.pop()?;
        let content = match open.inside {
            Inside::List(items) => Content::List(Rc::new(items)),
            Inside::Map(entries, _) => {
                self.problems.extend(repeated_keys(&entries));
                Content::Map(Rc::new(entries))
            }
        };
        self.place(branch(open.at, content), open.anchor)
    }

    /// Puts a complete node where it belongs; returns it if it is the root.
    fn place(&mut self, node: Node, anchor: usize) -> Option<Node> {
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
                    if let Some(problem) = bad_key(&node) {
                        self.problems.push(problem);
                    }
                    *key = Some(node);
                }
            },
        }
        None
    }
}

fn leaf(at: Position, scalar: Scalar) -> Node {
    Node {
        at,
        via: None,
        content: Content::Scalar(Rc::new(scalar)),
        height: 0,
        weight: 1,
    }
}

fn branch(at: Position, content: Content) -> Node {
    let (mut height, mut weight) = (0, 1_usize);
    let mut count = |node: &Node| {
        height = height.max(node.height);
        weight = weight.saturating_add(node.weight);
    };
    match &content {
        Content::Scalar(_) => {}
        Content::List(items) => items.iter().for_each(&mut count),
        Content::Map(entries) => entries.iter().for_each(|(key, value)| {
            count(key);
            count(value);
        }),
    }
    Node {
        at,
        via: None,
        content,
        height: height + 1,
        weight,
    }
}

fn too_deep(at: Position) -> Problem {
    let found = format!("nesting deeper than {DEEPEST} levels");
    Problem::new(found, "a sensor's few levels").at(spot(at))
}

fn repeated_keys(entries: &[(Node, Node)]) -> Vec<Problem> {
    let mut first: HashMap<&str, Position> = HashMap::new();
    let mut problems = Vec::new();
    for (key, _) in entries {
        let Content::Scalar(scalar) = &key.content else {
            continue;
        };
        // An aliased key is at fault where the alias is.
        let at = key.via.unwrap_or(key.at);
        match first.entry(&scalar.text) {
            Slot::Vacant(slot) => {
                slot.insert(at);
            }
            Slot::Occupied(slot) => {
                let name = quoted(&scalar.text);
                let found = format!("key {name} again (first at {})", slot.get());
                problems.push(Problem::new(found, "each key once").at(spot(at)));
            }
        }
    }
    problems
}

fn bad_key(key: &Node) -> Option<Problem> {
    let here = spot(key.via.unwrap_or(key.at));
    match &key.content {
        Content::Scalar(scalar) if scalar.is_merge() => Some(
            Problem::new(
                "merge key `<<`",
                "keys written out, or an alias for a whole value",
            )
            .at(here),
        ),
        Content::Scalar(_) => None,
        Content::List(_) => Some(Problem::new("a list as a key", "a text").at(here)),
        Content::Map(_) => Some(Problem::new("a map as a key", "a text").at(here)),
    }
}
