//! Names that their owner chose to do harm.
//!
//! The C library refuses most of them itself, some versions more than others,
//! and then there is no name, with a reason. Where it lets one through, the
//! event must hold it escaped. Either way no byte of it acts: not on a
//! terminal, not on a line, not on a field.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use super::server::{Answer, Server, labels};
use super::{datagrams, run, sensor, udp_events, web};
use crate::daemon::{BINARY, Launch, PATIENCE, Scratch, Tick, once};
use crate::expect::Expect;
use crate::sock::{Domain, Sock};

/// Labels, and how they may be shown at most: folded, and escaped twice, once by
/// the C library in its way and once by sockwatch.
fn hostile() -> Vec<(IpAddr, Answer)> {
    let long = [b'a'; 63];
    let names: &[&[&[u8]]] = &[
        &[b"a b ESTABLISHED", b"org"],
        &[b"www ESTABLISHED\nopened tcp", b"org"],
        &[b"\x1b[2J\x1b]0;owned\x07", b"org"],
        &[b"\r\x08\x7f\x00\x9b31m", b"org"],
        &[b"www.bank", b"example", b"org"],
        &[b"a|b@c", b"org"],
        &[b"\"},{\"seq\":1", b"org"],
        &[b"(203.0.113.1)", b"sensor=other"],
        &[b"\\032\\", b"org"],
        &[b"\xff\xfe\xc3\x28", b"org"],
        &["b\u{fc}cher".as_bytes(), "\u{202e}gro".as_bytes()],
        &[b"*", b"org"],
        &[b"-"],
        &[b"-", b"org"],
        &[b""],
        // 253 characters, the longest there is.
        &[&long, &long, &long, &long[2..]],
        // And one more, which is not a name any more.
        &[&long, &long, &long, &long[1..]],
        &[&long, &long, &long, &long, &long],
    ];
    let answers = names.iter().map(|name| labels(name)).chain([
        // A name that is a pointer to itself, one that ends in the middle, and
        // no name at all.
        Answer::Record(vec![0xc0, 58]),
        Answer::Record(b"\x03www".to_vec()),
        Answer::Record(Vec::new()),
    ]);
    (1..).map(web).zip(answers).collect()
}

/// The name that is as long as names can be and has no other fault.
const LONGEST: usize = 15;

fn longest() -> String {
    let label = "a".repeat(63);
    format!("{label}.{label}.{label}.{}", &label[2..])
}

/// Tells the server, and opens a socket to each address.
fn open(server: &Server) -> Vec<Sock> {
    let hostile = hostile();
    for (ip, answer) in &hostile {
        server.answer(*ip, answer.clone());
    }
    hostile.iter().map(|(ip, _)| datagrams(Domain::V4, *ip)).collect()
}

/// Letters, digits, `.`, `-` and `_`, and bytes in the form `\ddd`; and not the
/// sign for no name.
fn is_safe(name: &str) -> bool {
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {}
            b'\\' if (0..3).all(|_| rest.next().is_some_and(|byte| byte.is_ascii_digit())) => {}
            _ => return false,
        }
    }
    !name.is_empty() && name != "-"
}

#[test]
fn in_json_a_name_is_safe_or_none() {
    run("names::hostile::in_json_a_name_is_safe_or_none", |server| {
        let daemon = Launch::new(Tick::Fast).sensors(&sensor(", dns-timeout: 60s")).start();
        let sockets = daemon.paused(|| open(server));
        let mut expected: Vec<Expect> = Vec::new();
        let mut closed = Vec::new();
        for (place, socket) in sockets.into_iter().enumerate() {
            let cookie = socket.cookie;
            daemon.opened(&[cookie]);
            let event = daemon.wait_for("its event", |event| event["data"]["cookie"] == cookie);
            let data = &event["data"];
            let events = udp_events(socket.close());
            match data["remote_host"].as_str() {
                Some(name) => {
                    assert!(is_safe(name), "{name:?} of number {place}");
                    expected.extend(events.map(|event| event.named(name)));
                }
                None => {
                    assert_ne!(place, LONGEST, "the longest name is a name");
                    let reason = data["remote_host_reason"].as_str().expect("a reason");
                    assert!(["not_found", "failed"].contains(&reason), "{event}");
                    expected.extend(events.map(|event| event.nameless(reason)));
                }
            }
            if place == LONGEST {
                assert_eq!(data["remote_host"], longest());
            }
            closed.push(cookie);
        }
        // Every line was one JSON object, with every key as it must be.
        daemon.finish(&closed).hold(&expected);
    });
}

/// The lines that a daemon writes in text form, until there are so many.
fn text_lines(sensors: &str, count: usize) -> Vec<String> {
    let scratch = Scratch::new();
    let config = scratch.write("sockwatch.yaml", &format!("sensors:\n{sensors}"));
    let mut child = Command::new(BINARY)
        .args(["--format", "text", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary can be started");
    let stdout = BufReader::new(child.stdout.take().expect("piped"));
    let (tx, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in stdout.split(b'\n') {
            // Nobody listens once there are enough.
            drop(tx.send(line.expect("a pipe can be read")));
        }
    });
    let read: Vec<Vec<u8>> = (0..count).map_while(|_| lines.recv_timeout(PATIENCE).ok()).collect();
    child.kill().expect("one's own child can be killed");
    child.wait().expect("one's own child can be waited for");
    reader.join().expect("the reader ends with its pipe");
    let beyond = lines.try_iter().count();
    assert_eq!((read.len(), beyond), (count, 0), "one line for each socket");
    let text = |line: Vec<u8>| String::from_utf8(line).expect("text is ASCII here");
    read.into_iter().map(text).collect()
}

#[test]
fn in_text_a_name_stays_in_its_field() {
    run("names::hostile::in_text_a_name_stays_in_its_field", |server| {
        let sockets = open(server);
        let sensors = sensor(", dns-timeout: 60s, initial: true");
        let lines = text_lines(&sensors.replace("args:", "opts: [opened], args:"), sockets.len());
        let dump = once(&["--dump", "--dns", "--format", "text", "--pattern", "* * 203.0.113.*:* * *"]);
        assert!(dump.status.success());
        let table = String::from_utf8(dump.stdout).expect("text is ASCII here");
        let rows: Vec<&str> = table.lines().skip(1).collect();
        assert_eq!(rows.len(), sockets.len(), "{table}");
        for (place, socket) in sockets.iter().enumerate() {
            let ident = socket.ident();
            let remote = ident.remote.to_string();
            let of = |line: &&str| line.split_whitespace().any(|word| word == remote);
            let line = lines.iter().map(String::as_str).find(of).expect("a line for each");
            let row = rows.iter().copied().find(of).expect("a row for each");
            for text in [line, row] {
                assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{text:?}");
            }
            // time, action, protocol, state, local, arrow, remote, perhaps the
            // name, evidence, uid.
            let words: Vec<&str> = line.split_whitespace().collect();
            let (head, tail) = words.split_at(words.len().min(7));
            assert_eq!(head[1..4], ["opened", "udp", "ESTABLISHED"], "{line}");
            assert_eq!(head[4..], [ident.local.to_string().as_str(), "->", &remote], "{line}");
            let named = match tail {
                [name, "dump", uid] if uid.starts_with("uid=") => {
                    let name = name.strip_prefix('(').and_then(|name| name.strip_suffix(')'));
                    Some(name.unwrap_or_else(|| panic!("what is this: {line}")))
                }
                ["dump", uid] if uid.starts_with("uid=") => None,
                _ => panic!("what is this: {line}"),
            };
            assert!(named.is_none_or(is_safe), "{line}");
            // PROTO STATE LOCAL REMOTE HOST UID INODE COOKIE
            let columns: Vec<&str> = row.split_whitespace().collect();
            assert_eq!(columns.len(), 8, "{row}");
            assert_eq!(columns[4], named.unwrap_or("-"), "{row}");
            assert_eq!(columns[7], socket.cookie.to_string(), "{row}");
            if place == LONGEST {
                assert_eq!(named, Some(longest().as_str()));
            }
        }
    });
}
