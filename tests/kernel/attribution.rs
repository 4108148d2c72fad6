//! Who has which socket, as the program says it.

mod carried;
mod holders;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsRawFd;
use std::process::Command;

use serde_json::Value;

use crate::child;
use crate::daemon::{Launch, PATIENCE, Tick, once};
use crate::dump::{dump, sample};
use crate::netns;
use crate::processes::{Child, close_and_tell, hear, pipe};
use crate::record::Record;
use crate::sock::{Domain, Sock};

/// What a table says of one socket, by cookie: its inode, 0 for none, and the
/// processes that have it open.
type Held = BTreeMap<u64, (u64, BTreeSet<u64>)>;

/// The same of `ss` and of sockwatch, on one table: sockets of one process,
/// sockets that two processes share, and sockets that nobody has.
#[test]
fn the_same_processes_as_ss() {
    netns::run("attribution::the_same_processes_as_ss", || {
        let sample = sample();
        let (heard, tell) = pipe();
        let (closed, _) = &sample.sockets[0];
        let child = Child::forked(|| close_and_tell(closed.raw(), tell.as_raw_fd()));
        hear(&heard);
        let alone = Sock::listener(Domain::V4);
        // Waits to be accepted.
        let client = Sock::tcp(Domain::V4);
        client.connect(alone.local()).expect("a listener");

        let output = match child::run(Command::new("ss").arg("-tuanpeH"), PATIENCE) {
            Ok(output) => output.expect("ss ends"),
            Err(error) => {
                return netns::visibly(&format!(
                    "SKIPPED attribution::the_same_processes_as_ss: ss: {error}"
                ));
            }
        };
        let text = String::from_utf8(output.stdout).expect("ss writes ASCII");
        let theirs: Held = text.lines().map(ss_line).collect();
        let rows = dump(&["--process"]);
        // Neither ss nor /proc shows what is bound only.
        let shown = rows.iter().filter(|row| row["state"] != "CLOSE");
        let ours: Held = shown.map(held).collect();
        assert_eq!(ours, theirs);

        let own = u64::from(std::process::id());
        let of = |sock: &Sock| &ours[&sock.cookie].1;
        assert_eq!(*of(closed), BTreeSet::from([own]));
        let (shared, _) = &sample.sockets[1];
        assert_eq!(*of(shared), BTreeSet::from([own, u64::from(child.pid())]));
        assert_eq!(*of(&alone), BTreeSet::from([own]));

        let exe = std::env::current_exe().expect("the test has a path");
        for row in &rows {
            if row["inode"].is_null() {
                let expected = match row["inode_reason"].as_str() {
                    Some("no_file") => "kernel",
                    Some(reason) => reason,
                    None => panic!("no reason: {row}"),
                };
                assert_eq!(row["process"], Value::Null, "{row}");
                assert_eq!(row["process_reason"], expected, "{row}");
                continue;
            }
            assert_eq!(row["process"]["pid"], own, "the oldest of them: {row}");
            assert_eq!(row["process"]["exe"], exe.to_str().expect("UTF-8"), "{row}");
            assert_eq!(row["process"].get("cmdline"), None, "{row}");
            if netns::is_root() {
                assert_eq!(row["user"], "root", "{row}");
                assert_eq!(row["process"]["user"], "root", "{row}");
            }
        }
        let waits = rows.iter().any(|row| row["process_reason"] == "kernel");
        assert!(waits, "a connection that waits to be accepted");
    });
}

/// The name of a user, as /etc/passwd has it.
pub fn user(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let uid = uid.to_string();
    let mut lines = text.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1) == Some(&uid)).then(|| name.to_string())
    })
}

/// The same, into data that tells a uid.
pub fn name_user(data: &mut Value) {
    let uid = data["uid"].as_u64().and_then(|uid| u32::try_from(uid).ok());
    if let Some(name) = uid.and_then(user) {
        data["user"] = name.into();
    }
}

fn held(row: &Value) -> (u64, (u64, BTreeSet<u64>)) {
    let pid = |process: &Value| process["pid"].as_u64();
    let pids = match row["processes"].as_array() {
        Some(all) => all.iter().filter_map(pid).collect(),
        None => pid(&row["process"]).into_iter().collect(),
    };
    let cookie = row["cookie"].as_u64().expect("every row has a cookie");
    (cookie, (row["inode"].as_u64().unwrap_or(0), pids))
}

/// `… users:(("a",pid=1,fd=3),("a",pid=2,fd=3)) uid:7 ino:5 sk:1001 …`, each
/// part only where there is one; `sk` is the cookie in hexadecimal digits.
fn ss_line(line: &str) -> (u64, (u64, BTreeSet<u64>)) {
    let number = |text: &str| -> u64 {
        let end = text.find(|c: char| !c.is_ascii_digit());
        let digits = &text[..end.unwrap_or(text.len())];
        digits
            .parse()
            .unwrap_or_else(|_| panic!("{text} in {line}"))
    };
    let word = |key: &str| {
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(key))
    };
    let cookie = word("sk:").unwrap_or_else(|| panic!("no cookie in {line}"));
    let cookie = u64::from_str_radix(cookie, 16).expect("hexadecimal digits");
    let pids = line.split("pid=").skip(1).map(number).collect();
    (cookie, (word("ino:").map_or(0, number), pids))
}

#[test]
fn as_text() {
    netns::run("attribution::as_text", || {
        let listener = Sock::listener(Domain::V4);
        let output = once(&["--dump", "--process", "--format", "text"]);
        assert_eq!(output.status.code(), Some(0), "{}", child::text(&output));
        let text = String::from_utf8(output.stdout).expect("text");
        let mut lines = text.lines();
        assert!(lines.next().expect("a header").ends_with("  PROCESS"));
        let pid = format!("  {}/", std::process::id());
        let local = listener.local().to_string();
        let line = lines.find(|line| line.contains(&local)).expect("its line");
        assert!(line.contains(&pid), "{line}");
        let without = once(&["--dump", "--format", "text"]);
        assert!(!child::text(&without).contains("PROCESS"));
    });
}

/// The pids of all that have a socket, in the order in which they are told.
fn pids(data: &Value) -> Vec<u64> {
    let pid = |process: &Value| process["pid"].as_u64().expect("a pid");
    match data["processes"].as_array() {
        Some(all) => all.iter().map(pid).collect(),
        None => vec![pid(&data["process"])],
    }
}

/// Sensors that wait for as long as it takes.
const PATIENT: &str = "  shown: {listener: net.socket, args: {process-timeout: 60s, cmdline: true}}
  plain: {listener: net.socket, args: {process-timeout: 60s}}
  without: {listener: net.socket, args: {process: false}}
";

fn said<'a>(record: &'a Record, sensor: &str, action: &str, cookie: u64) -> &'a Value {
    let is_it = |event: &&Value| {
        let data = &event["data"];
        event["sensor"] == sensor && data["action"] == action && data["cookie"] == cookie
    };
    let found = record.events().find(is_it);
    &found.unwrap_or_else(|| panic!("no {action} of {cookie} by {sensor}"))["data"]
}

/// An opening tells who has the socket, and its close tells the same, when nobody
/// has it any more; so does that of a socket that was there at the start.
#[test]
fn events_name_the_process() {
    netns::run("attribution::events_name_the_process", || {
        let early = Sock::listener(Domain::V4);
        let daemon = Launch::new(Tick::Fast).sensors(PATIENT).start();
        let alone = Sock::listener(Domain::V4);
        let shared = Sock::listener(Domain::V6);
        let (heard, tell) = pipe();
        let child = Child::forked(|| close_and_tell(alone.raw(), tell.as_raw_fd()));
        hear(&heard);
        let cookies = [alone.cookie, shared.cookie];
        for cookie in cookies {
            for sensor in ["shown", "plain", "without"] {
                daemon.reported(sensor, "opened", cookie);
            }
        }
        let pids = (u64::from(std::process::id()), u64::from(child.pid()));
        drop(child);
        let before = early.cookie;
        drop((early, alone, shared));
        for cookie in [before, cookies[0], cookies[1]] {
            for sensor in ["shown", "plain", "without"] {
                daemon.reported(sensor, "closed", cookie);
            }
        }
        let record = daemon.stop();
        for (action, cookie) in [
            ("closed", before),
            ("opened", cookies[0]),
            ("closed", cookies[0]),
            ("opened", cookies[1]),
            ("closed", cookies[1]),
        ] {
            let shown = said(&record, "shown", action, cookie);
            let cmdline = shown["process"]["cmdline"].as_str();
            assert!(cmdline.is_some_and(|it| it.contains("--exact")), "{shown}");
            let plain = said(&record, "plain", action, cookie);
            assert_eq!(plain["process"]["pid"], pids.0, "{plain}");
            assert!(plain["process"]["exe"].is_string(), "{plain}");
            assert!(!plain.to_string().contains("cmdline"), "{plain}");
            let without = said(&record, "without", action, cookie);
            for key in ["process", "process_reason", "processes", "user"] {
                assert_eq!(without.get(key), None, "{without}");
            }
        }
        for action in ["opened", "closed"] {
            let data = said(&record, "plain", action, cookies[1]);
            // The child may have been made after the listener was read.
            if let Some(all) = data["processes"].as_array() {
                let all: Vec<_> = all.iter().filter_map(|it| it["pid"].as_u64()).collect();
                assert_eq!(all, [pids.0, pids.1], "{data}");
            }
        }
    });
}

/// What no dump has read has no inode to go by.
#[test]
fn between_ticks_nobody_can_be_named() {
    netns::run("attribution::between_ticks_nobody_can_be_named", || {
        let daemon = Launch::new(Tick::Slow).sensors(PATIENT).start();
        let socket = Sock::udp(Domain::V4);
        socket.bind_loopback();
        let cookie = socket.cookie;
        drop(socket);
        daemon.reported("plain", "closed", cookie);
        let record = daemon.stop();
        for action in ["opened", "closed"] {
            let data = said(&record, "plain", action, cookie);
            assert_eq!(data["process"], Value::Null, "{data}");
            assert_eq!(data["process_reason"], "not_read", "{data}");
        }
    });
}
