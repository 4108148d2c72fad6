//! Kernels that do not give everything: the daemon says what is missing and what
//! that costs, and goes on with what there is.

use serde_json::{Value, json};

use crate::crowd::Crowd;
use crate::daemon::{Daemon, Launch, PATIENCE, Tick};
use crate::expect::{Expect, SILENT};
use crate::netns;
use crate::record::Record;
use crate::seccomp::Refusal;
use crate::sock::{Domain, Sock};
use crate::syn_sent::Deaf;

/// The one record of the daemon about itself.
fn degradation(record: &Record) -> &Value {
    let own = record.own();
    assert_eq!(own.len(), 1, "{own:?}");
    assert_eq!(own[0]["data"]["action"], "degraded");
    assert_eq!(own[0]["sensor"], "sockwatch");
    let eid = own[0]["eid"].as_str().expect("an eid");
    assert!(eid.starts_with("sockwatch|self|degraded@"), "{eid}");
    let data = own[0]["data"].as_object().expect("data");
    for key in ["reason", "cost"] {
        assert!(
            data[key].as_str().is_some_and(|text| !text.is_empty()),
            "{key}: {data:?}"
        );
    }
    own[0]
}

fn blind() -> Daemon {
    Launch::new(Tick::Fast)
        .sensors("  sockets: {listener: net.socket, args: {initial: true}}\n")
        .refused(Refusal::GROUPS)
        .start()
}

/// Without notices every end is found at a tick, and nothing that lives is said
/// to have ended.
#[test]
fn without_the_groups_ends_are_verified() {
    netns::run("degraded::without_the_groups_ends_are_verified", || {
        let mut crowd = Crowd::new();
        let daemon = blind();
        let cookies = crowd.cookies();
        daemon.opened(&cookies);
        let mut ended = daemon.paused(|| crowd.end_doomed());
        daemon.closed(&ended.iter().map(|ended| ended.cookie()).collect::<Vec<_>>());
        daemon.ticks(5);
        for member in crowd.survivors() {
            assert!(
                !daemon.has("closed", member.sock.cookie),
                "{:?} lives",
                member.sock
            );
        }
        ended.extend(daemon.paused(|| {
            crowd
                .into_survivors()
                .into_iter()
                .flatten()
                .map(|member| member.end())
                .collect::<Vec<_>>()
        }));
        daemon.closed(&cookies);
        daemon.ticks(2);
        let record = daemon.stop();
        let expected: Vec<Expect> = ended
            .iter()
            .flat_map(|ended| {
                [
                    Expect::opened(ended.ident, "dump", ended.state_opened()),
                    Expect::closed(ended.ident, "verified", ended.state),
                ]
            })
            .collect();
        record.hold_events(&expected);
        let data = &degradation(&record)["data"];
        assert_eq!(data["source"], "notices");
        assert_eq!(
            data["missing"],
            json!([
                "INET_TCP_DESTROY",
                "INET_UDP_DESTROY",
                "INET6_TCP_DESTROY",
                "INET6_UDP_DESTROY"
            ])
        );
        assert!(
            data["reason"]
                .to_string()
                .contains("Operation not permitted"),
            "{data}"
        );
        let told = record
            .log
            .lines()
            .any(|line| line.contains("INET6_UDP_DESTROY"));
        assert!(told, "the log says it too:\n{}", record.log);
    });
}

/// A rebound is seen by dumps alone.
#[test]
fn without_the_groups_a_rebound_is_still_one() {
    netns::run(
        "degraded::without_the_groups_a_rebound_is_still_one",
        || {
            let daemon = blind();
            let socket = Sock::udp(Domain::V4);
            let peer = |port| std::net::SocketAddr::new(Domain::V4.loopback(), port);
            socket.connect(peer(9)).expect("UDP asks nobody");
            let (first, cookie) = (socket.ident(), socket.cookie);
            daemon.opened(&[cookie]);
            socket.connect(peer(10)).expect("UDP asks nobody");
            daemon.closed(&[cookie]);
            let second = socket.close();
            daemon.wait_for("the end", |event| {
                event["data"]["evidence"] == "verified" && event["data"]["cookie"] == cookie
            });
            daemon.ticks(2);
            daemon.stop().hold_events(&[
                Expect::opened(first, "dump", "ESTABLISHED"),
                Expect::closed(first, "rebound", "ESTABLISHED"),
                Expect::opened(second, "rebound", "ESTABLISHED"),
                Expect::closed(second, "verified", "ESTABLISHED"),
            ]);
        },
    );
}

/// A socket whose connect failed is in no table of the kernel's until it tries
/// again: seen from dumps alone that is an end, and then a socket once more.
#[test]
fn without_the_groups_a_failed_connect_is_an_end() {
    netns::run(
        "degraded::without_the_groups_a_failed_connect_is_an_end",
        || {
            let (deaf, listener) = (Deaf::new(Domain::V4), Sock::listener(Domain::V4));
            let daemon = blind();
            let client = Sock::tcp(Domain::V4);
            let cookie = client.cookie;
            client.connect_nonblocking(deaf.listener.local());
            let first = client.ident();
            daemon.opened(&[cookie]);
            drop(deaf);
            client.failure(PATIENCE);
            daemon.closed(&[cookie]);
            client.blocking();
            let server = daemon.paused(|| {
                if client.connect(listener.local()).is_err() {
                    client
                        .connect(listener.local())
                        .expect("the second one connects");
                }
                listener.accept()
            });
            let second = client.ident();
            daemon.wait_for("the second connection", |event| {
                event["data"]["cookie"] == cookie
                    && event["data"]["action"] == "opened"
                    && event["data"]["remote"] == second.remote.to_string()
            });
            daemon.paused(|| drop((client, server)));
            daemon.wait_for("its end", |event| {
                event["data"]["cookie"] == cookie
                    && event["data"]["action"] == "closed"
                    && event["data"]["remote"] == second.remote.to_string()
            });
            daemon.ticks(2);
            daemon.stop().only(&[cookie]).hold_events(&[
                Expect::opened(first, "dump", "SYN_SENT"),
                Expect::closed(first, "verified", "SYN_SENT"),
                Expect::opened(second, "dump", "ESTABLISHED"),
                Expect::closed(second, "verified", "ESTABLISHED"),
            ]);
        },
    );
}

/// IPv6 switched off: said, and everything else is as ever.
#[test]
fn without_ipv6() {
    netns::run("degraded::without_ipv6", || {
        let listener = Sock::listener(Domain::V4);
        let daemon = Launch::new(Tick::Fast).refused(Refusal::IPV6).start();
        let (client, server) = daemon.paused(|| Sock::pair(&listener));
        let cookies = [client.cookie, server.cookie];
        daemon.opened(&cookies);
        let idents = daemon.paused(|| [client.close(), server.close()]);
        let record = daemon.finish(&cookies);
        record.hold_events(
            &idents
                .map(|ident| Expect::connection(Tick::Fast, ident, SILENT))
                .concat(),
        );
        let data = &degradation(&record)["data"];
        assert_eq!(
            data["missing"],
            json!(["INET6_TCP_DESTROY", "INET6_UDP_DESTROY"])
        );
        assert!(data["reason"].to_string().contains("IPv6"), "{data}");
    });
}

/// Without netlink there is nothing to go on with.
#[test]
fn without_netlink() {
    netns::run("degraded::without_netlink", || {
        let (status, record) = Launch::new(Tick::Fast)
            .refused(Refusal::NETLINK)
            .spawn()
            .end();
        assert_eq!(status.code(), Some(1), "log:\n{}", record.log);
        assert_eq!(record.events().count() + record.own().len(), 0);
        assert!(
            record.log.contains("netlink"),
            "says what it could not have:\n{}",
            record.log
        );
        assert!(
            record.log.contains("Permission denied"),
            "and why:\n{}",
            record.log
        );
        assert!(!record.log.contains("ready"), "{}", record.log);
    });
}
