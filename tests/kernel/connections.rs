//! TCP connections that are made, used and ended, as every program does it.
//!
//! Each comes in every family and by both ticks: once it stays until a dump has
//! read it, once it is born and dead between two ticks.

use std::net::SocketAddr;

use crate::daemon::{Daemon, Tick};
use crate::expect::{Expect, SILENT, Traffic};
use crate::netns;
use crate::sock::{Domain, Sock};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Closer {
    Client,
    Server,
}

/// Each end sends and receives, and one of them closes first.
fn used(domain: Domain, closer: Closer) {
    for tick in Tick::BOTH {
        let listener = Sock::listener(domain);
        let daemon = Daemon::start(tick);
        let (client, server) = daemon.paused(|| Sock::pair(&listener));
        client.send(1000);
        server.receive(1000);
        server.send(300);
        client.receive(300);
        if tick == Tick::Fast {
            daemon.opened(&[client.cookie, server.cookie]);
        }
        let (client, server) = daemon.paused(|| match closer {
            Closer::Client => {
                let client = client.close();
                server.receive_end();
                (client, server.close())
            }
            Closer::Server => {
                let server = server.close();
                client.receive_end();
                (client.close(), server)
            }
        });
        let record = daemon.finish(&[client, server].map(|ident| ident.cookie.unwrap()));
        let [up, down] =
            [(1000, 300), (300, 1000)].map(|(sent, received)| Traffic::Bytes { sent, received });
        record.hold(
            &[
                Expect::connection(tick, client, up),
                Expect::connection(tick, server, down),
            ]
            .concat(),
        );
    }
}

#[test]
fn v4_closed_by_the_client() {
    netns::run("connections::v4_closed_by_the_client", || {
        used(Domain::V4, Closer::Client)
    });
}

#[test]
fn v4_closed_by_the_server() {
    netns::run("connections::v4_closed_by_the_server", || {
        used(Domain::V4, Closer::Server)
    });
}

#[test]
fn v6_closed_by_the_client() {
    netns::run("connections::v6_closed_by_the_client", || {
        used(Domain::V6, Closer::Client)
    });
}

#[test]
fn v6_closed_by_the_server() {
    netns::run("connections::v6_closed_by_the_server", || {
        used(Domain::V6, Closer::Server)
    });
}

#[test]
fn v4_mapped_closed_by_the_client() {
    netns::run("connections::v4_mapped_closed_by_the_client", || {
        used(Domain::Mapped, Closer::Client);
    });
}

#[test]
fn v4_mapped_closed_by_the_server() {
    netns::run("connections::v4_mapped_closed_by_the_server", || {
        used(Domain::Mapped, Closer::Server);
    });
}

/// An IPv4 client of a dual-stack listener: its accepted peer is an AF_INET6
/// socket that carries IPv4.
#[test]
fn v4_to_a_dual_stack_listener() {
    netns::run("connections::v4_to_a_dual_stack_listener", || {
        for tick in Tick::BOTH {
            let listener = Sock::tcp(Domain::V6);
            listener.bind(SocketAddr::new(Domain::V6.unspecified(), 0));
            listener.listen(8);
            let port = listener.local().port();
            let daemon = Daemon::start(tick);
            let (client, server) = daemon.paused(|| {
                let client = Sock::tcp(Domain::V4);
                client
                    .connect(SocketAddr::new(Domain::V4.loopback(), port))
                    .unwrap();
                (client, listener.accept())
            });
            let cookies = [client.cookie, server.cookie];
            if tick == Tick::Fast {
                daemon.opened(&cookies);
            }
            let (client, server) = daemon.paused(|| (client.close(), server.close()));
            assert_eq!(server.domain, Domain::Mapped);
            let record = daemon.finish(&cookies);
            record.hold(
                &[client, server]
                    .map(|ident| Expect::connection(tick, ident, SILENT))
                    .concat(),
            );
        }
    });
}

/// SO_LINGER 0: the closer goes through tcp_disconnect(), so its notice has
/// lost the peer's port, its own address and all counters.
fn reset(domain: Domain, closer: Closer) {
    for tick in Tick::BOTH {
        let listener = Sock::listener(domain);
        let daemon = Daemon::start(tick);
        let (client, server) = daemon.paused(|| Sock::pair(&listener));
        let cookies = [client.cookie, server.cookie];
        if tick == Tick::Fast {
            daemon.opened(&cookies);
        }
        let (resetting, reset) = match closer {
            Closer::Client => (client, server),
            Closer::Server => (server, client),
        };
        let (resetting, reset) = daemon.paused(|| {
            resetting.reset_on_close();
            (resetting.close(), reset.close())
        });
        let record = daemon.finish(&cookies);
        let resetting = match tick {
            // What the table holds wins over what the notice has lost.
            Tick::Fast => resetting,
            // An accepted socket keeps the address that its listener was bound to.
            Tick::Slow => resetting.wiped(closer == Closer::Client),
        };
        record.hold(
            &[
                Expect::connection(tick, resetting, Traffic::None),
                Expect::connection(tick, reset, Traffic::Handshake),
            ]
            .concat(),
        );
    }
}

#[test]
fn v4_reset_by_the_client() {
    netns::run("connections::v4_reset_by_the_client", || {
        reset(Domain::V4, Closer::Client)
    });
}

#[test]
fn v4_reset_by_the_server() {
    netns::run("connections::v4_reset_by_the_server", || {
        reset(Domain::V4, Closer::Server)
    });
}

#[test]
fn v6_reset_by_the_client() {
    netns::run("connections::v6_reset_by_the_client", || {
        reset(Domain::V6, Closer::Client)
    });
}

#[test]
fn v4_mapped_reset_by_the_client() {
    netns::run("connections::v4_mapped_reset_by_the_client", || {
        reset(Domain::Mapped, Closer::Client);
    });
}

/// How long a socket between two ticks lived is known within bounds that hold.
#[test]
fn durations_hold() {
    netns::run("connections::durations_hold", || {
        let listener = Sock::listener(Domain::V4);
        let daemon = Daemon::start(Tick::Slow);
        let began = std::time::Instant::now();
        let (client, server) = Sock::pair(&listener);
        client.send(10);
        server.receive(10);
        let silent = std::time::Instant::now();
        std::thread::sleep(std::time::Duration::from_millis(300));
        let cookies = [client.cookie, server.cookie];
        let at_least = silent.elapsed().as_millis() as u64;
        let (client, server) = (client.close(), server.close());
        let record = daemon.finish(&cookies);
        let at_most = began.elapsed().as_millis() as u64;
        let since_launch = at_most + 20_000;
        // The kernel counts in jiffies of up to 10 ms, and one of them is given
        // up so that the bound holds.
        let bounds = |expect: Expect| {
            expect
                .lasted("duration_min_ms", at_least - 25..=at_most)
                .lasted("duration_max_ms", at_least..=since_launch)
        };
        let [up, down] =
            [(10, 0), (0, 10)].map(|(sent, received)| Traffic::Bytes { sent, received });
        let [client_opened, client_closed] = Expect::connection(Tick::Slow, client, up);
        let [server_opened, server_closed] = Expect::connection(Tick::Slow, server, down);
        record.hold(&[
            client_opened,
            bounds(client_closed),
            server_opened,
            bounds(server_closed),
        ]);
    });
}

/// And how long one lived that was seen, from its first sight to its end.
#[test]
fn durations_of_seen_sockets_hold() {
    netns::run("connections::durations_of_seen_sockets_hold", || {
        let listener = Sock::listener(Domain::V4);
        let daemon = Daemon::start(Tick::Fast);
        let (client, server) = daemon.paused(|| Sock::pair(&listener));
        let before = std::time::Instant::now();
        let cookies = [client.cookie, server.cookie];
        daemon.opened(&cookies);
        let seen = std::time::Instant::now();
        std::thread::sleep(std::time::Duration::from_millis(300));
        let at_least = seen.elapsed().as_millis() as u64;
        let (client, server) = daemon.paused(|| (client.close(), server.close()));
        daemon.closed(&cookies);
        let at_most = before.elapsed().as_millis() as u64;
        let record = daemon.finish(&cookies);
        let expected = [client, server].map(|ident| {
            let [opened, closed] = Expect::connection(Tick::Fast, ident, SILENT);
            [opened, closed.lasted("duration_ms", at_least..=at_most + 1)]
        });
        record.hold(&expected.concat());
    });
}

/// Sockets that nobody has asked for their cookie get one when a dump or a
/// notice first shows them; a minisocket left behind by one that had none gets
/// another. Still each opens once and closes once.
#[test]
fn sockets_without_a_cookie() {
    netns::run("connections::sockets_without_a_cookie", || {
        for tick in Tick::BOTH {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let daemon = Daemon::start(tick);
            let mut ends = Vec::new();
            for _ in 0..20 {
                let client = std::net::TcpStream::connect(address).unwrap();
                let server = listener.accept().unwrap().0;
                ends.push((
                    client.local_addr().unwrap().to_string(),
                    address.to_string(),
                ));
                ends.push((
                    address.to_string(),
                    client.local_addr().unwrap().to_string(),
                ));
                drop((client, server));
                if tick == Tick::Fast {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
            }
            let last = ends.last().cloned().unwrap();
            daemon.wait_for("the last close", |event| {
                event["data"]["local"] == last.0 && event["data"]["action"] == "closed"
            });
            if tick == Tick::Fast {
                daemon.ticks(3);
            }
            daemon.settle();
            let record = daemon.stop();
            let mut found = Vec::new();
            for cookie in record.cookies("opened") {
                let of_it: Vec<_> = record
                    .events()
                    .filter(|event| event["data"]["cookie"] == cookie)
                    .collect();
                let actions: Vec<_> = of_it.iter().map(|event| &event["data"]["action"]).collect();
                assert_eq!(actions, ["opened", "closed"], "{of_it:?}");
                let text = |key: &str| of_it[0]["data"][key].as_str().unwrap().to_string();
                found.push((text("local"), text("remote")));
            }
            found.sort();
            ends.sort();
            assert_eq!(found, ends);
        }
    });
}
