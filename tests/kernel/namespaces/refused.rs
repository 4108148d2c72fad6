//! What may not be watched: said once, and everything else goes on.

use serde_json::Value;

use super::world::{self, World};
use super::{EVERYWHERE, everywhere, told};
use crate::daemon::{Daemon, Launch, Tick};
use crate::netns::{self, Sandbox, skip};
use crate::sock::{Domain, Sock};

/// Without privilege there is our own namespace.
#[test]
fn unprivileged() {
    netns::run("namespaces::refused::unprivileged", || {
        if !netns::is_root() {
            return skip("in a user namespace of the test's own everybody may");
        }
        let world = World::of_process();
        let daemon = Launch::new(Tick::Fast)
            .sensors(EVERYWHERE)
            .without_privilege()
            .start();
        let there = world.within(|| Sock::listener(Domain::V4));
        let here = Sock::listener(Domain::V4);
        daemon.reported("every", "opened", here.cookie);
        let (here_was, there_was) = (here.cookie, there.cookie);
        drop((here, there));
        daemon.closed_by("every", &[here_was]);
        let record = daemon.finish(&[here_was]);
        assert_eq!(told(&record, "every", there_was).len(), 0);
        let own = record.own();
        let of_netns = |event: &&&Value| event["data"]["source"] == "netns";
        let own: Vec<_> = own.iter().filter(of_netns).collect();
        assert_eq!(own.len(), 1, "{own:?}");
        let data = &own[0]["data"];
        assert_eq!(data["action"], "degraded");
        assert!(
            data["reason"]
                .to_string()
                .contains("Operation not permitted"),
            "{data}"
        );
        let lines = record.log.lines();
        let told = lines.filter(|line| line.contains("no other network namespaces"));
        assert_eq!(told.count(), 1, "{}", record.log);
    });
}

/// As a user with some capabilities and no others.
fn as_nobody_with(capabilities: &str) -> Launch {
    let user = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let [inherited, ambient] =
        ["--inh-caps", "--ambient-caps"].map(|option| format!("{option}={capabilities}"));
    let command = user.into_iter().chain([&*inherited, &*ambient]);
    Launch::new(Tick::Fast)
        .sensors(EVERYWHERE)
        .through(&command.collect::<Vec<_>>())
        .debug()
}

/// Each capability that is missing costs what it costs, and one record says it.
#[test]
fn with_some_capabilities() {
    let name = "namespaces::refused::with_some_capabilities";
    Sandbox::default().mounts().run(name, || {
        if !netns::is_root() {
            return skip("capabilities are given by root");
        }
        world::names();
        let worlds = [World::named("seen"), World::of_process()];
        let only = "+sys_admin,+net_broadcast,+net_admin,+sys_ptrace";
        for (left_out, missing) in [
            ("+sys_ptrace", "namespaces of some processes"),
            ("+net_admin", "other network namespaces"),
            ("+net_broadcast", "other network namespaces"),
            ("+sys_admin", "other network namespaces"),
        ] {
            let capabilities: Vec<&str> = only.split(',').filter(|one| *one != left_out).collect();
            let daemon = as_nobody_with(&capabilities.join(",")).start();
            let sockets = worlds.each_ref();
            let sockets = sockets.map(|world| world.within(|| Sock::listener(Domain::V4)));
            daemon.ticks(2);
            let [seen, unseen] = sockets.each_ref().map(|socket| socket.cookie);
            let named_is_seen = left_out == "+sys_ptrace";
            if named_is_seen {
                daemon.reported("every", "opened", seen);
            }
            drop(sockets);
            daemon.settle();
            let record = daemon.stop();
            assert_eq!(told(&record, "every", seen).is_empty(), !named_is_seen);
            assert_eq!(told(&record, "every", unseen).len(), 0);
            let own = record.own();
            let of_netns = |event: &&&Value| event["data"]["source"] == "netns";
            let own: Vec<_> = own.iter().filter(of_netns).collect();
            assert_eq!(own.len(), 1, "without {left_out}: {own:?}");
            assert_eq!(own[0]["data"]["missing"], serde_json::json!([missing]));
        }
    });
}

/// A namespace of somebody else's is told of once, and counted.
#[test]
fn somebody_elses() {
    let sandbox = Sandbox::default().mounts();
    sandbox.run("namespaces::refused::somebody_elses", || {
        world::names();
        let world = World::named("theirs");
        // Root in a user namespace of its own, with a network namespace that is
        // owned by it: it may enter what it makes, and nothing else.
        let daemon = Launch::new(Tick::Fast)
            .sensors("  every: {listener: net.socket, args: {netns: all}}\n")
            .without_beacon()
            .through(&["unshare", "--map-root-user", "--net"])
            .start();
        let line = format!(
            "network namespace {} (/run/netns/theirs) cannot be entered",
            world.inode
        );
        daemon.wait_for_line(&line, |said| said.contains(&line));
        std::thread::sleep(std::time::Duration::from_millis(1500));
        let record = daemon.stop();
        let lines: Vec<&str> = record
            .log
            .lines()
            .filter(|said| said.contains(&line))
            .collect();
        assert_eq!(lines.len(), 1, "looked at three times, told once");
        assert!(lines[0].contains("Operation not permitted"), "{lines:?}");
        assert!(record.log.contains("netns_refused="), "{}", record.log);
    });
}

/// `host` is the default, and has no thread and no socket for others.
#[test]
fn host_costs_nothing() {
    netns::run("namespaces::refused::host_costs_nothing", || {
        let threads = |daemon: &Daemon| -> Vec<String> {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.id())).unwrap();
            tasks
                .map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap())
                .map(|comm| comm.trim().to_owned())
                .collect()
        };
        let sockets = |daemon: &Daemon| {
            let fds = std::fs::read_dir(format!("/proc/{}/fd", daemon.id())).unwrap();
            let links = fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
            links
                .filter(|link| link.to_string_lossy().starts_with("socket:"))
                .count()
        };
        let host = Daemon::start(Tick::Slow);
        let all = everywhere(Tick::Slow);
        let is_scout = |comm: &String| comm == "sw-netns";
        assert!(!threads(&host).iter().any(is_scout), "{:?}", threads(&host));
        assert_eq!(
            threads(&all).iter().filter(|comm| is_scout(comm)).count(),
            1
        );
        // One for ids, one for what is announced of them.
        assert_eq!(sockets(&all), sockets(&host) + 2, "between two ticks");
    });
}
