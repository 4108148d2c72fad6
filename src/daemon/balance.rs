//! The ledger of TCP opens at work: when it looks, when it warns, and what a gap
//! record learns from it.

use std::time::{Duration, Instant};

use super::place::Place;
use super::shared::Shared;
use crate::model::{Coverage, Gap, Needs, Now, Proto, Sought, StateGroups};
use crate::sensor::Ledger;
use crate::stats::Stats;

/// How long opens may be unaccounted for before the log says so: the kernel holds
/// a notice back for up to 5 s (unresolved ARP).
const PATIENCE: Duration = Duration::from_secs(10);

/// The word for a ledger without a kernel's count.
const NO_COUNTERS: &str = "no_counters";

/// The ledger, where it can run.
#[derive(Debug, Default)]
pub(super) struct Balance {
    ledger: Ledger,
    /// Since when opens have been unaccounted for.
    open_since: Option<Instant>,
}

/// Why the ledger cannot run for what is asked of the kernel: only where it is
/// asked for every connection, as one that nobody reads accounts for nothing.
fn lack(needs: Needs, sought: &Sought) -> Option<&'static str> {
    if !needs.proto(Proto::Tcp) {
        Some("not_watched")
    } else if !covers_all(needs.tcp) || !sought.is_all() {
        Some("narrowed")
    } else {
        None
    }
}

/// Whether every connection is in a dump of these.
fn covers_all(groups: StateGroups) -> bool {
    groups.contains(StateGroups::CONNECTED)
}

impl Balance {
    /// Whether the log is to say that opens are unaccounted for: they have been for
    /// long, and so long since it was last said. `open`: they are now.
    fn is_overdue(&mut self, open: bool, now: Instant) -> bool {
        if !open {
            self.open_since = None;
            return false;
        }
        let since = *self.open_since.get_or_insert(now);
        let overdue = now.saturating_duration_since(since) >= PATIENCE;
        if overdue {
            self.open_since = Some(now);
        }
        overdue
    }
}

impl Place {
    /// What is asked of the kernel is other than before: the ledger goes on where it
    /// can, begins where it could not run before, and says so where it cannot.
    pub(super) fn review_balance(&mut self, stats: &Stats) {
        let lack = lack(self.needs, self.narrow.sought());
        let lack = lack.or(self.counters.is_none().then_some(NO_COUNTERS));
        match lack {
            None if self.balance.is_some() => {}
            None => {
                self.balance = Some(Balance::default());
                stats.opens_unaccounted.unknown("not_yet");
            }
            Some(reason) => {
                self.balance = None;
                stats.opens_unaccounted.unknown(reason);
                if reason == "narrowed" {
                    log::info!(
                        "no ledger of TCP opens: the patterns do not ask for every connection"
                    );
                }
            }
        }
    }

    /// A dump is about to begin.
    pub(super) fn balance_before(&mut self, coverage: Coverage, shared: &mut Shared, now: Now) {
        if !is_whole(coverage) || self.balance.is_none() {
            return;
        }
        let counted = self.reading(shared, now).map(|reading| reading.tcp_opens);
        if let Some(balance) = &mut self.balance {
            balance.ledger.dump_begins(counted);
        }
    }

    /// A dump ended, well or not.
    pub(super) fn balance_after(
        &mut self,
        coverage: Coverage,
        completed: bool,
        shared: &mut Shared,
        now: Now,
    ) {
        let Some(balance) = &mut self.balance else {
            return;
        };
        if !is_whole(coverage) {
            return;
        }
        if completed {
            balance.ledger.dump_completed(coverage.family);
            self.look_at_balance(shared, now);
        } else {
            balance.ledger.dump_failed();
        }
    }

    /// Compares the sums between two ticks.
    pub(super) fn look_at_balance(&mut self, shared: &mut Shared, now: Now) {
        if self.balance.is_some() {
            let counted = self.reading(shared, now).map(|reading| reading.tcp_opens);
            self.balance(counted, shared, now);
        }
    }

    /// Compares the sums, once a tick.
    pub(super) fn balance(&mut self, counted: Option<u64>, shared: &mut Shared, now: Now) {
        let accounted = self.sensor.opens();
        let deaf = shared.is_deaf(Proto::Tcp);
        let settled = !shared.congested && !self.sensor.has_gap() && !deaf;
        let Some(balance) = &mut self.balance else {
            return;
        };
        let Some(counted) = counted else {
            shared.stats.opens_unaccounted.unknown(NO_COUNTERS);
            return;
        };
        balance.ledger.look(counted, accounted);
        let Some(unaccounted) = balance.ledger.unaccounted(accounted) else {
            return;
        };
        shared.stats.opens_unaccounted.set(unaccounted);
        // What a gap lost is told by its record, what a missing group costs was
        // told when it was given up.
        if balance.is_overdue(unaccounted > 0 && settled, now.mono) {
            shared.warn("ledger", now, || {
                format!(
                    "the kernel has counted {unaccounted} more TCP opens than there were sockets to \
                     be seen: notices were lost without a word, or sockets connected twice"
                )
            });
        }
    }

    /// Adds to the record of a gap how many sockets nothing was ever seen of.
    pub(super) fn balance_gap(&mut self, gap: &mut Gap, shared: &Shared) {
        let accounted = self.sensor.opens();
        if let Some(balance) = &mut self.balance {
            gap.tcp_unseen = balance.ledger.unaccounted(accounted);
            balance.ledger.explain(gap.tcp_unseen.unwrap_or(0));
            if let Some(left) = balance.ledger.unaccounted(accounted) {
                shared.stats.opens_unaccounted.set(left);
            }
        }
    }
}

/// Whether a dump holds every connection, be it of one family.
fn is_whole(coverage: Coverage) -> bool {
    coverage.proto == Proto::Tcp && covers_all(coverage.groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_unaccounted_for_is_said_now_and_then() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut balance = Balance::default();
        let mut told = Vec::new();
        for second in 0..40 {
            // It is accounted for after all for a moment.
            if balance.is_overdue(second != 5, at(second)) {
                told.push(second);
            }
        }
        assert_eq!(told, [16, 26, 36]);
    }

    #[test]
    fn the_ledger_runs_where_every_connection_is_asked_for() {
        let udp = Needs::EVERYTHING.only(Proto::Udp);
        let listen = Needs {
            tcp: StateGroups::LISTEN,
            udp: true,
        };
        let all = Sought::ALL;
        assert_eq!(lack(Needs::EVERYTHING, &all), None);
        assert_eq!(lack(udp, &all), Some("not_watched"));
        assert_eq!(lack(listen, &all), Some("narrowed"));
        assert_eq!(lack(Needs::EVERYTHING, &Sought::NONE), Some("narrowed"));
    }
}
