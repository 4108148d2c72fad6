//! Many connects, flat out: each is an event, or counted as lost.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;

use serde_json::Value;

use super::watch::{Watch, hook, is_connect, privileged};
use crate::netns;
use crate::record::Record;
use crate::sock::{Domain, Sock};

/// Connects of two threads; every destination is one that nobody else uses, and
/// that refuses at once.
fn calls(base: Ipv4Addr, count: u32) {
    let caller = |first: u32| {
        move || {
            for number in (first..count).step_by(2) {
                TcpStream::connect((address(base, number), 1)).expect_err("nobody listens there");
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(caller(0));
        scope.spawn(caller(1));
    });
}

/// All of 127/8 is this host.
fn address(base: Ipv4Addr, number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(base.to_bits() + number)
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
fn told(record: &Record, base: Ipv4Addr, count: u32) -> u64 {
    let netns = netns::inode();
    let mut times: HashMap<&str, u32> = HashMap::new();
    for event in record.events().filter(|event| is_mine(event, netns)) {
        let ip = event["data"]["dstIP"].as_str().expect("an address");
        *times.entry(ip).or_default() += 1;
    }
    let mut sum = 0;
    for number in 0..count {
        match times.get(address(base, number).to_string().as_str()) {
            None => {}
            Some(1) => sum += 1,
            Some(more) => panic!("{} is told {more} times", address(base, number)),
        }
    }
    sum
}

/// A call behind all others, so that everything before it has been read.
fn last_call(watch: &Watch, base: Ipv4Addr) {
    let last = Sock::tcp(Domain::V4);
    let nobody = SocketAddr::new(base.into(), 1);
    last.connect(nobody).expect_err("nobody listens on port 1");
    let netns = netns::inode();
    watch.daemon.wait_for("the last call", |event| {
        is_mine(event, netns) && event["data"]["cookie"] == last.cookie
    });
}

/// A daemon that reports what connects to 127.`net`/16 alone, which is what this
/// test does: the bursts of others do not keep its output busy.
fn watch(net: u8) -> (Watch, Ipv4Addr) {
    let watch = Watch::start_narrow(&format!("tcp4 - 127.{net}.*:1 - CONNECT"), "");
    (watch, Ipv4Addr::new(127, net, 0, 0))
}

/// The default ring holds what a daemon needs to keep pace.
#[test]
fn nothing_is_lost() {
    const CALLS: u32 = 20_000;
    privileged("connect::burst::nothing_is_lost", || {
        let (watch, base) = watch(1);
        calls(base, CALLS);
        last_call(&watch, Ipv4Addr::new(127, 1, 255, 1));
        let record = watch.daemon.stop();
        assert_eq!(
            (told(&record, base, CALLS), lost(&record)),
            (CALLS.into(), 0)
        );
    });
}

/// While the daemon stands still the ring fills up, and the kernel counts what
/// finds no room.
#[test]
fn what_is_lost_is_counted() {
    const CALLS: u32 = 50_000;
    privileged("connect::burst::what_is_lost_is_counted", || {
        let (watch, base) = watch(2);
        watch.daemon.paused(|| calls(base, CALLS));
        watch.daemon.wait_for("that something was lost", |event| {
            event["data"]["connects_lost"].as_u64().is_some()
        });
        last_call(&watch, Ipv4Addr::new(127, 2, 255, 1));
        let record = watch.daemon.stop();
        let (told, lost) = (told(&record, base, CALLS), lost(&record));
        assert!(told > 0 && lost > 0, "{told} events, {lost} lost");
        // The ring is one for the machine: others may have lost some too.
        assert!(
            told + lost >= CALLS.into(),
            "{told} events and {lost} lost of {CALLS}"
        );
    });
}
