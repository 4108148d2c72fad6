//! What was learned of addresses and cgroups, bounded and ageing.
//!
//! Whoever connects decides which addresses are asked for, so the cache must hold
//! its bound under any sequence of them, at constant cost each. Entries lie in the
//! order in which they were learned: the one at the front is the first to expire
//! and the first to go.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Hits and misses by what was asked.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Every entry in the order of learning, and some that were learned again
    /// since: those whose number is not their entry's.
    order: VecDeque<(K, u64)>,
    next: u64,
    bound: usize,
    /// The longest validity anyone asked with. Older entries help nobody.
    longest: Duration,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    learned_at: Instant,
    number: u64,
}

impl<K: Copy + Eq + Hash, V: Clone> Cache<K, V> {
    /// A cache of at most `bound` entries.
    pub fn new(bound: usize) -> Cache<K, V> {
        Cache {
            entries: HashMap::new(),
            order: VecDeque::new(),
            next: 0,
            bound: bound.max(1),
            longest: Duration::ZERO,
        }
    }

    /// What was learned less than `ttl` ago.
    pub fn recall(&mut self, key: K, ttl: Duration, now: Instant) -> Option<V> {
        self.longest = self.longest.max(ttl);
        let entry = self.entries.get(&key)?;
        (now.saturating_duration_since(entry.learned_at) < ttl).then(|| entry.value.clone())
    }

    /// Remembers an answer. Makes room first: by what has expired, a few at a time,
    /// then by the oldest.
    pub fn learn(&mut self, key: K, value: V, now: Instant) {
        // Two out for one in: what expired is gone in time, at no cost to speak of.
        for _ in 0..2 {
            self.forget_if(|cache, age| age >= cache.longest, now);
        }
        let number = self.next;
        self.next += 1;
        let entry = Entry {
            value,
            learned_at: now,
            number,
        };
        self.entries.insert(key, entry);
        self.order.push_back((key, number));
        while self.entries.len() > self.bound {
            self.forget_if(|_, _| true, now);
        }
        // What is learned again leaves its old place in the order; sweeping
        // when these are the most costs each learning a constant share.
        if self.order.len() > 2 * self.entries.len() + 16 {
            let entries = &self.entries;
            self.order
                .retain(|(key, number)| is_current(entries, key, *number));
        }
        // After a flood, give the memory back.
        if self.entries.capacity() > 1024 && self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2);
            self.order.shrink_to(self.entries.len() * 2);
        }
    }

    /// Drops the entry at the front if its age is reason to, and whatever stands
    /// before it without being an entry any more.
    fn forget_if(&mut self, reason: impl Fn(&Cache<K, V>, Duration) -> bool, now: Instant) {
        while let Some(&(key, number)) = self.order.front() {
            if is_current(&self.entries, &key, number) {
                let age = self
                    .entries
                    .get(&key)
                    .map(|entry| now.saturating_duration_since(entry.learned_at));
                if age.is_some_and(|age| reason(self, age)) {
                    self.entries.remove(&key);
                    self.order.pop_front();
                }
                return;
            }
            self.order.pop_front();
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

fn is_current<K: Eq + Hash, V>(entries: &HashMap<K, Entry<V>>, key: &K, number: u64) -> bool {
    entries.get(key).is_some_and(|entry| entry.number == number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Host, HostUnknown};
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

    const TTL: Duration = Duration::from_secs(60);

    fn ip(n: u32) -> IpAddr {
        Ipv4Addr::from(n).into()
    }

    fn host(n: usize) -> Host {
        Host::Unknown([HostUnknown::NotFound, HostUnknown::Failed][n % 2])
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut cache = Cache::new(3);
        let now = Instant::now();
        assert_eq!(cache.recall(ip(0), TTL, now), None);
        for n in [1, 2, 1, 3, 4] {
            cache.learn(ip(n), host(0), now);
        }
        let known = |cache: &mut Cache<IpAddr, Host>, n| cache.recall(ip(n), TTL, now).is_some();
        assert!(!known(&mut cache, 2));
        assert!([1, 3, 4].into_iter().all(|n| known(&mut cache, n)));
    }

    #[test]
    fn what_expired_makes_room() {
        let mut cache = Cache::new(100_000);
        let now = Instant::now();
        assert_eq!(cache.recall(ip(0), TTL, now), None);
        for n in 0..20_000 {
            cache.learn(ip(n), host(0), now);
        }
        for n in 0..20_001 {
            cache.learn(ip(1_000_000 + n % 8), host(0), now + TTL);
        }
        assert_eq!(cache.len(), 8);
        assert!(cache.order.len() <= 2 * 8 + 16);
        assert!(cache.entries.capacity() <= 1024);
    }

    proptest! {
        /// Against a list of everything ever learned.
        #[test]
        fn recalls_the_latest_within_its_bound(steps in prop::collection::vec((0u32..12, 0u64..40, 1u64..80), 1..200)) {
            let mut cache = Cache::new(8);
            let mut learned: Vec<(u32, Instant, Host)> = Vec::new();
            let mut now = Instant::now();
            for (step, (n, later, ttl)) in steps.into_iter().enumerate() {
                now += Duration::from_secs(later);
                let ttl = Duration::from_secs(ttl);
                let latest = learned.iter().rev().find(|(of, ..)| *of == n);
                if let Some(host) = cache.recall(ip(n), ttl, now) {
                    let (_, at, expected) = latest.unwrap();
                    prop_assert_eq!(&host, expected);
                    prop_assert!(now - *at < ttl);
                } else {
                    cache.learn(ip(n), host(step), now);
                    learned.push((n, now, host(step)));
                    prop_assert_eq!(cache.recall(ip(n), ttl, now), Some(host(step)));
                }
                prop_assert!(cache.len() <= 8);
                prop_assert!(cache.order.len() <= 2 * 8 + 17);
            }
        }
    }
}
