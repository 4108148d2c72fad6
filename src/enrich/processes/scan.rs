//! The scan: from inodes to the processes that have them open.
//!
//! Which process has a socket open is told nowhere but in /proc/PID/fd, one
//! symbolic link a descriptor. So what was read is kept, for each process, and
//! is used as a guess that is proven before it is told: by reading that one link
//! again through a descriptor of /proc/PID that pins the process instance. The
//! guess may be stale and the pid may be another's by then; the answer is
//! neither, because link, start time, name and path all come through that one
//! descriptor.
//!
//! The order, cheapest first; each search ends where all it is for is found:
//! 1. processes that are new since the last scan, the newest first (in full:
//!    they may share what is found);
//! 2. processes that were seen with the socket, and, up the line, parents of
//!    holders that were read before their child was born;
//! 3. the few processes in which sockets were found lately;
//! 4. all that were not read since the question was put, likely ones first.
//!
//! A question is answered with "nobody" only when every process has been read
//! since it was put. Time is the caller's: a scan that is over its budget leaves
//! off after some 1,000 descriptors and goes on there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::memory::Memory;
use super::read::Reading;
use super::search::Search;
use crate::enrich::users::Passwd;
use crate::model::{Attribution, ProcessUnknown};
use crate::sys::{self, Folder, Scratch};

/// How many sockets are remembered: 8 bytes each, 16 MiB in all. The kernel has as
/// much for each descriptor in a process's table alone (`struct fdtable`), and some
/// 2 KiB for the socket. Sockets of which none is remembered cost time: a process
/// that was read when there was no room is read again when a question is put that
/// nobody else answers.
const REMEMBERED: usize = 1 << 21;

/// A question: who has this socket open?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Want {
    /// The socket's inode.
    pub inode: u32,
    /// The user it belongs to, as a hint.
    pub uid: Option<u32>,
    /// The turn in which it was put.
    pub since: u64,
}

/// What a scan found out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Answers by inode; what is missing needs another turn.
    pub answers: Vec<(u32, Attribution)>,
    /// How many times a process's descriptors were read.
    pub read: u64,
    /// The CPU time that it cost.
    pub cost: Duration,
}

/// Reads /proc, and remembers.
#[derive(Debug)]
pub struct Scanner {
    pub(super) path: PathBuf,
    root: Option<Folder>,
    pub(super) cmdline: bool,
    pub(super) users: Passwd,
    pub(super) memory: Memory,
    /// A process with so many descriptors that the budget was over first.
    pub(super) unfinished: Option<Reading>,
    /// The last pid given out when /proc was last listed.
    pub(super) last_pid: Option<u32>,
    /// The turn in which it was; 0 is never.
    pub(super) listed: u64,
    pub(super) scratch: Scratch,
}

impl Scanner {
    /// A scanner of the /proc at `path`; with `cmdline`, command lines are read.
    pub fn new(path: &Path, cmdline: bool, users: Passwd) -> Scanner {
        Scanner {
            path: path.to_owned(),
            root: None,
            cmdline,
            users,
            memory: Memory::new(REMEMBERED),
            unfinished: None,
            last_pid: None,
            listed: 0,
            scratch: Scratch::default(),
        }
    }

    /// One that remembers at most so many sockets, for tests.
    #[cfg(test)]
    pub(super) fn remembering(self, most: usize) -> Scanner {
        Scanner {
            memory: Memory::new(most),
            ..self
        }
    }

    /// Forgets processes that have ended, and what those hold no longer that held
    /// many sockets, as far as the budget goes.
    pub fn forget_ended(&mut self, turn: u64, budget: Duration) -> Report {
        self.timed(|scanner| scanner.with_root(&[], turn, budget, |search| search.forget_ended()))
    }

    /// Answers what can be answered within the budget. `turn` is the number of
    /// the scan: from 1, and greater each time. Where /proc cannot be read at
    /// all, nothing is permitted.
    pub fn scan(&mut self, wants: &[Want], turn: u64, budget: Duration) -> Report {
        self.timed(|scanner| scanner.with_root(wants, turn, budget, |search| search.run()))
    }

    fn timed(&mut self, work: impl FnOnce(&mut Scanner) -> Report) -> Report {
        let begun = sys::thread_cpu();
        let mut report = work(self);
        report.cost = sys::thread_cpu().saturating_sub(begun);
        report
    }

    fn with_root(
        &mut self,
        wants: &[Want],
        turn: u64,
        budget: Duration,
        work: fn(Search<'_>) -> Report,
    ) -> Report {
        let root = match self
            .root
            .take()
            .map_or_else(|| Folder::open(&self.path), Ok)
        {
            Ok(root) => root,
            Err(error) => {
                log::debug!("processes: {}: {error}", self.path.display());
                let unknown = Attribution::Unknown(ProcessUnknown::NotPermitted);
                let answers = wants.iter().map(|want| (want.inode, unknown.clone()));
                return Report {
                    answers: answers.collect(),
                    ..Report::default()
                };
            }
        };
        let report = work(Search::new(self, &root, wants, turn, budget));
        self.root = Some(root);
        report
    }

    /// How many processes and sockets are remembered.
    pub fn remembered(&self) -> (usize, usize) {
        self.memory.size()
    }
}
