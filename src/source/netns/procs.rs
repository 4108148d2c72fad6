//! Which network namespaces the processes of /proc are in.
//!
//! A process is looked at when it is new, and again in turn, since it may go
//! elsewhere at any time without a word. Each look has a budget: what it does not
//! get to is left for the next one. A process is as its main thread is; one that
//! must not be looked into is left out.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use crate::order::by_number;
use crate::sys::{self, Folder, Scratch};

/// How many processes are tried as a way into one namespace.
const WAYS: usize = 4;

/// How many are looked at whatever that costs.
const LEAST: usize = 16;

/// Where each process was when it was last looked at, by its number; `None` where
/// that is not to be known.
#[derive(Debug)]
pub(super) struct Procs {
    root: Folder,
    scratch: Scratch,
    seen: BTreeMap<u32, Option<u32>>,
    /// The process up to which the round under way has come.
    turn: u32,
    /// When that round began.
    round: Option<Instant>,
    /// When the last one began that came to its end.
    covered: Option<Instant>,
    /// There was one that must not be looked into.
    denied: bool,
}

impl Procs {
    /// The processes of a /proc.
    pub fn open(path: &std::path::Path) -> io::Result<Procs> {
        Ok(Procs {
            root: Folder::open(path)?,
            scratch: Scratch::default(),
            seen: BTreeMap::new(),
            turn: 0,
            round: None,
            covered: None,
            denied: false,
        })
    }

    /// Whether there are processes that must not be looked into.
    pub fn are_denied(&self) -> bool {
        self.denied
    }

    /// Looks again; without a budget of CPU time, at every process. Says since when
    /// each process that there is has been looked at, once all have been.
    pub fn look(&mut self, budget: Option<Duration>) -> io::Result<Option<Instant>> {
        let now = Instant::now();
        let present = self.list()?;
        let until = budget.map(|budget| sys::thread_cpu() + budget);
        let mut looked = 0;
        let mut is_over = || {
            looked += 1;
            looked > LEAST && until.is_some_and(|until| sys::thread_cpu() >= until)
        };
        let mut seen = std::mem::take(&mut self.seen);
        let (mut new, mut known) = (Vec::new(), Vec::new());
        for pid in present {
            match seen.remove(&pid) {
                None => new.push(pid),
                Some(at) => {
                    self.seen.insert(pid, at);
                    known.push(pid);
                }
            }
        }
        for pid in new {
            if is_over() {
                return Ok(self.covered);
            }
            let at = self.namespace_of(pid);
            self.seen.insert(pid, at);
        }
        let began = *self.round.get_or_insert(now);
        let behind = known.partition_point(|pid| *pid <= self.turn);
        for pid in known.into_iter().skip(behind) {
            if is_over() {
                return Ok(self.covered);
            }
            let at = self.namespace_of(pid);
            self.seen.insert(pid, at);
            self.turn = pid;
        }
        self.covered = Some(began);
        self.round = None;
        self.turn = 0;
        Ok(self.covered)
    }

    /// The numbers of all processes, in order.
    fn list(&mut self) -> io::Result<Vec<u32>> {
        let mut present = Vec::with_capacity(self.seen.len() + 64);
        self.root.rewind()?;
        while let Some(items) = self.root.next(&mut self.scratch)? {
            let names = items.filter_map(|item| std::str::from_utf8(item.name).ok());
            present.extend(names.filter_map(|name| name.parse::<u32>().ok()));
        }
        by_number(&mut present, |pid| (*pid).into());
        Ok(present)
    }

    fn namespace_of(&mut self, pid: u32) -> Option<u32> {
        let mut room = [0; 64];
        let name = format!("{pid}/ns/net");
        let link = match self.root.link(name.as_bytes(), &mut room) {
            Ok(link) => link,
            Err(error) => {
                // Most others have ended.
                self.denied |= error.kind() == io::ErrorKind::PermissionDenied;
                return None;
            }
        };
        let inode = link.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
        std::str::from_utf8(inode).ok()?.parse().ok()
    }

    /// The namespaces seen, each with some of its processes, the lowest numbers
    /// first.
    pub fn namespaces(&self) -> BTreeMap<u32, Vec<u32>> {
        let mut found: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (pid, inode) in &self.seen {
            if let Some(inode) = inode {
                let pids = found.entry(*inode).or_default();
                if pids.len() < WAYS {
                    pids.push(*pid);
                }
            }
        }
        found
    }

    /// The text of /proc/PID/cgroup (cgroups(7)).
    pub fn cgroup(&mut self, pid: u32) -> io::Result<&[u8]> {
        let name = format!("{pid}/cgroup");
        self.root.text(name.as_bytes(), &mut self.scratch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};

    struct Made(PathBuf);

    impl Made {
        fn new(name: &str) -> Made {
            let name = format!("sockwatch-procs-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).unwrap();
            Made(path)
        }

        fn process(&self, pid: u32, link: &str) {
            let ns = self.0.join(format!("{pid}/ns"));
            std::fs::create_dir_all(&ns).unwrap();
            drop(std::fs::remove_file(ns.join("net")));
            symlink(link, ns.join("net")).unwrap();
        }
    }

    impl Drop for Made {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn processes_come_move_and_go() {
        let made = Made::new("move");
        for pid in 1..=9 {
            made.process(pid, "net:[100]");
        }
        made.process(10, "net:[200]");
        made.process(11, "something else");
        std::fs::create_dir_all(made.0.join("sys")).unwrap();
        let mut procs = Procs::open(&made.0).unwrap();
        assert!(procs.look(None).unwrap().is_some());
        let found = procs.namespaces();
        assert_eq!(found[&100], [1, 2, 3, 4]);
        assert_eq!((found[&200].as_slice(), found.len()), (&[10][..], 2));
        made.process(1, "net:[300]");
        std::fs::remove_dir_all(made.0.join("10")).unwrap();
        assert!(procs.look(None).unwrap().is_some());
        let found = procs.namespaces();
        assert_eq!((found[&300].as_slice(), found.len()), (&[1][..], 2));
    }

    #[test]
    fn a_budget_is_made_up_for_later() {
        let made = Made::new("budget");
        for pid in 1..=40 {
            made.process(pid, "net:[100]");
        }
        let none = Some(Duration::ZERO);
        let mut procs = Procs::open(&made.0).unwrap();
        for _ in 0..2 {
            assert_eq!(procs.look(none).unwrap(), None, "not all were seen");
        }
        let third = Instant::now();
        let covered = loop {
            if let Some(covered) = procs.look(none).unwrap() {
                break covered;
            }
        };
        assert!(covered >= third, "a round begins when all were seen");
        for pid in [3, 39] {
            made.process(pid, "net:[200]");
        }
        // However little time there is, each comes to its turn.
        let moved = Instant::now();
        while procs.look(none).unwrap() < Some(moved) {}
        assert_eq!(procs.namespaces()[&200], [3, 39]);
    }

    #[test]
    fn this_process_is_found() {
        let mut procs = Procs::open(Path::new("/proc")).unwrap();
        procs.look(None).unwrap();
        let own = crate::sys::netns().unwrap();
        assert!(procs.namespaces().contains_key(&own));
        assert!(procs.cgroup(std::process::id()).unwrap().ends_with(b"\n"));
    }
}
