//! A reader that lags behind by more than the queue holds: what it misses is
//! counted and told, and the daemon does not wait for it.

use std::time::{Duration, Instant};

use crate::daemon::{Launch, PATIENCE, Tick};
use crate::expect::{Expect, Traffic};
use crate::netns;
use crate::proc_net;
use crate::sock::{Domain, Sock};

#[test]
fn what_is_lost_is_told() {
    netns::run("lagging::what_is_lost_is_told", || {
        const SOCKETS: usize = 5000;
        let mut daemon = Launch::new(Tick::Slow)
            .setting("queue", "4096")
            .unread()
            .start();
        for _ in 0..SOCKETS {
            Sock::udp(Domain::V4).bind_loopback();
        }
        // The daemon has read all notices, though nobody reads its events.
        let deadline = Instant::now() + PATIENCE;
        let mut idle = 0;
        while idle < 20 {
            assert!(Instant::now() < deadline, "the daemon waits for its reader");
            idle = if proc_net::notices().waiting == 0 {
                idle + 1
            } else {
                0
            };
            std::thread::sleep(Duration::from_millis(10));
        }
        daemon.read();
        daemon.wait_for("the gap record", |event| event["data"]["cause"] == "queue");
        let after = Sock::udp(Domain::V4);
        after.bind_loopback();
        let after = after.close();
        let record = daemon.finish(&[after.cookie.unwrap()]);
        let own = record.own();
        assert_eq!(own.len(), 1, "one stretch, one record: {own:?}");
        let data = &own[0]["data"];
        assert_eq!(data["sink"], "stdout");
        let lost = data["events_lost"].as_u64().expect("a count") as usize;
        assert!(
            lost > SOCKETS,
            "a pipe and the queue do not hold half of them: {lost} lost"
        );
        // Two of them are those of the socket made after.
        assert_eq!(record.events().count() + lost, 2 * SOCKETS + 2);
        record
            .only(&[after.cookie.unwrap()])
            .hold_events(&Expect::between_ticks(after, "UNCONN", Traffic::None));
    });
}
