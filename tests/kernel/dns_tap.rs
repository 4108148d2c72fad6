//! The DNS tap against real resolvers and the real kernel: whatever a look-up
//! returned before the tap was drained is known, and nothing else is.

mod burst;
mod fixtures;
mod forged;
mod resolvers;
mod veth;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use sockwatch::enrich::Resolved;
use sockwatch::model::{Answer, NoResults, Now};
use sockwatch::source::DnsTap;
use sockwatch::stats::Stats;

/// A tap, and the table that its answers fill.
pub struct Tapped {
    tap: DnsTap,
    resolved: Resolved,
    stats: Rc<Stats>,
    /// Every answer there was.
    answers: Vec<Answer>,
}

impl Tapped {
    /// Opens the tap in the namespace of the calling thread.
    pub fn open() -> Tapped {
        let stats = Rc::new(Stats::default());
        Tapped {
            tap: DnsTap::open(Rc::clone(&stats)).expect("root of its namespace may open a tap"),
            resolved: Resolved::new(Rc::clone(&stats)),
            stats,
            answers: Vec::new(),
        }
    }

    /// Reads what is there; nothing may have been dropped.
    pub fn drain(&mut self) {
        let now = Now::read();
        let (resolved, answers) = (&mut self.resolved, &mut self.answers);
        let drained = self
            .tap
            .drain(now, &mut |answer| {
                resolved.learn(&answer, now);
                answers.push(answer);
            })
            .expect("a tap can be read");
        assert_eq!((drained.dropped, drained.more), (0, false));
    }

    /// The names of an address, after a drain, or why there are none.
    pub fn names(&mut self, ip: IpAddr) -> Result<Vec<String>, NoResults> {
        self.names_after(Duration::ZERO, ip)
    }

    /// The same, so much later.
    pub fn names_after(&mut self, later: Duration, ip: IpAddr) -> Result<Vec<String>, NoResults> {
        self.drain();
        let mut now = Now::read();
        now.mono += later;
        let mut names = Vec::new();
        match self.resolved.names(ip, now, &mut names) {
            None => Ok(names.iter().map(ToString::to_string).collect()),
            Some(why) => Err(why),
        }
    }

    /// The counters of the tap that are not zero.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.stats
            .known()
            .filter(|(_, count)| *count != 0)
            .collect()
    }
}

/// An address as it is written.
fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
