//! One scope's sources and the sensor that they feed: hears notices, runs dumps
//! slice by slice, asks about suspects, and tells when it is ready.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use log::Level;

use super::RunError;
use super::balance::Balance;
use super::budget::Budget;
use super::connects::ConnectSources;
use super::groups::{self, Probes};
use super::narrow::Narrow;
use super::schedule::Schedule;
use crate::log::RateLimit;
use crate::model::{Cookie, Needs, Netns, Now, Proto, Renumbering, Sought, StateGroups};
use crate::pipeline::Pipeline;
use crate::sensor::{NetSocket, View};
use crate::source::counters::{Counters, Reading};
use crate::source::diag::{Found, Progress, Scope};
use crate::source::gate;
use crate::source::{Dumps, Group, Notices, Room};
use crate::stats::Stats;
use crate::sys;

/// Notices handled in one go before anything else gets a turn.
const NOTICES_A_TURN: usize = 1024;
/// Exact queries asked in one go: some 5 µs each.
const QUERIES_A_TURN: usize = 64;
/// How long the end waits for what is still to be heard and reconciled.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often one kind of failure is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The sources of one namespace and their sensor.
pub(super) struct Sources {
    pub scope: Scope,
    pub notices: Notices,
    pub sensor: NetSocket,
    /// Where a sensor watches connect() calls.
    pub connects: Option<ConnectSources>,
    /// There may be notices to read.
    pub notices_ready: bool,
    /// There may be rows to read.
    pub dump_ready: bool,
    probes: Probes,
    pub(super) dumps: Dumps,
    pub(super) needs: Needs,
    /// `ready` has not been said yet.
    starting: bool,
    /// Notices were dropped, and the queue has not been empty since.
    pub(super) congested: bool,
    own: Vec<u64>,
    /// What spares dumps; `None` where it cannot be read, so that none is spared.
    counters: Option<Counters>,
    /// The ledger of TCP opens, where it can run.
    pub(super) balance: Option<Balance>,
    /// What dumps leave out.
    pub(super) narrow: Narrow,
    /// What dumps may cost.
    pub(super) budget: Budget,
    /// Notices of TCP, UDP came since the last tick.
    noticed: [bool; 2],
    /// The dumps of the last tick, of TCP and UDP, that nothing but the time
    /// spoke for.
    forced: [bool; 2],
    /// Groups whose notices cannot be had.
    pub(super) deaf: Vec<Group>,
    /// Failed dumps in a row, of TCP and UDP.
    pub(super) failures: [u32; 2],
    limit: RateLimit,
    pub(super) stats: Rc<Stats>,
}

impl Sources {
    /// Opens the sockets of the namespace that the calling thread is in.
    pub fn open(
        views: Vec<View>,
        needs: Needs,
        stats: Rc<Stats>,
        now: Now,
    ) -> Result<Sources, RunError> {
        let netns =
            sys::netns().map_err(|error| RunError::Start("read the network namespace", error))?;
        let netns = Netns(netns);
        let no_diag = |error| RunError::Start("open a sock_diag netlink socket", error);
        let scope = Scope::open(netns, Rc::clone(&stats)).map_err(no_diag)?;
        let notices = scope.open_notices().map_err(no_diag)?;
        let mut sensor = NetSocket::new(netns, views, needs, Rc::clone(&stats), now);
        sensor.count_from(sys::monotonic_ms());
        Ok(Sources {
            scope,
            notices,
            sensor,
            connects: None,
            // Some may have come before the loop watches for them.
            notices_ready: true,
            dump_ready: false,
            probes: Probes::none(now.mono),
            dumps: Dumps::default(),
            needs,
            starting: true,
            congested: false,
            own: Vec::new(),
            counters: counters(),
            balance: None,
            narrow: Narrow::new(Sought::ALL, false),
            budget: Budget::new(None, now.mono),
            noticed: [false; 2],
            forced: [false; 2],
            deaf: Vec::new(),
            failures: [0; 2],
            limit: RateLimit::new(3, LOG_EVERY),
            stats,
        })
    }

    /// Joins the notice groups with as much room as is granted.
    pub fn join(&mut self, receive_buffer: usize, pipeline: &mut Pipeline, now: Now) {
        self.resize(receive_buffer);
        let unusable = self.probes.join(&self.notices, self.needs, now.mono);
        self.lose(&unusable, pipeline, now);
    }

    /// Asks for another receive buffer.
    pub fn resize(&mut self, receive_buffer: usize) {
        match self.notices.request_buffer(receive_buffer) {
            Ok(Room {
                bytes,
                shards: 1,
                notices,
            }) => log::info!(
                "the receive buffer for notices has {bytes} bytes: room for {notices} between two wake-ups"
            ),
            Ok(Room {
                bytes,
                shards,
                notices,
            }) => log::info!(
                "{shards} sockets share the notices, each with {bytes} bytes: room for {notices} between two wake-ups"
            ),
            Err(error) => log::warn!("the receive buffer for notices keeps its size: {error}"),
        }
    }

    /// Goes on for other sensors: joins the groups that nobody needed before.
    /// Notices that come meanwhile wait in their socket.
    pub fn replace(
        &mut self,
        views: Vec<View>,
        needs: Needs,
        sensors: &Renumbering,
        pipeline: &mut Pipeline,
        now: Now,
    ) {
        self.sensor.replace(views, needs, sensors, now, pipeline);
        let new = |proto| needs.proto(proto) && !self.needs.proto(proto);
        let added = Needs {
            tcp: if new(Proto::Tcp) {
                needs.tcp
            } else {
                StateGroups::NONE
            },
            udp: new(Proto::Udp),
        };
        self.needs = needs;
        if added != Needs::default() {
            let unusable = self.probes.join(&self.notices, added, now.mono);
            self.lose(&unusable, pipeline, now);
        }
    }

    /// Queues the dumps that a tick calls for.
    pub fn tick(&mut self, schedule: &mut Schedule, now: Now) {
        if self.is_over_budget(schedule, now) {
            return;
        }
        for proto in Proto::ALL {
            if std::mem::take(&mut self.noticed[proto as usize]) {
                schedule.noticed(proto);
            }
        }
        for proto in Proto::ALL {
            let deaf = self.deaf.iter().any(|group| group.proto == proto);
            let undecided = proto == Proto::Tcp && self.sensor.has_candidates();
            if self.congested
                || self.sensor.has_gap()
                || deaf
                || undecided
                || self.dumps.lacks(proto)
            {
                schedule.forget(proto);
            }
        }
        let reading = self.reading(now);
        self.balance(reading.map(|reading| reading.tcp_opens), now);
        let due = schedule.due(gate::Tick {
            now: now.mono,
            reading,
            handshakes: self.sensor.has_handshakes(),
        });
        for proto in Proto::ALL.into_iter().filter(|it| due.spared.proto(*it)) {
            self.stats.dumps_spared.bump();
            log::trace!("the gate spared a {} dump", proto.as_str());
        }
        self.sensor.quiet(due.spared, now);
        self.forced = due.forced;
        if due.needs != Needs::default() {
            self.budget.begin(now.mono);
            self.ask(due.needs);
        }
    }

    /// Puts the tick off where dumps have used up their share of the core.
    fn is_over_budget(&mut self, schedule: &mut Schedule, now: Now) -> bool {
        let Some(until) = self.budget.rests_until(now.mono) else {
            return false;
        };
        self.stats.ticks_stretched.bump();
        if !std::mem::replace(&mut self.budget.told, true) {
            log::warn!(
                "a round of dumps costs {} ms of CPU time: ticks are stretched to keep within \
                 `cpu-budget`; ends of sockets are told at once all the same",
                self.budget.spent().as_millis()
            );
        }
        schedule.put_off(until)
    }

    /// The counters now; none where they cannot be read, so that every tick dumps.
    pub(super) fn reading(&mut self, now: Now) -> Option<Reading> {
        match self.counters.as_mut()?.read() {
            Ok(reading) => Some(reading),
            Err(error) => {
                self.warn("counters", now, || {
                    format!("the kernel's counters cannot be read, so this tick dumps: {error}")
                });
                None
            }
        }
    }

    fn ask(&mut self, needs: Needs) {
        if self.scope.is_dumping() || !self.dumps.is_empty() {
            self.stats.ticks_late.bump();
        }
        self.dumps.ask(needs);
    }

    /// DNS answers may have come.
    pub fn names_came(&mut self) {
        if let Some(connects) = &mut self.connects {
            connects.tap_ready = true;
        }
    }

    /// Handles the connect() calls and DNS answers that there are; true when there
    /// are more.
    pub fn calls(&mut self, pipeline: &mut Pipeline, now: Now) -> bool {
        let Some(connects) = &mut self.connects else {
            return false;
        };
        let more = connects.drain(&mut self.sensor, pipeline, now);
        if connects.tap_ready {
            connects.listen(now);
        }
        more || connects.tap_ready
    }

    /// Hears the notices that are there, up to a bound.
    pub fn hear(&mut self, pipeline: &mut Pipeline, now: Now) -> io::Result<()> {
        if !self.notices_ready {
            return Ok(());
        }
        let (probes, noticed) = (&mut self.probes, &mut self.noticed);
        let mut revived = Vec::new();
        let mut heard = Vec::new();
        let drained = self.notices.drain(NOTICES_A_TURN, &mut |notice| {
            revived.extend(probes.revived(&notice));
            if !probes.heard(notice.cookie) {
                noticed[notice.id.proto as usize] = true;
                heard.push(notice);
            }
        })?;
        self.notices_ready = drained.more;
        // The calls were made before the sockets ended, so they are there.
        if let Some(connects) = self.connects.as_mut().filter(|_| !heard.is_empty()) {
            connects.catch_up(&mut self.sensor, pipeline, now);
        }
        for notice in heard {
            self.sensor.notice(notice, now, pipeline);
        }
        if let Some(connects) = &mut self.connects {
            connects.settle(&mut self.sensor, pipeline, now);
        }
        if !revived.is_empty() {
            for group in &revived {
                self.deaf.retain(|deaf| deaf != group);
                if !self.dumps.lacks(group.proto) {
                    self.sensor.sees(group.family, group.proto, now);
                }
            }
            let restored = groups::restored(&revived);
            log::info!("notices from {} come after all", restored.parts.join(", "));
            pipeline.restored(restored, now);
        }
        if drained.overrun {
            self.congested = true;
            self.sensor.overrun(now);
            self.warn("overrun", now, || {
                "the kernel dropped notices (the receive buffer was full); reconciling".to_string()
            });
        }
        // The kernel tells ENOBUFS once, and then drops every notice until the
        // queue has been read empty (NETLINK_S_CONGESTED, net/netlink/af_netlink.c):
        // only now is the stretch over, and only dumps from here on can tell what
        // ended in it.
        if self.congested && !drained.more {
            self.congested = false;
            self.sensor.overrun(now);
            self.probes.send_again(now.mono);
        }
        Ok(())
    }

    /// Gives up groups whose probes are overdue. It was perhaps this process
    /// that did not get to run in time: what is there is heard first.
    fn judge_probes(&mut self, pipeline: &mut Pipeline, now: Now) -> io::Result<()> {
        if !self.probes.are_overdue(now.mono) {
            return Ok(());
        }
        self.notices_ready = true;
        self.hear(pipeline, now)?;
        if !self.notices_ready && self.probes.are_overdue(now.mono) {
            let unheard = self.probes.give_up();
            self.lose(&unheard, pipeline, now);
        }
        Ok(())
    }

    /// Hears everything that is there, and reconciles what was dropped: the
    /// program ends, and what it does not tell now it never will.
    pub fn last_words(&mut self, pipeline: &mut Pipeline) -> Result<(), RunError> {
        self.notices_ready = true;
        let until = Instant::now() + LAST_WORDS;
        let mut called = true;
        while Instant::now() < until
            && (called
                || self.notices_ready
                || self.sensor.has_gap()
                || self.sensor.has_candidates())
        {
            let now = Now::read();
            called = self.calls(pipeline, now);
            self.hear(pipeline, now)?;
            let undecided = self.sensor.has_candidates();
            if undecided && !self.scope.is_dumping() && self.dumps.is_empty() {
                self.dumps.ask(self.needs);
            }
            if undecided || self.sensor.has_gap() {
                // The loop that tells of readiness is not waited for any more.
                self.dump_ready = true;
                if !self.work(pipeline, now)? {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        let now = Now::read();
        if let Some(gap) = self.sensor.abandon_gap(now) {
            log::warn!("ended before everything was reconciled: ends of sockets are missing");
            pipeline.gap(gap, now);
        }
        Ok(())
    }

    /// Does a slice of what is outstanding; true when there is more to do now.
    pub fn work(&mut self, pipeline: &mut Pipeline, now: Now) -> Result<bool, RunError> {
        self.judge_probes(pipeline, now)?;
        for (kind, more) in self.limit.over(now.mono) {
            log::warn!("{more} more messages about \"{kind}\" were not logged");
        }
        if !self.scope.is_dumping() {
            self.compare();
        }
        if !self.scope.is_dumping() && !self.narrow.is_comparing() {
            self.begin_next(pipeline, now)?;
        }
        let stalls = self.scope.stalls_at().is_some_and(|at| at <= now.mono);
        if self.dump_ready || stalls {
            self.read_slice(pipeline, now)?;
        }
        self.ask_about_suspects(pipeline, now);
        if !self.congested
            && let Some(mut gap) = self.sensor.settled_gap(now)
        {
            self.balance_gap(&mut gap);
            let (ms, ends) = (gap.duration_ms, gap.closed_recovered.unwrap_or(0));
            self.tell(Level::Info, "reconciled", now, || {
                format!("reconciled after {ms} ms: {ends} ends were recovered")
            });
            pipeline.gap(gap, now);
        }
        self.tell_ready(now);
        // An overrun, or the dump that just completed, may call for a dump, and
        // no readiness will tell of that.
        self.reconcile();
        let dumps = if self.scope.is_dumping() {
            self.dump_ready
        } else {
            self.dumps
                .next_at(now.mono)
                .is_some_and(|at| at <= now.mono)
        };
        Ok(self.notices_ready || dumps || self.sensor.has_suspects())
    }

    /// Queues the dump that a gap needs next.
    fn reconcile(&mut self) {
        if !self.congested
            && !self.scope.is_dumping()
            && let Some(needs) = self.sensor.wants_dump()
        {
            self.dumps.ask(needs);
        }
    }

    fn begin_next(&mut self, pipeline: &mut Pipeline, now: Now) -> Result<(), RunError> {
        let Some(coverage) = self.dumps.next(now.mono) else {
            return Ok(());
        };
        self.balance_before(coverage, now);
        let before = sys::thread_cpu();
        let condition = self.condition(coverage);
        let begun = self.scope.begin_where(coverage, condition.as_ref(), now);
        self.budget.spend(sys::thread_cpu().saturating_sub(before));
        match begun {
            Ok(()) => {
                self.sensor.begin_dump(coverage, now);
                self.narrow_begun(coverage);
                self.dump_ready = true;
                Ok(())
            }
            Err(error) => self.failed(coverage, &error, pipeline, now),
        }
    }

    /// Leaves out the sockets that look-ups of our own have open right now.
    fn disown(&mut self, pipeline: &Pipeline) {
        if pipeline.is_looking_up() {
            match sys::own_cookies(&mut self.own) {
                Ok(()) => {
                    let cookies: Vec<_> = self.own.iter().map(|cookie| Cookie(*cookie)).collect();
                    self.sensor.disown(&cookies);
                }
                Err(error) => log::debug!("cannot tell sockwatch's own sockets: {error}"),
            }
        }
    }

    fn read_slice(&mut self, pipeline: &mut Pipeline, now: Now) -> Result<(), RunError> {
        self.disown(pipeline);
        let sensor = &mut self.sensor;
        let before = sys::thread_cpu();
        let progress = self.scope.read(now, &mut |row| sensor.row(row, now));
        self.budget.spend(sys::thread_cpu().saturating_sub(before));
        match progress {
            Progress::More => Ok(()),
            Progress::Waiting => {
                self.dump_ready = false;
                Ok(())
            }
            Progress::Done(coverage) => {
                self.regain_proto(coverage.proto, pipeline, now);
                if let Some(connects) = &mut self.connects {
                    connects.catch_up(&mut self.sensor, pipeline, now);
                }
                let found = self.sensor.end_dump(now, pipeline);
                self.narrow_completed(coverage);
                self.balance_after(coverage, true, now);
                if let Some(connects) = &mut self.connects {
                    connects.settle(&mut self.sensor, pipeline, now);
                }
                if self.forced[coverage.proto as usize] {
                    self.stats.dumps_forced.bump();
                    self.stats.forced_found.add(found);
                }
                Ok(())
            }
            Progress::Failed(coverage, error) => {
                self.sensor.fail_dump(now);
                self.balance_after(coverage, false, now);
                self.failed(coverage, &error, pipeline, now)
            }
        }
    }

    fn ask_about_suspects(&mut self, pipeline: &mut Pipeline, now: Now) {
        for _ in 0..QUERIES_A_TURN {
            let Some(suspect) = self.sensor.next_suspect() else {
                return;
            };
            match self.scope.ask(&suspect.id, suspect.key.cookie) {
                Ok(Found::Row(row)) => self.sensor.answered(suspect, Some(row), now, pipeline),
                Ok(Found::Gone) => self.sensor.answered(suspect, None, now, pipeline),
                Err(error) => {
                    self.sensor.unanswered(suspect);
                    self.warn("query", now, || format!("an exact query failed: {error}"));
                }
            }
        }
    }

    pub(super) fn warn(&mut self, kind: &'static str, now: Now, message: impl Fn() -> String) {
        self.tell(Level::Warn, kind, now, message);
    }

    /// Logs what can happen at any rate, at a bounded one.
    fn tell(&mut self, level: Level, kind: &'static str, now: Now, message: impl Fn() -> String) {
        match self.limit.admit(kind, now.mono) {
            Some(0) => log::log!(level, "{}", message()),
            Some(more) => log::log!(level, "{} ({more} more like it were not logged)", message()),
            None => {}
        }
    }

    /// Says so once when everything has been read and the groups are joined.
    /// Not when the line of dumps is empty: where a dump takes longer than a
    /// tick it never is.
    fn tell_ready(&mut self, now: Now) {
        let read = |proto: &Proto| {
            !self.needs.proto(*proto) || self.dumps.lacks(*proto) || self.sensor.is_read(*proto)
        };
        if self.starting && Proto::ALL.iter().all(read) && self.probes.are_done() {
            self.starting = false;
            self.look_at_balance(now);
            log::info!("ready: {} sockets in the table", self.sensor.len());
        }
    }

    /// When something is due that no descriptor tells of.
    pub fn deadline(&self, now: Now) -> Option<Instant> {
        let dump = match self.scope.stalls_at() {
            Some(at) => Some(at),
            None => self.dumps.next_at(now.mono),
        };
        self.probes.deadline().into_iter().chain(dump).min()
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
