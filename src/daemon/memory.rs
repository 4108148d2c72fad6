//! Memory that a flood took goes back to the system when the flood is over.
//!
//! Everything that grows shrinks by itself, but what is freed in pieces stays with
//! malloc until that is told to look for it, which takes milliseconds after a
//! flood. So it is told seldom, and only when much has gone: sockets, or what
//! waited for a name or a process, or events that nobody had read.

use std::time::{Duration, Instant};

use super::Daemon;
use crate::model::Now;
use crate::sys::memory::{self, Tide};

/// How long after much has gone memory is given back: by then the rest may have
/// gone too, and the dump is over that swept the tombstones. How long after that
/// it is again, and no more: the search has forgotten who had the sockets.
const AFTER: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];
/// How often at most.
const EVERY: Duration = AFTER[1];

/// What comes and goes in thousands.
#[derive(Default)]
pub(super) struct Floods {
    sockets: Tide,
    waiting: Tide,
    events: Tide,
    /// When memory is to be given back, and which time that is.
    due: Option<(Instant, usize)>,
    not_before: Option<Instant>,
}

impl Floods {
    /// When memory is to be given back.
    pub fn deadline(&self) -> Option<Instant> {
        self.due.map(|(due, _)| due)
    }

    /// There is so much of each now; true when sockets have just gone.
    fn see(&mut self, sockets: usize, waiting: usize, events: usize, now: Instant) -> bool {
        let gone = self.sockets.has_ebbed(sockets);
        let ebbed = [
            self.waiting.has_ebbed(waiting),
            self.events.has_ebbed(events),
        ];
        if !gone && ebbed == [false; 2] || self.due.is_some_and(|(_, nth)| nth == 0) {
            return false;
        }
        let due = self
            .not_before
            .into_iter()
            .fold(now + AFTER[0], Instant::max);
        self.due = Some((due, 0));
        gone
    }

    /// Whether memory is to be given back now; told once.
    fn take_due(&mut self, now: Instant) -> bool {
        let Some((_, nth)) = self.due.take_if(|(due, _)| *due <= now) else {
            return false;
        };
        self.due = AFTER.get(nth + 1).map(|after| (now + *after, nth + 1));
        self.not_before = Some(now + EVERY);
        for tide in [&mut self.sockets, &mut self.waiting, &mut self.events] {
            tide.turn();
        }
        true
    }
}

impl Daemon {
    /// Gives memory back when it is time to; to be called every turn.
    pub(super) fn give_back(&mut self, now: Now) {
        let mut sockets = 0;
        self.sources.each_sensor(|sensor| sockets += sensor.len());
        let waiting = self.pipeline.waiting();
        let events = self.pipeline.fan_mut().held();
        if self.floods.see(sockets, waiting, events, now.mono) {
            self.pipeline.forget_ended();
        }
        if self.floods.take_due(now.mono) {
            memory::give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_seldom_and_when_much_has_gone() {
        let (start, mut floods) = (Instant::now(), Floods::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!floods.see(100_000, 0, 0, at(0)) && floods.deadline().is_none());
        assert!(!floods.see(100_000, 20_000, 0, at(0)));
        assert!(!floods.see(100_000, 0, 0, at(1)), "what waited has gone");
        assert_eq!(floods.deadline(), Some(at(3)));
        assert!(!floods.take_due(at(2)) && floods.take_due(at(3)));
        assert!(!floods.see(100_000, 0, 0, at(4)));
        assert!(floods.see(20_000, 0, 0, at(5)), "sockets have gone");
        assert!(!floods.see(10_000, 0, 0, at(6)), "told once");
        assert_eq!(floods.deadline(), Some(at(8)), "not sooner after the last");
        for due in [8, 13] {
            assert_eq!(floods.deadline(), Some(at(due)));
            assert!(floods.take_due(at(due)) && !floods.see(0, 0, 0, at(due)));
        }
        assert!(floods.deadline().is_none(), "nothing wakes it any more");
    }
}
