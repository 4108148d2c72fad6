//! `net.tcp_connect` from end to end: on the socket table alone, and with a hook
//! where one is to be had.

use std::collections::HashSet;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::cgroups;
use crate::connect::callers::Caller;
use crate::daemon::{Daemon, Launch, Tick};
use crate::netns;
use crate::record::Record;
use crate::sock::{Domain, Sock};

const TABLE: &str = "  calls: {listener: net.tcp_connect, args: {hook: sock_diag}}\n  \
                     sockets: {listener: net.socket}\n";
const HOOKED: &str = "  calls: {listener: net.tcp_connect}\n  sockets: {listener: net.socket}\n";
const CALLS: &str = "  calls: {listener: net.tcp_connect}\n";

/// More connects than anybody makes at once, within the ports of one address.
const BURST: usize = 20_000;

/// The connect() calls told of this namespace.
fn calls(record: &Record) -> Vec<&Value> {
    let here = netns::inode();
    record
        .events()
        .filter(|event| event["sensor"] == "calls" && event["data"]["netns"] == here)
        .map(|event| &event["data"])
        .collect()
}

/// The one call of a cookie.
fn call(record: &Record, cookie: u64) -> Value {
    let mut calls = calls(record);
    calls.retain(|data| data["cookie"] == cookie);
    assert_eq!(calls.len(), 1, "one call of {cookie}; log:\n{}", record.log);
    calls[0].clone()
}

/// Waits until the call of a cookie has been told.
fn told(daemon: &Daemon, cookie: u64) {
    daemon.reported("calls", "connect", cookie);
}

/// A daemon with a hook; none where this machine lets nobody have one.
pub fn hooked(tick: Tick, sensors: &str) -> Option<Daemon> {
    let daemon = Launch::new(tick).sensors(sensors).start();
    let line = daemon.wait_for_line("what tells of calls", |line| {
        line.contains("calls are reported by") || line.contains("no hook for connect()")
    });
    if line.contains("no hook") {
        netns::visibly(&format!("SKIPPED tcp_connect with a hook: {line}"));
        return None;
    }
    Some(daemon)
}

fn closed_port(domain: Domain) -> SocketAddr {
    let socket = Sock::tcp(domain);
    socket.bind_loopback();
    socket.local()
}

#[test]
fn the_table_shows_what_was_called() {
    netns::run("tcp_connect::the_table_shows_what_was_called", || {
        for domain in Domain::ALL {
            let listener = Sock::listener(domain);
            let before = Sock::pair(&listener);
            let daemon = Launch::new(Tick::Fast).sensors(TABLE).start();
            let (client, server) = Sock::pair(&listener);
            told(&daemon, client.cookie);
            let [cookie, accepted, early] = [&client, &server, &before.0].map(|it| it.cookie);
            let local = listener.local();
            drop((client, server, before, listener));
            let record = daemon.finish(&[cookie, accepted]);
            // SAFETY: getuid(2) takes nothing and cannot fail.
            let uid = unsafe { libc::getuid() };
            let family = if domain == Domain::V6 { "ipv6" } else { "ipv4" };
            let mut expected = json!({
                "action": "connect", "origin": "sock_diag", "exact": false, "evidence": "dump",
                "state": "ESTABLISHED", "dstIP": local.ip().to_string(), "dstPort": local.port(),
                "results": [], "results_reason": "not_seen", "proto": "tcp", "family": family,
                "process": null, "process_reason": "no_hook", "uid": uid,
                "netns": netns::inode(), "cookie": cookie,
            });
            cgroups::show(&mut expected, &Caller::current());
            if domain == Domain::Mapped {
                expected["v4_mapped"] = json!(true);
            }
            crate::attribution::name_user(&mut expected);
            let mut data = call(&record, cookie);
            if data["results_reason"] == "no_tap" {
                data["results_reason"] = json!("not_seen");
            }
            // A dump can come in the middle of the handshake.
            if data["state"] == "SYN_SENT" {
                data["state"] = json!("ESTABLISHED");
            }
            assert_eq!(data, expected);
            let cookies: Vec<_> = calls(&record)
                .iter()
                .map(|it| it["cookie"].clone())
                .collect();
            assert_eq!(
                cookies,
                [json!(cookie)],
                "not {accepted}, nor {early} from before"
            );
            for (cookie, way) in [(cookie, "outbound"), (accepted, "inbound")] {
                for action in ["opened", "closed"] {
                    let event = of_sockets(&record, action, cookie);
                    assert_eq!(event["direction"], way, "{event}");
                }
            }
        }
    });
}

/// The event of the sensor `sockets` with this action of a cookie.
fn of_sockets(record: &Record, action: &str, cookie: u64) -> Value {
    let only = record.filtered(|event| event["sensor"] == "sockets");
    only.find(action, cookie)["data"].clone()
}

#[test]
fn the_table_shows_calls_between_two_ticks() {
    netns::run(
        "tcp_connect::the_table_shows_calls_between_two_ticks",
        || {
            let refused = closed_port(Domain::V4);
            let daemon = Launch::new(Tick::Slow).sensors(TABLE).start();
            // Younger than the last dump.
            let listener = Sock::listener(Domain::V4);
            let (client, server) = Sock::pair(&listener);
            let (active, passive) = (client.cookie, server.cookie);
            drop(client);
            server.receive_end();
            drop(server);
            told(&daemon, active);
            let failed = Sock::tcp(Domain::V4);
            assert!(failed.connect(refused).is_err());
            let refused = failed.cookie;
            drop(failed);
            told(&daemon, refused);
            let record = daemon.finish(&[active, passive, refused]);
            assert_eq!(call(&record, active)["evidence"], "notified");
            let data = call(&record, refused);
            assert_eq!(data["state"], "SYN_SENT");
            assert_eq!(data["dstPort"], Value::Null, "tcp_disconnect() wiped it");
            assert_eq!(data["dstPort_reason"], "wiped");
            assert_eq!(calls(&record).len(), 2, "and none of {passive}");
        },
    );
}

#[test]
fn a_hook_names_the_process_and_the_destination() {
    netns::run(
        "tcp_connect::a_hook_names_the_process_and_the_destination",
        || {
            for tick in Tick::BOTH {
                let Some(daemon) = hooked(tick, HOOKED) else {
                    return;
                };
                let listener = Sock::listener(Domain::V4);
                let (client, server) = Sock::pair(&listener);
                let (active, passive) = (client.cookie, server.cookie);
                if tick == Tick::Fast {
                    daemon.opened(&[active, passive]);
                }
                drop((client, server));
                let refused = closed_port(Domain::V6);
                let failed = Sock::tcp(Domain::V6);
                assert!(failed.connect(refused).is_err());
                let unlucky = failed.cookie;
                drop(failed);
                let record = daemon.finish(&[active, passive, unlucky]);
                for cookie in [active, unlucky] {
                    let data = call(&record, cookie);
                    assert_ne!(data["origin"], "sock_diag");
                    assert_eq!(data["process"]["pid"], std::process::id());
                    for action in ["opened", "closed"] {
                        let event = of_sockets(&record, action, cookie);
                        for key in ["pid", "tid", "comm"] {
                            assert_eq!(event["process"][key], data["process"][key], "{event}");
                        }
                        assert_eq!(event["direction"], "outbound", "{event}");
                    }
                }
                let event = of_sockets(&record, "closed", unlucky);
                assert_eq!(event["remote"], refused.to_string());
                assert_eq!(event.get("remote_port_reason"), None);
                assert_eq!(calls(&record).len(), 2, "and none of {passive}");
                let event = of_sockets(&record, "closed", passive);
                assert_eq!(event["process"].get("tid"), None, "{event}");
                assert_ne!(event["direction"], "outbound");
            }
        },
    );
}

#[test]
fn a_burst_is_told_in_full() {
    netns::run("tcp_connect::a_burst_is_told_in_full", || {
        let Some(daemon) = hooked(Tick::Fast, CALLS) else {
            return;
        };
        let listener = Sock::listener(Domain::V4);
        let port = listener.local().port();
        let mut cookies = HashSet::new();
        for _ in 0..BURST {
            let (client, server) = Sock::pair(&listener);
            cookies.insert(client.cookie);
            // Neither leaves a TIME_WAIT.
            client.reset_on_close();
            drop((client, server));
        }
        let here = netns::inode();
        daemon.wait_for_count("calls", BURST, |event| {
            event["data"]["netns"] == here && event["data"]["dstPort"] == port
        });
        let record = daemon.stop();
        let own = record.own().into_iter();
        let lost: Vec<_> = own.filter(|it| it["data"]["cause"] == "ring").collect();
        assert_eq!(lost, Vec::<&Value>::new(), "no call was lost");
        let calls = calls(&record);
        assert_eq!(calls.len(), BURST);
        let told: HashSet<u64> = calls
            .iter()
            .filter_map(|it| it["cookie"].as_u64())
            .collect();
        assert!(told == cookies, "every call once");
        assert!(calls.iter().all(|it| it["origin"] != "sock_diag"));
    });
}

#[test]
fn a_hook_that_is_forced_and_refused_ends_it() {
    netns::run(
        "tcp_connect::a_hook_that_is_forced_and_refused_ends_it",
        || {
            let sensors = "  calls: {listener: net.tcp_connect, args: {hook: cgroup}}\n";
            let launch = Launch::new(Tick::Fast).sensors(sensors).without_privilege();
            if !netns::is_root() {
                return netns::skip("only root can start it as somebody else");
            }
            let (status, record) = launch.spawn().end();
            assert_eq!(status.code(), Some(1));
            assert!(
                record.log.contains("cannot use the hook cgroup"),
                "{}",
                record.log
            );
        },
    );
}

#[test]
fn without_any_privilege_the_table_has_to_do() {
    netns::run(
        "tcp_connect::without_any_privilege_the_table_has_to_do",
        || {
            if !netns::is_root() {
                return netns::skip("only root can start it as somebody else");
            }
            let daemon = Launch::new(Tick::Fast)
                .sensors(HOOKED)
                .without_privilege()
                .start();
            let listener = Sock::listener(Domain::V4);
            let (client, server) = Sock::pair(&listener);
            told(&daemon, client.cookie);
            let cookies = [client.cookie, server.cookie];
            drop((client, server));
            let record = daemon.finish(&cookies);
            let data = call(&record, cookies[0]);
            assert_eq!(data["origin"], "sock_diag");
            assert_eq!(data["results_reason"], "no_tap");
            let sources: Vec<_> = record
                .own()
                .iter()
                .map(|own| own["data"]["source"].clone())
                .collect();
            assert_eq!(sources, ["connect", "dns_tap"]);
        },
    );
}
