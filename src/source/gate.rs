//! The gate: whether a tick's dump could show anything new.
//!
//! A dump of a table of N sockets costs N times a microsecond; the counters cost
//! the same few microseconds whatever N is. So a tick first asks them. It goes
//! through to a dump when
//! * TCP opens were counted, or the number of sockets in use moved, since the
//!   reading before the last dump;
//! * a notice came since then: a close can hide an open in the numbers;
//! * that reading itself had moved: PassiveOpens counts a child a moment before
//!   it stands in the table, so a dump that began in that moment may have missed
//!   what had been counted already. The next one does not;
//! * a handshake is under way: its end moves no counter;
//! * the last dump is too long ago: some opens move nothing at all.
//!
//! What is counted is therefore never told later than one tick after it would
//! have been without a gate. One gate serves one sensor, as each has its own
//! rhythm, and knows nothing of the kernel but what it is told.

use std::time::{Duration, Instant};

use super::counters::Reading;
use crate::model::{Needs, Proto, StateGroups};

/// Why a dump goes ahead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// The gate is off for this protocol, or there is no reading.
    Off,
    /// A counter moved since the last dump.
    Moved,
    /// A counter had moved just before the last dump began.
    Settling,
    /// A notice came since the last dump.
    Noticed,
    /// Handshakes are under way.
    Handshake,
    /// Nothing speaks for it but the time since the last one.
    Forced,
}

/// What one sensor's ticks remember of one protocol.
#[derive(Clone, Copy, Debug, Default)]
struct Since {
    /// The counts before the last dump: opens and sockets in use.
    base: Option<(u64, u64)>,
    /// They had moved since the dump before that.
    moved: bool,
    noticed: bool,
    dumped: Option<Instant>,
    /// Dumps go ahead whatever was counted.
    off: bool,
}

/// The gate of one sensor.
#[derive(Clone, Debug)]
pub struct Gate {
    since: [Since; 2],
    force_after: Duration,
}

/// What is known at a tick.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    /// The time.
    pub now: Instant,
    /// The counters, read just now; `None` where they cannot be read.
    pub reading: Option<Reading>,
    /// Sockets in SYN_SENT or SYN_RECV are in the table.
    pub handshakes: bool,
}

impl Gate {
    /// A gate that lets a dump through at least once in `force_after`; `off`
    /// says for which protocols it stands open.
    pub fn new(force_after: Duration, off: impl Fn(Proto) -> bool) -> Gate {
        let mut gate = Gate {
            since: [Since::default(); 2],
            force_after,
        };
        for proto in Proto::ALL {
            gate.since[proto as usize].off = off(proto);
        }
        gate
    }

    /// A notice of this protocol came.
    pub fn noticed(&mut self, proto: Proto) {
        self.since[proto as usize].noticed = true;
    }

    /// What was counted before is no base to judge this protocol from any more:
    /// notices were dropped or cannot be had. Not where a dump failed: it is tried
    /// again, later than what it was made for.
    pub fn forget(&mut self, proto: Proto) {
        self.since[proto as usize].base = None;
    }

    /// The part of `needs` that must be dumped at this tick, with the reasons
    /// for TCP and UDP.
    pub fn pass(&mut self, needs: Needs, tick: Tick) -> (Needs, [Option<Why>; 2]) {
        let mut why = [None; 2];
        for proto in Proto::ALL.into_iter().filter(|proto| needs.proto(*proto)) {
            why[proto as usize] = self.since[proto as usize].pass(proto, tick, self.force_after);
        }
        let passed = Needs {
            tcp: match why[Proto::Tcp as usize] {
                Some(_) => needs.tcp,
                None => StateGroups::NONE,
            },
            udp: why[Proto::Udp as usize].is_some(),
        };
        (passed, why)
    }
}

impl Since {
    fn pass(&mut self, proto: Proto, tick: Tick, force_after: Duration) -> Option<Why> {
        let counts = tick.reading.map(|reading| match proto {
            Proto::Tcp => (reading.tcp_opens, reading.tcp_in_use),
            Proto::Udp => (0, reading.udp_in_use),
        });
        let moved = counts.is_none() || counts != self.base;
        let late = |at: Instant| tick.now.saturating_duration_since(at) >= force_after;
        let why = if self.off || counts.is_none() {
            Why::Off
        } else if moved {
            Why::Moved
        } else if self.moved {
            Why::Settling
        } else if self.noticed {
            Why::Noticed
        } else if proto == Proto::Tcp && tick.handshakes {
            Why::Handshake
        } else if self.dumped.is_none_or(late) {
            Why::Forced
        } else {
            return None;
        };
        *self = Since {
            base: counts,
            moved,
            noticed: false,
            dumped: Some(tick.now),
            off: self.off,
        };
        Some(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORCED: Duration = Duration::from_secs(30);
    const TICK: Duration = Duration::from_secs(1);

    fn gate() -> Gate {
        Gate::new(FORCED, |_| false)
    }

    fn tick(now: Instant, opens: u64, udp: u64) -> Tick {
        Tick {
            now,
            reading: Some(Reading {
                tcp_opens: opens,
                tcp_in_use: 5,
                udp_in_use: udp,
            }),
            handshakes: false,
        }
    }

    fn why(gate: &mut Gate, tick: Tick) -> [Option<Why>; 2] {
        gate.pass(Needs::EVERYTHING, tick).1
    }

    #[test]
    fn a_quiet_table_is_dumped_twice_and_then_left_alone() {
        let (mut gate, start) = (gate(), Instant::now());
        let at = |n: u32| start + TICK * n;
        assert_eq!(why(&mut gate, tick(at(0), 7, 1)), [Some(Why::Moved); 2]);
        assert_eq!(why(&mut gate, tick(at(1), 7, 1)), [Some(Why::Settling); 2]);
        for n in 2..31 {
            assert_eq!(why(&mut gate, tick(at(n), 7, 1)), [None; 2], "tick {n}");
        }
        assert_eq!(why(&mut gate, tick(at(31), 7, 1)), [Some(Why::Forced); 2]);
        assert_eq!(why(&mut gate, tick(at(32), 7, 1)), [None; 2]);
    }

    #[test]
    fn each_protocol_is_judged_by_its_own_counts() {
        let (mut gate, now) = (gate(), Instant::now());
        for _ in 0..2 {
            gate.pass(Needs::EVERYTHING, tick(now, 7, 1));
        }
        let (needs, _) = gate.pass(Needs::EVERYTHING, tick(now, 8, 1));
        assert!(!needs.tcp.is_empty() && !needs.udp);
        gate.noticed(Proto::Udp);
        let (needs, reasons) = gate.pass(Needs::EVERYTHING, tick(now, 8, 1));
        assert!(needs.udp);
        assert_eq!(reasons, [Some(Why::Settling), Some(Why::Noticed)]);
        let mut handshake = tick(now, 8, 1);
        handshake.handshakes = true;
        assert_eq!(why(&mut gate, handshake), [Some(Why::Handshake), None]);
        gate.forget(Proto::Tcp);
        gate.forget(Proto::Udp);
        assert_eq!(why(&mut gate, tick(now, 8, 1)), [Some(Why::Moved); 2]);
        let mut unread = tick(now, 8, 1);
        unread.reading = None;
        assert_eq!(why(&mut gate, unread), [Some(Why::Off); 2]);
    }
}

#[cfg(test)]
#[path = "gate_model.rs"]
mod model;
