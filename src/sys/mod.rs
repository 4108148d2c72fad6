//! The system's edge: the only module with `unsafe`.
//!
//! Everything here turns a file descriptor or a system call into a typed value
//! with a typed error; nothing here knows what a socket event is. What a caller
//! must be able to tell apart (a full receive buffer, a truncated message, a
//! sender that is not the kernel) is a variant, not an errno.

#![allow(unsafe_code)]

mod capability;
mod child;
pub mod classic;
mod folder;
pub mod memory;
mod netlink;
mod netns;
pub mod output;
mod own;
mod packet;
mod place;
#[cfg(feature = "bpf")]
mod ring;
mod signal;
mod unix;
pub mod yaml;

pub use child::{Child, Ending, Spawned, keep_descriptors, reap_strangers};
pub use folder::{Folder, Item, Items, Scratch};
pub use netlink::{Netlink, RecvError};
pub use netns::Namespace;
pub use own::{connect_nowhere, hostname, netns, own_cookies, thread_cpu, unbound_socket_cookie};
pub use packet::{Packets, Received, Way};
pub use place::{boot_id, lock, monotonic_ms, netns_cookie};
#[cfg(feature = "bpf")]
pub use ring::Ring;
pub use signal::{Signal, Signals};
pub use unix::{Peer, bind_private, effective_uid, peer, peer_groups};
