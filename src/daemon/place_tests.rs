//! When a tick of a namespace spares its dumps.

use std::time::Duration;

use super::*;
use crate::model::{Family, SensorIx};
use crate::source::Group;
use crate::source::gate::Gate;

const TICK: Duration = Duration::from_secs(1);

/// A namespace in which nothing happens, at its third tick: from there on its
/// gate is shut.
struct Quiet {
    place: Place,
    shared: Shared,
    now: Now,
}

impl Quiet {
    fn new() -> Quiet {
        let stats = Rc::new(Stats::default());
        let now = Now::read();
        let gate = Gate::new(Duration::MAX, |_| false);
        let view = View {
            sensor: SensorIx(0),
            initial: false,
            time_wait: false,
            syn_recv: false,
            sought: Sought::ALL,
        };
        let watched = Watched {
            views: vec![view],
            gates: Gates::new(std::iter::once((Needs::EVERYTHING, gate))),
            sought: Sought::ALL,
            push_down: true,
            hides: false,
        };
        let place = Place::new(Netns(1), watched, &stats, now);
        let shared = Shared::new(stats, now);
        let mut quiet = Quiet { place, shared, now };
        assert_eq!(quiet.tick(), [true; 2]);
        assert_eq!(quiet.tick(), [true; 2]);
        quiet
    }

    /// Whether a tick dumps TCP, UDP.
    fn tick(&mut self) -> [bool; 2] {
        self.now.mono += TICK;
        let reading = Some(Reading::default());
        self.place.tick(1, reading, &mut self.shared, self.now);
        let asked = Proto::ALL.map(|proto| self.place.dumps.has(proto));
        while self.place.dumps.next(self.now.mono, false).is_some() {}
        asked
    }
}

#[test]
fn nothing_is_spared_that_could_be_lost() {
    let mut quiet = Quiet::new();
    assert_eq!(quiet.tick(), [false; 2]);

    quiet.shared.congested = true;
    assert_eq!(quiet.tick(), [true; 2], "notices are being dropped");
    quiet.shared.congested = false;
    assert_eq!(quiet.tick(), [true; 2], "what was counted then is no base");
    assert_eq!(quiet.tick(), [false; 2]);

    let mut quiet = Quiet::new();
    quiet.place.overrun(false, quiet.now);
    for _ in 0..3 {
        assert_eq!(quiet.tick(), [true; 2], "until it is reconciled");
    }

    let mut quiet = Quiet::new();
    quiet.shared.deaf.push(Group {
        family: Family::V6,
        proto: Proto::Udp,
    });
    for _ in 0..3 {
        assert_eq!(quiet.tick(), [false, true], "as long as it is deaf");
    }

    let mut quiet = Quiet::new();
    assert!(quiet.place.dumps.is_missing_now(Proto::Tcp));
    for _ in 0..3 {
        assert_eq!(quiet.tick(), [true, false], "it may come back");
    }
}

#[test]
fn a_gap_waits_for_its_price_but_for_the_first_round() {
    let mut quiet = Quiet::new();
    let (place, shared, now) = (&mut quiet.place, &mut quiet.shared, quiet.now);
    shared.budget = Budget::new(Some(10), now.mono);
    shared.spend(TICK, now);
    place.overrun(true, now);
    place.reconcile(shared, now);
    assert_eq!(place.deadline(&shared.budget, now), Some(now.mono));
    while place.dumps.next(now.mono, true).is_some() {}
    // It takes another one.
    place.reconcile(shared, now);
    place.reconcile(shared, now);
    assert!(!place.is_busy(&shared.budget, now));
    let paid = now.mono + 10 * TICK;
    assert_eq!(place.deadline(&shared.budget, now), Some(paid));
    assert_eq!(shared.stats.dumps_rested.count(), 1, "it is asked for once");
    // The end of the program does not wait.
    shared.budget.lift();
    assert!(place.is_busy(&shared.budget, now));
}
