//! The table of every namespace, on the command line and from a running daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::Value;

use super::world::{self, World};
use super::{EVERYWHERE, found};
use crate::child;
use crate::control::client::{Client, Place};
use crate::daemon::{PATIENCE, Tick, binary, once};
use crate::netns::{self, Sandbox, skip};
use crate::sock::{Domain, Sock};

/// Something of everything: a listener, connections at both ends, what is left of
/// one, UDP with and without a peer.
fn sample() -> Vec<Sock> {
    let mut sockets = Vec::new();
    for domain in [Domain::V4, Domain::V6] {
        let listener = Sock::listener(domain);
        for _ in 0..3 {
            let (client, server) = Sock::pair(&listener);
            sockets.extend([client, server]);
        }
        drop(Sock::pair(&listener));
        let udp = Sock::udp(domain);
        udp.bind_loopback();
        let connected = Sock::udp(domain);
        connected.connect(udp.local()).expect("UDP asks nobody");
        sockets.extend([listener, udp, connected]);
    }
    sockets
}

/// What ss shows in the namespace of the calling thread: the cookies.
fn ss() -> std::io::Result<BTreeSet<u64>> {
    let output = child::run(Command::new("ss").arg("-tuaneH"), PATIENCE)?.expect("ss ends");
    let text = String::from_utf8(output.stdout).expect("ss writes ASCII");
    let cookie = |line: &str| {
        let mut words = line.split_whitespace();
        let word = words.find_map(|word| word.strip_prefix("sk:"));
        let word = word.unwrap_or_else(|| panic!("no cookie in {line}"));
        u64::from_str_radix(word, 16).expect("hexadecimal digits")
    };
    Ok(text.lines().map(cookie).collect())
}

/// The rows of a dump by namespace: cookies and the name.
fn by_namespace(rows: &str) -> BTreeMap<u64, (BTreeSet<u64>, Option<String>)> {
    let mut all: BTreeMap<u64, (BTreeSet<u64>, Option<String>)> = BTreeMap::new();
    for line in rows.lines() {
        let row: Value = serde_json::from_str(line).expect("a row");
        let Some(netns) = row["netns"].as_u64() else {
            continue;
        };
        let (cookies, name) = all.entry(netns).or_default();
        assert!(cookies.insert(row["cookie"].as_u64().unwrap()), "{row}");
        *name = row["netns_name"].as_str().map(str::to_owned);
    }
    all
}

/// In each namespace what ss shows when it is run there.
#[test]
fn the_same_as_ss_in_each() {
    let sandbox = Sandbox::default().mounts();
    sandbox.run("namespaces::listed::the_same_as_ss_in_each", || {
        world::names();
        let worlds = [
            World::named("blue"),
            World::named("red"),
            World::of_process(),
        ];
        let _held = worlds.each_ref().map(|world| world.within(sample));
        let _own = sample();
        let theirs: Vec<_> = match worlds.iter().map(|world| world.within(ss)).collect() {
            Ok(theirs) => theirs,
            Err(error) => {
                return netns::visibly(&format!(
                    "SKIPPED namespaces::listed::the_same_as_ss_in_each: ss: {error}"
                ));
            }
        };
        let theirs: Vec<BTreeSet<u64>> = theirs;
        let output = once(&["--dump", "--netns", "all", "--format", "json"]);
        assert_eq!(output.status.code(), Some(0), "{}", child::text(&output));
        let ours = by_namespace(&String::from_utf8_lossy(&output.stdout));
        for (world, cookies) in worlds.iter().zip(&theirs) {
            // 20 sockets, and at the least what is left of two connections.
            assert!(cookies.len() >= 20, "{}", cookies.len());
            assert_eq!(ours[&world.inode].0, *cookies);
        }
        let name = |at: usize| ours[&worlds[at].inode].1.as_deref();
        let blue_and_red = (Some("/run/netns/blue"), Some("/run/netns/red"));
        assert_eq!((name(0), name(1)), blue_and_red);
        assert_eq!(name(2), None);
        let own = ss().expect("as before");
        assert_eq!(ours[&netns::inode()].0, own);

        let output = once(&["--dump", "--netns", "host", "--format", "json"]);
        let host = by_namespace(&String::from_utf8_lossy(&output.stdout));
        assert_eq!(host.keys().copied().collect::<Vec<_>>(), [netns::inode()]);
        assert_eq!(host[&netns::inode()].0, own);

        let output = once(&["--dump", "--netns", "all", "--format", "text"]);
        let text = String::from_utf8_lossy(&output.stdout);
        let title = text.lines().next().expect("a header");
        assert!(title.contains("COOKIE  NETNS"), "{title}");
        assert!(text.contains(" /run/netns/blue"), "{text}");
    });
}

/// Whoever may enter no namespace is told so, and gets the own one.
#[test]
fn unprivileged() {
    netns::run("namespaces::listed::unprivileged", || {
        if !netns::is_root() {
            return skip("in a user namespace of the test's own everybody may");
        }
        let own = Sock::listener(Domain::V4);
        let world = World::of_process();
        let _there = world.within(|| Sock::listener(Domain::V4));
        let mut command = Command::new(binary());
        command.args(["--dump", "--netns", "all", "--format", "json"]);
        command.uid(65_534).gid(65_534);
        let output = child::run(&mut command, PATIENCE).unwrap().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", child::text(&output));
        let rows = by_namespace(&String::from_utf8_lossy(&output.stdout));
        let expected = BTreeMap::from([(netns::inode(), (BTreeSet::from([own.cookie]), None))]);
        assert_eq!(rows, expected);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            log.matches("no other network namespaces").count(),
            1,
            "{log}"
        );
    });
}

/// What a daemon has in view is all of it.
#[test]
fn from_a_daemon() {
    let sandbox = Sandbox::default().mounts();
    sandbox.run("namespaces::listed::from_a_daemon", || {
        world::names();
        let place = Place::new();
        let daemon = place.launch(Tick::Fast).sensors(EVERYWHERE).debug().start();
        let worlds = ["blue", "red", "green"].map(World::named);
        for world in &worlds {
            found(&daemon, world);
        }
        let held = worlds.each_ref().map(|world| world.within(sample));
        let own = sample();
        for socket in held.iter().flatten().chain(&own) {
            daemon.reported("every", "opened", socket.cookie);
        }
        let mut client = Client::new(&place.socket);
        client.say(r#"{"request":"dump"}"#);
        let mut rows = String::new();
        loop {
            let line = client.line().expect("the connection stays open");
            if line.contains(r#""ok":true"#) {
                break;
            }
            rows += &line;
        }
        let rows = by_namespace(&rows);
        let cookies = |sockets: &[Sock]| sockets.iter().map(|sock| sock.cookie).collect();
        for (world, sockets) in worlds.iter().zip(&held) {
            let (listed, name) = &rows[&world.inode];
            assert_eq!(*listed, cookies(sockets));
            assert_eq!(name.as_deref(), world.name());
        }
        assert!(rows[&netns::inode()].0.is_superset(&cookies(&own)));
        daemon.stop();
    });
}
