//! What an event says beyond the socket itself: reverse names, the names that
//! were resolved to an address, the processes that have the socket open, their
//! users and its cgroup.
//!
//! What is looked up can block for seconds, so it runs on threads of its own: each
//! kind of work has its own small [`pool`], and what one resolver does to its
//! threads delays no other kind of work and never the reactor. Answers are
//! cached, look-ups are bounded, and what was given up says why.

mod cache;
pub mod cgroups;
pub mod names;
pub mod pool;
pub mod processes;
mod resolved;
pub mod users;

pub use cgroups::Cgroups;
pub use names::{Names, ResolveError, skipped};
pub use processes::Processes;
pub use resolved::Resolved;
pub use users::Users;

use crate::model::Host;

/// What can be said at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lookup<A = Host> {
    /// This, and it is final.
    Known(A),
    /// Nothing yet: `collect` will have it, unless the asker's time is over
    /// before.
    Pending,
}
