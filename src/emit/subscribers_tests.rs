use super::*;
use crate::model::Gap;
use crate::model::GapCause;
use proptest::prelude::*;
use serde_json::Value;
use std::time::Duration;

fn event(seq: u64, eid: &str) -> Event {
    Event {
        ts: SystemTime::UNIX_EPOCH + Duration::from_secs(seq),
        seq,
        eid: eid.to_string(),
        sensor: Arc::from("sockwatch"),
        listener: Listener::Own,
        tag: None,
        data: Data::Gap(Gap {
            cause: GapCause::Overrun,
            closed_recovered: None,
            tcp_unseen: None,
            connects_lost: None,
            lost: None,
            duration_ms: 0,
        }),
    }
}

fn subscribers(limit: usize) -> Subscribers {
    Subscribers::new("h".into(), false, limit, Rc::default())
}

fn glob(text: &str) -> Terms {
    Terms {
        glob: Some(IdGlob::new(text).unwrap()),
        as_text: false,
    }
}

/// What a subscriber gets: the numbers of events, and losses as negative counts.
fn told(all: &mut Subscribers, subscription: Subscription) -> Vec<i64> {
    let mut out = Vec::new();
    while all.fill(subscription, &mut out, usize::MAX) {}
    all.trim();
    let lines = out.split_inclusive(|byte| *byte == b'\n');
    let number = |line: &[u8]| -> i64 {
        let line: Value = serde_json::from_slice(line).unwrap();
        match line["seq"].as_i64() {
            Some(seq) => seq,
            None => {
                assert_eq!(line["data"]["sink"], "subscriber");
                -line["data"]["events_lost"].as_i64().unwrap()
            }
        }
    };
    lines.map(number).collect()
}

#[test]
fn nobody_wants_an_event_that_no_glob_matches() {
    let mut all = subscribers(8);
    assert_eq!(all.offer(&event(1, "a")), Delivery::Unwanted);
    let only_b = all.subscribe(glob("b*"));
    assert_eq!(all.offer(&event(2, "a")), Delivery::Unwanted);
    assert_eq!(all.offer(&event(3, "b")), Delivery::Delivered);
    let everything = all.subscribe(Terms::default());
    assert_eq!(all.offer(&event(4, "a")), Delivery::Delivered);
    assert_eq!(told(&mut all, only_b), [3]);
    assert_eq!(told(&mut all, everything), [4], "nothing from before");
    assert!(all.ring.is_empty(), "everybody has got everything");
}

#[test]
fn who_lags_loses_the_oldest_and_is_told_where() {
    let mut all = subscribers(4);
    let (slow, quick, only_b) = (
        all.subscribe(Terms::default()),
        all.subscribe(Terms::default()),
        all.subscribe(glob("b")),
    );
    let mut quick_got = Vec::new();
    for seq in 1..=10 {
        all.offer(&event(seq, if seq % 2 == 0 { "b" } else { "a" }));
        quick_got.extend(told(&mut all, quick));
    }
    assert_eq!(quick_got, (1..=10).collect::<Vec<_>>());
    assert_eq!(told(&mut all, slow), [-6, 7, 8, 9, 10]);
    assert_eq!(told(&mut all, only_b), [-3, 8, 10], "of those it wants");
    assert_eq!(all.stats.subscribers_lost.count(), 9);
    all.offer(&event(11, "a"));
    assert_eq!(told(&mut all, slow), [11], "told once");
}

#[test]
fn one_that_never_reads_costs_no_more_than_the_ring() {
    let mut all = subscribers(16);
    let silent: Vec<_> = (0..50).map(|_| all.subscribe(Terms::default())).collect();
    for seq in 1..=10_000 {
        all.offer(&event(seq, "a"));
    }
    assert_eq!(all.ring.len(), 16);
    for subscription in silent {
        all.unsubscribe(subscription);
    }
    assert_eq!((all.ring.len(), all.ring.capacity() <= 64), (0, true));
}

#[test]
fn text_is_a_line_in_an_object() {
    let mut all = subscribers(4);
    let subscription = all.subscribe(Terms {
        glob: None,
        as_text: true,
    });
    all.offer(&event(1, "a"));
    let mut out = Vec::new();
    all.fill(subscription, &mut out, 1);
    let line: Value = serde_json::from_slice(&out).unwrap();
    let text = line["text"].as_str().unwrap();
    assert!(text.starts_with("00:00:01.000000 gap"), "{text}");
}

proptest! {
    #[test]
    fn every_event_is_told_or_counted(
        steps in prop::collection::vec((0_usize..4, 1_usize..6), 1..200),
        limit in 1_usize..12,
    ) {
        let mut all = subscribers(limit);
        let members: Vec<_> = (0..3).map(|_| all.subscribe(Terms::default())).collect();
        let mut got = vec![Vec::new(); 3];
        let mut seq = 0;
        for (who, count) in steps {
            match members.get(who) {
                Some(&member) => got[who].extend(told(&mut all, member)),
                None => for _ in 0..count {
                    seq += 1;
                    all.offer(&event(seq, "a"));
                },
            }
        }
        for (at, &member) in members.iter().enumerate() {
            got[at].extend(told(&mut all, member));
            let mut next = 1;
            for &told in &got[at] {
                if told < 0 {
                    next -= told;
                } else {
                    prop_assert_eq!(told, next);
                    next += 1;
                }
            }
            prop_assert_eq!(next as u64, seq + 1);
        }
    }
}
