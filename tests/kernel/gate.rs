//! The gate: ticks that dump nothing, and what they must not cost.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::churn::allow_descriptors;
use crate::daemon::{Daemon, Launch, Tick};
use crate::netns;
use crate::record::Record;
use crate::refused::counted;
use crate::seccomp::Refusal;
use crate::sock::{Domain, Sock};

fn gated(limit: &str) -> Daemon {
    Launch::new(Tick::Fast).setting("gate", limit).start()
}

/// What was said of each socket, in order, but for times and what is counted.
fn history(record: &Record, cookies: &[u64]) -> BTreeMap<u64, Vec<String>> {
    const KEYS: [&str; 11] = [
        "action",
        "evidence",
        "proto",
        "family",
        "local",
        "remote",
        "state",
        "direction",
        "between_ticks",
        "inode",
        "uid",
    ];
    let mut history = BTreeMap::new();
    for event in record.only(cookies).events() {
        let data = &event["data"];
        let cookie = data["cookie"].as_u64().expect("a cookie");
        let said = KEYS.map(|key| format!("{key}={}", data[key]));
        let all = history.entry(cookie).or_insert_with(Vec::new);
        all.push(said.join(" "));
    }
    history
}

/// Two daemons beside the same sockets, one with the gate and one without: they
/// say the same. Whatever depends on when a tick comes happens while both stand
/// still.
#[test]
fn it_changes_no_event() {
    netns::run("gate::it_changes_no_event", || {
        let (gated, open) = (gated("1h"), gated("off"));
        let both = [&gated, &open];
        let some = |round: usize| {
            let listener = Sock::listener(Domain::ALL[round % 3]);
            let (client, server) = Sock::pair(&listener);
            let udp = Sock::udp(Domain::V4);
            udp.bind_loopback();
            (listener, client, server, udp)
        };
        let mut cookies = Vec::new();
        let mut short = Vec::new();
        for round in 0..24 {
            let paused = |act: &mut dyn FnMut()| gated.paused(|| open.paused(act));
            if round % 3 == 1 {
                // Between two ticks.
                paused(&mut || {
                    let (listener, client, server, udp) = some(round);
                    let these = [&listener, &client, &server, &udp].map(|one| one.cookie);
                    short.extend(these);
                });
                continue;
            }
            // Not in the middle of a dump, which may have passed by the listeners when
            // this one begins, and takes its child for a caller.
            let mut made = None;
            paused(&mut || made = Some(some(round)));
            let (listener, client, server, udp) = made.expect("it was made");
            let these = [listener.cookie, client.cookie, server.cookie, udp.cookie];
            cookies.extend(these);
            both.iter().for_each(|daemon| daemon.opened(&these));
            if round % 3 == 2 {
                // One end stays, and is read half closed.
                client.close();
                both.iter().for_each(|daemon| daemon.ticks(1));
            } else {
                // Time enough for the gate to shut.
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        cookies.extend(&short);
        for daemon in both {
            daemon.closed(&cookies);
            daemon.settle();
        }
        let (gated, open) = (gated.stop(), open.stop());
        let histories = history(&gated, &cookies);
        assert_eq!(histories, history(&open, &cookies));
        for cookie in short {
            let said = histories[&cookie].join("\n");
            assert!(said.contains("between_ticks=true"), "{said}");
        }
        assert!(counted(&gated.log, "dumps_spared") > 0, "{}", gated.log);
        assert_eq!(counted(&open.log, "dumps_spared"), 0, "{}", open.log);
    });
}

/// What is opened while it is shut is told with the next tick, as without it: half
/// an interval later, and where a dump were skipped one and a half.
#[test]
fn it_makes_nothing_late() {
    const INTERVAL: Duration = Duration::from_millis(500);
    netns::run("gate::it_makes_nothing_late", || {
        let daemon = Launch::new(Tick::Slow)
            .sensors("  sockets: {listener: net.socket, interval: 500ms}\n")
            .setting("gate", "1h")
            .without_beacon()
            .start();
        let mut lateness = Vec::new();
        let mut kept = Vec::new();
        for round in 0..11_u32 {
            // The gate has shut, and the tick may be in any phase.
            std::thread::sleep(2 * INTERVAL + INTERVAL * round / 11);
            let made = SystemTime::now();
            let socket = match round % 2 {
                0 => Sock::listener(Domain::V4),
                _ => {
                    let socket = Sock::udp(Domain::V4);
                    socket.bind_loopback();
                    socket
                }
            };
            let cookie = socket.cookie;
            kept.push(socket);
            let event = daemon.wait_for("the opening", |event| {
                event["data"]["action"] == "opened" && event["data"]["cookie"] == cookie
            });
            let told = event["ts"].as_str().expect("a time");
            let told = humantime::parse_rfc3339(told).expect("RFC 3339");
            lateness.push(told.duration_since(made).unwrap_or_default());
        }
        lateness.sort();
        let median = lateness[lateness.len() / 2];
        assert!(median < INTERVAL + INTERVAL / 2, "{lateness:?}");
        let record = daemon.stop();
        assert!(counted(&record.log, "dumps_spared") > 0, "{}", record.log);
    });
}

/// A table in which nothing happens is not dumped.
#[test]
fn a_quiet_table_is_left_alone() {
    netns::run("gate::a_quiet_table_is_left_alone", || {
        let listener = Sock::listener(Domain::V4);
        let _pairs: Vec<_> = (0..20).map(|_| Sock::pair(&listener)).collect();
        let daemon = gated("1h");
        std::thread::sleep(Duration::from_secs(1));
        let record = daemon.stop();
        // Two rounds at the start, of TCP and of UDP by family; the sockets that
        // prove the notice groups may cost another.
        let dumps = counted(&record.log, "dumps");
        assert!(dumps <= 12, "{dumps} dumps");
        let spared = counted(&record.log, "dumps_spared");
        assert!(spared > dumps, "{spared} spared beside {dumps}");
    });
}

/// What moves no counter is found by the dump that time alone speaks for, and
/// such finds are counted.
#[test]
fn a_forced_dump_finds_what_was_not_counted() {
    netns::run("gate::a_forced_dump_finds_what_was_not_counted", || {
        let daemon = gated("500ms");
        std::thread::sleep(Duration::from_millis(200));
        let bound = Sock::tcp(Domain::V4);
        bound.bind_loopback();
        daemon.opened(&[bound.cookie]);
        let cookie = bound.cookie;
        drop(bound);
        let record = daemon.finish(&[cookie]);
        assert_eq!(record.evidence("opened", cookie), "dump");
        assert!(counted(&record.log, "forced_found") > 0, "{}", record.log);
    });
}

/// So are those of a dump that takes longer than a tick.
#[test]
fn a_forced_dump_may_take_longer_than_a_tick() {
    netns::run("gate::a_forced_dump_may_take_longer_than_a_tick", || {
        allow_descriptors(9000);
        let listener = Sock::listener(Domain::V4);
        let _crowd: Vec<_> = (0..4000).map(|_| Sock::pair(&listener)).collect();
        let daemon = Launch::new(Tick::Fast)
            .sensors("  sockets: {listener: net.socket, interval: 10ms}\n")
            .setting("gate", "300ms")
            .setting("cpu-budget", "off")
            .start();
        std::thread::sleep(Duration::from_millis(200));
        let bound = Sock::tcp(Domain::V4);
        bound.bind_loopback();
        daemon.opened(&[bound.cookie]);
        let record = daemon.stop();
        assert!(counted(&record.log, "dumps_forced") > 0, "{}", record.log);
        assert_eq!(counted(&record.log, "forced_found"), 1, "{}", record.log);
    });
}

/// Where no notice comes, the close of one socket hides another one that opens:
/// every tick dumps.
#[test]
fn without_notices_it_is_off() {
    netns::run("gate::without_notices_it_is_off", || {
        let bound = || {
            let socket = Sock::udp(Domain::V4);
            socket.bind_loopback();
            socket
        };
        let first = bound();
        let daemon = Launch::new(Tick::Fast)
            .sensors("  sockets: {listener: net.socket, args: {initial: true}}\n")
            .setting("gate", "1h")
            .refused(Refusal::GROUPS)
            .start();
        daemon.opened(&[first.cookie]);
        // Time enough for it to shut.
        std::thread::sleep(Duration::from_millis(200));
        let cookie = first.cookie;
        let second = daemon.paused(|| {
            drop(first);
            bound()
        });
        daemon.opened(&[second.cookie]);
        daemon.closed(&[cookie]);
        let record = daemon.stop();
        assert_eq!(record.evidence("closed", cookie), "verified");
        assert_eq!(counted(&record.log, "dumps_spared"), 0, "{}", record.log);
    });
}

/// A pattern about a state that no counter tells has every tick dump.
#[test]
fn a_pattern_can_keep_it_open() {
    netns::run("gate::a_pattern_can_keep_it_open", || {
        let sensor = "  sockets: {listener: net.socket, args: {patterns: [\"tcp * * * CLOSE\"]}}\n";
        let daemon = Launch::new(Tick::Fast)
            .sensors(sensor)
            .setting("gate", "1h")
            .without_beacon()
            .start();
        std::thread::sleep(Duration::from_millis(200));
        let bound = Sock::tcp(Domain::V4);
        bound.bind_loopback();
        daemon.opened(&[bound.cookie]);
        let record = daemon.stop();
        assert_eq!(counted(&record.log, "dumps_spared"), 0, "{}", record.log);
    });
}

/// A handshake that takes its time ends without moving a counter.
#[test]
fn a_handshake_is_waited_for() {
    netns::run("gate::a_handshake_is_waited_for", || {
        let sensor =
            "  sockets: {listener: net.socket, args: {patterns: [\"tcp * * * ESTABLISHED\"]}}\n";
        let listener = Sock::tcp(Domain::V4);
        listener.bind("127.0.0.1:0".parse().expect("an address"));
        listener.listen(0);
        let daemon = Launch::new(Tick::Fast)
            .sensors(sensor)
            .setting("gate", "1h")
            .start();
        // One fits into the backlog; the next keeps sending its SYN.
        let full = Sock::tcp(Domain::V4);
        full.connect(listener.local()).expect("the first one fits");
        let late = Sock::tcp(Domain::V4);
        late.connect_nonblocking(listener.local());
        // Dumps go on meanwhile, as many as there are ticks.
        daemon.ticks(5);
        assert!(!daemon.has("opened", late.cookie));
        let accepted = listener.accept();
        daemon.opened(&[full.cookie, accepted.cookie, late.cookie]);
        daemon.stop();
    });
}

/// Dumps that cost more than they may make ticks rarer; ends are told at once all
/// the same, and nothing is missed.
#[test]
fn ticks_stretch_to_keep_within_the_budget() {
    netns::run("gate::ticks_stretch_to_keep_within_the_budget", || {
        let listener = Sock::listener(Domain::V4);
        let _crowd: Vec<_> = (0..300).map(|_| Sock::pair(&listener)).collect();
        let daemon = Launch::new(Tick::Fast)
            .setting("gate", "off")
            .setting("cpu-budget", "1%")
            .start();
        let mut cookies = Vec::new();
        for _ in 0..20 {
            let (client, server) = Sock::pair(&listener);
            cookies.extend([client.cookie, server.cookie]);
            std::thread::sleep(Duration::from_millis(20));
        }
        let record = daemon.finish(&cookies);
        for cookie in &cookies {
            record.find("opened", *cookie);
            record.find("closed", *cookie);
        }
        assert!(
            counted(&record.log, "ticks_stretched") > 0,
            "{}",
            record.log
        );
        assert!(record.log.contains("cpu-budget"), "{}", record.log);
        let dumps = counted(&record.log, "dumps");
        assert!(
            dumps < 100,
            "{dumps} dumps, one a round: that is no stretch"
        );
    });
}
