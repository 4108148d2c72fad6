//! Every request, what it answers, and that what is no request is told so.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::Shutdown;

use serde_json::{Value, json};

use super::client::{Client, Place, is_end_of};
use crate::daemon::Tick;
use crate::netns;
use crate::sock::{Domain, Sock};

/// Not the harness's own sockets.
const LOCKED: &str = "  sockets: {listener: net.socket, args: {locked: true, \
                      ignore: [\"* 127.99.0.1:* * * *\"]}}\n";

/// A listener at a fixed address, so that event ids are known.
fn listener() -> Sock {
    let listener = Sock::tcp(Domain::V4);
    listener.bind("127.0.0.1:7000".parse().expect("an address"));
    listener.listen(16);
    listener
}

const OPENED: &str = "sockets|net.socket|opened@127.0.0.1:7000|0";
const CLOSED: &str = "sockets|net.socket|closed@127.0.0.1:7000|0";

fn unlock(eid: &Value) -> String {
    json!({"request": "unlock", "eid": eid}).to_string()
}

fn lock_of<'a>(locks: &'a [Value], eid: &str) -> &'a Value {
    locks
        .iter()
        .find(|lock| lock["eid"] == eid)
        .unwrap_or_else(|| panic!("no lock of {eid} in {locks:?}"))
}

#[test]
fn locks_are_told_and_released() {
    netns::run("control::requests::locks_are_told_and_released", || {
        let place = Place::new();
        let daemon = place.launch(Tick::Slow).sensors(LOCKED).start();
        let listener = listener();
        let mut clients = Vec::new();
        for _ in 0..11 {
            let (client, server) = Sock::pair(&listener);
            clients.push(client.cookie);
            drop((client, server));
        }
        daemon.closed(&clients[..1]);
        daemon.settle();
        assert!(
            clients[1..]
                .iter()
                .all(|&cookie| !daemon.has("closed", cookie))
        );

        let mut control = Client::new(&place.socket);
        let (locks, reply) = control.ask(r#"{"request":"locks"}"#);
        assert_eq!(reply["locks"], locks.len());
        let eids: Vec<&str> = locks
            .iter()
            .filter_map(|lock| lock["eid"].as_str())
            .collect();
        assert!(eids.is_sorted(), "{eids:?}");
        for eid in [OPENED, CLOSED] {
            let lock = lock_of(&locks, eid);
            assert_eq!(lock["muted"], 10, "{lock}");
            assert!(lock["first"].as_str() <= lock["last"].as_str(), "{lock}");
        }
        let (_, stats) = control.ask(r#"{"request":"stats"}"#);
        assert_eq!(stats["locks"], locks.len());
        assert_eq!(stats["counters"]["events_muted"], 20);

        // An id that is locked, and one that is not: what can be done is done.
        control.say(&unlock(&json!([
            OPENED,
            "sockets|net.socket|opened@[::1]:1|0"
        ])));
        let (released, reply) = control.reply();
        assert_eq!(released, [lock_of(&locks, OPENED).clone()]);
        assert_eq!(
            (&reply["ok"], &reply["locks"], &reply["muted"]),
            (&json!(false), &json!(1), &json!(10))
        );
        assert_eq!(
            reply["unknown"],
            json!(["sockets|net.socket|opened@[::1]:1|0"])
        );
        assert!(control.refused(&unlock(&json!(OPENED))).contains(OPENED));

        // The next one passes, and is locked again.
        let (client, server) = Sock::pair(&listener);
        let cookie = client.cookie;
        drop((client, server));
        daemon.wait_for("the event that was let through", |event| {
            event["eid"] == OPENED && event["data"]["cookie"] == cookie
        });
        let (locks, _) = control.ask(r#"{"request":"locks"}"#);
        assert_eq!(lock_of(&locks, OPENED)["muted"], 0);
        assert_eq!(lock_of(&locks, CLOSED)["muted"], 11);

        // A glob releases what it matches and nothing else.
        let (released, reply) = control.ask(&unlock(&json!("sockets|*|opened@*")));
        let opened = locks.iter().filter(|lock| {
            lock["eid"]
                .as_str()
                .is_some_and(|eid| eid.contains("|opened@"))
        });
        assert_eq!(
            released.iter().collect::<Vec<_>>(),
            opened.collect::<Vec<_>>()
        );
        assert_eq!(reply["locks"], released.len());
        let (left, _) = control.ask(r#"{"request":"locks"}"#);
        assert_eq!(left.len() + released.len(), locks.len());
        let (none, reply) = control.ask(&unlock(&json!("sockets|*|opened@*")));
        assert_eq!((none.len(), &reply["locks"]), (0, &json!(0)));
        daemon.stop();
    });
}

#[test]
fn several_requests_on_one_connection() {
    netns::run(
        "control::requests::several_requests_on_one_connection",
        || {
            let place = Place::new();
            let daemon = place.launch(Tick::Fast).start();
            let listener = listener();
            let living: Vec<(Sock, Sock)> = (0..150).map(|_| Sock::pair(&listener)).collect();
            daemon.opened(&living.iter().map(|pair| pair.0.cookie).collect::<Vec<_>>());
            daemon.ticks(1);
            let mut control = Client::new(&place.socket);
            let names = ["ping", "dump", "stats", "locks", "reload", "dump", "ping"];
            let all: String = names
                .iter()
                .map(|name| format!("{{\"request\":\"{name}\"}}\n"))
                .collect();
            control
                .stream()
                .write_all(all.as_bytes())
                .expect("the daemon reads requests");
            // Nothing more will come: it answers all the same, and then hangs up.
            control
                .stream()
                .shutdown(Shutdown::Write)
                .expect("one direction can be closed");
            for name in names {
                let (lines, reply) = control.reply();
                assert_eq!(reply["request"], name);
                if name == "dump" {
                    assert_eq!(reply["rows"], lines.len());
                    let cookies: BTreeSet<u64> = lines
                        .iter()
                        .filter_map(|row| row["cookie"].as_u64())
                        .collect();
                    for (client, server) in &living {
                        assert!(
                            cookies.contains(&client.cookie) && cookies.contains(&server.cookie)
                        );
                    }
                    assert!(cookies.contains(&listener.cookie));
                    let row = lines.iter().find(|row| row["cookie"] == listener.cookie);
                    assert_eq!(row.expect("the listener")["state"], "LISTEN");
                }
                if name == "ping" {
                    assert_eq!(reply["version"], env!("CARGO_PKG_VERSION"));
                }
            }
            assert_eq!(control.line(), None);
            daemon.stop();
        },
    );
}

#[test]
fn what_is_no_request() {
    netns::run("control::requests::what_is_no_request", || {
        let place = Place::new();
        let daemon = place.launch(Tick::Slow).start();
        let mut control = Client::new(&place.socket);
        for (line, expected) in [
            ("", "no request"),
            ("\0\x1b[2J", "no request"),
            ("[1]", "an object"),
            ("{}", "`request` is missing"),
            (r#"{"request":"unlok"}"#, "did you mean `unlock`?"),
            (
                r#"{"request":"unlock","eids":["x"]}"#,
                "did you mean `eid`?",
            ),
            (r#"{"request":"ping","x":1}"#, "there is no key `x`"),
            (r#"{"request":"subscribe","glob":"[a"}"#, "no glob"),
        ] {
            let error = control.refused(line);
            assert!(error.contains(expected), "{line}: {error}");
        }
        control.ask(r#"{"request":"ping"}"#);
        // The last line needs no end; a line without one has a bound.
        control
            .stream()
            .write_all(br#"{"request":"ping"}"#)
            .expect("the daemon reads requests");
        control
            .stream()
            .shutdown(Shutdown::Write)
            .expect("one direction can be closed");
        assert_eq!(control.next()["request"], "ping");
        assert_eq!(control.line(), None);
        let mut long = Client::new(&place.socket);
        let line = format!("{{\"request\":\"{}\"}}", "x".repeat(100_000));
        // It may hang up before it has read all of it.
        drop(long.stream().write_all(line.as_bytes()));
        let reply = long.next();
        assert_eq!(reply["ok"], false);
        assert!(
            reply["error"]
                .as_str()
                .is_some_and(|error| error.contains("16384 bytes"))
        );
        let mut control = Client::new(&place.socket);
        let (_, stats) = control.ask(r#"{"request":"stats"}"#);
        assert_eq!(stats["counters"]["control_failed"], 9);
        assert_eq!(stats["counters"]["control_requests"], 2);
        daemon.stop();
    });
}

/// Subscribers get the records of standard output, all of them or those whose
/// ids match.
#[test]
fn the_same_events_as_on_standard_output() {
    netns::run(
        "control::requests::the_same_events_as_on_standard_output",
        || {
            let place = Place::new();
            let daemon = place.launch(Tick::Slow).start();
            let mut all = Client::subscribed(&place.socket);
            let mut some = Client::new(&place.socket);
            some.ask(r#"{"request":"subscribe","glob":"sockets|*|closed@*"}"#);
            let mut text = Client::new(&place.socket);
            text.ask(r#"{"request":"subscribe","format":"text"}"#);
            let listener = listener();
            for _ in 0..20 {
                drop(Sock::pair(&listener));
            }
            // A request in between is answered in between.
            all.say(r#"{"request":"ping"}"#);
            let last = Sock::udp(Domain::V4);
            last.bind_loopback();
            let cookie = last.cookie;
            drop(last);
            let is_last =
                |record: &Value| record["sensor"] == "sockets" && is_end_of(record, cookie);
            let mut told = all.events_until(is_last);
            let replies = told.iter().filter(|line| !line["ok"].is_null()).count();
            if replies == 0 {
                assert_eq!(all.reply().1["request"], "ping");
            }
            told.retain(|line| line["ok"].is_null());
            let matching = some.events_until(is_last);
            let mut lines = Vec::new();
            while lines.len() < told.len() {
                lines.push(text.next()["text"].as_str().expect("a line").to_string());
            }
            daemon.closed(&[cookie]);
            for event in &told {
                daemon.wait_for("the same record", |other| other == event);
            }
            let closed = told.iter().filter(|event| {
                event["sensor"] == "sockets" && event["data"]["action"] == "closed"
            });
            assert_eq!(
                matching.iter().collect::<Vec<_>>(),
                closed.collect::<Vec<_>>()
            );
            for (event, line) in told.iter().zip(&lines) {
                let local = event["data"]["local"].as_str().expect("an end");
                assert!(line.contains(local), "{line} for {event}");
            }
            let seqs: Vec<u64> = told
                .iter()
                .filter_map(|event| event["seq"].as_u64())
                .collect();
            assert!(
                seqs.windows(2).all(|pair| pair[1] == pair[0] + 1),
                "{seqs:?}"
            );
            // The daemon ends: so do they, with everything told.
            daemon.stop();
            while all.line().is_some() {}
        },
    );
}
