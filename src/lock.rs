//! Locks: an event id that has been emitted is muted until it is released.
//!
//! What is muted is counted, so that nothing is unaccounted for when the lock is
//! released. The table of locks is bounded: past the bound events pass, because
//! an event too many is better than one too few.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::time::SystemTime;

/// How many event ids can be locked at once: at some 150 bytes each, about
/// 10 MB when an address scan fills the table.
const BOUND: usize = 65_536;

/// What the table says of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Emit it; its id is locked now.
    Locked,
    /// Its id is locked: it is counted and muted.
    Muted,
    /// Emit it; there is no room for a lock.
    Full,
}

/// One locked event id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lock {
    /// When the event was emitted.
    pub first: SystemTime,
    /// When the last one was muted, or `first`.
    pub last: SystemTime,
    /// How many were muted.
    pub muted: u64,
}

/// All locks.
#[derive(Debug)]
pub struct Locks {
    held: BTreeMap<String, Lock>,
    bound: usize,
    noted: Option<Noted>,
}

/// What has changed since somebody asked.
#[derive(Debug, Default)]
struct Noted {
    released: Vec<String>,
    muted: HashSet<String>,
}

impl Default for Locks {
    fn default() -> Locks {
        Locks {
            held: BTreeMap::new(),
            bound: BOUND,
            noted: None,
        }
    }
}

/// What a release came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Released {
    /// Locks that were released.
    pub locks: usize,
    /// Events that they had muted.
    pub muted: u64,
}

impl Locks {
    /// No locks; room for `bound`.
    pub fn bounded(bound: usize) -> Locks {
        Locks {
            held: BTreeMap::new(),
            bound,
            noted: None,
        }
    }

    /// Whether the event id is locked.
    pub fn holds(&self, eid: &str) -> bool {
        self.held.contains_key(eid)
    }

    /// Takes an event that is about to be emitted.
    pub fn admit(&mut self, eid: &str, at: SystemTime) -> Admission {
        if let Some(lock) = self.held.get_mut(eid) {
            lock.muted += 1;
            lock.last = at;
            if let Some(noted) = &mut self.noted
                && !noted.muted.contains(eid)
            {
                noted.muted.insert(eid.to_string());
            }
            return Admission::Muted;
        }
        if self.held.len() >= self.bound {
            return Admission::Full;
        }
        self.held.insert(
            eid.to_string(),
            Lock {
                first: at,
                last: at,
                muted: 0,
            },
        );
        Admission::Locked
    }

    /// Releases one lock.
    pub fn release(&mut self, eid: &str) -> Option<Lock> {
        let released = self.held.remove(eid)?;
        if let Some(noted) = &mut self.noted {
            noted.released.push(eid.to_string());
        }
        Some(released)
    }

    /// From now on notes what changes, for whoever keeps the locks on a medium.
    pub fn note_changes(&mut self) {
        self.noted = Some(Noted::default());
    }

    /// The ids that were released since the last call.
    pub fn take_released(&mut self) -> Vec<String> {
        let noted = self.noted.as_mut();
        noted.map_or_else(Vec::new, |noted| std::mem::take(&mut noted.released))
    }

    /// The ids that are locked and have muted since the last call.
    pub fn take_muted(&mut self) -> Vec<(String, Lock)> {
        let Some(noted) = &mut self.noted else {
            return Vec::new();
        };
        let muted = std::mem::take(&mut noted.muted).into_iter();
        muted
            .filter_map(|eid| self.held.get(&eid).map(|lock| (eid.clone(), *lock)))
            .collect()
    }

    /// Whether any has muted since [`Locks::take_muted`].
    pub fn has_muted(&self) -> bool {
        self.noted
            .as_ref()
            .is_some_and(|noted| !noted.muted.is_empty())
    }

    /// Releases the locks that are not wanted any more.
    pub fn release_where(&mut self, unwanted: impl Fn(&str) -> bool) -> Released {
        let eids: Vec<String> = self
            .held
            .keys()
            .filter(|eid| unwanted(eid))
            .cloned()
            .collect();
        let mut all = Released::default();
        for lock in eids.iter().filter_map(|eid| self.release(eid)) {
            all.locks += 1;
            all.muted += lock.muted;
        }
        all
    }

    /// Releases the lock that one event has set, of this id and at this time;
    /// not one that a later event of the same id has set since.
    pub fn release_of(&mut self, eid: &str, at: SystemTime) -> Option<Lock> {
        self.held.get(eid).filter(|lock| lock.first == at)?;
        self.release(eid)
    }

    /// The lock of an event id.
    pub fn find(&self, eid: &str) -> Option<&Lock> {
        self.held.get(eid)
    }

    /// The locked ids behind this one in their order, for whoever goes through
    /// all of them piece by piece; from the first one where it is none.
    pub fn after(&self, eid: Option<&str>) -> impl Iterator<Item = (&str, &Lock)> {
        let from = eid.map_or(Bound::Unbounded, Bound::Excluded);
        self.held
            .range::<str, _>((from, Bound::Unbounded))
            .map(|(eid, lock)| (eid.as_str(), lock))
    }

    /// The locked ids, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Lock)> {
        self.held.iter().map(|(eid, lock)| (eid.as_str(), lock))
    }

    /// How many ids are locked.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether no id is locked.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Takes a lock over from before a restart; false when there is no room.
    pub fn restore(&mut self, eid: String, lock: Lock) -> bool {
        if self.held.len() >= self.bound && !self.held.contains_key(&eid) {
            return false;
        }
        self.held.insert(eid, lock);
        true
    }

    /// Releases all locks.
    pub fn release_all(&mut self) -> Released {
        let released = self.release_where(|_| true);
        self.held = BTreeMap::new();
        released
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn mutes_until_released_and_counts() {
        let mut locks = Locks::default();
        let start = SystemTime::UNIX_EPOCH;
        assert_eq!(locks.admit("a", start), Admission::Locked);
        assert_eq!(
            locks.admit("a", start + Duration::from_secs(1)),
            Admission::Muted
        );
        assert_eq!(
            locks.admit("a", start + Duration::from_secs(2)),
            Admission::Muted
        );
        assert_eq!(locks.admit("b", start), Admission::Locked);
        let lock = locks.release("a").unwrap();
        assert_eq!((lock.muted, lock.last), (2, start + Duration::from_secs(2)));
        assert_eq!(locks.admit("a", start), Admission::Locked);
        assert_eq!(locks.release_all(), Released { locks: 2, muted: 0 });
        assert!(!locks.holds("a"));
    }

    #[test]
    fn what_changes_is_noted_once_somebody_asks() {
        let at = SystemTime::UNIX_EPOCH;
        let mut locks = Locks::default();
        locks.admit("before", at);
        locks.note_changes();
        locks.admit("a", at);
        locks.admit("a", at);
        locks.admit("b", at);
        locks.admit("b", at);
        assert!(locks.release("b").is_some() && locks.release("c").is_none());
        assert_eq!(locks.take_released(), ["b"]);
        let muted = locks.take_muted();
        assert_eq!(
            (muted.len(), muted[0].0.as_str(), muted[0].1.muted),
            (1, "a", 1)
        );
        assert!(locks.take_released().is_empty() && locks.take_muted().is_empty());
        assert_eq!(locks.release_where(|eid| eid == "a").muted, 1);
        assert_eq!(locks.take_released(), ["a"]);
        assert!(locks.holds("before"));
    }

    #[test]
    fn an_event_releases_its_own_lock_alone() {
        let mut locks = Locks::default();
        let (first, second) = (
            SystemTime::UNIX_EPOCH,
            SystemTime::UNIX_EPOCH + Duration::from_secs(1),
        );
        locks.admit("a", first);
        locks.release("a");
        locks.admit("a", second);
        assert_eq!(locks.release_of("a", first), None);
        assert!(locks.holds("a"));
        assert!(locks.release_of("a", second).is_some());
        assert_eq!(locks.release_of("a", second), None);
    }

    #[test]
    fn past_the_bound_events_pass() {
        let mut locks = Locks::bounded(1);
        assert_eq!(locks.admit("a", SystemTime::UNIX_EPOCH), Admission::Locked);
        assert_eq!(locks.admit("b", SystemTime::UNIX_EPOCH), Admission::Full);
        assert_eq!(locks.admit("b", SystemTime::UNIX_EPOCH), Admission::Full);
        assert_eq!(locks.admit("a", SystemTime::UNIX_EPOCH), Admission::Muted);
    }
}
