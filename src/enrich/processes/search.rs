//! One scan: the steps of [`super::scan`] in their order.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

use super::memory::common;
use super::read::{self, Held, Named, Reading, Unread};
use super::scan::{Report, Scanner, Want};
use crate::model::Attribution;
use crate::sys::Folder;

/// How many processes are tried on account of earlier finds.
const FAVOURITES: usize = 8;

/// So many sockets are many in one process: it is worth reading anew to forget them.
const MANY: usize = 1024;

/// The budget is over.
struct Late;

/// One scan.
pub(super) struct Search<'a> {
    scanner: &'a mut Scanner,
    root: &'a Folder,
    /// By inode.
    wants: Vec<Want>,
    turn: u64,
    deadline: Instant,
    budget: Duration,
    /// Holders, proven.
    found: Vec<(u32, Named)>,
    /// Their sockets.
    held: HashSet<u32>,
    /// What was told of a process in this scan.
    named: HashMap<u32, Option<Named>>,
    /// /proc has been listed in this scan.
    listed: bool,
    /// A process ended before it was read. It may have left what it held to a
    /// child that is not in the list.
    ended: bool,
    read: u64,
}

impl<'a> Search<'a> {
    pub fn new(
        scanner: &'a mut Scanner,
        root: &'a Folder,
        wants: &[Want],
        turn: u64,
        budget: Duration,
    ) -> Search<'a> {
        let mut wants = wants.to_vec();
        wants.sort_unstable_by_key(|want| (want.inode, want.since));
        wants.dedup_by_key(|want| want.inode);
        Search {
            scanner,
            root,
            wants,
            turn,
            deadline: Instant::now(),
            budget,
            found: Vec::new(),
            held: HashSet::new(),
            named: HashMap::new(),
            listed: false,
            ended: false,
            read: 0,
        }
    }

    pub fn run(mut self) -> Report {
        if let Err(error) = self.list(false) {
            log::debug!("processes: {}: {error}", self.scanner.path.display());
        }
        self.deadline = Instant::now() + self.budget;
        let answers = match self.steps() {
            Ok(()) => self.answers(),
            // Lists of holders may lack what was not read yet.
            Err(Late) => Vec::new(),
        };
        Report {
            answers,
            read: self.read,
            cost: Duration::ZERO,
        }
    }

    /// Looks which processes there are, and reads those anew that held many sockets.
    pub fn forget_ended(mut self) -> Report {
        if let Err(error) = self.list(true) {
            log::debug!("processes: {}: {error}", self.scanner.path.display());
        }
        self.deadline = Instant::now() + self.budget;
        let mut many = self.scanner.memory.with_many(MANY).into_iter();
        let mut in_time = self.finish_reading();
        while let (Ok(()), Some(pid)) = (&in_time, many.next()) {
            in_time = self.read(pid);
        }
        // What is left is remembered for longer than it has to be.
        Report {
            read: self.read,
            ..Report::default()
        }
    }

    /// What was found is told before a longer search for the others.
    fn steps(&mut self) -> Result<(), Late> {
        self.quick()?;
        if self.held.is_empty() {
            self.favourites()?;
        }
        if self.held.is_empty() {
            self.thorough()?;
        }
        Ok(())
    }

    /// Steps 1 and 2.
    fn quick(&mut self) -> Result<(), Late> {
        self.finish_reading()?;
        for pid in self.scanner.memory.unread() {
            self.read(pid)?;
        }
        for (pid, held) in self.guesses() {
            self.prove(pid, &held)?;
        }
        self.parents()
    }

    /// Step 3.
    fn favourites(&mut self) -> Result<(), Late> {
        let Some(newest) = self.wants.iter().map(|want| want.since).max() else {
            return Ok(());
        };
        let likely = self.scanner.memory.favourites(newest, FAVOURITES);
        for pid in likely {
            self.read(pid)?;
            if self.is_done() {
                break;
            }
        }
        self.parents()
    }

    /// Step 4. The oldest questions first, so that no stream of new ones keeps
    /// them from an answer.
    fn thorough(&mut self) -> Result<(), Late> {
        let Some(oldest) = self.wants.iter().map(|want| want.since).min() else {
            return Ok(());
        };
        // A pass that goes on from the last turn has its list.
        if self.scanner.listed < oldest
            && let Err(error) = self.list(true)
        {
            log::debug!("processes: {}: {error}", self.scanner.path.display());
        }
        let uids: Vec<_> = self.wants.iter().filter_map(|want| want.uid).collect();
        let rest = self.scanner.memory.older_than(oldest, &uids);
        self.deadline = Instant::now() + self.budget;
        for pid in rest {
            self.read(pid)?;
            if self.is_done() {
                break;
            }
        }
        self.parents()
    }

    /// Every question has a holder.
    fn is_done(&self) -> bool {
        self.held.len() == self.wants.len()
    }

    /// Learns which processes there are. Unless `afresh`, only if a pid has been
    /// given out since the last time (the last field of /proc/loadavg): a list
    /// costs 1 µs a process.
    fn list(&mut self, afresh: bool) -> io::Result<()> {
        if self.listed {
            return Ok(());
        }
        let scanner = &mut *self.scanner;
        let last_pid = self
            .root
            .text(b"loadavg", &mut scanner.scratch)
            .ok()
            .and_then(|line| line.trim_ascii_end().rsplit(|byte| *byte == b' ').next())
            .and_then(read::number);
        if !afresh && last_pid.is_some() && last_pid == scanner.last_pid {
            return Ok(());
        }
        self.root.rewind()?;
        scanner.memory.begin_list();
        while let Some(items) = self.root.next(&mut scanner.scratch)? {
            for item in items {
                if let Some(pid) = read::number(item.name) {
                    scanner.memory.list(pid, item.inode);
                }
            }
        }
        scanner.memory.end_list();
        scanner.last_pid = last_pid;
        scanner.listed = self.turn;
        self.listed = true;
        Ok(())
    }

    fn finish_reading(&mut self) -> Result<(), Late> {
        match self.scanner.unfinished.take() {
            Some(reading) => self.go_on(reading),
            None => Ok(()),
        }
    }

    /// Reads a process's descriptors; one in each turn whatever the budget.
    fn read(&mut self, pid: u32) -> Result<(), Late> {
        if self.read > 0 && Instant::now() >= self.deadline {
            return Err(Late);
        }
        self.read += 1;
        match Reading::begin(self.root, pid, self.turn) {
            Ok(reading) => self.go_on(reading),
            Err(why) => {
                self.unread(pid, why);
                Ok(())
            }
        }
    }

    fn go_on(&mut self, mut reading: Reading) -> Result<(), Late> {
        loop {
            match reading.step(&mut self.scanner.scratch) {
                Ok(true) => break,
                Ok(false) if Instant::now() >= self.deadline => {
                    self.scanner.unfinished = Some(reading);
                    return Err(Late);
                }
                Ok(false) => {}
                Err(why) => {
                    self.unread(reading.pid, why);
                    return Ok(());
                }
            }
        }
        let matches = common(&self.wants, &reading.found);
        for held in &matches {
            self.hold(reading.pid, &reading.home, held.inode);
        }
        let scanner = &mut *self.scanner;
        scanner.memory.learn(reading, matches, &mut scanner.scratch);
        Ok(())
    }

    fn unread(&mut self, pid: u32, why: Unread) {
        match why {
            Unread::Ended => {
                self.ended = true;
                self.scanner.memory.forget(pid);
            }
            Unread::Denied => {
                // Unlike what is in it, /proc/PID can be looked at, but for
                // hidepid=.
                let owner = self
                    .root
                    .pin(itoa::Buffer::new().format(pid).as_bytes())
                    .and_then(|home| home.identity());
                let uid = owner.ok().map(|(_, uid)| uid);
                self.scanner.memory.deny(pid, uid, self.turn);
            }
        }
    }

    /// Notes a holder: what is told of it is read through the descriptor that
    /// showed it to be one.
    fn hold(&mut self, pid: u32, home: &Folder, inode: u32) {
        let scanner = &mut *self.scanner;
        let named = self.named.entry(pid).or_insert_with(|| {
            let (users, scratch) = (&mut scanner.users, &mut scanner.scratch);
            read::name(home, pid, scanner.cmdline, users, scratch).ok()
        });
        if let Some(named) = named {
            self.found.push((inode, named.clone()));
            self.held.insert(inode);
            scanner.memory.hit(pid, self.turn);
        }
    }

    /// What earlier scans saw, by process.
    fn guesses(&self) -> Vec<(u32, Vec<Held>)> {
        self.scanner
            .memory
            .read_before(self.turn)
            .map(|(pid, known)| (pid, common(&self.wants, &known.sockets)))
            .filter(|(_, held)| !held.is_empty())
            .collect()
    }

    /// Looks whether a process still holds what it once did; one that does not
    /// is read anew.
    fn prove(&mut self, pid: u32, guesses: &[Held]) -> Result<(), Late> {
        let home = match self.root.pin(itoa::Buffer::new().format(pid).as_bytes()) {
            Ok(home) => home,
            Err(error) => {
                self.unread(pid, Unread::of(&error));
                return Ok(());
            }
        };
        for held in guesses {
            match read::holds(&home, *held) {
                Ok(true) => self.hold(pid, &home, held.inode),
                Ok(false) | Err(_) => {
                    self.found.retain(|(_, named)| named.process.pid != pid);
                    self.held = self.found.iter().map(|(inode, _)| *inode).collect();
                    self.named.remove(&pid);
                    return self.read(pid);
                }
            }
        }
        Ok(())
    }

    /// Reads the parents of holders, up the line, as far as they were last read
    /// before the child was first: they may hold what it inherited.
    fn parents(&mut self) -> Result<(), Late> {
        let mut next = 0;
        while let Some((_, holder)) = self.found.get(next) {
            let (pid, parent) = (holder.process.pid, holder.parent);
            next += 1;
            if self.scanner.memory.may_share(parent, pid, self.turn) {
                self.read(parent)?;
            }
        }
        Ok(())
    }

    fn answers(&mut self) -> Vec<(u32, Attribution)> {
        self.found
            .sort_by_key(|(inode, named)| (*inode, named.process.started, named.process.pid));
        self.found
            .dedup_by_key(|(inode, named)| (*inode, named.process.pid));
        let mut answers = Vec::new();
        // Most questions of one turn were put together.
        let mut nobody = HashMap::new();
        for want in &self.wants {
            let from = self.found.partition_point(|(inode, _)| *inode < want.inode);
            let to = self
                .found
                .partition_point(|(inode, _)| *inode <= want.inode);
            let holders = self.found.get(from..to).unwrap_or(&[]);
            let answer = if holders.is_empty() {
                let why = nobody.entry((want.since, want.uid));
                match why.or_insert_with(|| self.scanner.memory.nobody(want)) {
                    Some(why) if !self.ended => Attribution::Unknown(*why),
                    _ => continue,
                }
            } else {
                Attribution::Held(self.scanner.memory.share(holders))
            };
            answers.push((want.inode, answer));
        }
        answers
    }
}
