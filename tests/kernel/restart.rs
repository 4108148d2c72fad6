//! Several runs on one state directory: each socket is told of once, whichever
//! run it falls into.

mod aside;
mod kills;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::daemon::{Launch, Scratch, Tick};
use crate::expect::{Expect, SILENT};
use crate::netns;
use crate::record::Record;
use crate::sock::{Domain, Sock};

fn launch(place: &Scratch) -> Launch {
    Launch::new(Tick::Fast).at(place)
}

/// What several runs said of each socket, in order: action and evidence.
fn stories<'a>(records: impl IntoIterator<Item = &'a Record>) -> BTreeMap<u64, Vec<String>> {
    let mut stories: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for event in records.into_iter().flat_map(Record::events) {
        let word = |key: &str| event["data"][key].as_str().expect("a word");
        let cookie = event["data"]["cookie"].as_u64().expect("a cookie");
        let story = format!("{} {}", word("action"), word("evidence"));
        stories.entry(cookie).or_default().push(story);
    }
    stories
}

fn story(stories: &BTreeMap<u64, Vec<String>>, cookie: u64) -> Vec<&str> {
    let told = stories.get(&cookie).map(Vec::as_slice).unwrap_or_default();
    told.iter().map(String::as_str).collect()
}

/// One socket for every way to get over a restart, of every kind.
#[test]
fn each_kind_is_told_once() {
    netns::run("restart::each_kind_is_told_once", || {
        let place = Scratch::new();
        let make = || -> Vec<Sock> {
            let mut sockets = Vec::new();
            for domain in Domain::ALL {
                let listener = Sock::listener(domain);
                let (client, server) = Sock::pair(&listener);
                let bound = Sock::tcp(domain);
                bound.bind_loopback();
                let datagram = Sock::udp(domain);
                datagram.bind_loopback();
                sockets.extend([listener, client, server, bound, datagram]);
            }
            sockets
        };
        let cookies = |sockets: &[Sock]| sockets.iter().map(|one| one.cookie).collect::<Vec<_>>();
        let before_all = make();
        let first = launch(&place).start();
        let (stays, vanishes) = (make(), make());
        first.opened(&cookies(&stays));
        first.opened(&cookies(&vanishes));
        let (old, gone) = (cookies(&before_all), cookies(&vanishes));
        let kept = cookies(&stays);
        let first = first.stop();

        drop(vanishes);
        let comes = make();
        let new = cookies(&comes);
        let second = launch(&place).start();
        second.opened(&new);
        second.closed(&gone);
        second.ticks(2);
        drop((before_all, stays, comes));
        for some in [&old, &kept, &new] {
            second.closed(some);
        }
        second.settle();
        let second = second.stop();
        assert!(
            second.log.contains("state of a run that ended well"),
            "{}",
            second.log
        );
        assert_eq!(second.own(), Vec::<&Value>::new());

        let told = stories([&first, &second]);
        for (cookies, expected) in [
            (&old, &["closed notified"][..]),
            (&kept, &["opened dump", "closed notified"]),
            (&gone, &["opened dump", "closed restart"]),
            (&new, &["opened dump", "closed notified"]),
        ] {
            for cookie in cookies {
                assert_eq!(story(&told, *cookie), expected, "{cookie}\n{}", second.log);
            }
        }
        assert_eq!(told.len(), old.len() + kept.len() + gone.len() + new.len());
    });
}

/// What was known of a socket is known after a restart: owner, ends, state, and
/// when it was first seen.
#[test]
fn what_is_known_is_kept() {
    netns::run("restart::what_is_known_is_kept", || {
        let place = Scratch::new();
        let listener = Sock::listener(Domain::V6);
        let first = launch(&place).start();
        let (client, server) = Sock::pair(&listener);
        first.opened(&[client.cookie, server.cookie]);
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop(first.stop());
        let gone = server.close();
        let second = launch(&place).start();
        second.closed(&[gone.cookie.unwrap()]);
        let (cookie, ended) = (client.cookie, second.paused(|| client.close()));
        let record = second.finish(&[cookie]);
        let restarted = Expect::closed(gone, "restart", "ESTABLISHED");
        record.hold(&[
            restarted,
            Expect::notified(ended, "CLOSE_WAIT", SILENT).lasted("duration_ms", 300..=100_000),
        ]);
    });
}

/// Which way a connection went and who called connect() are known after a restart,
/// also of one that ended meanwhile; and what was opened before the start of a run
/// is no connect() of that run.
#[test]
fn ways_are_kept() {
    netns::run("restart::ways_are_kept", || {
        let place = Scratch::new();
        let launch = || {
            let sensors = "  sockets: {listener: net.socket, args: {patterns: [\"tcp *\"]}}\n  \
                           connects: {listener: net.tcp_connect, args: {hook: sock_diag}}\n";
            Launch::new(Tick::Fast).at(&place).sensors(sensors)
        };
        let connects = |record: &Record| {
            let connects = record
                .events()
                .filter(|event| event["sensor"] == "connects");
            let cookies = connects.map(|event| event["data"]["cookie"].as_u64());
            cookies.collect::<Option<Vec<_>>>().expect("cookies")
        };
        let listener = Sock::listener(Domain::V4);
        let first = launch().start();
        let (stays, goes) = (Sock::pair(&listener), Sock::pair(&listener));
        for (client, _) in [&stays, &goes] {
            first.reported("connects", "connect", client.cookie);
        }
        let first = first.stop();
        let mut called = connects(&first);
        called.sort_unstable();
        let mut clients = [stays.0.cookie, goes.0.cookie];
        clients.sort_unstable();
        assert_eq!(called, clients);

        // One ends, one comes, while nobody looks.
        let gone = [goes.0.cookie, goes.1.cookie];
        drop(goes);
        let meanwhile = Sock::pair(&listener);
        let second = launch().start();
        second.opened(&[meanwhile.0.cookie, meanwhile.1.cookie]);
        second.closed(&gone);
        // Three dumps decide about whoever has no listener.
        second.ticks(4);
        let after = Sock::pair(&listener);
        second.reported("connects", "connect", after.0.cookie);
        let kept = [stays.0.cookie, stays.1.cookie];
        drop(stays);
        second.closed(&kept);
        second.settle();
        let second = second.stop();
        assert_eq!(connects(&second), [after.0.cookie]);
        let closed = |cookie: u64| {
            let mut events = second.events();
            let event = events.find(|event| {
                event["data"]["action"] == "closed" && event["data"]["cookie"] == cookie
            });
            &event.expect("it was told")["data"]
        };
        for ([client, server], evidence) in [(gone, "restart"), (kept, "notified")] {
            for (cookie, direction) in [(client, "outbound"), (server, "inbound")] {
                let data = closed(cookie);
                assert_eq!(data["direction"], direction, "{data}");
                assert_eq!(data["evidence"], evidence, "{data}");
            }
        }
    });
}

/// Locks are held by id, and go on counting.
#[test]
fn locks_still_mute() {
    netns::run("restart::locks_still_mute", || {
        let place = Scratch::new();
        let launch = || {
            let locked = "  locked: {listener: net.socket, args: {patterns: [\"udp *\"], locked: true, \
                          ignore: [\"* 127.99.0.1:*\"]}}\n  \
                          sockets: {listener: net.socket, opts: [closed]}\n";
            Launch::new(Tick::Fast).at(&place).sensors(locked)
        };
        let bound = || {
            let socket = Sock::udp(Domain::V4);
            socket.bind_loopback();
            socket
        };
        let first = launch().start();
        let one = bound();
        first.reported("locked", "opened", one.cookie);
        let two = bound();
        first.ticks(2);
        let (one, two) = (one.close(), two.close());
        first.closed(&[one.cookie.unwrap(), two.cookie.unwrap()]);
        let first = first.stop();
        let said = |record: &Record| {
            let of_locked = |event: &&Value| event["sensor"] == "locked";
            record.events().filter(of_locked).count()
        };
        assert_eq!(said(&first), 2, "one opened, one closed");

        let second = launch().start();
        let three = bound();
        second.ticks(2);
        let three = three.close();
        second.closed(&[three.cookie.unwrap()]);
        second.signal(libc::SIGUSR1);
        let line = second.wait_for_line("the release", |line| line.contains("released"));
        assert!(line.contains("2 locks, which had muted 4 events"), "{line}");
        let four = bound();
        second.reported("locked", "opened", four.cookie);
        assert_eq!(said(&second.stop()), 1, "what was released speaks again");
        drop(four);
    });
}

/// A sensor whose patterns were changed while sockwatch was down begins anew; the
/// other one does not notice.
#[test]
fn a_changed_sensor_begins_anew() {
    netns::run("restart::a_changed_sensor_begins_anew", || {
        let place = Scratch::new();
        let launch = |pattern: &str| {
            let sensors = format!(
                "  other: {{listener: net.socket, args: {{patterns: [\"{pattern}\"]}}}}\n  \
                 sockets: {{listener: net.socket}}\n"
            );
            Launch::new(Tick::Fast).at(&place).sensors(&sensors)
        };
        let first = launch("tcp * LISTEN").start();
        let (stays, goes) = (Sock::listener(Domain::V4), Sock::listener(Domain::V4));
        first.opened(&[stays.cookie, goes.cookie]);
        drop(first.stop());
        let gone = goes.close();
        let second = launch("tcp *").start();
        second.closed(&[gone.cookie.unwrap()]);
        second.ticks(2);
        let cookie = stays.cookie;
        let ended = second.paused(|| stays.close());
        second.reported("other", "closed", cookie);
        second.closed(&[cookie]);
        second.settle();
        let record = second.stop();
        assert!(
            record.log.contains("sensor other is another one"),
            "{}",
            record.log
        );
        let closed = Expect::notified(ended, "LISTEN", crate::expect::Traffic::None);
        record.only(&[cookie, gone.cookie.unwrap()]).hold_events(&[
            Expect::closed(gone, "restart", "LISTEN"),
            closed.clone(),
            closed.by("other"),
        ]);
    });
}
