//! What a socket's event says beyond the socket itself: reverse names.
//!
//! Everything here can block for seconds, so it runs on threads of its own: each
//! kind of work has its own small [`pool`], and what one resolver does to its
//! threads delays no other kind of work and never the reactor. Answers are
//! cached, look-ups are bounded, and what was given up says why.

mod cache;
pub mod names;
pub mod pool;

pub use names::{Lookup, Names, ResolveError, skipped};
