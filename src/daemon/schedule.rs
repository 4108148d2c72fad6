//! Ticks: when each sensor's next dump is due, and what it has to cover.

use std::time::{Duration, Instant};

use crate::model::{Needs, Proto};
use crate::source::gate::{self, Gate, Why};

/// The ticks of all sensors.
#[derive(Debug)]
pub struct Schedule {
    ticks: Vec<Tick>,
}

#[derive(Debug)]
struct Tick {
    interval: Duration,
    needs: Needs,
    due: Instant,
    gate: Gate,
}

/// What is due, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// What must be dumped; nothing where every gate was shut.
    pub needs: Needs,
    /// What would have been dumped too, had the gate not spared it.
    pub spared: Needs,
    /// Nothing but the time since the last dump spoke for it, for TCP and UDP.
    pub forced: [bool; 2],
}

impl Schedule {
    /// A schedule on which everything is due at `start`.
    pub fn new(sensors: impl Iterator<Item = (Duration, Needs, Gate)>, start: Instant) -> Schedule {
        Schedule {
            ticks: sensors
                .map(|(interval, needs, gate)| Tick {
                    interval,
                    needs,
                    due: start,
                    gate,
                })
                .collect(),
        }
    }

    /// A notice of this protocol came.
    pub fn noticed(&mut self, proto: Proto) {
        for tick in &mut self.ticks {
            tick.gate.noticed(proto);
        }
    }

    /// Nothing that was counted before of this protocol can be relied on.
    pub fn forget(&mut self, proto: Proto) {
        for tick in &mut self.ticks {
            tick.gate.forget(proto);
        }
    }

    /// Puts off until then what would be due before; false when nothing was.
    pub fn put_off(&mut self, until: Instant) -> bool {
        let mut early = false;
        for tick in self.ticks.iter_mut().filter(|tick| tick.due < until) {
            tick.due = until;
            early = true;
        }
        early
    }

    /// Whether a tick is due.
    pub fn is_due(&self, now: Instant) -> bool {
        self.ticks.iter().any(|tick| tick.due <= now)
    }

    /// When something is due next.
    pub fn next(&self) -> Option<Instant> {
        self.ticks.iter().map(|tick| tick.due).min()
    }

    /// What is due now and passes its gate, as one request, and sets the next
    /// time of it. A tick that was missed is not made up for: the next dump shows
    /// the same table.
    pub fn due(&mut self, known: gate::Tick) -> Due {
        let now = known.now;
        let (mut needs, mut all) = (Needs::default(), Needs::default());
        let mut whys: [Option<Why>; 2] = [None; 2];
        for tick in self.ticks.iter_mut().filter(|tick| tick.due <= now) {
            let (passed, why) = tick.gate.pass(tick.needs, known);
            needs = needs | passed;
            all = all | tick.needs;
            for (all, one) in whys.iter_mut().zip(why) {
                // A better reason than the time, if any sensor has one.
                if one.is_some() && matches!(*all, None | Some(Why::Forced)) {
                    *all = one;
                }
            }
            tick.due += tick.interval;
            if tick.due <= now {
                tick.due = now + tick.interval;
            }
        }
        Due {
            needs,
            spared: all - needs,
            forced: whys.map(|why| why == Some(Why::Forced)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StateGroups;

    fn open_gate() -> Gate {
        Gate::new(Duration::MAX, |_| true)
    }

    fn due(schedule: &mut Schedule, now: Instant) -> Needs {
        let tick = gate::Tick {
            now,
            reading: None,
            handshakes: false,
        };
        schedule.due(tick).needs
    }

    #[test]
    fn one_dump_serves_every_sensor_that_is_due() {
        let listen = Needs {
            tcp: StateGroups::LISTEN,
            udp: false,
        };
        let udp = Needs {
            tcp: StateGroups::NONE,
            udp: true,
        };
        let start = Instant::now();
        let (fast, slow) = (Duration::from_millis(100), Duration::from_secs(1));
        let ticks = [(fast, listen, open_gate()), (slow, udp, open_gate())];
        let mut schedule = Schedule::new(ticks.into_iter(), start);
        assert_eq!(due(&mut schedule, start), listen | udp);
        assert_eq!(due(&mut schedule, start), Needs::default());
        assert_eq!(schedule.next(), Some(start + fast));
        assert!(schedule.is_due(start + fast) && !schedule.is_due(start));
        assert_eq!(due(&mut schedule, start + fast), listen);
        // Nine ticks late: one dump, and the rhythm starts anew.
        let late = start + slow;
        assert_eq!(due(&mut schedule, late), listen | udp);
        assert_eq!(schedule.next(), Some(late + fast));
    }

    #[test]
    fn a_dump_is_forced_only_where_no_sensor_has_a_reason() {
        let udp = Needs {
            tcp: StateGroups::NONE,
            udp: true,
        };
        let start = Instant::now();
        let tick = |n: u32| gate::Tick {
            now: start + Duration::from_secs(1) * n,
            reading: Some(Default::default()),
            handshakes: false,
        };
        let second = Duration::from_secs(1);
        let gate = |seconds| Gate::new(second * seconds, |_| false);
        let ticks = [(second, udp, gate(3)), (second, udp, gate(30))];
        let mut schedule = Schedule::new(ticks.into_iter(), start);
        for n in 0..2 {
            assert_eq!(schedule.due(tick(n)).forced, [false; 2]);
        }
        assert_eq!(schedule.due(tick(2)).needs, Needs::default());
        assert_eq!(schedule.due(tick(4)).forced, [false, true]);
        schedule.noticed(Proto::Udp);
        assert_eq!(schedule.due(tick(8)).forced, [false; 2]);
        assert!(schedule.due(tick(9)).needs == Needs::default());
    }
}
