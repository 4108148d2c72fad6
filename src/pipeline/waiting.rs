//! Changes that wait for a name: one line for each sensor and socket, in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use crate::model::{
    Attribution, Change, Cookie, Host, Netns, Now, Renumbering, RowKind, SensorIx, SocketKey,
};
use crate::order::by_number;

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
    /// The first of all, in order.
    pub const LEAST: WaitKey = WaitKey {
        sensor: SensorIx(0),
        socket: SocketKey {
            netns: Netns(0),
            cookie: Cookie(0),
        },
        kind: RowKind::Full,
    };

    /// The last of all.
    pub const MOST: WaitKey = WaitKey {
        sensor: SensorIx(u8::MAX),
        socket: SocketKey {
            netns: Netns(u32::MAX),
            cookie: Cookie(u64::MAX),
        },
        kind: RowKind::Mini,
    };

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

/// All lines. Trees, so that what they take is what they hold.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    lines: BTreeMap<WaitKey, Line>,
    /// By the address that the head of each waits for, and its turn.
    by_ip: BTreeMap<(IpAddr, u64), WaitKey>,
    deadlines: BTreeSet<(Instant, WaitKey)>,
    count: usize,
    turns: u64,
}

impl Waiting {
    /// How many changes wait.
    pub fn len(&self) -> usize {
        self.count
    }

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
                .insert((head.change.id.remote.ip, line.turn), key);
            self.deadlines.insert((head.until, key));
            self.count += line.steps.len();
            self.lines.insert(key, line);
        }
    }

    /// Takes a line out, to be worked off.
    pub fn take(&mut self, key: WaitKey) -> Option<Line> {
        let line = self.lines.remove(&key)?;
        self.count -= line.steps.len();
        if let Some(head) = line.steps.front() {
            self.by_ip.remove(&(head.change.id.remote.ip, line.turn));
            self.deadlines.remove(&(head.until, key));
        }
        Some(line)
    }

    /// The lines whose head waits for this address's name, in the order in which
    /// they began to.
    pub fn waiting_for(&self, ip: IpAddr) -> Vec<WaitKey> {
        let waiting = self.by_ip.range((ip, 0)..=(ip, u64::MAX));
        waiting.map(|(_, key)| *key).collect()
    }

    /// When the next head has waited long enough.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// A line whose head has waited long enough, and for which address.
    pub fn expired(&self, now: Instant) -> Option<(WaitKey, IpAddr)> {
        let (until, key) = *self.deadlines.first()?;
        if until > now {
            return None;
        }
        Some((key, self.head(key)?))
    }

    /// The sensors have other numbers now: the lines of those that are kept go on,
    /// the others end.
    pub fn renumber(&mut self, sensors: &Renumbering) {
        let mut lines: Vec<_> = std::mem::take(self).lines.into_iter().collect();
        by_number(&mut lines, |(_, line)| line.turn);
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
    pub fn heads(&self) -> Vec<(WaitKey, IpAddr)> {
        let keys = self.deadlines.iter().map(|(_, key)| *key);
        keys.filter_map(|key| Some((key, self.head(key)?)))
            .collect()
    }
}
