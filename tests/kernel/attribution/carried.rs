//! Sockets that nobody asked about when they were opened: because they were there
//! before, because another run or another configuration opened them, or because
//! nobody had them then.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::said;
use crate::control::client::{Client, Place};
use crate::daemon::{Daemon, Launch, PATIENCE, Scratch, Tick};
use crate::netns;
use crate::sock::{Domain, Sock};

const PATIENT: &str = "  s: {listener: net.socket, args: {process-timeout: 60s}}\n";

fn own() -> u64 {
    u64::from(std::process::id())
}

/// The rows of sockets, once all of them are as they should be.
fn rows(control: &Path, cookies: &[u64], fits: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut client = Client::new(control);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (mut rows, _) = client.ask(r#"{"request":"dump"}"#);
        rows.retain(|row| cookies.iter().any(|cookie| row["cookie"] == *cookie));
        if rows.len() == cookies.len() && rows.iter().all(&fits) {
            return rows;
        }
        assert!(Instant::now() < deadline, "not in time: {rows:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The row of one.
fn row(control: &Path, cookie: u64, fits: impl Fn(&Value) -> bool) -> Value {
    rows(control, &[cookie], fits).remove(0)
}

fn known(row: &Value) -> bool {
    !row["process"].is_null()
}

/// What the close of a socket says.
fn close(daemon: Daemon, socket: Sock) -> Value {
    let cookie = socket.cookie;
    drop(socket);
    daemon.reported("s", "closed", cookie);
    said(&daemon.stop(), "s", "closed", cookie).clone()
}

/// More than stand in line at once, there before the start: each close names its
/// process, and so does the table until then.
#[test]
fn many_before_the_start() {
    netns::run("attribution::carried::many_before_the_start", || {
        let place = Place::new();
        let sockets: Vec<Sock> = (0..100).map(|_| Sock::listener(Domain::V4)).collect();
        let more: Vec<_> = (0..4100)
            .map(|_| std::net::UdpSocket::bind("127.0.0.1:0").expect("lo is up"))
            .collect();
        let daemon = place.launch(Tick::Slow).sensors(PATIENT).start();
        let cookies: Vec<u64> = sockets.iter().map(|socket| socket.cookie).collect();
        for row in rows(&place.socket, &cookies, known) {
            assert_eq!(row["process"]["pid"], own(), "{row}");
            assert!(row["process"]["exe"].is_string(), "{row}");
            assert_eq!(row["process"].get("cmdline"), None, "{row}");
            if netns::is_root() {
                assert_eq!(row["user"], "root", "{row}");
            }
        }
        drop((more, sockets));
        daemon.closed_by("s", &cookies);
        let record = daemon.stop();
        for cookie in cookies {
            let data = said(&record, "s", "closed", cookie);
            assert_eq!(data["process"]["pid"], own(), "{data}");
        }
    });
}

/// A socket that another run opened knows its process again at its close.
#[test]
fn over_a_restart() {
    netns::run("attribution::carried::over_a_restart", || {
        let place = Scratch::new();
        let control = place.path().join("control");
        let launch = || {
            let path = control.to_str().expect("a path of ours");
            let launch = Launch::new(Tick::Fast).sensors(PATIENT);
            launch.at(&place).setting("control", path)
        };
        let socket = Sock::listener(Domain::V4);
        let first = launch().start();
        let late = Sock::udp(Domain::V6);
        late.bind_loopback();
        first.reported("s", "opened", late.cookie);
        first.stop();
        let second = launch().start();
        for socket in [&socket, &late] {
            let row = row(&control, socket.cookie, known);
            assert_eq!(row["process"]["pid"], own(), "{row}");
        }
        drop(late);
        let data = close(second, socket);
        assert_eq!(data["process"]["pid"], own(), "{data}");
    });
}

/// A sensor that did not ask before, and one that shows more than before.
#[test]
fn over_a_reload() {
    netns::run("attribution::carried::over_a_reload", || {
        let place = Scratch::new();
        let control = place.path().join("control");
        let launch = |args: &str| {
            let path = control.to_str().expect("a path of ours");
            let sensors = format!("  s: {{listener: net.socket, args: {{{args}}}}}\n");
            let launch = Launch::new(Tick::Fast).without_beacon().sensors(&sensors);
            launch.at(&place).setting("control", path)
        };
        let socket = Sock::listener(Domain::V4);
        let daemon = launch("process: false").start();
        let first = row(&control, socket.cookie, |_| true);
        for key in ["process", "process_reason", "user"] {
            assert_eq!(first.get(key), None, "{first}");
        }
        let reload = |args: &str| {
            launch(args).write(&place);
            Client::new(&control).ask(r#"{"request":"reload"}"#);
        };
        reload("process-timeout: 60s");
        let second = row(&control, socket.cookie, known);
        assert_eq!(second["process"]["pid"], own(), "{second}");
        assert_eq!(second["process"].get("cmdline"), None, "{second}");
        reload("process-timeout: 60s, cmdline: true");
        let third = row(&control, socket.cookie, known);
        let cmdline = third["process"]["cmdline"].as_str();
        assert!(cmdline.is_some_and(|it| it.contains("--exact")), "{third}");
        let data = close(daemon, socket);
        assert_eq!(data["process"], third["process"], "{data}");
    });
}

/// Nobody has a connection that waits to be accepted; whoever accepts it has it.
#[test]
fn a_connection_that_is_accepted_late() {
    netns::run(
        "attribution::carried::a_connection_that_is_accepted_late",
        || {
            let place = Place::new();
            let listener = Sock::listener(Domain::V4);
            let daemon = place.launch(Tick::Fast).sensors(PATIENT).start();
            let client = Sock::tcp(Domain::V4);
            client.connect(listener.local()).expect("somebody listens");
            let here = client.local().to_string();
            let event = daemon.wait_for("the server's end", |event| {
                let data = &event["data"];
                event["sensor"] == "s" && data["action"] == "opened" && data["remote"] == here
            });
            assert_eq!(event["data"]["process"], Value::Null, "{event}");
            assert_eq!(event["data"]["process_reason"], "kernel", "{event}");
            let server = listener.accept();
            assert_eq!(event["data"]["cookie"], json!(server.cookie));
            let row = row(&place.socket, server.cookie, known);
            assert_eq!(row["process"]["pid"], own(), "{row}");
            let data = close(daemon, server);
            assert_eq!(data["process"]["pid"], own(), "{data}");
        },
    );
}
