//! The part of YAML that a configuration may be written in.
//!
//! YAML has notations that a configuration has no use for (tags, merge keys, keys
//! that are lists), and some that its two parsers read differently: an anchor
//! name used twice, a key whose colon stands on another line, text in brackets
//! that begins with `|`. All are refused here, each with its place, so that the parsers'
//! disagreement is the exception that `agree` reports and not the rule.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use saphyr_parser::{Marker, Span, Tag};

use super::parse::{position, spot};
use super::problem::{Position, Problem, quoted};
use super::text;
use super::tree::{Content, Node, Scalar};

/// Judges how a document is written, node by node.
pub(super) struct Notation<'t> {
    lines: Vec<&'t str>,
    /// The place that was looked at last, and what follows it.
    line: usize,
    column: usize,
    rest: &'t str,
    anchors: HashMap<&'t str, Position>,
    /// What was found so far; without a file yet.
    pub problems: Vec<Problem>,
}

impl<'t> Notation<'t> {
    /// A judge of this text.
    pub fn of(text: &'t str) -> Notation<'t> {
        Notation {
            lines: text::lines(text).collect(),
            line: 0,
            column: 0,
            rest: "",
            anchors: HashMap::new(),
            problems: Vec::new(),
        }
    }

    fn problem(&mut self, at: Position, found: impl Into<String>, expected: &str) {
        let problem = Problem::new(found, expected);
        self.problems.push(problem.at(spot(at)));
    }

    /// The rest of a line from a place on. Places come in the order of the text,
    /// so each line is walked once however long it is.
    fn behind(&mut self, at: Marker) -> &'t str {
        if self.line != at.line() || self.column > at.col() {
            let line = at.line().checked_sub(1).and_then(|n| self.lines.get(n));
            self.rest = line.copied().unwrap_or_default();
            (self.line, self.column) = (at.line(), 0);
        }
        let mut rest = self.rest.chars();
        for _ in self.column..at.col() {
            rest.next();
        }
        (self.column, self.rest) = (at.col(), rest.as_str());
        self.rest
    }

    /// Any node: its tag and the name of its anchor.
    pub fn node(&mut self, span: &Span, anchor: usize, tag: Option<&Tag>) {
        let at = position(span.start);
        if let Some(tag) = tag {
            let name = if tag.is_yaml_core_schema() {
                format!("!!{}", tag.suffix)
            } else {
                tag.to_string()
            };
            let found = format!("YAML tag {}", quoted(&name));
            self.problem(at, found, "a value without a tag");
        }
        // A node begins with its anchor, unless a tag comes first.
        let rest = self.behind(span.start);
        let Some(name) = rest.strip_prefix('&').filter(|_| anchor != 0) else {
            return;
        };
        let end = name.find(|c: char| c.is_whitespace() || ",[]{}".contains(c));
        let (name, _) = name.split_at(end.unwrap_or(name.len()));
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if !name.chars().all(word) {
            let found = format!("anchor {}", quoted(name));
            self.problem(at, found, "letters, digits, `-` and `_`");
        }
        match self.anchors.entry(name) {
            Slot::Vacant(slot) => {
                slot.insert(at);
            }
            Slot::Occupied(slot) => {
                let found = format!("anchor {} again (first at {})", quoted(name), slot.get());
                self.problem(at, found, "each anchor once");
            }
        }
    }

    /// A scalar.
    pub fn scalar(&mut self, scalar: &Scalar, at: Position) {
        let Some(first) = scalar.text.chars().next().filter(|_| scalar.plain) else {
            return;
        };
        if matches!(first, ':' | '|' | '>') {
            let found = format!("text {} that begins with `{first}`", quoted(&scalar.text));
            let expected = match first {
                ':' => "the whole of it, such as a pattern, in quotes",
                _ => "it in quotes",
            };
            self.problem(at, found, expected);
        }
    }

    /// A key; `end` is where its text ends.
    pub fn key(&mut self, key: &Node, end: Option<Marker>) {
        let at = key.via.unwrap_or(key.at);
        match &key.content {
            Content::List(_) => self.problem(at, "a list as a key", "a text"),
            Content::Map(_) => self.problem(at, "a map as a key", "a text"),
            Content::Scalar(scalar) if scalar.is_merge() => {
                let expected = "keys written out, or an alias for a whole value";
                self.problem(at, "merge key `<<`", expected);
            }
            Content::Scalar(scalar) => {
                let behind = end.map(|end| self.behind(end).trim_start());
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
                    let name = quoted(&scalar.text);
                    let found = format!("key {name} again (first at {})", slot.get());
                    self.problem(at, found, "each key once");
                }
            }
        }
    }
}
