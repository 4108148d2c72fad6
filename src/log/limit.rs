//! A limit on how often one kind of message is told.
//!
//! Whatever an outsider can trigger could otherwise fill a disk. Each kind has
//! a number of messages per interval of its own; the others are counted, and
//! the count is told with the next message or when the interval is over. Pure:
//! the clock is passed in.

use std::time::{Duration, Instant};

/// The limit, for any number of kinds.
#[derive(Debug)]
pub struct RateLimit {
    burst: u32,
    interval: Duration,
    /// A handful of kinds, each a literal: searched one by one.
    windows: Vec<Window>,
}

#[derive(Debug)]
struct Window {
    kind: &'static str,
    began: Instant,
    told: u32,
    suppressed: u64,
}

impl RateLimit {
    /// At most `burst` messages of a kind in each interval, which begins with
    /// the kind's first message.
    pub fn new(burst: u32, interval: Duration) -> RateLimit {
        RateLimit {
            burst,
            interval,
            windows: Vec::new(),
        }
    }

    /// Asks to tell a message. `Some` permits it and says how many of its kind
    /// were suppressed since the last one that was told; `None` suppresses it.
    #[must_use]
    pub fn admit(&mut self, kind: &'static str, now: Instant) -> Option<u64> {
        let at = match self.windows.iter().position(|window| window.kind == kind) {
            Some(at) => at,
            None => {
                self.windows.push(Window {
                    kind,
                    began: now,
                    told: 0,
                    suppressed: 0,
                });
                self.windows.len() - 1
            }
        };
        let interval = self.interval;
        let window = &mut self.windows[at];
        if now.saturating_duration_since(window.began) >= interval {
            window.began = now;
            window.told = 0;
        }
        if window.told < self.burst {
            window.told += 1;
            Some(std::mem::take(&mut window.suppressed))
        } else {
            window.suppressed += 1;
            None
        }
    }

    /// The kinds whose interval is over with messages suppressed, and how many;
    /// each is told once.
    pub fn over(&mut self, now: Instant) -> impl Iterator<Item = (&'static str, u64)> {
        let interval = self.interval;
        self.windows
            .iter_mut()
            .filter(move |window| {
                window.suppressed > 0 && now.saturating_duration_since(window.began) >= interval
            })
            .map(|window| (window.kind, std::mem::take(&mut window.suppressed)))
    }

    /// When [`RateLimit::over`] will next have something to tell.
    pub fn deadline(&self) -> Option<Instant> {
        self.windows
            .iter()
            .filter(|window| window.suppressed > 0)
            .filter_map(|window| window.began.checked_add(self.interval))
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_suppressed_are_counted_and_told_with_the_next() {
        let mut limit = RateLimit::new(2, MINUTE);
        let start = Instant::now();
        assert_eq!(limit.admit("a", start), Some(0));
        assert_eq!(limit.admit("a", start), Some(0));
        assert_eq!(limit.admit("a", start), None);
        assert_eq!(limit.admit("a", start + MINUTE / 2), None);
        assert_eq!(limit.admit("b", start), Some(0), "a kind of its own");
        assert_eq!(limit.admit("a", start + MINUTE), Some(2));
        assert_eq!(limit.admit("a", start + MINUTE), Some(0));
        assert_eq!(limit.admit("a", start + MINUTE), None);
    }

    #[test]
    fn the_suppressed_are_told_once_when_the_interval_ends() {
        let mut limit = RateLimit::new(1, MINUTE);
        let start = Instant::now();
        assert_eq!(limit.deadline(), None);
        assert_eq!(limit.admit("a", start), Some(0));
        assert_eq!(limit.deadline(), None, "nothing to tell");
        assert_eq!(limit.admit("a", start), None);
        assert_eq!(limit.deadline(), Some(start + MINUTE));
        assert_eq!(limit.over(start).count(), 0);
        let told: Vec<_> = limit.over(start + MINUTE).collect();
        assert_eq!(told, [("a", 1)]);
        assert_eq!(limit.over(start + MINUTE).count(), 0);
        assert_eq!(limit.deadline(), None);
        assert_eq!(limit.admit("a", start + MINUTE), Some(0));
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_is_no_panic() {
        let mut limit = RateLimit::new(0, MINUTE);
        let start = Instant::now() + MINUTE;
        assert_eq!(limit.admit("a", start), None);
        assert_eq!(limit.admit("a", start - MINUTE), None);
        assert_eq!(limit.over(start - MINUTE).count(), 0);
    }
}
