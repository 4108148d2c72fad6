//! One network namespace: its dumps, slice by slice, what its counters spare, who
//! is suspected of having ended, and the sensor that all of this feeds.

use std::rc::Rc;
use std::time::Instant;

use super::RunError;
use super::balance::Balance;
use super::budget::Budget;
use super::narrow::Narrow;
use super::schedule::{Gates, Mask};
use super::shared::Shared;
use crate::model::{Cookie, Coverage, Needs, Netns, Now, Proto, Renumbering, Sought, StateGroups};
use crate::pipeline::Pipeline;
use crate::sensor::{NetSocket, View};
use crate::source::counters::{Counters, Reading};
use crate::source::diag::{Progress, Scope};
use crate::source::dumps::{Asked, Cause, Dumps};
use crate::source::gate;
use crate::stats::Stats;
use crate::sys;

/// What sensors want of a namespace.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub views: Vec<View>,
    pub gates: Gates,
    /// What of TCP they could want by the ends of sockets.
    pub sought: Sought,
    /// Whether the kernel is asked to leave the rest out of dumps.
    pub push_down: bool,
    /// The close of a socket that nobody wants can hide an opening from a gate.
    pub hides: bool,
}

/// A namespace and its sensor.
pub(super) struct Place {
    pub sensor: NetSocket,
    /// The sockets to its kernel: of our own namespace for good, of another for as
    /// long as a dump takes.
    pub scope: Option<Scope>,
    /// There may be rows to read.
    pub dump_ready: bool,
    /// It waits for its turn to be dumped.
    pub in_line: bool,
    pub(super) dumps: Dumps,
    pub(super) needs: Needs,
    pub(super) gates: Gates,
    pub(super) at_home: bool,
    own: Vec<u64>,
    /// What spares dumps of our own namespace; `None` where it cannot be read, so
    /// that none is spared.
    pub(super) counters: Option<Counters>,
    /// The ledger of TCP opens, where it can run.
    pub(super) balance: Option<Balance>,
    /// What dumps leave out.
    pub(super) narrow: Narrow,
    /// Notices of TCP, UDP came since the last tick.
    pub noticed: [bool; 2],
    /// Nothing but the time spoke for the dump that began last.
    forced: bool,
    /// The next dumps that a gap needs go ahead of what is owed.
    pub(super) lent: bool,
    /// Failed dumps in a row, of TCP and UDP.
    pub(super) failures: [u32; 2],
}

impl Place {
    /// Our own namespace.
    pub fn home(scope: Scope, watched: Watched, stats: &Rc<Stats>, now: Now) -> Place {
        let mut place = Place::new(scope.netns(), watched, stats, now);
        place.at_home = true;
        place.counters = counters();
        place.review_balance(stats);
        place.scope = Some(scope);
        place
    }

    /// Another one.
    pub fn new(netns: Netns, watched: Watched, stats: &Rc<Stats>, now: Now) -> Place {
        let Watched {
            views,
            gates,
            sought,
            push_down,
            hides,
        } = watched;
        let needs = gates.needs();
        let mut sensor = NetSocket::new(netns, views, needs, Rc::clone(stats), now);
        sensor.count_from(sys::monotonic_ms());
        sensor.seek(sought.clone());
        Place {
            sensor,
            scope: None,
            dump_ready: false,
            in_line: false,
            dumps: Dumps::default(),
            needs,
            gates,
            at_home: false,
            own: Vec::new(),
            counters: None,
            balance: None,
            narrow: Narrow::new(sought, push_down, hides),
            noticed: [false; 2],
            forced: false,
            lent: false,
            failures: [0; 2],
        }
    }

    /// Goes on for other sensors.
    pub fn replace(
        &mut self,
        watched: Watched,
        sensors: &Renumbering,
        pipeline: &mut Pipeline,
        now: Now,
    ) {
        let Watched {
            views,
            gates,
            sought,
            push_down,
            hides,
        } = watched;
        self.needs = gates.needs();
        self.gates = gates;
        self.sensor
            .replace(views, self.needs, sensors, now, pipeline);
        self.seek(sought, push_down, hides);
    }

    /// Queues the dumps that the ticks of these sensors call for.
    pub fn tick(&mut self, due: Mask, reading: Option<Reading>, shared: &mut Shared, now: Now) {
        for proto in Proto::ALL {
            if std::mem::take(&mut self.noticed[proto as usize]) {
                self.gates.noticed(proto);
            }
            if !self.can_spare(proto, shared) {
                self.gates.forget(proto);
            }
        }
        let tick = gate::Tick {
            now: now.mono,
            reading,
            handshakes: self.sensor.has_handshakes(),
        };
        let due = self.gates.pass(due, tick);
        for proto in Proto::ALL.into_iter().filter(|it| due.spared.proto(*it)) {
            shared.stats.dumps_spared.bump();
            log::trace!("the gate spared a {} dump", proto.as_str());
        }
        self.sensor.quiet(due.spared, now);
        if due.needs != Needs::default() && (self.is_dumping() || self.dumps.is_behind()) {
            shared.stats.ticks_late.bump();
        }
        for proto in Proto::ALL {
            let cause = if due.forced[proto as usize] {
                Cause::Forced
            } else {
                Cause::Due
            };
            self.dumps.ask_for(due.needs.only(proto), cause);
        }
    }

    /// Whether the counters and the notices tell all that a dump of this protocol
    /// could show.
    fn can_spare(&self, proto: Proto, shared: &Shared) -> bool {
        let undecided = proto == Proto::Tcp && self.sensor.has_candidates();
        !shared.congested
            && !self.sensor.has_gap()
            && !shared.is_deaf(proto)
            && !undecided
            && !self.dumps.lacks(proto)
    }

    /// The counters of our own namespace now; none where they cannot be read, so
    /// that every tick dumps.
    pub fn reading(&mut self, shared: &mut Shared, now: Now) -> Option<Reading> {
        match self.counters.as_mut()?.read() {
            Ok(reading) => Some(reading),
            Err(error) => {
                shared.warn("counters", now, || {
                    format!("the kernel's counters cannot be read, so this tick dumps: {error}")
                });
                None
            }
        }
    }

    pub fn is_dumping(&self) -> bool {
        self.scope.as_ref().is_some_and(Scope::is_dumping)
    }

    /// Whether there is something to do now, as far as is known.
    pub fn is_busy(&self, budget: &Budget, now: Now) -> bool {
        let dumps = if self.is_dumping() {
            self.dump_ready
        } else {
            let next = self.next_dump(budget, now);
            next.is_some_and(|at| at <= now.mono)
        };
        dumps || self.sensor.has_suspects()
    }

    /// When the dump under way is given up, or else the next one may begin.
    pub fn deadline(&self, budget: &Budget, now: Now) -> Option<Instant> {
        match self.scope.as_ref().and_then(Scope::stalls_at) {
            Some(at) => Some(at),
            None => self.next_dump(budget, now),
        }
    }

    fn next_dump(&self, budget: &Budget, now: Now) -> Option<Instant> {
        self.dumps.next_at(now.mono, budget.rests_until(now.mono))
    }

    /// Begins the next dump, or reads a slice of the one under way. What one has
    /// covered that has just been read to its end: [`Place::completed`] has it
    /// count.
    pub fn work(
        &mut self,
        shared: &mut Shared,
        pipeline: &mut Pipeline,
        now: Now,
    ) -> Result<Option<Coverage>, RunError> {
        if !self.is_dumping() && !self.narrow.is_comparing() {
            self.begin_next(shared, pipeline, now)?;
        }
        let stalls = self.scope.as_ref().and_then(Scope::stalls_at);
        if self.dump_ready || stalls.is_some_and(|at| at <= now.mono) {
            self.read_slice(shared, pipeline, now)
        } else {
            Ok(None)
        }
    }

    fn begin_next(
        &mut self,
        shared: &mut Shared,
        pipeline: &mut Pipeline,
        now: Now,
    ) -> Result<(), RunError> {
        if self.scope.is_none() {
            return Ok(());
        }
        let resting = shared.budget.rests_until(now.mono).is_some();
        let Some(asked) = self.dumps.next(now.mono, resting) else {
            return Ok(());
        };
        let Asked { coverage, forced } = asked;
        self.forced = forced;
        let (coverage, condition) = self.narrowed(coverage, shared, now);
        self.balance_before(coverage, shared, now);
        let Some(scope) = &mut self.scope else {
            return Ok(());
        };
        let before = sys::thread_cpu();
        let begun = scope.begin_where(coverage, condition.as_ref(), now);
        shared.spend(sys::thread_cpu().saturating_sub(before), now);
        match begun {
            Ok(()) => {
                self.sensor.begin_dump(coverage, now);
                self.narrow_begun(coverage, shared);
                self.dump_ready = true;
                Ok(())
            }
            Err(error) => self.failed(asked, &error, shared, pipeline, now),
        }
    }

    /// Leaves out the sockets that look-ups of our own have open right now.
    fn disown(&mut self, pipeline: &Pipeline) {
        if self.at_home && pipeline.is_looking_up() {
            match sys::own_cookies(&mut self.own) {
                Ok(()) => {
                    let cookies: Vec<_> = self.own.iter().map(|cookie| Cookie(*cookie)).collect();
                    self.sensor.disown(&cookies);
                }
                Err(error) => log::debug!("cannot tell sockwatch's own sockets: {error}"),
            }
        }
    }

    fn read_slice(
        &mut self,
        shared: &mut Shared,
        pipeline: &mut Pipeline,
        now: Now,
    ) -> Result<Option<Coverage>, RunError> {
        self.disown(pipeline);
        let Some(scope) = &mut self.scope else {
            return Ok(None);
        };
        let sensor = &mut self.sensor;
        let before = sys::thread_cpu();
        let progress = scope.read(now, &mut |row| sensor.row(row, now));
        shared.spend(sys::thread_cpu().saturating_sub(before), now);
        match progress {
            Progress::More => Ok(None),
            Progress::Waiting => {
                self.dump_ready = false;
                Ok(None)
            }
            Progress::Done(coverage) => Ok(Some(coverage)),
            Progress::Failed(coverage, error) => {
                self.sensor.fail_dump(now);
                self.balance_after(coverage, false, shared, now);
                let forced = self.forced;
                let asked = Asked { coverage, forced };
                self.failed(asked, &error, shared, pipeline, now)?;
                Ok(None)
            }
        }
    }

    /// A dump was read to its end: it counts.
    pub fn completed(
        &mut self,
        coverage: Coverage,
        shared: &mut Shared,
        pipeline: &mut Pipeline,
        now: Now,
    ) {
        self.regain_proto(coverage.proto, shared, pipeline, now);
        let found = self.sensor.end_dump(now, pipeline);
        self.narrow_completed(coverage);
        self.balance_after(coverage, true, shared, now);
        if self.forced {
            shared.stats.dumps_forced.bump();
            shared.stats.forced_found.add(found);
        }
    }

    /// Whether everything that sensors need has been read once.
    pub fn is_read(&self) -> bool {
        let read = |proto: &Proto| {
            !self.needs.proto(*proto) || self.dumps.lacks(*proto) || self.sensor.is_read(*proto)
        };
        Proto::ALL.iter().all(read)
    }
}

/// What of `needs` was not needed before.
pub(super) fn added(before: Needs, needs: Needs) -> Needs {
    let new = |proto| needs.proto(proto) && !before.proto(proto);
    Needs {
        tcp: if new(Proto::Tcp) {
            needs.tcp
        } else {
            StateGroups::NONE
        },
        udp: new(Proto::Udp),
    }
}

/// The counters of this thread's namespace. Without /proc there are none, and
/// every tick dumps.
fn counters() -> Option<Counters> {
    match Counters::open() {
        Ok(counters) => Some(counters),
        Err(error) => {
            log::info!("the kernel's counters cannot be read, so every tick dumps: {error}");
            None
        }
    }
}
