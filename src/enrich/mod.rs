//! What an event says beyond the socket itself: reverse names, and the names that
//! were resolved to an address.
//!
//! What is looked up can block for seconds, so it runs on threads of its own: each
//! kind of work has its own small [`pool`], and what one resolver does to its
//! threads delays no other kind of work and never the reactor. Answers are
//! cached, look-ups are bounded, and what was given up says why.

mod cache;
pub mod names;
pub mod pool;
mod resolved;

pub use names::{Lookup, Names, ResolveError, skipped};
pub use resolved::Resolved;
