//! What the file must hold before a turn's events are written, and what may leave
//! it after.
//!
//! An opening is noted before its event is written; an end is noted once its event
//! has been. Between these, the file holds a socket too much rather than one too
//! few. Whether the sinks have written what they took is asked at marks: what was
//! noted up to the mark before is then settled. So two generations are kept, the
//! one up to the last mark and the one since.

use std::collections::HashMap;

use super::frame::{FULL, seal};
use super::record::{LockNote, Record, Socket};
use crate::model::{Cookie, RowKind};

/// Records on their way into frames.
#[derive(Debug, Default)]
pub(super) struct Batch {
    sealed: Vec<u8>,
    open: Vec<u8>,
}

impl Batch {
    pub fn push(&mut self, record: &Record) {
        record.encode(&mut self.open);
        if self.open.len() >= FULL {
            self.seal();
        }
    }

    fn seal(&mut self) {
        seal(&self.open, &mut self.sealed);
        self.open.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.sealed.is_empty() && self.open.is_empty()
    }

    /// The sealed frames, of which there may be none yet.
    pub fn take_full(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sealed)
    }

    /// Everything, as frames; appended to `out`.
    pub fn drain(&mut self, out: &mut Vec<u8>) {
        self.seal();
        if out.is_empty() {
            std::mem::swap(out, &mut self.sealed);
        } else {
            out.append(&mut self.sealed);
        }
    }
}

type Key = (Cookie, RowKind);

/// What was noted between two marks.
#[derive(Debug, Default)]
struct Generation {
    /// Openings, and the locks taken for them.
    opened: Vec<Record>,
    /// Ends, each with the sensors that told of it as `in_view`.
    left: HashMap<Key, Socket>,
}

impl Generation {
    fn is_empty(&self) -> bool {
        self.opened.is_empty() && self.left.is_empty()
    }
}

/// The ledger of one run.
#[derive(Debug, Default)]
pub struct Journal {
    /// Settled: may be written at any time.
    late: Batch,
    /// Must be written before the events of this turn are.
    fresh: Batch,
    marked: Generation,
    current: Generation,
}

impl Journal {
    /// An empty one.
    pub fn new() -> Journal {
        Journal::default()
    }

    /// A socket came into the view of the sensors in `in_view`.
    pub fn opened(&mut self, socket: Socket) {
        for generation in [&mut self.marked, &mut self.current] {
            // The same cookie again (a rebound): its end must not follow.
            let key = (socket.cookie, socket.kind);
            if let Some(left) = generation.left.get_mut(&key) {
                left.in_view &= !socket.in_view;
                if left.in_view == 0 {
                    generation.left.remove(&key);
                }
            }
        }
        self.urgent(Record::Socket(socket));
    }

    /// A lock was taken for an event of this turn.
    pub fn locked(&mut self, eid: &str, at: std::time::SystemTime) {
        self.urgent(Record::Lock(LockNote {
            eid: eid.to_string(),
            first: at,
            last: at,
            muted: 0,
            fresh: true,
        }));
    }

    fn urgent(&mut self, record: Record) {
        self.fresh.push(&record);
        self.current.opened.push(record);
    }

    /// A socket left the view of the sensors in `in_view`.
    pub fn left(&mut self, socket: Socket) {
        let key = (socket.cookie, socket.kind);
        match self.current.left.get_mut(&key) {
            Some(left) => left.in_view |= socket.in_view,
            None => {
                self.current.left.insert(key, socket);
            }
        }
    }

    /// Something that is so, written or not.
    pub fn note(&mut self, record: &Record) {
        self.fresh.push(record);
    }

    /// Whether anything is not settled yet.
    pub fn is_unsettled(&self) -> bool {
        !self.marked.is_empty() || !self.current.is_empty()
    }

    /// The sinks have written all that they had taken at the last mark, and are
    /// marked anew now.
    pub fn settle(&mut self) {
        for ((cookie, kind), left) in self.marked.left.drain() {
            self.late.push(&Record::Left {
                cookie,
                kind,
                sensors: left.in_view,
            });
        }
        self.late.push(&Record::Settled);
        self.marked = std::mem::take(&mut self.current);
    }

    /// Whether something must be written before the events of this turn are.
    pub fn is_urgent(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Whether anything is to be written at all.
    pub fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.late.is_empty()
    }

    /// What is to be appended to the file.
    pub fn take(&mut self) -> Vec<u8> {
        let mut frames = Vec::new();
        self.late.drain(&mut frames);
        self.fresh.drain(&mut frames);
        frames
    }

    /// A new base takes the place of what was to be appended.
    pub fn forget_written(&mut self) {
        (self.late, self.fresh) = Default::default();
    }

    /// The ends that a base must still hold as open.
    pub fn leaving(&self) -> impl Iterator<Item = &Socket> {
        self.marked.left.values().chain(self.current.left.values())
    }

    /// What stands behind a base for it to say the same as this.
    pub fn unsettled(&self) -> impl Iterator<Item = Record> + '_ {
        let marked = self.marked.opened.iter().cloned();
        let current = self.current.opened.iter().cloned();
        marked.chain([Record::Settled]).chain(current)
    }

    /// The sensors have other numbers now. What was to be appended goes with a new
    /// base.
    pub fn renumber(&mut self, new: impl Fn(u32) -> u32) {
        for generation in [&mut self.marked, &mut self.current] {
            let renumber = |socket: &mut Socket| {
                socket.in_view = new(socket.in_view);
                socket.nameless = new(socket.nameless);
                socket.in_view != 0
            };
            generation.left.retain(|_, socket| renumber(socket));
            generation.opened.retain_mut(|record| match record {
                Record::Socket(socket) => renumber(socket),
                _ => true,
            });
        }
    }
}
