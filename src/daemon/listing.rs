//! The sockets of all namespaces, gone through piece by piece: our own first, then
//! the others in the order in which they were found. Whichever stays is listed.

use super::sources::Sources;
use crate::model::{SocketData, SocketKey};
use crate::sensor::{Listing, NetSocket, Reader};
use crate::source::netns::Number;

impl Sources {
    /// Goes on with a listing of the sockets in view; false when that was the last
    /// of it.
    pub fn list(
        &self,
        listing: &mut Listing,
        entries: usize,
        row: &mut dyn FnMut(SocketData),
    ) -> bool {
        match self.listed(listing) {
            Some(sensor) => sensor.list(listing, entries, row) || self.has_next(listing),
            None => false,
        }
    }

    /// Goes on with a listing of the sockets that nobody has asked about; false
    /// when that was the last of it.
    pub fn unattributed(
        &self,
        listing: &mut Listing,
        entries: usize,
        sensors: u32,
        each: &mut dyn FnMut(SocketKey, u32, u32),
    ) -> bool {
        match self.listed(listing) {
            Some(sensor) => {
                sensor.unattributed(listing, entries, sensors, each) || self.has_next(listing)
            }
            None => false,
        }
    }

    /// Has the sockets stay where they are while somebody goes through them.
    pub fn keep_places(&mut self, reader: Reader, keep: bool) {
        let kept = &mut self.shared.listed[reader as usize];
        if std::mem::replace(kept, keep) != keep {
            self.each_sensor(|sensor| sensor.keep_places(reader, keep));
        }
    }

    /// Whose sockets a listing has come to; the next one's if that one has ended.
    fn listed(&self, listing: &mut Listing) -> Option<&NetSocket> {
        let Some(of) = listing.of else {
            return Some(&self.home.sensor);
        };
        let (number, sensor) = self.away.as_ref()?.sensors_from(Number(of)).next()?;
        if number.0 != of {
            *listing = Listing::of(Some(number.0));
        }
        Some(sensor)
    }

    /// Begins with the next namespace, if there is one.
    fn has_next(&self, listing: &mut Listing) -> bool {
        let next = listing.of.map_or(0, |of| of.saturating_add(1));
        *listing = Listing::of(Some(next));
        let away = self.away.as_ref();
        away.is_some_and(|away| away.sensors_from(Number(next)).next().is_some())
    }
}
