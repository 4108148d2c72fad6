//! File descriptors to observations. A source reads the kernel and says what it
//! said; what that means is decided above.

pub mod counters;
pub mod diag;
mod dumps;
pub mod gate;
mod notices;

pub use dumps::Dumps;
pub use notices::{Drained, Group, Notices};
