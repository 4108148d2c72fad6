//! Who has a socket open: events that wait for the answer.
//!
//! A change comes here when it has been decided, so that a view never waits; its
//! event does, and whatever the same sensor has to say of the same socket queues
//! up behind it. The question is put when a socket enters a view. The answer goes
//! to the event, and to whoever keeps the socket ([`Pipeline::take_attributed`]),
//! for by the time it ends nobody has it open any more. For sockets that enter a
//! view without an event nothing waits: they are asked about some at a time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Pipeline;
use super::waiting::WaitKey;
use crate::enrich::pool::Wake;
use crate::enrich::{Lookup, Processes};
use crate::model::{
    Attributed, Attribution, Change, Host, Now, Owner, ProcessUnknown, SocketKey, Step, TcpState,
};
use crate::stats::Stats;

/// How many events may be held back; past it, processes are done without.
const BOUND: usize = 16_384;
/// How many sockets without an event may wait to be asked about.
const BACKLOG: usize = 65_536;
/// How many of these are asked about at one time.
const AT_ONCE: usize = 1024;
/// How long each of these may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An event that is held back.
struct Held {
    change: Change,
    state: TcpState,
    host: Host,
    at: Now,
}

/// The events of one socket, the first of which waits.
struct Line {
    inode: u32,
    until: Instant,
    events: Vec<Held>,
}

/// A socket that entered a view without an event.
#[derive(Clone, Copy)]
struct Silent {
    key: SocketKey,
    uid: u32,
    inode: u32,
}

/// Everything that waits for processes.
pub(super) struct Attributing {
    wake: Option<Wake>,
    processes: Option<Processes>,
    lines: HashMap<WaitKey, Line>,
    by_inode: HashMap<u32, Vec<WaitKey>>,
    deadlines: BinaryHeap<Reverse<(Instant, WaitKey)>>,
    count: usize,
    backlog: VecDeque<Silent>,
    /// What was asked about out of the backlog, by inode, and until when.
    asked: HashMap<u32, (SocketKey, Instant)>,
    attributed: Vec<Attributed>,
    found: Vec<(u32, Attribution)>,
    /// The time of the last call: an event may have waited for a name before.
    clock: Option<Instant>,
    stats: Rc<Stats>,
}

impl Attributing {
    pub fn new(stats: Rc<Stats>) -> Attributing {
        Attributing {
            wake: None,
            processes: None,
            lines: HashMap::new(),
            by_inode: HashMap::new(),
            deadlines: BinaryHeap::new(),
            count: 0,
            backlog: VecDeque::new(),
            asked: HashMap::new(),
            attributed: Vec::new(),
            found: Vec::new(),
            clock: None,
            stats,
        }
    }

    /// Finds processes with this.
    #[cfg(test)]
    pub fn find_with(&mut self, processes: Processes) {
        self.processes = Some(processes);
    }

    /// When the next event has waited long enough.
    pub fn deadline(&mut self) -> Option<Instant> {
        loop {
            let Reverse((until, key)) = *self.deadlines.peek()?;
            if self.lines.get(&key).is_some_and(|line| line.until == until) {
                return Some(until);
            }
            self.deadlines.pop();
        }
    }

    fn take(&mut self, key: WaitKey) -> Option<Line> {
        let line = self.lines.remove(&key)?;
        self.count -= line.events.len();
        if let Some(keys) = self.by_inode.get_mut(&line.inode) {
            keys.retain(|waiting| *waiting != key);
            if keys.is_empty() {
                self.by_inode.remove(&line.inode);
            }
        }
        Some(line)
    }

    fn begin(&mut self, key: WaitKey, inode: u32, until: Instant, held: Held) {
        self.count += 1;
        self.by_inode.entry(inode).or_default().push(key);
        self.deadlines.push(Reverse((until, key)));
        let events = vec![held];
        self.lines.insert(
            key,
            Line {
                inode,
                until,
                events,
            },
        );
    }

    /// Notes a socket to be asked about when there is time.
    fn later(&mut self, change: &Change) {
        let Owner::Known { uid, inode } = change.owner else {
            return;
        };
        if change.holders.is_some() || self.processes.is_none() {
            return;
        }
        if self.backlog.len() >= BACKLOG {
            self.stats.processes_overload.bump();
            return;
        }
        let key = change.key;
        self.backlog.push_back(Silent { key, uid, inode });
    }

    /// Asks about some of the sockets that nothing waits for.
    fn ask_more(&mut self, now: Now) {
        let Some(processes) = &mut self.processes else {
            return;
        };
        self.asked.retain(|_, (_, until)| *until > now.mono);
        while self.asked.len() < AT_ONCE
            && let Some(Silent { key, uid, inode }) = self.backlog.pop_front()
        {
            let until = now.mono + PATIENCE;
            match processes.ask(inode, Some(uid), until) {
                Lookup::Known(holders) => self.attributed.push(Attributed { key, holders }),
                Lookup::Pending => {
                    self.asked.insert(inode, (key, until));
                }
            }
        }
    }
}

const TIMEOUT: Attribution = Attribution::Unknown(ProcessUnknown::Timeout);

impl Pipeline {
    /// From now on finds out who has a socket open, for the sensors that want
    /// it. `wake` is called when there is something to collect.
    pub fn attribute_with(&mut self, wake: Wake) {
        self.attribution.wake = Some(wake);
        self.find_processes();
    }

    /// Looks processes up as the sensors want it now.
    pub(super) fn find_processes(&mut self) {
        let wanted = || self.stages.iter().filter_map(|stage| stage.process);
        let cmdline = wanted().any(|wanted| wanted.cmdline);
        let wake = self.attribution.wake.clone();
        let wake = wake.filter(|_| wanted().next().is_some());
        self.attribution.asked.clear();
        self.attribution.processes =
            wake.map(|wake| Processes::new(cmdline, wake, Rc::clone(&self.stats)));
    }

    /// Who has which socket, as it was found since the last call; call it after
    /// every call that may emit something.
    pub fn take_attributed(&mut self) -> Vec<Attributed> {
        std::mem::take(&mut self.attribution.attributed)
    }

    /// What the event of a decided change is to say of who has the socket;
    /// `None` when the event has to wait, and will be told later.
    pub(super) fn attribute(
        &mut self,
        change: &Change,
        state: TcpState,
        host: &Host,
        at: Now,
    ) -> Option<Option<Attribution>> {
        let Some(wanted) = self.stage(change).process else {
            return Some(None);
        };
        let held = || Held {
            change: change.clone(),
            state,
            host: host.clone(),
            at,
        };
        let key = WaitKey::of(change);
        let full = self.attribution.count >= BOUND;
        if full {
            self.release(key, &TIMEOUT);
        }
        if let Some(line) = self.attribution.lines.get_mut(&key) {
            line.events.push(held());
            self.attribution.count += 1;
            return None;
        }
        if let Some(known) = &change.holders {
            return Some(Some(known.clone()));
        }
        let (uid, inode) = match change.owner {
            Owner::Unknown(why) => return Some(Some(Attribution::Unknown(why.into()))),
            Owner::Known { uid, inode } => (uid, inode),
        };
        if let Step::Closed { .. } = change.step {
            return Some(Some(Attribution::Unknown(ProcessUnknown::NotRead)));
        }
        if !self.is_emittable(change) {
            self.attribution.later(change);
            return Some(None);
        }
        let attribution = &mut self.attribution;
        let Some(processes) = attribution.processes.as_mut().filter(|_| !self.finishing) else {
            return Some(Some(TIMEOUT));
        };
        if full {
            self.stats.processes_overload.bump();
            return Some(Some(TIMEOUT));
        }
        let now = attribution
            .clock
            .map_or(at.mono, |clock| clock.max(at.mono));
        let until = now + wanted.timeout;
        match processes.ask(inode, Some(uid), until) {
            Lookup::Known(holders) => {
                let (key, known) = (change.key, holders.clone());
                attribution.attributed.push(Attributed { key, holders });
                Some(Some(known))
            }
            Lookup::Pending => {
                attribution.begin(key, inode, until, held());
                None
            }
        }
    }

    /// Takes the answers that came in, and lets go on what waited for them.
    pub(super) fn collect_holders(&mut self, now: Now) {
        self.attribution.clock = Some(now.mono);
        let Some(processes) = &mut self.attribution.processes else {
            return;
        };
        let mut found = std::mem::take(&mut self.attribution.found);
        processes.collect(now, &mut found);
        for (inode, holders) in found.drain(..) {
            let waiting = self.attribution.by_inode.remove(&inode);
            for key in waiting.into_iter().flatten() {
                self.release(key, &holders);
            }
            if let Some((key, _)) = self.attribution.asked.remove(&inode) {
                self.attribution
                    .attributed
                    .push(Attributed { key, holders });
            }
        }
        self.attribution.found = found;
        self.attribution.ask_more(now);
    }

    /// Lets go on what has waited long enough.
    pub(super) fn expire_holders(&mut self, now: Now) {
        self.attribution.clock = Some(now.mono);
        while let Some(until) = self.attribution.deadline()
            && until <= now.mono
            && let Some(Reverse((_, key))) = self.attribution.deadlines.pop()
        {
            self.stats.processes_timed_out.bump();
            self.release(key, &TIMEOUT);
        }
        self.attribution.ask_more(now);
    }

    /// Lets everything go on without an answer.
    pub(super) fn release_all(&mut self) {
        while let Some(Reverse((_, key))) = self.attribution.deadlines.pop() {
            self.release(key, &TIMEOUT);
        }
    }

    /// Tells the events of a line.
    fn release(&mut self, key: WaitKey, holders: &Attribution) {
        let Some(line) = self.attribution.take(key) else {
            return;
        };
        self.attribution.attributed.push(Attributed {
            key: key.socket,
            holders: holders.clone(),
        });
        for held in line.events {
            let known = Some(holders.clone());
            self.tell(&held.change, held.state, &held.host, known, held.at);
        }
    }
}
