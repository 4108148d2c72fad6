//! Ticks: when each sensor's next dump is due, and what it has to cover.

use std::time::{Duration, Instant};

use crate::model::Needs;

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
}

impl Schedule {
    /// A schedule on which everything is due at `start`.
    pub fn new(sensors: impl Iterator<Item = (Duration, Needs)>, start: Instant) -> Schedule {
        Schedule {
            ticks: sensors
                .map(|(interval, needs)| Tick {
                    interval,
                    needs,
                    due: start,
                })
                .collect(),
        }
    }

    /// When something is due next.
    pub fn next(&self) -> Option<Instant> {
        self.ticks.iter().map(|tick| tick.due).min()
    }

    /// What is due now, as one request, and sets the next time of it. A tick
    /// that was missed is not made up for: the next dump shows the same table.
    pub fn due(&mut self, now: Instant) -> Option<Needs> {
        let mut due = None;
        for tick in self.ticks.iter_mut().filter(|tick| tick.due <= now) {
            due = Some(due.unwrap_or_default() | tick.needs);
            tick.due += tick.interval;
            if tick.due <= now {
                tick.due = now + tick.interval;
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StateGroups;

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
        let mut schedule = Schedule::new([(fast, listen), (slow, udp)].into_iter(), start);
        assert_eq!(schedule.due(start), Some(listen | udp));
        assert_eq!(schedule.due(start), None);
        assert_eq!(schedule.next(), Some(start + fast));
        assert_eq!(schedule.due(start + fast), Some(listen));
        // Nine ticks late: one dump, and the rhythm starts anew.
        let late = start + slow;
        assert_eq!(schedule.due(late), Some(listen | udp));
        assert_eq!(schedule.next(), Some(late + fast));
    }
}
