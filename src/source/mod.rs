//! File descriptors to observations. A source reads the kernel and says what it
//! said; what that means is decided above.

pub mod connect;
pub mod counters;
pub mod diag;
pub mod dns_tap;
pub mod dumps;
pub mod gate;
pub mod netns;
mod notices;

pub use dns_tap::DnsTap;
pub use notices::{Drained, Group, Notices, Room};
