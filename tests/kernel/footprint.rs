//! What the daemon costs a machine: its size, and what it takes while nothing
//! happens.
//!
//! The README promises these figures of the program as it is shipped, and
//! `.ci/run` runs these tests against that, with BPF and without:
//!
//! ```text
//! SOCKWATCH_TEST_BINARY=target/release/sockwatch SOCKWATCH_TEST_SHIPPED=bpf \
//!     cargo test --test kernel footprint::
//! ```
//!
//! A build for debugging, whose code alone is several times as large, has bounds
//! of its own, and no bound on its size. No bound is on a time that a loaded
//! machine stretches: wake-ups are counted against the time that has passed.

mod flood;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::churn::allow_descriptors;
use crate::daemon::{Daemon, Launch, PATIENCE, Scratch, Tick, binary};
use crate::netns;
use crate::sock::{Domain, Sock};

/// What is promised of one build.
struct Bounds {
    /// Of the file, stripped, in bytes.
    size: Option<u64>,
    /// Resident when idle, in KiB.
    resident: u64,
    /// What a tracked socket may add, in bytes.
    per_socket: u64,
    /// How many sockets that is measured with.
    sockets: u64,
    /// How long wake-ups are counted.
    watched: Duration,
}

/// What cargo builds for the tests. Of a few thousand sockets each pays for a
/// share of tables that are half empty.
const DEBUG: Bounds = Bounds {
    size: None,
    resident: 16 << 10,
    per_socket: 400,
    sockets: 6000,
    watched: Duration::from_secs(6),
};

/// What is shipped, with BPF: the figures of DESIGN section 9. What the program
/// takes is less, which is the slack. But 128 bytes a socket are promised of 100,000
/// (`cargo bench --bench figures -- --only memory`): of 14,000 each bears more of
/// what was needed at the start.
const SHIPPED: Bounds = Bounds {
    size: Some(2 << 20),
    resident: 4 << 10,
    per_socket: 192,
    sockets: 14_000,
    watched: Duration::from_secs(20),
};

/// What is shipped without BPF.
const PLAIN: Bounds = Bounds {
    size: Some(3 << 19),
    ..SHIPPED
};

/// The bounds of the program that is tested: `SOCKWATCH_TEST_SHIPPED` says `bpf` or
/// `plain` where that is a release.
fn bounds() -> Bounds {
    match std::env::var("SOCKWATCH_TEST_SHIPPED").as_deref() {
        Err(std::env::VarError::NotPresent) => DEBUG,
        Ok("bpf") => SHIPPED,
        Ok("plain") => PLAIN,
        other => panic!("SOCKWATCH_TEST_SHIPPED is `bpf` or `plain`, not {other:?}"),
    }
}

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
        let bounds = bounds();
        // Several ticks, so that what they need once is there.
        let (before, since) = (waits(&daemon), Instant::now());
        std::thread::sleep(bounds.watched);
        let (woken, seconds) = (waits(&daemon) - before, since.elapsed().as_secs());
        // Once a tick, which is a second: sixty a minute; some for what was left of
        // the start.
        assert!(woken <= seconds + 4, "{woken} wake-ups in {seconds} s");

        assert_eq!(number(&daemon, "status", "Threads"), 1);
        let resident = resident(&daemon);
        assert!(resident <= bounds.resident, "{resident} KiB are resident");
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

/// The difference between two daemons, of which one has found sockets at start,
/// and who has them.
#[test]
fn a_socket() {
    netns::run("footprint::a_socket", || {
        let Bounds {
            sockets,
            per_socket,
            ..
        } = bounds();
        allow_descriptors(sockets + 100);
        let resident_beside = |sockets: u64| {
            let held: Vec<Sock> = (0..sockets)
                .map(|_| {
                    let sock = Sock::udp(Domain::V4);
                    sock.bind_loopback();
                    sock
                })
                .collect();
            let daemon = built_in();
            at_rest(&daemon);
            let resident = resident(&daemon) << 10;
            drop(daemon);
            drop(held);
            resident
        };
        let (few, many) = (resident_beside(10), resident_beside(sockets));
        let each = many.saturating_sub(few) / (sockets - 10);
        println!("a socket: {each} bytes of {sockets}");
        assert!(each <= per_socket, "{each} bytes a socket");
    });
}

/// Waits until it only wakes up for its ticks, one a second: it has found out who
/// has what it read at start.
fn at_rest(daemon: &Daemon) {
    let deadline = Instant::now() + PATIENCE;
    let mut before = waits(daemon);
    loop {
        std::thread::sleep(Duration::from_millis(1500));
        let now = waits(daemon);
        if now - before <= 3 {
            return;
        }
        assert!(Instant::now() < deadline, "it does not come to rest");
        before = now;
    }
}

/// The file, as it is shipped.
#[test]
fn the_size_of_the_program() {
    let Some(most) = bounds().size else {
        return netns::visibly(
            "SKIPPED footprint::the_size_of_the_program: it is promised of a release, which .ci/run tests",
        );
    };
    let size = fs::metadata(binary()).expect("the program").len();
    println!("the program: {size} bytes");
    assert!(size <= most, "{size} bytes of {most}");
}
