//! What a flood of sockets takes while it waits for processes and names, and that
//! it comes back: when the flood has been told of, and when it has ended.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use super::{built_in, resident};
use crate::churn::allow_descriptors;
use crate::daemon::{Daemon, Launch, PATIENCE, Tick};
use crate::netns;
use crate::sock::{Domain, Sock};

/// As many as may wait for their processes, and some.
const SOCKETS: u16 = 18_000;

/// What a socket in the table may take, in bytes.
const PER_SOCKET: u64 = 128;

/// What else may have grown, in KiB: code that had not run before, what is known
/// of processes and names, pages of which a part is in use.
const SLACK: u64 = if cfg!(debug_assertions) {
    4 << 10
} else {
    2 << 10
};

/// UDP sockets, each with a peer.
fn sockets() -> Vec<Sock> {
    let connected = |number: u16| {
        let sock = Sock::udp(Domain::V4);
        let peer = Ipv4Addr::from([127, 1, 0, (number % 200) as u8]);
        sock.connect(SocketAddr::from((peer, 9))).expect("a route");
        sock
    };
    (0..SOCKETS).map(connected).collect()
}

/// Waits until no more than this is resident, in KiB.
fn shrinks_to(daemon: &Daemon, most: u64, what: &str) -> u64 {
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        let resident = resident(daemon);
        if resident <= most {
            return resident;
        }
        assert!(
            Instant::now() < deadline,
            "{resident} KiB are resident {what}, and not {most}"
        );
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// Waits until it has told so much of as many sockets.
fn tells(daemon: &Daemon, action: &str) {
    let left = Cell::new(SOCKETS);
    daemon.wait_for(&format!("every {action} event"), |event| {
        let data = &event["data"];
        let ours = data["remote"]
            .as_str()
            .is_some_and(|peer| peer.ends_with(":9"));
        let one = u16::from(ours && data["action"] == action);
        left.set(left.get() - one);
        left.get() == 0
    });
}

fn flood(daemon: Daemon) {
    allow_descriptors(u64::from(SOCKETS) + 100);
    let idle = resident(&daemon);
    // One dump finds all of them.
    let held = daemon.paused(sockets);
    tells(&daemon, "opened");
    let table = u64::from(SOCKETS) * PER_SOCKET / 1024;
    let grown = shrinks_to(&daemon, idle + table + SLACK, "with sockets");
    drop(held);
    tells(&daemon, "closed");
    let after = shrinks_to(&daemon, idle + SLACK, "when they have ended");
    println!("idle: {idle} KiB, {SOCKETS} sockets: {grown}, then: {after}");
}

#[test]
fn that_waits_for_processes() {
    netns::run("footprint::flood::that_waits_for_processes", || {
        flood(built_in());
    });
}

#[test]
fn that_waits_for_names() {
    netns::run("footprint::flood::that_waits_for_names", || {
        let sensor = "  sockets: {listener: net.socket, args: {dns: true, dns-timeout: 1s}}\n";
        let launch = Launch::new(Tick::Fast).without_beacon().sensors(sensor);
        flood(launch.start());
    });
}
