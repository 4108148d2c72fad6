//! How much of one core dumps may cost, and when more may begin because of that.
//!
//! A dump of a huge table is nearly all kernel time, spent in this thread as it
//! receives; so the thread's own CPU clock knows the price. What cost c is paid for
//! after c / share: until everything is, no tick goes ahead, and neither does a
//! dump that reconciles or is tried again. A dump that has begun is read to its
//! end, so that what is owed is at most a round more than there was credit for.
//!
//! There is credit for one thing: the first round after notices were dropped goes
//! at once, once between two times at which nothing is owed. Whatever else a gap
//! takes waits, and so does the next gap; the gap lasts longer by that.
//!
//! Ends are told by notices, which have no part in this.

use std::time::{Duration, Instant};

/// For how long no tick may have been put off until they keep their time again.
const CALM: Duration = Duration::from_secs(5);

/// The account of one reactor.
#[derive(Debug)]
pub struct Budget {
    /// Percent of one core; `None` for no bound.
    percent: Option<u32>,
    /// When everything that was spent is paid for.
    paid_at: Instant,
    /// A gap has gone ahead of that since nothing was owed.
    lent: bool,
    stretch: Option<Stretch>,
}

/// A time in which dumps have to wait for their price.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    began: Instant,
    /// When something last had to wait, or went after it had.
    last: Instant,
    /// The tick that comes next was put off.
    put_off: bool,
}

impl Budget {
    /// An account with nothing spent.
    pub fn new(percent: Option<u32>, now: Instant) -> Budget {
        Budget {
            percent: percent.filter(|percent| *percent > 0),
            paid_at: now,
            lent: false,
            stretch: None,
        }
    }

    /// No bound any more: there is no later to put anything off to.
    pub fn lift(&mut self) {
        self.percent = None;
    }

    /// Dumps have cost this much.
    pub fn spend(&mut self, cpu: Duration, now: Instant) {
        if let Some(percent) = self.percent {
            self.paid_at = self.paid_at.max(now) + cpu.saturating_mul(100) / percent;
        }
    }

    /// When everything is paid for; `None` when it is.
    pub fn rests_until(&self, now: Instant) -> Option<Instant> {
        (self.percent.is_some() && self.paid_at > now).then_some(self.paid_at)
    }

    /// How much CPU time is not paid for.
    pub fn owed(&self, now: Instant) -> Duration {
        let rest = self.paid_at.saturating_duration_since(now);
        rest.saturating_mul(self.percent.unwrap_or(0)) / 100
    }

    /// Whether the first round of a gap may go ahead whatever is owed.
    pub fn lend(&mut self, now: Instant) -> bool {
        let lent = self.rests_until(now).is_some() && self.lent;
        self.lent = true;
        !lent
    }

    /// A dump has to wait; true for the first one after ticks had kept their time.
    pub fn stretches(&mut self, now: Instant) -> bool {
        let known = self.stretch.is_some();
        let stretch = self.stretch.get_or_insert(Stretch {
            began: now,
            last: now,
            put_off: false,
        });
        stretch.last = now;
        !known
    }

    /// As [`Budget::stretches`]: it is a tick that has to wait.
    pub fn puts_off(&mut self, now: Instant) -> bool {
        let first = self.stretches(now);
        if let Some(stretch) = &mut self.stretch {
            stretch.put_off = true;
        }
        first
    }

    /// A tick goes ahead. For how long dumps had to wait, when ticks keep their
    /// time again.
    pub fn ticks(&mut self, now: Instant) -> Option<Duration> {
        let stretch = self.stretch.as_mut()?;
        if std::mem::take(&mut stretch.put_off) {
            stretch.last = now;
        }
        let (began, last) = (stretch.began, stretch.last);
        let over = now.saturating_duration_since(last) >= CALM;
        self.stretch.take_if(|_| over)?;
        Some(last.saturating_duration_since(began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_was_spent_is_paid_for_before_more_begins() {
        let start = Instant::now();
        let mut budget = Budget::new(Some(10), start);
        assert_eq!(budget.rests_until(start), None);
        budget.spend(ms(20), start);
        budget.spend(ms(30), start + ms(20));
        assert_eq!(budget.rests_until(start + ms(60)), Some(start + ms(500)));
        assert_eq!(budget.owed(start + ms(100)), ms(40));
        assert_eq!(budget.rests_until(start + ms(500)), None);
        // An hour of rest buys nothing.
        let later = start + ms(3_600_000);
        budget.spend(ms(10), later);
        assert_eq!(budget.rests_until(later), Some(later + ms(100)));
        budget.lift();
        assert_eq!(budget.rests_until(later), None);
        let mut free = Budget::new(None, start);
        free.spend(ms(1000), start);
        assert_eq!(free.rests_until(start), None);
    }

    /// However gaps follow each other, what they cost stays within the share but
    /// for the round on credit.
    #[test]
    fn gaps_have_credit_for_one_round() {
        let start = Instant::now();
        let mut budget = Budget::new(Some(10), start);
        let (mut spent, cost) = (ms(0), ms(10));
        for now in (0..10_000).map(|at| start + ms(at)) {
            // A gap begins every millisecond.
            if budget.lend(now) || budget.rests_until(now).is_none() {
                budget.spend(cost, now);
                spent += cost;
            }
        }
        assert!(spent <= ms(1000) + 2 * cost, "{spent:?}");
        assert!(spent >= ms(1000) - cost, "{spent:?}");
        budget = Budget::new(Some(10), start);
        budget.spend(cost, start);
        assert!(budget.lend(start), "whatever a tick has cost");
        assert!(!budget.lend(start), "once");
        assert!(budget.lend(start + ms(100)), "nothing is owed any more");
    }

    #[test]
    fn a_stretch_begins_once_and_is_over_when_ticks_keep_their_time() {
        let start = Instant::now();
        let at = |n: u64| start + ms(1000) * n as u32;
        let mut budget = Budget::new(Some(10), start);
        assert_eq!(budget.ticks(at(0)), None);
        for n in 1..20 {
            assert_eq!(budget.puts_off(at(10 * n)), n == 1, "{n}");
            // It was put off for longer than it takes to be over.
            assert_eq!(budget.ticks(at(10 * n + 8)), None);
        }
        assert_eq!(budget.ticks(at(199)), None);
        assert!(!budget.stretches(at(200)), "a gap has to wait");
        assert_eq!(budget.ticks(at(204)), None);
        assert_eq!(budget.ticks(at(205)), Some(ms(190_000)));
        assert_eq!(budget.ticks(at(300)), None, "told once");
        assert!(budget.puts_off(at(301)), "and it begins anew");
    }
}
