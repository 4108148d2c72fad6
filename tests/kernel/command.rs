//! The command line: modes, exit codes, signals, and how it ends.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::child;
use crate::daemon::{Daemon, PATIENCE, Scratch, Tick, binary, once};
use crate::netns;
use crate::proc_net;
use crate::record::listing;
use crate::sock::{Domain, Sock};

/// Exit code 2, nothing on standard output, and a sentence with these words.
fn refused(args: &[&str], words: &[&str]) {
    let output = once(args);
    let text = child::text(&output);
    assert_eq!(output.status.code(), Some(2), "sockwatch {args:?}: {text}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "",
        "sockwatch {args:?}"
    );
    for word in words {
        assert!(
            text.contains(word),
            "sockwatch {args:?} does not say {word:?}: {text}"
        );
    }
}

#[test]
fn bad_flags() {
    netns::run("command::bad_flags", || {
        refused(&["--no-such-flag"], &["--no-such-flag"]);
        refused(&["--patern", "*"], &["--pattern"]);
        refused(&["--format", "xml"], &["xml"]);
        refused(&["--pattern"], &["--pattern"]);
        refused(&["--pattern", "tcp {a,b"], &["tcp {a,b"]);
        refused(&["--dump", "--ignore", "tcp {a,b"], &["tcp {a,b"]);
        refused(
            &["--config", "/dev/null", "--pattern", "*"],
            &["--pattern", "--config"],
        );
        refused(&["--check"], &["--config"]);
        refused(&["stray"], &["stray"]);
        refused(
            &["--config", "/nonexistent/sockwatch.yaml"],
            &["/nonexistent/sockwatch.yaml"],
        );
    });
}

#[test]
fn help_and_version() {
    netns::run("command::help_and_version", || {
        for (flag, word) in [
            ("--help", "--dump"),
            ("--version", env!("CARGO_PKG_VERSION")),
        ] {
            let output = once(&[flag]);
            assert_eq!(output.status.code(), Some(0));
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains(word), "{flag}: {text}");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{flag}");
        }
    });
}

#[test]
fn check() {
    netns::run("command::check", || {
        let scratch = Scratch::new();
        let good = scratch.write("good.yaml", "watch:\n    listener: net.socket\n");
        let good = good.to_str().expect("a path of ours");
        let output = once(&["--check", "--config", good]);
        assert_eq!(output.status.code(), Some(0), "{}", child::text(&output));

        let bad = "watch:\n    listener: net.socket\n    intervall: 1s\n    opts: [open]\n";
        let bad = scratch.write("bad.yaml", bad);
        let bad = bad.to_str().expect("a path of ours");
        for mode in [&["--check"][..], &[]] {
            // Both mistakes at once, each with its place; nothing starts.
            let [key, word] = ["3:5", "4:12"].map(|place| format!("{bad}:{place}"));
            refused(
                &[mode, &["--config", bad]].concat(),
                &[&key, "interval", &word, "opened"],
            );
        }
        // An id in two files.
        refused(&["--check", "--config", good, "--config", good], &["watch"]);
    });
}

/// A daemon on the built-in configuration, with these arguments.
fn daemon(args: &[&str]) -> Daemon {
    let mut command = Command::new(binary());
    command.args(args);
    let daemon = Daemon::spawn(command, Scratch::new());
    daemon.wait_for_line("the line that says `ready`", |line| line.contains("ready"));
    daemon
}

#[test]
fn ended_by_sigint() {
    netns::run("command::ended_by_sigint", || {
        let daemon = Daemon::start(Tick::Fast);
        daemon.ticks(2);
        daemon.signal(libc::SIGINT);
        let (status, record) = daemon.end();
        assert_eq!(status.code(), Some(0), "log:\n{}", record.log);
        let ready = record
            .log
            .lines()
            .filter(|line| line.contains("ready"))
            .count();
        assert_eq!(ready, 1, "it is ready once:\n{}", record.log);
    });
}

/// What was noticed before the signal is written before the end.
#[test]
fn finishes_its_queue() {
    netns::run("command::finishes_its_queue", || {
        const SOCKETS: usize = 500;
        let daemon = Daemon::start(Tick::Slow);
        daemon.paused(|| {
            for _ in 0..SOCKETS {
                Sock::udp(Domain::V4).bind_loopback();
            }
            proc_net::written();
            daemon.signal(libc::SIGTERM);
        });
        let (status, record) = daemon.end();
        assert_eq!(status.code(), Some(0), "log:\n{}", record.log);
        for action in ["opened", "closed"] {
            assert_eq!(record.cookies(action).len(), SOCKETS, "{action}");
        }
    });
}

/// The built-in configuration, narrowed.
#[test]
fn patterns_without_a_configuration() {
    netns::run("command::patterns_without_a_configuration", || {
        let daemon = daemon(&["--pattern", "udp *", "--ignore", "* 127.0.0.2:*"]);
        let bind = |address: &str, tcp: bool| {
            let socket = if tcp {
                Sock::tcp(Domain::V4)
            } else {
                Sock::udp(Domain::V4)
            };
            socket.bind(address.parse().expect("an address"));
            socket.cookie
        };
        bind("127.0.0.1:5000", true);
        bind("127.0.0.2:5000", false);
        let seen = bind("127.0.0.1:5000", false);
        daemon.closed(&[seen]);
        let record = daemon.stop();
        assert_eq!(
            record.cookies("opened"),
            [seen],
            "{}",
            listing(record.events())
        );
        assert_eq!(
            record.cookies("closed"),
            [seen],
            "{}",
            listing(record.events())
        );
    });
}

#[test]
fn as_text() {
    netns::run("command::as_text", || {
        let daemon = daemon(&["--format", "text"]);
        let listener = Sock::listener(Domain::V4);
        let local = listener.local().to_string();
        drop(listener);
        daemon.wait_for_text("the end", |line| {
            line.contains("closed") && line.contains(&local)
        });
        daemon.signal(libc::SIGTERM);
        let (status, text) = daemon.end_of_text();
        assert_eq!(status.code(), Some(0));
        assert_eq!(text.len(), 2, "opened and closed: {text:?}");
    });
}

/// A reader that goes away ends it, without a complaint.
#[test]
fn closed_pipe() {
    netns::run("command::closed_pipe", || {
        let listener = Sock::listener(Domain::V4);
        for mode in [&["--dump"][..], &["--format", "json"]] {
            let mut command = Command::new(binary());
            command
                .args(mode)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            // SAFETY: one system call.
            unsafe { command.pre_exec(netns::die_with_parent) };
            let mut daemon = command.spawn().expect("the binary can be started");
            drop(daemon.stdout.take());
            // Whatever it may want to write.
            let (client, server) = Sock::pair(&listener);
            drop((client, server));
            let output = child::finish(daemon, PATIENCE).expect("it ends by itself");
            assert_eq!(
                output.status.code(),
                Some(0),
                "{mode:?}: {}",
                child::text(&output)
            );
            let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
            for complaint in ["error", "panick", "broken pipe"] {
                assert!(!text.contains(complaint), "{mode:?}: {text}");
            }
        }
    });
}
