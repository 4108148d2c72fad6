//! A kernel that refuses single requests, again and again: what it does answer
//! goes on as ever, and nobody asks without a pause.

use crate::daemon::{Launch, Tick};
use crate::netns;
use crate::overrun::overrun;
use crate::seccomp::Refusal;
use crate::sock::{Domain, Sock};

/// A counter in the daemon's last line; 0 when it is not there.
/// A counter in the line that a daemon ends with.
pub fn counted(log: &str, name: &str) -> u64 {
    let word = format!("{name}=");
    let mut words = log.split_whitespace();
    words
        .find_map(|found| found.strip_prefix(&word))
        .map_or(0, |count| count.parse().expect("a count"))
}

/// A dump that always fails is retried at its own pace, and holds up no other.
#[test]
fn without_udp_dumps_tcp_goes_on() {
    netns::run("refused::without_udp_dumps_tcp_goes_on", || {
        let listener = Sock::listener(Domain::V4);
        let daemon = Launch::new(Tick::Fast)
            // Dumps at every tick, to count the failed ones against.
            .setting("gate", "off")
            .without_beacon()
            .refused(Refusal::V2_REQUESTS)
            .spawn();
        daemon.wait_for_line("that a dump failed", |line| {
            line.contains("udp dump failed")
        });
        let (client, server) = Sock::pair(&listener);
        let cookies = [client.cookie, server.cookie];
        daemon.opened(&cookies);
        drop((client, server));
        daemon.closed(&cookies);
        let degraded = daemon.wait_for("that UDP is given up", |event| {
            event["data"]["action"] == "degraded"
        });
        assert_eq!(degraded["data"]["source"], "udp");
        daemon.wait_for_line("that it is ready without", |line| line.contains("ready"));
        let record = daemon.stop();
        for cookie in cookies {
            assert_eq!(record.evidence("opened", cookie), "dump");
            assert_eq!(record.evidence("closed", cookie), "notified");
        }
        let (done, failed) = (
            counted(&record.log, "dumps"),
            counted(&record.log, "dumps_failed"),
        );
        assert!(failed < 2 * done, "{failed} failed dumps beside {done}");
    });
}

/// Without the legacy request TCP is dumped one family at a time, with the same
/// events.
#[test]
fn without_the_legacy_request_each_family_is_dumped() {
    netns::run(
        "refused::without_the_legacy_request_each_family_is_dumped",
        || {
            let daemon = Launch::new(Tick::Fast)
                .refused(Refusal::LEGACY_REQUEST)
                .start();
            let mut cookies = Vec::new();
            for domain in [Domain::V4, Domain::V6] {
                let listener = Sock::listener(domain);
                let (client, server) = Sock::pair(&listener);
                let trio = [listener.cookie, client.cookie, server.cookie];
                daemon.opened(&trio);
                cookies.extend(trio);
            }
            let record = daemon.finish(&cookies);
            for cookie in cookies {
                assert_eq!(record.evidence("opened", cookie), "dump");
                assert_eq!(record.evidence("closed", cookie), "notified");
            }
            assert!(
                record.log.contains("asking for each on its own"),
                "{}",
                record.log
            );
            assert!(record.own().is_empty(), "nothing is missing by it");
        },
    );
}

/// Where nobody can be asked about a connection, missing from two dumps is what
/// convicts it; the gap ends all the same, and without a busy loop.
#[test]
fn without_exact_queries_a_gap_still_ends() {
    netns::run("refused::without_exact_queries_a_gap_still_ends", || {
        let listener = Sock::listener(Domain::V4);
        let daemon = Launch::new(Tick::Slow)
            .sensors(
                "  sockets: {listener: net.socket, args: {patterns: [\"tcp *\"], initial: true}}\n",
            )
            .setting("receive-buffer", "4KiB")
            .without_beacon()
            .refused(Refusal::V2_REQUESTS);
        let pairs: Vec<_> = (0..30).map(|_| Sock::pair(&listener)).collect();
        let survivors = pairs.len() / 2;
        let daemon = daemon.start();
        let cookies = |pairs: &[(Sock, Sock)]| -> Vec<u64> {
            let both = |pair: &(Sock, Sock)| [pair.0.cookie, pair.1.cookie];
            pairs.iter().flat_map(both).collect()
        };
        daemon.opened(&cookies(&pairs));
        let mut pairs = pairs;
        let doomed = pairs.split_off(survivors);
        let (ended, alive) = (cookies(&doomed), cookies(&pairs));
        overrun(&daemon, || drop(doomed));
        daemon.wait_for("the gap record", |event| event["data"]["action"] == "gap");
        daemon.closed(&ended);
        let record = daemon.stop();
        let closed = record.cookies("closed");
        assert_eq!(closed.len(), ended.len(), "none is closed twice");
        assert!(
            alive.iter().all(|cookie| !closed.contains(cookie)),
            "those live"
        );
        let verified = ended
            .iter()
            .filter(|one| record.evidence("closed", **one) == "verified");
        assert!(verified.count() > 0, "some notices were dropped");
        assert!(counted(&record.log, "queries_failed") > 0, "{}", record.log);
        assert!(counted(&record.log, "dumps") < 20, "{}", record.log);
        drop(pairs);
    });
}
