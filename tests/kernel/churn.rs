//! Many short connections, held against the generator's own count.
//!
//! No connection lives as long as a tick. With the slow tick every one is known
//! from its notice alone. With the fast one dumps run all the time, and a
//! thousand idle connections make them long: some sockets are read alive, some
//! as what they left behind, and some rows are read after their socket's notice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::daemon::{Launch, Tick};
use crate::netns::{self, check};
use crate::sock::{Domain, Sock};

const CONNECTIONS: u32 = 5000;

/// Connections that stay, where dumps are to be long: a dump of them fills
/// several of the datagrams in which the kernel writes it ahead of its reader.
const IDLE: usize = 1000;

/// Makes and ends connections, at this many a second where one is given; the
/// cookies of both ends of all.
fn generate(listener: &Sock, rate: Option<u32>) -> BTreeSet<u64> {
    let began = Instant::now();
    let mut cookies = BTreeSet::new();
    for number in 0..CONNECTIONS {
        if let Some(rate) = rate {
            let due = began + Duration::from_secs(1) * number / rate;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let (client, server) = Sock::pair(listener);
        cookies.insert(client.cookie);
        cookies.insert(server.cookie);
    }
    let rate = f64::from(CONNECTIONS) / began.elapsed().as_secs_f64();
    println!("{CONNECTIONS} connections at {rate:.0} a second");
    assert_eq!(
        cookies.len(),
        2 * CONNECTIONS as usize,
        "a cookie is never given twice"
    );
    cookies
}

/// Every cookie is opened once and then closed once, no other is, and nothing
/// is lost.
fn churn(tick: Tick, rate: Option<u32>) {
    let listener = Sock::listener(Domain::V4);
    let idle = if tick == Tick::Fast { IDLE } else { 0 };
    allow_descriptors(2 * IDLE as u64 + 100);
    let _idle: Vec<_> = (0..idle).map(|_| Sock::pair(&listener)).collect();
    let daemon = Launch::new(tick).setting("receive-buffer", "32MiB").start();
    let cookies = generate(&listener, rate);
    daemon.settle();
    let record = daemon.stop();
    assert_eq!(record.own(), Vec::<&Value>::new(), "nothing was lost");
    let mut actions: BTreeMap<u64, Vec<&str>> =
        cookies.iter().map(|cookie| (*cookie, Vec::new())).collect();
    for event in record.events() {
        let cookie = event["data"]["cookie"].as_u64().expect("a cookie");
        let action = event["data"]["action"].as_str().expect("an action");
        match actions.get_mut(&cookie) {
            Some(actions) => actions.push(action),
            None => panic!("nobody made this socket: {event}"),
        }
    }
    let wrong: Vec<_> = actions
        .iter()
        .filter(|(_, actions)| **actions != ["opened", "closed"])
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {}: {wrong:?}",
        wrong.len(),
        cookies.len()
    );
}

/// Raises the soft limit of open files, which is often 1024.
pub fn allow_descriptors(count: u64) {
    // SAFETY: zeros are a valid rlimit, and both calls are given one that lives
    // across them.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit)).expect("getrlimit");
        limit.rlim_cur = limit.rlim_cur.max(count);
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)).expect("enough descriptors");
    }
}

#[test]
fn five_hundred_a_second() {
    netns::run("churn::five_hundred_a_second", || {
        churn(Tick::Fast, Some(500))
    });
}

fn flat_out(tick: Tick) {
    if netns::is_root() {
        churn(tick, None);
    } else {
        netns::skip("the receive buffer that this rate needs is only granted to root");
    }
}

#[test]
fn flat_out_between_ticks() {
    netns::run("churn::flat_out_between_ticks", || flat_out(Tick::Slow));
}

#[test]
fn flat_out_under_dumps() {
    netns::run("churn::flat_out_under_dumps", || flat_out(Tick::Fast));
}
