//! The configuration read again while the daemon runs.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::daemon::{Daemon, Launch, Scratch, Tick, binary, once};
use crate::expect::{Expect, SILENT, Traffic};
use crate::netns;
use crate::record::{Record, listing};
use crate::refused::counted;
use crate::sock::{Domain, Sock};

fn launch(place: &Scratch, sensors: &str) -> Launch {
    Launch::new(Tick::Fast).at(place).sensors(sensors)
}

/// Writes a configuration and has the daemon read it; the sentence that says what
/// that came to.
fn reload(daemon: &Daemon, place: &Scratch, sensors: &str) -> String {
    launch(place, sensors).write(place);
    let before = reloads(daemon);
    daemon.signal(libc::SIGHUP);
    daemon.wait_for_lines("the reload", before + 1, is_reload)
}

fn is_reload(line: &str) -> bool {
    line.contains(" reloaded: ") || line.contains("was not reloaded")
}

fn reloads(daemon: &Daemon) -> usize {
    daemon.count_lines(is_reload)
}

/// What one sensor said of each socket.
fn actions<'r>(record: &'r Record, sensor: &str) -> BTreeMap<u64, Vec<&'r str>> {
    let mut all: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for event in record.events().filter(|event| event["sensor"] == sensor) {
        let cookie = event["data"]["cookie"].as_u64().expect("a cookie");
        let action = event["data"]["action"].as_str().expect("an action");
        all.entry(cookie).or_default().push(action);
    }
    all
}

/// Connections come and go while the configuration is read again and again. The
/// sensor that does not change tells of each end of each of them once; the one
/// that changes repeats nothing.
#[test]
fn under_churn() {
    netns::run("reload::under_churn", || {
        let place = Scratch::new();
        let same = "  same: {listener: net.socket, args: {patterns: [\"tcp *\"]}}\n";
        // Not by state: a socket seen while it connects would come into the view
        // that begins anew once more.
        let some = "patterns: [\"tcp * 127.* * *\"]";
        let configs = [
            format!("{same}  other: {{listener: net.socket, args: {{{some}}}}}\n"),
            format!("  new: {{listener: net.socket}}\n  other: {{listener: net.socket}}\n{same}"),
        ];
        let daemon = launch(&place, &configs[0]).start();
        let stop = AtomicBool::new(false);
        let listener = Sock::listener(Domain::V4);
        daemon.reported("same", "opened", listener.cookie);
        let cookies = std::thread::scope(|scope| {
            let generator = scope.spawn(|| {
                let mut cookies = BTreeSet::new();
                let mut open = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let (client, server) = Sock::pair(&listener);
                    cookies.extend([client.cookie, server.cookie]);
                    open.extend([client, server]);
                    // Half of them live for several reloads, half for none.
                    if cookies.len() % 4 == 0 {
                        open.truncate(open.len() - 2);
                    }
                    if open.len() > 400 {
                        drop(open.drain(..200));
                    }
                    std::thread::sleep(Duration::from_micros(300));
                }
                cookies
            });
            for round in 0..30 {
                let line = reload(&daemon, &place, &configs[(round + 1) % 2]);
                // `same` and the harness's own.
                assert!(line.contains("2 sensors go on, 1 begin anew"), "{line}");
                std::thread::sleep(Duration::from_millis(round as u64 * 3));
            }
            stop.store(true, Ordering::Relaxed);
            generator.join().expect("the generator ends")
        });
        daemon.settle();
        let record = daemon.stop();
        assert_eq!(record.own(), Vec::<&Value>::new(), "nothing was lost");
        let mut same = actions(&record, "same");
        assert_eq!(same.remove(&listener.cookie), Some(vec!["opened"]));
        assert_eq!(same.keys().copied().collect::<BTreeSet<_>>(), cookies);
        for (cookie, actions) in same {
            assert_eq!(actions, ["opened", "closed"], "{cookie}");
        }
        for (cookie, actions) in actions(&record, "other") {
            let once = [&["opened", "closed"][..], &["closed"], &["opened"]];
            let its = |event: &&Value| event["data"]["cookie"] == cookie;
            assert!(
                once.contains(&&actions[..]),
                "{cookie}: {actions:?}: {}",
                listing(record.events().filter(its))
            );
        }
        println!("{} sockets, 30 reloads", cookies.len());
    });
}

/// A configuration with mistakes is told in full, and changes nothing.
#[test]
fn a_bad_one_changes_nothing() {
    netns::run("reload::a_bad_one_changes_nothing", || {
        let place = Scratch::new();
        let good = "  sockets: {listener: net.socket, tag: first}\n";
        let daemon = launch(&place, good).start();
        let one = Sock::listener(Domain::V4);
        daemon.opened(&[one.cookie]);
        let bad = "  sockets: {listener: net.socket, tag: second, args: {patern: [a]}}\n  \
                   more: {listener: net.sokket}\n";
        let line = reload(&daemon, &place, bad);
        assert!(line.contains("2 mistakes"), "{line}");
        for (at, what) in [(":5:", "patern"), (":6:", "net.sokket")] {
            daemon.wait_for_line(what, |line| line.contains(at) && line.contains(what));
        }
        let two = Sock::listener(Domain::V4);
        daemon.opened(&[two.cookie]);
        let ended = [one.close(), two.close()];
        let record = daemon.finish(&ended.map(|one| one.cookie.unwrap()));
        let expected: Vec<_> = ended
            .into_iter()
            .flat_map(|one| Expect::read(one, "LISTEN", "LISTEN", Traffic::None))
            .map(|expect| expect.tagged("first"))
            .collect();
        record.hold(&expected);
    });
}

/// Kinds of sockets that nobody asked for before: their groups are joined, and
/// what is open already enters silently.
#[test]
fn more_is_watched() {
    netns::run("reload::more_is_watched", || {
        let place = Scratch::new();
        let listeners = "  sockets: {listener: net.socket, args: {patterns: [\"tcp * LISTEN\"]}}\n";
        let all = format!("  all: {{listener: net.socket}}\n{listeners}");
        let make = || {
            let datagram = Sock::udp(Domain::V6);
            datagram.bind_loopback();
            datagram
        };
        let listener = Sock::listener(Domain::V4);
        let (client, server) = Sock::pair(&listener);
        let old = make();
        let daemon = launch(&place, listeners).without_beacon().start();
        let config = launch(&place, &all).without_beacon();
        config.write(&place);
        daemon.signal(libc::SIGHUP);
        let line = daemon.wait_for_line("the reload", is_reload);
        assert!(
            line.contains("1 sensors go on, 0 begin anew, 1 are new, 0 are gone"),
            "{line}"
        );
        // What is made after the dump that builds the view is told.
        let new = loop {
            let new = make();
            std::thread::sleep(Duration::from_millis(100));
            if daemon.has_from("all", new.cookie) {
                break new;
            }
        };
        let cookies = [&old, &client, &server, &new, &listener].map(|one| one.cookie);
        let (old, client, server) = (old.close(), client.close(), server.close());
        daemon.reported("all", "closed", server.cookie.unwrap());
        let (new, listener) = (new.close(), listener.close());
        for cookie in cookies {
            daemon.reported("all", "closed", cookie);
        }
        daemon.closed(&[listener.cookie.unwrap()]);
        let record = daemon.stop().only(&cookies);
        let [opened, closed] = Expect::read(new, "UNCONN", "UNCONN", Traffic::None);
        let listening = Expect::notified(listener, "LISTEN", Traffic::None);
        record.hold(&[
            Expect::notified(old, "UNCONN", Traffic::None).by("all"),
            Expect::notified(client, "ESTABLISHED", SILENT).by("all"),
            Expect::notified(server, "ESTABLISHED", SILENT).by("all"),
            opened.by("all"),
            closed.by("all"),
            listening.clone().by("all"),
            listening,
        ]);
    });
}

/// A sensor that is gone says nothing, and holds no locks; another one that stands
/// in its place goes on as before, and over a `kill -9`.
#[test]
fn sensors_go() {
    netns::run("reload::sensors_go", || {
        let place = Scratch::new();
        let args = "locked: true, ignore: [\"* 127.99.0.1:*\"]";
        let kept = format!(
            "  sockets: {{listener: net.socket, args: {{patterns: [\"tcp *\"], {args}}}}}\n"
        );
        let kept = &kept;
        let both = format!("  gone: {{listener: net.socket, args: {{{args}}}}}\n{kept}");
        let daemon = launch(&place, &both).start();
        let one = Sock::listener(Domain::V4);
        daemon.reported("gone", "opened", one.cookie);
        daemon.opened(&[one.cookie]);
        // The same id: muted.
        let two = Sock::listener(Domain::V4);
        daemon.ticks(2);
        let line = reload(&daemon, &place, kept);
        assert!(
            line.contains("2 sensors go on, 0 begin anew, 0 are new, 1 are gone"),
            "{line}"
        );
        assert!(line.contains("released 1 locks"), "{line}");
        let gone = one.close();
        daemon.closed(&[gone.cookie.unwrap()]);
        daemon.settle();
        let first = daemon.kill();
        let of_gone = actions(&first, "gone");
        assert!(
            of_gone.values().all(|actions| *actions == ["opened"]),
            "{of_gone:?}"
        );

        let again = two.close();
        let second = launch(&place, kept).start();
        second.ticks(3);
        second.signal(libc::SIGUSR1);
        let line = second.wait_for_line("the release", |line| line.contains("released"));
        assert!(
            line.contains("released 2 locks"),
            "opened and closed: {line}"
        );
        let three = Sock::listener(Domain::V4);
        second.opened(&[three.cookie]);
        assert!(
            !second.has("closed", again.cookie.unwrap()),
            "its id was locked"
        );
    });
}

/// What can be changed while running is; what cannot is named.
#[test]
fn settings_of_the_daemon() {
    netns::run("reload::settings_of_the_daemon", || {
        let place = Scratch::new();
        let sensors = "  sockets: {listener: net.socket}\n";
        let daemon = Launch::new(Tick::Slow).at(&place).sensors(sensors).start();
        let other = Launch::new(Tick::Fast).sensors(sensors);
        other
            .setting("receive-buffer", "64KiB")
            .setting("state", "/somewhere/else")
            .write(&place);
        daemon.signal(libc::SIGHUP);
        let line = daemon.wait_for_line("the reload", is_reload);
        assert!(
            line.contains("only a restart changes daemon.state"),
            "{line}"
        );
        daemon.ticks(3);
        let resized = daemon.count_lines(|line| line.contains("receive buffer for notices has"));
        assert_eq!(resized, 2);
    });
}

/// Everything that is configured, by the control socket: a handler comes, changes
/// and goes, patterns of connect() calls change, and a lock outlives all of that.
#[test]
fn by_the_control_socket() {
    netns::run("reload::by_the_control_socket", || {
        let place = Scratch::new();
        let path = |name: &str| place.path().join(name).display().to_string();
        let configure = |pattern: &str, handlers: &str, daemon: &[(&str, &str)]| {
            let sensors = format!(
                "  calls: {{listener: net.tcp_connect, args: {{hook: sock_diag, locked: true, \
                 patterns: [\"tcp - {pattern} * CONNECT\"]}}}}\n  \
                 sockets: {{listener: net.socket, opts: [opened], args: {{patterns: [\"udp *\"]}}}}\n"
            );
            let launch = launch(&place, &sensors)
                .setting("control", &path("control.sock"))
                .handlers(handlers);
            let setting = |launch: Launch, (key, value): &(&str, &str)| launch.setting(key, value);
            daemon.iter().fold(launch, setting)
        };
        let ctl = |what: &[&str]| {
            let socket = path("control.sock");
            let output = once(&[&["ctl", "--socket", &socket], what].concat());
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (
                output.status.success(),
                text(&output.stdout),
                text(&output.stderr),
            )
        };
        let files = |name: &str| std::fs::read_to_string(path(name)).unwrap_or_default();
        let all = format!("  all: {{match: \"sockets|*\", file: {}}}\n", path("one"));
        let daemon = configure("127.0.0.1:*", &all, &[]).start();
        let listeners = [Sock::listener(Domain::V4), Sock::listener(Domain::V6)];
        let call = |which: usize| {
            let (client, server) = Sock::pair(&listeners[which]);
            drop(server);
            client
        };
        daemon.ticks(2);
        let first = call(0);
        daemon.reported("calls", "connect", first.cookie);
        let bound = || {
            let socket = Sock::udp(Domain::V4);
            socket.bind_loopback();
            daemon.opened(&[socket.cookie]);
            socket
        };
        let one = bound();
        daemon.settle();

        // What cannot be had changes nothing.
        let lost = "  all: {file: /nonexistent/directory/file}\n";
        configure("[::1]:*", lost, &[]).write(&place);
        let (good, _, told) = ctl(&["reload"]);
        assert!(
            !good && told.contains("/nonexistent/directory/file"),
            "{told}"
        );
        let two = bound();
        daemon.settle();

        let other = format!("  other: {{match: \"sockets|*\", file: {}}}\n", path("two"));
        let settings = [("control-uids", "[1]"), ("queue", "100"), ("gate", "off")];
        configure("*:*", &other, &settings).write(&place);
        let (good, told, problem) = ctl(&["reload"]);
        assert!(good, "{problem}");
        assert!(told.contains("2 sensors go on, 1 begin anew"), "{told}");
        assert!(
            told.contains("only a restart changes daemon.control-uids")
                && !told.contains("handlers"),
            "{told}"
        );
        let three = bound();
        let second = call(1);
        daemon.reported("calls", "connect", second.cookie);
        // Its id is locked still.
        let again = call(0);
        daemon.ticks(3);
        let (good, locks, _) = ctl(&["locks"]);
        assert!(good && locks.lines().count() == 2, "{locks}");
        daemon.settle();
        let record = daemon.stop();
        for (name, told, untold) in [
            ("one", vec![&one, &two], vec![&three]),
            ("two", vec![&three], vec![&one, &two]),
        ] {
            let text = files(name);
            let holds = |socket: &&&Sock| text.contains(&format!("\"cookie\":{},", socket.cookie));
            assert!(told.iter().all(|socket| holds(&socket)), "{name}: {text}");
            assert!(
                !untold.iter().any(|socket| holds(&socket)),
                "{name}: {text}"
            );
        }
        let said = record.events().filter(|event| event["sensor"] == "calls");
        assert_eq!(said.count(), 2);
        drop((first, second, again));
    });
}

/// Sensors of connect() calls where there was none: they are taken, and the answer
/// says what they lack.
#[test]
fn what_only_a_restart_changes_is_named() {
    netns::run("reload::what_only_a_restart_changes_is_named", || {
        let place = Scratch::new();
        let daemon = launch(&place, "  sockets: {listener: net.socket}\n").start();
        let line = reload(
            &daemon,
            &place,
            "  sockets: {listener: net.socket}\n  calls: {listener: net.tcp_connect}\n",
        );
        assert!(
            line.contains("only a restart changes that there are net.tcp_connect"),
            "{line}"
        );
        let one = Sock::listener(Domain::V4);
        daemon.opened(&[one.cookie]);
        let line = reload(&daemon, &place, "  sockets: {listener: net.socket}\n");
        assert!(!line.contains("restart"), "{line}");
        drop(daemon.stop());
    });
}

#[test]
fn nothing_to_read() {
    netns::run("reload::nothing_to_read", || {
        let daemon = Daemon::spawn(Command::new(binary()), Scratch::new());
        daemon.wait_for_line("ready", |line| line.contains("ready"));
        daemon.signal(libc::SIGHUP);
        daemon.wait_for_line("the sentence", |line| line.contains("nothing to reload"));
        drop(daemon.stop());
    });
}

/// What no sensor needs any more is not listened to; what one needs again is.
#[test]
fn groups_that_nobody_needs_are_left() {
    netns::run("reload::groups_that_nobody_needs_are_left", || {
        let place = Scratch::new();
        let sensor = |id: &str, protocol: &str| {
            format!("  {id}: {{listener: net.socket, args: {{patterns: [\"{protocol} *\"]}}}}\n")
        };
        let udp = sensor("udp", "udp");
        let both = udp.clone() + &sensor("sockets", "tcp");
        let launch = |sensors: &str| {
            let launch = launch(&place, sensors).without_beacon();
            launch.setting("gate", "off")
        };
        let daemon = launch(&both).start();
        let reload = |sensors: &str| {
            launch(sensors).write(&place);
            let before = reloads(&daemon);
            daemon.signal(libc::SIGHUP);
            daemon.wait_for_lines("the reload", before + 1, is_reload);
            // At each tick TCP is asked for first.
            let udp = Sock::udp(Domain::V4);
            udp.bind_loopback();
            daemon.reported("udp", "opened", udp.cookie);
        };
        let listener = Sock::listener(Domain::V4);
        daemon.opened(&[listener.cookie]);
        reload(&udp);
        for _ in 0..200 {
            Sock::pair(&listener);
        }
        reload(&both);
        let new = Sock::listener(Domain::V4);
        daemon.opened(&[new.cookie]);
        let (client, server) = Sock::pair(&new);
        let pair = [client.cookie, server.cookie];
        daemon.opened(&pair);
        drop((client, server));
        daemon.closed(&pair);
        let record = daemon.stop();
        for cookie in pair {
            assert_eq!(record.evidence("closed", cookie), "notified");
        }
        let notices = counted(&record.log, "notices");
        assert!(notices < 200, "{notices} notices: {}", record.log);
    });
}
