//! `kill -9` at random moments, while sockets come and go. Whatever the moment:
//! the file can be read, whoever was told as opened is told as closed by this or
//! a later run, and what is told twice says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{launch, stories};
use crate::daemon::Scratch;
use crate::netns;
use crate::record::Record;
use crate::sock::{Domain, Sock};

const KILLS: u64 = 200;

/// A generator of small numbers (xorshift64), the same ones in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Opens and ends sockets until it is told to stop; the cookies of all of them.
fn churn(stop: &AtomicBool) -> BTreeSet<u64> {
    let mut random = Random(0x5eed);
    let mut cookies = BTreeSet::new();
    let mut open: Vec<Sock> = Vec::new();
    let listener = Sock::listener(Domain::V4);
    cookies.insert(listener.cookie);
    while !stop.load(Ordering::Relaxed) {
        match random.below(4) {
            0 => {
                let (client, server) = Sock::pair(&listener);
                cookies.extend([client.cookie, server.cookie]);
                // One in four lives no longer than this.
                if random.below(4) > 0 {
                    open.extend([client, server]);
                }
            }
            1 => {
                let socket = Sock::udp(Domain::V4);
                socket.bind_loopback();
                cookies.insert(socket.cookie);
                open.push(socket);
            }
            _ if !open.is_empty() => {
                let at = random.below(open.len() as u64) as usize;
                drop(open.swap_remove(at));
            }
            _ => {}
        }
        while open.len() > 60 {
            drop(open.swap_remove(0));
        }
        std::thread::sleep(Duration::from_micros(500 + random.below(2000)));
    }
    cookies
}

fn check(records: &[Record], cookies: &BTreeSet<u64>) {
    let mut wrong = Vec::new();
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    let told = stories(records);
    for (cookie, story) in &told {
        if !cookies.contains(cookie) {
            wrong.push(format!("{cookie}: nobody made it: {story:?}"));
            continue;
        }
        for step in story {
            *count.entry(step.as_str()).or_default() += 1;
        }
        // Repetitions say so; without them each story has one opening and one end.
        let opened = story.iter().filter(|step| step.starts_with("opened"));
        let again = opened.clone().filter(|step| *step == "opened restart");
        let closed = story.iter().filter(|step| step.starts_with("closed"));
        let repeated = closed.clone().filter(|step| *step == "closed restart");
        let opened_once = opened.clone().count() - again.clone().count() <= 1;
        let closed_once = closed.clone().count() - repeated.count() <= 1;
        let is_closed = story.last().is_some_and(|step| step.starts_with("closed"));
        let is_opened = story.first().is_some_and(|step| step.starts_with("opened"));
        if !(opened_once && closed_once && is_closed && is_opened) {
            wrong.push(format!("{cookie}: {story:?}"));
        }
    }
    println!(
        "{} sockets, {} told of: {count:?}",
        cookies.len(),
        told.len()
    );
    assert!(wrong.is_empty(), "{} wrong: {wrong:#?}", wrong.len());
    assert!(told.len() > cookies.len() / 4, "most of them were seen");
}

#[test]
fn at_any_moment() {
    netns::run("restart::kills::at_any_moment", || {
        let place = Scratch::new();
        // The first run sees what is there, and nothing is.
        drop(launch(&place).without_beacon().start().stop());
        let stop = AtomicBool::new(false);
        let (records, cookies) = std::thread::scope(|scope| {
            let generator = scope.spawn(|| churn(&stop));
            let mut random = Random(0xfeed);
            let mut records = Vec::new();
            for kill in 0..KILLS {
                let daemon = launch(&place).without_beacon().spawn();
                // Some are killed before they are ready, most in full course.
                if kill % 4 > 0 {
                    daemon.wait_for_line("ready", |line| line.contains("ready"));
                }
                std::thread::sleep(Duration::from_micros(random.below(60_000)));
                let record = daemon.kill();
                assert!(!record.log.contains("cannot be used"), "{}", record.log);
                records.push(record);
            }
            stop.store(true, Ordering::Relaxed);
            (records, generator.join().expect("the generator ends"))
        });
        let mut records = records;
        // All sockets are gone: the last run says so of whatever is left.
        let last = launch(&place).start();
        last.ticks(3);
        last.settle();
        records.push(last.stop());
        check(&records, &cookies);
    });
}

/// Ended as it should be, again and again: nothing is told twice, and nothing that
/// was open in a run is left out.
#[test]
fn clean_stops_repeat_nothing() {
    netns::run("restart::kills::clean_stops_repeat_nothing", || {
        let place = Scratch::new();
        drop(launch(&place).without_beacon().start().stop());
        let stop = AtomicBool::new(false);
        let (mut records, cookies) = std::thread::scope(|scope| {
            let generator = scope.spawn(|| churn(&stop));
            let run = |_| {
                let daemon = launch(&place).without_beacon().start();
                std::thread::sleep(Duration::from_millis(100));
                let record = daemon.stop();
                let ended_well = record.log.contains("state of a run that ended well");
                assert!(ended_well, "{}", record.log);
                record
            };
            let records: Vec<_> = (0..8).map(run).collect();
            stop.store(true, Ordering::Relaxed);
            (records, generator.join().expect("the generator ends"))
        });
        let last = launch(&place).start();
        last.ticks(3);
        last.settle();
        records.push(last.stop());
        for (cookie, story) in stories(&records) {
            assert!(cookies.contains(&cookie), "{cookie} {story:?}");
            let [opened, closed] = &story[..] else {
                panic!("{cookie}: {story:?}");
            };
            assert!(opened.starts_with("opened ") && closed.starts_with("closed "));
            assert_ne!(opened, "opened restart");
        }
    });
}
