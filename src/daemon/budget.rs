//! How much of one core dumps may cost, and when the next tick may come because
//! of that.
//!
//! A dump of a huge table is nearly all kernel time, spent in this thread as it
//! receives; so the thread's own CPU clock knows the price. A round of dumps that
//! cost c may be followed by the next one c / share after it began. Ends are
//! told by notices, which have no part in this.

use std::time::{Duration, Instant};

/// The account of one reactor.
#[derive(Debug)]
pub struct Budget {
    /// Percent of one core; `None` for no bound.
    percent: Option<u32>,
    began: Instant,
    spent: Duration,
    /// Ticks are being stretched, and the log says so.
    pub told: bool,
}

impl Budget {
    /// An account with nothing spent.
    pub fn new(percent: Option<u32>, now: Instant) -> Budget {
        Budget {
            percent,
            began: now,
            spent: Duration::ZERO,
            told: false,
        }
    }

    /// A tick's round of dumps begins.
    pub fn begin(&mut self, now: Instant) {
        self.began = now;
        self.spent = Duration::ZERO;
    }

    /// Dumps have cost this much.
    pub fn spend(&mut self, cpu: Duration) {
        self.spent += cpu;
    }

    /// What the round has cost so far.
    pub fn spent(&self) -> Duration {
        self.spent
    }

    /// When the next round may begin; `None` when it may now.
    pub fn rests_until(&self, now: Instant) -> Option<Instant> {
        let percent = self.percent.filter(|percent| *percent > 0)?;
        let until = self.began + self.spent.saturating_mul(100) / percent;
        (until > now).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_paid_for_before_the_next_begins() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let mut budget = Budget::new(Some(10), start);
        assert_eq!(budget.rests_until(start), None);
        budget.begin(start);
        budget.spend(ms(20));
        budget.spend(ms(30));
        assert_eq!(budget.rests_until(start + ms(60)), Some(start + ms(500)));
        assert_eq!(budget.rests_until(start + ms(500)), None);
        budget.begin(start + ms(500));
        assert_eq!(budget.rests_until(start + ms(501)), None, "a new account");
        let mut free = Budget::new(None, start);
        free.spend(ms(1000));
        assert_eq!(free.rests_until(start), None);
    }
}
