//! What the places of all namespaces have in common: the notice sockets and what
//! they cannot tell, one budget, one voice in the log.

use std::rc::Rc;
use std::time::Duration;

use log::Level;

use super::budget::Budget;
use crate::log::RateLimit;
use crate::model::{Now, Proto};
use crate::source::Group;
use crate::stats::Stats;

/// How often one kind of failure is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// What all places share.
pub(super) struct Shared {
    /// Notices were dropped, and the queue has not been empty since.
    pub congested: bool,
    /// Groups whose notices cannot be had.
    pub deaf: Vec<Group>,
    /// Who goes through the sockets piece by piece, by
    /// [`Reader`](crate::sensor::Reader).
    pub listed: [bool; 3],
    /// What dumps may cost, all together.
    pub budget: Budget,
    limit: RateLimit,
    pub stats: Rc<Stats>,
}

impl Shared {
    pub fn new(stats: Rc<Stats>, now: Now) -> Shared {
        Shared {
            congested: false,
            deaf: Vec::new(),
            listed: [false; 3],
            budget: Budget::new(None, now.mono),
            limit: RateLimit::new(3, LOG_EVERY),
            stats,
        }
    }

    pub fn is_deaf(&self, proto: Proto) -> bool {
        self.deaf.iter().any(|group| group.proto == proto)
    }

    pub fn warn(&mut self, kind: &'static str, now: Now, message: impl Fn() -> String) {
        self.tell(Level::Warn, kind, now, message);
    }

    /// Logs what can happen at any rate, at a bounded one.
    pub fn tell(
        &mut self,
        level: Level,
        kind: &'static str,
        now: Now,
        message: impl Fn() -> String,
    ) {
        match self.limit.admit(kind, now.mono) {
            Some(0) => log::log!(level, "{}", message()),
            Some(more) => log::log!(level, "{} ({more} more like it were not logged)", message()),
            None => {}
        }
    }

    /// Says how much was not logged, where that is over.
    pub fn tell_unlogged(&mut self, now: Now) {
        for (kind, more) in self.limit.over(now.mono) {
            log::warn!("{more} more messages about \"{kind}\" were not logged");
        }
    }
}
