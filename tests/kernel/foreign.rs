//! The kernel refuses the notices of sockets that nobody wants, and nobody notices.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::daemon::{Daemon, Launch, Tick};
use crate::netns;
use crate::proc_net;
use crate::push_down::told;
use crate::record::Record;
use crate::refused::counted;
use crate::seccomp::Refusal;
use crate::sock::{Domain, Sock};

const WANTED: u16 = 4443;
const FOREIGN: u16 = 4080;

/// A daemon for the clients of one port; it refuses unless `push_down` is off.
fn launch(tick: Tick, push_down: &str) -> Launch {
    let args = format!(r#"initial: true, process: false, patterns: ["tcp * *:{WANTED} * *"]"#);
    Launch::new(tick)
        .sensors(&format!(
            "  sockets: {{listener: net.socket, args: {{{args}}}}}\n"
        ))
        .without_beacon()
        .setting("push-down", push_down)
        .debug()
}

/// Waits until the kernel is told what to refuse.
fn guarded(daemon: &Daemon) {
    daemon.wait_for_line("the filter", |line| line.contains("refuses"));
}

fn listener(port: u16) -> Sock {
    let listener = Sock::tcp(Domain::V4);
    listener.bind(SocketAddr::new(Domain::V4.loopback(), port));
    listener.listen(64);
    listener
}

/// Connections that are over when this returns, each two notices.
fn churn(listener: &Sock, count: usize) {
    for _ in 0..count {
        drop(Sock::pair(listener));
    }
}

/// Of the ends of many, those that somebody wants are read, and told as they are
/// told where all are read.
#[test]
fn what_nobody_wants_is_not_read() {
    netns::run("foreign::what_nobody_wants_is_not_read", || {
        let (wanted, foreign) = (listener(WANTED), listener(FOREIGN));
        let in_view: Vec<(Sock, Sock)> = (0..5).map(|_| Sock::pair(&wanted)).collect();
        let start = |on| launch(Tick::Slow, on).start();
        let (on, off) = (start("true"), start("false"));
        guarded(&on);
        let mut cookies: Vec<u64> = in_view.iter().map(|(client, _)| client.cookie).collect();
        for (number, (client, server)) in in_view.into_iter().enumerate() {
            churn(&foreign, 40);
            match number {
                // Goes elsewhere, and dies there.
                0 | 1 => {
                    client.disconnect();
                    let nowhere = SocketAddr::new(Domain::V4.loopback(), 9);
                    assert!(number == 0 || client.connect(nowhere).is_err());
                    client.connect(foreign.local()).expect("it listens");
                    drop(foreign.accept());
                }
                // Its notice has lost the remote port.
                2 => client.reset_on_close(),
                3 => client.disconnect(),
                _ => {}
            }
            drop((client, server));
            // Nobody has read these.
            let (client, server) = Sock::pair(&wanted);
            cookies.push(client.cookie);
            if number % 2 == 0 {
                server.reset_on_close();
                drop(server);
                drop(client);
            }
        }
        for daemon in [&on, &off] {
            daemon.closed(&cookies);
            // A notice may overtake others in the kernel's work queue.
            std::thread::sleep(Duration::from_millis(50));
        }
        let (on, off) = (on.stop(), off.stop());
        let (some, all) = (told(&on, &cookies), told(&off, &cookies));
        assert_eq!(all.len(), cookies.len());
        let differ: BTreeMap<_, _> = all
            .iter()
            .filter(|(at, it)| some.get(at) != Some(it))
            .collect();
        assert!(differ.is_empty(), "{differ:#?}\n{some:#?}");
        assert_eq!(on.events().count(), off.events().count());
        let [some, all] = [&on, &off].map(|record| counted(&record.log, "notices"));
        assert!(all > 400, "{all} notices: {}", off.log);
        // Those of the wanted, of what has no port, and of the probes.
        assert!(some < 30, "{some} notices: {}", on.log);
        assert_eq!(counted(&on.log, "overruns"), 0, "{}", on.log);
    });
}

/// Stands still while more end than there is room for, one of them wanted.
fn stand_still(launch: Launch, refuses: bool, pairs: usize) -> (Record, u64) {
    let (wanted, foreign) = (listener(WANTED), listener(FOREIGN));
    let in_view = Sock::pair(&wanted);
    let cookie = in_view.0.cookie;
    // It hears everything, and so when the kernel has told everything.
    let witness = Daemon::start(Tick::Slow);
    let daemon = launch.start();
    daemon.opened(&[cookie]);
    if refuses {
        guarded(&daemon);
    }
    daemon.paused(|| {
        churn(&foreign, pairs / 2);
        drop(in_view);
        churn(&foreign, pairs / 2);
        witness.settle();
    });
    witness.stop();
    daemon.closed(&[cookie]);
    (daemon.stop(), cookie)
}

/// What is refused takes no room, whether one socket hears the notices or several
/// that share them.
#[test]
fn foreign_ends_cause_no_gap() {
    netns::run("foreign::foreign_ends_cause_no_gap", || {
        let small = |on| launch(Tick::Slow, on).setting("receive-buffer", "64KiB");
        let (record, _) = stand_still(small("false"), false, 300);
        assert!(counted(&record.log, "overruns") > 0, "{}", record.log);
        let shared = launch(Tick::Slow, "true")
            .without_privilege()
            .refused(Refusal::BUFFERS);
        for (launch, pairs) in [(small("true"), 300), (shared, 2_000)] {
            let (record, cookie) = stand_still(launch, true, pairs);
            assert_eq!(counted(&record.log, "overruns"), 0, "{}", record.log);
            assert_eq!(record.evidence("closed", cookie), "notified");
            assert!(counted(&record.log, "notices") < 20, "{}", record.log);
        }
    });
}

/// A listener that opens while as many foreign sockets end moves no counter: one
/// notice must be heard for the gate to open.
#[test]
fn a_foreign_end_does_not_hide_a_listener() {
    netns::run("foreign::a_foreign_end_does_not_hide_a_listener", || {
        let foreign = listener(FOREIGN);
        let daemon = Launch::new(Tick::Fast)
            .sensors(&format!(
                "  sockets: {{listener: net.socket, args: {{patterns: [\"tcp *:{WANTED} * * *\"]}}}}\n"
            ))
            .without_beacon()
            .setting("gate", "1h")
            .debug()
            .start();
        for round in 0..16 {
            let (client, server) = Sock::pair(&foreign);
            let earlier = Sock::pair(&foreign);
            std::thread::sleep(Duration::from_millis(100));
            if round % 2 == 1 {
                // From here to the next dump everything foreign is refused.
                drop(earlier);
                std::thread::sleep(Duration::from_millis(round));
            }
            let listeners = daemon.paused(|| {
                // With both ports: a notice without one is always heard.
                drop((client, server));
                proc_net::quiet();
                [1, 2].map(|host| {
                    let listener = Sock::tcp(Domain::V4);
                    listener.bind(SocketAddr::new([127, 0, 0, host].into(), WANTED));
                    listener.listen(1);
                    listener
                })
            });
            let cookies = listeners.each_ref().map(|listener| listener.cookie);
            daemon.opened(&cookies);
            drop(listeners);
            daemon.closed(&cookies);
        }
        guarded(&daemon);
        let record = daemon.stop();
        assert!(counted(&record.log, "dumps_spared") > 0, "{}", record.log);
    });
}
