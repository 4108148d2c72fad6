//! The keys of a configuration, in one table.
//!
//! The checks, the nearest known key and the messages all read it, so that a new
//! key is one line here, one field in `typed` and one in the settings. What is
//! not in it is refused, above all the keys of parts that are not built yet: a
//! key that is accepted and does nothing is a promise broken silently.

use std::time::Duration;

use super::value::{Written, WrittenSize};
use crate::filter::Subject;

/// A key that a map may have.
pub(super) struct Key {
    /// Its name.
    pub name: &'static str,
    /// Another spelling of it.
    pub also: Option<&'static str>,
    /// Whether a map without it is a mistake.
    pub required: bool,
    /// What its value must be.
    pub value: Value,
}

/// What a value must be.
pub(super) enum Value {
    /// Any text.
    Text,
    /// A text that can stand in an event id.
    Tag,
    /// `true` or `false`.
    Flag,
    /// A duration within bounds.
    Duration(Duration, Duration),
    /// A duration within bounds, or `off`.
    Limit(Duration, Duration),
    /// A share of one core, or `off`.
    Share,
    /// A size within bounds, in bytes.
    Size(usize, usize),
    /// A number within bounds.
    Count(usize, usize),
    /// One of these words.
    Word(&'static [&'static str]),
    /// The absolute path of a socket.
    SocketPath,
    /// A list of texts.
    List(Item),
    /// A map with these keys; may be left empty.
    Map(&'static [Key]),
    /// A map of sensor ids.
    Sensors,
    /// A map of handlers' names.
    Handlers,
    /// A glob over event ids.
    IdGlob,
    /// A program and its arguments.
    Command,
    /// An absolute path of a file.
    Path,
}

/// What the items of a list must be.
#[derive(Clone, Copy)]
pub(super) enum Item {
    /// Names of profiles, at least one.
    Profile,
    /// Some of these words, at least one, none twice.
    Word(&'static [&'static str]),
    /// Globs over the tuples of what the sensor watches.
    Glob(Subject),
    /// Numbers of users or groups, none twice.
    Number,
}

/// The keys that tell a file with sections from a plain map of sensor ids.
pub(super) const SECTIONS: &[Key] = &[
    key("sensors", Value::Sensors),
    key("handlers", Value::Handlers),
    key("daemon", Value::Map(DAEMON)),
];

/// The listeners that exist.
pub(super) const LISTENERS: &[&str] = &["net.socket", "net.tcp_connect"];

/// What a sensor of this listener watches; an unknown one is told as such, and
/// what else is wrong is held against the keys of the first.
pub(super) fn subject(listener: Option<&str>) -> Subject {
    match listener {
        Some("net.tcp_connect") => Subject::Connects,
        _ => Subject::Sockets,
    }
}

/// The keys of a sensor that watches this.
pub(super) fn sensor(subject: Subject) -> &'static [Key] {
    match subject {
        Subject::Sockets => SENSOR,
        Subject::Connects => CONNECT,
    }
}

/// Which listener knows a key that this one does not: in the same table of the
/// other.
pub(super) fn elsewhere(name: &str, table: &'static [Key]) -> Option<&'static str> {
    let is = |one: &'static [Key]| std::ptr::eq(one, table);
    let (other, listener) = if is(ARGS) {
        (CONNECT_ARGS, LISTENERS[1])
    } else if is(CONNECT_ARGS) {
        (ARGS, LISTENERS[0])
    } else {
        return None;
    };
    let known = other.iter().any(|key| key.is(name));
    known.then_some(listener)
}

/// The keys of a `net.socket` sensor.
const SENSOR: &[Key] = &[
    key("profile", Value::List(Item::Profile)),
    key("description", Value::Text),
    required("listener", Value::Word(LISTENERS)),
    key("opts", Value::List(Item::Word(&["opened", "closed"]))),
    key("interval", INTERVAL),
    key("tag", Value::Tag),
    key("args", Value::Map(ARGS)),
];

/// The keys of a `net.tcp_connect` sensor.
const CONNECT: &[Key] = &[
    key("profile", Value::List(Item::Profile)),
    key("description", Value::Text),
    required("listener", Value::Word(LISTENERS)),
    key("opts", Value::List(Item::Word(&["connect"]))),
    key("interval", INTERVAL),
    key("tag", Value::Tag),
    key("args", Value::Map(CONNECT_ARGS)),
];

/// The `args` of a `net.tcp_connect` sensor.
const CONNECT_ARGS: &[Key] = &[
    key("patterns", Value::List(Item::Glob(Subject::Connects))),
    key("ignore", Value::List(Item::Glob(Subject::Connects))),
    key("dns", Value::Flag),
    key("locked", Value::Flag),
    key("hook", Value::Word(HOOKS)),
];

/// The hooks that can be forced, in the words of
/// [`Origin`](crate::model::Origin).
const HOOKS: &[&str] = &["lsm", "fentry", "cgroup", "sock_diag"];

/// The `args` of a `net.socket` sensor.
const ARGS: &[Key] = &[
    key("patterns", Value::List(Item::Glob(Subject::Sockets))),
    key("ignore", Value::List(Item::Glob(Subject::Sockets))),
    key("dns", Value::Flag),
    key(
        "dns-ttl",
        Value::Duration(MS_10, Duration::from_secs(24 * 3600)),
    ),
    key(
        "dns-timeout",
        Value::Duration(MS_10, Duration::from_secs(60)),
    ),
    spelled("skip-reverse-dns", "skip_reverse_dns", Value::Flag),
    key("process", Value::Flag),
    key(
        "process-timeout",
        Value::Duration(MS_10, Duration::from_secs(60)),
    ),
    key("cmdline", Value::Flag),
    key("locked", Value::Flag),
    key("initial", Value::Flag),
    key("netns", Value::Word(&["host", "all"])),
];

/// The keys of a handler: `match`, and those of one kind or the other.
pub(super) const HANDLER: &[Key] = &[
    key("match", Value::IdGlob),
    key("exec", Value::Command),
    key("unlock", Value::Word(&["never", "on-success", "always"])),
    key("timeout", Value::Duration(MS_10, Duration::from_secs(3600))),
    key("concurrency", Value::Count(1, 64)),
    key("queue", Value::Count(2, 1 << 16)),
    key("file", Value::Path),
];

/// The keys of `daemon`.
pub(super) const DAEMON: &[Key] = &[
    key("interval", INTERVAL),
    key("receive-buffer", Value::Size(1 << 10, 1 << 30)),
    key("queue", Value::Count(1, 1 << 20)),
    key("cpu-budget", Value::Share),
    key("gate", Value::Limit(MS_10, Duration::from_secs(24 * 3600))),
    key("push-down", Value::Flag),
    key("stdout", Value::Flag),
    key("state", Value::Text),
    key("control", Value::SocketPath),
    key("control-uids", Value::List(Item::Number)),
    key("control-gids", Value::List(Item::Number)),
];

/// The longest path of a socket: `sun_path` of unix(7) and its NUL.
pub(super) const SOCKET_PATH: usize = 107;

const MS_10: Duration = Duration::from_millis(10);
const INTERVAL: Value = Value::Duration(MS_10, Duration::from_secs(3600));

const fn key(name: &'static str, value: Value) -> Key {
    Key {
        name,
        also: None,
        required: false,
        value,
    }
}

const fn required(name: &'static str, value: Value) -> Key {
    Key {
        required: true,
        ..key(name, value)
    }
}

const fn spelled(name: &'static str, also: &'static str, value: Value) -> Key {
    Key {
        also: Some(also),
        ..key(name, value)
    }
}

impl Key {
    /// Whether the key is meant by this name.
    pub fn is(&self, name: &str) -> bool {
        self.name == name || self.also == Some(name)
    }
}

impl Value {
    /// What is expected, in the words of a message.
    pub fn expected(&self) -> String {
        match self {
            Value::Text => "a text".to_owned(),
            Value::Tag => NAME.to_owned(),
            Value::Flag => "`true` or `false`".to_owned(),
            Value::Duration(least, most) => format!(
                "a duration from {} to {}, such as `500ms`, `60s`, `2m` or `1h`",
                Written(*least),
                Written(*most)
            ),
            Value::Limit(least, most) => format!(
                "a duration from {} to {}, such as `30s`, or `off`",
                Written(*least),
                Written(*most)
            ),
            Value::Share => {
                "a share of one core from 1% to 100%, such as `10%`, or `off`".to_owned()
            }
            Value::Size(least, most) => format!(
                "a size from {} to {}, such as `65536`, `64KiB` or `8MiB`",
                WrittenSize(*least),
                WrittenSize(*most)
            ),
            Value::Count(least, most) => format!("a number from {least} to {most}"),
            Value::Word(words) => one_of(words.iter().copied()),
            Value::List(Item::Profile) => "a list of profiles, such as `[default]`".to_owned(),
            Value::List(Item::Word([word])) => format!("a list of `{word}`"),
            Value::List(Item::Word(words)) => format!("a list of {}", words_and(words)),
            Value::List(Item::Glob(subject)) => {
                format!("a list of globs, such as `[{}]`", glob(*subject))
            }
            Value::List(Item::Number) => "a list of numbers, such as `[1000]`".to_owned(),
            Value::SocketPath => format!(
                "an absolute path of at most {SOCKET_PATH} bytes, such as `/run/sockwatch/control.sock`"
            ),
            Value::Map(_) => "a map".to_owned(),
            Value::Sensors => "a map of sensor ids".to_owned(),
            Value::Handlers => "a map of handlers' names".to_owned(),
            Value::IdGlob => ID_GLOB.to_owned(),
            Value::Command => "a list of a program's absolute path and its arguments, such as \
                 `[/usr/bin/logger, --tag, sockets]`"
                .to_owned(),
            Value::Path => "the absolute path of a file".to_owned(),
        }
    }
}

impl Item {
    /// What is expected of one item, in the words of a message.
    pub fn expected(self) -> String {
        match self {
            Item::Profile => "the name of a profile".to_owned(),
            Item::Word(words) => one_of(words.iter().copied()),
            Item::Number => "a number from 0 to 4294967294, each once".to_owned(),
            Item::Glob(subject) => {
                format!("a glob over the tuple, such as `{}`", glob(subject))
            }
        }
    }
}

/// What is expected of an id or a tag.
pub(super) const NAME: &str = "a text without `|`, `@`, white space and control characters";

fn glob(subject: Subject) -> &'static str {
    match subject {
        Subject::Sockets => "\"tcp * *:443 * ESTABLISHED\"",
        Subject::Connects => "\"tcp - *:443 * CONNECT\"",
    }
}

/// What is expected of a glob over event ids.
pub(super) const ID_GLOB: &str =
    "a glob over the event id, such as `\"web|net.socket*|opened@*|0\"`";

/// "`a`" or "one of `a`, `b`".
pub(super) fn one_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [one] => one.clone(),
        many => format!("one of {}", many.join(", ")),
    }
}

fn words_and(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    words.join(" and ")
}

/// The nearest of the known names, if it is near enough to have been meant: a
/// third of the letters may be wrong, or one.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let name: String = name.chars().take(64).collect::<String>().to_lowercase();
    let allowed = (name.chars().count() / 3).max(1);
    known
        .map(|known| (strsim::damerau_levenshtein(&name, known), known))
        .min()
        .filter(|(distance, _)| *distance <= allowed)
        .map(|(_, known)| known.to_owned())
}

/// What may have been meant by an unknown key: a known one that is spelled
/// almost so, or one of this name that belongs into a map below.
pub(super) fn meant(name: &str, table: &'static [Key]) -> Option<String> {
    let below = table.iter().find_map(|key| match key.value {
        Value::Map(inner) if inner.iter().any(|inner| inner.is(name)) => {
            Some(format!("{}.{name}", key.name))
        }
        _ => None,
    });
    below.or_else(|| nearest(name, table.iter().map(|key| key.name)))
}
