//! Sockets without a peer: listeners, SO_REUSEPORT groups, bound sockets, and
//! the children that nobody accepted.

use crate::daemon::{Daemon, Launch, Tick};
use crate::expect::{Expect, SILENT, Traffic};
use crate::netns;
use crate::sock::{Domain, Ident, Sock};

/// A listener, by the tick. A notice cannot tell it from a bound socket.
fn listener(tick: Tick, ident: Ident) -> [Expect; 2] {
    match tick {
        Tick::Fast => Expect::read(ident, "LISTEN", "LISTEN", Traffic::None),
        Tick::Slow => Expect::between_ticks(ident, "CLOSE", Traffic::None),
    }
}

#[test]
fn opened_and_closed() {
    netns::run("listeners::opened_and_closed", || {
        for (tick, domain) in Tick::BOTH
            .iter()
            .flat_map(|&tick| Domain::ALL.map(|d| (tick, d)))
        {
            let daemon = Daemon::start(tick);
            let socket = daemon.paused(|| Sock::listener(domain));
            let cookie = socket.cookie;
            if tick == Tick::Fast {
                daemon.opened(&[cookie]);
            }
            let ident = socket.close();
            daemon.finish(&[cookie]).hold(&listener(tick, ident));
        }
    });
}

#[test]
fn bound_only() {
    netns::run("listeners::bound_only", || {
        for (tick, domain) in Tick::BOTH
            .iter()
            .flat_map(|&tick| Domain::ALL.map(|d| (tick, d)))
        {
            // It moves no counter.
            let daemon = Launch::new(tick).setting("gate", "off").start();
            let socket = daemon.paused(|| {
                let socket = Sock::tcp(domain);
                socket.bind_loopback();
                socket
            });
            let cookie = socket.cookie;
            if tick == Tick::Fast {
                daemon.opened(&[cookie]);
            }
            let ident = socket.close();
            let expected = match tick {
                Tick::Fast => Expect::read(ident, "CLOSE", "CLOSE", Traffic::None),
                Tick::Slow => Expect::between_ticks(ident, "CLOSE", Traffic::None),
            };
            daemon.finish(&[cookie]).hold(&expected);
        }
    });
}

/// Sockets that share one address and port are still sockets of their own.
#[test]
fn reuseport_group() {
    netns::run("listeners::reuseport_group", || {
        for tick in Tick::BOTH {
            let daemon = Daemon::start(tick);
            let group = daemon.paused(|| {
                let mut group: Vec<Sock> = Vec::new();
                for _ in 0..4 {
                    let socket = Sock::tcp(Domain::V4);
                    socket.share_port();
                    match group.first() {
                        Some(first) => socket.bind(first.local()),
                        None => socket.bind_loopback(),
                    }
                    socket.listen(8);
                    group.push(socket);
                }
                group
            });
            let cookies: Vec<u64> = group.iter().map(|socket| socket.cookie).collect();
            if tick == Tick::Fast {
                daemon.opened(&cookies);
            }
            let mut expected = Vec::new();
            for socket in group {
                let cookie = socket.cookie;
                expected.extend(listener(tick, socket.close()));
                daemon.closed(&[cookie]);
                // One end is one end: the others are still there.
                if tick == Tick::Fast {
                    daemon.ticks(2);
                }
            }
            daemon.finish(&cookies).hold(&expected);
        }
    });
}

/// The uid is that of who made the socket, not that of a notice (always 0).
#[test]
fn owned_by_another_user() {
    netns::run("listeners::owned_by_another_user", || {
        const UID: u32 = 4242;
        if !netns::is_root() {
            return netns::skip("a user namespace made without privilege has only one user");
        }
        let daemon = Daemon::start(Tick::Fast);
        // SAFETY: setfsuid(2) takes a number, and concerns this thread alone.
        unsafe { libc::setfsuid(UID) };
        let socket = Sock::listener(Domain::V4);
        // SAFETY: as above.
        unsafe { libc::setfsuid(0) };
        let cookie = socket.cookie;
        daemon.opened(&[cookie]);
        let ident = socket.close();
        let expected = listener(Tick::Fast, ident).map(|expect| expect.owned_by(UID));
        daemon.finish(&[cookie]).hold(&expected);
    });
}

/// A child that waits in the accept queue has no file, and it ends with its
/// listener, wiped.
fn unaccepted(domain: Domain) {
    for tick in Tick::BOTH {
        let socket = Sock::listener(domain);
        let before = socket.ident();
        let daemon = Daemon::start(tick);
        let client = Sock::tcp(domain);
        daemon.paused(|| {
            client
                .connect(socket.local())
                .expect("a listener takes connections")
        });
        let child = client.ident().unaccepted_peer();
        if tick == Tick::Fast {
            daemon.opened(&[client.cookie]);
            daemon.wait_for("the child", |event| {
                event["data"]["action"] == "opened"
                    && event["data"]["local"] == child.local.to_string()
            });
        }
        let client = daemon.paused(|| {
            drop(socket);
            client.close()
        });
        let cookies = [client.cookie.unwrap(), before.cookie.unwrap()];
        let record = daemon.finish(&cookies);
        let child = match tick {
            Tick::Fast => Expect::connection(tick, child, Traffic::None),
            Tick::Slow => Expect::connection(tick, child.wiped(false), Traffic::None),
        };
        let client = Expect::connection(tick, client, SILENT);
        let mut expected = [child, client].concat();
        expected.push(Expect::notified(before, "LISTEN", Traffic::None));
        record.hold(&expected);
    }
}

#[test]
fn v4_unaccepted() {
    netns::run("listeners::v4_unaccepted", || unaccepted(Domain::V4));
}

#[test]
fn v6_unaccepted() {
    netns::run("listeners::v6_unaccepted", || unaccepted(Domain::V6));
}

/// A socket without a port is in no table of the kernel's.
#[test]
fn never_bound() {
    netns::run("listeners::never_bound", || {
        for tick in Tick::BOTH {
            let daemon = Daemon::start(tick);
            for domain in [Domain::V4, Domain::V6] {
                for socket in [Sock::tcp(domain), Sock::udp(domain)] {
                    if tick == Tick::Fast {
                        daemon.ticks(1);
                    }
                    drop(socket);
                }
            }
            daemon.settle();
            daemon.stop().hold(&[]);
        }
    });
}
