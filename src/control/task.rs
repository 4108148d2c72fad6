//! Replies that are longer than what is written in one go: made piece by piece,
//! as their reader takes them.
//!
//! A task holds where it has come to and nothing else, so that a listing of a
//! million sockets takes no more memory than one of ten. A lock is released in
//! the same moment in which it is told: a client that goes away half-way through
//! leaves the rest locked.

use std::collections::VecDeque;

use super::{Commands, replies};
use crate::emit::Json;
use crate::filter::IdGlob;
use crate::log::Plain;
use crate::sensor::Listing;

/// Table entries or locks looked at in one go.
const PIECE: usize = 64;

/// A reply under way.
#[derive(Debug)]
pub(super) enum Task {
    Dump { listing: Listing, rows: u64 },
    Locks { after: Option<String>, count: u64 },
    Unlock(Box<Unlock>),
}

/// Locks being released.
#[derive(Debug, Default)]
pub(super) struct Unlock {
    /// Ids and globs.
    left: VecDeque<String>,
    /// The glob under way, and the lock that it has come to.
    glob: Option<(IdGlob, Option<String>)>,
    locks: u64,
    muted: u64,
    /// Ids that are not locked, and globs that are none.
    unknown: Vec<String>,
    /// Globs that were compiled, those that are none included.
    compiled: usize,
}

impl Task {
    pub fn dump() -> Task {
        Task::Dump {
            listing: Listing::default(),
            rows: 0,
        }
    }

    pub fn locks() -> Task {
        Task::Locks {
            after: None,
            count: 0,
        }
    }

    pub fn unlock(eids: Vec<String>) -> Task {
        Task::Unlock(Box::new(Unlock {
            left: eids.into(),
            ..Unlock::default()
        }))
    }

    /// Whether the table must keep its order for it.
    pub fn lists_sockets(&self) -> bool {
        matches!(self, Task::Dump { .. })
    }

    /// How many globs were compiled for it.
    pub fn compiled(&self) -> usize {
        match self {
            Task::Unlock(unlock) => unlock.compiled,
            Task::Dump { .. } | Task::Locks { .. } => 0,
        }
    }

    /// Appends the next piece; true when that was the last, with the reply.
    pub fn go_on(&mut self, commands: &mut impl Commands, out: &mut Vec<u8>) -> bool {
        match self {
            Task::Dump { listing, rows } => {
                let json = Json::new("");
                let more = commands.list(listing, PIECE, &mut |row| {
                    *rows += 1;
                    json.row(row, out);
                });
                if !more {
                    replies::ok(out, "dump", |line| line.number("rows", *rows));
                }
                !more
            }
            Task::Locks { after, count } => {
                let mut last = None;
                for (eid, lock) in commands.locks().after(after.as_deref()).take(PIECE) {
                    replies::lock(out, eid, lock);
                    *count += 1;
                    last = Some(eid.to_owned());
                }
                if last.is_some() {
                    *after = last;
                    return false;
                }
                replies::ok(out, "locks", |line| line.number("locks", *count));
                true
            }
            Task::Unlock(unlock) => unlock.go_on(commands, out),
        }
    }
}

impl Unlock {
    fn go_on(&mut self, commands: &mut impl Commands, out: &mut Vec<u8>) -> bool {
        if let Some((glob, after)) = self.glob.take() {
            self.glob = self.sweep(glob, after, commands, out);
            return false;
        }
        let Some(eid) = self.left.pop_front() else {
            self.reply(out);
            return true;
        };
        if self.release(&eid, commands, out) {
            return false;
        }
        self.compiled += 1;
        match IdGlob::new(&eid) {
            Ok(glob) if !glob.is_literal() => self.glob = Some((glob, None)),
            Ok(_) | Err(_) => self.unknown.push(eid),
        }
        false
    }

    /// Releases the matching ones among the next locks; where to go on, if there
    /// are more.
    fn sweep(
        &mut self,
        glob: IdGlob,
        after: Option<String>,
        commands: &mut impl Commands,
        out: &mut Vec<u8>,
    ) -> Option<(IdGlob, Option<String>)> {
        let (mut last, mut matching) = (None, Vec::new());
        for (eid, _) in commands.locks().after(after.as_deref()).take(PIECE) {
            if glob.matches(eid) {
                matching.push(eid.to_owned());
            }
            last = Some(eid.to_owned());
        }
        for eid in matching {
            self.release(&eid, commands, out);
        }
        last.map(|last| (glob, Some(last)))
    }

    fn release(&mut self, eid: &str, commands: &mut impl Commands, out: &mut Vec<u8>) -> bool {
        let Some(lock) = commands.locks_mut().release(eid) else {
            return false;
        };
        replies::lock(out, eid, &lock);
        self.locks += 1;
        self.muted = self.muted.saturating_add(lock.muted);
        true
    }

    fn reply(&self, out: &mut Vec<u8>) {
        let done = |line: &mut crate::emit::Object<'_>| {
            line.number("locks", self.locks);
            line.number("muted", self.muted);
        };
        if self.unknown.is_empty() {
            return replies::ok(out, "unlock", done);
        }
        let error = match self.unknown.as_slice() {
            [one] => format!("there is no lock of `{}`", Plain(one)),
            many => format!("there is no lock of {} of the ids", many.len()),
        };
        replies::failed(out, Some("unlock"), &error, |line| {
            done(line);
            line.texts("unknown", &self.unknown);
        });
    }

    /// How many locks were released, and how many events they had muted.
    pub fn released(&self) -> (u64, u64) {
        (self.locks, self.muted)
    }

    /// Whether some were not locked.
    pub fn has_failed(&self) -> bool {
        !self.unknown.is_empty()
    }
}
