//! Connections that one side has ended and the other has not.
//!
//! A change of state is no event. To know that a dump has read one, these tests
//! run a second sensor beside `sockets` whose pattern is that state.

use crate::daemon::{Daemon, Launch, Tick};
use crate::expect::{Expect, SILENT, Traffic};
use crate::netns;
use crate::proc_net;
use crate::sock::{Domain, Sock};

fn watching(tick: Tick, state: &str) -> Daemon {
    Launch::new(tick)
        .sensors(&format!(
            "  sockets: {{listener: net.socket}}\n  \
             witness: {{listener: net.socket, args: {{patterns: [\"tcp * * * {state}\"]}}}}\n"
        ))
        .start()
}

fn by_witness(expects: [Expect; 2]) -> [Expect; 2] {
    expects.map(|expect| expect.by("witness"))
}

/// The client has ended its sending side; both ends stay open for long, then
/// the server closes, then the client. Closed says the last state seen.
fn half_closed(domain: Domain) {
    let listener = Sock::listener(domain);
    let daemon = watching(Tick::Fast, "*WAIT*");
    let (client, server) = daemon.paused(|| Sock::pair(&listener));
    let cookies = [client.cookie, server.cookie];
    daemon.opened(&cookies);
    daemon.paused(|| {
        client.shutdown();
        server.receive_end();
        proc_net::quiet();
    });
    for cookie in cookies {
        daemon.reported("witness", "opened", cookie);
    }
    let (client, server) = daemon.paused(|| {
        let server = server.close();
        client.receive_end();
        (client.close(), server)
    });
    daemon.closed(&cookies);
    daemon.ticks(2);
    let record = daemon.finish(&cookies);
    let expected = [(client, "FIN_WAIT2"), (server, "CLOSE_WAIT")].map(|(ident, state)| {
        let witness = by_witness(Expect::read(ident, state, state, SILENT));
        [Expect::read(ident, "ESTABLISHED", state, SILENT), witness].concat()
    });
    record.hold(&expected.concat());
}

#[test]
fn v4_half_closed() {
    netns::run("half_closed::v4_half_closed", || half_closed(Domain::V4));
}

#[test]
fn v6_half_closed() {
    netns::run("half_closed::v6_half_closed", || half_closed(Domain::V6));
}

/// The same between two ticks: the notices prove a handshake and no more.
#[test]
fn half_closed_between_ticks() {
    netns::run("half_closed::half_closed_between_ticks", || {
        let listener = Sock::listener(Domain::V4);
        let daemon = Daemon::start(Tick::Slow);
        let (client, server) = Sock::pair(&listener);
        let cookies = [client.cookie, server.cookie];
        client.shutdown();
        server.receive_end();
        server.send(50);
        client.receive(50);
        let server = server.close();
        client.receive_end();
        let client = client.close();
        let [up, down] =
            [(0, 50), (50, 0)].map(|(sent, received)| Traffic::Bytes { sent, received });
        daemon.finish(&cookies).hold(
            &[
                Expect::between_ticks(client, "ESTABLISHED", up),
                Expect::between_ticks(server, "ESTABLISHED", down),
            ]
            .concat(),
        );
    });
}

/// A connection that a dump first reads in CLOSE_WAIT has been ESTABLISHED: it
/// is matched as that first, and as what it is where that does not pass.
#[test]
fn first_read_in_close_wait() {
    netns::run("half_closed::first_read_in_close_wait", || {
        let listener = Sock::listener(Domain::V4);
        let daemon = watching(Tick::Fast, "CLOSE_WAIT");
        let (client, server) = daemon.paused(|| {
            let (client, server) = Sock::pair(&listener);
            let client = client.close();
            server.receive_end();
            proc_net::quiet();
            (client, server)
        });
        let cookies = [client.cookie.unwrap(), server.cookie];
        daemon.opened(&cookies);
        daemon.reported("witness", "opened", server.cookie);
        let server = server.close();
        let record = daemon.finish(&cookies);
        record.hold(
            &[
                Expect::between_ticks(client, "ESTABLISHED", SILENT),
                Expect::read(server, "ESTABLISHED", "CLOSE_WAIT", SILENT),
                by_witness(Expect::read(server, "CLOSE_WAIT", "CLOSE_WAIT", SILENT)),
            ]
            .concat(),
        );
    });
}

/// Likewise FIN_WAIT2 with its file still held.
#[test]
fn first_read_in_fin_wait2() {
    netns::run("half_closed::first_read_in_fin_wait2", || {
        let listener = Sock::listener(Domain::V4);
        let daemon = Daemon::start(Tick::Fast);
        let (client, server) = daemon.paused(|| {
            let (client, server) = Sock::pair(&listener);
            client.shutdown();
            server.receive_end();
            proc_net::quiet();
            (client, server)
        });
        let cookies = [client.cookie, server.cookie];
        daemon.opened(&cookies);
        let (client, server) = daemon.paused(|| (client.close(), server.close()));
        daemon.finish(&cookies).hold(
            &[
                Expect::read(client, "ESTABLISHED", "FIN_WAIT2", SILENT),
                Expect::read(server, "ESTABLISHED", "CLOSE_WAIT", SILENT),
            ]
            .concat(),
        );
    });
}

/// An orphan that still has data to send has not ended: close() is not the end.
#[test]
fn an_orphan_with_unsent_data_is_open() {
    netns::run("half_closed::an_orphan_with_unsent_data_is_open", || {
        const SENT: usize = 200_000;
        let listener = Sock::listener(Domain::V4);
        // Inherited by the child: a small window keeps the rest on this side.
        listener.set(libc::SOL_SOCKET, libc::SO_RCVBUF, 4096 as libc::c_int);
        let daemon = Daemon::start(Tick::Fast);
        let (client, server) = daemon.paused(|| Sock::pair(&listener));
        let cookies = [client.cookie, server.cookie];
        daemon.opened(&cookies);
        client.set(libc::SOL_SOCKET, libc::SO_SNDBUF, 1 << 20);
        client.send(SENT);
        let client = client.close();
        daemon.ticks(3);
        daemon.settle();
        assert!(
            !daemon.has("closed", cookies[0]),
            "closed while {SENT} bytes were still to be sent"
        );
        server.receive(SENT);
        server.receive_end();
        daemon.closed(&cookies[..1]);
        let server = server.close();
        let record = daemon.finish(&cookies);
        let states: Vec<_> = record
            .events()
            .map(|event| {
                (
                    event["data"]["cookie"].as_u64().unwrap(),
                    &event["data"]["action"],
                )
            })
            .collect();
        assert_eq!(states.len(), 4, "{states:?}");
        let end = |ident: crate::sock::Ident| {
            record
                .events()
                .find(|event| {
                    event["data"]["cookie"] == ident.cookie.unwrap()
                        && event["data"]["action"] == "closed"
                })
                .expect("waited for")
        };
        assert_eq!(end(client)["data"]["state"], "FIN_WAIT1");
        assert_eq!(end(client)["data"]["bytes_sent"], SENT as u64);
        let received = end(server)["data"]["bytes_received"].as_u64().unwrap();
        assert!(
            (SENT as u64..=SENT as u64 + 1).contains(&received),
            "{received}"
        );
    });
}
