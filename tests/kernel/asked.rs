//! What is asked of the kernel, as its counts of rows and dumps and what is said of it
//! show.

use std::net::SocketAddr;

use serde_json::Value;

use crate::daemon::{Launch, Scratch, Tick, once};
use crate::netns;
use crate::push_down::{SENSORS, sensors};
use crate::refused::counted;
use crate::sock::{Domain, Sock};

/// A sensor of listeners does not have the kernel walk connections, bound or
/// established: none is read, and one more costs nothing.
#[test]
fn listeners_alone_are_read_for_a_sensor_of_listeners() {
    netns::run(
        "asked::listeners_alone_are_read_for_a_sensor_of_listeners",
        || {
            let listener = Sock::tcp(Domain::V4);
            listener.bind(SocketAddr::new(Domain::V4.loopback(), 4443));
            listener.listen(200);
            let _pairs: Vec<_> = (0..200).map(|_| Sock::pair(&listener)).collect();
            let bound = Sock::tcp(Domain::V4);
            bound.bind_loopback();
            let args = r#"{initial: true, patterns: ["tcp * * * LISTEN"]}"#;
            let daemon = Launch::new(Tick::Fast)
                .sensors(&format!(
                    "  sockets: {{listener: net.socket, args: {args}}}\n"
                ))
                .without_beacon()
                .setting("gate", "off")
                .start();
            daemon.opened(&[listener.cookie]);
            // It is no listener any more, and lives: a whole dump tells so.
            listener.disconnect();
            let other = Sock::listener(Domain::V4);
            daemon.opened(&[other.cookie]);
            let (listener, other) = (listener.close().cookie, other.close().cookie);
            let cookies: Vec<u64> = [listener, other].into_iter().flatten().collect();
            daemon.closed(&cookies);
            let record = daemon.stop();
            for &cookie in &cookies {
                assert_eq!(record.evidence("closed", cookie), "notified");
            }
            assert_eq!(record.find("closed", cookies[0])["data"]["state"], "CLOSE");
            let (dumps, rows) = (counted(&record.log, "dumps"), counted(&record.log, "rows"));
            assert!(
                rows <= 3 * dumps,
                "{rows} rows in {dumps} dumps: {}",
                record.log
            );
        },
    );
}

/// Nor beside another sensor, at whose ticks the others are read: a tick of its own asks
/// for listeners, and the kernel walks nothing else.
#[test]
fn beside_another_sensor_listeners_alone_are_read_for_it() {
    netns::run(
        "asked::beside_another_sensor_listeners_alone_are_read_for_it",
        || {
            let _bound: Vec<_> = (0..200)
                .map(|_| {
                    let bound = Sock::tcp(Domain::V4);
                    bound.bind_loopback();
                    bound
                })
                .collect();
            let sensors = [
                r#"sockets: {interval: 20ms, listener: net.socket, args: {process: false, patterns: ["tcp * * * LISTEN"]}}"#,
                r#"others: {interval: 1h, listener: net.socket, args: {process: false, patterns: ["tcp * *:443 * *"]}}"#,
            ];
            let daemon = Launch::new(Tick::Fast)
                .sensors(&format!("  {}\n  {}\n", sensors[0], sensors[1]))
                .without_beacon()
                .setting("gate", "off")
                .setting("cpu-budget", "off")
                .start();
            for _ in 0..40 {
                let listener = Sock::listener(Domain::V4);
                daemon.opened(&[listener.cookie]);
                drop(listener);
            }
            let record = daemon.stop();
            let (dumps, rows) = (counted(&record.log, "dumps"), counted(&record.log, "rows"));
            assert!(dumps > 40, "{}", record.log);
            // The other sensor's one tick, and what looks for a listener whose notice
            // comes late.
            assert!(
                rows < 10 * 210 + 3 * dumps,
                "{rows} rows in {dumps} dumps: {}",
                record.log
            );
        },
    );
}

/// Whoever connects to where a sensor looks, disconnects and holds the socket, costs one
/// whole dump.
#[test]
fn a_held_socket_does_not_have_all_dumps_whole() {
    netns::run("asked::a_held_socket_does_not_have_all_dumps_whole", || {
        let listen = |port| {
            let listener = Sock::tcp(Domain::V4);
            listener.bind(SocketAddr::new(Domain::V4.loopback(), port));
            listener.listen(64);
            listener
        };
        let (wanted, other) = (listen(4443), listen(4080));
        let _others: Vec<_> = (0..100).map(|_| Sock::pair(&other)).collect();
        let sensor = r#"  sockets: {listener: net.socket, args: {process: false, patterns: ["tcp * *:4443 * *"]}}"#;
        let daemon = Launch::new(Tick::Fast)
            .sensors(&format!("{sensor}\n"))
            .without_beacon()
            .setting("gate", "off")
            .setting("cpu-budget", "off")
            .start();
        let mut open = Vec::new();
        let mut connect = || {
            let (client, server) = Sock::pair(&wanted);
            daemon.opened(&[client.cookie]);
            open.push(server);
            client
        };
        let held = connect();
        held.disconnect();
        let clients: Vec<_> = (0..40).map(|_| connect()).collect();
        assert!(
            !daemon.has("closed", held.cookie),
            "it can be connected again"
        );
        let cookie = held.close().cookie.expect("a cookie");
        daemon.closed(&[cookie]);
        drop(clients);
        let record = daemon.stop();
        let count = |name| counted(&record.log, name);
        let whole = count("dumps") - count("dumps_narrowed");
        assert!(count("dumps_narrowed") > 30, "{}", record.log);
        // That for the one that is held, and at most a few for ends whose notices
        // were late.
        assert!(
            (1..10).contains(&whole),
            "{whole} whole dumps: {}",
            record.log
        );
    });
}

/// `--check` and `ctl stats` say the same of what is asked.
#[test]
fn what_is_asked_is_told_alike() {
    netns::run("asked::what_is_asked_is_told_alike", || {
        let place = Scratch::new();
        let control = place.path().join("control.sock").display().to_string();
        let config = place.path().join("sockwatch.yaml").display().to_string();
        for args in SENSORS {
            for on in ["true", "false"] {
                let launch = Launch::new(Tick::Fast).at(&place).sensors(&sensors(args));
                let launch = launch.without_beacon().setting("push-down", on);
                let daemon = launch.setting("control", &control).start();
                let stats = once(&["ctl", "--socket", &control, "stats"]);
                let stats: Value = serde_json::from_slice(&stats.stdout).expect("one object");
                let asked: Vec<&str> = stats["asked"]
                    .as_array()
                    .expect("lines")
                    .iter()
                    .filter_map(Value::as_str)
                    .collect();
                let check = once(&["--check", "--config", &config]);
                let check = String::from_utf8_lossy(&check.stdout).into_owned();
                let expected: Vec<&str> = check
                    .lines()
                    .filter_map(|line| line.strip_prefix("asked of the kernel: "))
                    .collect();
                assert_eq!(asked, expected, "{args} {on}");
                assert_eq!(asked[0].contains("bytecode"), on == "true", "{}", asked[0]);
                daemon.stop();
            }
        }
    });
}
