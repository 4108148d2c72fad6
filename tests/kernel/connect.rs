//! net.tcp_connect: every connect() once, whole, and nothing else.
//!
//! The same list runs with each hook: [`watch::HOOK`] names the one under test,
//! and `.ci/guest` runs the list for those that the machine at hand may refuse.
//! A hook sees all of the machine, other tests and whatever else connects
//! meanwhile; what a test holds the daemon to are the calls of its own
//! namespaces and its own process, all of them.

mod burst;
pub mod callers;
mod calls;
mod fast_open;
mod hooks;
#[cfg(feature = "bpf")]
mod mptcp;
mod names;
mod silent;
mod sockets;
mod unhooked;
mod watch;
