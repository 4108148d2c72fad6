//! The dumps of other namespaces, one after the other: each is entered when it has
//! something to be dumped, and left when that is done.

use std::collections::VecDeque;
use std::time::Duration;

use super::{At, Away};
use crate::daemon::RunError;
use crate::daemon::budget::Budget;
use crate::daemon::place::Place;
use crate::daemon::schedule::Mask;
use crate::daemon::shared::Shared;
use crate::model::{Coverage, Now};
use crate::pipeline::Pipeline;
use crate::source::netns::{Job, Number};

/// How soon a dump that has nothing to say is looked at again. One is written
/// while it is read, so this is rare.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

impl Away {
    /// The ticks of these sensors are due.
    pub fn tick(&mut self, due: Mask, shared: &Shared) {
        self.due |= due & self.watched.gates.concerned();
        if self.due != 0 && self.reading.is_some() {
            shared.stats.ticks_late.bump();
        }
        self.read_counters();
    }

    pub(super) fn read_counters(&mut self) {
        if self.due == 0 || self.reading.is_some() || self.places.is_empty() {
            return;
        }
        let numbers = self.places.keys().copied().collect();
        if self.ask(Job::Read(numbers)) {
            self.reading = Some(std::mem::take(&mut self.due));
        }
    }

    /// Goes on with the dumps. What one has covered that was read to its end.
    pub fn work(
        &mut self,
        shared: &mut Shared,
        pipeline: &mut Pipeline,
        now: Now,
    ) -> Result<Option<(Number, Coverage)>, RunError> {
        if self.at == At::Home {
            self.go(&shared.budget, now);
        }
        let At::There(number) = self.at else {
            return Ok(None);
        };
        let Some(place) = self.places.get_mut(&number) else {
            self.at = At::Home;
            return Ok(None);
        };
        if self.look_at.take_if(|at| *at <= now.mono).is_some() {
            place.dump_ready = true;
        }
        place.ask_about_suspects(shared, pipeline, now);
        place.reconcile(shared, now);
        if let Some(coverage) = place.work(shared, pipeline, now)? {
            return Ok(Some((number, coverage)));
        }
        if place.is_dumping() {
            if !place.dump_ready {
                self.look_at.get_or_insert(now.mono + LOOK_AGAIN);
            }
        } else if place.scope.is_none() || !place.is_busy(&shared.budget, now) {
            self.leave(number);
        }
        Ok(None)
    }

    /// A dump of this one is complete, and counts.
    pub fn completed(
        &mut self,
        (number, coverage): (Number, Coverage),
        shared: &mut Shared,
        pipeline: &mut Pipeline,
        now: Now,
    ) {
        if let Some(place) = self.places.get_mut(&number) {
            place.completed(coverage, shared, pipeline, now);
        }
    }

    /// Has the scout fetch the sockets of the next one.
    fn go(&mut self, budget: &Budget, now: Now) {
        let places = &self.places;
        let is_due = |number: &Number| match places.get(number) {
            Some(place) => place.is_busy(budget, now),
            // It has ended.
            None => true,
        };
        let Some(at) = self.line.iter().position(is_due) else {
            return;
        };
        let Some(number) = self.line.remove(at) else {
            return;
        };
        if let Some(place) = self.places.get_mut(&number) {
            place.in_line = false;
            if self.ask(Job::Enter(number)) {
                self.at = At::Going(number);
            }
        }
    }

    /// Nothing more is to be done there for now.
    fn leave(&mut self, number: Number) {
        self.at = At::Home;
        self.look_at = None;
        if let Some(place) = self.places.get_mut(&number) {
            place.scope = None;
            place.dump_ready = false;
            if place.is_read() {
                self.unread.remove(&number);
            }
            // What failed is tried again.
            queue(place, number, &mut self.line);
        }
    }
}

/// Puts a place in the line, if there is something to be dumped.
pub(super) fn queue(place: &mut Place, number: Number, line: &mut VecDeque<Number>) {
    let wanted = !place.dumps.is_empty() || place.sensor.has_suspects();
    if wanted && place.scope.is_none() && !place.in_line {
        place.in_line = true;
        line.push_back(number);
    }
}
