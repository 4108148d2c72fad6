use std::path::Path;
use std::time::SystemTime;

use mio::Poll;

use super::*;
use crate::config::{Exec, Unlock};
use crate::model::{Data, Event, Listener, Restored};

fn event(seq: u64) -> Event {
    Event {
        ts: SystemTime::UNIX_EPOCH,
        seq,
        eid: format!("s|self|restored@{seq}|0"),
        sensor: Arc::from("s"),
        listener: Listener::Own,
        tag: None,
        data: Data::Restored(Restored {
            source: "udp",
            parts: Vec::new(),
        }),
    }
}

fn handler(name: &str, action: Action) -> Handler {
    Handler {
        name: name.into(),
        matches: None,
        action,
    }
}

fn file(name: &str, path: &Path) -> Handler {
    handler(name, Action::File(path.to_owned()))
}

fn exec(name: &str, args: &[&str], unlock: Unlock) -> Handler {
    let exec = Exec {
        program: "/bin/sh".into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        unlock,
        timeout: Duration::from_secs(20),
        concurrency: 1,
        queue: 4,
    };
    handler(name, Action::Exec(exec))
}

struct Bench {
    _poll: Poll,
    stats: Rc<Stats>,
    fan: Fan,
    locks: Locks,
    handlers: Handlers,
}

impl Bench {
    fn new() -> Bench {
        let poll = Poll::new().unwrap();
        let stats = Rc::new(Stats::default());
        let handlers = Handlers::new(Surroundings {
            host: "h".into(),
            queue: 100,
            registry: poll.registry().try_clone().unwrap(),
            tokens: 100,
            stats: Rc::clone(&stats),
        });
        Bench {
            _poll: poll,
            fan: Fan::new(Rc::clone(&stats)),
            stats,
            locks: Locks::default(),
            handlers,
        }
    }

    /// Works until nothing runs.
    fn settle(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            for program in &mut self.handlers.programs {
                program.all_ready();
            }
            self.handlers.child_ended();
            let busy = self.handlers.work(&mut self.locks, Now::read());
            if !busy && self.handlers.are_idle() {
                return;
            }
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_run_releases_the_lock_of_its_event() {
    let mut bench = Bench::new();
    let good = exec("good", &["-c", "cat; exit 0"], Unlock::OnSuccess);
    let bad = exec("bad", &["-c", "exit 1"], Unlock::OnSuccess);
    bench.handlers.replace(vec![bad], &mut bench.fan).unwrap();
    bench.locks.admit(&event(1).eid, SystemTime::UNIX_EPOCH);
    assert!(bench.fan.emit(&event(1)));
    bench.settle();
    assert!(bench.locks.holds(&event(1).eid), "a failure does not");
    bench.handlers.replace(vec![good], &mut bench.fan).unwrap();
    bench.fan.flush().unwrap();
    assert!(bench.fan.emit(&event(1)));
    bench.settle();
    assert!(bench.locks.is_empty());
    let stats = &bench.stats;
    assert_eq!((stats.runs.count(), stats.runs_failed.count()), (1, 1));
    assert_eq!(stats.locks_released.count(), 1);
}

#[test]
fn what_is_configured_as_before_goes_on() {
    let dir = std::env::temp_dir().join(format!("sockwatch-handlers-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (one, other) = (dir.join("one"), dir.join("other"));
    let waits = exec("waits", &["-c", "exit 0"], Unlock::Never);
    let mut bench = Bench::new();
    let before = vec![file("a", &one), file("b", &other), waits.clone()];
    bench.handlers.replace(before, &mut bench.fan).unwrap();
    assert!(bench.fan.emit(&event(1)));

    // One that cannot be had: nothing changes.
    let bad = vec![file("a", &dir.join("none/file"))];
    let error = bench.handlers.replace(bad, &mut bench.fan).unwrap_err();
    assert!(error.to_string().contains("none/file"), "{error}");
    assert!(bench.fan.emit(&event(2)));

    // `a` stays, `b` goes after it has written, `waits` has another bound.
    let mut changed = waits;
    if let Action::Exec(exec) = &mut changed.action {
        exec.concurrency = 2;
    }
    let after = vec![file("a", &one), changed];
    bench.handlers.replace(after, &mut bench.fan).unwrap();
    assert!(bench.fan.emit(&event(3)));
    bench.fan.flush().unwrap();
    assert!(bench.fan.emit(&event(4)));
    bench.fan.flush().unwrap();
    let lines = |path: &Path| std::fs::read_to_string(path).unwrap().lines().count();
    assert_eq!((lines(&one), lines(&other)), (4, 2));
    assert_eq!(bench.stats.runs_left.count(), 2);
    bench.settle();
    assert_eq!(bench.stats.runs.count(), 2);
    std::fs::remove_dir_all(&dir).unwrap();
}

/// A run that was over in time is not blamed for a loop that came to it late.
#[test]
fn one_that_ended_in_time_did_not_take_too_long() {
    let mut bench = Bench::new();
    let quick = exec("quick", &["-c", "exit 0"], Unlock::OnSuccess);
    bench.handlers.replace(vec![quick], &mut bench.fan).unwrap();
    bench.locks.admit(&event(1).eid, SystemTime::UNIX_EPOCH);
    assert!(bench.fan.emit(&event(1)));
    let mut now = Now::read();
    bench.handlers.work(&mut bench.locks, now);
    // The end of its output is its own end, or comes just before.
    std::thread::sleep(Duration::from_millis(500));
    now.mono += Duration::from_secs(3600);
    for reap in [false, true] {
        bench.handlers.reap = reap;
        bench.handlers.work(&mut bench.locks, now);
    }
    assert!(bench.handlers.are_idle());
    let stats = &bench.stats;
    assert_eq!((stats.runs.count(), stats.runs_failed.count()), (1, 0));
    assert!(bench.locks.is_empty());
}

/// Somebody released the lock while the event waited for its run, and another
/// event of the same id has set one since: that one is not this run's.
#[test]
fn a_run_does_not_release_the_lock_of_a_later_event() {
    let mut bench = Bench::new();
    let good = exec("good", &["-c", "exit 0"], Unlock::OnSuccess);
    bench.handlers.replace(vec![good], &mut bench.fan).unwrap();
    let (first, mut second) = (event(1), event(1));
    second.ts += Duration::from_secs(1);
    bench.locks.admit(&first.eid, first.ts);
    assert!(bench.fan.emit(&first));
    bench.locks.release(&first.eid);
    bench.locks.admit(&second.eid, second.ts);
    bench.settle();
    assert!(bench.locks.holds(&second.eid));
    assert!(bench.fan.emit(&second));
    bench.settle();
    assert!(bench.locks.is_empty());
}

/// What a turn reads does not grow with the number of runs that write.
#[test]
fn output_is_read_in_shares() {
    let mut bench = Bench::new();
    let Action::Exec(mut chatty) = exec("chatty", &["-c", "yes"], Unlock::Never).action else {
        unreachable!("it has a program");
    };
    (chatty.concurrency, chatty.queue) = (32, 32);
    let chatty = handler("chatty", Action::Exec(chatty));
    bench
        .handlers
        .replace(vec![chatty], &mut bench.fan)
        .unwrap();
    for seq in 0..32 {
        assert!(bench.fan.emit(&event(seq)));
        bench.handlers.work(&mut bench.locks, Now::read());
    }
    // All pipes are full, of two bytes a line.
    std::thread::sleep(Duration::from_millis(500));
    let now = Now::read();
    // The first turn uses up what may be logged, the second one counts.
    for _ in 0..2 {
        bench.handlers.programs[0].unlogged();
        bench.handlers.programs[0].all_ready();
        assert!(bench.handlers.work(&mut bench.locks, now), "there is more");
    }
    let lines = bench.handlers.programs[0].unlogged();
    assert!(
        (1..=READ_A_TURN as u64 / 2).contains(&lines),
        "{lines} lines"
    );
    bench.handlers.kill();
    assert_eq!(bench.stats.runs_failed.count(), 32);
    assert!(bench.handlers.are_idle());
}
