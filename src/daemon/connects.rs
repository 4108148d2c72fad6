//! What tells of connect() calls: a hook in the kernel, the DNS answers that came
//! before them, and the socket table, which shows what no hook reported.
//!
//! One order holds everywhere: a batch of records is taken from the ring, then
//! the tap is read empty, then the batch is handled. A name that was answered
//! before its connect() is thus known when the connect() is told; the other way
//! round it may still lie in the tap's socket. And before the table speaks, in a
//! notice or a completed dump, the ring is read empty: what a hook saw is not
//! told again.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::RunError;
use super::away::Away;
use super::place::Place;
use crate::config::Sensor;
use crate::enrich::Resolved;
use crate::log::RateLimit;
use crate::model::{
    Attempt, Connect, Degraded, Event, Gap, GapCause, Listener, Name, Netns, NoResults, Now, Origin,
};
use crate::pipeline::Pipeline;
use crate::sensor::NetSocket;
use crate::source::DnsTap;
use crate::source::connect::{Connects, Tried};
use crate::stats::Stats;

/// Records taken from the ring in one go.
const BATCH: usize = 1024;
/// How many batches are handled before anything else gets a turn: some 10 ms.
const BATCHES: usize = 4;
/// How long a notice or a dump waits for a record that is not finished. Its writer
/// needs less than a microsecond, but may have lost its CPU meanwhile.
const PATIENCE: Duration = Duration::from_millis(100);
/// How often it is looked for meanwhile.
const LOOK_EVERY: Duration = Duration::from_micros(50);
/// How often one kind of failure is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// What the sensors of `net.tcp_connect` need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    /// The hook that must be used.
    pub hook: Option<Origin>,
    /// Resolved names are collected.
    pub names: bool,
}

impl Wanted {
    /// What these sensors need; nothing where none of them watches connect()
    /// calls.
    pub fn of(sensors: &[Sensor]) -> Option<Wanted> {
        let connects = |one: &&Sensor| one.listener == Listener::TcpConnect;
        let mut sensors = sensors.iter().filter(connects).peekable();
        sensors.peek()?;
        let nothing = Wanted {
            hook: None,
            names: false,
        };
        Some(sensors.fold(nothing, |all, one| Wanted {
            // The configuration refuses different ones.
            hook: all.hook.or(one.hook),
            names: all.names || one.dns,
        }))
    }
}

/// The sensors that learn who called, each of the sockets of its own namespace.
/// What no hook reported is looked for in our own alone.
pub(super) struct Everywhere<'a> {
    home: &'a mut NetSocket,
    away: Option<&'a mut Away>,
}

impl<'a> Everywhere<'a> {
    pub fn of(home: &'a mut Place, away: Option<&'a mut Away>) -> Everywhere<'a> {
        Everywhere {
            home: &mut home.sensor,
            away,
        }
    }

    fn called(&mut self, connect: &Connect) {
        let away = connect.netns.zip(self.away.as_mut());
        match away.and_then(|(netns, away)| away.sensor(netns)) {
            Some(sensor) => sensor.called(connect),
            None => self.home.called(connect),
        }
    }

    fn name(&self, netns: Netns) -> Option<&Arc<str>> {
        if netns == self.home.netns() {
            return self.home.name();
        }
        self.away.as_ref()?.name(netns)
    }
}

/// How far some batches have come.
#[derive(Clone, Copy, Default, Debug)]
struct Step {
    /// There were records.
    any: bool,
    /// There may be more.
    more: bool,
}

/// The sources of connect() calls and of the names that go with them.
pub(super) struct ConnectSources {
    ring: Option<Connects>,
    tap: Option<DnsTap>,
    resolved: Resolved,
    /// Taken from the ring, and not handled yet.
    batch: Vec<Connect>,
    names: Vec<Name>,
    /// There may be packets to read.
    pub tap_ready: bool,
    /// When the ring was last known to have lost nothing more.
    intact: Instant,
    /// Where a record was waited for in vain.
    stuck_at: Option<usize>,
    stats: Rc<Stats>,
    limit: RateLimit,
}

impl ConnectSources {
    /// Sets up the best hook there is, and the tap. What cannot be had is said in
    /// the log, and in a record where it costs something.
    ///
    /// # Errors
    /// A hook that is forced and cannot be used.
    pub fn open(
        wanted: Wanted,
        stats: &Rc<Stats>,
        pipeline: &mut Pipeline,
        now: Now,
    ) -> Result<ConnectSources, RunError> {
        Ok(ConnectSources {
            ring: hook(wanted.hook, stats, pipeline, now)?,
            tap: wanted.names.then(|| tap(stats, pipeline, now)).flatten(),
            resolved: Resolved::new(Rc::clone(stats)),
            batch: Vec::new(),
            names: Vec::new(),
            tap_ready: true,
            intact: now.mono,
            stuck_at: None,
            stats: Rc::clone(stats),
            limit: RateLimit::new(3, LOG_EVERY),
        })
    }

    /// Whether a hook reports calls, and not the socket table alone.
    pub fn has_hook(&self) -> bool {
        self.ring.is_some()
    }

    /// The descriptors to wait on (readable): of the ring and of the tap.
    pub fn fds(&self) -> [Option<RawFd>; 2] {
        [
            self.ring.as_ref().map(AsRawFd::as_raw_fd),
            self.tap.as_ref().map(AsRawFd::as_raw_fd),
        ]
    }

    /// Handles what the hook has reported, up to a bound; true when there is more.
    /// Costs a look into memory where there is nothing.
    pub fn drain(
        &mut self,
        sensors: &mut Everywhere<'_>,
        pipeline: &mut Pipeline,
        now: Now,
    ) -> bool {
        let mut step = Step::default();
        for _ in 0..BATCHES {
            step = self.batch(step, sensors, pipeline, now);
            if !step.more {
                break;
            }
        }
        self.account(step, pipeline, now);
        step.more
    }

    /// Handles everything that the hook has seen up to now, before the table
    /// speaks of it. That is no more than the ring holds, however fast others go on
    /// calling. A record that is not finished is waited for, since those behind it
    /// cannot be read, but only once and not for long.
    pub fn catch_up(&mut self, sensors: &mut Everywhere<'_>, pipeline: &mut Pipeline, now: Now) {
        let Some(mark) = self.ring.as_ref().map(Connects::mark) else {
            return;
        };
        let mut step = Step::default();
        let mut until = None;
        while let Some(at) = self.behind(mark) {
            step = self.batch(step, sensors, pipeline, now);
            if step.more || self.behind(mark) != Some(at) {
                continue;
            }
            let until = *until.get_or_insert_with(|| Instant::now() + PATIENCE);
            if self.stuck_at == Some(at) || Instant::now() >= until {
                self.stuck_at = Some(at);
                self.stats.connects_overdue.bump();
                break;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.account(step, pipeline, now);
    }

    /// Where the ring has been read to, if that is not yet up to a mark.
    fn behind(&self, mark: usize) -> Option<usize> {
        let ring = self.ring.as_ref().filter(|ring| !ring.has_passed(mark))?;
        Some(ring.position())
    }

    /// Handles one batch.
    fn batch(
        &mut self,
        step: Step,
        sensors: &mut Everywhere<'_>,
        pipeline: &mut Pipeline,
        now: Now,
    ) -> Step {
        let Some(ring) = &mut self.ring else {
            return Step::default();
        };
        let batch = &mut self.batch;
        let more = match ring.drain(BATCH, &mut |connect| batch.push(connect)) {
            Ok(more) => more,
            Err(error) => {
                self.warn("ring", now, || {
                    format!("the ring of connect() calls cannot be read: {error}")
                });
                false
            }
        };
        if self.batch.is_empty() {
            return Step { more, ..step };
        }
        self.listen(now);
        let mut batch = std::mem::take(&mut self.batch);
        for connect in batch.drain(..) {
            sensors.called(&connect);
            self.tell(&Attempt::from(&connect), sensors, pipeline, now);
        }
        self.batch = batch;
        Step { more, any: true }
    }

    /// Tells what was lost, where that can be: the ring was full only if there was
    /// something in it.
    fn account(&mut self, step: Step, pipeline: &mut Pipeline, now: Now) {
        if step.any {
            self.tell_lost(pipeline, now);
        }
    }

    /// Tells of connect() calls that the table shows and no hook reported.
    pub fn settle(&mut self, sensors: &mut Everywhere<'_>, pipeline: &mut Pipeline, now: Now) {
        let attempts = sensors.home.take_attempts();
        if attempts.is_empty() {
            return;
        }
        self.listen(now);
        for attempt in attempts {
            self.tell(&attempt, sensors, pipeline, now);
        }
    }

    /// Learns the names of the answers that came, until there are no more.
    pub fn listen(&mut self, now: Now) {
        self.tap_ready = false;
        let Some(tap) = &mut self.tap else {
            return;
        };
        let resolved = &mut self.resolved;
        match tap.drain(now, &mut |answer| resolved.learn(&answer, now)) {
            Ok(drained) => {
                self.tap_ready = drained.more;
                if drained.dropped > 0 {
                    self.warn("dns", now, || {
                        format!(
                            "the kernel dropped {} DNS packets: names may be missing",
                            drained.dropped
                        )
                    });
                }
            }
            Err(error) => {
                self.warn("tap", now, || {
                    format!("DNS answers cannot be read: {error}")
                });
            }
        }
    }

    fn tell(
        &mut self,
        attempt: &Attempt,
        sensors: &Everywhere<'_>,
        pipeline: &mut Pipeline,
        now: Now,
    ) {
        self.names.clear();
        let none = match self.tap {
            Some(_) => self.resolved.names(attempt.remote.ip, now, &mut self.names),
            None => Some(NoResults::NoTap),
        };
        let place = attempt.netns.and_then(|netns| sensors.name(netns));
        pipeline.connect(attempt, place, &self.names, none, now);
    }

    /// Owns up to the calls that found the ring full.
    fn tell_lost(&mut self, pipeline: &mut Pipeline, now: Now) {
        let Some(ring) = &mut self.ring else {
            return;
        };
        let lost = match ring.take_lost() {
            Ok(lost) => lost,
            Err(error) => {
                return self.warn("lost", now, || {
                    format!("cannot tell whether connect() calls were lost: {error}")
                });
            }
        };
        if lost > 0 {
            self.warn("full", now, || {
                format!("the ring of connect() calls was full: {lost} were lost")
            });
            let gap = Gap {
                cause: GapCause::Ring,
                closed_recovered: None,
                tcp_unseen: None,
                lost: None,
                connects_lost: Some(lost),
                duration_ms: Event::elapsed_ms(self.intact, now),
            };
            pipeline.gap(gap, now);
        }
        self.intact = now.mono;
    }

    fn warn(&mut self, kind: &'static str, now: Now, message: impl Fn() -> String) {
        match self.limit.admit(kind, now.mono) {
            Some(0) => log::warn!("{}", message()),
            Some(more) => log::warn!("{} ({more} more like it were not logged)", message()),
            None => {}
        }
    }
}

/// What fails, for a person.
fn told(tried: &Tried) -> String {
    match tried.remedy {
        Some(remedy) => format!("{}; {remedy}", tried.reason),
        None => tried.reason.clone(),
    }
}

fn hook(
    forced: Option<Origin>,
    stats: &Rc<Stats>,
    pipeline: &mut Pipeline,
    now: Now,
) -> Result<Option<Connects>, RunError> {
    if forced == Some(Origin::SockDiag) {
        log::info!("connect() calls are taken from the socket table, as configured");
        return Ok(None);
    }
    let (ring, tried) = Connects::open(forced, Rc::clone(stats));
    if let (None, Some(hook)) = (&ring, forced) {
        let reasons: Vec<String> = tried.iter().map(told).collect();
        return Err(RunError::Hook(hook, reasons.join("; ")));
    }
    for one in &tried {
        log::info!("connect() hook {}: {}", one.hook.as_str(), told(one));
    }
    match &ring {
        Some(ring) => log::info!("connect() calls are reported by {}", ring.origin().as_str()),
        None => no_hook(&tried, pipeline, now),
    }
    Ok(ring)
}

/// Goes on with the socket table, and says what that costs.
fn no_hook(tried: &[Tried], pipeline: &mut Pipeline, now: Now) {
    let cost = "connect() calls are taken from the socket table: late by up to two ticks, without \
                the process, and not those of other namespaces, nor all that fail at once";
    log::warn!("no hook for connect() calls; it costs: {cost}");
    let reasons: BTreeSet<String> = tried
        .iter()
        .map(|one| format!("{}: {}", one.hook.as_str(), one.reason))
        .collect();
    let degraded = Degraded {
        source: "connect",
        missing: tried.iter().map(|one| one.hook.as_str()).collect(),
        reason: Vec::from_iter(reasons).join("; "),
        cost: cost.to_owned(),
    };
    pipeline.degraded(degraded, now);
}

fn tap(stats: &Rc<Stats>, pipeline: &mut Pipeline, now: Now) -> Option<DnsTap> {
    match DnsTap::open(Rc::clone(stats)) {
        Ok(tap) => Some(tap),
        Err(error) => {
            let cost = "the names that were resolved to a destination are not known";
            log::warn!("DNS answers cannot be seen: {error}; it costs: {cost}");
            let degraded = Degraded {
                source: "dns_tap",
                missing: vec!["DNS answers"],
                reason: error.to_string(),
                cost: cost.to_owned(),
            };
            pipeline.degraded(degraded, now);
            None
        }
    }
}
