//! What the daemon costs a machine on which nothing happens.
//!
//! The README has the figures of the release build; the bounds here have slack,
//! and a build for debugging, whose code alone is several times as large, has
//! bounds of its own. No bound is on a time that a loaded machine stretches:
//! wake-ups are counted against the time that has passed.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::churn::allow_descriptors;
use crate::daemon::{Daemon, Launch, PATIENCE, Scratch, Tick, binary};
use crate::netns;
use crate::sock::{Domain, Sock};

/// What may be resident when idle, in KiB. DESIGN has 4 MiB for the program as it
/// is shipped.
const RESIDENT: u64 = if cfg!(debug_assertions) {
    16 << 10
} else {
    5 << 10
};

/// What a tracked socket may add, in bytes: 128 at 100,000 (`cargo bench`); a few
/// thousand pay for tables that are half empty.
const PER_SOCKET: u64 = 400;

/// Standard streams, epoll and its waker, signals, the notice sockets, the dump
/// socket, the counters of the namespace, /proc and cgroups.
const DESCRIPTORS: usize = 32;

/// A number of a file of /proc/PID that has a key a line.
fn number(daemon: &Daemon, file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/{file}", daemon.id())).expect("it runs");
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let word = value.and_then(|value| value.split_whitespace().next());
    word.and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("no {key} in its {file}"))
}

/// What is resident, in KiB. VmRSS in its status is counted for each CPU and may
/// be some hundred KiB off (proc_pid_status(5)); this is exact.
fn resident(daemon: &Daemon) -> u64 {
    number(daemon, "smaps_rollup", "Rss")
}

/// How often it has waited: each wake-up is one wait.
fn waits(daemon: &Daemon) -> u64 {
    number(daemon, "status", "voluntary_ctxt_switches")
}

/// One with the built-in configuration.
fn built_in() -> Daemon {
    let daemon = Daemon::spawn(Command::new(binary()), Scratch::new());
    daemon.wait_for_line("the line that says `ready`", |line| line.contains("ready"));
    daemon
}

#[test]
fn idle() {
    netns::run("footprint::idle", || {
        let daemon = built_in();
        // Two ticks, so that what they need once is there.
        let (before, since) = (waits(&daemon), Instant::now());
        std::thread::sleep(Duration::from_secs(6));
        let (woken, seconds) = (waits(&daemon) - before, since.elapsed().as_secs());
        // Once a tick, which is a second; some for what was left of the start.
        assert!(woken <= seconds + 4, "{woken} wake-ups in {seconds} s");

        assert_eq!(number(&daemon, "status", "Threads"), 1);
        let resident = resident(&daemon);
        assert!(resident <= RESIDENT, "{resident} KiB are resident");
        let descriptors = fs::read_dir(format!("/proc/{}/fd", daemon.id()))
            .expect("it runs")
            .count();
        assert!(
            descriptors <= DESCRIPTORS,
            "{descriptors} descriptors are open"
        );
        println!(
            "idle: {resident} KiB, {descriptors} descriptors, {woken} wake-ups in {seconds} s"
        );
    });
}

/// Without a tick to wait for, nothing wakes it.
#[test]
fn nothing_wakes_it_between_two_ticks() {
    netns::run("footprint::nothing_wakes_it_between_two_ticks", || {
        let daemon = Launch::new(Tick::Slow).without_beacon().start();
        let deadline = Instant::now() + PATIENCE;
        let mut before = waits(&daemon);
        loop {
            std::thread::sleep(Duration::from_secs(3));
            let now = waits(&daemon);
            if now == before {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "it wakes again and again: {} times in 3 s",
                now - before
            );
            before = now;
        }
    });
}

/// The difference between two daemons, of which one has found sockets at start.
#[test]
fn a_socket() {
    const SOCKETS: u64 = 6000;
    netns::run("footprint::a_socket", || {
        allow_descriptors(SOCKETS + 100);
        let resident_beside = |sockets: u64| {
            let held: Vec<Sock> = (0..sockets)
                .map(|_| {
                    let sock = Sock::udp(Domain::V4);
                    sock.bind_loopback();
                    sock
                })
                .collect();
            let daemon = built_in();
            let resident = resident(&daemon) << 10;
            drop(daemon);
            drop(held);
            resident
        };
        let (few, many) = (resident_beside(10), resident_beside(SOCKETS));
        let each = many.saturating_sub(few) / (SOCKETS - 10);
        println!("a socket: {each} bytes");
        assert!(each <= PER_SOCKET, "{each} bytes a socket");
    });
}
