//! Processes: who has a socket open.
//!
//! The reactor asks and goes on; one thread reads /proc for all who wait, a
//! bounded time in each turn ([`Scanner`]). Deadlines are the asker's: what is not
//! answered by then is no longer looked for.
//!
//! What it does not see: descriptors of a thread that has unshared its table
//! (CLONE_FILES, unshare(2)), or of any thread once the main one has ended;
//! sockets that are only under way in a Unix socket or only in use by io_uring;
//! processes outside of the pid namespace of its /proc. A process that was sent
//! a descriptor (SCM_RIGHTS) after it was last read is missing from the list
//! beside other holders until it is read again; so is one that forked the holder
//! by way of a child that has ended or closed it.

mod memory;
mod read;
mod scan;
mod search;
mod stat;

pub use scan::{Report, Scanner, Want};

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Lookup;
use super::pool::{Outcome, Refused, Wake, Workers};
use super::users::Passwd;
use crate::model::{Attribution, Now, ProcessUnknown};
use crate::stats::Stats;

/// Sockets that may be asked for at one time.
const LINE: usize = 4096;

/// How long one turn of the search may take: what was found is told after it.
const BUDGET: Duration = Duration::from_millis(20);

/// The processes behind sockets, as far as they are being looked for. What was
/// found is remembered by the asker.
#[derive(Debug)]
pub struct Processes {
    workers: Workers<Job, Report>,
    waiting: HashMap<u32, Waiting>,
    /// One turn at a time.
    busy: bool,
    turn: u64,
    stats: Rc<Stats>,
}

/// The questions of one turn.
#[derive(Debug)]
struct Job {
    turn: u64,
    wants: Vec<Want>,
}

#[derive(Debug)]
struct Waiting {
    uid: Option<u32>,
    until: Instant,
    /// The turn in which it was first looked for; 0 before that.
    since: u64,
}

impl Processes {
    /// The processes of /proc, with their command lines where asked for. `wake`
    /// is called when there is something to collect.
    pub fn new(cmdline: bool, wake: Wake, stats: Rc<Stats>) -> Processes {
        let scanner = Scanner::new(Path::new("/proc"), cmdline, Passwd::default());
        Processes::with_scanner(scanner, wake, stats)
    }

    /// The processes of another /proc.
    pub fn with_scanner(scanner: Scanner, wake: Wake, stats: Rc<Stats>) -> Processes {
        let scanner = Mutex::new(scanner);
        let work = move |job: &Job| {
            let mut scanner = scanner.lock().unwrap_or_else(PoisonError::into_inner);
            scanner.scan(&job.wants, job.turn, BUDGET)
        };
        Processes {
            workers: Workers::new("procs", 1, 1, wake, work),
            waiting: HashMap::new(),
            busy: false,
            turn: 0,
            stats,
        }
    }

    /// Asks who has a socket open; `uid` is whose it is, as far as that is known.
    /// After `until` the asker waits no longer. Inode 0 is a socket that no
    /// process has, which is told at once.
    pub fn ask(&mut self, inode: u32, uid: Option<u32>, until: Instant) -> Lookup<Attribution> {
        if inode == 0 {
            return Lookup::Known(Attribution::Unknown(ProcessUnknown::Kernel));
        }
        let waiting = self.waiting.len();
        match self.waiting.entry(inode) {
            Entry::Occupied(mut waiting) => {
                let waiting = waiting.get_mut();
                waiting.until = waiting.until.max(until);
                return Lookup::Pending;
            }
            Entry::Vacant(_) if waiting >= LINE => {
                self.stats.processes_overload.bump();
                return Lookup::Known(Attribution::Unknown(ProcessUnknown::Timeout));
            }
            Entry::Vacant(entry) => {
                self.stats.processes_asked.bump();
                entry.insert(Waiting {
                    uid,
                    until,
                    since: 0,
                });
            }
        }
        match self.begin() {
            Ok(()) => Lookup::Pending,
            Err(refused) => {
                log::debug!("processes: {refused}");
                self.waiting.remove(&inode);
                Lookup::Known(Attribution::Unknown(ProcessUnknown::Timeout))
            }
        }
    }

    /// Takes what came in, adds it to `found`, and has the thread go on with the
    /// rest. To be called whenever the thread has woken the reactor.
    pub fn collect(&mut self, now: Now, found: &mut Vec<(u32, Attribution)>) {
        let unfound = || Attribution::Unknown(ProcessUnknown::Timeout);
        for (job, outcome) in self.workers.collect() {
            self.busy = false;
            let answers = match outcome {
                Outcome::Done(report) => {
                    self.stats.processes_read.add(report.read);
                    report.answers
                }
                Outcome::Skipped => Vec::new(),
                Outcome::Failed => {
                    let wants = job.wants.iter();
                    wants.map(|want| (want.inode, unfound())).collect()
                }
            };
            for (inode, answer) in answers {
                if self.waiting.remove(&inode).is_some() {
                    found.push((inode, answer));
                }
            }
        }
        self.waiting.retain(|_, waiting| waiting.until > now.mono);
        if let Err(refused) = self.begin() {
            log::debug!("processes: {refused}");
            let waiting = self.waiting.drain();
            found.extend(waiting.map(|(inode, _)| (inode, unfound())));
        }
    }

    /// Whether anything is being looked for.
    pub fn is_busy(&self) -> bool {
        self.busy || !self.waiting.is_empty()
    }

    /// Begins a turn, unless one is under way or nobody waits.
    fn begin(&mut self) -> Result<(), Refused> {
        let Some(until) = self.waiting.values().map(|waiting| waiting.until).max() else {
            return Ok(());
        };
        if self.busy {
            return Ok(());
        }
        self.turn += 1;
        let mut wants = Vec::with_capacity(self.waiting.len());
        for (inode, waiting) in &mut self.waiting {
            if waiting.since == 0 {
                waiting.since = self.turn;
            }
            wants.push(Want {
                inode: *inode,
                uid: waiting.uid,
                since: waiting.since,
            });
        }
        let job = Job {
            turn: self.turn,
            wants,
        };
        self.workers.submit(job, until)?;
        self.busy = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
