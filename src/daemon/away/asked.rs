//! What the scout brings.

use std::io;

use super::dumps::queue;
use super::{At, Away};
use crate::daemon::shared::Shared;
use crate::model::Now;
use crate::pipeline::Pipeline;
use crate::sensor::NetSocket;
use crate::source::counters::Reading;
use crate::source::diag::Scope;
use crate::source::netns::{Brought, Entered, Number};

impl Away {
    /// Takes what the scout has brought.
    ///
    /// # Errors
    /// It is no more: no namespace can be entered from now on.
    pub fn collect(
        &mut self,
        home: &mut NetSocket,
        shared: &mut Shared,
        pipeline: &mut Pipeline,
        now: Now,
    ) -> io::Result<()> {
        while let Some(answer) = self.scout.take() {
            let cpu = answer.cpu;
            match answer.brought {
                Brought::Looked(looked) => {
                    self.looks.cost(cpu);
                    self.looked(looked, home, shared, pipeline, now);
                }
                Brought::Read(readings) => {
                    shared.spend(cpu, now);
                    self.read(readings, shared, now);
                }
                Brought::Entered(number, entered) => {
                    shared.spend(cpu, now);
                    self.entered(number, entered, shared, now);
                }
                Brought::Lost(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The counters came for which the ticks have waited.
    fn read(
        &mut self,
        readings: Vec<(Number, io::Result<Reading>)>,
        shared: &mut Shared,
        now: Now,
    ) {
        let due = self.reading.take().unwrap_or(0);
        for (number, reading) in readings {
            let Some(place) = self.places.get_mut(&number) else {
                continue;
            };
            match reading {
                Ok(reading) => {
                    place.tick(due, Some(reading), shared, now);
                    queue(place, number, &mut self.line);
                }
                Err(error) => self.unreachable(number, &error, shared, now),
            }
        }
        // A tick that came meanwhile.
        self.read_counters();
    }

    /// The sockets came with which a namespace is dumped.
    fn entered(
        &mut self,
        number: Number,
        entered: io::Result<Entered>,
        shared: &mut Shared,
        now: Now,
    ) {
        if self.at == At::Going(number) {
            self.at = At::Home;
        }
        let Some(place) = self.places.get_mut(&number) else {
            return;
        };
        match entered {
            Ok(Entered { dump, query }) => {
                let stats = self.stats.clone();
                place.scope = Some(Scope::of(place.sensor.netns(), dump, query, stats));
                self.at = At::There(number);
            }
            Err(error) => self.unreachable(number, &error, shared, now),
        }
    }

    /// Nothing leads into a namespace for now: its last process has ended, and
    /// what keeps it are sockets that have still something to send, or somebody's
    /// descriptor. Its notices come all the same, and so does its end. What a gap
    /// has lost of it shows then.
    fn unreachable(&mut self, number: Number, error: &io::Error, shared: &mut Shared, now: Now) {
        self.unread.remove(&number);
        let Some(place) = self.places.get_mut(&number) else {
            return;
        };
        let netns = place.sensor.netns().0;
        if error.kind() == io::ErrorKind::NotFound {
            log::debug!("nothing leads into namespace {netns}");
        } else {
            shared.warn("netns", now, || {
                format!("network namespace {netns} cannot be entered for now: {error}")
            });
        }
        if self.gaps.remove(&number) {
            self.abandoned.extend(place.sensor.abandon_gap(now));
        }
    }
}
