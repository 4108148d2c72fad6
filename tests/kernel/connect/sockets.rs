//! net.socket beside net.tcp_connect: what a hook saw is told of the socket too.

use serde_json::{Value, json};

use super::callers::Caller;
use super::watch::run_with;
use crate::record::Record;
use crate::sock::{Domain, Ident, Sock};
use crate::syn_sent::nobody;

/// A sensor that reads every row, and one that leaves all to the notices.
const READ: &str = "  sockets: {listener: net.socket}\n";
const UNREAD: &str = "  sockets: {listener: net.socket, interval: 1h}\n";

/// What `net.socket` said of a socket.
fn said<'a>(record: &'a Record, action: &str, ident: Ident) -> &'a Value {
    let cookie = ident.cookie.expect("a cookie of ours");
    let found: Vec<&Value> = record
        .events()
        .filter(|event| {
            let data = &event["data"];
            event["sensor"] == "sockets" && data["action"] == action && data["cookie"] == cookie
        })
        .collect();
    assert_eq!(found.len(), 1, "{action} of {cookie}: {found:?}");
    &found[0]["data"]
}

/// What an event says of a caller.
/// Who called, without what /proc adds to that.
fn called(event: &Value) -> Value {
    let process = &event["process"];
    json!({"pid": process["pid"], "tid": process["tid"], "comm": process["comm"]})
}

fn process(caller: &Caller) -> Value {
    json!({"pid": caller.pid, "tid": caller.tid, "comm": caller.comm})
}

/// Whoever connected is the process of the socket, and the way is known at both
/// ends.
#[test]
fn direction_and_process() {
    run_with("connect::sockets::direction_and_process", READ, |watch| {
        let caller = Caller::current();
        let mut ends = Vec::new();
        for domain in Domain::ALL {
            let listener = Sock::listener(domain);
            let client = Sock::tcp(domain);
            watch.expect(&client, listener.local());
            client.connect(listener.local()).expect("a listener on lo");
            let server = listener.accept();
            let cookies = [client.cookie, server.cookie];
            watch.daemon.opened(&cookies);
            ends.push((client.close(), server.close(), listener.close()));
            watch.daemon.closed(&cookies);
        }
        move |record: &Record| {
            for (client, server, listener) in ends {
                for action in ["opened", "closed"] {
                    let event = said(record, action, client);
                    assert_eq!(event["direction"], "outbound", "{event}");
                    assert_eq!(called(event), process(&caller), "{event}");
                    let event = said(record, action, server);
                    assert_eq!(event["direction"], "inbound", "{event}");
                    assert_eq!(event["process"].get("tid"), None, "{event}");
                    let event = said(record, action, listener);
                    assert_eq!(event.get("direction"), None, "{event}");
                }
            }
        }
    });
}

/// The same by their notices alone: no dump has read them.
#[test]
fn between_ticks() {
    run_with("connect::sockets::between_ticks", UNREAD, |watch| {
        let caller = Caller::current();
        let listener = Sock::listener(Domain::V4);
        // The listener is in the table.
        watch.dumps();
        let ends = watch.daemon.paused(|| {
            let client = Sock::tcp(Domain::V4);
            watch.expect(&client, listener.local());
            client.connect(listener.local()).expect("a listener on lo");
            let server = listener.accept();
            (client.close(), server.close())
        });
        let (client, server) = ends;
        watch
            .daemon
            .closed(&[client, server].map(|ident| ident.cookie.expect("a cookie of ours")));
        move |record: &Record| {
            for action in ["opened", "closed"] {
                let event = said(record, action, client);
                assert_eq!(event["direction"], "outbound", "{event}");
                assert_eq!(called(event), process(&caller), "{event}");
                let event = said(record, action, server);
                assert_eq!(event["direction"], "inbound", "{event}");
            }
        }
    });
}

/// A blocking connect that is refused goes through tcp_disconnect(), and its
/// notice has lost the destination: the hook saw it.
#[test]
fn wiped() {
    run_with("connect::sockets::wiped", UNREAD, |watch| {
        let caller = Caller::current();
        let mut clients = Vec::new();
        for domain in Domain::ALL {
            let to = nobody(domain);
            let client = Sock::tcp(domain);
            watch.expect(&client, to);
            let client = watch.daemon.paused(|| {
                client.connect(to).expect_err("nobody listens");
                client.close()
            });
            watch
                .daemon
                .closed(&[client.cookie.expect("a cookie of ours")]);
            clients.push((client, to));
        }
        move |record: &Record| {
            for (client, to) in clients {
                for action in ["opened", "closed"] {
                    let event = said(record, action, client);
                    assert_eq!(event["remote"], to.to_string(), "{event}");
                    assert_eq!(event.get("remote_port"), None, "{event}");
                    assert_eq!(event["direction"], "outbound", "{event}");
                    assert_eq!(called(event), process(&caller), "{event}");
                }
            }
        }
    });
}
