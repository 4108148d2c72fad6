//! A dump's way through the table, in step with the dump.
//!
//! The kernel's dumps keep their order from one to the next. A table in that
//! order is walked through memory as the rows come; in any other order each row
//! is a hash look-up and two or three cache misses, which doubles what a row
//! costs above the kernel's own time. New entries stand at the end, so order
//! decays; when half as many rows have been met out of place as a dump has, the
//! next one puts entries where it meets them. That costs such a row twice what
//! meeting it out of place once more would, and no other row anything.

use super::{CHUNK, Entry, Table, hash};
use crate::model::{Coverage, SocketKey};

/// How the dumps go through a table, again and again. Each begins where the one
/// before it ended, and behind the last entry comes the first: dumps that take
/// turns share the table among themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Walk {
    /// Where the next row is expected.
    place: u32,
    /// Entries are put in order as they are met.
    ordering: bool,
    /// They are not, for now.
    still: bool,
    /// The dump under way.
    kind: usize,
    /// By protocol, and by one family or both.
    kinds: [Kind; 6],
}

/// One kind of dump.
#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    /// Rows met in the dump under way, or the last one.
    rows: u32,
    /// Rows met elsewhere than expected since entries were last put in order.
    strays: u32,
}

impl Walk {
    /// Has entries stay where they are, or put in order again where that helps.
    pub fn keep_places(&mut self, keep: bool) {
        self.still = keep;
    }

    /// Begins a dump.
    pub fn begin(&mut self, coverage: Coverage) {
        self.kind =
            coverage.proto as usize * 3 + coverage.family.map_or(2, |family| family as usize);
        let kind = &mut self.kinds[self.kind];
        self.ordering = kind.strays > kind.rows / 2;
        if self.ordering {
            kind.strays = 0;
        }
        kind.rows = 0;
    }
}

impl Table {
    /// As [`Table::find_mut`], for the rows of a dump one after the other.
    pub fn find_next(&mut self, key: SocketKey, walk: &mut Walk) -> Option<&mut Entry> {
        let expected = walk.place;
        let slot = if self.get(expected).is_some_and(|entry| entry.key() == key) {
            expected
        } else {
            self.stray(key, walk)?
        };
        walk.kinds[walk.kind].rows += 1;
        let next = slot as usize + 1;
        walk.place = if next < self.len() { next as u32 } else { 0 };
        let slot = slot as usize;
        Some(&mut self.chunks[slot / CHUNK][slot % CHUNK])
    }

    #[cold]
    fn stray(&mut self, key: SocketKey, walk: &mut Walk) -> Option<u32> {
        let found = self.slot(key)?;
        walk.kinds[walk.kind].strays += 1;
        if walk.ordering && !walk.still && self.get(walk.place).is_some() {
            self.swap(found, walk.place);
            return Some(walk.place);
        }
        Some(found)
    }

    fn get(&self, slot: u32) -> Option<&Entry> {
        let slot = slot as usize;
        self.chunks.get(slot / CHUNK)?.get(slot % CHUNK)
    }

    /// Exchanges the entries of two different slots.
    fn swap(&mut self, a: u32, b: u32) {
        let hashes = [a, b].map(|slot| hash(self.at(slot).key()));
        if let [Some(one), Some(other)] = self
            .index
            .get_disjoint_mut(hashes, |which, &slot| slot == [a, b][which])
        {
            std::mem::swap(one, other);
        }
        let [(chunk_a, a), (chunk_b, b)] =
            [a, b].map(|slot| (slot as usize / CHUNK, slot as usize % CHUNK));
        match self.chunks.get_disjoint_mut([chunk_a, chunk_b]) {
            Ok([one, other]) => std::mem::swap(&mut one[a], &mut other[b]),
            Err(_) => self.chunks[chunk_a].swap(a, b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry;
    use super::*;
    use crate::model::{Cookie, Netns, Proto, StateGroups};
    use proptest::prelude::*;

    fn key(cookie: u64) -> SocketKey {
        SocketKey::new(Netns(1), Cookie(cookie))
    }

    const TCP: Coverage = Coverage {
        proto: Proto::Tcp,
        family: None,
        groups: StateGroups::ALL,
    };
    const UDP: Coverage = Coverage {
        proto: Proto::Udp,
        ..TCP
    };

    /// How many strays the dump met.
    fn dump(table: &mut Table, walk: &mut Walk, coverage: Coverage, rows: &[u64]) -> u32 {
        walk.begin(coverage);
        let before = walk.kinds[walk.kind].strays;
        for &cookie in rows {
            let found = table.find_next(key(cookie), walk).map(|entry| entry.key());
            assert_eq!(found, Some(key(cookie)));
            assert!(
                table
                    .find_next(SocketKey::new(Netns(2), Cookie(cookie)), walk)
                    .is_none()
            );
        }
        walk.kinds[walk.kind].strays - before
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_table_falls_in_step_with_its_dumps(
            order in Just((0..1500).collect::<Vec<u64>>()).prop_shuffle(),
            tcp in 0_usize..1500,
        ) {
            let (mut table, mut walk) = (Table::new(), Walk::default());
            for cookie in 0..1500 {
                table.insert(entry(cookie));
            }
            let (tcp, udp) = order.split_at(tcp);
            let mut strays = 0;
            for _ in 0..8 {
                strays = dump(&mut table, &mut walk, TCP, tcp) + dump(&mut table, &mut walk, UDP, udp);
            }
            prop_assert!(strays <= 4, "{} strays", strays);
            for cookie in order {
                prop_assert_eq!(table.find(key(cookie)).map(Entry::key), Some(key(cookie)));
            }
        }
    }

    proptest! {
        #[test]
        fn a_listing_misses_nothing_that_stays(
            removed in proptest::collection::vec(0_u64..300, 0..200),
            slice in 1_usize..20,
        ) {
            let (mut table, mut walk) = (Table::new(), Walk::default());
            (0..300).for_each(|cookie| table.insert(entry(cookie)));
            walk.keep_places(true);
            let (mut place, mut met) = (usize::MAX, Vec::new());
            let mut removed_now = removed.iter().enumerate();
            while place > 0 {
                place = place.min(table.len());
                met.extend(table.before(place).take(slice).map(|entry| entry.key().cookie.0));
                place -= slice.min(place);
                for (at, &cookie) in removed_now.by_ref().take(3) {
                    table.remove(key(cookie));
                    table.insert(entry(1000 + at as u64));
                }
                let rows: Vec<u64> = table.before(usize::MAX).map(|entry| entry.key().cookie.0).collect();
                dump(&mut table, &mut walk, TCP, &rows);
            }
            for cookie in (0..300).filter(|cookie| !removed.contains(cookie)) {
                prop_assert!(met.contains(&cookie), "{} was missed", cookie);
            }
        }
    }

    #[test]
    fn a_few_new_sockets_are_not_worth_an_order() {
        let (mut table, mut walk) = (Table::new(), Walk::default());
        let mut rows: Vec<u64> = (0..1000).collect();
        rows.iter().for_each(|&cookie| table.insert(entry(cookie)));
        dump(&mut table, &mut walk, TCP, &rows);
        table.insert(entry(5000));
        rows.insert(10, 5000);
        for _ in 0..100 {
            let strays = dump(&mut table, &mut walk, TCP, &rows);
            assert!(!walk.ordering);
            assert!(
                strays <= 3,
                "the new socket, the one behind it, and the first: {strays}"
            );
        }
    }
}
