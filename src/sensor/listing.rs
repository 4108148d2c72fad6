//! The sockets in view as rows, piece by piece: for whoever asks the daemon what
//! is open now.

use super::NetSocket;
use crate::model::SocketData;

/// Who goes through the tables piece by piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reader {
    /// Clients of the control socket, with [`NetSocket::list`].
    Clients,
    /// The keeper of what survives a restart, with [`NetSocket::slice`].
    Keeper,
}

/// How far a listing has come. While the table changes under it every socket
/// that stays in view is listed; one can be listed twice.
#[derive(Clone, Copy, Debug)]
pub struct Listing {
    /// Which of several tables, for whoever has them.
    pub of: Option<u32>,
    minis: bool,
    place: usize,
}

impl Default for Listing {
    fn default() -> Listing {
        Listing::of(None)
    }
}

impl Listing {
    /// One that begins, with this of several tables.
    pub fn of(of: Option<u32>) -> Listing {
        Listing {
            of,
            minis: false,
            place: usize::MAX,
        }
    }
}

impl NetSocket {
    /// Goes on with a listing by so many entries; false when that was the last
    /// of it.
    pub fn list(
        &self,
        listing: &mut Listing,
        entries: usize,
        row: &mut dyn FnMut(&SocketData),
    ) -> bool {
        let table = if listing.minis {
            &self.minis
        } else {
            &self.sockets
        };
        let place = listing.place.min(table.len());
        for entry in table.before(place).take(entries) {
            if entry.in_view != 0 {
                row(&SocketData {
                    netns_name: self.views.name.clone(),
                    ..entry.data()
                });
            }
        }
        listing.place = place - entries.min(place);
        if listing.place > 0 {
            return true;
        }
        if listing.minis {
            return false;
        }
        *listing = Listing {
            of: listing.of,
            minis: true,
            ..Listing::default()
        };
        true
    }

    /// Has the entries stay where they are while somebody goes through them piece
    /// by piece.
    pub fn keep_places(&mut self, reader: Reader, keep: bool) {
        self.in_place[reader as usize] = keep;
        let keep = self.in_place.contains(&true);
        self.walk.keep_places(keep);
        self.mini_walk.keep_places(keep);
    }
}
