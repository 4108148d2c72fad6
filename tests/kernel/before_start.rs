//! Sockets that were there before the daemon.

use std::net::SocketAddr;

use crate::daemon::{Launch, Tick};
use crate::expect::{Expect, SILENT, Traffic};
use crate::netns;
use crate::proc_net;
use crate::sock::{Domain, Ident, Sock};

/// Some of each kind, with the state that a dump reads.
fn some() -> Vec<(Sock, &'static str, Traffic)> {
    let mut sockets = Vec::new();
    for domain in Domain::ALL {
        let listener = Sock::listener(domain);
        let (client, server) = Sock::pair(&listener);
        let bound = Sock::tcp(domain);
        bound.bind_loopback();
        let udp_bound = Sock::udp(domain);
        udp_bound.bind_loopback();
        let udp_connected = Sock::udp(domain);
        udp_connected
            .connect(SocketAddr::new(domain.loopback(), 9))
            .unwrap();
        sockets.extend([
            (listener, "LISTEN", Traffic::None),
            (client, "ESTABLISHED", SILENT),
            (server, "ESTABLISHED", SILENT),
            (bound, "CLOSE", Traffic::None),
            (udp_bound, "UNCONN", Traffic::None),
            (udp_connected, "ESTABLISHED", Traffic::None),
        ]);
    }
    sockets
}

fn close(sockets: Vec<(Sock, &'static str, Traffic)>) -> Vec<(Ident, &'static str, Traffic)> {
    sockets
        .into_iter()
        .map(|(socket, state, traffic)| (socket.close(), state, traffic))
        .collect()
}

#[test]
fn enter_silently() {
    netns::run("before_start::enter_silently", || {
        for tick in Tick::BOTH {
            let sockets = some();
            let cookies: Vec<u64> = sockets.iter().map(|(socket, ..)| socket.cookie).collect();
            let daemon = Launch::new(tick).start();
            if tick == Tick::Fast {
                daemon.ticks(2);
            }
            let ended = daemon.paused(|| close(sockets));
            let record = daemon.finish(&cookies);
            let expected: Vec<Expect> = ended
                .into_iter()
                .map(|(ident, state, traffic)| Expect::notified(ident, state, traffic))
                .collect();
            record.hold(&expected);
        }
    });
}

#[test]
fn are_reported_where_initial_is_set() {
    netns::run("before_start::are_reported_where_initial_is_set", || {
        for tick in Tick::BOTH {
            let sockets = some();
            let cookies: Vec<u64> = sockets.iter().map(|(socket, ..)| socket.cookie).collect();
            let daemon = Launch::new(tick)
                .sensors("  sockets: {listener: net.socket, args: {initial: true}}\n")
                .start();
            // Even between two ticks: the first dump is part of the start.
            daemon.opened(&cookies);
            if tick == Tick::Fast {
                daemon.ticks(2);
            }
            let ended = daemon.paused(|| close(sockets));
            let record = daemon.finish(&cookies);
            let expected: Vec<Expect> = ended
                .into_iter()
                .flat_map(|(ident, state, traffic)| Expect::read(ident, state, state, traffic))
                .collect();
            record.hold(&expected);
        }
    });
}

/// TIME_WAIT and FIN_WAIT2 leftovers, and a half-closed connection, at start.
#[test]
fn leftovers_and_half_closed() {
    netns::run("before_start::leftovers_and_half_closed", || {
        let listener = Sock::listener(Domain::V4);
        let (client, server) = Sock::pair(&listener);
        client.close();
        server.receive_end();
        server.close();
        let (client, server) = Sock::pair(&listener);
        client.close();
        server.receive_end();
        proc_net::quiet();
        let daemon = Launch::new(Tick::Fast)
            .sensors("  sockets: {listener: net.socket, args: {initial: true}}\n")
            .start();
        daemon.ticks(2);
        let cookies = [server.cookie, listener.cookie];
        let (server, listener) = daemon.paused(|| (server.close(), listener.close()));
        daemon.finish(&cookies).hold(
            &[
                Expect::read(server, "ESTABLISHED", "CLOSE_WAIT", SILENT),
                Expect::read(listener, "LISTEN", "LISTEN", Traffic::None),
            ]
            .concat(),
        );
    });
}
