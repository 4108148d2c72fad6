//! A table that others may fill: bounded, with the oldest out first.
//!
//! Who sends packets decides what is entered, so that the bound and the cost of
//! each step must hold under any sequence. Entries lie in the order of their last
//! [`Aging::put`] or [`Aging::touch`]; the one at the front is the first to
//! expire and the first to go. Hashing is keyed at random, so that nobody can
//! choose keys that collide.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// A bounded map that knows the age of its entries.
#[derive(Debug)]
pub struct Aging<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Every entry in order, and places that entries have left since: those whose
    /// number is not their entry's.
    order: VecDeque<(K, u64)>,
    next: u64,
    bound: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    at: Instant,
    number: u64,
}

impl<K: Copy + Eq + Hash, V> Aging<K, V> {
    /// A table of at most `bound` entries, and at least one.
    pub fn new(bound: usize) -> Aging<K, V> {
        Aging {
            entries: HashMap::new(),
            order: VecDeque::new(),
            next: 0,
            bound: bound.max(1),
        }
    }

    /// Enters a value, or replaces it, as the newest. Returns the oldest entry
    /// where that had to go for it.
    pub fn put(&mut self, key: K, value: V, now: Instant) -> Option<(K, V)> {
        let number = self.place(key);
        let entry = Entry {
            value,
            at: now,
            number,
        };
        self.entries.insert(key, entry);
        if self.entries.len() > self.bound {
            self.pop_oldest()
        } else {
            None
        }
    }

    /// Makes an entry the newest.
    pub fn touch(&mut self, key: &K, now: Instant) {
        if self.entries.contains_key(key) {
            let number = self.place(*key);
            if let Some(entry) = self.entries.get_mut(key) {
                entry.number = number;
                entry.at = now;
            }
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// The value of a key; its age stays what it is.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.tidy();
        Some(entry.value)
    }

    /// Takes the oldest entry out if its age is `age` or more.
    pub fn pop_older(&mut self, age: Duration, now: Instant) -> Option<(K, V)> {
        let (_, at) = self.front()?;
        if now.saturating_duration_since(at) < age {
            return None;
        }
        self.pop_oldest()
    }

    /// Takes the oldest entry out.
    pub fn pop_oldest(&mut self) -> Option<(K, V)> {
        let (key, _) = self.front()?;
        self.order.pop_front();
        let entry = self.entries.remove(&key)?;
        self.tidy();
        Some((key, entry.value))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A new place at the end of the order.
    fn place(&mut self, key: K) -> u64 {
        let number = self.next;
        self.next += 1;
        self.order.push_back((key, number));
        self.tidy();
        number
    }

    /// The oldest entry, with the places before it that were left taken away.
    fn front(&mut self) -> Option<(K, Instant)> {
        loop {
            let &(key, number) = self.order.front()?;
            match self.entries.get(&key) {
                Some(entry) if entry.number == number => return Some((key, entry.at)),
                _ => self.order.pop_front(),
            };
        }
    }

    /// Sweeps places that were left when these are the most, so that each step
    /// bears a constant share of it, and gives memory back after a flood.
    fn tidy(&mut self) {
        if self.order.len() > 2 * self.entries.len() + 16 {
            let (entries, newest) = (&self.entries, self.next.wrapping_sub(1));
            // The newest place may be that of an entry about to be made.
            self.order.retain(|(key, number)| {
                *number == newest
                    || entries
                        .get(key)
                        .is_some_and(|entry| entry.number == *number)
            });
        }
        if self.entries.capacity() > 1024 && self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2);
            self.order.shrink_to(self.entries.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Put(u8),
        Touch(u8),
        Remove(u8),
        PopOlder(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = 0u8..12;
        prop_oneof![
            3 => key.clone().prop_map(Step::Put),
            2 => key.clone().prop_map(Step::Touch),
            1 => key.prop_map(Step::Remove),
            1 => (0u64..50).prop_map(Step::PopOlder),
        ]
    }

    proptest! {
        /// Against a list in the order of age.
        #[test]
        fn is_a_bounded_list_by_age(steps in prop::collection::vec((step(), 0u64..10), 1..300)) {
            let mut aging = Aging::new(8);
            let mut list: Vec<(u8, usize, Instant)> = Vec::new();
            let mut now = Instant::now();
            for (count, (step, later)) in steps.into_iter().enumerate() {
                now += Duration::from_secs(later);
                match step {
                    Step::Put(key) => {
                        list.retain(|(of, ..)| *of != key);
                        list.push((key, count, now));
                        let gone = (list.len() > 8).then(|| list.remove(0));
                        prop_assert_eq!(aging.put(key, count, now), gone.map(|(key, value, _)| (key, value)));
                    }
                    Step::Touch(key) => {
                        aging.touch(&key, now);
                        if let Some(at) = list.iter().position(|(of, ..)| *of == key) {
                            let (key, value, _) = list.remove(at);
                            list.push((key, value, now));
                        }
                    }
                    Step::Remove(key) => {
                        let at = list.iter().position(|(of, ..)| *of == key);
                        let value = at.map(|at| list.remove(at).1);
                        prop_assert_eq!(aging.remove(&key), value);
                    }
                    Step::PopOlder(age) => {
                        let age = Duration::from_secs(age);
                        let old = list.first().is_some_and(|(.., at)| now - *at >= age);
                        let gone = old.then(|| list.remove(0));
                        prop_assert_eq!(aging.pop_older(age, now), gone.map(|(key, value, _)| (key, value)));
                    }
                }
                prop_assert_eq!(aging.len(), list.len());
                for (key, value, _) in &list {
                    prop_assert_eq!(aging.get(key), Some(value));
                }
                prop_assert!(aging.order.len() <= 2 * 8 + 17);
            }
        }
    }
}
