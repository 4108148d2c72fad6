//! How much of one core the search in /proc may cost.
//!
//! Whoever makes short-lived sockets makes questions, and each of them can cost a
//! look at every process there is. So the search lives on credit: it may go at
//! full speed for a moment, which is enough for a first pass over some thousand
//! processes, and in the long run has its share of a core and no more. What waits
//! meanwhile is answered by one and the same search.

use std::time::{Duration, Instant};

/// The part of a core that searching may take in the long run: one in so many.
const SHARE: u32 = 5;

/// How much may be spent at once, of what was not spent before.
const MOST: Duration = Duration::from_millis(500);

/// The shortest rest, so that questions gather.
const REST: Duration = Duration::from_millis(5);

/// The account of one search.
#[derive(Debug)]
pub(super) struct Account {
    /// In credit until it has spent as much as would take this moment, at its
    /// share, to come to now.
    paid_until: Option<Instant>,
    rests_until: Option<Instant>,
}

impl Account {
    /// An account with full credit.
    pub fn new() -> Account {
        Account {
            paid_until: None,
            rests_until: None,
        }
    }

    /// A turn has cost this much, and ended at `now`.
    pub fn spend(&mut self, cost: Duration, now: Instant) {
        let earliest = now.checked_sub(MOST * SHARE).unwrap_or(now);
        let from = self.paid_until.map_or(earliest, |at| at.max(earliest));
        let until = from + cost.saturating_mul(SHARE);
        self.paid_until = Some(until);
        self.rests_until = (until > now).then(|| until.max(now + REST));
    }

    /// When the next turn may begin; `None` when it may now.
    pub fn rests_until(&self, now: Instant) -> Option<Instant> {
        self.rests_until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_is_free_and_what_follows_is_paid_for() {
        let start = Instant::now() + MOST * SHARE;
        let mut account = Account::new();
        assert_eq!(account.rests_until(start), None);
        account.spend(MOST - ms(50), start);
        assert_eq!(account.rests_until(start), None, "within the credit");
        account.spend(ms(70), start);
        let until = start + ms(20) * SHARE;
        assert_eq!(account.rests_until(start), Some(until));
        assert_eq!(account.rests_until(until), None);
        account.spend(ms(1) / SHARE, until);
        assert_eq!(account.rests_until(until), Some(until + REST), "at least");
        let later = until + ms(3_600_000);
        account.spend(MOST + ms(1), later);
        let rests = account.rests_until(later);
        assert_eq!(rests, Some(later + ms(1) * SHARE), "no more is saved up");
    }

    #[test]
    fn in_the_long_run_it_has_its_share() {
        let start = Instant::now() + MOST * SHARE;
        let (mut now, mut spent) = (start, Duration::ZERO);
        let mut account = Account::new();
        while now < start + ms(60_000) {
            now = account.rests_until(now).unwrap_or(now) + ms(20);
            spent += ms(20);
            account.spend(ms(20), now);
        }
        let most = (now - start) / SHARE + MOST + ms(20);
        assert!(spent <= most && spent * SHARE >= now - start, "{spent:?}");
    }
}
