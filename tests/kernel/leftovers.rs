//! Minisockets: what is left of a connection after its socket has ended, and
//! what there is of one before it has begun. They carry the socket's cookie, and
//! they must not open it again.

use serde_json::Value;

use crate::daemon::{Daemon, Launch, Tick};
use crate::expect::{Expect, SILENT, Traffic};
use crate::netns;
use crate::proc_net;
use crate::record::listing;
use crate::sock::{Domain, Ident, Sock};

/// How many connections the kernel has in this state.
fn count(state: &str) -> usize {
    proc_net::rows()
        .iter()
        .filter(|row| row.state == state)
        .count()
}

/// One sensor `sockets` with these patterns.
fn watching(patterns: &str) -> Daemon {
    Launch::new(Tick::Fast)
        .sensors(&format!(
            "  sockets: {{listener: net.socket, args: {{patterns: [{patterns}]}}}}\n"
        ))
        .start()
}

/// TIME_WAIT on either side, FIN_WAIT2 without a file, and dumps all the time:
/// every socket opens once and closes once.
#[test]
fn never_reopen() {
    netns::run("leftovers::never_reopen", || {
        const EACH: usize = 100;
        let listener = Sock::listener(Domain::V4);
        let daemon = Daemon::start(Tick::Fast);
        let mut cookies = Vec::new();
        // A client whose server stays leaves a FIN_WAIT2, which is almost always
        // a minisocket; where the peer's ACK comes at the wrong moment the kernel
        // keeps the socket itself, for a minute (tcp_rcv_state_process).
        let mut both_closed = Vec::new();
        let mut servers = Vec::new();
        for number in 0..3 * EACH {
            let (client, server) = Sock::pair(&listener);
            cookies.extend([client.cookie, server.cookie]);
            if number % 10 == 0 {
                // Some are seen alive, most are not.
                daemon.opened(&[client.cookie, server.cookie]);
            }
            if number % 3 != 2 {
                both_closed.extend([client.cookie, server.cookie]);
            }
            match number % 3 {
                0 => drop((client, server)),
                1 => drop((server, client)),
                _ => {
                    drop(client);
                    servers.push(server);
                }
            }
        }
        daemon.closed(&both_closed);
        daemon.settle();
        assert_eq!(count("FIN_WAIT2"), EACH, "leftovers of the clients");
        assert!(count("TIME_WAIT") >= EACH, "leftovers of the rest");
        // They are in every one of these dumps.
        daemon.ticks(5);
        drop(servers);
        daemon.closed(&cookies);
        daemon.ticks(2);
        let record = daemon.finish(&cookies);
        assert_eq!(record.own(), Vec::<&Value>::new());
        for cookie in &cookies {
            let of_it = record.only(&[*cookie]);
            assert_eq!(
                (of_it.cookies("opened").len(), of_it.cookies("closed").len()),
                (1, 1),
                "of {cookie}:\n{}",
                listing(of_it.events())
            );
        }
        assert_eq!(
            record.events().count(),
            2 * cookies.len(),
            "no other socket has an event"
        );
    });
}

/// A connection whose server end is left in TIME_WAIT: both ends as they were.
fn time_wait(daemon: &Daemon, listener: &Sock) -> (Ident, Ident) {
    daemon.paused(|| {
        let (client, server) = Sock::pair(listener);
        let server = server.close();
        client.receive_end();
        (client.close(), server)
    })
}

/// Ends a TIME_WAIT within a moment, as the network does: a new SYN from the
/// same address and port takes its place (`tcp_timewait_state_process`, RFC 1122
/// 4.2.2.13). The new connection leaves nothing behind.
fn replace(listener: &Sock, client: Ident) {
    let again = Sock::tcp(Domain::V4);
    again.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1 as libc::c_int);
    again.bind(client.local);
    // The timestamp of a new SYN must be past that of the old connection.
    std::thread::sleep(std::time::Duration::from_millis(5));
    again
        .connect(client.remote)
        .expect("a TIME_WAIT gives way to a new SYN");
    let server = listener.accept();
    again.reset_on_close();
    drop(again);
    drop(server);
}

/// What a watched minisocket says, from the first dump that held it to the
/// query that found it gone.
fn minisocket(ident: Ident, state: &str) -> [Expect; 2] {
    [
        Expect::opened(ident, "dump", state),
        Expect::closed(ident, "verified", state),
    ]
    .map(|expect| expect.ownerless("minisocket"))
}

#[test]
fn time_wait_is_watched_where_a_pattern_asks_for_it() {
    netns::run(
        "leftovers::time_wait_is_watched_where_a_pattern_asks_for_it",
        || {
            let listener = Sock::listener(Domain::V4);
            let daemon = watching("\"tcp * * * TIME_WAIT\"");
            let (client, server) = time_wait(&daemon, &listener);
            daemon.opened(&[server.cookie.unwrap()]);
            daemon.ticks(3);
            assert!(
                !daemon.has("closed", server.cookie.unwrap()),
                "it is still there"
            );
            replace(&listener, client);
            daemon
                .finish(&[server.cookie.unwrap()])
                .hold(&minisocket(server, "TIME_WAIT"));
        },
    );
}

/// Without the harness's sensor nothing but TIME_WAIT is asked for, or heard.
#[test]
fn time_wait_alone() {
    netns::run("leftovers::time_wait_alone", || {
        let listener = Sock::listener(Domain::V6);
        let daemon = Launch::new(Tick::Fast)
            .sensors(
                "  sockets: {listener: net.socket, args: {patterns: [\"tcp * * * TIME_WAIT\"]}}\n",
            )
            .without_beacon()
            .start();
        let (client, server) = time_wait(&daemon, &listener);
        daemon.opened(&[server.cookie.unwrap()]);
        let again = Sock::tcp(Domain::V6);
        again.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1 as libc::c_int);
        again.bind(client.local);
        std::thread::sleep(std::time::Duration::from_millis(5));
        again
            .connect(client.remote)
            .expect("a TIME_WAIT gives way to a new SYN");
        daemon.closed(&[server.cookie.unwrap()]);
        daemon.stop().hold(&minisocket(server, "TIME_WAIT"));
    });
}

/// The same cookie, first as a full socket, then as what is left of it.
#[test]
fn a_connection_and_its_time_wait() {
    netns::run("leftovers::a_connection_and_its_time_wait", || {
        let listener = Sock::listener(Domain::V4);
        let daemon = watching("\"tcp * * * ESTABLISHED\", \"tcp * * * TIME_WAIT\"");
        let (client, server) = daemon.paused(|| Sock::pair(&listener));
        let cookies = [client.cookie, server.cookie];
        daemon.opened(&cookies);
        let (client, server) = daemon.paused(|| {
            let server = server.close();
            client.receive_end();
            (client.close(), server)
        });
        daemon.wait_for("the leftover", |event| {
            event["data"]["state"] == "TIME_WAIT" && event["data"]["action"] == "opened"
        });
        daemon.paused(|| replace(&listener, client));
        daemon.wait_for("its end", |event| event["data"]["evidence"] == "verified");
        let record = daemon.finish(&cookies);
        let of_both: Vec<_> = record
            .events()
            .filter(|event| {
                cookies
                    .iter()
                    .any(|cookie| event["data"]["cookie"] == *cookie)
            })
            .collect();
        // The connection that took its place is known from its notices.
        assert_eq!(
            record.events().count(),
            of_both.len() + 4,
            "{:?}",
            record.cookies("opened")
        );
        // The leftover can be read before the notice of its socket comes, so
        // the two are accounted for on their own.
        let of_both = record.only(&cookies);
        let is_leftover = |event: &serde_json::Value| event["data"]["uid_reason"] == "minisocket";
        of_both
            .filtered(is_leftover)
            .hold(&minisocket(server, "TIME_WAIT"));
        of_both.filtered(|event| !is_leftover(event)).hold(
            &[
                Expect::connection(Tick::Fast, client, SILENT),
                Expect::connection(Tick::Fast, server, SILENT),
            ]
            .concat(),
        );
    });
}

/// A request whose handshake is not done: a listener that waits for data
/// (TCP_DEFER_ACCEPT) keeps it in SYN_RECV.
#[test]
fn syn_recv_is_watched_where_a_pattern_asks_for_it() {
    netns::run(
        "leftovers::syn_recv_is_watched_where_a_pattern_asks_for_it",
        || {
            let listener = Sock::listener(Domain::V4);
            listener.set(libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 10 as libc::c_int);
            let daemon = watching("\"tcp * * * SYN_RECV\"");
            let client = Sock::tcp(Domain::V4);
            client
                .connect(listener.local())
                .expect("the client sees a handshake");
            let request = client.ident().unaccepted_peer();
            daemon.wait_for("the request", |event| event["data"]["action"] == "opened");
            // The data ends the wait: what was a request is a socket.
            client.send(1);
            let server = listener.accept();
            daemon.wait_for("its end", |event| event["data"]["action"] == "closed");
            let record = daemon.finish(&[]);
            record.hold(&minisocket(request, "SYN_RECV"));
            assert_eq!(
                record.cookies("opened"),
                [server.cookie],
                "the request and its socket are one and the same"
            );
        },
    );
}

/// By default a request opens nothing; the socket that it becomes does.
#[test]
fn syn_recv_opens_nothing() {
    netns::run("leftovers::syn_recv_opens_nothing", || {
        let listener = Sock::listener(Domain::V4);
        listener.set(libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 10 as libc::c_int);
        let daemon = Daemon::start(Tick::Fast);
        let client = Sock::tcp(Domain::V4);
        client
            .connect(listener.local())
            .expect("the client sees a handshake");
        daemon.opened(&[client.cookie]);
        assert_eq!(count("SYN_RECV"), 1);
        daemon.ticks(2);
        let server = daemon.paused(|| {
            client.send(1);
            listener.accept()
        });
        daemon.opened(&[server.cookie]);
        server.receive(1);
        let cookies = [client.cookie, server.cookie];
        let (client, server) = daemon.paused(|| (client.close(), server.close()));
        let [up, down] = [(1, 0), (0, 1)].map(|(sent, received)| Traffic::Bytes { sent, received });
        daemon.finish(&cookies).hold(
            &[
                Expect::connection(Tick::Fast, client, up),
                Expect::connection(Tick::Fast, server, down),
            ]
            .concat(),
        );
    });
}
