//! The configuration, read again while running.
//!
//! All of it is checked before any of it counts: a configuration with a mistake
//! changes nothing. A sensor is known by its id. One whose view is decided as
//! before keeps it, whatever else of it has changed; one whose view is decided
//! otherwise, and one that is new, gets its view from the table, and says nothing
//! of what is open already. Whoever has just been told of a socket is not told
//! again, and is told of its end.

use std::fmt;
use std::sync::Arc;

use super::Daemon;
use super::budget::Budget;
use super::connects::Wanted;
use super::guard;
use super::missing;
use super::narrow;
use super::place::Watched;
use super::schedule::{Gates, Schedule};
use crate::config::{self, Provenance, Settings};
use crate::lock::Released;
use crate::log::Plain;
use crate::model::{Listener, Needs, Now, Proto, Renumbering, SensorIx, TcpState};
use crate::pipeline::{Attribute, Dns, Stage};
use crate::sensor::{NetSocket, View};
use crate::source::gate::Gate;

/// What a running daemon must know of the configuration that it runs on, to tell
/// what another one changes.
pub(super) struct Running {
    origin: Provenance,
    /// Each sensor's id and the hash of its view, by number.
    sensors: Vec<(Arc<str>, u64)>,
    daemon: config::Daemon,
    /// What the sources of connect() calls were set up for at start.
    connects: Option<Wanted>,
}

impl Running {
    /// What runs now.
    pub fn new(origin: Provenance, settings: &Settings) -> Running {
        let each = settings.sensors.iter();
        Running {
            origin,
            sensors: each.map(|one| (Arc::clone(&one.id), one.view())).collect(),
            daemon: settings.daemon.clone(),
            connects: Wanted::of(&settings.sensors),
        }
    }
}

/// What a reload came to: a sentence.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reloaded {
    /// There is no file to read.
    built_in: bool,
    /// Sensors whose views stay, begin anew, are new, are gone.
    kept: usize,
    changed: usize,
    added: usize,
    removed: usize,
    /// Locks of ids that nobody emits any more.
    released: Released,
    /// What only a restart changes.
    restart: Vec<&'static str>,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.built_in {
            return f.write_str(
                "nothing to reload: the built-in configuration runs, there is no --config FILE",
            );
        }
        write!(
            f,
            "reloaded: {} sensors go on, {} begin anew, {} are new, {} are gone",
            self.kept, self.changed, self.added, self.removed
        )?;
        if self.released.locks > 0 {
            write!(
                f,
                "; released {} locks that nobody can meet any more, which had muted {} events",
                self.released.locks, self.released.muted
            )?;
        }
        if !self.restart.is_empty() {
            write!(f, "; only a restart changes {}", self.restart.join(", "))?;
        }
        Ok(())
    }
}

impl Daemon {
    /// Reads the configuration again and takes it over.
    ///
    /// # Errors
    /// Every mistake in it, or the file of a handler that cannot be opened; then
    /// nothing has changed.
    pub(super) fn reload(&mut self, now: Now) -> Result<Reloaded, Vec<String>> {
        let Provenance::Files(files, profiles) = &self.running.origin else {
            return Ok(Reloaded {
                built_in: true,
                ..Reloaded::default()
            });
        };
        let result = match config::load(files, profiles) {
            Ok(settings) => self.take_over(settings, now),
            Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
        };
        match result {
            Ok(_) => self.stats.reloads.bump(),
            Err(_) => self.stats.reloads_refused.bump(),
        }
        result
    }

    /// As [`Daemon::reload`], for whoever is told through the log.
    pub(super) fn reload_aloud(&mut self, now: Now) {
        match self.reload(now) {
            Ok(reloaded) => log::info!("{reloaded}"),
            Err(problems) => {
                for problem in &problems {
                    log::error!("{problem}");
                }
                log::error!(
                    "the configuration was not reloaded: {} mistakes; the one that runs stays",
                    problems.len()
                );
            }
        }
    }

    fn take_over(&mut self, mut settings: Settings, now: Now) -> Result<Reloaded, Vec<String>> {
        // The only thing that can still fail, and then nothing has changed.
        let handlers = std::mem::take(&mut settings.handlers);
        self.handlers
            .replace(handlers, self.pipeline.fan_mut())
            .map_err(|error| vec![error.to_string()])?;
        for warning in &settings.warnings {
            log::warn!("{warning}");
        }
        let elsewhere = elsewhere(&settings).map(|watched| (watched, Arc::clone(&self.wake)));
        if elsewhere.is_none()
            && let Err(error) = self.sources.stay_home(&mut self.pipeline, now)
        {
            log::error!("the last notices of other namespaces cannot be read: {error}");
        }
        // What the names have settled so far has the old numbers.
        self.settle();
        let (sensors, mut reloaded) = self.compare(&settings);
        let new = |sensor: &config::Sensor| self.running.is_new(&sensor.id);
        let watched = watched(&settings, new);
        let schedule = schedule(&settings, now);
        let prefixes: Vec<String> = settings
            .sensors
            .iter()
            .filter(|sensor| sensor.locked)
            .map(config::Sensor::eid_prefix)
            .collect();
        if let Some(keeper) = &mut self.keeper {
            keeper.replace(&settings.sensors);
        }
        let running = Running::new(self.running.origin.clone(), &settings);
        let had_cmdlines = self.pipeline.shows_cmdlines();
        self.pipeline
            .replace(stages(settings.sensors), &sensors, now);
        if self.pipeline.shows_cmdlines() && !had_cmdlines {
            self.sources.each_sensor(NetSocket::forget_holders);
        }
        self.pipeline.attribute_all();
        let had_namespaces = self.sources.away.is_some();
        self.sources
            .replace(watched, elsewhere, &sensors, &mut self.pipeline, now);
        if !had_namespaces && let Err(error) = self.watch_namespaces() {
            log::error!("namespaces that end are found late: {error}");
        }
        let orphaned = |eid: &str| !prefixes.iter().any(|prefix| eid.starts_with(prefix));
        reloaded.released = self.pipeline.locks_mut().release_where(orphaned);
        self.schedule = schedule;
        if running.daemon.receive_buffer != self.running.daemon.receive_buffer {
            let bytes = running.daemon.receive_buffer;
            self.sources.resize(bytes, &mut self.pipeline, now);
        }
        missing::processes(&mut self.pipeline, now);
        self.sources.shared.budget = Budget::new(running.daemon.cpu_budget, now.mono);
        self.pipeline.fan_mut().set_limit(running.daemon.queue);
        self.running.sensors = running.sensors;
        self.running.daemon = config::Daemon {
            // These stay what they were.
            stdout: self.running.daemon.stdout,
            state: self.running.daemon.state.clone(),
            control: self.running.daemon.control.clone(),
            control_uids: self.running.daemon.control_uids.clone(),
            control_gids: self.running.daemon.control_gids.clone(),
            ..running.daemon
        };
        Ok(reloaded)
    }

    /// Which sensors go on, and what else changes.
    fn compare(&self, settings: &Settings) -> (Renumbering, Reloaded) {
        let old = &self.running;
        let mut sensors = Renumbering::NONE;
        let mut reloaded = Reloaded::default();
        for (at, sensor) in settings.sensors.iter().enumerate() {
            match old.sensors.iter().position(|(id, _)| *id == sensor.id) {
                Some(before) if old.sensors[before].1 == sensor.view() => {
                    sensors.keep(SensorIx(before as u8), SensorIx(at as u8));
                    reloaded.kept += 1;
                }
                Some(_) => {
                    log::info!("sensor {} begins anew", Plain(&sensor.id));
                    reloaded.changed += 1;
                }
                None => reloaded.added += 1,
            }
        }
        reloaded.removed = old.sensors.len() - reloaded.kept - reloaded.changed;
        let (before, after) = (&old.daemon, &settings.daemon);
        let fixed = [
            (before.stdout != after.stdout, "daemon.stdout"),
            (before.state != after.state, "daemon.state"),
            (before.control != after.control, "daemon.control"),
            (
                before.control_uids != after.control_uids,
                "daemon.control-uids",
            ),
            (
                before.control_gids != after.control_gids,
                "daemon.control-gids",
            ),
        ];
        let changed = fixed.into_iter().filter(|(changed, _)| *changed);
        reloaded.restart = changed.map(|(_, key)| key).collect();
        reloaded
            .restart
            .extend(lacking(old.connects, Wanted::of(&settings.sensors)));
        (sensors, reloaded)
    }
}

impl Running {
    fn is_new(&self, id: &str) -> bool {
        self.sensors.iter().all(|(known, _)| **known != *id)
    }
}

/// What the sensors of connect() calls want and there is not: hooks are tried at
/// start alone, since to try one makes sockets. What nobody wants any more stays,
/// and is told to nobody.
fn lacking(have: Option<Wanted>, wanted: Option<Wanted>) -> Option<&'static str> {
    match (have, wanted?) {
        (None, _) => Some("that there are net.tcp_connect sensors: they report nothing"),
        (Some(have), wanted) if have.hook != wanted.hook => Some("the hook for connect() calls"),
        (Some(have), wanted) if wanted.names && !have.names => {
            Some("that DNS answers are collected")
        }
        (Some(_), _) => None,
    }
}

/// What the sensors want of our own namespace; what was there at the start is told
/// by those that are new.
pub(super) fn watched(settings: &Settings, new: impl Fn(&config::Sensor) -> bool) -> Watched {
    let mut views = views(settings, |_| true);
    for view in &mut views {
        // `initial` speaks of the start, and of a sensor's own.
        view.initial &= new(&settings.sensors[usize::from(view.sensor.0)]);
    }
    Watched {
        views,
        gates: gates(settings, |_| true),
        sought: narrow::sought(settings, |_| true),
        push_down: settings.daemon.push_down,
        hides: guard::hides(settings),
    }
}

/// What they want of every other namespace, if any does.
pub(super) fn elsewhere(settings: &Settings) -> Option<Watched> {
    let everywhere = |sensor: &config::Sensor| sensor.everywhere;
    let wanted = settings.sensors.iter().any(everywhere);
    wanted.then(|| Watched {
        views: views(settings, everywhere),
        gates: gates(settings, everywhere),
        sought: narrow::sought(settings, everywhere),
        push_down: false,
        hides: false,
    })
}

/// What the socket table must know of each such sensor that has sockets in view.
fn views(settings: &Settings, such: impl Fn(&config::Sensor) -> bool) -> Vec<View> {
    let each = settings.sensors.iter().enumerate();
    each.filter(|(_, sensor)| sensor.listener == Listener::NetSocket && such(sensor))
        .map(|(at, sensor)| View {
            // The configuration refuses more sensors than SensorIx can number.
            sensor: SensorIx(at as u8),
            initial: sensor.initial,
            time_wait: sensor.filter.watches(TcpState::TimeWait),
            syn_recv: sensor.filter.watches(TcpState::SynRecv),
            sought: sensor.filter.sought(Proto::Tcp),
        })
        .collect()
}

/// What each such sensor looks at, and what may spare it; of others nothing.
fn gates(settings: &Settings, such: impl Fn(&config::Sensor) -> bool) -> Gates {
    let force_after = settings.daemon.gate;
    let each = settings.sensors.iter();
    Gates::new(each.map(|sensor| {
        let gate = Gate::new(force_after.unwrap_or_default(), |proto| {
            is_gate_off(settings, sensor, proto)
        });
        let needs = if such(sensor) {
            sensor.needs()
        } else {
            Needs::default()
        };
        (needs, gate)
    }))
}

/// Whether every tick of a sensor dumps a protocol.
pub(super) fn is_gate_off(settings: &Settings, sensor: &config::Sensor, proto: Proto) -> bool {
    let sockets = sensor.listener == Listener::NetSocket;
    settings.daemon.gate.is_none() || sockets && sensor.filter.names_uncounted(proto)
}

/// How often each sensor looks.
pub(super) fn schedule(settings: &Settings, now: Now) -> Schedule {
    let intervals = settings.sensors.iter().map(|sensor| sensor.interval);
    Schedule::new(intervals, now.mono)
}

/// What the pipeline must know of each sensor.
pub(super) fn stages(sensors: Vec<config::Sensor>) -> Vec<Stage> {
    let each = sensors.into_iter();
    each.map(|sensor| Stage {
        id: sensor.id,
        tag: sensor.tag,
        listener: sensor.listener,
        default_tag: Arc::from(sensor.listener.as_str()),
        filter: sensor.filter,
        opened: sensor.opened,
        closed: sensor.closed,
        results: sensor.dns && sensor.listener == Listener::TcpConnect,
        dns: (sensor.dns && sensor.listener == Listener::NetSocket).then_some(Dns {
            ttl: sensor.dns_ttl,
            timeout: sensor.dns_timeout,
            skip_special: sensor.skip_reverse_dns,
        }),
        process: sensor.process.then_some(Attribute {
            timeout: sensor.process_timeout,
            cmdline: sensor.cmdline,
        }),
        locked: sensor.locked,
    })
    .collect()
}
