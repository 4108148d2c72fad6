//! Whether single values are what their keys need.
//!
//! The second half of the check: `check` knows which keys there are and where,
//! this knows what may stand behind them.

use super::check::Checked;
use super::handlers::is_path;
use super::problem::{Problem, quoted};
use super::schema::{self, Item, SOCKET_PATH, Value};
use super::tree::{Entry, Type};
use super::value::{count, duration, limit, name_fault, share, size};

impl Checked<'_> {
    /// A value that is not what its key needs.
    pub(super) fn misfit(&mut self, entry: &Entry<'_>, value: &Value) {
        let found = format!("{} for {}", entry.value.description(), quoted(entry.name));
        self.problem(entry.value_spot(), found, value.expected());
    }

    /// Whether a value fits its key.
    pub(super) fn value(&mut self, value: &Value, entry: Entry<'_>) {
        let text = entry.value.text();
        let written = entry.value.scalar().map(|scalar| scalar.text.as_str());
        let kind = entry.value.scalar().map(|scalar| scalar.kind());
        let good = match value {
            Value::Text => text.is_some(),
            Value::Tag => return self.tag(&entry, value),
            Value::Flag => kind == Some(Type::Boolean),
            Value::Duration(least, most) => text
                .and_then(duration)
                .is_some_and(|it| (*least..=*most).contains(&it)),
            Value::Limit(least, most) => text
                .and_then(limit)
                .is_some_and(|it| it.is_none_or(|it| (*least..=*most).contains(&it))),
            Value::Share => text.and_then(share).is_some(),
            Value::Size(least, most) => written
                .and_then(size)
                .is_some_and(|it| (*least..=*most).contains(&it)),
            Value::Count(least, most) => (kind == Some(Type::Number))
                .then_some(written)
                .flatten()
                .and_then(count)
                .is_some_and(|it| (*least..=*most).contains(&it)),
            Value::Word(words) => return self.word(&entry, value, words),
            Value::SocketPath => text.is_some_and(|text| {
                text.starts_with('/') && text.len() <= SOCKET_PATH && !text.contains('\0')
            }),
            Value::List(Item::Number) => return self.numbers(&entry, value),
            Value::List(item) => return self.list(&entry, value, *item),
            Value::Map(table) => {
                let owner = quoted(entry.name);
                let is_map = entry.value.entries().is_some();
                if is_map {
                    self.keys(entry, table, &owner);
                }
                is_map || entry.value.is_null()
            }
            Value::IdGlob => return self.id_glob(&entry, value),
            Value::Command => return self.command(&entry, value),
            Value::Path => text.is_some_and(is_path),
            // Only at the top level, where `file` handles them.
            Value::Sensors | Value::Handlers => true,
        };
        if !good {
            self.misfit(&entry, value);
        }
    }

    fn tag(&mut self, entry: &Entry<'_>, value: &Value) {
        match entry.value.text() {
            None | Some("") => self.misfit(entry, value),
            Some(text) => {
                if let Some(fault) = name_fault(text) {
                    let found = format!("tag with {fault}");
                    self.problem(entry.value_spot(), found, value.expected());
                }
            }
        }
    }

    fn word(&mut self, entry: &Entry<'_>, value: &Value, words: &[&'static str]) {
        match entry.value.text() {
            Some(text) if words.contains(&text) => {}
            Some(text) if !text.is_empty() => {
                let found = format!("unknown {} {}", entry.name, quoted(text));
                let near = schema::nearest(text, words.iter().copied());
                let problem = Problem::new(found, value.expected()).meant(near);
                self.problems.push(problem.at(entry.value_spot()));
            }
            _ => self.misfit(entry, value),
        }
    }

    /// Numbers of users or groups; -1 is none (chown(2)).
    fn numbers(&mut self, entry: &Entry<'_>, value: &Value) {
        let Some(items) = entry.value.items() else {
            return self.misfit(entry, value);
        };
        let mut seen = Vec::new();
        for item in items {
            let number = item
                .scalar()
                .filter(|scalar| scalar.kind() == Type::Number)
                .and_then(|scalar| count(&scalar.text))
                .and_then(|number| u32::try_from(number).ok())
                .filter(|number| *number != u32::MAX && !seen.contains(number));
            match number {
                Some(number) => seen.push(number),
                None => {
                    let found = format!("{} in {}", item.description(), quoted(entry.name));
                    self.problem(item.spot(), found, Item::Number.expected());
                }
            }
        }
    }

    fn list(&mut self, entry: &Entry<'_>, value: &Value, of: Item) {
        let Some(items) = entry.value.items() else {
            return self.misfit(entry, value);
        };
        if items.len() == 0 && !matches!(of, Item::Glob(_)) {
            return self.misfit(entry, value);
        }
        let mut seen: Vec<&str> = Vec::new();
        for item in items {
            let Some(text) = item.text().filter(|text| !text.is_empty()) else {
                let found = format!("{} in {}", item.description(), quoted(entry.name));
                let quotes = match of {
                    Item::Glob(_) if item.scalar().is_none() => " (in quotes)",
                    _ => "",
                };
                self.problem(item.spot(), found, of.expected() + quotes);
                continue;
            };
            match of {
                Item::Profile => {}
                Item::Glob(subject) => self.glob(item, text, subject),
                Item::Word(words) if !words.contains(&text) => {
                    let found = format!("{} in {}", quoted(text), quoted(entry.name));
                    let near = schema::nearest(text, words.iter().copied());
                    let problem = Problem::new(found, of.expected()).meant(near);
                    self.problems.push(problem.at(item.spot()));
                }
                Item::Word(_) if seen.contains(&text) => {
                    let found = format!("{} again in {}", quoted(text), quoted(entry.name));
                    self.problem(item.spot(), found, "each word once");
                }
                Item::Word(_) => seen.push(text),
                // Those are no texts: `numbers` is for them.
                Item::Number => {}
            }
        }
    }
}
