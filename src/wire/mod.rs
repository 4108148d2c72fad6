//! Bytes to model and back. Pure: no descriptor, no clock, and whatever the
//! bytes are, no panic and no read beyond them.

pub mod bytecode;
pub mod connect;
pub mod dns;
pub mod notice_filter;
pub mod nsid;
pub mod request;
pub mod sock_diag;
