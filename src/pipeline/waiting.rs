//! Changes that wait for a name: one line for each sensor and socket, in order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use crate::model::{Attribution, Change, Host, Now, Renumbering, RowKind, SensorIx, SocketKey};

/// How many changes may wait at once; past it, names are done without.
const BOUND: usize = 65_536;

/// Whose line it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct WaitKey {
    pub sensor: SensorIx,
    pub socket: SocketKey,
    pub kind: RowKind,
}

impl WaitKey {
    pub fn of(change: &Change) -> WaitKey {
        WaitKey {
            sensor: change.sensor,
            socket: change.key,
            kind: change.kind,
        }
    }
}

/// One change in line.
#[derive(Debug)]
pub(super) struct Waiter {
    pub change: Change,
    /// When it was learned: the time that its event shows.
    pub at: Now,
    /// When it goes on without a name.
    pub until: Instant,
}

/// The changes of one socket, the first of which waits for its peer's name.
#[derive(Debug)]
pub(super) struct Line {
    pub steps: VecDeque<Waiter>,
    /// In the view, as far as the line has been worked off.
    pub entered: bool,
    /// The host that was found last, and whose it is.
    pub host: Host,
    pub host_of: Option<IpAddr>,
    /// The number under which it stands among those that wait for one address.
    turn: u64,
}

/// All lines.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    lines: HashMap<WaitKey, Line>,
    by_ip: HashMap<IpAddr, BTreeMap<u64, WaitKey>>,
    deadlines: BinaryHeap<Reverse<(Instant, WaitKey)>>,
    count: usize,
    turns: u64,
}

impl Waiting {
    /// Whether no more may wait.
    pub fn is_full(&self) -> bool {
        self.count >= BOUND
    }

    /// Puts a change at the end of its socket's line; false when there is none.
    pub fn append(&mut self, key: WaitKey, change: &Change, until: Instant, at: Now) -> bool {
        let Some(line) = self.lines.get_mut(&key) else {
            return false;
        };
        let mut change = change.clone();
        // Of one socket: what was found out of it while it waits holds for all.
        let before = line.steps.back().map(|step| &step.change.holders);
        change.holders = change.holders.or_else(|| before.cloned().flatten());
        line.steps.push_back(Waiter { change, at, until });
        self.count += 1;
        true
    }

    /// It has been found out who has the socket of a line.
    pub fn learn(&mut self, key: WaitKey, holders: &Attribution) {
        let steps = self.lines.get_mut(&key).map(|line| line.steps.iter_mut());
        for step in steps.into_iter().flatten() {
            step.change.holders.get_or_insert_with(|| holders.clone());
        }
    }

    /// The address that a socket's line waits for.
    pub fn head(&self, key: WaitKey) -> Option<IpAddr> {
        let line = self.lines.get(&key)?;
        line.steps.front().map(|head| head.change.id.remote.ip)
    }

    /// Begins a line.
    pub fn begin(&mut self, key: WaitKey, change: Change, until: Instant, at: Now, entered: bool) {
        let line = Line {
            steps: VecDeque::from([Waiter { change, at, until }]),
            entered,
            host: Host::Unasked,
            host_of: None,
            turn: 0,
        };
        self.put(key, line);
    }

    /// Puts a line back (or in) whose head waits for its peer's name.
    pub fn put(&mut self, key: WaitKey, mut line: Line) {
        if let Some(head) = line.steps.front() {
            self.turns += 1;
            line.turn = self.turns;
            self.by_ip
                .entry(head.change.id.remote.ip)
                .or_default()
                .insert(line.turn, key);
            self.deadlines.push(Reverse((head.until, key)));
            self.count += line.steps.len();
            self.lines.insert(key, line);
        }
    }

    /// Takes a line out, to be worked off.
    pub fn take(&mut self, key: WaitKey) -> Option<Line> {
        let line = self.lines.remove(&key)?;
        self.count -= line.steps.len();
        let ip = line.steps.front().map(|head| head.change.id.remote.ip);
        if let Some(ip) = ip
            && let Some(keys) = self.by_ip.get_mut(&ip)
        {
            keys.remove(&line.turn);
            if keys.is_empty() {
                self.by_ip.remove(&ip);
            }
        }
        Some(line)
    }

    /// The lines whose head waits for this address's name, in the order in which
    /// they began to.
    pub fn waiting_for(&mut self, ip: IpAddr) -> Vec<WaitKey> {
        let waiting = self.by_ip.remove(&ip).unwrap_or_default();
        waiting.into_values().collect()
    }

    /// When the next head has waited long enough.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        loop {
            let Reverse((until, key)) = *self.deadlines.peek()?;
            if self.is_head(key, until) {
                return Some(until);
            }
            self.deadlines.pop();
        }
    }

    fn is_head(&self, key: WaitKey, until: Instant) -> bool {
        let head = self.lines.get(&key).and_then(|line| line.steps.front());
        head.is_some_and(|head| head.until == until)
    }

    /// A line whose head has waited long enough, and for which address.
    pub fn pop_expired(&mut self, now: Instant) -> Option<(WaitKey, IpAddr)> {
        if self.next_deadline()? > now {
            return None;
        }
        let Reverse((_, key)) = self.deadlines.pop()?;
        Some((
            key,
            self.lines.get(&key)?.steps.front()?.change.id.remote.ip,
        ))
    }

    /// The sensors have other numbers now: the lines of those that are kept go on,
    /// the others end.
    pub fn renumber(&mut self, sensors: &Renumbering) {
        let mut lines: Vec<_> = std::mem::take(self).lines.into_iter().collect();
        lines.sort_unstable_by_key(|(_, line)| line.turn);
        for (key, mut line) in lines {
            if let Some(sensor) = sensors.of(key.sensor) {
                for step in &mut line.steps {
                    step.change.sensor = sensor;
                }
                self.put(WaitKey { sensor, ..key }, line);
            }
        }
    }

    /// Every line and the address its head waits for, oldest deadline first.
    pub fn drain_heads(&mut self) -> Vec<(WaitKey, IpAddr)> {
        let mut heads: Vec<_> = self
            .lines
            .iter()
            .filter_map(|(key, line)| {
                line.steps
                    .front()
                    .map(|head| (head.until, *key, head.change.id.remote.ip))
            })
            .collect();
        heads.sort_unstable();
        heads.into_iter().map(|(_, key, ip)| (key, ip)).collect()
    }
}
