//! One socket, several tuples: the ends change under a cookie that stays.
//!
//! For a reader that is the end of one thing and the beginning of another, so it
//! is told as that, with evidence `rebound`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::daemon::{Daemon, Launch, PATIENCE, Tick};
use crate::expect::{Expect, SILENT, Traffic};
use crate::netns;
use crate::sock::{Domain, Ident, Sock};
use crate::syn_sent::Deaf;

fn peer(domain: Domain, port: u16) -> SocketAddr {
    SocketAddr::new(domain.loopback(), port)
}

/// Waits until the new tuple has been reported.
fn rebound(daemon: &Daemon, ident: Ident) {
    // It moves no counter, and the dump that would have come by itself may have
    // been over before the opening was told.
    daemon.udp_ticks("beacon", 1);
    daemon.wait_for("the new tuple", |event| {
        event["data"]["action"] == "opened"
            && event["data"]["cookie"] == ident.cookie.unwrap()
            && event["data"]["remote"] == ident.remote.to_string()
    });
}

#[test]
fn udp_reconnect() {
    netns::run("rebound::udp_reconnect", || {
        for domain in Domain::ALL {
            let daemon = Daemon::start(Tick::Fast);
            let socket = Sock::udp(domain);
            socket.connect(peer(domain, 9)).unwrap();
            let first = socket.ident();
            daemon.opened(&[socket.cookie]);
            socket.connect(peer(domain, 10)).unwrap();
            let second = socket.ident();
            rebound(&daemon, second);
            let cookie = socket.cookie;
            drop(socket);
            daemon.finish(&[cookie]).hold(&[
                Expect::opened(first, "dump", "ESTABLISHED"),
                Expect::closed(first, "rebound", "ESTABLISHED"),
                Expect::opened(second, "rebound", "ESTABLISHED"),
                Expect::notified(second, "ESTABLISHED", Traffic::None),
            ]);
        }
    });
}

/// The reconnect and the end both between two ticks: the notice tells of both.
#[test]
fn udp_reconnect_told_by_the_notice() {
    netns::run("rebound::udp_reconnect_told_by_the_notice", || {
        let daemon = Daemon::start(Tick::Fast);
        let socket = Sock::udp(Domain::V4);
        socket.connect(peer(Domain::V4, 9)).unwrap();
        let first = socket.ident();
        let cookie = socket.cookie;
        daemon.opened(&[cookie]);
        let second = daemon.paused(|| {
            socket.connect(peer(Domain::V4, 10)).unwrap();
            socket.close()
        });
        daemon.wait_for("the end", |event| {
            event["data"]["action"] == "closed"
                && event["data"]["remote"] == second.remote.to_string()
        });
        daemon.finish(&[cookie]).hold(&[
            Expect::opened(first, "dump", "ESTABLISHED"),
            Expect::closed(first, "rebound", "ESTABLISHED"),
            Expect::opened(second, "rebound", "ESTABLISHED"),
            Expect::notified(second, "ESTABLISHED", Traffic::None),
        ]);
    });
}

/// All of it between two ticks: only the last tuple can be known.
#[test]
fn udp_reconnect_between_ticks() {
    netns::run("rebound::udp_reconnect_between_ticks", || {
        let daemon = Daemon::start(Tick::Slow);
        let socket = Sock::udp(Domain::V4);
        socket.connect(peer(Domain::V4, 9)).unwrap();
        socket.connect(peer(Domain::V4, 10)).unwrap();
        let ident = socket.close();
        daemon
            .finish(&[ident.cookie.unwrap()])
            .hold(&Expect::between_ticks(ident, "ESTABLISHED", Traffic::None));
    });
}

/// Bound, then connected, then without a peer again.
#[test]
fn udp_bound_connected_disconnected() {
    netns::run("rebound::udp_bound_connected_disconnected", || {
        // What a bound socket is connected to moves no counter.
        let daemon = Launch::new(Tick::Fast).setting("gate", "off").start();
        let socket = Sock::udp(Domain::V4);
        // A port asked for by number is kept (SOCK_BINDPORT_LOCK).
        socket.bind(peer(Domain::V4, 4000));
        let bound = socket.ident();
        daemon.opened(&[socket.cookie]);
        socket.connect(peer(Domain::V4, 9)).unwrap();
        let connected = socket.ident();
        rebound(&daemon, connected);
        socket.disconnect();
        let again = socket.ident();
        daemon.wait_for("the disconnect", |event| {
            event["data"]["action"] == "closed"
                && event["data"]["remote"] == connected.remote.to_string()
        });
        drop(socket);
        daemon.settle();
        daemon.stop().hold(&[
            Expect::opened(bound, "dump", "UNCONN"),
            Expect::closed(bound, "rebound", "UNCONN"),
            Expect::opened(connected, "rebound", "ESTABLISHED"),
            Expect::closed(connected, "rebound", "ESTABLISHED"),
            Expect::opened(again, "rebound", "UNCONN"),
            Expect::notified(again, "UNCONN", Traffic::None),
        ]);
    });
}

/// A port that the kernel chose goes with the peer: the socket is in no table
/// any more, but it has not ended until it is closed.
#[test]
fn udp_disconnected_without_a_port() {
    netns::run("rebound::udp_disconnected_without_a_port", || {
        let daemon = Daemon::start(Tick::Fast);
        let socket = Sock::udp(Domain::V4);
        socket.connect(peer(Domain::V4, 9)).unwrap();
        let connected = socket.ident();
        let cookie = socket.cookie;
        daemon.opened(&[cookie]);
        socket.disconnect();
        daemon.ticks(2);
        assert!(
            !daemon.has("closed", cookie),
            "closed while it can be connected again"
        );
        drop(socket);
        daemon.finish(&[cookie]).hold(&Expect::read(
            connected,
            "ESTABLISHED",
            "ESTABLISHED",
            Traffic::None,
        ));
    });
}

/// A TCP socket whose connect failed may connect again, elsewhere.
#[test]
fn tcp_reused_after_a_failed_connect() {
    netns::run("rebound::tcp_reused_after_a_failed_connect", || {
        let deaf = Deaf::new(Domain::V4);
        let listener = Sock::listener(Domain::V4);
        let daemon = Daemon::start(Tick::Fast);
        let client = Sock::tcp(Domain::V4);
        client.connect_nonblocking(deaf.listener.local());
        let first = client.ident();
        daemon.opened(&[client.cookie]);
        let mut expected = deaf.ends().to_vec();
        drop(deaf);
        let error = client.failure(PATIENCE);
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        client.blocking();
        let server = daemon.paused(|| {
            // The first call after a failure only takes note of it.
            if client.connect(listener.local()).is_err() {
                client
                    .connect(listener.local())
                    .expect("the second one connects");
            }
            listener.accept()
        });
        let second = client.ident();
        daemon.opened(&[server.cookie]);
        rebound(&daemon, second);
        let (client, server) = daemon.paused(|| (client.close(), server.close()));
        let cookies = [client.cookie.unwrap(), server.cookie.unwrap()];
        daemon.wait_for("the end", |event| {
            event["data"]["action"] == "closed"
                && event["data"]["local"] == second.local.to_string()
                && event["data"]["remote"] == second.remote.to_string()
        });
        let record = daemon.finish(&cookies);
        expected.extend([
            Expect::opened(first, "dump", "SYN_SENT"),
            Expect::closed(first, "rebound", "SYN_SENT"),
            Expect::opened(second, "rebound", "ESTABLISHED"),
            Expect::notified(second, "ESTABLISHED", SILENT),
        ]);
        expected.extend(Expect::connection(Tick::Fast, server, SILENT));
        record.hold(&expected);
    });
}

/// A TCP socket that a dump has read as bound and that connects then.
#[test]
fn tcp_bound_then_connected() {
    netns::run("rebound::tcp_bound_then_connected", || {
        let listener = Sock::listener(Domain::V4);
        // A socket that is only bound moves no counter.
        let daemon = Launch::new(Tick::Fast).setting("gate", "off").start();
        let client = Sock::tcp(Domain::V4);
        client.bind_loopback();
        let bound = client.ident();
        daemon.opened(&[client.cookie]);
        let server = daemon.paused(|| {
            client.connect(listener.local()).unwrap();
            listener.accept()
        });
        let connected = client.ident();
        let cookies = [client.cookie, server.cookie];
        daemon.opened(&cookies);
        rebound(&daemon, connected);
        let server = daemon.paused(|| {
            drop(client);
            server.close()
        });
        daemon.wait_for("the end", |event| {
            event["data"]["evidence"] == "notified"
                && event["data"]["cookie"] == connected.cookie.unwrap()
        });
        let record = daemon.finish(&cookies);
        let mut expected = vec![
            Expect::opened(bound, "dump", "CLOSE"),
            Expect::closed(bound, "rebound", "CLOSE"),
            Expect::opened(connected, "rebound", "ESTABLISHED"),
            Expect::notified(connected, "ESTABLISHED", SILENT),
        ];
        expected.extend(Expect::connection(Tick::Fast, server, SILENT));
        record.hold(&expected);
    });
}

/// Read as bound; the failed connect that followed is known only from a notice
/// whose remote port is gone. That is no rebound: what the table holds wins.
#[test]
fn tcp_bound_then_refused() {
    netns::run("rebound::tcp_bound_then_refused", || {
        let nobody = Sock::listener(Domain::V4).local();
        // A socket that is only bound moves no counter.
        let daemon = Launch::new(Tick::Fast).setting("gate", "off").start();
        let client = Sock::tcp(Domain::V4);
        client.bind_loopback();
        let bound = client.ident();
        daemon.opened(&[client.cookie]);
        let cookie = client.cookie;
        daemon.paused(|| {
            assert!(client.connect(nobody).is_err());
            drop(client);
        });
        daemon
            .finish(&[cookie])
            .hold(&Expect::read(bound, "CLOSE", "CLOSE", Traffic::None));
    });
}

/// A socket can change its family: the groups of both tell of the ends of what a
/// sensor of one family has in view.
#[test]
fn an_end_is_told_where_the_socket_has_gone() {
    netns::run("rebound::an_end_is_told_where_the_socket_has_gone", || {
        let daemon = Launch::new(Tick::Fast)
            .sensors("  sockets: {listener: net.socket, args: {patterns: [\"udp6 *\"]}}\n")
            .start();
        let socket = Sock::udp(Domain::V6);
        socket.bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0));
        let cookie = socket.cookie;
        daemon.opened(&[cookie]);
        daemon.paused(|| {
            let peer = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
            socket
                .connect(SocketAddr::new(peer.into(), 9))
                .expect("UDP asks nobody");
            socket.set(libc::IPPROTO_IPV6, libc::IPV6_ADDRFORM, libc::AF_INET);
            drop(socket);
        });
        daemon.closed(&[cookie]);
        let record = daemon.stop();
        assert_eq!(record.evidence("closed", cookie), "rebound");
    });
}
