//! The ledger of TCP opens at work: when it looks, when it warns, and what a gap
//! record learns from it.

use std::time::{Duration, Instant};

use super::place::Place;
use super::shared::Shared;
use crate::model::{Coverage, Gap, Needs, Now, Proto, Sought, StateGroups};
use crate::sensor::Ledger;

/// How long opens may be unaccounted for before the log says so: the kernel holds
/// a notice back for up to 5 s (unresolved ARP).
const PATIENCE: Duration = Duration::from_secs(10);

/// The ledger, where it can run.
#[derive(Debug, Default)]
pub(super) struct Balance {
    ledger: Ledger,
    /// Since when opens have been unaccounted for.
    open_since: Option<Instant>,
}

impl Balance {
    /// A ledger for these needs: only where every connection is asked for, as one
    /// that nobody reads accounts for nothing.
    pub fn new(needs: Needs, sought: &Sought) -> Option<Balance> {
        if covers_all(needs.tcp) && sought.is_all() {
            return Some(Balance::default());
        }
        if needs.proto(Proto::Tcp) {
            log::info!("no ledger of TCP opens: the patterns do not ask for every connection");
        }
        None
    }
}

/// Whether every connection is in a dump of these.
fn covers_all(groups: StateGroups) -> bool {
    groups.contains(StateGroups::CONNECTED)
}

impl Place {
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
            balance.ledger.dump_completed();
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
        let (Some(balance), Some(counted)) = (&mut self.balance, counted) else {
            return;
        };
        balance.ledger.look(counted, accounted);
        let Some(unaccounted) = balance.ledger.unaccounted(accounted) else {
            return;
        };
        shared.stats.opens_unaccounted.set(unaccounted);
        // What a gap lost is told by its record, what a missing group costs was
        // told when it was given up.
        if unaccounted == 0 || !settled {
            balance.open_since = None;
            return;
        }
        let since = *balance.open_since.get_or_insert(now.mono);
        if now.mono.saturating_duration_since(since) >= PATIENCE {
            balance.open_since = Some(now.mono);
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
            let left = balance.ledger.unaccounted(accounted);
            shared.stats.opens_unaccounted.set(left.unwrap_or(0));
        }
    }
}

/// Whether a dump holds every connection: both families in one pass.
fn is_whole(coverage: Coverage) -> bool {
    coverage.proto == Proto::Tcp && coverage.family.is_none() && covers_all(coverage.groups)
}
