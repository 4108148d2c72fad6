//! What sockwatch says, held against what the kernel did.
//!
//! Every test makes sockets whose cookies it reads itself, in a network
//! namespace of its own, runs the real binary beside them, and then accounts for
//! every event that came out: each one expected, each field checked, none too
//! many. Nothing here knows how sockwatch works inside; DESIGN section 4 is all
//! these tests rest on.
//!
//! The harness: [`netns`] (where a test runs), [`sock`] (what it does),
//! [`daemon`] (what watches it), [`record`] and [`expect`] (what must come out).
//! The rest are the scenarios.

// Namespaces, sockets and signals at the level at which the kernel has them;
// std has no words for most of what is tested here.
#![allow(unsafe_code)]

mod child;
mod crowd;
mod daemon;
mod dnsmasq;
mod expect;
mod footprint;
mod gate;
mod netns;
mod proc_net;
mod record;
mod seccomp;
mod sock;

mod allocations;
mod asked;
mod attribution;
mod before_start;
mod budget;
mod capture;
mod cgroups;
mod churn;
mod closing;
mod command;
mod congestion;
mod connect;
#[cfg(feature = "bpf")]
mod connect_source;
mod connections;
mod control;
mod degraded;
mod dns_tap;
mod dump;
mod foreign;
mod half_closed;
mod handlers;
mod lagging;
mod ledger;
mod leftovers;
mod listeners;
mod names;
mod namespaces;
mod overrun;
mod processes;
mod push_down;
mod rebound;
mod refused;
mod reload;
mod restart;
mod sensors;
mod shards;
mod syn_sent;
mod tcp_connect;
mod udp;
mod unprivileged;

// Shared with the tests of the same bytes as files.
#[path = "../wire/lines.rs"]
mod lines;
#[path = "../wire/peer.rs"]
mod peer;
