//! `cpu-budget`: dumps keep within their share, also those that reconcile, and
//! nothing is lost by it.

use std::time::{Duration, Instant};

use crate::churn::allow_descriptors;
use crate::daemon::{Daemon, Launch, Tick};
use crate::netns;
use crate::overrun::overrun;
use crate::refused::counted;
use crate::sock::{Domain, Sock};

/// Connections that stay, which make a dump cost milliseconds.
const CROWD: usize = 2000;
/// For how long notices are dropped again and again.
const STRAIN: Duration = Duration::from_secs(4);

/// The CPU time of its main thread (`Documentation/scheduler/sched-stats.rst`).
fn cpu(daemon: &Daemon) -> Duration {
    let path = format!("/proc/{}/schedstat", daemon.id());
    let text = std::fs::read_to_string(path).expect("it runs");
    let nanos = text.split_whitespace().next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanos.expect("a number of nanoseconds"))
}

fn bound() -> Sock {
    let socket = Sock::udp(Domain::V4);
    socket.bind_loopback();
    socket
}

fn is_stretched(line: &str) -> bool {
    line.contains("ticks are stretched")
}

/// Overrun follows overrun beside a large table. Each is a gap that takes two
/// rounds of dumps, which at once, and one after the other, would take most of a
/// core.
#[test]
fn gaps_keep_within_it() {
    netns::run("budget::gaps_keep_within_it", || {
        allow_descriptors(2 * CROWD as u64 + 500);
        let listener = Sock::listener(Domain::V4);
        let _crowd: Vec<_> = (0..CROWD).map(|_| Sock::pair(&listener)).collect();
        let mut tracked: Vec<Sock> = (0..100).map(|_| bound()).collect();
        let cookies: Vec<u64> = tracked.iter().map(|socket| socket.cookie).collect();
        let daemon = Launch::new(Tick::Fast)
            .sensors("  sockets: {listener: net.socket, args: {initial: true, process: false}}\n")
            .setting("receive-buffer", "4KiB")
            .setting("cpu-budget", "1%")
            .without_beacon()
            .start();
        daemon.opened(&cookies);
        let last = tracked.split_off(50);
        let mut tracked = tracked.into_iter();
        let (began, before) = (Instant::now(), cpu(&daemon));
        let mut bursts = 0;
        while began.elapsed() < STRAIN {
            drop(tracked.next());
            (0..200).for_each(|_| drop(bound()));
            bursts += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(tracked);
        let (took, used) = (began.elapsed(), cpu(&daemon) - before);
        let share = used.as_secs_f64() / took.as_secs_f64();
        println!("{bursts} bursts: {:.1} % of a core", 100.0 * share);
        // What is noticed costs its part, in a build for debugging a lot of it.
        assert!(share < 0.4, "{share}");
        daemon.closed(&cookies[..50]);
        daemon.wait_for_line("that ticks are stretched", is_stretched);
        daemon.wait_for_line("that they keep their time", |line| {
            line.contains("ticks keep their time")
        });

        // The end waits for no price: what it does not tell nobody will.
        let told = daemon.count_lines(is_stretched);
        overrun(&daemon, || {
            drop(last);
            daemon.signal(libc::SIGTERM);
        });
        let (status, record) = daemon.end();
        assert_eq!(status.code(), Some(0), "log:\n{}", record.log);
        for cookie in &cookies {
            record.find("closed", *cookie);
        }
        assert!(told <= 3, "said once while it lasts: {}", record.log);
        let gaps = record.own().len();
        assert!(gaps > 0, "nothing was dropped");
        let (dumps, overruns) = (
            counted(&record.log, "dumps"),
            counted(&record.log, "overruns"),
        );
        println!("{overruns} overruns, {gaps} gaps, {dumps} dumps");
        assert!(dumps < 150, "{dumps} dumps, {gaps} gaps");
        assert!(counted(&record.log, "dumps_rested") > 0, "{}", record.log);
    });
}
