//! How programs are run: what they get, how long and how many at once, and what
//! is left of them.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::{EID, counted, happen, is_alive, lines, until, watching};
use crate::daemon::Scratch;
use crate::netns;

#[test]
fn they_get_the_event_and_nothing_else() {
    netns::run(
        "handlers::programs::they_get_the_event_and_nothing_else",
        || {
            let scratch = Scratch::new();
            let dir = scratch.path().display().to_string();
            // An argument that a shell would make something of.
            let script = r#"cd "$1"; cat >event; env >vars; ls /proc/self/fd >fds
            grep -E "SigBlk|SigIgn" /proc/self/status >signals
            echo "$2" >argument; mv argument done"#;
            let script = scratch.write("script", script);
            let handlers = format!(
                "  h: {{match: \"w|*\", exec: [/bin/sh, {}, {dir}, '$(id); * | \"x']}}\n",
                script.display()
            );
            let daemon = watching(&handlers).start();
            let cookie = happen(1)[0];
            daemon.reported("w", "closed", cookie);
            until("the run", || scratch.path().join("done").exists());
            let read = |name: &str| fs::read_to_string(scratch.path().join(name)).expect(name);
            assert_eq!(read("done"), "$(id); * | \"x\n");
            assert_eq!(read("fds"), "0\n1\n2\n3\n", "the last one is that of ls");
            // Nothing is blocked, nor more ignored than when the daemon was started.
            // SIGPIPE is what this test ignores itself.
            let signals = read("signals");
            assert_eq!(mask(&signals, "SigBlk"), 0);
            let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
            let ignored = mask(&status, "SigIgn") & !(1 << (libc::SIGPIPE - 1));
            // 32 and 33 are glibc's own, whose posix_spawn(3) ignores them in a child.
            let glibc = 0b11 << 31;
            assert_eq!(mask(&signals, "SigIgn") & !glibc, ignored & !glibc);
            let vars = read("vars");
            let vars: BTreeMap<&str, &str> = vars
                .lines()
                .filter_map(|line| line.split_once('='))
                .filter(|(name, _)| name.starts_with("SOCKWATCH_"))
                .filter(|(name, _)| !name.starts_with("SOCKWATCH_TEST_"))
                .collect();
            let told = read("event");
            assert_eq!(told.matches('\n').count(), 1, "one line: {told:?}");
            let told: Value = serde_json::from_str(&told).expect("JSON");
            let record = daemon.stop();
            assert_eq!(
                record.find("closed", cookie),
                &told,
                "as on standard output"
            );
            let text = |value: &Value| {
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned)
            };
            let expected = [
                ("SOCKWATCH_ACTION", "closed".to_owned()),
                ("SOCKWATCH_COOKIE", cookie.to_string()),
                ("SOCKWATCH_EID", EID.to_owned()),
                ("SOCKWATCH_EVIDENCE", "notified".to_owned()),
                ("SOCKWATCH_LISTENER", "net.socket".to_owned()),
                ("SOCKWATCH_LOCAL", text(&told["data"]["local"])),
                ("SOCKWATCH_NETNS", text(&told["data"]["netns"])),
                ("SOCKWATCH_PROTO", "udp".to_owned()),
                ("SOCKWATCH_REMOTE", "0.0.0.0:0".to_owned()),
                ("SOCKWATCH_SENSOR", "w".to_owned()),
                ("SOCKWATCH_SEQ", text(&told["seq"])),
                ("SOCKWATCH_STATE", "UNCONN".to_owned()),
                ("SOCKWATCH_TAG", "net.socket".to_owned()),
            ];
            let expected: BTreeMap<&str, &str> = expected
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            assert_eq!(vars, expected);
            assert_eq!(counted(&record, "runs"), 1, "{}", record.log);
        },
    );
}

/// One of the sets of signals in a `status` of /proc.
fn mask(status: &str, name: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with(name));
    let word = line.and_then(|line| line.split('\t').nth(1));
    u64::from_str_radix(word.expect("such a line"), 16).expect("hexadecimal")
}

#[test]
fn one_that_takes_too_long_is_ended_with_all_that_it_started() {
    let name = "handlers::programs::one_that_takes_too_long_is_ended_with_all_that_it_started";
    netns::run(name, || {
        let scratch = Scratch::new();
        let dir = scratch.path().display();
        // Ignored signals are inherited: neither is impressed by SIGTERM.
        let script = format!(
            "trap '' TERM; sleep 100 & echo $$ $! >{dir}/started; mv {dir}/started {dir}/pids; \
             while :; do sleep 100; done"
        );
        let handlers =
            format!("  h: {{match: \"w|*\", timeout: 200ms, exec: [/bin/sh, -c, \"{script}\"]}}\n");
        let daemon = watching(&handlers).start();
        daemon.reported("w", "closed", happen(1)[0]);
        let pids = scratch.path().join("pids");
        until("the run", || pids.exists());
        let pids = fs::read_to_string(pids).expect("two pids");
        daemon.wait_for_line("the end", |line| line.contains("takes too long"));
        for pid in pids.split_whitespace() {
            until("the end of both", || !is_alive(pid));
        }
        // It goes on: an event that comes now is run too.
        daemon.reported("w", "closed", happen(1)[0]);
        until("another run", || scratch.path().join("pids").exists());
        let record = daemon.stop();
        assert_eq!(counted(&record, "runs_timed_out"), 2, "{}", record.log);
        assert_eq!(counted(&record, "runs_failed"), 2);
    });
}

#[test]
fn no_more_at_once_and_no_more_in_line_than_configured() {
    let name = "handlers::programs::no_more_at_once_and_no_more_in_line_than_configured";
    netns::run(name, || {
        const EVENTS: usize = 40;
        let scratch = Scratch::new();
        let dir = scratch.path().display();
        let script = format!(
            "echo begin >>{dir}/trace; while [ ! -e {dir}/go ]; do sleep 0.02; done; \
             echo end >>{dir}/trace; exit $SOCKWATCH_SEQ"
        );
        // Every 256th run would be a success; so none is here.
        let handlers = format!(
            "  h: {{match: \"w|*\", concurrency: 2, queue: 4, exec: [/bin/sh, -c, \"{script}\"]}}\n"
        );
        let daemon = watching(&handlers).start();
        let trace = scratch.path().join("trace");
        let cookies = daemon.paused(|| happen(EVENTS));
        daemon.closed_by("w", &cookies);
        until("two runs", || lines(&trace).len() >= 2);
        scratch.write("go", "");
        // Less than half of the line is in use again: the loss is told.
        daemon.wait_for("the gap record", |event| event["data"]["cause"] == "queue");
        daemon.reported("w", "closed", happen(1)[0]);
        let mut ended = 0;
        until("all runs", || {
            let traced = lines(&trace);
            ended = traced.iter().filter(|line| *line == "end").count();
            ended * 2 == traced.len() && ended >= 5
        });
        let record = daemon.stop();
        let ended = lines(&trace).iter().filter(|line| *line == "end").count();
        let mut running = 0_i32;
        for line in lines(&trace) {
            running += if line == "begin" { 1 } else { -1 };
            assert!((0..=2).contains(&running), "{:?}", lines(&trace));
        }
        let lost: u64 = record
            .own()
            .iter()
            .map(|gap| {
                assert_eq!(gap["data"]["sink"], "handlers.h");
                gap["data"]["events_lost"].as_u64().expect("a count")
            })
            .sum();
        assert_eq!(counted(&record, "events_dropped"), lost, "{}", record.log);
        assert_eq!(counted(&record, "runs_failed"), ended as u64);
        assert_eq!(counted(&record, "runs"), 0);
        assert_eq!(ended as u64 + lost, EVENTS as u64 + 1);
        // 4 in line, and up to two that ran meanwhile; and the last one.
        assert!((5..=7).contains(&ended), "{ended} runs");
    });
}

#[test]
fn output_goes_to_the_log_escaped_and_bounded() {
    netns::run(
        "handlers::programs::output_goes_to_the_log_escaped_and_bounded",
        || {
            let script = r"printf 'a\033[2Jb\n\377c\nno end'; head -c 3000 /dev/zero | tr '\0' x >&2; \
             i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i + 1)); done; echo; cat >/dev/null";
            let scratch = Scratch::new();
            let script = scratch.write("script", script);
            let handlers = format!(
                "  h: {{match: \"w|*\", exec: [/bin/sh, {}]}}\n",
                script.display()
            );
            let daemon = watching(&handlers).start();
            happen(1);
            daemon.wait_for_line("an escape", |line| line.ends_with("]: a\\u{1b}[2Jb"));
            daemon.wait_for_line("no UTF-8", |line| line.ends_with("]: \u{fffd}c"));
            daemon.wait_for_line("a long line's piece", |line| {
                line.ends_with(&"x".repeat(1000))
            });
            let record = daemon.stop();
            let told = record
                .log
                .lines()
                .filter(|line| line.contains("handler h["));
            assert_eq!(told.count(), 100, "{}", record.log);
            assert!(record.log.lines().all(|line| line.len() < 1200));
            assert_eq!(counted(&record, "runs"), 1, "{}", record.log);
        },
    );
}

#[test]
fn a_program_that_reads_and_writes_nothing_holds_nobody_up() {
    let name = "handlers::programs::a_program_that_reads_and_writes_nothing_holds_nobody_up";
    netns::run(name, || {
        let handlers = "  deaf: {match: \"w|*\", exec: [/bin/sleep, '100'], concurrency: 64}\n  \
             closed: {match: \"w|*\", exec: [/bin/sh, -c, 'exec <&- >&- 2>&-; sleep 100']}\n";
        let daemon = watching(handlers).start();
        for _ in 0..10 {
            let cookies = happen(20);
            daemon.closed_by("w", &cookies);
        }
        let record = daemon.stop();
        let left = counted(&record, "runs_left") + counted(&record, "runs_failed");
        assert_eq!(left, 400, "{}", record.log);
    });
}

#[test]
fn no_zombies_and_no_descriptors_are_left() {
    netns::run(
        "handlers::programs::no_zombies_and_no_descriptors_are_left",
        || {
            const RUNS: usize = 200;
            let scratch = Scratch::new();
            let ran = scratch.path().join("ran");
            let handlers = format!(
                "  h: {{match: \"w|*\", concurrency: 8, exec: [/bin/sh, -c, \"echo x >>{}\"]}}\n",
                ran.display()
            );
            let daemon = watching(&handlers).start();
            let pid = daemon.pid();
            let descriptors = || {
                let all = fs::read_dir(format!("/proc/{pid}/fd")).expect("one's own child");
                all.count()
            };
            let before = descriptors();
            happen(RUNS);
            until("all runs", || lines(&ran).len() == RUNS);
            until("no child of it", || children(pid).is_empty());
            until("no more descriptors than before", || {
                descriptors() == before
            });
            let record = daemon.stop();
            assert_eq!(counted(&record, "runs"), RUNS as u64, "{}", record.log);
            assert_eq!(counted(&record, "runs_failed"), 0);
        },
    );
}

/// The children of a process, zombies included.
fn children(pid: libc::pid_t) -> Vec<String> {
    let all = fs::read_dir("/proc").expect("/proc is mounted");
    let stats = all.filter_map(|entry| {
        let path = entry.ok()?.path().join("stat");
        fs::read_to_string(path).ok()
    });
    // pid (comm) state ppid, and the name may hold anything.
    let parent = |stat: &String| {
        let rest = stat.rsplit_once(") ")?.1;
        rest.split(' ').nth(1).map(str::to_owned)
    };
    stats
        .filter(|stat| parent(stat) == Some(pid.to_string()))
        .collect()
}

#[test]
fn a_program_that_is_none_fails_and_says_so() {
    netns::run(
        "handlers::programs::a_program_that_is_none_fails_and_says_so",
        || {
            let scratch = Scratch::new();
            // A script without its interpreter is no program: no shell takes it up.
            let text = scratch.write("text", "touch /tmp/never\n");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(&text, mode).expect("one's own file");
            let handlers = format!(
                "  gone: {{match: \"w|*\", exec: [/nonexistent/program]}}\n  \
             text: {{match: \"w|*\", exec: [{}]}}\n",
                text.display()
            );
            let daemon = watching(&handlers).start();
            for name in ["gone", "text"] {
                daemon.closed_by("w", &happen(1));
                daemon.wait_for_line("the failure", |line| {
                    line.contains(&format!("handler {name}:")) && line.contains("cannot be started")
                });
            }
            let record = daemon.stop();
            assert!(
                record.log.contains("which does not exist"),
                "{}",
                record.log
            );
            // One is started in a turn; the end may come before the last ones.
            let all = counted(&record, "runs_failed") + counted(&record, "runs_left");
            assert_eq!(all, 4, "{}", record.log);
        },
    );
}

#[test]
fn the_end_waits_for_runs_but_not_for_ever() {
    netns::run(
        "handlers::programs::the_end_waits_for_runs_but_not_for_ever",
        || {
            let scratch = Scratch::new();
            let dir = scratch.path().display();
            let short = format!("echo $$ >{dir}/short; sleep 0.5; echo >{dir}/finished");
            let long = format!("trap '' TERM; sleep 100 & echo $$ $! >{dir}/long; sleep 100");
            let handlers = format!(
                "  short: {{match: \"w|*\", exec: [/bin/sh, -c, \"{short}\"]}}\n  \
             long: {{match: \"w|*\", exec: [/bin/sh, -c, \"{long}\"]}}\n"
            );
            let daemon = watching(&handlers).start();
            happen(5);
            let pids = scratch.path().join("long");
            until("both runs", || {
                !lines(&pids).is_empty() && scratch.path().join("short").exists()
            });
            let pids = fs::read_to_string(pids).expect("two pids");
            let record = daemon.stop();
            for pid in pids.split_whitespace() {
                assert!(!is_alive(pid), "{pid} is left behind");
            }
            assert!(
                scratch.path().join("finished").exists(),
                "it had two seconds"
            );
            let all = counted(&record, "runs")
                + counted(&record, "runs_failed")
                + counted(&record, "runs_left");
            assert_eq!(all, 10, "{}", record.log);
            assert_eq!(counted(&record, "runs_failed"), 1);
            assert!(
                record.log.contains("4 events are left without a run"),
                "{}",
                record.log
            );
        },
    );
}
