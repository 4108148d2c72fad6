//! The ledger: what the kernel has counted against what sockwatch has seen.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::daemon::{Launch, Tick};
use crate::netns;
use crate::overrun::overrun;
use crate::proc_net;
use crate::refused::counted;
use crate::sock::{Domain, Sock};

/// Connections that live and die while the daemon stands still.
const CONNECTIONS: usize = 40;

/// Waits until the kernel's work queue has nothing left to tell: a notice that
/// comes after the reconciliation is told of twice, as unseen and as itself.
fn all_noticed() {
    let mut before = None;
    loop {
        let now = proc_net::notices().dropped;
        if before.replace(now) == Some(now) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Sockets that open and end within a gap leave no trace but in the kernel's
/// count: the gap record has as many as the generator knows were never reported.
fn lost_in_a_gap(tick: Tick) {
    let listeners = Domain::ALL.map(Sock::listener);
    let daemon = Launch::new(tick).setting("receive-buffer", "4KiB").start();
    if tick == Tick::Fast {
        daemon.ticks(3);
    }
    let mut made = BTreeSet::new();
    for round in 1..=2 {
        overrun(&daemon, || {
            for number in 0..CONNECTIONS {
                let listener = &listeners[number % 3];
                let (client, server) = Sock::pair(listener);
                made.extend([client.cookie, server.cookie]);
            }
            all_noticed();
        });
        daemon.wait_for_count("gap records", round, |event| {
            event["data"]["action"] == "gap"
        });
    }
    daemon.settle();
    let record = daemon.stop();
    let reported: BTreeSet<u64> = record.cookies("opened").into_iter().collect();
    let unseen = made.difference(&reported).count() as u64;
    assert!(unseen > 0, "not one was lost");
    let told: u64 = record
        .own()
        .iter()
        .map(|gap| gap["data"]["tcp_unseen"].as_u64().expect("a count"))
        .sum();
    assert_eq!(told, unseen, "of {}; log:\n{}", made.len(), record.log);
    assert_eq!(
        counted(&record.log, "opens_unaccounted"),
        0,
        "{}",
        record.log
    );
}

#[test]
fn lost_in_a_gap_with_a_fast_tick() {
    netns::run("ledger::lost_in_a_gap_with_a_fast_tick", || {
        lost_in_a_gap(Tick::Fast);
    });
}

#[test]
fn lost_in_a_gap_with_a_slow_tick() {
    netns::run("ledger::lost_in_a_gap_with_a_slow_tick", || {
        lost_in_a_gap(Tick::Slow);
    });
}

/// Where nothing is lost the sums agree, whatever became of the connections.
#[test]
fn it_closes() {
    netns::run("ledger::it_closes", || {
        let listener = Sock::listener(Domain::V4);
        let _before: Vec<_> = (0..20).map(|_| Sock::pair(&listener)).collect();
        let nobody = Sock::listener(Domain::V4).local();
        let daemon = Launch::new(Tick::Fast).start();
        let mut kept = Vec::new();
        for round in 0..120 {
            match round % 4 {
                0 => drop(Sock::pair(&listener)),
                1 => kept.push(Sock::pair(&listener)),
                2 => {
                    let refused = Sock::tcp(Domain::V4);
                    refused.connect(nobody).expect_err("nobody listens there");
                }
                _ => {
                    // Its child is never accepted.
                    let short = Sock::listener(Domain::V6);
                    let client = Sock::tcp(Domain::V6);
                    client.connect(short.local()).expect("a listener on lo");
                }
            }
            if round % 10 == 0 {
                std::thread::sleep(Duration::from_millis(25));
            }
        }
        daemon.ticks(3);
        drop(kept);
        daemon.settle();
        daemon.ticks(3);
        let record = daemon.stop();
        assert!(record.own().is_empty(), "{:?}", record.own());
        assert_eq!(
            counted(&record.log, "opens_unaccounted"),
            0,
            "{}",
            record.log
        );
    });
}
