//! The events that are held back until it is known who has their sockets.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
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

/// All of them.
#[derive(Default)]
pub(super) struct Lines {
    lines: HashMap<WaitKey, Line>,
    by_inode: HashMap<u32, Vec<WaitKey>>,
    deadlines: BinaryHeap<Reverse<(Instant, WaitKey)>>,
    count: usize,
}

impl Lines {
    pub fn is_full(&self) -> bool {
        self.count >= BOUND
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
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
        self.by_inode.entry(inode).or_default().push(key);
        self.deadlines.push(Reverse((until, key)));
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
        if let Some(keys) = self.by_inode.get_mut(&line.inode) {
            keys.retain(|waiting| *waiting != key);
            if keys.is_empty() {
                self.by_inode.remove(&line.inode);
            }
        }
        Some(line)
    }

    /// The lines that wait for a socket.
    pub fn waiting_for(&mut self, inode: u32) -> Vec<WaitKey> {
        self.by_inode.remove(&inode).unwrap_or_default()
    }

    /// When the next line has waited long enough.
    pub fn deadline(&mut self) -> Option<Instant> {
        loop {
            let Reverse((until, key)) = *self.deadlines.peek()?;
            if self.lines.get(&key).is_some_and(|line| line.until == until) {
                return Some(until);
            }
            self.deadlines.pop();
        }
    }

    /// A line that has waited long enough.
    pub fn pop_expired(&mut self, now: Instant) -> Option<WaitKey> {
        if self.deadline()? > now {
            return None;
        }
        self.deadlines.pop().map(|Reverse((_, key))| key)
    }

    /// Any line, the one that has waited longest first.
    pub fn pop(&mut self) -> Option<WaitKey> {
        self.deadline()?;
        self.deadlines.pop().map(|Reverse((_, key))| key)
    }
}
