//! Several sensors over one table: each with its own patterns, opts, interval,
//! tag and locks, none in the way of another.

use std::net::SocketAddr;

use crate::daemon::{Launch, Tick};
use crate::expect::{Expect, SILENT, Traffic};
use crate::netns;
use crate::sock::{Domain, Sock};

/// `locked` is quick, sees clients of one listener, and mutes what it has said
/// before. `ends` is slow, reports only ends, and does not look at one address.
/// `udp` shares nothing with them.
const SENSORS: &str = r#"
  locked:
    listener: net.socket
    interval: 20ms
    tag: quick
    args: {patterns: ["tcp * 127.0.0.1:7000 * ESTABLISHED"], locked: true}
  ends:
    listener: net.socket
    interval: 1h
    opts: [closed]
    args: {patterns: ["tcp * * * ESTABLISHED"], ignore: ["tcp 127.0.0.2:*"]}
  udp:
    listener: net.socket
    interval: 50ms
    opts: [opened]
    tag: datagrams
    args: {patterns: ["udp4 * * * *"]}
"#;

fn listener(address: &str) -> Sock {
    let socket = Sock::tcp(Domain::V4);
    socket.bind(address.parse().expect("an address"));
    socket.listen(8);
    socket
}

#[test]
fn each_sees_its_own() {
    netns::run("sensors::each_sees_its_own", || {
        let (seen, ignored) = (listener("127.0.0.1:7000"), listener("127.0.0.2:7001"));
        let daemon = Launch::new(Tick::Slow).sensors(SENSORS).start();
        let mut expected = Vec::new();

        // The first one is said by all who may. `ends` reads no dump of its own
        // in this hour, but it sees every row that is read for the others.
        let (client, server) = daemon.paused(|| Sock::pair(&seen));
        daemon.reported("locked", "opened", client.cookie);
        let (client, server) = daemon.paused(|| (client.close(), server.close()));
        daemon.reported("locked", "closed", client.cookie.unwrap());
        daemon.reported("ends", "closed", server.cookie.unwrap());
        let [opened, closed] = Expect::connection(Tick::Fast, client, SILENT);
        expected.push(opened.by("locked").tagged("quick"));
        expected.push(closed.clone().by("locked").tagged("quick"));
        expected.push(closed.by("ends"));
        expected.push(Expect::notified(server, "ESTABLISHED", SILENT).by("ends"));

        // The second one has the same event ids: `locked` is mute.
        let (client, server) = daemon.paused(|| Sock::pair(&seen));
        daemon.udp_ticks("udp", 3);
        let (client, server) = daemon.paused(|| (client.close(), server.close()));
        for ident in [client, server] {
            daemon.reported("ends", "closed", ident.cookie.unwrap());
            expected.push(Expect::notified(ident, "ESTABLISHED", SILENT).by("ends"));
        }

        // Released, it speaks again.
        daemon.signal(libc::SIGUSR1);
        let line = daemon.wait_for_line("the release", |line| line.contains("released"));
        assert!(
            line.contains("released 2 locks"),
            "opened and closed are two ids: {line}"
        );
        assert!(line.contains(" 2 events"), "each muted one: {line}");
        let (client, server) = daemon.paused(|| Sock::pair(&seen));
        daemon.reported("locked", "opened", client.cookie);
        let (client, server) = daemon.paused(|| (client.close(), server.close()));
        daemon.reported("locked", "closed", client.cookie.unwrap());
        daemon.reported("ends", "closed", server.cookie.unwrap());
        let [opened, closed] = Expect::connection(Tick::Fast, client, SILENT);
        expected.push(opened.by("locked").tagged("quick"));
        expected.push(closed.clone().by("locked").tagged("quick"));
        expected.push(closed.by("ends"));
        expected.push(Expect::notified(server, "ESTABLISHED", SILENT).by("ends"));

        // The server's end of this one is ignored by address.
        let (client, server) = daemon.paused(|| Sock::pair(&ignored));
        daemon.udp_ticks("udp", 3);
        let (client, _) = daemon.paused(|| (client.close(), server.close()));
        daemon.reported("ends", "closed", client.cookie.unwrap());
        expected.push(Expect::notified(client, "ESTABLISHED", SILENT).by("ends"));

        let udp = Sock::udp(Domain::V4);
        udp.bind_loopback();
        daemon.reported("udp", "opened", udp.cookie);
        let udp = udp.close();
        expected.push(
            Expect::opened(udp, "dump", "UNCONN")
                .by("udp")
                .tagged("datagrams"),
        );
        // Nobody asked for IPv6.
        let other = Sock::udp(Domain::V6);
        other.bind_loopback();
        daemon.udp_ticks("udp", 2);
        drop(other);

        daemon.settle();
        daemon.stop().hold(&expected);
    });
}

/// Two sensors that both see a socket each say so, in their own words.
#[test]
fn the_same_socket_twice() {
    netns::run("sensors::the_same_socket_twice", || {
        let daemon = Launch::new(Tick::Fast)
            .sensors(
                "  one: {listener: net.socket, tag: first}\n  \
                 two: {listener: net.socket, opts: [closed], args: {patterns: [\"* LISTEN\"]}}\n",
            )
            .start();
        let socket = Sock::listener(Domain::V6);
        let cookie = socket.cookie;
        daemon.reported("one", "opened", cookie);
        let ident = socket.close();
        daemon.reported("two", "closed", cookie);
        daemon.settle();
        let [opened, closed] = Expect::read(ident, "LISTEN", "LISTEN", Traffic::None);
        daemon.stop().hold(&[
            opened.by("one").tagged("first"),
            closed.clone().by("one").tagged("first"),
            closed.by("two"),
        ]);
    });
}

/// A socket enters a view when it first passes, whatever it was before, and
/// stays in it whatever it becomes.
#[test]
fn a_view_is_entered_late_and_not_left() {
    netns::run("sensors::a_view_is_entered_late_and_not_left", || {
        let listener = Sock::tcp(Domain::V4);
        listener.bind(SocketAddr::new(Domain::V4.loopback(), 0));
        let daemon = Launch::new(Tick::Fast)
            .sensors(
                "  all: {listener: net.socket, args: {initial: true}}\n  \
                 listening: {listener: net.socket, args: {patterns: [\"tcp * * * LISTEN\"]}}\n",
            )
            .start();
        daemon.reported("all", "opened", listener.cookie);
        listener.listen(1);
        daemon.reported("listening", "opened", listener.cookie);
        let cookie = listener.cookie;
        let ident = listener.close();
        daemon.reported("listening", "closed", cookie);
        daemon.settle();
        let [_, closed] = Expect::read(ident, "LISTEN", "LISTEN", Traffic::None);
        daemon.stop().hold(&[
            Expect::opened(ident, "dump", "CLOSE").by("all"),
            closed.clone().by("all"),
            Expect::opened(ident, "dump", "LISTEN").by("listening"),
            closed.by("listening"),
        ]);
    });
}
