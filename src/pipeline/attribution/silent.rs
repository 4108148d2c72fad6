//! Sockets that are asked about for the sake of their close alone: no event waits
//! for the answer.
//!
//! A few stand in line. Where there are more (at the start, after a reload) the
//! whole table is gone through instead, which needs no memory: each socket in a
//! view of which nobody has asked yet.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::model::SocketKey;

/// How many may stand in line.
const LINE: usize = 4096;
/// How many are asked about at one time.
const AT_ONCE: usize = 1 << 12;
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
    /// By inode, and until when.
    asked: HashMap<u32, (SocketKey, Instant)>,
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
        self.line.pop_front()
    }

    /// One is being asked about.
    pub fn asked(&mut self, silent: Silent, now: Instant) {
        self.asked
            .insert(silent.inode, (silent.key, now + PATIENCE));
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

    /// Whether the last of many has been answered; told once.
    pub fn are_done(&mut self) -> bool {
        let done = self.asked.is_empty() && self.asked.capacity() > 1024;
        if done {
            self.asked = HashMap::new();
        }
        done
    }

    /// Forgets what took too long.
    pub fn expire(&mut self, now: Instant) {
        self.asked.retain(|_, (_, until)| *until > now);
    }

    /// Nobody is asked any more.
    pub fn forget(&mut self) {
        *self = Silents::default();
    }
}
