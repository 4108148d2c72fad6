//! How connections end: who closed first, and the counters of tcp_info against the
//! bytes that the test sent, with the FIN that counts as one of them.

use serde_json::{Value, json};

use crate::daemon::{Daemon, Tick};
use crate::netns;
use crate::sock::{Domain, Sock};

/// How the first one ends its side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Close,
    Shutdown,
    Reset,
}

/// One end of a connection, with what it sends.
struct End {
    socket: Sock,
    sends: usize,
}

/// What is told of an end: the bytes sent and received, and who closed first.
fn told(daemon: &Daemon, cookie: u64) -> [Value; 3] {
    let event = daemon.wait_for(&format!("the end of {cookie}"), |event| {
        let data = &event["data"];
        event["sensor"] == "sockets" && data["action"] == "closed" && data["cookie"] == cookie
    });
    let data = &event["data"];
    assert_eq!(data["between_ticks"], true, "{event}");
    if data["bytes_sent"].is_u64() {
        assert_eq!(data["retransmits"], 0, "{event}");
        assert!(data["segments_sent"].is_u64(), "{event}");
    } else {
        for key in [
            "segments_sent",
            "segments_received",
            "retransmits",
            "rtt_us",
        ] {
            assert_eq!(data.get(key), None, "{event}");
        }
    }
    ["bytes_sent", "bytes_received", "closed_first"].map(|key| data[key].clone())
}

/// The first end closes, then the other; what is told of both.
fn end(daemon: &Daemon, first: End, other: End, way: Way) -> [[Value; 3]; 2] {
    for (from, to) in [(&first, &other), (&other, &first)] {
        // To receive nothing waits for a first byte.
        if from.sends > 0 {
            from.socket.send(from.sends);
            to.socket.receive(from.sends);
        }
    }
    let cookies = [first.socket.cookie, other.socket.cookie];
    match way {
        Way::Close => {
            drop(first.socket);
            // It has gone when its FIN is acknowledged, which may take a while.
            told(daemon, cookies[0]);
            other.socket.receive_end();
            drop(other.socket);
        }
        Way::Shutdown => {
            first.socket.shutdown();
            other.socket.receive_end();
            drop(other.socket);
            first.socket.receive_end();
            drop(first.socket);
        }
        Way::Reset => {
            first.socket.reset_on_close();
            drop(first.socket);
            told(daemon, cookies[0]);
            drop(other.socket);
        }
    }
    cookies.map(|cookie| told(daemon, cookie))
}

/// Both closers, every way, with payload in both directions, one or none: each
/// byte counts once, and the peer's FIN as one more where it came while the full
/// socket was there. Who closed first is told where the counters prove it.
#[test]
fn the_bytes_that_were_sent() {
    netns::run("closing::the_bytes_that_were_sent", || {
        // The first dump reads them: without them nobody knows which SYNs count.
        let listeners = Domain::ALL.map(Sock::listener);
        let daemon = Daemon::start(Tick::Slow);
        for (listener, domain) in listeners.iter().zip(Domain::ALL) {
            for (sends, way, by_client) in cases() {
                let (client, server) = Sock::pair(listener);
                let (first, other) = if by_client {
                    (client, server)
                } else {
                    (server, client)
                };
                let [first, other] = [(first, sends[0]), (other, sends[1])]
                    .map(|(socket, sends)| End { socket, sends });
                let found = end(&daemon, first, other, way);
                let what = format!("{domain:?} {sends:?} {way:?}, by the client: {by_client}");
                let [a, b] = sends;
                // Nothing came, so no FIN did either when ours was acknowledged.
                let local = if b == 0 && way == Way::Close {
                    json!("local")
                } else {
                    Value::Null
                };
                let expected = match way {
                    Way::Close => [
                        [json!(a), json!(b), local],
                        [json!(b), json!(a + 1), Value::Null],
                    ],
                    Way::Shutdown => [
                        [json!(a), json!(b + 1), Value::Null],
                        [json!(b), json!(a + 1), Value::Null],
                    ],
                    // A reset is no FIN, and wipes what its sender counted.
                    Way::Reset => [
                        [Value::Null, Value::Null, Value::Null],
                        [json!(b), json!(a), Value::Null],
                    ],
                };
                assert_eq!(found, expected, "{what}");
            }
        }
        daemon.stop();
    });
}

fn cases() -> impl Iterator<Item = ([usize; 2], Way, bool)> {
    let payloads = [[1200, 70_000], [1200, 0], [0, 300], [0, 0]];
    payloads.into_iter().flat_map(|sends| {
        [Way::Close, Way::Shutdown, Way::Reset]
            .into_iter()
            .flat_map(move |way| [(sends, way, true), (sends, way, false)])
    })
}
