//! Notices that the kernel dropped: the receive buffer is tiny, the daemon
//! stands still, and more sockets end than it can be told of.

use serde_json::Value;

use crate::crowd::{Crowd, Ended};
use crate::daemon::{Daemon, Launch, PATIENCE, Tick};
use crate::expect::{Expect, SILENT, Traffic};
use crate::netns;
use crate::proc_net;
use crate::record::Record;
use crate::sock::{Domain, Ident, Sock};

/// Room for six notices, at the 1,280 bytes that one is charged.
const TINY: &str = "4KiB";

fn launch(tick: Tick) -> Daemon {
    Launch::new(tick)
        .sensors("  sockets: {listener: net.socket, args: {initial: true}}\n")
        .setting("receive-buffer", TINY)
        .start()
}

/// Does something that ends more sockets than there is room for; returns when
/// the kernel has begun to drop.
pub fn overrun<T>(daemon: &Daemon, act: impl FnOnce() -> T) -> T {
    daemon.paused(|| {
        let before = proc_net::notices().dropped;
        let result = act();
        // Notices are written by a work queue, a moment later.
        let deadline = std::time::Instant::now() + PATIENCE;
        while proc_net::notices().dropped == before {
            assert!(std::time::Instant::now() < deadline, "nothing was dropped");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        result
    })
}

fn is_gap(event: &Value) -> bool {
    event["data"]["action"] == "gap"
}

/// The end of a socket, by the evidence that there turned out to be for it.
fn end(record: &Record, ended: &Ended) -> Expect {
    match record.evidence("closed", ended.cookie()).as_str() {
        "notified" => Expect::notified(ended.ident, ended.state, ended.traffic),
        _ => Expect::closed(ended.ident, "verified", ended.state),
    }
}

fn assert_gap(record: &Record, gap: &Value, recovered: usize) {
    assert_eq!(gap["eid"], "sockwatch|self|gap@overrun|0");
    assert_eq!(gap["sensor"], "sockwatch");
    let data = gap["data"].as_object().expect("data");
    let mut keys: Vec<_> = data.keys().collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            "action",
            "cause",
            "closed_recovered",
            "duration_ms",
            "tcp_unseen"
        ]
    );
    assert_eq!(data["cause"], "overrun");
    assert_eq!(data["closed_recovered"], recovered, "log:\n{}", record.log);
    assert!(
        data["duration_ms"].as_u64().is_some_and(|ms| ms < 20_000),
        "{gap}"
    );
}

/// Nothing that was tracked is lost, nothing is told twice, and nothing that
/// lives is said to have ended. With the slow tick no tick helps: the
/// reconciliation is immediate.
fn every_kind(tick: Tick) {
    let mut crowd = Crowd::new();
    let daemon = launch(tick);
    let cookies = crowd.cookies();
    daemon.opened(&cookies);
    let (ended, newborn) = overrun(&daemon, || {
        let ended = crowd.end_doomed();
        (ended, Sock::listener(Domain::V4))
    });
    let gap = daemon.wait_for("the gap record", is_gap);
    // Born in the gap, and read by the dump that reconciles it.
    daemon.opened(&[newborn.cookie]);
    if tick == Tick::Fast {
        daemon.ticks(3);
    }
    // From now on each end is noticed again, one at a time as there is room.
    let mut noticed = Vec::new();
    for group in crowd.into_survivors() {
        let ended: Vec<Ended> =
            daemon.paused(|| group.into_iter().map(|member| member.end()).collect());
        daemon.closed(&ended.iter().map(Ended::cookie).collect::<Vec<_>>());
        noticed.extend(ended);
    }
    let newborn = newborn.close();
    let record = daemon.finish(&cookies);

    let mut expected: Vec<Expect> = Vec::new();
    for ended in ended.iter().chain(&noticed) {
        expected.push(Expect::opened(ended.ident, "dump", ended.state_opened()));
    }
    expected.extend(ended.iter().map(|ended| end(&record, ended)));
    expected.extend(
        noticed
            .iter()
            .map(|ended| Expect::notified(ended.ident, ended.state, ended.traffic)),
    );
    expected.extend(Expect::read(newborn, "LISTEN", "LISTEN", Traffic::None));
    record.hold_events(&expected);

    let verified = verified(&record, &ended);
    assert!(
        verified.len() < ended.len(),
        "some notices were queued before the overrun"
    );
    assert!(!verified.is_empty(), "some were dropped");
    assert_eq!(record.own(), [&gap], "one gap, one record");
    assert_gap(&record, &gap, verified.len());
    for ended in &ended {
        let closed = record.find("closed", ended.cookie());
        assert!(
            record.position(closed) < record.position(&gap),
            "written after reconciliation"
        );
    }
}

fn verified(record: &Record, ended: &[Ended]) -> Vec<u64> {
    let cookies = ended.iter().map(Ended::cookie);
    cookies
        .filter(|cookie| record.evidence("closed", *cookie) == "verified")
        .collect()
}

#[test]
fn every_kind_with_a_slow_tick() {
    netns::run("overrun::every_kind_with_a_slow_tick", || {
        every_kind(Tick::Slow)
    });
}

#[test]
fn every_kind_with_a_fast_tick() {
    netns::run("overrun::every_kind_with_a_fast_tick", || {
        every_kind(Tick::Fast)
    });
}

/// One overrun after the other, connections all the time.
#[test]
fn again_and_again() {
    netns::run("overrun::again_and_again", || {
        let listener = Sock::listener(Domain::V4);
        let daemon = launch(Tick::Fast);
        let mut ended: Vec<Ident> = Vec::new();
        for round in 1..=5 {
            let pairs: Vec<_> = daemon.paused(|| (0..30).map(|_| Sock::pair(&listener)).collect());
            for (client, server) in &pairs {
                daemon.opened(&[client.cookie, server.cookie]);
            }
            ended.extend(overrun(&daemon, || {
                pairs
                    .into_iter()
                    .flat_map(|(client, server)| [client.close(), server.close()])
                    .collect::<Vec<_>>()
            }));
            daemon.wait_for_count("gap records", round, is_gap);
        }
        let cookies: Vec<u64> = ended.iter().filter_map(|ident| ident.cookie).collect();
        let listening = Ended {
            ident: listener.close(),
            state: "LISTEN",
            traffic: Traffic::None,
        };
        let record = daemon.finish(&cookies);
        let ended = ended.into_iter().map(|ident| Ended {
            ident,
            state: "ESTABLISHED",
            traffic: SILENT,
        });
        let ended: Vec<Ended> = ended.chain([listening]).collect();
        let expected: Vec<Expect> = ended
            .iter()
            .flat_map(|ended| {
                [
                    Expect::opened(ended.ident, "dump", ended.state),
                    end(&record, ended),
                ]
            })
            .collect();
        record.hold_events(&expected);
        let recovered: u64 = record
            .own()
            .iter()
            .map(|gap| gap["data"]["closed_recovered"].as_u64().expect("a count"))
            .sum();
        assert_eq!(recovered, verified(&record, &ended).len() as u64);
    });
}

/// The smallest buffer that can be configured: the daemon starts, hears what it
/// can, and does not take its own lack of room for a kernel without notices.
#[test]
fn the_smallest_buffer() {
    netns::run("overrun::the_smallest_buffer", || {
        let listener = Sock::listener(Domain::V4);
        let daemon = Launch::new(Tick::Fast)
            .setting("receive-buffer", "1KiB")
            .start();
        let (client, server) = daemon.paused(|| Sock::pair(&listener));
        let cookies = [client.cookie, server.cookie];
        daemon.opened(&cookies);
        drop((client, server));
        daemon.closed(&cookies);
        daemon.ticks(3);
        let record = daemon.stop();
        let own: Vec<_> = record
            .own()
            .iter()
            .map(|own| own["data"]["action"].clone())
            .collect();
        assert!(
            own.iter().all(|action| action == "gap"),
            "{:?}\nlog:\n{}",
            record.own(),
            record.log
        );
        assert_eq!(record.cookies("closed").len(), 2);
    });
}

/// An overrun in the last moment is told like any other: the end waits for its
/// reconciliation.
#[test]
fn at_the_end() {
    netns::run("overrun::at_the_end", || {
        let mut crowd = Crowd::new();
        let daemon = launch(Tick::Slow);
        daemon.opened(&crowd.cookies());
        let ended = overrun(&daemon, || {
            let ended = crowd.end_doomed();
            daemon.signal(libc::SIGTERM);
            ended
        });
        let (status, record) = daemon.end();
        assert_eq!(status.code(), Some(0), "log:\n{}", record.log);
        for ended in &ended {
            record.find("closed", ended.cookie());
        }
        assert_eq!(record.own().len(), 1, "the gap: {:?}", record.own());
        let recovered = verified(&record, &ended).len();
        assert_gap(&record, record.own()[0], recovered);
    });
}
