//! Every socket read so far and not ended, by identity.
//!
//! The table is a map that a machine with a million sockets can afford: entries
//! stand densely in chunks, so that a scan is a walk through memory and a table
//! that shrinks gives its memory back; the index beside them holds four bytes an
//! entry. What an entry means is the sensors' business; that it is found again
//! by (namespace, cookie) whatever its address and state have become is the
//! table's.

mod entry;
mod tombstones;
mod walk;

pub use entry::{Entry, Mark};
pub use tombstones::{LATE_NOTICE, Tombstones};
pub use walk::Walk;

use hashbrown::HashTable;

use crate::model::SocketKey;

const CHUNK: usize = 1024;

/// What knows whose it is.
pub trait Keyed {
    /// The socket that it is of.
    fn key(&self) -> SocketKey;
}

impl Keyed for Entry {
    fn key(&self) -> SocketKey {
        Entry::key(self)
    }
}

/// A table of entries, keyed by (namespace, cookie).
#[derive(Debug)]
pub struct Table<E = Entry> {
    chunks: Vec<Vec<E>>,
    index: HashTable<u32>,
}

impl<E> Default for Table<E> {
    fn default() -> Table<E> {
        Table {
            chunks: Vec::new(),
            index: HashTable::new(),
        }
    }
}

/// Cookies are handed out in sequence, one range a CPU, and nobody outside can
/// choose them: one multiplication spreads them well enough.
fn hash(key: SocketKey) -> u64 {
    let mixed = (key.cookie.0 ^ u64::from(key.netns.0) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}

impl<E: Keyed> Table<E> {
    /// An empty table.
    pub fn new() -> Table<E> {
        Table::default()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    fn at(&self, slot: u32) -> &E {
        let slot = slot as usize;
        &self.chunks[slot / CHUNK][slot % CHUNK]
    }

    fn slot(&self, key: SocketKey) -> Option<u32> {
        self.index
            .find(hash(key), |&slot| self.at(slot).key() == key)
            .copied()
    }

    /// The entry of a socket.
    pub fn find(&self, key: SocketKey) -> Option<&E> {
        self.slot(key).map(|slot| self.at(slot))
    }

    /// The entry of a socket, to be changed.
    pub fn find_mut(&mut self, key: SocketKey) -> Option<&mut E> {
        let slot = self.slot(key)? as usize;
        Some(&mut self.chunks[slot / CHUNK][slot % CHUNK])
    }

    /// Adds an entry; one of the same key must not be there.
    pub fn insert(&mut self, entry: E) {
        let key = entry.key();
        debug_assert!(self.find(key).is_none(), "a socket is entered once");
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            // The first chunk starts small: ten sockets need no room for 1024.
            let room = if self.chunks.is_empty() { 16 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(room));
        }
        let slot = self.index.len() as u32;
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(entry);
        }
        let chunks = &self.chunks;
        self.index.insert_unique(hash(key), slot, |&slot| {
            let slot = slot as usize;
            hash(chunks[slot / CHUNK][slot % CHUNK].key())
        });
    }

    /// Takes an entry out. The last entry moves into its place.
    pub fn remove(&mut self, key: SocketKey) -> Option<E> {
        let slot = match self.index.find_entry(hash(key), |&slot| {
            let slot = slot as usize;
            self.chunks[slot / CHUNK][slot % CHUNK].key() == key
        }) {
            Ok(found) => found.remove().0,
            Err(_) => return None,
        };
        let last = self.chunks.last_mut()?.pop()?;
        if self.chunks.last().is_some_and(Vec::is_empty) {
            self.chunks.pop();
        }
        let last_slot = self.index.len() as u32;
        let removed = if slot == last_slot {
            last
        } else {
            if let Some(held) = self
                .index
                .find_mut(hash(last.key()), |&held| held == last_slot)
            {
                *held = slot;
            }
            let place = &mut self.chunks[slot as usize / CHUNK][slot as usize % CHUNK];
            std::mem::replace(place, last)
        };
        self.shrink();
        Some(removed)
    }

    fn shrink(&mut self) {
        if self.index.capacity() > 4096 && self.index.len() < self.index.capacity() / 4 {
            let chunks = &self.chunks;
            self.index.shrink_to(self.index.len() * 2, |&slot| {
                let slot = slot as usize;
                hash(chunks[slot / CHUNK][slot % CHUNK].key())
            });
        }
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &E> + Clone {
        self.chunks.iter().flatten()
    }

    /// The entries before a place, the last one first. Whoever goes through the
    /// table like this, piece by piece, while entries come and go, meets every
    /// entry that stays: a new one comes in behind, and the one that fills the
    /// place of a removed one has been met or stands before the place. It can be
    /// met again. Entries must not be put in order meanwhile
    /// ([`Walk::keep_places`]).
    pub fn before(&self, place: usize) -> impl Iterator<Item = &E> {
        let place = place.min(self.len());
        (0..place).rev().map(|slot| self.at(slot as u32))
    }

    /// All entries in order, in pieces of at most a thousand or so.
    pub fn pieces(&self) -> impl Iterator<Item = &[E]> {
        self.chunks.iter().map(Vec::as_slice)
    }

    /// All entries, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut E> {
        self.chunks.iter_mut().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    pub(super) fn entry(cookie: u64) -> Entry {
        let id = SockId::from_wire(
            Proto::Tcp,
            Family::V4,
            ("10.0.0.1".parse().unwrap(), cookie as u16),
            ("10.0.0.2".parse().unwrap(), 80),
            0,
        );
        let key = SocketKey::new(Netns(1), Cookie(cookie));
        Entry::new(
            key,
            id,
            TcpState::Established,
            Owner::Known { uid: 1, inode: 2 },
            cookie,
        )
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in proptest::collection::vec((any::<bool>(), 0_u64..3000), 0..6000)) {
            let mut table = Table::new();
            let mut model = HashMap::new();
            for (insert, cookie) in steps {
                let key = SocketKey::new(Netns(1), Cookie(cookie));
                if insert {
                    if model.insert(cookie, ()).is_none() {
                        table.insert(entry(cookie));
                    }
                } else {
                    let removed = table.remove(key).map(|entry| entry.key().cookie.0);
                    prop_assert_eq!(removed, model.remove(&cookie).map(|()| cookie));
                }
                prop_assert_eq!(table.len(), model.len());
            }
            let mut held: Vec<_> = table.iter().map(|entry| entry.key().cookie.0).collect();
            held.sort_unstable();
            let mut expected: Vec<_> = model.into_keys().collect();
            expected.sort_unstable();
            prop_assert_eq!(&held, &expected);
            for cookie in held {
                let found = table.find(SocketKey::new(Netns(1), Cookie(cookie))).unwrap();
                prop_assert_eq!(found.id().local.port, cookie as u16);
            }
        }
    }

    #[test]
    fn memory_comes_back() {
        let mut table = Table::new();
        for cookie in 0..100_000 {
            table.insert(entry(cookie));
        }
        for cookie in 0..99_990 {
            assert!(
                table
                    .remove(SocketKey::new(Netns(1), Cookie(cookie)))
                    .is_some()
            );
        }
        assert_eq!(table.chunks.len(), 1);
        assert!(table.index.capacity() < 8192);
        assert_eq!(table.iter().count(), 10);
    }
}
