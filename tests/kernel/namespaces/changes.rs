//! What changes while namespaces are watched: the configuration, their names, and
//! what the kernel could not tell.

use std::path::PathBuf;

use super::world::{self, World};
use super::{EVERYWHERE, everywhere, found, told};
use crate::daemon::{Daemon, Launch, Scratch, Tick};
use crate::netns::{self, Sandbox};
use crate::overrun::overrun;
use crate::sock::{Domain, Sock};

fn launch(place: &Scratch, netns: &str) -> Launch {
    let sensor = format!("  every: {{listener: net.socket, args: {{netns: {netns}}}}}\n");
    let other = "  other: {listener: net.socket, args: {netns: host}}\n";
    Launch::new(Tick::Fast)
        .at(place)
        .sensors(&(sensor + other))
        .debug()
}

fn reload(daemon: &Daemon, place: &Scratch, netns: &str) {
    launch(place, netns).write(place);
    let before = daemon.count_lines(|line| line.contains(" reloaded: "));
    daemon.signal(libc::SIGHUP);
    daemon.wait_for_lines("the reload", before + 1, |line| {
        line.contains(" reloaded: ")
    });
}

/// Another `netns` needs no restart: what is open elsewhere then is in view
/// without a word, as at a start; and back.
#[test]
fn by_a_reload() {
    netns::run("namespaces::changes::by_a_reload", || {
        let place = Scratch::new();
        let daemon = launch(&place, "host").start();
        let world = World::of_process();
        let old = world.within(|| Sock::listener(Domain::V4));
        let own = Sock::listener(Domain::V4);
        daemon.reported("every", "opened", own.cookie);
        reload(&daemon, &place, "all");
        found(&daemon, &world);
        // What is open until it was dumped counts as there before.
        loop {
            let probe = world.within(|| Sock::listener(Domain::V4)).cookie;
            daemon.ticks(1);
            if daemon.has("closed", probe) {
                break;
            }
        }
        let new = world.within(|| Sock::listener(Domain::V4));
        daemon.reported("every", "opened", new.cookie);
        let (old_was, new_was, own_was) = (old.cookie, new.cookie, own.cookie);
        drop(old);
        daemon.closed_by("every", &[old_was]);
        reload(&daemon, &place, "host");
        drop(new);
        drop(own);
        daemon.closed_by("every", &[own_was]);
        daemon.closed_by("other", &[own_was]);
        let record = daemon.stop();
        let actions = |sensor, cookie| -> Vec<&str> {
            let said = told(&record, sensor, cookie).into_iter();
            said.map(|(action, _)| action).collect()
        };
        assert_eq!(actions("every", old_was), ["closed"]);
        assert_eq!(
            actions("every", new_was),
            ["opened"],
            "it is not watched any more"
        );
        assert_eq!(actions("every", own_was), ["opened", "closed"]);
        assert_eq!(actions("other", own_was), ["opened", "closed"]);
        assert_eq!(actions("other", new_was).len(), 0);
    });
}

/// What ended elsewhere before a reload that leaves other namespaces alone, and
/// was not heard yet, is told of as theirs and never as our own.
#[test]
fn by_a_reload_behind_notices() {
    netns::run("namespaces::changes::by_a_reload_behind_notices", || {
        let place = Scratch::new();
        let daemon = launch(&place, "all").start();
        let world = World::of_process();
        found(&daemon, &world);
        let listener = world.within(|| Sock::listener(Domain::V4));
        daemon.reported("every", "opened", listener.cookie);
        let brief = daemon.paused(|| {
            let pairs = world.within(|| [(); 20].map(|()| Sock::pair(&listener)));
            let cookies = pairs.map(|(client, server)| [client.cookie, server.cookie]);
            launch(&place, "host").write(&place);
            daemon.signal(libc::SIGHUP);
            // The kernel tells of ends from a work queue.
            std::thread::sleep(std::time::Duration::from_millis(300));
            cookies.concat()
        });
        daemon.wait_for_line("the reload", |line| line.contains(" reloaded: "));
        let own = Sock::listener(Domain::V4).cookie;
        daemon.closed_by("other", &[own]);
        let record = daemon.stop();
        for cookie in brief {
            let said = told(&record, "every", cookie);
            let ours = |(_, data): &(&str, &serde_json::Value)| data["netns"] == netns::inode();
            assert!(!said.iter().any(ours), "{said:?}");
            assert_eq!(said.len(), 2, "heard before: {said:?}");
            assert_eq!(told(&record, "other", cookie).len(), 0);
        }
    });
}

/// What survives a restart is of our own namespace. The sockets of others are as
/// new to the next run as to the first.
#[test]
fn by_a_restart() {
    netns::run("namespaces::changes::by_a_restart", || {
        let place = Scratch::new();
        let world = World::of_process();
        let daemon = launch(&place, "all").start();
        let own = Sock::listener(Domain::V4);
        let there = world.within(|| [Sock::listener(Domain::V4), Sock::listener(Domain::V4)]);
        for socket in there.iter().chain([&own]) {
            daemon.reported("every", "opened", socket.cookie);
        }
        daemon.stop();
        let (own_was, [gone, stays]) = (own.cookie, there.each_ref().map(|sock| sock.cookie));
        let [first, second] = there;
        drop((own, first));
        let daemon = launch(&place, "all").start();
        daemon.closed_by("every", &[own_was]);
        drop(second);
        daemon.closed_by("every", &[stays]);
        let record = daemon.stop();
        assert_eq!(
            record
                .events()
                .filter(|event| event["data"]["cookie"] == gone)
                .count(),
            0
        );
        let evidence = |cookie| {
            let said = told(&record, "every", cookie);
            assert_eq!(said.len(), 1, "{said:?}");
            said[0].1["evidence"].clone()
        };
        assert_eq!(evidence(own_was), "restart");
        assert_eq!(evidence(stays), "notified");
    });
}

/// One that gets a name later has it in the events from then on.
#[test]
fn a_name_given_later() {
    let sandbox = Sandbox::default().mounts();
    sandbox.run("namespaces::changes::a_name_given_later", || {
        world::names();
        let daemon = everywhere(Tick::Fast);
        let mut world = World::of_process();
        let socket = world.within(|| Sock::listener(Domain::V4));
        daemon.reported("every", "opened", socket.cookie);
        world.attach("later");
        // At the next look, which is no event: sockets come until one has it.
        let event = loop {
            let probe = world.within(|| Sock::listener(Domain::V4));
            let cookie = probe.cookie;
            daemon.reported("every", "opened", cookie);
            let event = daemon.wait_for("its opening", |event| event["data"]["cookie"] == cookie);
            if event["data"].get("netns_name").is_some() {
                break event;
            }
        };
        assert_eq!(event["data"]["netns_name"], "/run/netns/later");
        let cookie = socket.cookie;
        drop(socket);
        daemon.closed_by("every", &[cookie]);
        let record = daemon.stop();
        let said = told(&record, "every", cookie);
        assert_eq!(said[0].1.get("netns_name"), None);
        assert_eq!(said[1].1["netns_name"], "/run/netns/later");
    });
}

/// One without a path has the container of its process for a name.
#[test]
fn a_container() {
    let name = "namespaces::changes::a_container";
    netns::run(name, || {
        let id = format!("{:064x}", std::process::id());
        let table = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
        let top = table.lines().find_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            let fields: Vec<&str> = mount.split(' ').collect();
            (kind.starts_with("cgroup2 ") && fields[3] == "/").then(|| PathBuf::from(fields[4]))
        });
        let world = World::of_process();
        let entered = top
            .ok_or_else(|| std::io::Error::other("no cgroup2 is mounted here"))
            .and_then(|top| {
                let cgroup = top.join(format!("docker-{id}.scope"));
                std::fs::create_dir(&cgroup)?;
                let pid = world.pid().expect("a process").to_string();
                std::fs::write(cgroup.join("cgroup.procs"), pid).map(|()| cgroup)
            });
        let cgroup = match entered {
            Ok(cgroup) => cgroup,
            Err(error) => return netns::visibly(&format!("SKIPPED {name}: no cgroup: {error}")),
        };
        let daemon = everywhere(Tick::Fast);
        let socket = world.within(|| Sock::listener(Domain::V4));
        let cookie = socket.cookie;
        daemon.reported("every", "opened", cookie);
        let record = daemon.stop();
        drop(socket);
        world.end();
        std::fs::remove_dir(&cgroup).expect("an empty cgroup");
        assert_eq!(told(&record, "every", cookie)[0].1["netns_name"], *id);
    });
}

/// Notices that the kernel dropped may be of any namespace: all are reconciled, and
/// the record tells of what was found in all of them.
#[test]
fn an_overrun_concerns_all() {
    netns::run("namespaces::changes::an_overrun_concerns_all", || {
        let daemon = Launch::new(Tick::Fast)
            .sensors(EVERYWHERE)
            .setting("receive-buffer", "4KiB")
            .debug()
            .start();
        let worlds = [World::of_process(), World::of_process()];
        let mut held = Vec::new();
        for world in &worlds {
            found(&daemon, world);
            held.push(world.within(|| {
                let listener = Sock::listener(Domain::V4);
                let pairs: Vec<_> = (0..15).map(|_| Sock::pair(&listener)).collect();
                let udp = Sock::udp(Domain::V4);
                udp.bind_loopback();
                (listener, pairs, udp)
            }));
        }
        let own = Sock::listener(Domain::V4);
        let mut cookies = vec![own.cookie];
        for (listener, pairs, udp) in &held {
            cookies.extend([listener.cookie, udp.cookie]);
            let both = pairs.iter().flat_map(|(one, other)| [one, other]);
            cookies.extend(both.map(|sock| sock.cookie));
        }
        for cookie in &cookies {
            daemon.reported("every", "opened", *cookie);
        }
        overrun(&daemon, || drop((held, own)));
        daemon.wait_for("the gap", |event| event["data"]["action"] == "gap");
        daemon.closed_by("every", &cookies);
        let record = daemon.stop();
        let mut verified = 0;
        for cookie in cookies {
            let said = told(&record, "every", cookie);
            assert_eq!(said.len(), 2, "{said:?}");
            verified += u64::from(said[1].1["evidence"] == "verified");
        }
        let own = record.own();
        let gaps: Vec<_> = own
            .iter()
            .filter(|event| event["data"]["action"] == "gap")
            .collect();
        let recovered =
            |gap: &&&serde_json::Value| gap["data"]["closed_recovered"].as_u64().unwrap();
        let sum: u64 = gaps.iter().map(recovered).sum();
        assert!(verified > 0 && sum >= verified, "{verified} of {gaps:?}");
    });
}
