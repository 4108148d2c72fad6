//! `netns: all`: the sockets of every network namespace, told as those of our own.
//!
//! The machine has other namespaces too, those of other tests among them, and the
//! daemon watches them like any: what is asserted here is of namespaces that the
//! test made.

#[cfg(feature = "bpf")]
mod calls;
mod changes;
mod ends;
mod listed;

mod refused;
mod world;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::daemon::{Daemon, Launch, Tick};
use crate::netns::{self, Sandbox};
use crate::record::Record;
use crate::sock::{Domain, Sock};
use world::World;

/// A sensor for everything, beside one for our own namespace.
pub const EVERYWHERE: &str = "  every: {listener: net.socket, args: {netns: all, process: false}}
  sockets: {listener: net.socket, args: {process: false}}\n";

/// Everything, everywhere.
pub fn everywhere(tick: Tick) -> Daemon {
    Launch::new(tick).sensors(EVERYWHERE).debug().start()
}

/// Waits until the daemon has found a namespace.
pub fn found(daemon: &Daemon, world: &World) {
    let line = format!("namespace {}", world.inode);
    daemon.wait_for_line(&line, |said| {
        let mut words = said.split(line.as_str()).skip(1);
        words.any(|rest| !rest.contains("ended") && !rest.starts_with(|c: char| c.is_ascii_digit()))
    });
}

/// What a sensor said of one socket: the actions and where it was, in their order.
pub fn told<'a>(record: &'a Record, sensor: &str, cookie: u64) -> Vec<(&'a str, &'a Value)> {
    let events = record.events();
    let of = events
        .filter(|event| event["sensor"] == sensor && event["data"]["cookie"] == cookie)
        .map(|event| (event["data"]["action"].as_str().unwrap(), &event["data"]));
    of.collect()
}

/// Each of these was opened once and closed once, in this namespace.
pub fn accounted(record: &Record, world: (u64, Option<&str>), cookies: &[u64]) {
    for &cookie in cookies {
        let said = told(record, "every", cookie);
        let actions: Vec<&str> = said.iter().map(|(action, _)| *action).collect();
        assert_eq!(actions, ["opened", "closed"], "{cookie}: {said:?}");
        for (_, data) in said {
            assert_eq!(data["netns"], world.0, "{data}");
            assert_eq!(data.get("netns_name").and_then(Value::as_str), world.1);
        }
        assert!(
            told(record, "sockets", cookie).is_empty(),
            "`host` is our own"
        );
    }
}

/// Twenty namespaces come and go, some at the same time, each with connections
/// that live through ticks and between them, while our own has some too.
#[test]
fn twenty_come_and_go() {
    Sandbox::default()
        .mounts()
        .run("namespaces::twenty_come_and_go", || {
            world::names();
            let launch = Launch::new(Tick::Fast).sensors(EVERYWHERE).debug();
            let daemon = launch.alone().start();
            let mut accounts: BTreeMap<String, (u64, Vec<u64>)> = BTreeMap::new();
            let mut own = Vec::new();
            for round in 0..5 {
                let names = ["red", "blue", "green", "grey"].map(|name| format!("{name}-{round}"));
                let worlds = names.map(|name| (World::named(&name), name));
                let mut held = Vec::new();
                for (world, _) in &worlds {
                    let listener = world.within(|| Sock::listener(Domain::V4));
                    daemon.reported("every", "opened", listener.cookie);
                    held.push((world, listener));
                }
                for ((world, listener), (_, name)) in held.into_iter().zip(&worlds) {
                    let mut cookies = vec![listener.cookie];
                    // Between two ticks, mostly.
                    let brief = world.within(|| {
                        let pairs = (0..10).map(|_| Sock::pair(&listener));
                        pairs
                            .flat_map(|(client, server)| [client.cookie, server.cookie])
                            .collect::<Vec<u64>>()
                    });
                    cookies.extend(brief);
                    let (client, server) = world.within(|| Sock::pair(&listener));
                    let udp = world.within(|| {
                        let socket = Sock::udp(Domain::V6);
                        socket.bind_loopback();
                        socket
                    });
                    for socket in [&client, &server, &udp] {
                        daemon.reported("every", "opened", socket.cookie);
                        cookies.push(socket.cookie);
                    }
                    accounts.insert(name.clone(), (world.inode, cookies));
                }
                let home = Sock::listener(Domain::V4);
                let pair = Sock::pair(&home);
                own.extend([home.cookie, pair.0.cookie, pair.1.cookie]);
                for (world, _) in worlds {
                    world.end();
                }
            }
            daemon.wait_for_lines("twenty ends", 20, |line| line.contains("has ended"));
            let record = daemon.finish(&own);
            let ours: Vec<u64> = accounts.values().map(|(inode, _)| *inode).collect();
            for (name, (inode, cookies)) in &accounts {
                let path = format!("/run/netns/{name}");
                accounted(&record, (*inode, Some(&path)), cookies);
            }
            for cookie in own {
                for sensor in ["every", "sockets"] {
                    let said = told(&record, sensor, cookie);
                    assert_eq!(said.len(), 2, "{said:?}");
                    assert_eq!(said[0].1["netns"], netns::inode());
                }
            }
            // Nothing else was told of these namespaces, and of no other.
            let known: Vec<u64> = accounts.values().flat_map(|(_, all)| all.clone()).collect();
            for event in record.events() {
                let data = &event["data"];
                let (inode, cookie) = (data["netns"].as_u64(), data["cookie"].as_u64());
                let (inode, cookie) = (inode.unwrap(), cookie.unwrap());
                assert!(ours.contains(&inode) || inode == netns::inode(), "{event}");
                if ours.contains(&inode) {
                    assert!(known.contains(&cookie), "{event}");
                }
            }
        });
}

/// A namespace that nothing announces is found by its process, and has no name.
#[test]
fn one_without_a_name() {
    netns::run("namespaces::one_without_a_name", || {
        let daemon = everywhere(Tick::Fast);
        let world = World::of_process();
        let socket = world.within(|| Sock::listener(Domain::V6));
        daemon.reported("every", "opened", socket.cookie);
        assert!(world.id().is_some(), "it was given an id");
        let cookie = socket.cookie;
        drop(socket);
        daemon.closed_by("every", &[cookie]);
        let record = daemon.stop();
        accounted(&record, (world.inode, None), &[cookie]);
    });
}

/// What is there at the start enters silently; a namespace that comes later was
/// empty before, and its sockets are told however short they live.
#[test]
fn what_was_there_and_what_comes() {
    netns::run("namespaces::what_was_there_and_what_comes", || {
        let before = World::of_process();
        let old = before.within(|| Sock::listener(Domain::V4));
        let daemon = everywhere(Tick::Slow);
        let after = World::of_process();
        found(&daemon, &after);
        let brief = after.within(|| {
            let socket = Sock::listener(Domain::V4);
            socket.cookie
        });
        let cookie = old.cookie;
        drop(old);
        daemon.closed_by("every", &[cookie, brief]);
        let record = daemon.stop();
        accounted(&record, (after.inode, None), &[brief]);
        let said = told(&record, "every", cookie);
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(
            (said[0].0, &said[0].1["evidence"]),
            ("closed", &"notified".into())
        );
    });
}
