//! Which hook is taken, and what is said where one is not to be had.

use super::watch::{hook, is_connect, privileged};
use crate::daemon::{Daemon, Launch, Tick};
use crate::netns;
use crate::record::Record;
use crate::seccomp::Refusal;
use crate::sock::{Domain, Sock};

/// Those in the kernel, best first.
const HOOKS: [&str; 3] = ["lsm", "fentry", "cgroup"];

/// A sensor that takes the best.
const BEST: &str = "  connects: {listener: net.tcp_connect}\n";

/// A daemon whose sensor is forced to this hook.
fn forced(hook: &str) -> Launch {
    let sensor = format!("  connects: {{listener: net.tcp_connect, args: {{hook: {hook}}}}}\n");
    Launch::new(Tick::Fast).sensors(&sensor)
}

/// The origin of the event of a connect that is made now, and stays.
fn origin(daemon: &Daemon) -> String {
    let listener = Sock::listener(Domain::V4);
    let client = Sock::tcp(Domain::V4);
    client.connect(listener.local()).expect("a listener on lo");
    let event = daemon.wait_for("the connect", |event| {
        is_connect(event) && event["data"]["cookie"] == client.cookie
    });
    event["data"]["origin"]
        .as_str()
        .expect("a word")
        .to_string()
}

/// A daemon that was forced to a hook has ended, and has said why.
fn assert_refused(hook: &str, daemon: Daemon) {
    let (status, record) = daemon.end();
    let log = &record.log;
    assert_eq!(status.code(), Some(1), "{hook}: {log}");
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains(hook), "{hook}: {log}");
    assert_eq!(record.events().count(), 0, "{hook}: {log}");
}

/// That a hook failed, and why, stands in one line.
fn assert_told(record: &Record, hook: &str) {
    let lines = record.log.lines();
    let told = lines.filter(|line| line.contains(hook) && line.contains("connect"));
    assert_ne!(told.count(), 0, "{hook} is not in {}", record.log);
}

/// A hook that is forced is had, or the daemon ends. The best that is had is
/// the one taken where none is forced, and why better ones failed is told.
#[test]
fn best() {
    privileged("connect::hooks::best", || {
        let mut refused = Vec::new();
        let mut best = None;
        for hook in HOOKS {
            let daemon = forced(hook).spawn();
            if daemon.is_ready() {
                assert_eq!(origin(&daemon), hook);
                drop(daemon.stop());
                best.get_or_insert(hook);
            } else {
                assert_refused(hook, daemon);
                if best.is_none() {
                    refused.push(hook);
                }
            }
        }
        assert!(!refused.contains(&hook().as_str()), "{}", hook());
        let daemon = Launch::new(Tick::Fast).sensors(BEST).start();
        assert_eq!(Some(origin(&daemon).as_str()), best);
        let record = daemon.stop();
        for hook in refused.into_iter().chain(best) {
            assert_told(&record, hook);
        }
    });
}

/// Without bpf(2) no hook is to be had; the table is what is left.
#[test]
fn without_bpf() {
    netns::run("connect::hooks::without_bpf", || {
        for hook in HOOKS {
            let daemon = forced(hook).refused(Refusal::BPF).spawn();
            assert!(!daemon.is_ready(), "{hook} without bpf(2)");
            assert_refused(hook, daemon);
        }
        let daemon = Launch::new(Tick::Fast)
            .sensors(BEST)
            .refused(Refusal::BPF)
            .start();
        assert_eq!(origin(&daemon), "sock_diag");
        let record = daemon.stop();
        for hook in HOOKS {
            assert_told(&record, hook);
        }
        let own = record.own();
        assert!(
            own.iter().any(|event| {
                let data = &event["data"];
                data["action"] == "degraded" && data["source"] == "connect"
            }),
            "{own:?}"
        );
    });
}
