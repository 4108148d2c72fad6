//! Several checked files to one set of settings.
//!
//! Here is what no file alone can get wrong: an id or a daemon setting given in
//! two of them, no sensor left for the profiles, or more than the table serves.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::filter::{Globs, Subject};
use crate::log::Plain;
use crate::model::{Listener, Origin, SensorIx};

use super::check::Outline;
use super::problem::{Problem, Spot, quoted};
use super::schema;
use super::typed::{self, Opt};
use super::{DNS_TIMEOUT, DNS_TTL, Daemon, PROCESS_TIMEOUT, Sensor};

/// The profile that applies when none is named.
const DEFAULT_PROFILE: &str = "default";

/// Finds what is defined in more than one file; each with the number of the file
/// that has it again.
pub(super) fn collisions<'o>(
    paths: &[Arc<Path>],
    outlines: impl Iterator<Item = Option<&'o Outline>>,
) -> Vec<(usize, Problem)> {
    let mut problems = Vec::new();
    let mut first: HashMap<(&str, &str), (usize, &Arc<Path>, Spot)> = HashMap::new();
    for (number, (path, outline)) in paths.iter().zip(outlines).enumerate() {
        let Some(outline) = outline else { continue };
        let sensors = outline.sensors.iter().map(|(id, spot)| {
            let what = ("sensor", id.as_str());
            (what, "each id once", *spot)
        });
        let daemon = outline.daemon.iter().map(|(key, spot)| {
            let what = ("`daemon` setting", *key);
            (what, "each setting once", *spot)
        });
        let handlers = outline.handlers.iter().map(|(name, spot)| {
            let what = ("handler", name.as_str());
            (what, "each name once", *spot)
        });
        for (what, expected, spot) in sensors.chain(handlers).chain(daemon) {
            match first.entry(what) {
                Slot::Vacant(slot) => {
                    slot.insert((number, path, spot));
                }
                Slot::Occupied(slot) => {
                    let (earlier, file, place) = slot.get();
                    // Twice in one file is a key given twice, told already.
                    if *earlier != number {
                        let file = file.to_string_lossy();
                        let at = format_args!("{}:{}", Plain(&file), place.at);
                        let (kind, name) = *slot.key();
                        let found = format!("{kind} {} again (first at {at})", quoted(name));
                        problems.push((number, Problem::new(found, expected).at(spot)));
                    }
                }
            }
        }
    }
    problems
}

/// Fills in what the files leave open.
pub(super) fn daemon(files: &[(Arc<Path>, Outline, typed::File)]) -> Daemon {
    let mut daemon = Daemon::default();
    for given in files.iter().filter_map(|(_, _, file)| file.daemon.as_ref()) {
        daemon.interval = given.interval.map_or(daemon.interval, |period| period.0);
        daemon.receive_buffer = given
            .receive_buffer
            .map_or(daemon.receive_buffer, |size| size.0);
        daemon.gate = given.gate.map_or(daemon.gate, |limit| limit.0);
        daemon.cpu_budget = given.cpu_budget.map_or(daemon.cpu_budget, |share| share.0);
        daemon.queue = given.queue.unwrap_or(daemon.queue);
        daemon.push_down = given.push_down.unwrap_or(daemon.push_down);
        daemon.stdout = given.stdout.unwrap_or(daemon.stdout);
        let state = given.state.as_ref().map(PathBuf::from);
        daemon.state = state.or(daemon.state);
        daemon.control = given.control.clone().or(daemon.control);
        if let Some(uids) = &given.control_uids {
            daemon.control_uids.clone_from(uids);
        }
        if let Some(gids) = &given.control_gids {
            daemon.control_gids.clone_from(gids);
        }
    }
    daemon
}

/// Without standard output, a handler, and a control socket to subscribe at, a
/// daemon has nobody to tell anything.
pub(super) fn without_output(files: &[(Arc<Path>, Outline, typed::File)]) -> Option<Problem> {
    if daemon(files).control.is_some()
        || files
            .iter()
            .any(|(_, outline, _)| !outline.handlers.is_empty())
    {
        return None;
    }
    let (path, outline, _) = files.iter().find(|(_, _, file)| {
        let stdout = file.daemon.as_ref().and_then(|daemon| daemon.stdout);
        stdout == Some(false)
    })?;
    let (_, spot) = outline.daemon.iter().find(|(key, _)| *key == "stdout")?;
    let found = "`stdout: false` while nothing else takes events";
    let expected = "`stdout: true`, or a handler: now nobody is told anything";
    Some(Problem::new(found, expected).of(path).at(*spot))
}

/// The profiles of the command line that no sensor names: mistyped ones leave
/// sensors out.
pub(super) fn unknown_profiles(
    files: &[(Arc<Path>, Outline, typed::File)],
    profiles: &[String],
) -> Vec<Problem> {
    let named: BTreeSet<String> = files
        .iter()
        .filter_map(|(_, _, file)| file.sensors.as_ref())
        .flat_map(|sensors| &sensors.0)
        .flat_map(|(_, sensor)| sensor.profile.iter().flatten())
        .map(|name| name.to_lowercase())
        .collect();
    let unknown = profiles.iter().filter(|name| {
        let name = name.to_lowercase();
        name != DEFAULT_PROFILE && !named.contains(&name)
    });
    unknown
        .map(|name| {
            let near = schema::nearest(name, named.iter().map(String::as_str));
            let found = format!("profile {} that no sensor names", quoted(name));
            Problem::new(found, "one that a sensor has under `profile`")
                .meant(near.map(|name| Plain(&name).to_string()))
                .within("--profile")
        })
        .collect()
}

/// The sensors that apply, in the order of the files.
pub(super) fn sensors(
    files: Vec<(Arc<Path>, Outline, typed::File)>,
    profiles: &[String],
    interval: Duration,
    globs: &Globs,
) -> Result<Vec<Sensor>, Vec<Problem>> {
    let active = folded(profiles);
    let first = files.first().map(|(path, _, _)| Arc::clone(path));
    let mut applying = Vec::new();
    let mut left_out: Option<(Arc<Path>, Spot)> = None;
    for (path, outline, file) in files {
        // The outline has the same ids in the same order.
        let given = file.sensors.map(|sensors| sensors.0).unwrap_or_default();
        for ((id, sensor), (_, spot)) in given.into_iter().zip(&outline.sensors) {
            if !applies(&sensor, &active) {
                left_out.get_or_insert((Arc::clone(&path), *spot));
                continue;
            }
            if applying.len() == SensorIx::MAX {
                let found = format!("sensor {} after {} others", quoted(&id), SensorIx::MAX);
                let expected = format!("at most {} sensors that apply", SensorIx::MAX);
                return Err(vec![Problem::new(found, expected).of(&path).at(*spot)]);
            }
            applying.push((Arc::clone(&path), *spot, id, sensor));
        }
    }
    if applying.is_empty() {
        return Err(vec![nothing_left(&active, left_out, first)]);
    }
    let mut problems = Vec::new();
    let mut sensors: Vec<Sensor> = Vec::new();
    for (path, spot, id, sensor) in applying {
        match settle(id, sensor, interval, globs) {
            Ok(sensor) => {
                let problem = other_hook(&sensor, &sensors);
                problems.extend(problem.map(|it| it.of(&path).at(spot)));
                sensors.push(sensor);
            }
            Err(problem) => problems.push(problem.of(&path).at(spot)),
        }
    }
    if problems.is_empty() {
        Ok(sensors)
    } else {
        Err(problems)
    }
}

/// One hook serves all sensors: two that force different ones cannot both run.
fn other_hook(sensor: &Sensor, others: &[Sensor]) -> Option<Problem> {
    let hook = sensor.hook?;
    let (other, theirs) = others
        .iter()
        .find_map(|other| Some((other, other.hook.filter(|theirs| *theirs != hook)?)))?;
    let (id, hook) = (quoted(&sensor.id), hook.as_str());
    let (other, theirs) = (quoted(&other.id), theirs.as_str());
    let found = format!("sensor {id} with `hook: {hook}` beside {other} with `hook: {theirs}`");
    Some(Problem::new(found, "one hook for all sensors that apply"))
}

fn folded(profiles: &[String]) -> Vec<String> {
    if profiles.is_empty() {
        return vec![DEFAULT_PROFILE.to_owned()];
    }
    profiles.iter().map(|name| name.to_lowercase()).collect()
}

fn applies(sensor: &typed::Sensor, active: &[String]) -> bool {
    match &sensor.profile {
        None => true,
        Some(names) => names
            .iter()
            .any(|name| active.contains(&name.to_lowercase())),
    }
}

fn nothing_left(
    active: &[String],
    left_out: Option<(Arc<Path>, Spot)>,
    first: Option<Arc<Path>>,
) -> Problem {
    match left_out {
        None => {
            let problem = Problem::new("no sensor in any file", "at least one");
            match first {
                Some(path) => problem.of(&path).at(Spot::START),
                None => problem,
            }
        }
        Some((path, spot)) => {
            let names: Vec<String> = active.iter().map(|name| quoted(name)).collect();
            let found = format!("no sensor for profile {}", names.join(", "));
            let expected =
                "`--profile` with one that a sensor names, or a sensor without `profile`";
            Problem::new(found, expected).of(&path).at(spot)
        }
    }
}

/// One sensor with its defaults.
fn settle(
    id: String,
    given: typed::Sensor,
    interval: Duration,
    globs: &Globs,
) -> Result<Sensor, Problem> {
    let args = given.args.unwrap_or_default();
    let reports = |opt| given.opts.as_ref().is_none_or(|opts| opts.contains(&opt));
    let (patterns, ignore) = (
        args.patterns.unwrap_or_default(),
        args.ignore.unwrap_or_default(),
    );
    let (listener, subject) = match given.listener {
        typed::Listener::NetSocket => (Listener::NetSocket, Subject::Sockets),
        typed::Listener::TcpConnect => (Listener::TcpConnect, Subject::Connects),
    };
    let filter = globs.filter(&patterns, &ignore, subject).map_err(|error| {
        let found = format!("globs that fail together ({})", Plain(&error.to_string()));
        Problem::new(found, "fewer or simpler ones")
    })?;
    Ok(Sensor {
        id: id.into(),
        listener,
        description: given.description,
        opened: listener == Listener::NetSocket && reports(Opt::Opened),
        closed: listener == Listener::NetSocket && reports(Opt::Closed),
        interval: given.interval.map_or(interval, |period| period.0),
        tag: given.tag.map(Arc::from),
        patterns,
        ignore,
        filter,
        // Resolved names cost no look-up.
        dns: args.dns.unwrap_or(listener == Listener::TcpConnect),
        dns_ttl: args.dns_ttl.map_or(DNS_TTL, |period| period.0),
        dns_timeout: args.dns_timeout.map_or(DNS_TIMEOUT, |period| period.0),
        skip_reverse_dns: args.skip_reverse_dns.unwrap_or(false),
        process: listener == Listener::NetSocket && args.process.unwrap_or(true),
        process_timeout: args
            .process_timeout
            .map_or(PROCESS_TIMEOUT, |period| period.0),
        cmdline: args.cmdline.unwrap_or(false),
        locked: args.locked.unwrap_or(false),
        initial: args.initial.unwrap_or(false),
        everywhere: args.netns == Some(typed::Netns::All),
        hook: args.hook.map(|hook| match hook {
            typed::Hook::Lsm => Origin::Lsm,
            typed::Hook::Fentry => Origin::Fentry,
            typed::Hook::Cgroup => Origin::Cgroup,
            typed::Hook::SockDiag => Origin::SockDiag,
        }),
    })
}
