//! Locks that handlers release.

use super::{EID, counted, happen, until};
use crate::daemon::{Daemon, Launch, Scratch, Tick};
use crate::netns;
use crate::proc_net;
use crate::sock::{Domain, Sock};

/// As [`super::WATCH`], locked.
const LOCKED: &str = "  w: {listener: net.socket, opts: [closed], \
     args: {patterns: [\"udp4 127.0.0.5:* * * *\"], locked: true}}\n";

fn locked(handlers: &str) -> Daemon {
    Launch::new(Tick::Slow)
        .sensors(LOCKED)
        .handlers(handlers)
        .debug()
        .start()
}

/// How many events there were of `w`.
fn said(daemon: &Daemon) -> usize {
    daemon.count(|event| event["sensor"] == "w")
}

/// Waits for a line like `handler h released ...`; what it had muted.
fn released(daemon: &Daemon, handler: &str, muted: usize) {
    let line = format!("handler {handler} released {EID}, which had muted {muted} events");
    daemon.wait_for_line(&line, |told| told.contains(&line));
}

#[test]
fn a_run_that_succeeds_releases() {
    netns::run("handlers::locks::a_run_that_succeeds_releases", || {
        let scratch = Scratch::new();
        let dir = scratch.path().display();
        let script = format!(
            "echo >{dir}/begun; while [ ! -e {dir}/gate ]; do sleep 0.02; done; \
             rm {dir}/begun; [ -e {dir}/good ]"
        );
        let daemon = locked(&format!(
            "  h: {{match: \"w|*\", unlock: on-success, exec: [/bin/sh, -c, \"{script}\"]}}\n"
        ));
        // One event, ten muted repeats, and a run that fails: the lock holds.
        let first = happen(1)[0];
        daemon.reported("w", "closed", first);
        until("the run", || scratch.path().join("begun").exists());
        let gate = scratch.write("gate", "");
        daemon.wait_for_line("the failure", |line| {
            line.contains("failed: exit status: 1")
        });
        happen(10);
        daemon.settle();
        assert_eq!(said(&daemon), 1, "locked");
        daemon.signal(libc::SIGUSR1);
        daemon.wait_for_line("the release", |line| {
            line.contains("released 1 locks, which had muted 10 events")
        });

        // The same with a run that succeeds: the next event arrives.
        std::fs::remove_file(gate).expect("one's own file");
        scratch.write("good", "");
        daemon.reported("w", "closed", happen(1)[0]);
        happen(10);
        daemon.settle();
        assert_eq!(said(&daemon), 2, "locked again");
        scratch.write("gate", "");
        released(&daemon, "h", 10);
        daemon.reported("w", "closed", happen(1)[0]);
        // With the gate open each run releases at once; its event was the third.
        released(&daemon, "h", 0);
        let record = daemon.stop();
        assert_eq!(record.events().count(), 3);
        assert_eq!(counted(&record, "locks_released"), 2, "{}", record.log);
        assert_eq!(counted(&record, "events_muted"), 20);
    });
}

#[test]
fn always_releases_whatever_becomes_of_it() {
    netns::run(
        "handlers::locks::always_releases_whatever_becomes_of_it",
        || {
            for (exec, told) in [
                ("[/bin/false]", "failed: exit status: 1"),
                ("[/nonexistent/program]", "cannot be started"),
                ("[/bin/sleep, '100']", "takes too long"),
            ] {
                let daemon = locked(&format!(
                    "  h: {{match: \"w|*\", unlock: always, timeout: 100ms, exec: {exec}}}\n"
                ));
                daemon.reported("w", "closed", happen(1)[0]);
                released(&daemon, "h", 0);
                daemon.reported("w", "closed", happen(1)[0]);
                let record = daemon.stop();
                assert!(record.log.contains(told), "{}", record.log);
            }
        },
    );
}

/// Nobody took the event: its lock goes, and the next one is offered again.
#[test]
fn an_event_that_found_no_room_is_not_locked() {
    netns::run(
        "handlers::locks::an_event_that_found_no_room_is_not_locked",
        || {
            let daemon = Launch::new(Tick::Slow)
                .sensors(
                    "  w: {listener: net.socket, opts: [closed], \
                     args: {patterns: [\"udp4 * 127.0.0.6:* * *\"], locked: true}}\n",
                )
                .setting("stdout", "false")
                .without_beacon()
                .handlers("  h: {match: \"w|*\", queue: 2, exec: [/bin/sleep, '100']}\n")
                .start();
            // Four ids; there is room for two. Then the same again: those are
            // locked, the others are not.
            for _ in 0..2 {
                daemon.paused(|| {
                    for port in 1..=4 {
                        let remote = format!("127.0.0.6:{port}");
                        let socket = Sock::udp(Domain::V4);
                        let connected = socket.connect(remote.parse().expect("an address"));
                        connected.expect("UDP connects to anybody");
                    }
                    proc_net::written();
                });
            }
            daemon.signal(libc::SIGTERM);
            let (status, record) = daemon.end();
            assert_eq!(status.code(), Some(0), "{}", record.log);
            assert_eq!(counted(&record, "events_muted"), 2, "{}", record.log);
            assert_eq!(counted(&record, "events_dropped"), 4);
            // One may have run by then.
            let taken = counted(&record, "runs_failed") + counted(&record, "runs_left");
            assert_eq!(taken, 2);
        },
    );
}
