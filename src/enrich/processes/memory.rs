//! What scans have seen: each process and the sockets it had open when it was
//! last read.
//!
//! A process is told from another with its number by the inode of its /proc/PID,
//! which the kernel makes anew for each, and which comes free of charge with the
//! list of /proc. That is a guess to save work with, like all that is kept here:
//! what is told is proven first.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use super::read::{Held, Named, Reading};
use super::scan::Want;
use super::stat;
use crate::model::{Holders, ProcessUnknown};
use crate::sys::Scratch;

/// A process. There are no more of these than the kernel lets there be
/// processes, which cost it a hundred times as much.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The inode of /proc/PID.
    inode: u64,
    /// The turn in which it was first read, and last; 0 is never.
    first: u64,
    last: u64,
    /// The turn in which it was last found to hold what was asked for.
    hit: u64,
    /// The effective user when it was first read.
    uid: Option<u32>,
    /// It may not be read.
    denied: bool,
    /// A kernel thread or a zombie: never holds a socket.
    idle: bool,
    /// In the list that is being made.
    listed: bool,
    /// By inode.
    pub sockets: Box<[Held]>,
    /// What was told of it as the only holder of a socket.
    alone: Option<Arc<Holders>>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Memory {
    known: HashMap<u32, Known>,
    sockets: usize,
    /// How many sockets are remembered, but for those that are asked for.
    most: usize,
}

impl Memory {
    /// An empty one with room for so many sockets.
    pub fn new(most: usize) -> Memory {
        Memory {
            known: HashMap::new(),
            sockets: 0,
            most,
        }
    }

    pub fn size(&self) -> (usize, usize) {
        (self.known.len(), self.sockets)
    }

    pub fn begin_list(&mut self) {
        for known in self.known.values_mut() {
            known.listed = false;
        }
    }

    /// There is such a process; if it is another than before, nothing is known
    /// of it.
    pub fn list(&mut self, pid: u32, inode: u64) {
        let known = self.known.entry(pid).or_default();
        if known.inode != inode {
            self.sockets -= known.sockets.len();
            *known = Known {
                inode,
                ..Known::default()
            };
        }
        known.listed = true;
    }

    /// What was not listed has ended.
    pub fn end_list(&mut self) {
        let sockets = &mut self.sockets;
        self.known.retain(|_, known| {
            if !known.listed {
                *sockets -= known.sockets.len();
            }
            known.listed
        });
        if self.known.capacity() > 1024 && self.known.len() < self.known.capacity() / 8 {
            self.known.shrink_to(self.known.len() * 2);
        }
    }

    pub fn forget(&mut self, pid: u32) {
        if let Some(known) = self.known.remove(&pid) {
            self.sockets -= known.sockets.len();
        }
    }

    /// Processes that nothing is known of, the newest first as far as numbers
    /// tell.
    pub fn unread(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self.pids(|known| known.last == 0 && !known.idle).collect();
        pids.sort_unstable_by_key(|pid| Reverse(*pid));
        pids
    }

    /// Those in which a socket was found last, at most `most`, that were not read
    /// since a turn.
    pub fn favourites(&self, since: u64, most: usize) -> Vec<u32> {
        let mut pids: Vec<u32> = self
            .pids(|known| known.hit > 0 && known.last < since)
            .collect();
        let order = |pid: &u32| Reverse(self.known.get(pid).map_or(0, |known| known.hit));
        pids.sort_unstable_by_key(order);
        pids.truncate(most);
        pids
    }

    /// Those that were not read since a turn: those of these users first, then
    /// by when a socket was found in them, the newest first.
    pub fn older_than(&self, since: u64, uids: &[u32]) -> Vec<u32> {
        let mut pids: Vec<u32> = self
            .pids(|known| known.last < since && !known.idle)
            .collect();
        pids.sort_by_cached_key(|pid| {
            let known = self.known.get(pid);
            let is_theirs = known
                .and_then(|known| known.uid)
                .is_some_and(|uid| uids.contains(&uid));
            (
                !is_theirs,
                Reverse(known.map_or(0, |known| known.hit)),
                Reverse(*pid),
            )
        });
        pids
    }

    fn pids(&self, which: impl Fn(&Known) -> bool) -> impl Iterator<Item = u32> {
        let these = self.known.iter().filter(move |(_, known)| which(known));
        these.map(|(pid, _)| *pid)
    }

    /// Those that were read before a turn, with what they held.
    pub fn read_before(&self, turn: u64) -> impl Iterator<Item = (u32, &Known)> {
        let known = self.known.iter().map(|(pid, known)| (*pid, known));
        known.filter(move |(_, known)| known.last < turn)
    }

    /// Whether a parent that has not been read since its child was first may
    /// hold what the child inherited.
    pub fn may_share(&self, parent: u32, child: u32, turn: u64) -> bool {
        let (parent, child) = (self.known.get(&parent), self.known.get(&child));
        parent.zip(child).is_some_and(|(parent, child)| {
            !parent.idle && parent.last < turn && parent.last < child.first
        })
    }

    /// Those that held so many sockets or more when they were last read.
    pub fn with_many(&self, many: usize) -> Vec<u32> {
        self.pids(|known| known.sockets.len() >= many).collect()
    }

    /// Keeps what was read: all of it where there is room; where there is none,
    /// what is `wanted` now, so that it is known until it is told.
    pub fn learn(&mut self, reading: Reading, wanted: Vec<Held>, scratch: &mut Scratch) {
        let Some(known) = self.known.get_mut(&reading.pid) else {
            return;
        };
        if known.first == 0 {
            known.first = reading.turn;
            known.uid = reading.home.identity().ok().map(|(_, uid)| uid);
        }
        known.last = reading.turn;
        known.denied = false;
        if !reading.any {
            let line = reading.home.text(b"stat", scratch).ok();
            known.idle = line.and_then(stat::parse).is_some_and(|stat| stat.idle);
        }
        self.sockets -= known.sockets.len();
        let has_room = self.sockets + reading.found.len() <= self.most;
        let kept = if has_room { reading.found } else { wanted };
        known.sockets = kept.into_boxed_slice();
        self.sockets += known.sockets.len();
    }

    /// A process that may not be read counts as read.
    pub fn deny(&mut self, pid: u32, uid: Option<u32>, turn: u64) {
        if let Some(known) = self.known.get_mut(&pid) {
            self.sockets -= known.sockets.len();
            known.sockets = Box::default();
            known.first = if known.first == 0 { turn } else { known.first };
            known.last = turn;
            known.uid = uid;
            known.denied = true;
        }
    }

    pub fn hit(&mut self, pid: u32, turn: u64) {
        if let Some(known) = self.known.get_mut(&pid) {
            known.hit = turn;
        }
    }

    /// Why nobody holds a socket, if every process has been read since the
    /// question was put.
    pub fn nobody(&self, want: &Want) -> Option<ProcessUnknown> {
        let mut why = if self.known.contains_key(&1) {
            ProcessUnknown::Gone
        } else {
            // A pid namespace without its first process is one in which
            // processes are hidden (hidepid=).
            ProcessUnknown::NotPermitted
        };
        for known in self.known.values() {
            if known.last < want.since && !known.idle {
                return None;
            }
            let may_be_theirs = || {
                let uids = known.uid.zip(want.uid);
                uids.is_none_or(|(theirs, wanted)| theirs == wanted)
            };
            if known.denied && may_be_theirs() {
                why = ProcessUnknown::NotPermitted;
            }
        }
        Some(why)
    }

    /// The list that is told, from holders in order of age. Sockets that the
    /// same process holds alone share one.
    pub fn share(&mut self, holders: &[(u32, Named)]) -> Arc<Holders> {
        let told = holders.iter().take(Holders::MOST);
        let list = || Holders {
            oldest: told.map(|(_, named)| Arc::clone(&named.process)).collect(),
            others: u32::try_from(holders.len().saturating_sub(Holders::MOST)).unwrap_or(u32::MAX),
        };
        let [(_, only)] = holders else {
            return Arc::new(list());
        };
        let Some(known) = self.known.get_mut(&only.process.pid) else {
            return Arc::new(list());
        };
        match &known.alone {
            Some(same) if same.oldest.first() == Some(&only.process) => Arc::clone(same),
            _ => Arc::clone(known.alone.insert(Arc::new(list()))),
        }
    }
}

/// The sockets that are both wanted and held; both lists are in order of inodes.
pub(super) fn common(wants: &[Want], held: &[Held]) -> Vec<Held> {
    // A step through a list is a tenth of a search in it.
    if wants.len() < held.len() / 10 {
        let find = |want: &Want| held.binary_search_by_key(&want.inode, |held| held.inode);
        let places = wants.iter().filter_map(|want| find(want).ok());
        return places.filter_map(|at| held.get(at).copied()).collect();
    }
    let mut held = held.iter().copied();
    if held.len() < wants.len() / 10 {
        let find = |inode| wants.binary_search_by_key(&inode, |want| want.inode);
        return held.filter(|held| find(held.inode).is_ok()).collect();
    }
    let (mut both, mut next) = (Vec::new(), held.next());
    for want in wants {
        while let Some(one) = next.filter(|one| one.inode <= want.inode) {
            if one.inode == want.inode {
                both.push(one);
            }
            next = held.next();
        }
    }
    both
}
