//! The system's edge: the only module with `unsafe`.
//!
//! Everything here turns a file descriptor or a system call into a typed value
//! with a typed error; nothing here knows what a socket event is. What a caller
//! must be able to tell apart (a full receive buffer, a truncated message, a
//! sender that is not the kernel) is a variant, not an errno.

#![allow(unsafe_code)]

mod netlink;
pub mod output;
mod own;
mod place;
mod signal;

pub use netlink::{Netlink, RecvError};
pub use own::{hostname, netns, own_cookies, unbound_socket_cookie};
pub use place::{boot_id, lock, monotonic_ms, netns_cookie};
pub use signal::{Signal, Signals};
