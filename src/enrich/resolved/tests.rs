use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::model::Resolution;

fn start() -> Now {
    Now {
        mono: Instant::now(),
        wall: SystemTime::UNIX_EPOCH,
    }
}

fn later(now: Now, seconds: u64) -> Now {
    Now {
        mono: now.mono + Duration::from_secs(seconds),
        ..now
    }
}

fn ip(n: u32) -> IpAddr {
    IpAddr::V4(n.into())
}

fn answer(names: &[&str], addresses: &[(u32, u32)]) -> Answer {
    Answer {
        names: names
            .iter()
            .map(|name| Name::escaped(name.as_bytes()))
            .collect(),
        addresses: addresses
            .iter()
            .map(|&(n, ttl)| Resolution { ip: ip(n), ttl })
            .collect(),
    }
}

fn table() -> (Resolved, Rc<Stats>) {
    let stats = Rc::new(Stats::default());
    (Resolved::new(Rc::clone(&stats)), stats)
}

/// The names of an address, or why there are none.
fn names(resolved: &mut Resolved, of: IpAddr, now: Now) -> Result<Vec<String>, NoResults> {
    let mut out = Vec::new();
    match resolved.names(of, now, &mut out) {
        None => Ok(out.iter().map(Name::to_string).collect()),
        Some(why) => {
            assert!(out.is_empty());
            Err(why)
        }
    }
}

#[test]
fn the_newest_answer_first_and_no_name_twice() {
    let (mut resolved, _) = table();
    let now = start();
    resolved.learn(&answer(&["a", "cdn"], &[(1, 300), (2, 300)]), now);
    resolved.learn(&answer(&["b", "alias", "cdn"], &[(1, 300)]), now);
    let found = names(&mut resolved, ip(1), now).unwrap();
    assert_eq!(found, ["b", "alias", "cdn", "a"]);
    assert_eq!(names(&mut resolved, ip(2), now).unwrap(), ["a", "cdn"]);
    // Asked again, with another chain.
    resolved.learn(&answer(&["a"], &[(1, 300)]), now);
    let found = names(&mut resolved, ip(1), now).unwrap();
    assert_eq!(found, ["a", "b", "alias", "cdn"]);
    assert_eq!(names(&mut resolved, ip(3), now), Err(NoResults::NotSeen));
}

#[test]
fn names_are_added_to_what_is_there() {
    let (mut resolved, _) = table();
    let now = start();
    resolved.learn(&answer(&["a"], &[(1, 300)]), now);
    let mut out = vec![Name::escaped(b"a")];
    assert_eq!(resolved.names(ip(1), now, &mut out), None);
    assert_eq!(out.len(), 2);
}

#[test]
fn ttl_has_a_floor_and_a_cap() {
    for (ttl, lasts) in [(0, 60), (59, 60), (61, 61), (3600, 3600), (u32::MAX, 3600)] {
        let (mut resolved, _) = table();
        let now = start();
        resolved.learn(&answer(&["a"], &[(1, ttl)]), now);
        let at = later(now, lasts - 1);
        assert_eq!(names(&mut resolved, ip(1), at).unwrap(), ["a"], "{ttl}");
        let at = later(now, lasts);
        let gone = names(&mut resolved, ip(1), at);
        assert_eq!(gone, Err(NoResults::Expired), "{ttl}");
    }
}

#[test]
fn one_name_expires_without_the_other() {
    let (mut resolved, _) = table();
    let now = start();
    resolved.learn(&answer(&["long"], &[(1, 600)]), now);
    resolved.learn(&answer(&["short"], &[(1, 60)]), now);
    let at = later(now, 60);
    assert_eq!(names(&mut resolved, ip(1), at).unwrap(), ["long"]);
    // A newer answer that lasts less is the one that holds.
    resolved.learn(&answer(&["long"], &[(1, 60)]), at);
    let at = later(at, 60);
    assert_eq!(names(&mut resolved, ip(1), at), Err(NoResults::Expired));
}

#[test]
fn expired_is_told_for_a_while_and_then_forgotten() {
    let (mut resolved, stats) = table();
    let now = start();
    for n in 0..5000 {
        resolved.learn(&answer(&["a"], &[(n, 60)]), now);
    }
    let at = later(now, MEMORY.as_secs() - 1);
    resolved.learn(&answer(&["b"], &[(9999, 60)]), at);
    assert_eq!(names(&mut resolved, ip(4999), at), Err(NoResults::Expired));
    let at = later(now, MEMORY.as_secs());
    resolved.learn(&answer(&["b"], &[(9999, 60)]), at);
    assert_eq!(names(&mut resolved, ip(4999), at), Err(NoResults::NotSeen));
    assert_eq!((resolved.count, resolved.by_ip.len()), (1, 1));
    assert!(resolved.by_ip.capacity() <= 1024);
    assert_eq!(resolved.bytes, cost(&answer(&["b"], &[]).names));
    assert_eq!(stats.dns_names_forgotten.count(), 0);
}

#[test]
fn v4_mapped_is_the_ipv4_address() {
    let (mut resolved, _) = table();
    let now = start();
    let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
    let mut of_mapped = answer(&["a"], &[(0, 60)]);
    of_mapped.addresses[0].ip = mapped;
    resolved.learn(&of_mapped, now);
    let found = names(&mut resolved, "192.0.2.1".parse().unwrap(), now);
    assert_eq!(found.unwrap(), ["a"]);
    assert_eq!(names(&mut resolved, mapped, now).unwrap(), ["a"]);
}

#[test]
fn an_address_keeps_its_newest_answers() {
    let (mut resolved, stats) = table();
    let now = start();
    for n in 0..ANSWERS + 3 {
        resolved.learn(&answer(&[&format!("n{n}")], &[(1, 60)]), now);
    }
    let found = names(&mut resolved, ip(1), now).unwrap();
    assert_eq!(found.len(), ANSWERS);
    assert_eq!(found.first().unwrap(), &format!("n{}", ANSWERS + 2));
    assert_eq!(stats.dns_names_forgotten.count(), 3);
}

#[test]
fn the_oldest_goes_when_memory_is_full() {
    let (mut resolved, stats) = table();
    let now = start();
    let long = "x".repeat(200);
    for n in 0..100_000 {
        resolved.learn(&answer(&[&format!("{n}{long}")], &[(n, 3600)]), now);
        assert!(resolved.bytes <= BYTES);
    }
    assert!(stats.dns_names_forgotten.count() > 80_000);
    assert!(names(&mut resolved, ip(99_999), now).is_ok());
    assert_eq!(names(&mut resolved, ip(0), now), Err(NoResults::NotSeen));
    assert!(resolved.order.len() <= 2 * resolved.count + 17);
}

proptest! {
    /// Against a list of everything ever learned.
    #[test]
    fn is_a_bounded_list_of_answers(
        steps in prop::collection::vec((0usize..6, prop::collection::vec((0u32..4, 0u32..400), 1..4), 0u64..200), 1..100),
    ) {
        let stats = Rc::new(Stats::default());
        let mut resolved = Resolved::bounded(4096, stats);
        let mut list: Vec<(u32, usize, Instant)> = Vec::new();
        let mut now = start();
        for (name, addresses, pause) in steps {
            now = later(now, pause);
            resolved.learn(&answer(&[&format!("n{name}")], &addresses), now);
            for &(n, ttl) in &addresses {
                list.retain(|(of, named, _)| (*of, *named) != (n, name));
                let ttl = Duration::from_secs(ttl.into()).clamp(FLOOR, CAP);
                list.push((n, name, now.mono + ttl));
            }
            for n in 0..4 {
                let expected: Vec<String> = list.iter().rev()
                    .filter(|(of, _, until)| *of == n && *until > now.mono)
                    .map(|(_, name, _)| format!("n{name}"))
                    .collect();
                // All, or the newest of them.
                let found = names(&mut resolved, ip(n), now).unwrap_or_default();
                prop_assert!(expected.starts_with(&found));
                prop_assert!(found.len() == expected.len() || resolved.bytes + 512 > 4096);
            }
            prop_assert!(resolved.bytes <= 4096);
            let held: usize = resolved.by_ip.values().flatten().map(|known| cost(&known.names)).sum();
            prop_assert_eq!(held, resolved.bytes);
            prop_assert_eq!(resolved.by_ip.values().map(Vec::len).sum::<usize>(), resolved.count);
            prop_assert!(resolved.order.len() <= 2 * resolved.count + 17);
        }
    }
}
