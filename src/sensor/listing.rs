//! The sockets in view as rows, piece by piece: for whoever asks the daemon what
//! is open now.

use super::NetSocket;
use crate::model::{Owner, SocketData, SocketKey};

/// Who goes through the tables piece by piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reader {
    /// Clients of the control socket, with [`NetSocket::list`].
    Clients,
    /// The keeper of what survives a restart, with [`NetSocket::slice`].
    Keeper,
    /// Who asks about all sockets, with [`NetSocket::unattributed`].
    Processes,
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
        row: &mut dyn FnMut(SocketData),
    ) -> bool {
        let table = if listing.minis {
            &self.minis
        } else {
            &self.sockets
        };
        let place = listing.place.min(table.len());
        for entry in table.before(place).take(entries) {
            if entry.in_view != 0 {
                row(SocketData {
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

    /// Goes on with a listing of the full sockets that some of these sensors have
    /// in view and that nobody has asked about yet, by so many entries: their key,
    /// user and inode. False when that was the last of it.
    pub fn unattributed(
        &self,
        listing: &mut Listing,
        entries: usize,
        sensors: u32,
        each: &mut dyn FnMut(SocketKey, u32, u32),
    ) -> bool {
        let place = listing.place.min(self.sockets.len());
        for entry in self.sockets.before(place).take(entries) {
            if let Owner::Known { uid, inode } = entry.owner()
                && inode != 0
                && entry.in_view & sensors != 0
                && entry.holders().is_none()
            {
                each(entry.key(), uid, inode);
            }
        }
        listing.place = place - entries.min(place);
        listing.place > 0
    }

    /// Forgets who has which socket open: it is to be asked again.
    pub fn forget_holders(&mut self) {
        for entry in self.sockets.iter_mut() {
            self.ways.forget_holders(entry);
        }
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
