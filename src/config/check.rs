//! Walks a tree against the schema and collects every mistake in it.
//!
//! A sensor that a profile leaves out is checked like any other, and one mistake
//! never hides the next: nothing here returns early.

use crate::filter::{Globs, Subject};

use super::problem::{Problem, Spot, quoted};
use super::schema::{self, DAEMON, HANDLER, Key, SECTIONS, Value};
use super::tree::{Entry, Type, View};
use super::value;

/// How a file is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// A map of sensor ids.
    Plain,
    /// The top-level keys `sensors`, `handlers` and `daemon`.
    Sections,
}

/// What a file defines, with places: for what only several files together can
/// get wrong.
#[derive(Debug)]
pub(super) struct Outline {
    /// The layout.
    pub shape: Shape,
    /// The ids, and where each stands.
    pub sensors: Vec<(String, Spot)>,
    /// The names of handlers, and where each stands.
    pub handlers: Vec<(String, Spot)>,
    /// The keys of `daemon`, and where each stands.
    pub daemon: Vec<(&'static str, Spot)>,
}

/// What a check found.
#[derive(Debug)]
pub(super) struct Checked<'g> {
    /// The globs of all files.
    pub globs: &'g Globs,
    /// What the file defines.
    pub outline: Outline,
    /// The mistakes; they have no file yet.
    pub problems: Vec<Problem>,
    /// What is legal and cannot be meant.
    pub warnings: Vec<Problem>,
}

/// Checks the root of a file.
pub(super) fn check<'g>(root: View<'_>, globs: &'g Globs) -> Checked<'g> {
    let mut checked = Checked {
        globs,
        outline: Outline {
            shape: Shape::Plain,
            sensors: Vec::new(),
            handlers: Vec::new(),
            daemon: Vec::new(),
        },
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    if root.is_null() {
        checked.empty(root.spot());
    } else if root.entries().is_none() {
        checked.problem(
            root.spot(),
            format!("{} at the top level", root.description()),
            "a map of sensor ids, or `sensors`, `handlers` and `daemon`",
        );
    } else {
        checked.file(root);
    }
    checked
}

fn section(name: &str) -> Option<&'static Key> {
    SECTIONS.iter().find(|key| key.is(name))
}

/// A map with a `listener` is a sensor, wherever it stands.
fn is_sensor(value: View<'_>) -> bool {
    value.entry("listener").is_some()
}

/// Whether a top-level key must be a section that was misspelled: it is almost
/// one, and below it stands what that section holds. A near miss alone is not
/// enough: `sensor1` may be the id of a sensor whose listener is missing.
fn misspelled_section(entry: &Entry<'_>) -> bool {
    if section(entry.name).is_some() || is_sensor(entry.value) {
        return false;
    }
    let near = schema::nearest(entry.name, SECTIONS.iter().map(|key| key.name));
    let below = || entry.value.entries().into_iter().flatten();
    match near.as_deref().and_then(section).map(|key| &key.value) {
        Some(Value::Sensors) => below().any(|entry| is_sensor(entry.value)),
        Some(Value::Handlers) => below()
            .flat_map(|entry| entry.value.entries().into_iter().flatten())
            .any(|entry| HANDLER.iter().any(|key| key.is(entry.name))),
        Some(_) => below().any(|entry| DAEMON.iter().any(|key| key.is(entry.name))),
        None => false,
    }
}

impl Checked<'_> {
    pub(super) fn problem(
        &mut self,
        spot: Spot,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) {
        self.problems.push(Problem::new(found, expected).at(spot));
    }

    fn empty(&mut self, spot: Spot) {
        self.problems.push(empty(spot));
    }

    fn file(&mut self, root: View<'_>) {
        let sections = root
            .entries()
            .into_iter()
            .flatten()
            .any(|entry| section(entry.name).is_some() || misspelled_section(&entry));
        if !sections {
            return self.sensors(root, root.spot());
        }
        self.outline.shape = Shape::Sections;
        for entry in root.entries().into_iter().flatten() {
            match section(entry.name).map(|key| &key.value) {
                Some(Value::Sensors) => match entry.value.entries() {
                    Some(_) => self.sensors(entry.value, entry.key.spot()),
                    None if entry.value.is_null() => self.empty(entry.key.spot()),
                    None => self.misfit(&entry, &Value::Sensors),
                },
                Some(Value::Handlers) => self.handlers(&entry),
                Some(value) => {
                    self.value(value, entry);
                    self.daemon(entry.value);
                }
                None => self.stray(&entry),
            }
        }
    }

    /// A top-level key beside the sections.
    fn stray(&mut self, entry: &Entry<'_>) {
        let sections = SECTIONS.iter().map(|key| key.name);
        if is_sensor(entry.value) {
            let found = format!("sensor {} beside the sections", quoted(entry.name));
            self.problem(entry.key.spot(), found, "it under `sensors`");
            self.sensor(entry);
        } else {
            let near = schema::nearest(entry.name, sections.clone());
            let found = format!("unknown key {} at the top level", quoted(entry.name));
            let problem = Problem::new(found, schema::one_of(sections)).meant(near);
            self.problems.push(problem.at(entry.key.spot()));
        }
    }

    fn sensors(&mut self, map: View<'_>, whole: Spot) {
        let mut none = true;
        for entry in map.entries().into_iter().flatten() {
            none = false;
            self.id(&entry);
            self.sensor(&entry);
        }
        if none {
            self.empty(whole);
        }
    }

    fn id(&mut self, entry: &Entry<'_>) {
        let spot = entry.key.spot();
        let named = (entry.name.to_owned(), spot);
        self.outline.sensors.push(named);
        if entry.name == "sockwatch" {
            let found = "reserved sensor id `sockwatch`";
            self.problem(spot, found, "another one: sockwatch's own records have it");
        }
        self.name(entry, "sensor id");
    }

    /// A key that names something; `what` says what.
    pub(super) fn name(&mut self, entry: &Entry<'_>, what: &str) {
        let spot = entry.key.spot();
        match entry.key.scalar().map(|scalar| scalar.kind()) {
            Some(Type::Text) | None => {}
            Some(_) => {
                let found = format!("{} for a {what}", entry.key.description());
                return self.problem(spot, found, "a text (in quotes if it must be this)");
            }
        }
        if entry.name.is_empty() {
            self.problem(spot, format!("an empty {what}"), schema::NAME);
        } else if let Some(fault) = value::name_fault(entry.name) {
            self.problem(spot, format!("{what} with {fault}"), schema::NAME);
        }
    }

    fn sensor(&mut self, entry: &Entry<'_>) {
        if entry.value.entries().is_none() && !entry.value.is_null() {
            let what = entry.value.description();
            let found = format!("{what} for sensor {}", quoted(entry.name));
            return self.problem(entry.value_spot(), found, "a map with `listener`");
        }
        let listener = entry.value.entry("listener");
        let subject = schema::subject(listener.and_then(|it| it.value.text()));
        self.keys(*entry, schema::sensor(subject), "a sensor");
        if let Some(args) = entry.value.entry("args") {
            self.hosts(args.value, subject);
            if subject == Subject::Sockets {
                self.minisockets(args.value);
            }
        }
    }

    fn daemon(&mut self, map: View<'_>) {
        for entry in map.entries().into_iter().flatten() {
            if let Some(key) = DAEMON.iter().find(|key| key.is(entry.name)) {
                let setting = (key.name, entry.key.spot());
                self.outline.daemon.push(setting);
            }
        }
    }

    /// The keys of a map, and what they hold; `owner` says whose they are.
    pub(super) fn keys(&mut self, map: Entry<'_>, table: &'static [Key], owner: &str) {
        let mut seen: Vec<(&Key, Entry<'_>)> = Vec::new();
        for entry in map.value.entries().into_iter().flatten() {
            let Some(key) = table.iter().find(|key| key.is(entry.name)) else {
                self.unknown_key(&entry, table, owner);
                continue;
            };
            let other = seen
                .iter()
                .find(|(known, earlier)| known.name == key.name && earlier.name != entry.name);
            if let Some((_, other)) = other {
                let place = other.key.spot().at;
                let found = format!("`{}` beside `{}` (at {place})", entry.name, other.name);
                self.problem(entry.key.spot(), found, "one spelling of one key");
            }
            if !seen.iter().any(|(_, earlier)| earlier.name == entry.name) {
                seen.push((key, entry));
            }
            self.value(&key.value, entry);
        }
        // What a merge key would bring is not known, and the key itself is told.
        let complete = !map.value.merges();
        for key in table.iter().filter(|key| key.required && complete) {
            if !seen.iter().any(|(known, _)| known.name == key.name) {
                let found = format!("{} without `{}`", quoted(map.name), key.name);
                let expected = format!("`{}` with {}", key.name, key.value.expected());
                self.problem(map.key.spot(), found, expected);
            }
        }
    }

    fn unknown_key(&mut self, entry: &Entry<'_>, table: &'static [Key], owner: &str) {
        if let Some(listener) = schema::elsewhere(entry.name, table) {
            let name = quoted(entry.name);
            let found = format!("key {name} in {owner}, which only a {listener} sensor has");
            let expected = schema::one_of(table.iter().map(|key| key.name));
            return self.problem(entry.key.spot(), found, expected);
        }
        let found = format!("unknown key {} in {owner}", quoted(entry.name));
        let expected = schema::one_of(table.iter().map(|key| key.name));
        let problem = Problem::new(found, expected).meant(schema::meant(entry.name, table));
        self.problems.push(problem.at(entry.key.spot()));
    }
}

/// The problem of a file, or a section, that holds nothing.
pub(super) fn empty(spot: Spot) -> Problem {
    Problem::new("no sensor at all", "at least one sensor id").at(spot)
}
