//! Processes: who has a socket open.
//!
//! The reactor asks and goes on; one thread reads /proc for all who wait, a
//! bounded time in each turn ([`Scanner`]), and has no more than a share of one
//! core in the long run. Deadlines are the asker's: what is not answered by then
//! is no longer looked for, and neither is a socket that has ended.
//!
//! What it does not see: descriptors of a thread that has unshared its table
//! (CLONE_FILES, unshare(2)), or of any thread once the main one has ended;
//! sockets that are only under way in a Unix socket or only in use by io_uring;
//! processes outside of the pid namespace of its /proc. A process that was sent
//! a descriptor (SCM_RIGHTS) after it was last read is missing from the list
//! beside other holders until it is read again; so is one that forked the holder
//! by way of a child that has ended or closed it. Where there are more sockets than
//! can be remembered (2 million), the same goes for any process that was read
//! when there was no room.

mod account;
mod memory;
mod read;
mod scan;
mod search;
mod stat;

pub use scan::{Report, Scanner, Want};

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use account::Account;

use super::Lookup;
use super::pool::{Outcome, Refused, Wake, Workers};
use super::users::Passwd;
use crate::model::{Attribution, Now, ProcessUnknown};
use crate::stats::Stats;

/// Sockets that may be asked for at one time: as many as one dump of a busy
/// machine may bring.
const LINE: usize = 1 << 15;

/// How long one turn of the search may take: what was found is told after it.
const BUDGET: Duration = Duration::from_millis(20);

/// How long it may take until what has ended is forgotten.
const TIDYING: Duration = Duration::from_secs(10);

/// The answer about a socket that ended before it was found.
const GONE: Attribution = Attribution::Unknown(ProcessUnknown::Gone);

/// The processes behind sockets, as far as they are being looked for. What was
/// found is remembered by the asker.
#[derive(Debug)]
pub struct Processes {
    workers: Workers<Job, Report>,
    /// By inode. A tree, which takes what it holds.
    waiting: BTreeMap<u32, Waiting>,
    /// One turn at a time.
    busy: bool,
    turn: u64,
    account: Account,
    /// What has ended is to be forgotten.
    stale: bool,
    cmdline: bool,
    stats: Rc<Stats>,
}

/// The questions of one turn.
#[derive(Debug)]
struct Job {
    turn: u64,
    wants: Vec<Want>,
    /// Nothing is asked: what has ended is to be forgotten.
    stale: bool,
}

#[derive(Debug)]
struct Waiting {
    uid: Option<u32>,
    until: Instant,
    /// The turn in which it was first looked for; 0 before that.
    since: u64,
    /// The socket is no more: the turn under way is the last one to look.
    ended: bool,
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
        let cmdline = scanner.cmdline;
        let scanner = Mutex::new(scanner);
        let work = move |job: &Job| {
            let mut scanner = scanner.lock().unwrap_or_else(PoisonError::into_inner);
            if job.stale {
                return scanner.forget_ended(job.turn, BUDGET);
            }
            scanner.scan(&job.wants, job.turn, BUDGET)
        };
        Processes {
            workers: Workers::new("procs", 1, 1, wake, work),
            waiting: BTreeMap::new(),
            busy: false,
            turn: 0,
            account: Account::new(),
            stale: false,
            cmdline,
            stats,
        }
    }

    /// Asks who has a socket open; `uid` is whose it is, as far as that is known.
    /// [`Processes::search`] begins to look. After `until` the asker waits no
    /// longer. Inode 0 is a socket that no
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
                waiting.ended = false;
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
                    ended: false,
                });
            }
        }
        Lookup::Pending
    }

    /// The socket has ended: nobody is found any more who was not by now. What is
    /// known of that at once; or that the turn under way, which may have found
    /// somebody, will tell.
    pub fn ended(&mut self, inode: u32) -> Lookup<Attribution> {
        match self.waiting.entry(inode) {
            Entry::Occupied(mut waiting) if self.busy && waiting.get().since != 0 => {
                waiting.get_mut().ended = true;
                Lookup::Pending
            }
            Entry::Occupied(waiting) => {
                waiting.remove();
                Lookup::Known(GONE)
            }
            Entry::Vacant(_) => Lookup::Known(GONE),
        }
    }

    /// When the search, which has used up its share of a core, goes on for those
    /// that wait: [`Processes::search`] is to be called then.
    pub fn deadline(&self, now: Now) -> Option<Instant> {
        let waits = !self.busy && (self.stale || !self.waiting.is_empty());
        waits.then(|| self.account.rests_until(now.mono)).flatten()
    }

    /// Takes what came in and adds it to `found`. To be called whenever the thread
    /// has woken the reactor, and [`Processes::search`] after it.
    pub fn collect(&mut self, now: Now, found: &mut Vec<(u32, Attribution)>) {
        let unfound = || Attribution::Unknown(ProcessUnknown::Timeout);
        for (job, outcome) in self.workers.collect() {
            self.busy = false;
            let answers = match outcome {
                Outcome::Done(report) => {
                    self.stats.processes_read.add(report.read);
                    let micros = u64::try_from(report.cost.as_micros()).unwrap_or(u64::MAX);
                    self.stats.processes_cpu_us.add(micros);
                    self.account.spend(report.cost, now.mono);
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
        let busy = self.busy;
        self.waiting.retain(|inode, waiting| {
            if waiting.ended && !busy {
                found.push((*inode, GONE));
                return false;
            }
            waiting.until > now.mono
        });
    }

    /// Sockets have gone by the thousand: what is remembered of those who had them
    /// may go as well, when nobody waits.
    pub fn forget_ended(&mut self) {
        self.stale = self.turn > 0;
    }

    /// Has the thread look for all who wait, unless it does already or has to
    /// rest. Without a thread it is tried again the next time.
    pub fn search(&mut self, now: Now) {
        if let Err(refused) = self.begin(now) {
            log::debug!("processes: {refused}");
        }
    }

    /// Whether command lines are read.
    pub fn reads_cmdlines(&self) -> bool {
        self.cmdline
    }

    /// Whether anything is being looked for.
    pub fn is_busy(&self) -> bool {
        self.busy || !self.waiting.is_empty()
    }

    /// Begins a turn, unless one is under way, there is nothing to do, or it must
    /// rest.
    fn begin(&mut self, now: Now) -> Result<(), Refused> {
        if self.busy || self.account.rests_until(now.mono).is_some() {
            return Ok(());
        }
        let until = match self.waiting.values().map(|waiting| waiting.until).max() {
            Some(until) => until,
            None if self.stale => now.mono + TIDYING,
            None => return Ok(()),
        };
        let stale = self.waiting.is_empty() && std::mem::take(&mut self.stale);
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
            stale,
        };
        self.workers.submit(job, until)?;
        self.busy = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
