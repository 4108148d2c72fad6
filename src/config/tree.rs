//! A YAML document in which everything knows where it stands.
//!
//! serde_yaml keeps the position of its first error and of nothing else, so the
//! checks walk this tree. An alias shares the value of its anchor: it costs one
//! node however large the value is, and [`View`] remembers on the way down
//! through which alias a value was reached.

use std::rc::Rc;

use super::problem::{Position, Spot, quoted};

/// A value or a key.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Where its text begins (with its anchor, if it has one).
    pub at: Position,
    /// The alias that stands for it here.
    pub via: Option<Position>,
    /// What it is.
    pub content: Content,
    /// How many levels of lists and maps it has.
    pub height: usize,
    /// How many nodes it is, with all aliases written out.
    pub weight: usize,
}

impl Node {
    /// A scalar.
    pub fn leaf(at: Position, scalar: Scalar) -> Node {
        Node {
            at,
            via: None,
            content: Content::Scalar(Rc::new(scalar)),
            height: 0,
            weight: 1,
        }
    }

    /// A list or map of nodes that are complete.
    pub fn branch(at: Position, content: Content) -> Node {
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
}

/// What a node is.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// A text, number, boolean or nothing.
    Scalar(Rc<Scalar>),
    /// A list.
    List(Rc<Vec<Node>>),
    /// A map, in the order of the file.
    Map(Rc<Vec<(Node, Node)>>),
}

/// A scalar as it is written.
#[derive(Debug)]
pub(super) struct Scalar {
    /// Its text, without quotes and with escapes resolved.
    pub text: String,
    /// Written without quotes, so that its text decides what it is.
    pub plain: bool,
}

/// What a scalar is by the core schema of YAML 1.2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Type {
    /// Nothing, or `null`.
    Null,
    /// `true` or `false`; `yes` and `on` are texts.
    Boolean,
    /// A number of any notation.
    Number,
    /// Anything else, and everything in quotes.
    Text,
}

impl Scalar {
    /// As a key, asks to merge another map in.
    pub fn is_merge(&self) -> bool {
        self.plain && self.text == "<<"
    }

    /// Decides the type of the scalar as serde_yaml does.
    pub fn kind(&self) -> Type {
        if !self.plain {
            return Type::Text;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Type::Null,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Type::Boolean,
            text if is_number(text) => Type::Number,
            _ => Type::Text,
        }
    }
}

/// Decimal, hexadecimal, octal, binary, with a fraction or exponent, infinite or
/// not a number.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = unsigned.strip_prefix(prefix) {
            return !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        }
    }
    match unsigned {
        ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN" => true,
        // Rust's own words for the last two begin with a letter.
        _ => {
            unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
                && unsigned.parse::<f64>().is_ok()
        }
    }
}

/// A node and the nearest alias on the way to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'t> {
    node: &'t Node,
    via: Option<Position>,
}

impl<'t> View<'t> {
    /// The root of a document.
    pub fn root(node: &'t Node) -> View<'t> {
        View {
            node,
            via: node.via,
        }
    }

    fn child(self, node: &'t Node) -> View<'t> {
        View {
            node,
            via: node.via.or(self.via),
        }
    }

    /// Where it is, for a message.
    pub fn spot(self) -> Spot {
        Spot {
            at: self.node.at,
            via: self.via,
        }
    }

    /// The scalar, if it is one.
    pub fn scalar(self) -> Option<&'t Scalar> {
        match &self.node.content {
            Content::Scalar(scalar) => Some(scalar),
            Content::List(_) | Content::Map(_) => None,
        }
    }

    /// The text, if it is a scalar that is a text.
    pub fn text(self) -> Option<&'t str> {
        self.scalar()
            .filter(|scalar| scalar.kind() == Type::Text)
            .map(|scalar| scalar.text.as_str())
    }

    /// Whether nothing stands where a value should.
    pub fn is_null(self) -> bool {
        self.scalar().is_some_and(|s| s.kind() == Type::Null)
    }

    /// The items, if it is a list.
    pub fn items(self) -> Option<impl ExactSizeIterator<Item = View<'t>>> {
        match &self.node.content {
            Content::List(items) => Some(items.iter().map(move |item| self.child(item))),
            Content::Scalar(_) | Content::Map(_) => None,
        }
    }

    /// The keys and values, if it is a map. Lists, maps and `<<` as keys have been
    /// reported when the tree was built and are left out.
    pub fn entries(self) -> Option<impl Iterator<Item = Entry<'t>>> {
        match &self.node.content {
            Content::Map(entries) => Some(entries.iter().filter_map(move |(key, value)| {
                let key = self.child(key);
                let scalar = key.scalar().filter(|scalar| !scalar.is_merge())?;
                Some(Entry {
                    name: scalar.text.as_str(),
                    key,
                    value: self.child(value),
                })
            })),
            Content::Scalar(_) | Content::List(_) => None,
        }
    }

    /// Whether it is a map into which others are merged.
    pub fn merges(self) -> bool {
        match &self.node.content {
            Content::Map(entries) => entries.iter().any(
                |(key, _)| matches!(&key.content, Content::Scalar(scalar) if scalar.is_merge()),
            ),
            Content::Scalar(_) | Content::List(_) => false,
        }
    }

    /// The entry of this name, if it is a map that has one.
    pub fn entry(self, name: &str) -> Option<Entry<'t>> {
        self.entries()?.find(|entry| entry.name == name)
    }

    /// What it is, in the words of a message.
    pub fn description(self) -> String {
        match &self.node.content {
            Content::Scalar(scalar) => match scalar.kind() {
                Type::Null if scalar.text.is_empty() => "nothing".to_owned(),
                Type::Null => format!("nothing ({})", quoted(&scalar.text)),
                Type::Boolean => format!("boolean {}", quoted(&scalar.text)),
                Type::Number => format!("number {}", quoted(&scalar.text)),
                Type::Text if scalar.text.is_empty() => "an empty text".to_owned(),
                Type::Text => format!("text {}", quoted(&scalar.text)),
            },
            Content::List(items) if items.is_empty() => "an empty list".to_owned(),
            Content::List(_) => "a list".to_owned(),
            Content::Map(_) => "a map".to_owned(),
        }
    }
}

/// One entry of a map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'t> {
    /// The text of the key.
    pub name: &'t str,
    /// The key.
    pub key: View<'t>,
    /// The value.
    pub value: View<'t>,
}

impl Entry<'_> {
    /// Where to look for the value: nothing stands nowhere, so that the key is
    /// named in its place.
    pub fn value_spot(self) -> Spot {
        if self.value.is_null() && self.value.node.via.is_none() {
            self.key.spot()
        } else {
            self.value.spot()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_have_the_type_that_serde_yaml_sees() {
        for (text, kind) in [
            ("", Type::Null),
            ("~", Type::Null),
            ("yes", Type::Text),
            ("True", Type::Boolean),
            ("5", Type::Number),
            ("-5.5e3", Type::Number),
            ("0x1F", Type::Number),
            (".nan", Type::Number),
            ("inf", Type::Text),
            ("60s", Type::Text),
            ("10.0.0.1", Type::Text),
            (".", Type::Text),
        ] {
            let scalar = Scalar {
                text: text.to_owned(),
                plain: true,
            };
            assert_eq!(scalar.kind(), kind, "{text}");
            let value: serde_yaml::Value = serde_yaml::from_str(text).expect("one scalar");
            let theirs = match value {
                serde_yaml::Value::Null => Type::Null,
                serde_yaml::Value::Bool(_) => Type::Boolean,
                serde_yaml::Value::Number(_) => Type::Number,
                _ => Type::Text,
            };
            assert_eq!(theirs, kind, "{text}");
        }
    }
}
