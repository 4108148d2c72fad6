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
    due: Instant,
}

/// Sensors by their numbers, a bit each.
pub type Mask = u32;

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
    /// A schedule on which everything is due at `start`; for each sensor how often
    /// it looks.
    pub fn new(intervals: impl Iterator<Item = Duration>, start: Instant) -> Schedule {
        let tick = |interval| Tick {
            interval,
            due: start,
        };
        Schedule {
            ticks: intervals.map(tick).collect(),
        }
    }

    /// Puts off until then what would be due before.
    pub fn put_off(&mut self, until: Instant) {
        for tick in &mut self.ticks {
            tick.due = tick.due.max(until);
        }
    }

    /// Whether a tick is due.
    pub fn is_due(&self, now: Instant) -> bool {
        self.ticks.iter().any(|tick| tick.due <= now)
    }

    /// When something is due next.
    pub fn next(&self) -> Option<Instant> {
        self.ticks.iter().map(|tick| tick.due).min()
    }

    /// Whose ticks are due now, and sets the next time of each. A tick that was
    /// missed is not made up for: the next dump shows the same table.
    pub fn due(&mut self, now: Instant) -> Mask {
        let mut mask = 0;
        for (at, tick) in self.ticks.iter_mut().enumerate() {
            if tick.due > now {
                continue;
            }
            // As many sensors as a mask has bits.
            mask |= 1 << at;
            tick.due += tick.interval;
            if tick.due <= now {
                tick.due = now + tick.interval;
            }
        }
        mask
    }
}

/// What each sensor needs of one namespace, and what may spare it.
#[derive(Clone, Debug)]
pub struct Gates {
    sensors: Vec<(Needs, Gate)>,
}

impl Gates {
    /// The gates of all sensors, in their order.
    pub fn new(sensors: impl Iterator<Item = (Needs, Gate)>) -> Gates {
        Gates {
            sensors: sensors.collect(),
        }
    }

    /// What all of them need.
    pub fn needs(&self) -> Needs {
        let each = self.sensors.iter();
        each.fold(Needs::default(), |all, (needs, _)| all | *needs)
    }

    /// Whose ticks concern this namespace.
    pub fn concerned(&self) -> Mask {
        let each = self.sensors.iter().enumerate();
        each.filter(|(_, (needs, _))| *needs != Needs::default())
            .fold(0, |mask, (at, _)| mask | 1 << at)
    }

    /// A notice of this protocol came.
    pub fn noticed(&mut self, proto: Proto) {
        for (_, gate) in &mut self.sensors {
            gate.noticed(proto);
        }
    }

    /// Nothing that was counted before of this protocol can be relied on.
    pub fn forget(&mut self, proto: Proto) {
        for (_, gate) in &mut self.sensors {
            gate.forget(proto);
        }
    }

    /// What passes the gates of these sensors, as one request.
    pub fn pass(&mut self, due: Mask, known: gate::Tick) -> Due {
        let (mut needs, mut all) = (Needs::default(), Needs::default());
        let mut whys: [Option<Why>; 2] = [None; 2];
        let each = self.sensors.iter_mut().enumerate();
        for (_, (wanted, gate)) in each.filter(|(at, _)| due & 1 << at != 0) {
            let (passed, why) = gate.pass(*wanted, known);
            needs = needs | passed;
            all = all | *wanted;
            for (all, one) in whys.iter_mut().zip(why) {
                // A better reason than the time, if any sensor has one.
                if one.is_some() && matches!(*all, None | Some(Why::Forced)) {
                    *all = one;
                }
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

    /// The needs of a tick of sensors that look every so often at so much.
    struct Both(Schedule, Gates);

    impl Both {
        fn new(sensors: [(Duration, Needs, Gate); 2], start: Instant) -> Both {
            let intervals = sensors.iter().map(|(interval, ..)| *interval);
            let schedule = Schedule::new(intervals, start);
            let gates = sensors.into_iter().map(|(_, needs, gate)| (needs, gate));
            Both(schedule, Gates::new(gates))
        }

        fn due(&mut self, tick: gate::Tick) -> Due {
            self.1.pass(self.0.due(tick.now), tick)
        }
    }

    fn due(both: &mut Both, now: Instant) -> Needs {
        let tick = gate::Tick {
            now,
            reading: None,
            handshakes: false,
        };
        both.due(tick).needs
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
        let sensors = [(fast, listen, open_gate()), (slow, udp, open_gate())];
        let mut both = Both::new(sensors, start);
        assert_eq!(both.1.concerned(), 0b11);
        assert_eq!(due(&mut both, start), listen | udp);
        assert_eq!(due(&mut both, start), Needs::default());
        assert_eq!(both.0.next(), Some(start + fast));
        assert!(both.0.is_due(start + fast) && !both.0.is_due(start));
        assert_eq!(due(&mut both, start + fast), listen);
        // Nine ticks late: one dump, and the rhythm starts anew.
        let late = start + slow;
        assert_eq!(due(&mut both, late), listen | udp);
        assert_eq!(both.0.next(), Some(late + fast));
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
        let sensors = [(second, udp, gate(3)), (second, udp, gate(30))];
        let mut both = Both::new(sensors, start);
        for n in 0..2 {
            assert_eq!(both.due(tick(n)).forced, [false; 2]);
        }
        assert_eq!(both.due(tick(2)).needs, Needs::default());
        assert_eq!(both.due(tick(4)).forced, [false, true]);
        both.1.noticed(Proto::Udp);
        assert_eq!(both.due(tick(8)).forced, [false; 2]);
        assert!(both.due(tick(9)).needs == Needs::default());
    }
}
