//! What the places of all namespaces have in common: the notice sockets and what
//! they cannot tell, one budget, one voice in the log.

use std::rc::Rc;
use std::time::{Duration, Instant};

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

    /// Dumps have cost this much CPU time.
    pub fn spend(&mut self, cpu: Duration, now: Now) {
        self.budget.spend(cpu, now.mono);
    }

    /// Whether a dump that somebody waits for has to be paid for first; says so.
    pub fn is_over_budget(&mut self, now: Now) -> bool {
        if self.budget.rests_until(now.mono).is_none() {
            return false;
        }
        if self.budget.stretches(now.mono) {
            self.tell_stretched(now);
        }
        true
    }

    /// As [`Shared::is_over_budget`], of a tick: when it may go ahead.
    pub fn puts_tick_off(&mut self, now: Now) -> Option<Instant> {
        let Some(until) = self.budget.rests_until(now.mono) else {
            if let Some(lasted) = self.budget.ticks(now.mono) {
                self.tell(Level::Info, "in time", now, || {
                    format!(
                        "dumps are within `cpu-budget` again, and ticks keep their time, after {} s",
                        lasted.as_secs()
                    )
                });
            }
            return None;
        };
        self.stats.ticks_stretched.bump();
        if self.budget.puts_off(now.mono) {
            self.tell_stretched(now);
        }
        Some(until)
    }

    fn tell_stretched(&mut self, now: Now) {
        let owed = self.budget.owed(now.mono).as_millis();
        self.warn("cpu-budget", now, || {
            format!(
                "dumps have cost {owed} ms of CPU time that are not paid for: ticks are stretched, and \
                 what was lost is reconciled later, to keep within `cpu-budget`; ends of sockets \
                 are told at once all the same where they are noticed"
            )
        });
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
