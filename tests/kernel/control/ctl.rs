//! `sockwatch ctl`, as it is used.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::Place;
use crate::child;
use crate::daemon::{PATIENCE, Scratch, Tick, binary, once};
use crate::netns;
use crate::sock::{Domain, Sock};

/// Exit code, standard output and standard error.
fn ctl(place: &Place, args: &[&str]) -> (i32, String, String) {
    let output = once(&[&["ctl", "--socket", place.text()], args].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().expect("no signal ended it");
    (code, text(&output.stdout), text(&output.stderr))
}

fn good(place: &Place, args: &[&str]) -> String {
    let (code, out, err) = ctl(place, args);
    assert_eq!((code, err.as_str()), (0, ""), "{args:?}: {out}");
    out
}

fn json(lines: &str) -> Vec<Value> {
    let parsed = lines.lines().map(serde_json::from_str);
    parsed.collect::<Result<_, _>>().expect("JSON lines")
}

#[test]
fn answers_and_exit_codes() {
    netns::run("control::ctl::answers_and_exit_codes", || {
        let place = Place::new();
        let daemon = place
            .launch(Tick::Fast)
            .sensors(
                "  sockets: {listener: net.socket, args: {locked: true, patterns: [\"tcp6 *\"]}}\n",
            )
            .start();
        let listener = Sock::listener(Domain::V6);
        daemon.opened(&[listener.cookie]);
        daemon.ticks(1);
        let eid = "sockets|net.socket|opened@[::]:0|0";

        assert_eq!(json(&good(&place, &["ping"]))[0]["ok"], true);
        assert!(good(&place, &["--format", "text", "ping"]).contains("is there: process"));
        assert_eq!(json(&good(&place, &["stats"]))[0]["locks"], 1);
        assert!(good(&place, &["--format=text", "stats"]).contains("events_muted"));
        let rows = json(&good(&place, &["dump"]));
        assert!(
            rows.iter().any(|row| row["cookie"] == listener.cookie),
            "{rows:?}"
        );
        let table = good(&place, &["dump", "--format=text"]);
        assert!(table.starts_with("PROTO  STATE"), "{table}");
        assert!(table.contains(&listener.local().to_string()), "{table}");
        let table = good(&place, &["locks", "--format=text"]);
        assert!(
            table.starts_with("EVENT ID") && table.contains(eid),
            "{table}"
        );
        assert_eq!(json(&good(&place, &["locks"]))[0]["eid"], eid);

        // What can be done is done, and the rest is a failure.
        let (code, out, err) = ctl(&place, &["unlock", "no such id", eid]);
        assert_eq!(code, 1);
        assert_eq!(json(&out)[0]["eid"], eid);
        assert!(err.contains("no such id"), "{err}");
        assert_eq!(good(&place, &["unlock", "*"]), "");
        let text = good(&place, &["unlock", "*", "--format=text"]);
        assert_eq!(text, "released 0 locks, which had muted 0 events\n");
        daemon.stop();

        let (code, out, err) = ctl(&place, &["ping"]);
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(
            err.contains(place.text()) && err.contains("--socket"),
            "{err}"
        );
        for bad in [&["pnig"][..], &[], &["unlock"], &["subscribe", "{a"]] {
            let (code, out, err) = ctl(&place, bad);
            assert_eq!((code, out.as_str()), (2, ""), "{bad:?}");
            assert!(err.contains("ctl --help"), "{err}");
        }
        assert!(good(&place, &["--help"]).contains("subscribe [GLOB]"));
    });
}

/// All of a lock's life: an event, ten that are muted, what `ctl locks` says of
/// them, a program that succeeds and releases, and the next event.
#[test]
fn a_lock_from_its_event_to_the_next() {
    netns::run("control::ctl::a_lock_from_its_event_to_the_next", || {
        let place = Place::new();
        let scratch = Scratch::new();
        let dir = scratch.path().display();
        let script = format!(
            "while [ ! -e {dir}/gate ]; do sleep 0.02; done; echo \\\"$SOCKWATCH_EID\\\" >> {dir}/ran"
        );
        let daemon = place
            .launch(Tick::Slow)
            .sensors(
                "  w: {listener: net.socket, opts: [closed], \
                 args: {patterns: [\"udp4 127.0.0.5:* * * *\"], locked: true}}\n",
            )
            .handlers(&format!(
                "  h: {{match: \"w|*\", unlock: on-success, exec: [/bin/sh, -c, \"{script}\"]}}\n"
            ))
            .start();
        let eid = "w|net.socket|closed@0.0.0.0:0|0";
        let happen = || {
            let socket = Sock::udp(Domain::V4);
            socket.bind("127.0.0.5:0".parse().expect("an address"));
            socket.cookie
        };
        daemon.reported("w", "closed", happen());
        (0..10).for_each(|_| {
            happen();
        });
        daemon.settle();
        assert_eq!(daemon.count(|event| event["sensor"] == "w"), 1, "locked");
        let locks = json(&good(&place, &["locks"]));
        assert_eq!(locks.len(), 1, "{locks:?}");
        assert_eq!(
            (&locks[0]["eid"], &locks[0]["muted"]),
            (&eid.into(), &10.into())
        );

        scratch.write("gate", "");
        let deadline = Instant::now() + PATIENCE;
        while !good(&place, &["locks"]).is_empty() {
            assert!(Instant::now() < deadline, "the lock is still held");
            std::thread::sleep(Duration::from_millis(20));
        }
        let ran = std::fs::read_to_string(scratch.path().join("ran")).expect("it has run");
        assert_eq!(ran, format!("{eid}\n"));
        daemon.reported("w", "closed", happen());
        let record = daemon.stop();
        let said = record.events().filter(|event| event["sensor"] == "w");
        assert_eq!(said.count(), 2);
    });
}

fn subscribe(place: &Place) -> Child {
    let mut command = Command::new(binary());
    command
        .args(["ctl", "--socket", place.text(), "subscribe", "sockets|*"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: one system call.
    unsafe { command.pre_exec(netns::die_with_parent) };
    command.spawn().expect("the binary can be started")
}

/// Makes events until one of them has been told.
fn first_line(lines: &mut impl BufRead) -> Value {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let pause = std::time::Duration::from_millis(20);
            while stopped.recv_timeout(pause) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                Sock::udp(Domain::V4).bind_loopback();
            }
        });
        let mut line = String::new();
        lines.read_line(&mut line).expect("a pipe can be read");
        drop(stop);
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    })
}

#[test]
fn subscribe_goes_on_until_the_daemon_ends() {
    netns::run(
        "control::ctl::subscribe_goes_on_until_the_daemon_ends",
        || {
            let place = Place::new();
            let daemon = place.launch(Tick::Slow).start();
            let mut child = subscribe(&place);
            let mut lines = BufReader::new(child.stdout.take().expect("piped"));
            assert_eq!(first_line(&mut lines)["sensor"], "sockets");
            daemon.stop();
            for line in lines.lines() {
                let line = line.expect("a pipe can be read");
                let event: Value = serde_json::from_str(&line).expect("whole lines");
                assert_eq!(event["sensor"], "sockets");
            }
            let output = child::finish(child, PATIENCE).expect("it ends with the daemon");
            assert_eq!(output.status.code(), Some(1));
            assert!(child::text(&output).contains("the daemon is gone"));
        },
    );
}

#[test]
fn subscribe_ends_quietly_with_its_reader() {
    netns::run(
        "control::ctl::subscribe_ends_quietly_with_its_reader",
        || {
            let place = Place::new();
            let daemon = place.launch(Tick::Slow).start();
            let mut child = subscribe(&place);
            let mut lines = BufReader::new(child.stdout.take().expect("piped"));
            first_line(&mut lines);
            // Nothing is under way any more, and nothing more happens.
            daemon.settle();
            std::thread::sleep(std::time::Duration::from_millis(200));
            drop(lines);
            let ended = child::finish(child, PATIENCE);
            let output = ended.expect("it ends by itself");
            assert_eq!(output.status.code(), Some(0), "{}", child::text(&output));
            assert_eq!(child::text(&output), "");
            daemon.stop();
        },
    );
}
