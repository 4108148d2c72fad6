//! The ended sockets whose cookies may still turn up.
//!
//! A row can lie in the dump socket's queue while its socket ends, and is read
//! after the notice; without a tombstone it would open the socket again. So an end
//! that is noticed while a dump is under way leaves one until that dump is over.
//! After a `verified` close the notice may still come, and must not close it
//! twice.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::model::SocketKey;

/// How long a `verified` close waits for its notice.
pub const LATE_NOTICE: Duration = Duration::from_secs(60);

/// Tombstones by socket.
#[derive(Debug, Default)]
pub struct Tombstones {
    graves: HashMap<SocketKey, Grave>,
}

#[derive(Clone, Copy, Debug)]
struct Grave {
    /// The last dump that may hold a row of it.
    dump: u32,
    /// Set after a `verified` close: until when its notice may come.
    notice_until: Option<Instant>,
}

impl Tombstones {
    /// A socket ended with a notice while dump number `dump` was under way.
    pub fn noticed(&mut self, key: SocketKey, dump: u32) {
        self.graves.insert(
            key,
            Grave {
                dump,
                notice_until: None,
            },
        );
    }

    /// A socket ended without a notice; the notice may still come.
    pub fn verified(&mut self, key: SocketKey, dump: u32, now: Instant) {
        let notice_until = Some(now + LATE_NOTICE);
        self.graves.insert(key, Grave { dump, notice_until });
    }

    /// A socket that an earlier run found ended; its notice may come until then.
    pub fn restore(&mut self, key: SocketKey, dump: u32, notice_until: Instant) {
        let notice_until = Some(notice_until);
        self.graves.insert(key, Grave { dump, notice_until });
    }

    /// The sockets whose notices may still come, and until when.
    pub fn waiting(&self) -> impl Iterator<Item = (SocketKey, Instant)> + '_ {
        let waits = |(key, grave): (&SocketKey, &Grave)| Some((*key, grave.notice_until?));
        self.graves.iter().filter_map(waits)
    }

    /// Whether a row of dump number `dump` may be of a socket that has ended
    /// since that dump began. A later dump that holds the socket is right: it
    /// lives (a `verified` close can have been wrong about an invisible socket).
    pub fn covers(&self, key: SocketKey, dump: u32) -> bool {
        self.graves
            .get(&key)
            .is_some_and(|grave| grave.dump >= dump)
    }

    /// Takes the tombstone away: the socket was seen again.
    pub fn lift(&mut self, key: SocketKey) {
        self.graves.remove(&key);
    }

    /// Takes note of a notice; true when the socket has ended already.
    pub fn late_notice(&mut self, key: SocketKey) -> bool {
        match self.graves.get_mut(&key) {
            Some(grave) => {
                grave.notice_until = None;
                true
            }
            None => false,
        }
    }

    /// Dump number `ended` is over: forgets those whose rows it was the last to
    /// hold, and whose notice has come or will not come any more.
    pub fn sweep(&mut self, ended: u32, now: Instant) {
        self.graves.retain(|_, grave| {
            grave.dump > ended || grave.notice_until.is_some_and(|until| until > now)
        });
        if self.graves.capacity() > 4096 && self.graves.len() < self.graves.capacity() / 4 {
            self.graves.shrink_to(self.graves.len() * 2);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.graves.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.graves.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Cookie, Netns};

    #[test]
    fn a_tombstone_lasts_as_long_as_the_dump_that_ran() {
        let key = SocketKey::new(Netns(1), Cookie(1));
        let now = Instant::now();
        let mut graves = Tombstones::default();
        graves.noticed(key, 4);
        graves.sweep(3, now);
        assert!(graves.covers(key, 4), "dump 4 was under way");
        assert!(!graves.covers(key, 5), "dump 5 began after the end");
        graves.sweep(4, now);
        assert!(graves.is_empty());
    }

    #[test]
    fn a_verified_close_waits_for_its_notice() {
        let key = SocketKey::new(Netns(1), Cookie(1));
        let now = Instant::now();
        let mut graves = Tombstones::default();
        graves.verified(key, 4, now);
        graves.sweep(9, now + Duration::from_secs(59));
        assert!(graves.late_notice(key));
        graves.sweep(9, now + Duration::from_secs(59));
        assert!(graves.is_empty());
        graves.verified(key, 4, now);
        graves.sweep(9, now + Duration::from_secs(61));
        assert!(!graves.late_notice(key));
    }
}
