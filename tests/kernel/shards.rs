//! Room for notices without privilege: several sockets share the cookies.

use crate::churn::allow_descriptors;
use crate::daemon::{Daemon, Launch, Tick};
use crate::netns;
use crate::refused::counted;
use crate::seccomp::Refusal;
use crate::sock::{Domain, Sock};

/// Connections that end while the daemon stands still; each is two notices.
const CONNECTIONS: usize = 1000;

/// net.core.rmem_max and rmem_default, as a machine has them whose owner has not
/// changed them.
const STOCK: usize = 212_992;

/// What one socket of that size holds.
const ALONE: usize = STOCK / 1280;

/// A daemon without privilege, and what it says of its room.
fn unprivileged(refusal: Option<Refusal>) -> (Daemon, String) {
    let launch = Launch::new(Tick::Slow).without_privilege();
    let launch = match refusal {
        Some(refusal) => launch.refused(refusal),
        None => launch,
    };
    let daemon = launch.start();
    let room = daemon.wait_for_line("the room", |line| line.contains("room for"));
    (daemon, room)
}

/// Two thousand sockets end while it stands still: it tells of each, once.
fn has_room_for_two_thousand(daemon: Daemon) {
    allow_descriptors(2 * CONNECTIONS as u64 + 100);
    let listener = Sock::listener(Domain::V4);
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
}

/// Sixteen of the stock size, where not even what net.core.rmem_max allows may be
/// asked for.
#[test]
fn an_unprivileged_daemon_has_room_for_two_thousand() {
    netns::run(
        "shards::an_unprivileged_daemon_has_room_for_two_thousand",
        || {
            let (daemon, room) = unprivileged(Some(Refusal::BUFFERS));
            assert!(room.contains("share the notices"), "{room}");
            has_room_for_two_thousand(daemon);
        },
    );
}

/// Eight of twice that, which is what the stock limit allows. It is the whole
/// machine's, so that this runs where nobody has raised it: in the guest, if not
/// here (`.ci/guest/run.py`).
#[test]
fn the_stock_limit_is_room_for_two_thousand() {
    netns::run("shards::the_stock_limit_is_room_for_two_thousand", || {
        let (daemon, room) = unprivileged(None);
        if !room.contains(&format!(" {} ", 2 * STOCK)) {
            return netns::visibly(&format!(
                "SKIPPED shards::the_stock_limit_is_room_for_two_thousand: net.core.rmem_max \
                 is not {STOCK}: {room}"
            ));
        }
        assert!(room.contains("8 sockets share the notices"), "{room}");
        has_room_for_two_thousand(daemon);
    });
}
