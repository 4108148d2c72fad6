//! Many connects, flat out: each is an event, or counted as lost.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::thread;

use serde_json::Value;

use super::watch::{Watch, hook, is_connect, privileged};
use crate::netns;
use crate::record::Record;
use crate::sock::{Domain, Sock};

/// Connects of two threads; every destination is one that nobody else uses, and
/// that refuses at once.
fn calls(count: u32) {
    let caller = |first: u32| {
        move || {
            for number in (first..count).step_by(2) {
                let client = std::net::SocketAddrV4::new(address(number), 1);
                std::net::TcpStream::connect(SocketAddr::V4(client))
                    .expect_err("nobody listens there");
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(caller(0));
        scope.spawn(caller(1));
    });
}

/// All of 127/8 is this host. That of the harness is not among these.
fn address(number: u32) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::from_bits(0x7f01_0000 + number)
}

/// A call of this test that the hook saw.
fn is_mine(event: &Value, netns: u64) -> bool {
    is_connect(event) && event["data"]["origin"] == hook() && event["data"]["netns"] == netns
}

/// How many connect records the daemon says were lost.
fn lost(record: &Record) -> u64 {
    let counts = record.own().into_iter();
    counts
        .filter_map(|event| event["data"]["connects_lost"].as_u64())
        .sum()
}

/// How many of the first `count` addresses are told; none is told twice.
fn told(record: &Record, count: u32) -> u64 {
    let netns = netns::inode();
    let mut times: HashMap<&str, u32> = HashMap::new();
    for event in record.events().filter(|event| is_mine(event, netns)) {
        let ip = event["data"]["dstIP"].as_str().expect("an address");
        *times.entry(ip).or_default() += 1;
    }
    let mut sum = 0;
    for number in 0..count {
        match times.get(address(number).to_string().as_str()) {
            None => {}
            Some(1) => sum += 1,
            Some(more) => panic!("{} is told {more} times", address(number)),
        }
    }
    sum
}

/// A call behind all others, so that everything before it has been read.
fn last_call(watch: &Watch) {
    let last = Sock::tcp(Domain::V4);
    let nobody = SocketAddr::new(Domain::V4.loopback(), 1);
    last.connect(nobody).expect_err("nobody listens on port 1");
    let netns = netns::inode();
    watch.daemon.wait_for("the last call", |event| {
        is_mine(event, netns) && event["data"]["cookie"] == last.cookie
    });
}

/// The default ring holds what a daemon needs to keep pace.
#[test]
fn nothing_is_lost() {
    const CALLS: u32 = 20_000;
    privileged("connect::burst::nothing_is_lost", || {
        let watch = Watch::start("");
        calls(CALLS);
        last_call(&watch);
        let record = watch.daemon.stop();
        assert_eq!((told(&record, CALLS), lost(&record)), (CALLS.into(), 0));
    });
}

/// While the daemon stands still the ring fills up, and the kernel counts what
/// finds no room.
#[test]
fn what_is_lost_is_counted() {
    const CALLS: u32 = 100_000;
    privileged("connect::burst::what_is_lost_is_counted", || {
        let watch = Watch::start("");
        watch.daemon.paused(|| calls(CALLS));
        watch.daemon.wait_for("that something was lost", |event| {
            event["data"]["connects_lost"].as_u64().is_some()
        });
        last_call(&watch);
        let record = watch.daemon.stop();
        let (told, lost) = (told(&record, CALLS), lost(&record));
        assert!(told > 0 && lost > 0, "{told} events, {lost} lost");
        // The ring is one for the machine: others may have lost some too.
        assert!(
            told + lost >= CALLS.into(),
            "{told} events and {lost} lost of {CALLS}"
        );
    });
}
