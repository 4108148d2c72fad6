//! Handlers with `file`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::{counted, happen, lines, until, watching};
use crate::daemon::{Scratch, once};
use crate::netns::{self, Sandbox};
use crate::record::Record;

/// The records in a file; every line must be whole.
fn records(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("the file");
    assert!(text.is_empty() || text.ends_with('\n'), "half a line");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a line is an object"))
        .collect()
}

/// The events of `w` that the daemon wrote to standard output.
fn said(record: &Record) -> Vec<&Value> {
    record
        .events()
        .filter(|event| event["sensor"] == "w")
        .collect()
}

#[test]
fn none_is_lost_or_doubled_by_a_rotation() {
    netns::run(
        "handlers::files::none_is_lost_or_doubled_by_a_rotation",
        || {
            const ROTATIONS: usize = 5;
            let scratch = Scratch::new();
            let path = scratch.path().join("events");
            fs::write(&path, "{\"before\":1}\n").expect("a file");
            let handlers = format!("  a: {{match: \"w|*\", file: {}}}\n", path.display());
            let daemon = watching(&handlers).start();
            for number in 0..ROTATIONS {
                happen(100);
                fs::rename(&path, scratch.path().join(format!("events.{number}"))).expect("a name");
                happen(100);
                daemon.signal(libc::SIGHUP);
                happen(100);
                until("the new file", || path.exists());
            }
            let last = happen(1)[0];
            daemon.reported("w", "closed", last);
            let record = daemon.stop();
            let mut all = Vec::new();
            for number in 0..ROTATIONS {
                all.extend(records(&scratch.path().join(format!("events.{number}"))));
            }
            let mode = fs::metadata(&path).expect("the file").permissions().mode();
            assert_eq!(mode & 0o137, 0, "mode {mode:o} is at most 0640");
            all.extend(records(&path));
            assert_eq!(all.remove(0)["before"], 1, "appended");
            assert_eq!(all.iter().collect::<Vec<_>>(), said(&record));
            assert_eq!(all.len(), 300 * ROTATIONS + 1);
            let anew = record.log.matches("opened anew").count();
            assert_eq!(anew, ROTATIONS, "{}", record.log);
        },
    );
}

#[test]
fn a_full_disk_is_told_and_waited_out() {
    let sandbox = Sandbox::default().mounts();
    sandbox.run(
        "handlers::files::a_full_disk_is_told_and_waited_out",
        || {
            let scratch = Scratch::new();
            netns::small_disk(scratch.path(), 64 << 10).expect("a tmpfs");
            let path = scratch.path().join("events");
            scratch.write("filler", &"x".repeat(40_000));
            let other = scratch.path().join("other");
            let handlers = format!(
                "  a: {{match: \"w|*\", file: {}}}\n  b: {{match: \"w|*\", file: {}}}\n",
                path.display(),
                other.display()
            );
            let daemon = watching(&handlers).setting("queue", "600").start();
            // Few at a time: the reader of standard output shall lose none.
            let some = |count: usize| {
                for _ in 0..count / 50 {
                    let cookies = happen(50);
                    daemon.closed_by("w", &cookies);
                }
            };
            some(500);
            daemon.wait_for_line("the complaint", |line| line.contains("No space left"));
            // What is there is whole all the same.
            let there = records(&path).len() + records(&other).len();
            assert!(there < 1000, "{there} events in 24 kB");
            // More than may wait: some are lost to the files, none to the reader.
            some(1000);
            for file in [&path, &other] {
                fs::rename(file, file.with_extension("old")).expect("a name");
            }
            netns::grow_disk(scratch.path(), 16 << 20).expect("a larger tmpfs");
            daemon.signal(libc::SIGHUP);
            for sink in ["handlers.a", "handlers.b"] {
                daemon.wait_for("the gap record", |event| event["data"]["sink"] == sink);
            }
            let last = happen(1)[0];
            daemon.reported("w", "closed", last);
            let record = daemon.stop();
            let all = said(&record);
            assert_eq!(all.len(), 1501, "the reader lost none");
            let mut lost = 0;
            for (file, sink) in [(&path, "handlers.a"), (&other, "handlers.b")] {
                let mut kept = records(&file.with_extension("old"));
                kept.extend(records(file));
                let mut owned = 0;
                // In order, none twice, and the hole is where the record stands.
                let mut at = 0;
                for line in kept {
                    if line["data"]["sink"] == sink {
                        let count = line["data"]["events_lost"].as_u64().expect("a count");
                        owned += count;
                        at += count as usize;
                    } else {
                        assert_eq!(&line, all[at], "after {owned} lost by {sink}");
                        at += 1;
                    }
                }
                assert_eq!(at, all.len());
                assert!(owned > 0, "{sink} lost none");
                lost += owned;
            }
            assert_eq!(counted(&record, "events_dropped"), lost, "{}", record.log);
            assert!(record.log.contains("takes events again"), "{}", record.log);
        },
    );
}

#[test]
fn without_standard_output() {
    netns::run("handlers::files::without_standard_output", || {
        let scratch = Scratch::new();
        let path = scratch.path().join("events");
        let handlers = format!("  a: {{file: {}}}\n", path.display());
        let daemon = watching(&handlers)
            .setting("stdout", "false")
            .without_beacon()
            .start();
        happen(10);
        until("ten lines", || lines(&path).len() == 10);
        let record = daemon.stop();
        assert_eq!(record.events().count() + record.own().len(), 0);
        let seqs: Vec<Value> = records(&path)
            .iter()
            .map(|event| event["seq"].clone())
            .collect();
        assert_eq!(seqs, Vec::from_iter((1..=10).map(Value::from)));
        assert!(!record.log.contains("warning"), "{}", record.log);
    });
}

#[test]
fn one_that_cannot_be_opened_is_a_failure_at_start() {
    netns::run(
        "handlers::files::one_that_cannot_be_opened_is_a_failure_at_start",
        || {
            let scratch = Scratch::new();
            let config = scratch.write(
                "config.yaml",
                "sensors: {w: {listener: net.socket}}\n\
             handlers: {a: {file: /nonexistent/events}}\n",
            );
            let config = config.to_str().expect("a path of ours");
            let output = once(&["--config", config]);
            let text = crate::child::text(&output);
            assert_eq!(output.status.code(), Some(1), "{text}");
            let told = "the file of handler a, /nonexistent/events, cannot be opened";
            assert!(text.contains(told), "{text}");
            // It may well be there when the daemon starts.
            assert_eq!(
                once(&["--check", "--config", config]).status.code(),
                Some(0)
            );
        },
    );
}
