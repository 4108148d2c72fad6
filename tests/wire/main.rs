//! The reader of sock_diag bytes, held against what kernels sent.
//!
//! `fixtures/netlink/` has datagrams of a real kernel, and beside each what the
//! sockets API said of the same sockets at the time; [`reading`] compares. Two
//! other readers vouch for ours: netlink-packet-sock-diag on the rows
//! ([`agreement`]) and the C structure on tcp_info ([`tcp_info`]). [`hostile`]
//! is about every other sequence of bytes: the reader ends, stays inside them,
//! and never lets one message speak for another. The fixtures are little-endian;
//! [`order`] turns them where the machine is not.
//!
//! `tests/kernel/capture.rs` makes the fixtures, and on every run holds the
//! same sockets, live, against the same readers.

mod agreement;
mod fixture;
mod hostile;
mod lines;
mod order;
mod peer;
mod reading;
mod tcp_info;
