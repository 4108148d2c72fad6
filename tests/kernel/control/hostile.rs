//! A thousand connections that write garbage, never read, stop mid-line, say
//! nothing, or go away half-way. Nobody else notices.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{Client, Place, is_end_of};
use crate::churn::allow_descriptors;
use crate::daemon::{Launch, PATIENCE, Tick};
use crate::netns;
use crate::sock::{Domain, Sock};

const CONNECTIONS: usize = 1000;
/// What they may cost: 256 places with a request and a reply's piece each.
const MEMORY: u64 = 20 << 10;

/// Writes what the daemon takes; it may hang up at any moment.
fn pour(stream: &mut UnixStream, bytes: &[u8], times: usize) {
    stream.set_nonblocking(true).expect("a flag can be set");
    for _ in 0..times {
        match stream.write_all(bytes) {
            Ok(()) => {}
            Err(error) => {
                let expected = [
                    ErrorKind::WouldBlock,
                    ErrorKind::BrokenPipe,
                    ErrorKind::ConnectionReset,
                ];
                assert!(expected.contains(&error.kind()), "{error}");
                return;
            }
        }
    }
}

/// One of them; none when it has gone away again.
fn attack(socket: &Path, number: usize) -> Option<UnixStream> {
    let mut stream = UnixStream::connect(socket).expect("a connection can always be tried");
    match number % 8 {
        // Garbage, in lines and without an end.
        0 => pour(&mut stream, b"\x00\xff{[\"garbage\n\n\n", 500),
        1 => pour(&mut stream, &[b'['; 8192], 10),
        // Requests whose replies nobody reads.
        2 => pour(&mut stream, &b"{\"request\":\"dump\"}\n".repeat(64), 100),
        3 => pour(&mut stream, &b"{\"request\":\"stats\"}\n".repeat(64), 100),
        // Half a line.
        4 => pour(&mut stream, b"{\"request\":", 1),
        // Silence.
        5 => {}
        // One direction closed, a subscription that nobody reads.
        6 => {
            pour(&mut stream, b"{\"request\":\"subscribe\"}\n", 1);
            // The daemon may have hung up to make room.
            drop(stream.shutdown(Shutdown::Write));
        }
        // Gone at once, with a request under way.
        _ => {
            pour(
                &mut stream,
                b"{\"request\":\"locks\"}\n{\"request\":\"dump\"}\n",
                1,
            );
            return None;
        }
    }
    Some(stream)
}

/// The resident memory of a process, in KiB.
fn resident(pid: &Value) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let words = line.expect("it has memory").split_whitespace();
    words
        .filter_map(|word| word.parse().ok())
        .next()
        .expect("a number")
}

/// The processor time that a process has taken (proc_pid_schedstat(5): in ns).
fn cpu(pid: &Value) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("it runs");
    let first = text.split_whitespace().next().expect("three numbers");
    Duration::from_nanos(first.parse().expect("a number"))
}

fn launch(place: &Place) -> Launch {
    place
        .launch(Tick::Slow)
        .setting("queue", "4096")
        .setting("receive-buffer", "32MiB")
}

#[test]
fn a_thousand() {
    netns::run("control::hostile::a_thousand", || {
        allow_descriptors(CONNECTIONS as u64 + 200);
        let place = Place::new();
        let daemon = launch(&place).start();
        let listener = Sock::listener(Domain::V4);
        let _living: Vec<_> = (0..50).map(|_| Sock::pair(&listener)).collect();
        let mut good = Client::subscribed(&place.socket);
        let (_, before) = Client::new(&place.socket).ask(r#"{"request":"ping"}"#);
        let memory = resident(&before["pid"]);
        let mut hostile = Vec::new();
        let mut sockets = Vec::new();
        let mut events: Vec<Value> = Vec::new();
        for number in 0..CONNECTIONS {
            hostile.extend(attack(&place.socket, number));
            let socket = Sock::udp(Domain::V4);
            socket.bind_loopback();
            sockets.push(socket.cookie);
            drop(socket);
            // Amid all that a client that means well is let in and answered, and
            // a subscriber that reads gets every event.
            if number % 100 == 99 {
                let (_, reply) = Client::new(&place.socket).ask(r#"{"request":"ping"}"#);
                assert_eq!(reply["pid"], before["pid"]);
                let last = sockets[number];
                events.extend(good.events_until(|record| is_end_of(record, last)));
            }
        }
        let grown = resident(&before["pid"]).saturating_sub(memory);
        println!("a thousand hostile clients cost {grown} KiB");
        assert!(grown < MEMORY, "memory grew by {grown} KiB");
        for pair in events.windows(2) {
            assert_eq!(
                pair[0]["seq"].as_u64().map(|seq| seq + 1),
                pair[1]["seq"].as_u64()
            );
        }
        let (_, stats) = Client::new(&place.socket).ask(r#"{"request":"stats"}"#);
        assert!(stats["clients"].as_u64() <= Some(256), "{stats}");
        assert!(
            stats["counters"]["control_evicted"].as_u64() > Some(0),
            "{stats}"
        );
        assert_eq!(stats["counters"]["overruns"], 0);
        // Whoever neither reads nor writes costs no time, once what was asked for
        // before has been worked off.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let spent = cpu(&before["pid"]);
            std::thread::sleep(Duration::from_millis(500));
            let spent = cpu(&before["pid"]) - spent;
            if spent < Duration::from_millis(100) {
                break;
            }
            assert!(Instant::now() < deadline, "{spent:?} for nothing");
        }
        drop(hostile);
        // All places are free again.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, stats) = Client::new(&place.socket).ask(r#"{"request":"stats"}"#);
            if stats["clients"].as_u64() <= Some(3) {
                break;
            }
            assert!(Instant::now() < deadline, "they stay: {stats}");
            std::thread::sleep(Duration::from_millis(20));
        }
        sockets.sort_unstable();
        let record = daemon.finish(&sockets);
        // Not in the order of their making: the kernel hands notices out through a
        // work queue, where two can change places.
        for action in ["opened", "closed"] {
            let mut told = record.only(&sockets).cookies(action);
            told.sort_unstable();
            assert!(told == sockets, "standard output has each {action} once");
        }
    });
}
