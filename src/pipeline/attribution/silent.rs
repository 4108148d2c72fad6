//! Sockets that are asked about for the sake of their close alone: no event waits
//! for the answer.
//!
//! A few stand in line. Where there are more (at the start, after a reload) the
//! whole table is gone through instead, which needs no memory: each socket in a
//! view of which nobody has asked yet.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::model::SocketKey;

/// How many may stand in line.
const LINE: usize = 4096;
/// How many are asked about at one time. Each time costs a look at everything that
/// is remembered, so that they should be few for a million; and each question takes
/// a few hundred bytes. With the events that may be held back they are as many as
/// there is room for in a search.
const AT_ONCE: usize = 1 << 14;
/// How long each of these may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A socket, and whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Silent {
    /// The socket.
    pub key: SocketKey,
    /// Its user.
    pub uid: u32,
    /// Its inode, not 0.
    pub inode: u32,
}

/// Those that wait, and those that are being asked about.
#[derive(Default)]
pub(super) struct Silents {
    line: VecDeque<Silent>,
    /// By inode, and until when. A tree, which takes what it holds.
    asked: BTreeMap<u32, (SocketKey, Instant)>,
    /// None of these expires before.
    expires: Option<Instant>,
    /// There are more than could stand in line.
    more: bool,
}

impl Silents {
    /// Has a socket stand in line.
    pub fn push(&mut self, silent: Silent) {
        if self.more {
            return;
        }
        if self.line.len() >= LINE {
            return self.all();
        }
        self.line.push_back(silent);
    }

    /// Has a socket stand in line if there is room: it may as well not be known.
    pub fn push_if_room(&mut self, silent: Silent) {
        if !self.more && self.line.len() < LINE {
            self.line.push_back(silent);
        }
    }

    /// Whatever is in a view and was not asked about is to be.
    pub fn all(&mut self) {
        self.more = true;
        self.line.clear();
    }

    /// Whether the whole table has to be gone through, from now on.
    pub fn take_all(&mut self) -> bool {
        std::mem::take(&mut self.more)
    }

    /// How many may be asked about now.
    pub fn room(&self) -> usize {
        AT_ONCE.saturating_sub(self.asked.len())
    }

    /// The next one to ask about.
    pub fn pop(&mut self) -> Option<Silent> {
        if self.room() == 0 {
            return None;
        }
        let next = self.line.pop_front();
        if self.line.is_empty() {
            // A few stand in it at most, or it was long.
            self.line.shrink_to(16);
        }
        next
    }

    /// One is being asked about.
    pub fn asked(&mut self, silent: Silent, now: Instant) {
        let until = Silents::patience(now);
        self.expires.get_or_insert(until);
        self.asked.insert(silent.inode, (silent.key, until));
    }

    /// Whether one is being asked about.
    pub fn is_asked(&self, inode: u32) -> bool {
        self.asked.contains_key(&inode)
    }

    /// Until when an answer is worth something.
    pub fn patience(now: Instant) -> Instant {
        now + PATIENCE
    }

    /// The answer has come, or is not wanted any more.
    pub fn take(&mut self, inode: u32) -> Option<SocketKey> {
        self.asked.remove(&inode).map(|(key, _)| key)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.line.len() + self.asked.len()
    }

    /// Forgets what took too long.
    pub fn expire(&mut self, now: Instant) {
        if self.expires.is_some_and(|until| until <= now) {
            self.asked.retain(|_, (_, until)| *until > now);
            self.expires = self.asked.values().map(|(_, until)| *until).min();
        }
    }

    /// Nobody is asked any more.
    pub fn forget(&mut self) {
        *self = Silents::default();
    }
}
