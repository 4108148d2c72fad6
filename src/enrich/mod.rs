//! What a socket's event says beyond the socket itself.
//!
//! Everything here can block for seconds, so it runs on threads of its own: each
//! kind of work has its own small [`pool`], and what one resolver does to its
//! threads delays no other kind of work and never the reactor.

pub mod pool;
