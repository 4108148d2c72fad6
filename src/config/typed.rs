//! The typed values of a file, through serde_yaml.
//!
//! By the time a file gets here its tree has passed every check. Whatever
//! serde_yaml still refuses is reported with its own position, not believed away.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::log::Plain;

use super::check::Shape;
use super::handlers::Unlock;
use super::problem::{Problem, Spot};
use super::value::{Limit, Period, Share, Size};

/// A file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub sensors: Option<InOrder<Sensor>>,
    #[serde(default)]
    pub handlers: Option<InOrder<Handler>>,
    #[serde(default)]
    pub daemon: Option<Daemon>,
}

/// A sensor as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sensor {
    pub profile: Option<Vec<String>>,
    pub description: Option<String>,
    pub listener: Listener,
    pub opts: Option<Vec<Opt>>,
    pub interval: Option<Period>,
    pub tag: Option<String>,
    pub args: Option<Args>,
}

/// The listeners that exist.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) enum Listener {
    #[serde(rename = "net.socket")]
    NetSocket,
    #[serde(rename = "net.tcp_connect")]
    TcpConnect,
}

/// The hooks that can be forced.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Hook {
    Lsm,
    Fentry,
    Cgroup,
    SockDiag,
}

/// The network namespaces that a sensor watches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Netns {
    Host,
    All,
}

/// What a sensor reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Opt {
    Opened,
    Closed,
    Connect,
}

/// The `args` of a sensor.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Args {
    pub patterns: Option<Vec<String>>,
    pub ignore: Option<Vec<String>>,
    pub dns: Option<bool>,
    pub dns_ttl: Option<Period>,
    pub dns_timeout: Option<Period>,
    #[serde(alias = "skip_reverse_dns")]
    pub skip_reverse_dns: Option<bool>,
    pub process: Option<bool>,
    pub process_timeout: Option<Period>,
    pub cmdline: Option<bool>,
    pub locked: Option<bool>,
    pub initial: Option<bool>,
    pub hook: Option<Hook>,
    pub netns: Option<Netns>,
}

/// A handler as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Handler {
    #[serde(rename = "match")]
    pub matches: Option<String>,
    pub exec: Option<Vec<String>>,
    pub unlock: Option<Unlock>,
    pub timeout: Option<Period>,
    pub concurrency: Option<usize>,
    pub queue: Option<usize>,
    pub file: Option<String>,
}

/// The settings of the daemon.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Daemon {
    pub interval: Option<Period>,
    pub receive_buffer: Option<Size>,
    pub queue: Option<usize>,
    pub gate: Option<Limit>,
    pub cpu_budget: Option<Share>,
    pub push_down: Option<bool>,
    pub stdout: Option<bool>,
    pub state: Option<String>,
    pub control: Option<PathBuf>,
    pub control_uids: Option<Vec<u32>>,
    pub control_gids: Option<Vec<u32>>,
}

/// The entries of a map in the order of the file.
#[derive(Debug)]
pub(super) struct InOrder<T>(pub Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for InOrder<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

struct Entries<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
    type Value = InOrder<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InOrder<T>, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(InOrder(entries))
    }
}

/// Loads a text whose tree has passed the checks.
pub(super) fn load(text: &str, shape: Shape) -> Result<File, Problem> {
    match shape {
        Shape::Sections => serde_yaml::from_str(text),
        Shape::Plain => serde_yaml::from_str(text).map(|sensors| File {
            sensors: Some(sensors),
            ..File::default()
        }),
    }
    .map_err(|error| refused(&error))
}

fn refused(error: &serde_yaml::Error) -> Problem {
    let found = format!(
        "YAML that can be read in two ways ({})",
        Plain(&error.to_string())
    );
    let problem = Problem::new(found, "a plainer notation");
    match error.location() {
        Some(place) => problem.at(Spot::new(place.line(), place.column())),
        None => problem.at(Spot::START),
    }
}
