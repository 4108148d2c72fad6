//! An overrun whose queue takes a while to drain.
//!
//! After ENOBUFS the kernel drops every notice until the queue has been read
//! empty, and says so only once. Whatever ends meanwhile must be found by a dump
//! that began after that, not by one that began when the overrun was first heard
//! of.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;

use crate::churn::allow_descriptors;
use crate::daemon::{Launch, Tick};
use crate::netns;
use crate::proc_net;
use crate::sock::{Domain, Sock};

const TRACKED: usize = 3000;
const SHORT: usize = 12_000;

fn bound() -> Sock {
    let socket = Sock::udp(Domain::V4);
    socket.bind_loopback();
    socket
}

#[test]
fn what_ends_while_the_queue_drains_is_found() {
    netns::run(
        "congestion::what_ends_while_the_queue_drains_is_found",
        || {
            allow_descriptors(TRACKED as u64 + 100);
            let tracked: Vec<Sock> = (0..TRACKED).map(|_| bound()).collect();
            let cookies: HashSet<u64> = tracked.iter().map(|socket| socket.cookie).collect();
            let daemon = Launch::new(Tick::Slow)
                .sensors("  sockets: {listener: net.socket, args: {initial: true}}\n")
                // Room for some 6,500 notices: several turns of the daemon's loop.
                .setting("receive-buffer", "4MiB")
                .start();
            let is_tracked = |event: &Value, action| {
                let data = &event["data"];
                let cookie = data["cookie"].as_u64();
                data["action"] == action && cookie.is_some_and(|cookie| cookies.contains(&cookie))
            };
            daemon.wait_for_count("all to be read", TRACKED, |event| {
                is_tracked(event, "opened")
            });
            let before = proc_net::notices().dropped;
            daemon.paused(|| (0..SHORT).for_each(|_| drop(bound())));
            // The daemon reads what is queued while these end, a few at a time.
            for (at, socket) in tracked.into_iter().enumerate() {
                drop(socket);
                if at % 20 == 0 {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            daemon.wait_for_count("all ends", TRACKED, |event| is_tracked(event, "closed"));
            assert!(proc_net::notices().dropped > before, "nothing was dropped");
            daemon.wait_for("the gap record", |event| event["data"]["action"] == "gap");
            daemon.settle();
            let record = daemon.stop();
            for action in ["opened", "closed"] {
                let mut told = record.cookies(action);
                told.retain(|cookie| cookies.contains(cookie));
                assert_eq!(told.len(), TRACKED, "none is {action} twice");
            }
        },
    );
}
