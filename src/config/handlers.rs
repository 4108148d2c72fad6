//! The section `handlers`: what each must have, and what it becomes.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::filter::IdGlob;
use crate::log::Plain;
use crate::model::Listener;

use super::Sensor;
use super::check::{Checked, Outline};
use super::globs::bad;
use super::problem::{Problem, Spot, quoted};
use super::schema::{HANDLER, ID_GLOB, Value};
use super::tree::Entry;
use super::typed;

/// How long a run may take, where nothing else is configured.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many events wait for a run.
const QUEUE: usize = 1024;

/// What takes events beside standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    /// Its name.
    pub name: Arc<str>,
    /// The event ids that it takes; all where there is none.
    pub matches: Option<Rc<IdGlob>>,
    /// What it does with them.
    pub action: Action,
}

/// What a handler does with an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Runs a program.
    Exec(Exec),
    /// Appends it to a file, whose path is absolute.
    File(PathBuf),
}

/// How a program is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The program, an absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// When the event's lock is released.
    pub unlock: Unlock,
    /// How long a run may take before it is ended.
    pub timeout: Duration,
    /// How many may run at once.
    pub concurrency: usize,
    /// How many events may wait for a run.
    pub queue: usize,
}

/// When a handler releases the lock of an event's id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unlock {
    /// Never.
    Never,
    /// After a run that ended with status 0.
    OnSuccess,
    /// Whatever became of the event: a run that failed or took too long, a program
    /// that could not be started, a full queue.
    Always,
}

impl Checked<'_> {
    /// The section.
    pub(super) fn handlers(&mut self, section: &Entry<'_>) {
        let value = section.value;
        if value.entries().is_none() && !value.is_null() {
            return self.misfit(section, &Value::Handlers);
        }
        for entry in value.entries().into_iter().flatten() {
            let named = (entry.name.to_owned(), entry.key.spot());
            self.outline.handlers.push(named);
            self.name(&entry, "handler name");
            self.handler(&entry);
        }
    }

    fn handler(&mut self, entry: &Entry<'_>) {
        if entry.value.entries().is_none() && !entry.value.is_null() {
            let what = entry.value.description();
            let found = format!("{what} for handler {}", quoted(entry.name));
            return self.problem(entry.value_spot(), found, "a map with `exec` or `file`");
        }
        self.keys(*entry, HANDLER, "a handler");
        if entry.value.merges() {
            return;
        }
        let exec = entry.value.entry("exec");
        match (exec, entry.value.entry("file")) {
            (Some(_), None) => {}
            (None, None) => {
                let found = format!("{} without `exec` and `file`", quoted(entry.name));
                self.problem(entry.key.spot(), found, "one of them");
            }
            (Some(_), Some(file)) => {
                let found = "`file` beside `exec`";
                self.problem(file.key.spot(), found, "one of them; two handlers do both");
            }
            (None, Some(_)) => {
                for key in ["unlock", "timeout", "concurrency", "queue"] {
                    if let Some(extra) = entry.value.entry(key) {
                        let found = format!("`{key}` beside `file`");
                        self.problem(extra.key.spot(), found, "it beside `exec` alone");
                    }
                }
            }
        }
    }

    /// A glob over event ids.
    pub(super) fn id_glob(&mut self, entry: &Entry<'_>, value: &Value) {
        match entry.value.text().filter(|text| !text.is_empty()) {
            None => self.misfit(entry, value),
            Some(text) => {
                if let Err(error) = IdGlob::new(text) {
                    self.problem(entry.value_spot(), bad(text, &error), value.expected());
                }
            }
        }
    }

    /// A program and its arguments.
    pub(super) fn command(&mut self, entry: &Entry<'_>, value: &Value) {
        let Some(items) = entry.value.items().filter(|items| items.len() > 0) else {
            return self.misfit(entry, value);
        };
        for (at, item) in items.enumerate() {
            let expected = match at {
                0 => "the absolute path of a program",
                _ => "a text (in quotes if it must be this)",
            };
            let fault = match item.text() {
                None => format!("{} in {}", item.description(), quoted(entry.name)),
                Some(text) if at == 0 && !is_path(text) => format!("{} as a program", quoted(text)),
                Some(text) if text.contains('\0') => format!("{} with a NUL", quoted(text)),
                Some(_) => continue,
            };
            self.problem(item.spot(), fault, expected);
        }
    }
}

/// Whether it is an absolute path.
pub(super) fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.ends_with('/') && !text.contains('\0')
}

/// A handler, and where it stands.
pub(super) type Placed = (Arc<Path>, Spot, Handler);

/// The handlers of all files, in their order, and what is wrong with them
/// together: two that append to one file would cut each other's lines.
pub(super) fn handlers(
    files: &mut [(Arc<Path>, Outline, typed::File)],
) -> (Vec<Placed>, Vec<Problem>) {
    let mut handlers: Vec<Placed> = Vec::new();
    let mut problems = Vec::new();
    for (path, outline, file) in files {
        let given = file.handlers.take().map(|given| given.0);
        // The outline has the same names in the same order.
        for ((name, given), (_, spot)) in given.into_iter().flatten().zip(&outline.handlers) {
            let handler = match settle(&name, given) {
                Ok(handler) => handler,
                Err(problem) => {
                    problems.push(problem.of(path).at(*spot));
                    continue;
                }
            };
            let twice = handlers
                .iter()
                .find(|(_, _, other)| same_file(other, &handler));
            if let Some((_, _, twice)) = twice {
                let (one, other) = (quoted(&name), quoted(&twice.name));
                let found = format!("handler {one} with the file of handler {other}");
                let problem = Problem::new(found, "each file once");
                problems.push(problem.of(path).at(*spot));
            }
            handlers.push((Arc::clone(path), *spot, handler));
        }
    }
    (handlers, problems)
}

fn same_file(one: &Handler, other: &Handler) -> bool {
    matches!((&one.action, &other.action), (Action::File(one), Action::File(other)) if one == other)
}

fn settle(name: &str, given: typed::Handler) -> Result<Handler, Problem> {
    let matches = given.matches.as_deref().map(IdGlob::new).transpose();
    // Both have been checked; this is for what the check does not know.
    let matches = matches.map_err(|error| {
        let found = format!("a bad glob ({})", Plain(&error.to_string()));
        Problem::new(found, Value::IdGlob.expected())
    })?;
    let action = match (given.exec, given.file) {
        (Some(mut command), None) if !command.is_empty() => Action::Exec(Exec {
            program: command.remove(0).into(),
            args: command,
            unlock: given.unlock.unwrap_or(Unlock::Never),
            timeout: given.timeout.map_or(TIMEOUT, |period| period.0),
            concurrency: given.concurrency.unwrap_or(1),
            queue: given.queue.unwrap_or(QUEUE),
        }),
        (None, Some(file)) => Action::File(file.into()),
        _ => {
            let found = format!("handler {}", quoted(name));
            return Err(Problem::new(found, "one with either `exec` or `file`"));
        }
    };
    Ok(Handler {
        name: name.into(),
        matches: matches.map(Rc::new),
        action,
    })
}

/// What is legal and cannot be meant: a program that is not there, a glob that no
/// event id of these sensors can match.
pub(super) fn warnings(handlers: &[Placed], sensors: &[Sensor]) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for (path, spot, handler) in handlers {
        let name = quoted(&handler.name);
        let mut warn = |found: String, expected: &str| {
            warnings.push(Problem::new(found, expected).of(path).at(*spot));
        };
        if let Action::Exec(exec) = &handler.action
            && let Some(fault) = fault(&exec.program)
        {
            let program = quoted(&exec.program.to_string_lossy());
            let found = format!("handler {name} with {program}, which {fault}");
            warn(found, "a program that can be run");
        }
        if let Some(glob) = &handler.matches
            && !beginnings(sensors).any(|begin| glob.can_begin(&begin))
        {
            let glob = quoted(glob.as_str());
            let found = format!("handler {name} for {glob}, which no event id here matches");
            warn(found, ID_GLOB);
        }
    }
    warnings
}

/// How the ids of all events begin that there can be.
fn beginnings(sensors: &[Sensor]) -> impl Iterator<Item = String> + '_ {
    let own = ["gap", "degraded", "restored"].map(|action| format!("sockwatch|self|{action}@"));
    let sensors = sensors.iter().flat_map(|sensor| {
        let tag = sensor.tag.as_ref().map(|tag| format!("@{tag}"));
        let actions = match sensor.listener {
            Listener::TcpConnect => vec!["connect"],
            Listener::NetSocket | Listener::Own => {
                [("opened", sensor.opened), ("closed", sensor.closed)]
                    .into_iter()
                    .filter_map(|(action, on)| on.then_some(action))
                    .collect()
            }
        };
        actions.into_iter().map(move |action| {
            let tag = tag.as_deref().unwrap_or_default();
            let listener = sensor.listener.as_str();
            format!("{}|{listener}{tag}|{action}@", sensor.id)
        })
    });
    sensors.chain(own)
}

/// What keeps a program from being run, as far as its file tells.
fn fault(program: &Path) -> Option<String> {
    match fs::metadata(program) {
        Err(error) if error.kind() == ErrorKind::NotFound => Some("does not exist".to_owned()),
        // Whether the daemon may is not for this user to say.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
        Err(error) => Some(format!("cannot be looked at ({error})")),
        Ok(metadata) if !metadata.is_file() => Some("is no file".to_owned()),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
            Some("nobody may execute".to_owned())
        }
        Ok(_) => None,
    }
}
