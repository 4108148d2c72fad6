//! The control socket: what a running daemon can be asked and told.
//!
//! A Unix stream socket (`daemon.control`) of mode 0660. Each way one JSON object
//! a line. Who connects is known by the kernel's word (SO_PEERCRED): root, the
//! daemon's own user, and whom `control-uids` and `control-gids` name; anybody
//! else gets one line that says so.
//!
//! # Requests
//!
//! | request | besides `request` | lines before the reply | the reply |
//! | --- | --- | --- | --- |
//! | `ping` | | | `version`, `pid`, `uptime_ms` |
//! | `stats` | | | these, and `seq`, `sockets`, `locks`, `clients`, `subscribers`, `asked`, `counters` |
//! | `locks` | | a lock each | `locks`, how many |
//! | `unlock` | `eid`: an event id, a glob, or a list of them | a released lock each | `locks`, `muted`; not `ok` with `unknown` when an id is not locked |
//! | `subscribe` | `glob`: over the event id; `format`: `json` or `text` | | then events, as on standard output |
//! | `dump` | | a row each, as of `--dump` | `rows`, how many |
//! | `reload` | | | `message`; not `ok` with `problems` when nothing was changed |
//!
//! Every request has a reply: `{"ok":true,"request":"ping",...}`, or
//! `{"ok":false,"request":"unlock","error":"a sentence",...}`. A lock is
//! `{"eid":...,"first":...,"last":...,"muted":...}`. Requests on one connection
//! are answered in their order. What a line is can be told from its keys: only a
//! reply has `ok`. A key that a request does not know is refused by name.
//!
//! An `eid` that is locked is meant as it stands; only one that is not, and has
//! wildcards, is a glob. A glob that matches no lock is no failure.
//!
//! After `subscribe` events follow the reply, and go on until the connection is
//! closed; more requests can be made in between, and another `subscribe` takes
//! the place of the one before. `format: text` sends `{"text":"..."}`, the lines
//! of a terminal. A subscriber that falls behind by more than `daemon.queue`
//! events loses the oldest, and a gap record without `seq` (`"sink":
//! "subscriber"`) stands in their place.
//!
//! A listing (`locks`, `dump`, `unlock` with a glob) is written as it is read,
//! while things go on: what is there all the time is in it, what comes or goes
//! may be, and a socket can be in a `dump` twice.
//!
//! # Bounds
//!
//! A client can neither delay an event nor take memory: there is room for
//! [`CLIENTS`] of them, a request has at most [`LONGEST`] bytes, nothing is read
//! from one that does not read its replies, each is done a bounded piece of work
//! a turn, and events wait in one ring for all subscribers
//! ([`Subscribers`](crate::emit::Subscribers)). One that has made no request
//! in 30 seconds, or owes the rest of a line or the reading of a reply for so
//! long, is closed. When all places are taken the oldest that has made no request
//! goes, or else one that has not got on with what it owes, or else the one that
//! has been idle longest; subscribers stay, and may take three quarters of the
//! places.

mod client;
mod listen;
mod protocol;
mod replies;
mod server;
mod task;

pub use listen::ListenError;
pub use server::Server;

use crate::lock::Locks;
use crate::model::{Degraded, Now, SocketData};
use crate::sensor::Listing;
use crate::stats::Stats;

/// How many clients can be connected.
pub const CLIENTS: usize = 256;
/// The most bytes of a request, its line end included.
pub const LONGEST: usize = 16 * 1024;

/// Who may connect besides root and the daemon's own user.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Access {
    /// These users. The first one will own the socket's file.
    pub uids: Vec<u32>,
    /// Members of these groups. The first one is the group of the socket's file.
    pub gids: Vec<u32>,
}

/// What the daemon is at the moment.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// The number of its newest record.
    pub seq: u64,
    /// Sockets in the table.
    pub sockets: usize,
}

/// What a daemon does for its control socket.
pub trait Commands {
    /// What is missing now.
    fn missing(&self) -> &[Degraded];

    /// What it is at the moment.
    fn status(&self) -> Status;

    /// Its counters.
    fn stats(&self) -> &Stats;

    /// What it asks of the kernel, a line for each protocol.
    fn asked(&self) -> Vec<String>;

    /// Its locks.
    fn locks(&self) -> &Locks;

    /// The same, to release some.
    fn locks_mut(&mut self) -> &mut Locks;

    /// Goes on with a listing of the sockets in view by so many entries; false
    /// when that was the last of it.
    fn list(&self, listing: &mut Listing, entries: usize, row: &mut dyn FnMut(&SocketData))
    -> bool;

    /// Has the table keep its order while something is being listed.
    fn keep_places(&mut self, keep: bool);

    /// Reads the configuration again. What it came to, or every reason for which
    /// nothing was changed.
    ///
    /// # Errors
    /// The mistakes, a line each.
    fn reload(&mut self, now: Now) -> Result<String, Vec<String>>;
}

#[cfg(test)]
mod tests;
