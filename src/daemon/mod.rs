//! The daemon: sources, sensor, pipeline and sinks, wired into one loop.
//!
//! Each thing that can happen is one arm of a match that calls one method. What
//! is urgent comes first in every turn: notices before rows, because a full
//! receive buffer loses ends, while a dump waits in the kernel for as long as it
//! has to.

mod away;
mod balance;
mod budget;
mod connects;
mod control;
mod error;
mod gaps;
mod groups;
mod guard;
mod handlers;
mod hearing;
mod listing;
mod losses;
mod memory;
mod missing;
mod narrow;
mod place;
mod processes;
mod reload;
mod schedule;
mod shared;
mod sources;
mod state;

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Poll, Registry, Token, Waker};

use crate::config::{Provenance, Settings};
use crate::control::Server;
use crate::emit::{Fan, Flush, Format, Stdout, Subscribers};
use crate::enrich::Names;
use crate::enrich::pool::Wake;
use crate::handlers::Handlers;
use crate::model::Now;
use crate::pipeline::Pipeline;
use crate::reactor::{self, Handler, Turn};
use crate::sensor::Listing;
use crate::source::diag::Scope;
use crate::stats::Stats;
use crate::sys::{self, Signal, Signals, memory as heap};
use budget::Budget;
use connects::{ConnectSources, Wanted};
pub use error::RunError;
use memory::Floods;
pub use narrow::would_ask;
pub use reload::Reloaded;
use reload::Running;
use schedule::Schedule;
use sources::Sources;
use state::Keeper;

const NOTICES: Token = Token(0);
const DUMP: Token = Token(1);
const NAMES: Token = Token(2);
const SIGNALS: Token = Token(3);
const OUTPUT: Token = Token(4);
const NAMESPACES: Token = Token(5);
const CONNECTS: Token = Token(10);
const TAP: Token = Token(11);

/// Threads for reverse look-ups: getnameinfo(3) blocks.
const NAME_THREADS: usize = 4;
/// How long the end waits for a reader that does not read.
const FAREWELL: Duration = Duration::from_secs(5);
/// How often a sink that is out of room (a full disk) is tried again.
const RETRY_OUTPUT: Duration = Duration::from_secs(1);

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// See [`RunError`]; [`RunError::ReaderGone`] is no failure.
pub fn run(settings: Settings, format: Format, origin: Provenance) -> Result<(), RunError> {
    // Before the first thread starts: threads inherit the signal mask.
    heap::hold_together();
    let signals = Signals::open().map_err(|error| RunError::Start("read signals", error))?;
    let mut poll = Poll::new().map_err(|error| RunError::Start("make an event loop", error))?;
    let waker = Waker::new(poll.registry(), NAMES)
        .map_err(|error| RunError::Start("make a waker", error))?;
    let stats = Rc::new(Stats::default());
    let registry = poll
        .registry()
        .try_clone()
        .map_err(|error| RunError::Start("share an event loop", error))?;
    let mut daemon = Daemon::new(
        settings,
        format,
        origin,
        signals,
        waker,
        registry,
        Rc::clone(&stats),
    )?;
    daemon
        .register()
        .map_err(|error| RunError::Start("watch a descriptor", error))?;
    let result = reactor::run(&mut poll, &mut daemon, Now::read);
    if result.is_err() {
        // An end without a farewell; what handlers had taken is counted all the same.
        daemon.handlers.finish(Now::read());
        daemon.handlers.kill();
    }
    log::info!("ended: {stats}");
    result
}

struct Daemon {
    sources: Sources,
    pipeline: Pipeline,
    schedule: Schedule,
    /// What survives this run, where anything is to.
    keeper: Option<Keeper>,
    running: Running,
    handlers: Handlers,
    /// A child has ended that may be nobody's.
    child_ended: bool,
    signals: Signals,
    names_woken: bool,
    /// How far the table has been gone through for sockets to ask about.
    unattributed: Option<Listing>,
    floods: Floods,
    retry_output: Option<Instant>,
    ending: Option<Instant>,
    control: Option<Server>,
    registry: Rc<Registry>,
    wake: Wake,
    stats: Rc<Stats>,
}

impl Daemon {
    fn new(
        settings: Settings,
        format: Format,
        origin: Provenance,
        signals: Signals,
        waker: Waker,
        registry: Registry,
        stats: Rc<Stats>,
    ) -> Result<Daemon, RunError> {
        let now = Now::read();
        let running = Running::new(origin, &settings);
        let schedule = reload::schedule(&settings, now);
        let watched = reload::watched(&settings, |_| true);
        let elsewhere = reload::elsewhere(&settings);
        let wanted = Wanted::of(&settings.sensors);
        let mut sources = Sources::open(watched, Rc::clone(&stats), now)?;
        let mut keeper = match &settings.daemon.state {
            Some(dir) => {
                let (netns, stats) = (sources.home.sensor.netns(), Rc::clone(&stats));
                Some(Keeper::open(dir, netns, &settings.sensors, stats)?)
            }
            None => None,
        };
        sources.shared.budget = Budget::new(settings.daemon.cpu_budget, now.mono);
        let mut fan = Fan::new(Rc::clone(&stats));
        if settings.daemon.stdout {
            let renderer = format.renderer(sys::hostname(), settings.sensors.len() > 1);
            fan.add(Stdout::open(renderer, settings.daemon.queue).map_err(RunError::Open)?);
        }
        let handlers = handlers::open(
            settings.handlers,
            &settings.daemon,
            &registry,
            &stats,
            &mut fan,
        )?;
        let subscribers = Rc::new(RefCell::new(Subscribers::new(
            sys::hostname(),
            settings.sensors.len() > 1,
            settings.daemon.queue,
            Rc::clone(&stats),
        )));
        fan.add(Rc::clone(&subscribers));
        let control = control::open(&settings.daemon, subscribers, Rc::clone(&stats), now)?;
        let wake: Wake = Arc::new(move || {
            if let Err(error) = waker.wake() {
                log::error!("cannot wake the event loop for an answer: {error}");
            }
        });
        let names = Names::new(NAME_THREADS, Arc::clone(&wake), Rc::clone(&stats));
        let stages = reload::stages(settings.sensors);
        let mut pipeline = Pipeline::new(stages, names, fan, Rc::clone(&stats));
        pipeline.attribute_with(Arc::clone(&wake));
        pipeline.place_with(Arc::clone(&wake));
        if let Some(keeper) = &mut keeper {
            keeper.restore(&mut sources.home.sensor, &mut pipeline, now)?;
            // Who has the sockets that were taken over is to be told at their close.
            pipeline.attribute_all();
        }
        // Before the groups are joined: to try a hook makes sockets.
        if let Some(wanted) = wanted {
            sources.home.sensor.want_attempts();
            let connects = ConnectSources::open(wanted, &stats, &mut pipeline, now)?;
            if connects.has_hook() {
                sources.home.sensor.rely_on_hook();
            }
            sources.connects = Some(connects);
        }
        missing::processes(&mut pipeline, now);
        sources.join(settings.daemon.receive_buffer, &mut pipeline, now);
        if let Some(watched) = elsewhere {
            sources.watch_all(watched, Arc::clone(&wake), &mut pipeline, now);
        }
        Ok(Daemon {
            sources,
            pipeline,
            schedule,
            keeper,
            running,
            handlers,
            child_ended: true,
            signals,
            names_woken: false,
            unattributed: None,
            floods: Floods::default(),
            retry_output: None,
            ending: None,
            control,
            registry: Rc::new(registry),
            wake,
            stats,
        })
    }

    fn register(&mut self) -> io::Result<()> {
        for fd in self.sources.notices.fds() {
            self.watch(fd, NOTICES, Interest::READABLE)?;
        }
        self.watch_dumps()?;
        self.watch_namespaces()?;
        self.watch(self.signals.as_raw_fd(), SIGNALS, Interest::READABLE)?;
        if let Some(connects) = &self.sources.connects {
            for (fd, token) in connects.fds().into_iter().zip([CONNECTS, TAP]) {
                fd.map_or(Ok(()), |fd| self.watch(fd, token, Interest::READABLE))?;
            }
        }
        for fd in self.pipeline.fan_mut().sources() {
            self.registry
                .register(&mut SourceFd(&fd), OUTPUT, Interest::WRITABLE)?;
        }
        self.register_control(&self.registry)
    }

    fn watch_dumps(&self) -> io::Result<()> {
        let scope = self.sources.home.scope.as_ref();
        scope.map_or(Ok(()), |scope| {
            self.watch(scope.as_raw_fd(), DUMP, Interest::READABLE)
        })
    }

    fn watch_namespaces(&self) -> io::Result<()> {
        let away = self.sources.away.as_ref();
        away.map_or(Ok(()), |away| {
            self.watch(away.fd(), NAMESPACES, Interest::READABLE)
        })
    }

    fn watch(&self, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
        self.registry.register(&mut SourceFd(&fd), token, interest)
    }

    fn names(&mut self, now: Now) {
        if std::mem::take(&mut self.names_woken) {
            self.pipeline.collect(now);
        }
        self.pipeline.expire(now);
        self.settle();
    }

    /// Tells the sensor what became of openings that waited for a name.
    fn settle(&mut self) {
        for settled in self.pipeline.take_settled() {
            if let Some(sensor) = self.sources.sensor(settled.key.netns) {
                sensor.settle(&settled);
            }
        }
        for attributed in self.pipeline.take_attributed() {
            if let Some(sensor) = self.sources.sensor(attributed.key.netns) {
                sensor.attribute(attributed);
            }
        }
    }

    /// Has the paths of cgroups looked for that sockets were met of.
    fn meet_cgroups(&mut self, now: Now) {
        let pipeline = &mut self.pipeline;
        self.sources.each_sensor(|sensor| {
            for cgroup in sensor.take_cgroups() {
                pipeline.meet(&cgroup, now);
            }
        });
    }

    fn tick(&mut self, now: Now) {
        if self.schedule.is_due(now.mono) {
            self.sources.tick(&mut self.schedule, now);
        }
    }

    fn signals(&mut self, now: Now) -> Result<(), RunError> {
        while let Some(signal) = self.signals.next()? {
            match signal {
                Signal::ReleaseLocks => {
                    let released = self.pipeline.release_locks();
                    log::info!(
                        "released {} locks, which had muted {} events",
                        released.locks,
                        released.muted
                    );
                }
                // Nothing is begun any more.
                Signal::Hangup if self.ending.is_some() => self.handlers.reopen(),
                Signal::Hangup => {
                    self.handlers.reopen();
                    self.reload_aloud(now);
                }
                Signal::Child => {
                    self.handlers.child_ended();
                    self.child_ended = true;
                }
                Signal::End if self.ending.is_some() => self.ending = Some(now.mono),
                Signal::End => {
                    self.ending = Some(now.mono + FAREWELL);
                    self.sources.last_words(&mut self.pipeline)?;
                    self.pipeline.finish(now);
                    self.settle();
                    self.handlers.finish(now);
                }
            }
        }
        Ok(())
    }

    /// Writes what is queued; says whether the sinks have taken all of it.
    fn flush(&mut self, now: Now) -> Result<bool, RunError> {
        self.pipeline.tell_losses(now);
        if let Some(keeper) = &mut self.keeper {
            keeper.before(&mut self.sources.home.sensor, &mut self.pipeline, now);
        }
        let written = self.write(now);
        if let Some(keeper) = &mut self.keeper {
            keeper.after(&mut self.pipeline, now);
        }
        written
    }

    fn write(&mut self, now: Now) -> Result<bool, RunError> {
        self.retry_output = None;
        match self.pipeline.fan_mut().flush()? {
            Flush::Drained => {
                self.pipeline.tell_losses(now);
                Ok(self.pipeline.fan_mut().flush()? == Flush::Drained)
            }
            Flush::Blocked => Ok(false),
            Flush::Retry => {
                self.retry_output = Some(now.mono + RETRY_OUTPUT);
                Ok(false)
            }
        }
    }

    /// Everything is told: what survives this run is written.
    fn keep(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.end(&self.sources.home.sensor, &mut self.pipeline);
        }
    }

    fn deadline(&mut self, now: Now) -> Option<Instant> {
        let named = self.pipeline.deadline();
        let control = self.control.as_ref().and_then(Server::deadline);
        [
            control,
            self.schedule.next(),
            self.sources.deadline(now),
            named,
            self.retry_output,
            self.keeper.as_ref().and_then(Keeper::deadline),
            self.handlers.deadline(),
            self.floods.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

impl Handler for Daemon {
    type Error = RunError;

    fn ready(&mut self, token: Token, now: Now) -> Result<(), RunError> {
        match token {
            NOTICES => self.sources.notices_ready = true,
            DUMP => self.sources.home.dump_ready = true,
            NAMESPACES => self.sources.namespaces_changed(),
            NAMES => self.names_woken = true,
            SIGNALS => self.signals(now)?,
            TAP => self.sources.names_came(),
            _ if token >= handlers::TOKENS => self.handlers.ready(token),
            _ if token >= control::CONTROL => self.control_ready(token),
            // Every turn writes what there is, and looks into the ring.
            _ => {}
        }
        Ok(())
    }

    fn broken(&mut self, token: Token, _now: Now) -> Result<(), RunError> {
        match token {
            OUTPUT => Err(RunError::ReaderGone),
            // An overrun shows as an error; the next receive says so.
            NOTICES => {
                self.sources.notices_ready = true;
                Ok(())
            }
            _ if token >= handlers::TOKENS => {
                self.handlers.ready(token);
                Ok(())
            }
            _ => {
                self.control_broken(token);
                Ok(())
            }
        }
    }

    fn turn(&mut self, now: Now) -> Result<Turn, RunError> {
        if let Some(until) = self.ending {
            let busy = self.work_handlers(now);
            let written = self.flush(now)?;
            // Subscribers get what they take at once; nobody waits for them.
            let busy = self.control(now) || busy;
            if written && !busy && self.handlers.are_idle() {
                self.keep();
                return Ok(Turn::Done);
            }
            if now.mono >= until {
                self.handlers.kill();
                return if written {
                    self.keep();
                    Ok(Turn::Done)
                } else {
                    Err(RunError::Unwritten)
                };
            }
            if busy {
                return Ok(Turn::Busy);
            }
            let due = [self.retry_output, self.handlers.deadline()];
            return Ok(Turn::Idle(due.into_iter().flatten().chain([until]).min()));
        }
        let called = self.sources.calls(&mut self.pipeline, now);
        self.sources.travel(&mut self.pipeline, now)?;
        self.sources.hear(&mut self.pipeline, now)?;
        self.names(now);
        self.tick(now);
        let busy = self.sources.work(&mut self.pipeline, now)?;
        let scope = self.sources.home.scope.as_mut();
        if scope.is_some_and(Scope::take_replaced) {
            self.watch_dumps()?;
        }
        self.meet_cgroups(now);
        let busy = self.attribute(now) || busy;
        let busy = self.work_handlers(now) || busy;
        self.flush(now)?;
        self.give_back(now);
        let busy = self.control(now) || busy;
        let busy = busy || self.keeper.as_ref().is_some_and(Keeper::is_busy);
        Ok(if busy || called {
            Turn::Busy
        } else {
            Turn::Idle(self.deadline(now))
        })
    }
}
