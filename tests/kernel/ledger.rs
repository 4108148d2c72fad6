//! The ledger: what the kernel has counted against what sockwatch has seen.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::control::client::{Client, Place};
use crate::daemon::{Launch, PATIENCE, Scratch, Tick};
use crate::netns;
use crate::overrun::overrun;
use crate::proc_net;
use crate::refused::counted;
use crate::seccomp::Refusal;
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
fn lost_in_a_gap(tick: Tick, how: impl FnOnce(Launch) -> Launch) {
    let listeners = Domain::ALL.map(Sock::listener);
    let launch = Launch::new(tick).setting("receive-buffer", "4KiB");
    let daemon = how(launch).start();
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
        lost_in_a_gap(Tick::Fast, |launch| launch);
    });
}

#[test]
fn lost_in_a_gap_with_a_slow_tick() {
    netns::run("ledger::lost_in_a_gap_with_a_slow_tick", || {
        lost_in_a_gap(Tick::Slow, |launch| launch);
    });
}

/// Where each family is dumped on its own, both together are the whole.
#[test]
fn lost_in_a_gap_where_families_are_dumped_one_by_one() {
    netns::run(
        "ledger::lost_in_a_gap_where_families_are_dumped_one_by_one",
        || lost_in_a_gap(Tick::Fast, |launch| launch.refused(Refusal::LEGACY_REQUEST)),
    );
}

/// What the stats say of opens that nothing accounts for, once there is a number or
/// this reason for there being none.
fn unaccounted(place: &Place, reason: Option<&str>) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, stats) = Client::new(&place.socket).ask(r#"{"request":"stats"}"#);
        let counters = &stats["counters"];
        let (count, why) = (
            counters["opens_unaccounted"].as_u64(),
            counters["opens_unaccounted_reason"].as_str(),
        );
        assert_eq!(count.is_none(), why.is_some(), "{stats}");
        if why == reason {
            return count.unwrap_or(0);
        }
        assert!(Instant::now() < deadline, "{reason:?}: {stats}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What is not counted is no zero, also after another configuration was read.
#[test]
fn where_it_does_not_run_it_says_so() {
    netns::run("ledger::where_it_does_not_run_it_says_so", || {
        let (place, files) = (Place::new(), Scratch::new());
        let launch = |sensors: &str| {
            let launch = place.launch(Tick::Fast).at(&files).sensors(sensors);
            launch.without_beacon()
        };
        let all = "  sockets: {listener: net.socket}\n";
        let https = "  sockets: {listener: net.socket, args: {patterns: [\"tcp * *:443 * *\"]}}\n";
        let udp = "  sockets: {listener: net.socket, args: {patterns: [\"udp *\"]}}\n";
        let daemon = launch(all).start();
        assert_eq!(unaccounted(&place, None), 0);
        let mut said = 0;
        for (sensors, reason) in [
            (https, Some("narrowed")),
            (udp, Some("not_watched")),
            (all, None),
            (https, Some("narrowed")),
        ] {
            launch(sensors).write(&files);
            daemon.signal(libc::SIGHUP);
            unaccounted(&place, reason);
            if reason == Some("narrowed") {
                said += 1;
                daemon.wait_for_lines("that there is none", said, |line| {
                    line.contains("no ledger of TCP opens")
                });
            }
        }
        daemon.stop();
    });
}

/// A socket that connects again and again is counted each time, and is one: the
/// log says that the sums do not agree when they have not for a while.
#[test]
fn it_says_that_it_does_not_close() {
    netns::run("ledger::it_says_that_it_does_not_close", || {
        let place = Place::new();
        let daemon = place.launch(Tick::Fast).start();
        let nobody = Sock::listener(Domain::V4).local();
        let again = Sock::tcp(Domain::V4);
        again.bind_loopback();
        for _ in 0..10 {
            again.connect(nobody).expect_err("nobody listens there");
        }
        drop(again);
        daemon.settle();
        daemon.ticks(2);
        let unaccounted = unaccounted(&place, None);
        assert!((5..10).contains(&unaccounted), "{unaccounted}");
        let line = daemon.wait_for_line("that opens are unaccounted for", |line| {
            line.contains("more TCP opens than there were sockets")
        });
        let count = format!("counted {unaccounted} more TCP opens");
        assert!(line.contains(&count), "{line}");
        daemon.stop();
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
