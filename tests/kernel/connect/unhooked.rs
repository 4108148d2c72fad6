//! The origin `sock_diag`: what the socket table shows where there is no hook.
//! Not exact, and every event says so.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::callers::Caller;
use super::watch::is_connect;
use crate::attribution::name_user;
use crate::cgroups;
use crate::daemon::{Daemon, Launch, Tick};
use crate::netns;
use crate::record::Record;
use crate::sock::{Domain, Sock};
use crate::syn_sent::nobody;

/// A daemon with the origin forced.
fn start(tick: Tick) -> Daemon {
    let sensor =
        "  connects: {listener: net.tcp_connect, tag: outbound, args: {hook: sock_diag}}\n";
    Launch::new(tick).sensors(sensor).start()
}

/// The data of an event, without what depends on how it was seen.
fn data(client: &Sock, to: SocketAddr) -> Value {
    let mut data = json!({
        "action": "connect",
        "origin": "sock_diag",
        "exact": false,
        "dstIP": to.ip().to_string(),
        "dstPort": to.port(),
        "results": [],
        "results_reason": "not_seen",
        "proto": "tcp",
        "family": if to.is_ipv4() { "ipv4" } else { "ipv6" },
        "process": null,
        "process_reason": "no_hook",
        "netns": netns::inode(),
        "cookie": client.cookie,
    });
    if client.domain() == Domain::Mapped {
        data["v4_mapped"] = json!(true);
    }
    data
}

/// As a dump shows it.
fn read(client: &Sock, to: SocketAddr, state: &str) -> Value {
    let mut data = data(client, to);
    data["evidence"] = json!("dump");
    data["state"] = json!(state);
    let caller = Caller::current();
    data["uid"] = json!(caller.uid);
    name_user(&mut data);
    cgroups::show(&mut data, &caller);
    data
}

/// As its notice shows it, which knows no owner.
fn noticed(client: &Sock, to: SocketAddr, state: &str) -> Value {
    let mut data = data(client, to);
    data["evidence"] = json!("notified");
    data["state"] = json!(state);
    data["uid"] = Value::Null;
    data["uid_reason"] = json!("not_read");
    cgroups::not_read(&mut data);
    data
}

/// Without the destination's port.
fn wiped(mut data: Value) -> Value {
    data["dstPort"] = Value::Null;
    data["dstPort_reason"] = json!("wiped");
    data
}

/// Waits for the events of `expected`, and for there being no other.
fn hold(daemon: Daemon, expected: &[Value]) {
    for data in expected {
        daemon.wait_for(&data.to_string(), |event| {
            is_connect(event) && event["data"]["cookie"] == data["cookie"]
        });
    }
    daemon.settle();
    let record: Record = daemon.stop();
    let mut found: Vec<&Value> = record
        .events()
        .filter(|event| is_connect(event))
        .map(|event| &event["data"])
        .collect();
    for data in expected {
        let at = found.iter().position(|found| *found == data);
        let at = at
            .unwrap_or_else(|| panic!("missing: {data}\nfound: {found:#?}\nlog:\n{}", record.log));
        found.remove(at);
    }
    assert!(found.is_empty(), "unexpected: {found:#?}");
}

/// Sockets that stay are read by a dump.
#[test]
fn established() {
    netns::run("connect::unhooked::established", || {
        for domain in Domain::ALL {
            let listener = Sock::listener(domain);
            let daemon = start(Tick::Fast);
            let (client, server) = daemon.paused(|| Sock::pair(&listener));
            let expected = [read(&client, listener.local(), "ESTABLISHED")];
            daemon.wait_for("the connect", is_connect);
            drop((client, server));
            hold(daemon, &expected);
        }
    });
}

/// Nobody answers: the table shows that it tries.
#[test]
fn trying() {
    netns::run("connect::unhooked::trying", || {
        for domain in Domain::ALL {
            let deaf = crate::syn_sent::Deaf::new(domain);
            let daemon = start(Tick::Fast);
            let client = Sock::tcp(domain);
            client.connect_nonblocking(deaf.listener.local());
            let expected = [read(&client, deaf.listener.local(), "SYN_SENT")];
            daemon.wait_for("the connect", is_connect);
            hold(daemon, &expected);
        }
    });
}

/// Born and dead between two ticks: the notice tells.
#[test]
fn between_ticks() {
    netns::run("connect::unhooked::between_ticks", || {
        for domain in Domain::ALL {
            let listener = Sock::listener(domain);
            let daemon = start(Tick::Slow);
            let expected = daemon.paused(|| {
                let (client, server) = Sock::pair(&listener);
                let expected = [noticed(&client, listener.local(), "ESTABLISHED")];
                drop((client, server));
                expected
            });
            hold(daemon, &expected);
        }
    });
}

/// Refused at once, in a blocking call: the notice has lost the port.
#[test]
fn refused() {
    netns::run("connect::unhooked::refused", || {
        for domain in Domain::ALL {
            let to = nobody(domain);
            let daemon = start(Tick::Slow);
            let client = Sock::tcp(domain);
            let expected = daemon.paused(|| {
                client.connect(to).expect_err("nobody listens");
                let expected = [wiped(noticed(&client, to, "SYN_SENT"))];
                drop(client);
                expected
            });
            hold(daemon, &expected);
        }
    });
}

/// What a listener has accepted, what is bound, what is UDP, what was there at
/// start: nobody's call.
#[test]
fn no_call() {
    netns::run("connect::unhooked::no_call", || {
        for tick in Tick::BOTH {
            let listener = Sock::listener(Domain::V6);
            let before = Sock::pair(&listener);
            let daemon = start(tick);
            let bound = Sock::tcp(Domain::V4);
            bound.bind_loopback();
            let datagrams = Sock::udp(Domain::V4);
            datagrams
                .connect(SocketAddr::new(Domain::V4.loopback(), 9))
                .expect("UDP asks nobody");
            let (client, server) = daemon.paused(|| Sock::pair(&listener));
            let expected = match tick {
                Tick::Fast => read(&client, listener.local(), "ESTABLISHED"),
                Tick::Slow => noticed(&client, listener.local(), "ESTABLISHED"),
            };
            if tick == Tick::Fast {
                daemon.wait_for("the connect", is_connect);
            }
            daemon.paused(|| drop((client, server)));
            drop((before, bound, datagrams));
            hold(daemon, &[expected]);
        }
    });
}
