//! Connects that fail or are given up.

use crate::daemon::{Daemon, Launch, PATIENCE, Tick};
use crate::expect::{Expect, SILENT, Traffic};
use crate::netns;
use crate::sock::{Domain, Ident, Sock};

/// A listener that answers no SYN any more: its accept queue is full
/// (`tcp_conn_request` drops the SYN).
pub struct Deaf {
    /// The listener.
    pub listener: Sock,
    filler: Sock,
}

impl Deaf {
    /// One on the loopback address.
    pub fn new(domain: Domain) -> Deaf {
        let listener = Sock::tcp(domain);
        listener.bind_loopback();
        // A backlog of 0 leaves room for one.
        listener.listen(0);
        let filler = Sock::tcp(domain);
        filler
            .connect(listener.local())
            .expect("there is room for one");
        Deaf { listener, filler }
    }

    /// What is seen of its end by a daemon that was started after it: that of
    /// the listener, and of the connection that waited in its queue.
    pub fn ends(&self) -> [Expect; 3] {
        let filler = self.filler.ident();
        [
            Expect::notified(self.listener.ident(), "LISTEN", Traffic::None),
            Expect::notified(filler, "ESTABLISHED", Traffic::Handshake),
            Expect::notified(filler.unaccepted_peer(), "ESTABLISHED", Traffic::None),
        ]
    }
}

/// An address on which nobody listens.
pub fn nobody(domain: Domain) -> std::net::SocketAddr {
    let listener = Sock::listener(domain);
    listener.local()
}

fn assert_refused(error: &std::io::Error) {
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED), "{error}");
}

/// A blocking connect that is refused at once goes through tcp_disconnect():
/// its notice knows no port of the peer. No dump can have read it.
fn refused_blocking(domain: Domain) {
    for tick in Tick::BOTH {
        let address = nobody(domain);
        let daemon = Daemon::start(tick);
        let client = Sock::tcp(domain);
        let client = daemon.paused(|| {
            assert_refused(&client.connect(address).unwrap_err());
            client.close()
        });
        let record = daemon.finish(&[client.cookie.unwrap()]);
        record.hold(&Expect::between_ticks(
            client.wiped(true),
            "SYN_SENT",
            Traffic::None,
        ));
    }
}

#[test]
fn v4_refused_blocking() {
    netns::run("syn_sent::v4_refused_blocking", || {
        refused_blocking(Domain::V4)
    });
}

#[test]
fn v6_refused_blocking() {
    netns::run("syn_sent::v6_refused_blocking", || {
        refused_blocking(Domain::V6)
    });
}

#[test]
fn v4_mapped_refused_blocking() {
    netns::run("syn_sent::v4_mapped_refused_blocking", || {
        refused_blocking(Domain::Mapped)
    });
}

/// Bound to an address of its own, a socket keeps it even then.
#[test]
fn bound_and_refused_blocking() {
    netns::run("syn_sent::bound_and_refused_blocking", || {
        let address = nobody(Domain::V4);
        let daemon = Daemon::start(Tick::Slow);
        let client = Sock::tcp(Domain::V4);
        client.bind_loopback();
        assert_refused(&client.connect(address).unwrap_err());
        let client = client.close();
        let record = daemon.finish(&[client.cookie.unwrap()]);
        record.hold(&Expect::between_ticks(
            client.wiped(false),
            "SYN_SENT",
            Traffic::None,
        ));
    });
}

/// A refused non-blocking connect keeps both ends.
fn refused_nonblocking(domain: Domain) {
    for tick in Tick::BOTH {
        let address = nobody(domain);
        let daemon = Daemon::start(tick);
        let client = Sock::tcp(domain);
        let client = daemon.paused(|| {
            client.nonblocking();
            // On lo the refusal is there before connect() returns.
            let client_ident = match client.connect(address) {
                Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                    let ident = client.ident();
                    assert_refused(&client.failure(PATIENCE));
                    ident
                }
                other => panic!("a non-blocking connect said {other:?}"),
            };
            drop(client);
            client_ident
        });
        let record = daemon.finish(&[client.cookie.unwrap()]);
        record.hold(&Expect::between_ticks(
            client,
            "SYN_SENT",
            Traffic::Handshake,
        ));
    }
}

#[test]
fn v4_refused_nonblocking() {
    netns::run("syn_sent::v4_refused_nonblocking", || {
        refused_nonblocking(Domain::V4)
    });
}

#[test]
fn v6_refused_nonblocking() {
    netns::run("syn_sent::v6_refused_nonblocking", || {
        refused_nonblocking(Domain::V6)
    });
}

#[test]
fn v4_mapped_refused_nonblocking() {
    netns::run("syn_sent::v4_mapped_refused_nonblocking", || {
        refused_nonblocking(Domain::Mapped)
    });
}

/// Either, by the tick.
fn syn_sent(tick: Tick, ident: Ident, traffic: Traffic) -> [Expect; 2] {
    match tick {
        Tick::Fast => Expect::read(ident, "SYN_SENT", "SYN_SENT", traffic),
        Tick::Slow => Expect::between_ticks(ident, "SYN_SENT", traffic),
    }
}

/// A connect that nobody answers, given up by close().
fn aborted(domain: Domain) {
    for tick in Tick::BOTH {
        let deaf = Deaf::new(domain);
        let daemon = Daemon::start(tick);
        let client = Sock::tcp(domain);
        client.connect_nonblocking(deaf.listener.local());
        if tick == Tick::Fast {
            daemon.opened(&[client.cookie]);
        }
        let client = client.close();
        let record = daemon.finish(&[client.cookie.unwrap()]);
        record.hold(&syn_sent(tick, client, Traffic::Handshake));
    }
}

#[test]
fn v4_aborted() {
    netns::run("syn_sent::v4_aborted", || aborted(Domain::V4));
}

#[test]
fn v6_aborted() {
    netns::run("syn_sent::v6_aborted", || aborted(Domain::V6));
}

/// A blocking connect that a dump reads while it waits, and that is refused
/// after all: the notice is wiped, but the table remembers where it went.
#[test]
fn refused_after_it_was_read() {
    netns::run("syn_sent::refused_after_it_was_read", || {
        let deaf = Deaf::new(Domain::V4);
        let daemon = Daemon::start(Tick::Fast);
        let client = Sock::tcp(Domain::V4);
        let address = deaf.listener.local();
        let mut expected = deaf.ends().to_vec();
        let ident = std::thread::scope(|scope| {
            let connect = scope.spawn(|| client.connect(address));
            daemon.opened(&[client.cookie]);
            let ident = client.ident();
            // The next SYN, a second after the first, meets no listener.
            drop(deaf);
            assert_refused(&connect.join().unwrap().unwrap_err());
            ident
        });
        drop(client);
        let record = daemon.finish(&[ident.cookie.unwrap()]);
        expected.extend(syn_sent(Tick::Fast, ident, Traffic::None));
        record.hold(&expected);
    });
}

/// The same without blocking: nothing is wiped.
#[test]
fn refused_nonblocking_after_it_was_read() {
    netns::run("syn_sent::refused_nonblocking_after_it_was_read", || {
        let deaf = Deaf::new(Domain::V4);
        let daemon = Daemon::start(Tick::Fast);
        let client = Sock::tcp(Domain::V4);
        client.connect_nonblocking(deaf.listener.local());
        let ident = client.ident();
        daemon.opened(&[client.cookie]);
        let mut expected = deaf.ends().to_vec();
        drop(deaf);
        assert_refused(&client.failure(PATIENCE));
        drop(client);
        expected.extend(syn_sent(Tick::Fast, ident, Traffic::Handshake));
        daemon.finish(&[ident.cookie.unwrap()]).hold(&expected);
    });
}

/// A connect that is answered late: opened as SYN_SENT for who watches
/// everything, and as ESTABLISHED for who waits for connections.
fn answered_late(seen: bool) {
    let deaf = Deaf::new(Domain::V4);
    let daemon = Launch::new(Tick::Fast)
        .sensors(
            "  sockets: {listener: net.socket}\n  \
             established: {listener: net.socket, args: {patterns: [\"* ESTABLISHED\"]}}\n",
        )
        .start();
    let client = Sock::tcp(Domain::V4);
    client.connect_nonblocking(deaf.listener.local());
    daemon.opened(&[client.cookie]);
    assert!(!daemon.has_from("established", client.cookie));
    let answer = |client: &Sock| {
        // Room in the queue: the next SYN, a second after the first, is answered.
        let filled = deaf.listener.accept();
        client.outcome(PATIENCE).expect("the listener hears again");
        (filled, deaf.listener.accept())
    };
    let close = |client: Sock, server: Sock| (client.close(), server.close());
    let (filled, (client, server)) = if seen {
        let (filled, server) = daemon.paused(|| answer(&client));
        for cookie in [client.cookie, server.cookie] {
            daemon.reported("established", "opened", cookie);
        }
        (filled, daemon.paused(|| close(client, server)))
    } else {
        daemon.paused(|| {
            let (filled, server) = answer(&client);
            (filled, close(client, server))
        })
    };
    let cookies = [client, server].map(|ident| ident.cookie.unwrap());
    let record = daemon.finish(&cookies);
    drop(filled);
    let tick = if seen { Tick::Fast } else { Tick::Slow };
    let evidence = if seen { "dump" } else { "notified" };
    // The SYN was sent twice.
    let closed = Expect::notified(client, "ESTABLISHED", SILENT);
    let mut expected = vec![
        Expect::opened(client, "dump", "SYN_SENT"),
        closed.clone(),
        Expect::opened(client, evidence, "ESTABLISHED").by("established"),
        closed.by("established"),
    ];
    for sensor in ["sockets", "established"] {
        let server = Expect::connection(tick, server, SILENT);
        expected.extend(server.map(|expect| expect.by(sensor)));
    }
    record.hold(&expected);
}

#[test]
fn answered_late_and_read() {
    netns::run("syn_sent::answered_late_and_read", || answered_late(true));
}

/// The connection comes and goes between two ticks: its notice proves it.
#[test]
fn answered_late_between_ticks() {
    netns::run("syn_sent::answered_late_between_ticks", || {
        answered_late(false)
    });
}
