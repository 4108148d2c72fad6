//! Holds the tree against serde_yaml's reading of the same text, in tests.
//!
//! Checks are made on the tree, settings come from serde_yaml: a value that was
//! never checked must not get into the settings. Both read with one scanner, so
//! that only what serde_yaml makes of its events could differ. Here it reads along
//! the tree, node by node, and has to see the same texts everywhere.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::parse::parse;
use super::problem::quoted;
use super::text;
use super::tree::{Content, Node};

/// A node that a deserializer must agree with.
struct Same<'t>(&'t Node);

impl<'de> DeserializeSeed<'de> for Same<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match &self.0.content {
            Content::Scalar(_) => deserializer.deserialize_str(self),
            Content::List(_) => deserializer.deserialize_seq(self),
            Content::Map(_) => deserializer.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for Same<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.content {
            Content::Scalar(scalar) => write!(f, "{}", quoted(&scalar.text)),
            Content::List(items) => write!(f, "a list of {}", items.len()),
            Content::Map(entries) => write!(f, "a map of {}", entries.len()),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match &self.0.content {
            Content::Scalar(scalar) if scalar.text == text => Ok(()),
            _ => Err(E::custom(format!(
                "{} is also read as {}",
                Named(self.0),
                quoted(text)
            ))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Content::List(items) = &self.0.content else {
            return Err(A::Error::custom("one reading has a list here"));
        };
        for item in items.iter() {
            if list.next_element_seed(Same(item))?.is_none() {
                return Err(A::Error::custom("one reading has fewer items"));
            }
        }
        match list.next_element::<serde::de::IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(A::Error::custom("one reading has more items")),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Content::Map(entries) = &self.0.content else {
            return Err(A::Error::custom("one reading has a map here"));
        };
        for (key, value) in entries.iter() {
            if map.next_key_seed(Same(key))?.is_none() {
                return Err(A::Error::custom("one reading has fewer keys"));
            }
            map.next_value_seed(Same(value))?;
        }
        match map.next_key::<serde::de::IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(A::Error::custom("one reading has more keys")),
        }
    }
}

/// A node in the words of a message.
struct Named<'t>(&'t Node);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Same(self.0).expecting(f)
    }
}

fn differ(one: &str, other: &str) -> Option<String> {
    let root = parse(one).root.expect("a document");
    Same(&root)
        .deserialize(serde_yaml::Deserializer::from_str(other))
        .err()
        .map(|error| error.to_string())
}

#[test]
fn readings_that_differ_anywhere_are_seen() {
    let text = "a: [x, {y: 1}]\nb: ~\n";
    assert_eq!(differ(text, text), None);
    assert_eq!(differ(text, "{\"a\": ['x', {y: 1}], b: '~'}"), None);
    for other in [
        "a: [x, {y: 2}]\nb: ~\n",
        "a: [x, {z: 1}]\nb: ~\n",
        "a: [x, {y: 1}, x]\nb: ~\n",
        "a: [x]\nb: ~\n",
        "a: [x, {}]\nb: ~\n",
        "a: [x, {y: 1}]\nb: []\n",
        "a: [x, {y: 1}]\n",
        "a: [x, {y: 1}]\nb: ~\nc: 1\n",
        "a: x\nb: ~\n",
    ] {
        assert!(differ(text, other).is_some(), "{other}");
    }
}

#[test]
fn an_anchor_used_twice_is_read_in_two_ways_and_refused() {
    // serde_yaml numbers anchors by how many names it knows, so that `&b` takes
    // the number of the second `&a`.
    let text = "x: &a one\ny: &a two\nz: &b three\nw: *a\n";
    let difference = differ(text, text).expect("a difference");
    assert!(
        difference.contains("`two` is also read as `three`"),
        "{difference}"
    );
    let problems = parse(text).problems;
    assert_eq!(problems.len(), 1);
    assert!(problems[0].to_string().contains("anchor `a` again"));
}

#[test]
fn there_is_one_scanner() {
    let lock = include_str!("../../Cargo.lock");
    assert_eq!(lock.matches("name = \"unsafe-libyaml\"").count(), 1);
}

/// What the changes begin with.
const DOCUMENT: &str = "\
a: &a [x, 'it''s', {y: \"1\\\n  \\t\"}]
b:
  - &b z
  - *a
  - c: >-
      two
      lines

    d: plain
      text # why
  - [*b, p: q]
";

/// What turns one meaning into another.
const PIECES: [&str; 40] = [
    " ", "  ", "\n", "\n  ", "\n", "\r\n", "\r", ":", ": ", ": ", ": ", "- ", "\n- ", "? ", "&a ",
    "*a", "&b ", "*b ", "<<: ", "[", "]", "{", "}", ", ", "\"", "'", "|\n", ">-\n", "|2\n", " # ",
    "---\n", "...\n", "\\", "~", "null", "5", "x", "y", "y: z", "\u{e9}",
];

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 8192,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_not_refused_is_read_alike(
        changes in vec((any::<prop::sample::Index>(), 0..4_usize, select(&PIECES[..])), 0..5),
    ) {
        let mut changed = DOCUMENT.to_owned();
        for (at, cut, piece) in changes {
            let at = at.index(changed.len() + 1);
            let end = (at + cut).min(changed.len());
            if changed.is_char_boundary(at) && changed.is_char_boundary(end) {
                changed.replace_range(at..end, piece);
            }
        }
        let Ok(text) = text::decode(changed.into_bytes()) else {
            return Ok(());
        };
        let document = parse(&text);
        if let (Some(root), true) = (document.root, document.problems.is_empty()) {
            let read = Same(&root).deserialize(serde_yaml::Deserializer::from_str(&text));
            prop_assert!(read.is_ok(), "{} in {:?}", read.unwrap_err(), text);
        }
    }
}
