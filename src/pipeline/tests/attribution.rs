//! Events that wait for who has the socket.

use std::path::Path;

use super::*;
use crate::enrich::Processes;
use crate::enrich::processes::Scanner;
use crate::enrich::users::Passwd;
use crate::state::Socket;

const TIMEOUT: Attribution = Attribution::Unknown(ProcessUnknown::Timeout);

/// A pipeline whose /proc cannot be read, so that every answer is
/// `not_permitted`; and how to hear that one has come.
fn bench(stages: Vec<Stage>) -> (Bench, Receiver<()>) {
    let mut bench = Bench::new(stages);
    let (wake, woken) = channel();
    // A test that is done looks no longer.
    let wake = Arc::new(move || wake.send(()).unwrap_or(()));
    let scanner = Scanner::new(Path::new("/nonexistent"), false, Passwd::default());
    let processes = Processes::with_scanner(scanner, wake, Rc::clone(&bench.stats));
    bench.pipeline.attribution.find_with(processes);
    (bench, woken)
}

fn attributing() -> Stage {
    Stage {
        process: Some(Attribute {
            timeout: Duration::from_millis(250),
            cmdline: false,
        }),
        ..stage(&[], false)
    }
}

/// Action, and why there is no process.
fn reasons(bench: &Bench) -> Vec<(&'static str, Option<ProcessUnknown>)> {
    let events = bench.kept.events.take().into_iter();
    let told = events.map(|event| match event.data {
        Data::Socket(data) => match data.holders {
            Some(Attribution::Unknown(why)) => (data.action.unwrap().0.as_str(), Some(why)),
            _ => (data.action.unwrap().0.as_str(), None),
        },
        other => panic!("{other:?}"),
    });
    told.collect()
}

#[test]
fn the_view_does_not_wait_and_the_events_keep_their_order() {
    let (mut bench, woken) = bench(vec![attributing()]);
    let now = bench.at(0);
    let none = Host::Unknown(HostUnknown::NotApplicable);
    let opening = bench.pipeline.open(opened(1, "10.0.0.9:80"), now);
    assert_eq!(opening, Verdict::Entered(none));
    bench.pipeline.search(now);
    bench.pipeline.close(closed(1, "10.0.0.9:80"), now);
    assert_eq!(reasons(&bench), []);
    woken.recv_timeout(Duration::from_secs(10)).unwrap();
    bench.pipeline.collect(bench.at(1));
    let why = Some(ProcessUnknown::NotPermitted);
    assert_eq!(reasons(&bench), [("opened", why), ("closed", why)]);
    let attributed = bench.pipeline.take_attributed();
    assert_eq!(attributed.len(), 1, "for whoever keeps the socket");
    assert_eq!(bench.pipeline.deadline(), None);
}

#[test]
fn after_the_timeout_an_event_goes_on_and_a_late_answer_is_for_the_close() {
    let (mut bench, woken) = bench(vec![attributing()]);
    let now = bench.at(0);
    bench.pipeline.open(opened(1, "10.0.0.9:80"), now);
    bench.pipeline.search(now);
    assert_eq!(bench.pipeline.deadline(), Some(bench.at(250).mono));
    bench.pipeline.expire(bench.at(249));
    assert_eq!(reasons(&bench), []);
    bench.pipeline.expire(bench.at(250));
    assert_eq!(reasons(&bench), [("opened", Some(ProcessUnknown::Timeout))]);
    assert_eq!(bench.stats.processes_timed_out.count(), 1);
    let timeout = bench.pipeline.take_attributed();
    assert_eq!(timeout[0].holders, TIMEOUT);
    woken.recv_timeout(Duration::from_secs(10)).unwrap();
    bench.pipeline.collect(bench.at(251));
    assert_eq!(reasons(&bench), []);
    let late = bench.pipeline.take_attributed();
    assert_eq!(late.len(), 1);
    assert_ne!(late[0].holders, TIMEOUT);
}

#[test]
fn at_the_end_nothing_is_held_back() {
    let (mut bench, _woken) = bench(vec![attributing()]);
    let now = bench.at(0);
    bench.pipeline.open(opened(1, "10.0.0.9:80"), now);
    bench.pipeline.finish(now);
    bench.pipeline.open(opened(2, "10.0.0.9:80"), now);
    let late = ("opened", Some(ProcessUnknown::Timeout));
    assert_eq!(reasons(&bench), [late, late]);
}

#[test]
fn what_is_known_or_cannot_be_known_is_told_at_once() {
    let (mut bench, _woken) = bench(vec![attributing()]);
    let now = bench.at(0);
    let unknown = |why| Some(Attribution::Unknown(why));
    for (owner, holders, expected) in [
        (
            Owner::Known { uid: 0, inode: 1 },
            unknown(ProcessUnknown::Gone),
            ProcessUnknown::Gone,
        ),
        (
            Owner::Unknown(OwnerUnknown::NotRead),
            None,
            ProcessUnknown::NotRead,
        ),
        (
            Owner::Unknown(OwnerUnknown::NoFile),
            None,
            ProcessUnknown::Kernel,
        ),
        (
            Owner::Known { uid: 0, inode: 0 },
            None,
            ProcessUnknown::Kernel,
        ),
    ] {
        let mut change = opened(1, "10.0.0.9:80");
        (change.owner, change.holders) = (owner, holders);
        bench.pipeline.open(change, now);
        assert_eq!(reasons(&bench), [("opened", Some(expected))]);
    }
    assert_eq!(bench.stats.processes_asked.count(), 0);
}

/// One that enters a view without an event is asked about for its close.
#[test]
fn a_silent_opening_is_asked_about_behind_the_others() {
    let (mut bench, woken) = bench(vec![attributing()]);
    bench.pipeline.open(silent(1, "10.0.0.9:80"), bench.at(0));
    assert_eq!(bench.stats.processes_asked.count(), 0);
    bench.pipeline.search(bench.at(0));
    assert_eq!(bench.stats.processes_asked.count(), 1);
    woken.recv_timeout(Duration::from_secs(10)).unwrap();
    bench.pipeline.collect(bench.at(1));
    assert_eq!(bench.pipeline.take_attributed().len(), 1);
    assert_eq!(reasons(&bench), []);
}

/// Nobody will be found who was not by then.
#[test]
fn an_end_waits_for_no_search() {
    let (mut bench, _woken) = bench(vec![attributing()]);
    let now = bench.at(0);
    bench.pipeline.open(opened(1, "10.0.0.9:80"), now);
    bench.pipeline.close(closed(1, "10.0.0.9:80"), now);
    let why = Some(ProcessUnknown::Gone);
    assert_eq!(reasons(&bench), [("opened", why), ("closed", why)]);
    assert_eq!(bench.pipeline.deadline(), None);
}

/// Other ends are no end: whoever has it still has it.
#[test]
fn a_rebound_socket_is_looked_for_on() {
    let (mut bench, woken) = bench(vec![attributing()]);
    let now = bench.at(0);
    bench.pipeline.open(opened(1, "10.0.0.9:80"), now);
    let rebound = |mut change: Change| {
        change.evidence = Evidence::Rebound;
        change
    };
    bench.pipeline.close(rebound(closed(1, "10.0.0.9:80")), now);
    bench.pipeline.open(rebound(opened(1, "10.0.0.9:81")), now);
    assert_eq!(reasons(&bench), []);
    bench.pipeline.search(now);
    woken.recv_timeout(Duration::from_secs(10)).unwrap();
    bench.pipeline.collect(bench.at(1));
    let why = Some(ProcessUnknown::NotPermitted);
    let expected = ["opened", "closed", "opened"].map(|action| (action, why));
    assert_eq!(reasons(&bench), expected);
}

/// A connection that waited to be accepted.
#[test]
fn a_socket_that_gets_an_owner_is_asked_about() {
    let (mut bench, _woken) = bench(vec![attributing()]);
    let now = bench.at(0);
    let Change { key, owner, .. } = opened(1, "10.0.0.9:80");
    bench.pipeline.owned(key, owner, 0b10);
    bench.pipeline.search(now);
    assert_eq!(bench.stats.processes_asked.count(), 0, "another sensor's");
    bench.pipeline.owned(key, owner, 0b11);
    bench.pipeline.search(now);
    assert_eq!(bench.stats.processes_asked.count(), 1);
}

/// More than can stand in line: the table is gone through instead.
#[test]
fn many_silent_openings_are_left_to_the_table() {
    let (mut bench, _woken) = bench(vec![attributing()]);
    let now = bench.at(0);
    for cookie in 0..4096 {
        bench.pipeline.open(silent(cookie, "10.0.0.9:80"), now);
    }
    assert!(!bench.pipeline.take_attribute_all());
    bench.pipeline.open(silent(5000, "10.0.0.9:80"), now);
    assert!(bench.pipeline.take_attribute_all());
    assert!(!bench.pipeline.take_attribute_all(), "told once");
    bench.pipeline.search(now);
    assert_eq!(bench.stats.processes_asked.count(), 0);
}

/// A base that is written meanwhile must not have the socket: a later run would
/// tell the end of what was never told as opened.
#[test]
fn what_waits_to_be_told_is_not_kept() {
    let (mut bench, _woken) = bench(vec![attributing(), stage(&[], false)]);
    let now = bench.at(0);
    let change = opened(1, "10.0.0.9:80");
    bench.pipeline.keep_journal(change.key.netns);
    bench.pipeline.open(change.clone(), now);
    let kept = |pipeline: &Pipeline, in_view| {
        let socket = kept(&change, in_view);
        pipeline.told(socket).map(|socket| socket.in_view)
    };
    assert_eq!(kept(&bench.pipeline, 0b01), None);
    assert_eq!(kept(&bench.pipeline, 0b11), Some(0b10), "another sensor's");
    bench.pipeline.expire(bench.at(250));
    assert_eq!(kept(&bench.pipeline, 0b11), Some(0b11));
    let mut again = opened(2, "10.0.0.9:80");
    again.evidence = Evidence::Restart;
    bench.pipeline.open(again.clone(), bench.at(250));
    let socket = self::kept(&again, 0b01);
    assert!(bench.pipeline.told(socket).is_some(), "a repetition");
}

fn kept(change: &Change, in_view: u32) -> Socket {
    Socket {
        cookie: change.key.cookie,
        kind: change.kind,
        id: change.id,
        state: change.state,
        direction: None,
        process: None,
        owner: change.owner,
        first_seen_ms: 0,
        in_view,
        name: None,
        no_name: None,
        nameless: 0,
    }
}

/// By the time a name comes, the socket and its process may have ended.
#[test]
fn who_has_a_socket_is_found_out_while_its_name_is_waited_for() {
    let stage = Stage {
        process: attributing().process,
        ..stage(&[], true)
    };
    let (mut bench, woken) = bench(vec![stage]);
    let now = bench.at(0);
    let opening = bench.pipeline.open(opened(1, "203.0.113.7:80"), now);
    assert_eq!(opening, Verdict::Waiting);
    bench.pipeline.search(now);
    assert_eq!(bench.stats.processes_asked.count(), 1);
    woken.recv_timeout(Duration::from_secs(10)).unwrap();
    bench.pipeline.collect(bench.at(1));
    assert_eq!(bench.pipeline.take_attributed().len(), 1);
    bench
        .pipeline
        .close(closed(1, "203.0.113.7:80"), bench.at(2));
    bench.answer("203.0.113.7", Ok("a.example"), 1500);
    let why = Some(ProcessUnknown::NotPermitted);
    assert_eq!(reasons(&bench), [("opened", why), ("closed", why)]);
    assert_eq!(bench.stats.processes_asked.count(), 1);
    assert_eq!(bench.pipeline.deadline(), None);
}

/// Nobody looks on for a socket that ended while its name was waited for.
#[test]
fn an_end_behind_a_name_ends_the_search() {
    let stage = Stage {
        process: attributing().process,
        ..stage(&[], true)
    };
    let (mut bench, _woken) = bench(vec![stage]);
    let now = bench.at(0);
    bench.pipeline.open(opened(1, "203.0.113.7:80"), now);
    bench.pipeline.close(closed(1, "203.0.113.7:80"), now);
    bench.answer("203.0.113.7", Ok("a.example"), 5);
    let why = Some(ProcessUnknown::Gone);
    assert_eq!(reasons(&bench), [("opened", why), ("closed", why)]);
    assert!(!bench.pipeline.attribution.is_looking());
}

/// The first sensor to hear of the end has the search given up: the others say the
/// same of the opening and of the end.
#[test]
fn all_sensors_say_the_same_of_a_socket_that_ended_behind_a_name() {
    let both = || Stage {
        process: attributing().process,
        ..stage(&[], true)
    };
    let (mut bench, _woken) = bench(vec![both(), both()]);
    let now = bench.at(0);
    let of = |sensor, mut change: Change| {
        change.sensor = SensorIx(sensor);
        change
    };
    for sensor in 0..2 {
        let opening = of(sensor, opened(1, "203.0.113.7:80"));
        bench.pipeline.open(opening, now);
    }
    for sensor in 0..2 {
        let end = of(sensor, closed(1, "203.0.113.7:80"));
        bench.pipeline.close(end, now);
    }
    bench.answer("203.0.113.7", Ok("a.example"), 5);
    let why = Some(ProcessUnknown::Gone);
    let both = [("opened", why), ("closed", why)];
    assert_eq!(reasons(&bench), [both, both].concat());
}
