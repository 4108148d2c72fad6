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
/// gone too, and the dump is over that swept the tombstones.
const REST: Duration = Duration::from_secs(2);
/// How often at most.
const EVERY: Duration = Duration::from_secs(5);

/// What comes and goes in thousands.
#[derive(Default)]
pub(super) struct Floods {
    sockets: Tide,
    waiting: Tide,
    events: Tide,
    due: Option<Instant>,
    not_before: Option<Instant>,
}

impl Floods {
    /// When memory is to be given back.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }
}

impl Daemon {
    /// Gives memory back when it is time to; to be called every turn.
    pub(super) fn give_back(&mut self, now: Now) {
        let mut sockets = 0;
        self.sources.each_sensor(|sensor| sockets += sensor.len());
        let floods = &mut self.floods;
        let ebbed = [
            floods.sockets.has_ebbed(sockets),
            floods.waiting.has_ebbed(self.pipeline.waiting()),
            floods.events.has_ebbed(self.pipeline.fan_mut().held()),
        ];
        if floods.due.is_none() && ebbed != [false; 3] {
            let rested = now.mono + REST;
            floods.due = Some(floods.not_before.map_or(rested, |at| at.max(rested)));
            if ebbed[0] {
                self.pipeline.forget_ended();
            }
        }
        if floods.due.take_if(|due| *due <= now.mono).is_some() {
            memory::give_back();
            floods.not_before = Some(now.mono + EVERY);
            for tide in [&mut floods.sockets, &mut floods.waiting, &mut floods.events] {
                tide.turn();
            }
        }
    }
}
