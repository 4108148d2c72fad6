//! The part of YAML that a configuration may be written in.
//!
//! YAML has notations that a configuration has no use for: tags, merge keys, keys
//! that are lists, keys that stand twice. Some of them are slips of another kind:
//! a pattern without quotes may read as a map whose keys have no values. All are
//! refused here, each with its place.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use crate::sys::yaml::Mark;

use super::parse::{position, spot};
use super::problem::{Position, Problem, quoted};
use super::tree::{Content, Node};

/// How the tags of the core schema begin when they are written out.
const CORE: &str = "tag:yaml.org,2002:";

/// Judges how a document is written, node by node.
pub(super) struct Notation<'t> {
    text: &'t str,
    /// What was found so far; without a file yet.
    pub problems: Vec<Problem>,
}

/// The text from a place on.
pub(super) fn behind(text: &str, at: Mark) -> &str {
    text.get(at.byte..).unwrap_or_default()
}

impl<'t> Notation<'t> {
    /// A judge of this text.
    pub fn of(text: &'t str) -> Notation<'t> {
        Notation {
            text,
            problems: Vec::new(),
        }
    }

    fn problem(&mut self, at: Position, found: impl Into<String>, expected: &str) {
        let problem = Problem::new(found, expected);
        self.problems.push(problem.at(spot(at)));
    }

    /// A key or an anchor that there was before.
    pub fn again(&mut self, what: &str, name: &str, at: Position, first: Position) {
        let found = format!("{what} {} again (first at {first})", quoted(name));
        self.problem(at, found, &format!("each {what} once"));
    }

    /// A tag.
    pub fn tag(&mut self, tag: &str, at: Position) {
        let found = match tag.strip_prefix(CORE) {
            Some(name) => format!("YAML tag {}", quoted(&format!("!!{name}"))),
            None => format!("YAML tag {}", quoted(tag)),
        };
        self.problem(at, found, "a value without a tag");
    }

    /// A key; `end` is where its text ends.
    pub fn key(&mut self, key: &Node, end: Option<Mark>) {
        let at = key.via.unwrap_or(key.at);
        match &key.content {
            Content::List(_) => self.problem(at, "a list as a key", "a text"),
            Content::Map(_) => self.problem(at, "a map as a key", "a text"),
            Content::Scalar(scalar) if scalar.is_merge() => {
                let expected = "keys written out, or an alias for a whole value";
                self.problem(at, "merge key `<<`", expected);
            }
            Content::Scalar(scalar) => {
                let behind = end.map(|end| behind(self.text, end).trim_start_matches([' ', '\t']));
                let one_line = end.is_some_and(|end| position(end).line == at.line);
                if !one_line || !behind.is_some_and(|behind| behind.starts_with(':')) {
                    let found = format!("key {} without its colon behind it", quoted(&scalar.text));
                    let flow = behind.is_some_and(|it| it.starts_with([',', '}']));
                    let expected = if flow {
                        "`key:` on one line, or a pattern in quotes"
                    } else {
                        "`key:` on one line"
                    };
                    self.problem(at, found, expected);
                }
            }
        }
    }

    /// The keys of one map.
    pub fn keys(&mut self, entries: &[(Node, Node)]) {
        let mut first: HashMap<&str, Position> = HashMap::new();
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
                    self.again("key", &scalar.text, at, *slot.get());
                }
            }
        }
    }
}
