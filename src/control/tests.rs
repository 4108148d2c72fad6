//! The bounds, with the clock in hand. That nobody suffers from a hostile client
//! is shown with the real binary, in `tests/kernel/control/`.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use mio::{Poll, Token};

use super::*;
use crate::emit::Subscribers;

/// A daemon with nothing but locks.
#[derive(Default)]
struct Daemon {
    locks: Locks,
    stats: Stats,
}

impl Commands for Daemon {
    fn missing(&self) -> &[Degraded] {
        &[]
    }

    fn status(&self) -> Status {
        Status { seq: 1, sockets: 2 }
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn asked(&self) -> Vec<String> {
        vec!["tcp: LISTEN".into()]
    }

    fn locks(&self) -> &Locks {
        &self.locks
    }

    fn locks_mut(&mut self) -> &mut Locks {
        &mut self.locks
    }

    fn list(&self, _: &mut Listing, _: usize, _: &mut dyn FnMut(&SocketData)) -> bool {
        false
    }

    fn keep_places(&mut self, _keep: bool) {}

    fn reload(&mut self, _now: Now) -> Result<String, Vec<String>> {
        Err(vec!["one".into(), "two".into()])
    }
}

/// A server, whose turns come when a test says so.
struct Room {
    server: Server,
    daemon: Daemon,
    poll: Poll,
    now: Now,
    path: PathBuf,
}

impl Room {
    fn new(name: &str) -> Room {
        let name = format!("sockwatch-room-{}-{name}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("control.sock");
        let subscribers = Subscribers::new("h".into(), false, 16, Rc::default());
        let subscribers = Rc::new(RefCell::new(subscribers));
        let now = Now::read();
        let access = Access::default();
        let server = Server::open(&path, access, Token(0), subscribers, Rc::default(), now);
        Room {
            server: server.unwrap(),
            daemon: Daemon::default(),
            poll: Poll::new().unwrap(),
            now,
            path,
        }
    }

    fn connect(&mut self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_nonblocking(true).unwrap();
        self.turns();
        stream
    }

    /// Turns until nobody has anything more to do.
    fn turns(&mut self) {
        for token in 0..=CLIENTS {
            self.server.ready(Token(token));
        }
        let (daemon, registry) = (&mut self.daemon, self.poll.registry());
        while self.server.turn(daemon, registry, self.now) {}
    }

    fn later(&mut self, seconds: u64) {
        self.now.mono += Duration::from_secs(seconds);
        self.turns();
    }

    fn say(&mut self, stream: &mut UnixStream, text: &str) -> String {
        stream.write_all(text.as_bytes()).unwrap();
        self.turns();
        heard(stream).unwrap()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        std::fs::remove_dir_all(self.path.parent().unwrap()).unwrap();
    }
}

/// What there is to read; none when the other end has hung up.
fn heard(stream: &mut UnixStream) -> Option<String> {
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Some(String::from_utf8(text).unwrap())
        }
        _ => None,
    }
}

const PING: &str = "{\"request\":\"ping\"}\n";

#[test]
fn who_owes_something_for_too_long_is_closed() {
    let mut room = Room::new("owing");
    let (mut silent, mut half, mut idle) = (room.connect(), room.connect(), room.connect());
    assert!(room.say(&mut idle, PING).contains("\"ok\":true"));
    assert!(room.say(&mut half, PING).contains("\"ok\":true"));
    assert_eq!(room.say(&mut half, "{\"requ"), "");
    assert!(room.say(&mut silent, "garbage\n").contains("\"ok\":false"));
    room.later(29);
    assert!(heard(&mut silent).is_some() && heard(&mut half).is_some());
    let due = room.server.deadline().unwrap();
    assert_eq!(due, room.now.mono + Duration::from_secs(1));
    room.later(2);
    assert_eq!(heard(&mut silent), None, "no request in 30 seconds");
    assert_eq!(heard(&mut half), None, "nor the rest of a line");
    assert_eq!(room.server.deadline(), None, "nobody owes anything");
    room.later(3600);
    assert!(room.say(&mut idle, PING).contains("\"ok\":true"));
    // What it owes begins with the first byte, not with its last request.
    room.later(3600);
    assert_eq!(room.say(&mut idle, &PING[..7]), "");
    room.later(29);
    assert!(room.say(&mut idle, &PING[7..]).contains("\"ok\":true"));
    assert_eq!(room.say(&mut idle, &PING[..7]), "");
    room.later(31);
    assert_eq!(heard(&mut idle), None);
}

#[test]
fn who_has_made_no_request_makes_room() {
    let mut room = Room::new("full");
    let mut good = room.connect();
    room.say(&mut good, PING);
    let mut silent: Vec<UnixStream> = Vec::new();
    for _ in 0..CLIENTS + 44 {
        room.now.mono += Duration::from_millis(1);
        silent.push(room.connect());
    }
    let gone: Vec<bool> = silent.iter_mut().map(|one| heard(one).is_none()).collect();
    let expected: Vec<bool> = (0..silent.len()).map(|at| at < 45).collect();
    assert_eq!(gone, expected, "the oldest have gone");
    assert!(room.say(&mut good, PING).contains("\"ok\":true"));
    // With nobody left who has not, the one that was idle longest goes.
    for one in &mut silent[45..] {
        room.now.mono += Duration::from_millis(1);
        room.say(one, PING);
    }
    let mut late = room.connect();
    assert!(room.say(&mut late, PING).contains("\"ok\":true"));
    assert_eq!(heard(&mut good), None);
}

#[test]
fn who_reads_no_reply_makes_room() {
    let mut room = Room::new("unread");
    for at in 0..5000 {
        let eid = format!("{at:0200}");
        room.daemon.locks.admit(&eid, SystemTime::UNIX_EPOCH);
    }
    let mut good = room.connect();
    room.say(&mut good, PING);
    let mut unread: Vec<UnixStream> = Vec::new();
    for _ in 1..CLIENTS {
        room.now.mono += Duration::from_millis(1);
        let mut one = room.connect();
        one.write_all(b"{\"request\":\"locks\"}\n").unwrap();
        room.turns();
        unread.push(one);
    }
    room.now.mono += Duration::from_millis(100);
    let mut late = room.connect();
    assert!(room.say(&mut late, PING).contains("\"ok\":true"));
    assert!(room.say(&mut good, PING).contains("\"ok\":true"));
    assert_eq!(heard(&mut unread[0]), None);
    assert!(heard(&mut unread[1]).is_some());
}

#[test]
fn subscribers_leave_room_for_others() {
    let mut room = Room::new("subscribers");
    let ask = "{\"request\":\"subscribe\"}\n";
    let mut all: Vec<UnixStream> = Vec::new();
    for at in 0..CLIENTS {
        let mut one = room.connect();
        let ok = room.say(&mut one, ask).contains("\"ok\":true");
        assert_eq!(ok, at < CLIENTS / 4 * 3, "subscriber {at}");
        // Asking again takes no second place.
        assert_eq!(room.say(&mut one, ask).contains("\"ok\":true"), ok);
        all.push(one);
    }
    let mut late = room.connect();
    assert!(room.say(&mut late, PING).contains("\"ok\":true"));
    assert!(
        all[..CLIENTS / 4 * 3]
            .iter_mut()
            .all(|one| heard(one).is_some())
    );
}

#[test]
fn a_lock_is_released_when_it_is_told() {
    let mut room = Room::new("locks");
    for at in 0..20_000 {
        let eid = format!("{at:0200}");
        room.daemon.locks.admit(&eid, SystemTime::UNIX_EPOCH);
    }
    let mut stream = room.connect();
    // Nobody reads, so that it comes to a stop once the buffers are full.
    stream
        .write_all(b"{\"request\":\"unlock\",\"eid\":\"*\"}\n")
        .unwrap();
    room.turns();
    let left = room.daemon.locks.len();
    assert!(left > 10_000, "{left} are left");
    let told = heard(&mut stream).unwrap();
    assert!(told.lines().count() <= 20_000 - left, "{left}");
    room.turns();
    assert!(room.daemon.locks.len() < left, "it goes on");
    drop(stream);
    room.turns();
    let left = room.daemon.locks.len();
    room.turns();
    assert_eq!(room.daemon.locks.len(), left, "and ends with its client");
}

/// Compiling them takes up to a millisecond each: a turn does a few.
#[test]
fn globs_are_compiled_a_few_a_turn() {
    let mut room = Room::new("globs");
    let mut stream = room.connect();
    let globs: Vec<String> = (0..14)
        .map(|at| format!("*{}{at}", "?".repeat(900)))
        .collect();
    let request = serde_json::json!({"request": "unlock", "eid": globs});
    stream.write_all(format!("{request}\n").as_bytes()).unwrap();
    for token in 0..=CLIENTS {
        room.server.ready(Token(token));
    }
    let mut turns = 1;
    while room
        .server
        .turn(&mut room.daemon, room.poll.registry(), room.now)
    {
        turns += 1;
    }
    assert!(turns >= 7, "{turns} turns");
    assert!(heard(&mut stream).unwrap().contains("\"ok\":true"));
}

#[test]
fn every_mistake_of_a_reload_is_told() {
    let mut room = Room::new("reload");
    let mut stream = room.connect();
    let reply = room.say(&mut stream, "{\"request\":\"reload\"}\n");
    assert_eq!(
        reply,
        "{\"ok\":false,\"request\":\"reload\",\"error\":\"nothing was changed: there are 2 \
         mistakes\",\"problems\":[\"one\",\"two\"]}\n"
    );
}
