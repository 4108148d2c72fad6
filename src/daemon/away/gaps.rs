//! Notices that were dropped, or came late, of whichever namespace.

use super::Away;
use super::dumps::queue;
use crate::daemon::place::Place;
use crate::daemon::shared::Shared;
use crate::model::{Gap, Now};

impl Away {
    /// Notices were dropped: whose is not known, so all are reconciled.
    /// `lent`: as in [`Place::overrun`].
    pub fn overrun(&mut self, lent: bool, shared: &mut Shared, now: Now) {
        for (number, place) in &mut self.places {
            place.overrun(lent, now);
            self.gaps.insert(*number);
            place.reconcile(shared, now);
            queue(place, *number, &mut self.line);
        }
    }

    /// Notices of a kind come after all.
    pub fn sees(&mut self, mut sees: impl FnMut(&mut Place)) {
        for (number, place) in &mut self.places {
            sees(place);
            self.gaps.insert(*number);
        }
    }

    /// Whether a gap of any namespace is not accounted for.
    pub fn has_gap(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// Takes the gaps that are accounted for.
    pub fn settled_gaps(&mut self, now: Now, settled: &mut impl FnMut(Gap)) {
        self.abandoned.drain(..).for_each(&mut *settled);
        let places = &mut self.places;
        self.gaps.retain(|number| {
            let Some(place) = places.get_mut(number) else {
                return false;
            };
            if let Some(gap) = place.sensor.settled_gap(now) {
                settled(gap);
            }
            place.sensor.has_gap()
        });
    }

    /// There is no time for gaps any more.
    pub fn abandoned_gaps(&mut self, now: Now, abandoned: &mut impl FnMut(Gap)) {
        for place in self.places.values_mut() {
            place.sensor.abandon_gap(now).map(&mut *abandoned);
        }
        self.gaps.clear();
    }
}
