//! Many subscribers at once, and one that does not keep up.

use std::time::{Duration, Instant};

use super::client::{Client, Place, is_end_of};
use crate::daemon::Tick;
use crate::netns;
use crate::sock::{Domain, Sock};

/// Makes and ends a socket: an opened and a closed event.
fn socket() -> u64 {
    let socket = Sock::udp(Domain::V4);
    socket.bind_loopback();
    socket.cookie
}

/// The number of a record, read without parsing all of it; none for other lines.
fn seq(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("\"seq\":")?;
    rest.split(',').next()?.parse().ok()
}

/// Reads events up to the end of a socket: the numbers of the first and the
/// last, between which none may be missing.
fn complete(mut client: Client, last: u64) -> (u64, u64) {
    let last = format!("\"cookie\":{last},");
    let mut numbers: Option<(u64, u64)> = None;
    loop {
        let line = client.line().expect("the daemon goes on");
        let number = seq(&line).unwrap_or_else(|| panic!("a loss: {line}"));
        let first = match numbers {
            Some((first, before)) => {
                assert_eq!(number, before + 1, "a hole before {line}");
                first
            }
            None => number,
        };
        numbers = Some((first, number));
        if line.contains(&last) && line.contains("\"closed\"") {
            return (first, number);
        }
    }
}

#[test]
fn a_hundred_subscribers_miss_nothing() {
    netns::run("control::load::a_hundred_subscribers_miss_nothing", || {
        const SUBSCRIBERS: usize = 100;
        /// Two events each: 2,000 events a second for 2.5 seconds.
        const SOCKETS: u32 = 2500;
        const RATE: u32 = 1000;
        let place = Place::new();
        let daemon = place
            .launch(Tick::Slow)
            .setting("receive-buffer", "32MiB")
            .without_beacon()
            .start();
        let clients: Vec<Client> = (0..SUBSCRIBERS)
            .map(|_| Client::subscribed(&place.socket))
            .collect();
        // Known before it ends, so that everybody can wait for it.
        let last = Sock::udp(Domain::V4);
        last.bind_loopback();
        let cookie = last.cookie;
        let began = Instant::now();
        let told: Vec<(u64, u64)> = std::thread::scope(|scope| {
            let readers: Vec<_> = clients
                .into_iter()
                .map(|client| scope.spawn(move || complete(client, cookie)))
                .collect();
            for number in 0..SOCKETS {
                let due = began + Duration::from_secs(1) * number / RATE;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                socket();
            }
            let rate = 2.0 * f64::from(SOCKETS) / began.elapsed().as_secs_f64();
            println!("{rate:.0} events a second");
            drop(last);
            readers
                .into_iter()
                .map(|reader| reader.join().expect("nothing is missing"))
                .collect()
        });
        for (first, last) in told {
            assert_eq!(first, 1, "everybody subscribed before the first event");
            assert_eq!(last, 2 * u64::from(SOCKETS) + 2);
        }
        let (_, stats) = Client::new(&place.socket).ask(r#"{"request":"stats"}"#);
        assert_eq!(stats["counters"]["subscribers_lost"], 0);
        assert_eq!(stats["counters"]["overruns"], 0);
        daemon.stop();
    });
}

#[test]
fn a_slow_one_is_told_what_it_lost() {
    netns::run("control::load::a_slow_one_is_told_what_it_lost", || {
        const BATCHES: usize = 40;
        const BATCH: usize = 125;
        let place = Place::new();
        let daemon = place.launch(Tick::Slow).setting("queue", "1000").start();
        let mut slow = Client::subscribed(&place.socket);
        let mut quick = Client::subscribed(&place.socket);
        let mut all = Vec::new();
        let mut last = 0;
        for _ in 0..BATCHES {
            for _ in 0..BATCH {
                last = socket();
            }
            all.extend(quick.events_until(|record| is_end_of(record, last)));
        }
        // The other one has missed nothing.
        for pair in all.windows(2) {
            assert_eq!(
                pair[0]["seq"].as_u64().map(|seq| seq + 1),
                pair[1]["seq"].as_u64()
            );
        }
        let (_, stats) = Client::new(&place.socket).ask(r#"{"request":"stats"}"#);
        let counted = stats["counters"]["subscribers_lost"]
            .as_u64()
            .expect("a count");
        assert!(
            counted > 1000,
            "buffers do not hold most of it: {counted} lost"
        );

        let told = slow.events_until(|record| is_end_of(record, last));
        let mut next = 1;
        let mut lost = 0;
        for record in &told {
            match record["seq"].as_u64() {
                Some(seq) => {
                    assert_eq!(seq, next, "a hole before {record}");
                    next += 1;
                }
                None => {
                    assert_eq!(record["eid"], "sockwatch|self|gap@queue|0");
                    assert_eq!(record["data"]["sink"], "subscriber");
                    lost += record["data"]["events_lost"].as_u64().expect("a count");
                    next += record["data"]["events_lost"].as_u64().expect("a count");
                }
            }
        }
        assert_eq!(lost, counted);
        assert_eq!(
            Some(next - 1),
            all.last().and_then(|record| record["seq"].as_u64())
        );
        drop(daemon);
    });
}
