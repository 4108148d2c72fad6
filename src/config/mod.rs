//! YAML text to settings, or to every mistake in it.
//!
//! A typo must not widen or narrow what is watched without a word. So unknown
//! keys and values are fatal, nothing has a lenient reading, and whoever writes a
//! configuration is told of all mistakes at once, each with its position, what
//! stands there, what was expected and the nearest known key.
//!
//! A file goes through these steps, each in a module of its own:
//!
//! 1. `text`: bytes to text that every YAML parser reads alike;
//! 2. `parse`, `notation`, `tree`: a tree in which everything knows its position,
//!    from the scanner that serde_yaml reads with;
//! 3. `check`, `fit`, `schema`, `value`: the tree against the table of keys;
//! 4. `typed`: the values, through serde_yaml;
//! 5. `merge`, `handlers`: several files and the profiles to one list of each.
//!
//! A value behind an alias is checked wherever it is used. A mistake in it is
//! told once, at the anchor, if the anchor's own place shows it too; otherwise
//! the message names the alias that makes it one.

#[cfg(test)]
mod agree;
mod builtin;
mod check;
mod fit;
mod globs;
mod handlers;
mod merge;
mod notation;
mod parse;
mod problem;
mod schema;
mod text;
mod tree;
mod typed;
mod value;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::filter::{Filter, Globs};
use crate::model::{Listener, Needs, Origin, Proto, StateGroups};

pub use builtin::builtin;
use check::Outline;
pub use handlers::{Action, Exec, Handler, Unlock};
pub use problem::{Position, Problem};
pub(crate) use schema::nearest;
use tree::View;

/// The tick, where nothing else is configured.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long ticks may go without a dump.
const GATE: Duration = Duration::from_secs(30);
/// How long a reverse name, or that there is none, is kept.
const DNS_TTL: Duration = Duration::from_secs(60);
/// How long an event waits for its reverse name.
const DNS_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an event waits for its process.
const PROCESS_TIMEOUT: Duration = Duration::from_millis(250);

/// What a daemon or a dump runs on.
#[derive(Debug)]
pub struct Settings {
    /// The sensors that apply, in the order of the files; at least one, and at
    /// most [`SensorIx::MAX`](crate::model::SensorIx::MAX).
    pub sensors: Vec<Sensor>,
    /// What takes events beside standard output, in the order of the files.
    pub handlers: Vec<Handler>,
    /// What does not belong to one sensor.
    pub daemon: Daemon,
    /// What is legal but cannot do what it seems to be meant for.
    pub warnings: Vec<Problem>,
}

/// One sensor, with every default filled in. What its listener knows nothing of
/// is false or none.
#[derive(Debug)]
pub struct Sensor {
    /// Its id.
    pub id: Arc<str>,
    /// What it watches: sockets or connect() calls.
    pub listener: Listener,
    /// What it is for, in its author's words: for who reads the file, nothing in
    /// the program does.
    pub description: Option<String>,
    /// Whether it reports sockets that appear.
    pub opened: bool,
    /// Whether it reports sockets that end.
    pub closed: bool,
    /// Its tick.
    pub interval: Duration,
    /// Its tag, where one is configured.
    pub tag: Option<Arc<str>>,
    /// The globs that let a tuple pass; all pass when there are none.
    pub patterns: Vec<String>,
    /// The globs that stop a tuple.
    pub ignore: Vec<String>,
    /// Both of these, compiled.
    pub filter: Filter,
    /// Whether reverse names are looked up, or resolved names collected.
    pub dns: bool,
    /// How long an answer, or that there is none, is kept.
    pub dns_ttl: Duration,
    /// How long an event waits for a name.
    pub dns_timeout: Duration,
    /// No look-up for addresses that only have a meaning here.
    pub skip_reverse_dns: bool,
    /// Whether its events say who has the socket open.
    pub process: bool,
    /// How long an event waits for that.
    pub process_timeout: Duration,
    /// Whether they show the command line.
    pub cmdline: bool,
    /// Emits an event id once, until it is released.
    pub locked: bool,
    /// Reports as opened what is open at start.
    pub initial: bool,
    /// Watches every network namespace, and not our own alone.
    pub everywhere: bool,
    /// The hook that must see its connect() calls; the best one where there is
    /// none.
    pub hook: Option<Origin>,
}

impl Sensor {
    /// What it needs from the kernel. Whoever needs TCP needs to know the
    /// listeners: they tell which way a connection was opened; and whoever needs
    /// connections, what they were bound to before.
    pub fn needs(&self) -> Needs {
        let mut needs = match self.listener {
            Listener::TcpConnect => Needs {
                tcp: StateGroups::CONNECTED,
                udp: false,
            },
            Listener::NetSocket | Listener::Own => self.filter.needs(),
        };
        if needs.proto(Proto::Tcp) {
            needs.tcp = needs.tcp | StateGroups::LISTEN;
            if needs.tcp.contains(StateGroups::CONNECTED) {
                needs.tcp = needs.tcp | StateGroups::BOUND;
            }
        }
        needs
    }

    /// A hash of what decides its view (FNV-1a): a sensor that is configured
    /// otherwise, but has the same hash, has the same sockets in view. The same
    /// in every build of sockwatch.
    pub fn view(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut eat = |bytes: &[u8]| {
            for &byte in bytes {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        };
        eat(self.listener.as_str().as_bytes());
        eat(&[0]);
        for globs in [&self.patterns, &self.ignore] {
            for glob in globs {
                eat(glob.as_bytes());
                eat(&[0]);
            }
            eat(&[1]);
        }
        // Which names a tuple can hold.
        eat(&[
            2 + u8::from(self.dns),
            u8::from(self.dns && self.skip_reverse_dns),
        ]);
        if self.everywhere {
            eat(b"all");
        }
        hash
    }

    /// What the ids of its events begin with.
    pub fn eid_prefix(&self) -> String {
        let listener = self.listener.as_str();
        match &self.tag {
            Some(tag) => format!("{}|{listener}@{tag}|", self.id),
            None => format!("{}|{listener}|", self.id),
        }
    }
}

/// Where settings come from, and can be read again.
#[derive(Clone, Debug)]
pub enum Provenance {
    /// These files, for these profiles.
    Files(Vec<PathBuf>, Vec<String>),
    /// The program itself.
    BuiltIn,
}

/// The settings of the daemon as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Daemon {
    /// The tick of a sensor that has none of its own.
    pub interval: Duration,
    /// The receive buffer to ask for on a notice socket, in bytes.
    pub receive_buffer: usize,
    /// How many events a sink may lag behind.
    pub queue: usize,
    /// After how long a tick dumps whatever the counters say; `None` where every
    /// tick does.
    pub gate: Option<Duration>,
    /// How many percent of one core dumps may cost before ticks stretch; `None`
    /// where they never do.
    pub cpu_budget: Option<u32>,
    /// Whether the kernel is asked to leave out of a dump what no pattern could
    /// match by its ends.
    pub push_down: bool,
    /// Whether events go to standard output.
    pub stdout: bool,
    /// The directory of what survives a restart, where anything is to.
    pub state: Option<PathBuf>,
    /// Where the control socket is; none without a path.
    pub control: Option<PathBuf>,
    /// Users that may use it besides root and the daemon's own.
    pub control_uids: Vec<u32>,
    /// Groups whose members may use it.
    pub control_gids: Vec<u32>,
}

impl Default for Daemon {
    fn default() -> Daemon {
        Daemon {
            interval: INTERVAL,
            receive_buffer: 8 << 20,
            queue: 65_536,
            gate: Some(GATE),
            cpu_budget: Some(10),
            push_down: true,
            stdout: true,
            state: None,
            control: None,
            control_uids: Vec::new(),
            control_gids: Vec::new(),
        }
    }
}

/// Loads and merges configuration files for these profiles (`default` where none
/// is named).
///
/// # Errors
/// Every mistake in every file, in the order of the files and of their text.
pub fn load(files: &[PathBuf], profiles: &[String]) -> Result<Settings, Vec<Problem>> {
    let read = files
        .iter()
        .map(|path| (Arc::from(path.as_path()), text::read(path)))
        .collect();
    settings(read, profiles)
}

/// Loads one configuration from bytes that were read elsewhere; `name` stands
/// for its path in messages.
///
/// # Errors
/// Every mistake in it.
pub fn load_bytes(
    name: &str,
    bytes: Vec<u8>,
    profiles: &[String],
) -> Result<Settings, Vec<Problem>> {
    let read = vec![(Arc::from(Path::new(name)), text::decode(bytes))];
    settings(read, profiles)
}

/// A path, and the text behind it or why there is none.
type Read = (Arc<Path>, Result<String, Vec<Problem>>);

fn settings(read: Vec<Read>, profiles: &[String]) -> Result<Settings, Vec<Problem>> {
    let globs = Globs::new();
    let (paths, mut loaded): (Vec<_>, Vec<_>) = read
        .into_iter()
        .map(|(path, text)| (path, one_file(text, &globs)))
        .unzip();
    let outlines = loaded.iter().map(|file| file.outline.as_ref());
    for (number, problem) in merge::collisions(&paths, outlines) {
        loaded[number].problems.push(problem);
    }
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    let mut files = Vec::new();
    for (path, file) in paths.into_iter().zip(loaded) {
        problems.extend(problem::in_order(file.problems, &path, "mistake"));
        warnings.extend(problem::in_order(file.warnings, &path, "warning"));
        if let (Some(outline), Some(values)) = (file.outline, file.values) {
            files.push((path, outline, values));
        }
    }
    // Without problems every file is among `files`.
    if !problems.is_empty() {
        return Err(problems);
    }
    let daemon = merge::daemon(&files);
    warnings.extend(merge::without_output(&files));
    warnings.extend(merge::unknown_profiles(&files, profiles));
    let (handlers, mut problems) = handlers::handlers(&mut files);
    let sensors = merge::sensors(files, profiles, daemon.interval, &globs);
    let sensors = match sensors {
        Ok(sensors) if problems.is_empty() => sensors,
        Ok(_) => return Err(problems),
        Err(more) => {
            problems.extend(more);
            return Err(problems);
        }
    };
    warnings.extend(handlers::warnings(&handlers, &sensors));
    Ok(Settings {
        sensors,
        handlers: handlers
            .into_iter()
            .map(|(_, _, handler)| handler)
            .collect(),
        daemon,
        warnings,
    })
}

/// What became of one file.
#[derive(Default)]
struct Loaded {
    outline: Option<Outline>,
    values: Option<typed::File>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

fn one_file(text: Result<String, Vec<Problem>>, globs: &Globs) -> Loaded {
    let text = match text {
        Ok(text) => text,
        Err(problems) => {
            return Loaded {
                problems,
                ..Loaded::default()
            };
        }
    };
    let parse::Document { root, mut problems } = parse::parse(&text);
    let Some(root) = root else {
        if problems.is_empty() {
            problems.push(check::empty(problem::Spot::START));
        }
        return Loaded {
            problems,
            ..Loaded::default()
        };
    };
    let checked = check::check(View::root(&root), globs);
    problems.extend(checked.problems);
    let mut values = None;
    if problems.is_empty() {
        match typed::load(&text, checked.outline.shape) {
            Ok(file) => values = Some(file),
            Err(problem) => problems.push(problem),
        }
    }
    Loaded {
        outline: Some(checked.outline),
        values,
        problems,
        warnings: checked.warnings,
    }
}
