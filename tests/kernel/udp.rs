//! UDP sockets: connected, bound, neither.

use std::net::SocketAddr;

use crate::daemon::{Daemon, Tick};
use crate::expect::{Expect, Traffic};
use crate::netns;
use crate::sock::{Domain, Ident, Sock};

/// Either, by the tick.
fn expected(tick: Tick, ident: Ident, state: &str) -> [Expect; 2] {
    match tick {
        Tick::Fast => Expect::read(ident, state, state, Traffic::None),
        Tick::Slow => Expect::between_ticks(ident, state, Traffic::None),
    }
}

fn each(state: &str, make: fn(Domain) -> Sock) {
    for tick in Tick::BOTH {
        let daemon = Daemon::start(tick);
        let sockets = daemon.paused(|| Domain::ALL.map(make));
        let cookies = [0, 1, 2].map(|at: usize| sockets[at].cookie);
        if tick == Tick::Fast {
            daemon.opened(&cookies);
        }
        let idents = sockets.map(Sock::close);
        let record = daemon.finish(&cookies);
        record.hold(&idents.map(|ident| expected(tick, ident, state)).concat());
    }
}

#[test]
fn connected() {
    netns::run("udp::connected", || {
        each("ESTABLISHED", |domain| {
            let socket = Sock::udp(domain);
            socket
                .connect(SocketAddr::new(domain.loopback(), 9))
                .expect("UDP asks nobody");
            socket
        });
    });
}

#[test]
fn bound() {
    netns::run("udp::bound", || {
        each("UNCONN", |domain| {
            let socket = Sock::udp(domain);
            socket.bind_loopback();
            socket
        });
    });
}

/// Sending without a peer binds a socket to a port, and that is an opening.
#[test]
fn bound_by_sending() {
    netns::run("udp::bound_by_sending", || {
        for tick in Tick::BOTH {
            let daemon = Daemon::start(tick);
            let socket = Sock::udp(Domain::V4);
            if tick == Tick::Fast {
                // Without a port it is not there.
                daemon.ticks(1);
                assert!(!daemon.has("opened", socket.cookie));
            }
            let there = Sock::udp(Domain::V4);
            there.bind_loopback();
            socket.send_to(there.local());
            let cookies = [socket.cookie, there.cookie];
            if tick == Tick::Fast {
                daemon.opened(&cookies);
            }
            let (socket, there) = (socket.close(), there.close());
            assert_ne!(socket.local.port(), 0);
            let record = daemon.finish(&cookies);
            record.hold(
                &[socket, there]
                    .map(|ident| expected(tick, ident, "UNCONN"))
                    .concat(),
            );
        }
    });
}
