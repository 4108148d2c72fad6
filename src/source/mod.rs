//! File descriptors to observations. A source reads the kernel and says what it
//! said; what that means is decided above.

pub mod diag;
mod notices;

pub use notices::{Drained, Group, Notices};
