//! Room for notices without privilege: several sockets share the cookies.

use crate::churn::allow_descriptors;
use crate::daemon::{Launch, Tick};
use crate::netns;
use crate::refused::counted;
use crate::seccomp::Refusal;
use crate::sock::{Domain, Sock};

/// Connections that end while the daemon stands still; each is two notices.
const CONNECTIONS: usize = 1000;

/// What one socket of the stock size holds.
const ALONE: usize = 212_992 / 1280;

#[test]
fn an_unprivileged_daemon_has_room_for_two_thousand() {
    netns::run(
        "shards::an_unprivileged_daemon_has_room_for_two_thousand",
        || {
            allow_descriptors(2 * CONNECTIONS as u64 + 100);
            let listener = Sock::listener(Domain::V4);
            // Not even what net.core.rmem_max allows, as that may be a lot here.
            let daemon = Launch::new(Tick::Slow)
                .without_privilege()
                .refused(Refusal::BUFFERS)
                .start();
            let room = daemon.wait_for_line("the room", |line| line.contains("room for"));
            assert!(room.contains("share the notices"), "{room}");
            let cookies: Vec<u64> = daemon.paused(|| {
                let pairs: Vec<_> = (0..CONNECTIONS).map(|_| Sock::pair(&listener)).collect();
                let both = |pair: &(Sock, Sock)| [pair.0.cookie, pair.1.cookie];
                pairs.iter().flat_map(both).collect()
            });
            assert!(cookies.len() > 10 * ALONE, "one socket would not do");
            let ended = |event: &serde_json::Value| event["data"]["action"] == "closed";
            daemon.wait_for_count("closes", cookies.len(), ended);
            daemon.settle();
            let record = daemon.stop();
            assert!(record.own().is_empty(), "no gap: {:?}", record.own());
            assert_eq!(counted(&record.log, "overruns"), 0, "{}", record.log);
            let closed = record.cookies("closed");
            assert_eq!(closed.len(), cookies.len(), "none twice, none besides");
            let distinct: std::collections::BTreeSet<_> = closed.iter().collect();
            assert!(cookies.iter().all(|cookie| distinct.contains(cookie)));
            let notified = record
                .events()
                .filter(|event| ended(event) && event["data"]["evidence"] == "notified");
            assert_eq!(notified.count(), cookies.len());
        },
    );
}
