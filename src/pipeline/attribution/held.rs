//! The events that are held back until it is known who has their sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::model::{Change, Host, Now, TcpState};
use crate::pipeline::waiting::WaitKey;

/// How many events may be held back; past it, processes are done without.
const BOUND: usize = 16_384;

/// An event that is held back.
pub(super) struct Held {
    pub change: Change,
    pub state: TcpState,
    pub host: Host,
    pub at: Now,
}

/// The events of one socket, the first of which waits.
pub(super) struct Line {
    inode: u32,
    until: Instant,
    pub events: Vec<Held>,
}

/// All of them. Trees, so that what they take is what they hold.
#[derive(Default)]
pub(super) struct Lines {
    lines: BTreeMap<WaitKey, Line>,
    /// By the socket that each waits for.
    by_inode: BTreeSet<(u32, WaitKey)>,
    deadlines: BTreeSet<(Instant, WaitKey)>,
    count: usize,
}

impl Lines {
    pub fn is_full(&self) -> bool {
        self.count >= BOUND
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// How many events there are in all lines.
    pub fn len(&self) -> usize {
        self.count
    }

    /// The socket that a line waits for, if there is such a line.
    pub fn inode(&self, key: WaitKey) -> Option<u32> {
        self.lines.get(&key).map(|line| line.inode)
    }

    /// The event that waits at the head of a line.
    pub fn first(&self, key: WaitKey) -> Option<&Held> {
        self.lines.get(&key)?.events.first()
    }

    /// Puts an event behind those of its line.
    pub fn append(&mut self, key: WaitKey, held: Held) {
        if let Some(line) = self.lines.get_mut(&key) {
            line.events.push(held);
            self.count += 1;
        }
    }

    /// Begins a line that waits for who has a socket, until then at most.
    pub fn begin(&mut self, key: WaitKey, inode: u32, until: Instant, held: Held) {
        self.count += 1;
        self.by_inode.insert((inode, key));
        self.deadlines.insert((until, key));
        let events = vec![held];
        let line = Line {
            inode,
            until,
            events,
        };
        self.lines.insert(key, line);
    }

    /// Takes a line out, to be told.
    pub fn take(&mut self, key: WaitKey) -> Option<Line> {
        let line = self.lines.remove(&key)?;
        self.count -= line.events.len();
        self.by_inode.remove(&(line.inode, key));
        self.deadlines.remove(&(line.until, key));
        Some(line)
    }

    /// The lines that wait for a socket.
    pub fn waiting_for(&self, inode: u32) -> Vec<WaitKey> {
        let waiting = (inode, WaitKey::LEAST)..=(inode, WaitKey::MOST);
        self.by_inode.range(waiting).map(|(_, key)| *key).collect()
    }

    /// When the next line has waited long enough.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// A line that has waited long enough.
    pub fn expired(&self, now: Instant) -> Option<WaitKey> {
        let (until, key) = self.deadlines.first()?;
        (*until <= now).then_some(*key)
    }

    /// Any line, the one that has waited longest first.
    pub fn oldest(&self) -> Option<WaitKey> {
        self.deadlines.first().map(|(_, key)| *key)
    }
}
