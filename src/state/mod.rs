//! What survives a restart: the open sockets in view, and the locks.
//!
//! The file is a base and a journal. The base is written whole, beside the old
//! file, and takes its name when it is complete; the journal is appended to it,
//! one frame a turn of the loop, *before* the turn's events are written. So
//! whatever was told as opened is in the file, and whatever the file holds that
//! is not there after a restart is told as closed: a `kill -9` between any two
//! instructions makes a repetition at worst, never a silence.
//!
//! Nothing in the file outlives the boot: cookies begin anew. What a process has
//! written survives that process in the page cache, whatever kills it, so that
//! the journal needs no fsync(2), and frames of short-lived sockets are mostly
//! replaced before the kernel has written them to the medium.
//!
//! * `record`: what stands in the file, to bytes and back; pure, never panics;
//! * `frame`: records in frames with a length and a CRC-32;
//! * `replay`: a file's records, checked in full before the first is believed;
//! * `journal`: what is sure to be written and what is not yet; pure;
//! * `store`: the directory.

mod crc;
mod frame;
mod journal;
mod record;
mod replay;
mod store;
#[cfg(test)]
mod tests;

pub use frame::{Frames, Unusable};
pub use journal::Journal;
pub use record::{Grave, Head, LockNote, Record, Sensor, Socket};
pub use replay::{Summary, check, replay};
pub use store::{Base, Found, OpenError, Store};
