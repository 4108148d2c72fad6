//! Cgroups: the path behind the id that a row carries (INET_DIAG_CGROUP_ID).
//!
//! The kernel never gives an id to a second cgroup while it is up (kernfs counts
//! on, 64 bits wide) and knows no way to move one in cgroup2, so what was found
//! is right for good, also of a cgroup that has since been removed: its sockets
//! may outlive it. What was not found is asked for again after a while.

mod mounts;
pub mod path;
mod tree;

pub use tree::Tree;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Lookup;
use super::cache::Cache;
use super::pool::{Outcome, Wake, Workers};
use crate::model::{CgroupAnswer, CgroupUnknown, Now};

/// Cgroups that may be asked for at one time.
const LINE: usize = 1024;

/// Cgroups that are remembered: some 2 MiB when full.
const REMEMBERED: usize = 8192;

/// For how long it is believed that there is none.
const TTL: Duration = Duration::from_secs(30);

/// For good.
const EVER: Duration = Duration::MAX;

/// The paths of cgroups, as far as they are known or being looked for.
#[derive(Debug)]
pub struct Cgroups {
    workers: Workers<u64, CgroupAnswer>,
    cache: Cache<u64, CgroupAnswer>,
    /// Until when somebody waits for an id.
    pending: HashMap<u64, Instant>,
}

impl Cgroups {
    /// The hierarchy that the calling process sees. `wake` is called when there
    /// is something to collect.
    pub fn new(wake: Wake) -> Cgroups {
        Cgroups::of(Tree::mounted, wake)
    }

    /// Another hierarchy, opened when it is first needed and, where that fails,
    /// tried again.
    pub fn of(open: impl Fn() -> io::Result<Tree> + Send + Sync + 'static, wake: Wake) -> Cgroups {
        let opened: Mutex<Option<Tree>> = Mutex::new(None);
        let find = move |id: &u64| {
            let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
            let mut tree = match opened.take().map_or_else(&open, Ok) {
                Ok(tree) => tree,
                Err(error) => {
                    log::debug!("cgroups: no cgroup2 to be read: {error}");
                    return Err(CgroupUnknown::NotMounted);
                }
            };
            let found = tree.find(*id).map(Arc::new);
            *opened = Some(tree);
            found
        };
        Cgroups {
            workers: Workers::new("cgroups", 1, LINE, wake, find),
            cache: Cache::new(REMEMBERED),
            pending: HashMap::new(),
        }
    }

    /// What is known of a cgroup; asks nobody.
    pub fn recall(&mut self, id: u64, now: Now) -> Option<CgroupAnswer> {
        let ever = self.cache.recall(id, EVER, now.mono)?;
        if ever.is_ok() {
            return Some(ever);
        }
        self.cache.recall(id, TTL, now.mono)
    }

    /// Asks for the cgroup with this id. After `until` the asker waits no longer.
    /// Id 0 is none.
    pub fn ask(&mut self, id: u64, until: Instant, now: Now) -> Lookup<CgroupAnswer> {
        if id == 0 {
            return Lookup::Known(Err(CgroupUnknown::NotTold));
        }
        if let Some(known) = self.recall(id, now) {
            return Lookup::Known(known);
        }
        let waiting = self.pending.len();
        match self.pending.entry(id) {
            Entry::Occupied(mut pending) => {
                let latest = until.max(*pending.get());
                pending.insert(latest);
                Lookup::Pending
            }
            Entry::Vacant(_) if waiting >= 2 * LINE => Lookup::Known(Err(CgroupUnknown::Timeout)),
            Entry::Vacant(entry) => match self.workers.submit(id, until) {
                Ok(()) => {
                    entry.insert(until);
                    Lookup::Pending
                }
                Err(refused) => {
                    log::debug!("cgroups: {refused}");
                    Lookup::Known(Err(CgroupUnknown::Timeout))
                }
            },
        }
    }

    /// Takes what came in: remembers it and adds it to `found`. To be called
    /// whenever the thread has woken the reactor.
    pub fn collect(&mut self, now: Now, found: &mut Vec<(u64, CgroupAnswer)>) {
        for (id, outcome) in self.workers.collect() {
            let cgroup = match outcome {
                Outcome::Done(cgroup) => {
                    self.cache.learn(id, cgroup.clone(), now.mono);
                    cgroup
                }
                Outcome::Failed => Err(CgroupUnknown::Timeout),
                Outcome::Skipped => match self.pending.get(&id) {
                    // Somebody asked later than the one whose time was over.
                    Some(&until) if until > now.mono && self.workers.submit(id, until).is_ok() => {
                        continue;
                    }
                    _ => Err(CgroupUnknown::Timeout),
                },
            };
            if self.pending.remove(&id).is_some() {
                found.push((id, cgroup));
            }
        }
    }

    /// Whether anything is being looked for.
    pub fn is_busy(&self) -> bool {
        !self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests;
