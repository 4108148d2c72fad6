//! The gate: ticks that dump nothing, and what they must not cost.

use std::collections::BTreeMap;
use std::time::Duration;

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

/// What happened to each socket, in order, with its ends.
fn history(record: &Record, cookies: &[u64]) -> BTreeMap<u64, Vec<(String, String)>> {
    let mut history = BTreeMap::new();
    for event in record.only(cookies).events() {
        let cookie = event["data"]["cookie"].as_u64().expect("a cookie");
        let word = |key: &str| event["data"][key].as_str().unwrap_or_default().to_string();
        let ends = format!("{} {}", word("local"), word("remote"));
        history
            .entry(cookie)
            .or_insert_with(Vec::new)
            .push((word("action"), ends));
    }
    history
}

/// Two daemons beside the same sockets, one with the gate and one without: they
/// say the same.
#[test]
fn it_changes_no_event() {
    netns::run("gate::it_changes_no_event", || {
        let (gated, open) = (gated("1h"), gated("off"));
        let mut cookies = Vec::new();
        for round in 0..40 {
            let listener = Sock::listener(Domain::ALL[round % 3]);
            let (client, server) = Sock::pair(&listener);
            let udp = Sock::udp(Domain::V4);
            udp.bind_loopback();
            let these = [listener.cookie, client.cookie, server.cookie, udp.cookie];
            cookies.extend(these);
            match round % 4 {
                // Long enough for both to read them, and for the gate to shut.
                0 => {
                    for daemon in [&gated, &open] {
                        daemon.opened(&these);
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
                // Between two ticks, or not: that is for each to find out.
                1 => {}
                // One end stays, and is read half closed.
                2 => {
                    client.close();
                    std::thread::sleep(Duration::from_millis(30));
                }
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        for daemon in [&gated, &open] {
            daemon.closed(&cookies);
            daemon.settle();
        }
        let (gated, open) = (gated.stop(), open.stop());
        assert_eq!(history(&gated, &cookies), history(&open, &cookies));
        assert!(counted(&gated.log, "dumps_spared") > 0, "{}", gated.log);
        assert_eq!(counted(&open.log, "dumps_spared"), 0, "{}", open.log);
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
