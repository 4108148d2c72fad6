//! The pipeline without a kernel, a resolver or a terminal.

mod attribution;
mod cgroups;
mod connects;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::*;
use crate::emit::{Delivery, Loss, Sink};
use crate::enrich::ResolveError;
use crate::filter::Filter;
use crate::model::*;

/// A sink that keeps what it takes.
#[derive(Clone, Default)]
struct Kept {
    events: Rc<RefCell<Vec<Event>>>,
    refuse: Rc<RefCell<bool>>,
}

impl Sink for Kept {
    fn offer(&mut self, event: &Event) -> Delivery {
        if *self.refuse.borrow() {
            return Delivery::Dropped;
        }
        self.events.borrow_mut().push(event.clone());
        Delivery::Delivered
    }

    fn loss(&mut self) -> Option<Loss> {
        None
    }
}

/// A pipeline whose resolver answers when the test lets it.
struct Bench {
    pipeline: Pipeline,
    kept: Kept,
    answers: HashMap<IpAddr, Sender<Result<Vec<u8>, ResolveError>>>,
    woken: Receiver<()>,
    start: Now,
    stats: Rc<Stats>,
}

const SLOW: [&str; 2] = ["203.0.113.7", "203.0.113.8"];

impl Bench {
    fn new(stages: Vec<Stage>) -> Bench {
        let mut answers = HashMap::new();
        let mut waiting = HashMap::new();
        for ip in SLOW {
            let (sender, receiver) = channel();
            answers.insert(ip.parse().unwrap(), sender);
            waiting.insert(ip.parse::<IpAddr>().unwrap(), Mutex::new(receiver));
        }
        let resolver = move |ip: IpAddr| {
            let receiver = waiting[&ip].lock().unwrap_or_else(PoisonError::into_inner);
            receiver.recv().unwrap_or(Err(ResolveError::Failed))
        };
        let (wake, woken) = channel();
        let wake = Arc::new(move || wake.send(()).expect("the test listens"));
        let stats = Rc::new(Stats::default());
        let names = Names::with_resolver(2, wake, Rc::clone(&stats), Arc::new(resolver));
        let kept = Kept::default();
        let mut fan = Fan::new(Rc::clone(&stats));
        fan.add(kept.clone());
        let pipeline = Pipeline::new(stages, names, fan, Rc::clone(&stats));
        let start = Now {
            mono: Instant::now(),
            wall: SystemTime::UNIX_EPOCH,
        };
        Bench {
            pipeline,
            kept,
            answers,
            woken,
            start,
            stats,
        }
    }

    fn at(&self, ms: u64) -> Now {
        let past = Duration::from_millis(ms);
        Now {
            mono: self.start.mono + past,
            wall: self.start.wall + past,
        }
    }

    /// Lets the resolver answer about an address, and the pipeline hear of it.
    fn answer(&mut self, ip: &str, name: Result<&str, ResolveError>, ms: u64) {
        let answer = name.map(|name| name.as_bytes().to_vec());
        self.answers[&ip.parse().unwrap()].send(answer).unwrap();
        self.woken
            .recv_timeout(Duration::from_secs(10))
            .expect("the pool wakes the reactor");
        let now = self.at(ms);
        self.pipeline.collect(now);
    }

    /// What was emitted since the last call: action, remote, host.
    fn told(&self) -> Vec<String> {
        let events = self.kept.events.take().into_iter();
        let told = events.map(|event| match event.data {
            Data::Socket(data) => {
                let action = data.action.unwrap().0.as_str();
                format!("{action} {} {}", data.id.remote, data.host.as_str())
            }
            other => format!("{other:?}"),
        });
        told.collect()
    }
}

fn stage(patterns: &[&str], dns: bool) -> Stage {
    let patterns: Vec<_> = patterns.iter().map(|pattern| pattern.to_string()).collect();
    Stage {
        id: "s".into(),
        listener: Listener::NetSocket,
        results: false,
        tag: None,
        default_tag: "net.socket".into(),
        filter: Filter::new(&patterns, &[]).unwrap(),
        opened: true,
        closed: true,
        dns: dns.then_some(Dns {
            ttl: Duration::from_secs(60),
            timeout: Duration::from_secs(2),
            skip_special: true,
        }),
        process: None,
        locked: false,
    }
}

fn change(cookie: u64, remote: &str, step: Step) -> Change {
    let (ip, port) = remote.rsplit_once(':').unwrap();
    let local = ("10.0.0.1".parse().unwrap(), 4000);
    let peer = (ip.parse().unwrap(), port.parse().unwrap());
    Change {
        sensor: SensorIx(0),
        key: SocketKey::new(Netns(1), Cookie(cookie)),
        netns_name: None,
        kind: RowKind::Full,
        id: SockId::from_wire(Proto::Tcp, Family::V4, local, peer, 0),
        wiped: false,
        state: TcpState::Established,
        direction: None,
        process: None,
        holders: None,
        cgroup: Err(CgroupUnknown::NotTold),
        evidence: Evidence::Dump,
        between_ticks: false,
        owner: Owner::Known { uid: 0, inode: 1 },
        first_seen_ms: 0,
        host: Host::Unasked,
        step,
    }
}

fn opened(cookie: u64, remote: &str) -> Change {
    change(
        cookie,
        remote,
        Step::Opened {
            established_first: false,
            silent: false,
        },
    )
}

fn silent(cookie: u64, remote: &str) -> Change {
    change(
        cookie,
        remote,
        Step::Opened {
            established_first: false,
            silent: true,
        },
    )
}

fn closed(cookie: u64, remote: &str) -> Change {
    change(
        cookie,
        remote,
        Step::Closed {
            life: None,
            first: None,
            traffic: None,
        },
    )
}

#[test]
fn events_of_one_socket_wait_together_and_others_pass() {
    let mut bench = Bench::new(vec![stage(&[], true)]);
    let now = bench.at(0);
    assert_eq!(
        bench.pipeline.open(opened(1, "203.0.113.7:80"), now),
        Verdict::Waiting
    );
    bench.pipeline.close(closed(1, "203.0.113.7:80"), now);
    let skipped = Host::Unknown(HostUnknown::Skipped);
    assert_eq!(
        bench.pipeline.open(opened(2, "10.0.0.9:80"), now),
        Verdict::Entered(skipped)
    );
    assert_eq!(bench.told(), ["opened 10.0.0.9:80 -"]);
    bench.answer("203.0.113.7", Ok("A.Example.ORG."), 5);
    let expected = [
        "opened 203.0.113.7:80 a.example.org",
        "closed 203.0.113.7:80 a.example.org",
    ];
    assert_eq!(bench.told(), expected);
    let settled = bench.pipeline.take_settled();
    assert!(!settled[0].entered, "it has closed since");
    // The answer is known now.
    let named = Host::Named(Name::escaped(b"a.example.org"));
    assert_eq!(
        bench.pipeline.open(opened(3, "203.0.113.7:81"), now),
        Verdict::Entered(named)
    );
}

#[test]
fn a_name_that_does_not_match_keeps_the_socket_out() {
    let mut bench = Bench::new(vec![stage(&["tcp * * *.example.org *"], true)]);
    let now = bench.at(0);
    assert_eq!(
        bench.pipeline.open(opened(1, "203.0.113.7:80"), now),
        Verdict::Waiting
    );
    assert_eq!(
        bench.pipeline.open(opened(2, "203.0.113.8:80"), now),
        Verdict::Waiting
    );
    bench.pipeline.close(closed(1, "203.0.113.7:80"), now);
    bench.answer("203.0.113.7", Ok("example.net"), 1);
    bench.answer("203.0.113.8", Ok("b.example.org"), 2);
    assert_eq!(bench.told(), ["opened 203.0.113.8:80 b.example.org"]);
    let settled = bench.pipeline.take_settled();
    assert_eq!(
        settled.iter().map(|one| one.entered).collect::<Vec<_>>(),
        [false, true]
    );
}

#[test]
fn no_name_in_time_is_final() {
    let mut bench = Bench::new(vec![stage(&[], true)]);
    let now = bench.at(0);
    assert_eq!(
        bench.pipeline.open(opened(1, "203.0.113.7:80"), now),
        Verdict::Waiting
    );
    assert_eq!(bench.pipeline.deadline(), Some(bench.at(2000).mono));
    bench.pipeline.expire(bench.at(1999));
    assert_eq!(bench.told(), [""; 0]);
    bench.pipeline.expire(bench.at(2000));
    assert_eq!(bench.told(), ["opened 203.0.113.7:80 -"]);
    let settled = bench.pipeline.take_settled();
    assert_eq!(settled[0].host, Host::Unknown(HostUnknown::TimedOut));
    assert_eq!(bench.stats.names_timed_out.count(), 1);
    bench.answer("203.0.113.7", Ok("late.example.org"), 3000);
    let close = Change {
        host: settled[0].host.clone(),
        ..closed(1, "203.0.113.7:80")
    };
    bench.pipeline.close(close, bench.at(3000));
    assert_eq!(bench.told(), ["closed 203.0.113.7:80 -"]);
    assert_eq!(bench.pipeline.deadline(), None);
}

#[test]
fn a_socket_that_changes_while_it_waits_gets_another_chance() {
    let patterns = [
        "tcp * * a.example SYN_SENT",
        "tcp * * b.example ESTABLISHED",
    ];
    let mut bench = Bench::new(vec![stage(&patterns, true)]);
    let now = bench.at(0);
    let syn = Change {
        state: TcpState::SynSent,
        ..opened(1, "203.0.113.7:80")
    };
    assert_eq!(bench.pipeline.open(syn, now), Verdict::Waiting);
    assert_eq!(
        bench.pipeline.open(opened(1, "203.0.113.7:80"), now),
        Verdict::Waiting
    );
    bench.answer("203.0.113.7", Ok("b.example"), 1);
    assert_eq!(bench.told(), ["opened 203.0.113.7:80 b.example"]);
    assert!(bench.pipeline.take_settled()[0].entered);
}

#[test]
fn a_rebound_while_waiting_stays_in_order() {
    let mut bench = Bench::new(vec![stage(&[], true)]);
    let now = bench.at(0);
    assert_eq!(
        bench.pipeline.open(opened(1, "203.0.113.7:80"), now),
        Verdict::Waiting
    );
    bench.pipeline.close(closed(1, "203.0.113.7:80"), now);
    assert_eq!(
        bench.pipeline.open(opened(1, "203.0.113.8:80"), now),
        Verdict::Waiting
    );
    bench.answer("203.0.113.7", Err(ResolveError::NotFound), 1);
    assert_eq!(
        bench.told(),
        ["opened 203.0.113.7:80 -", "closed 203.0.113.7:80 -"]
    );
    assert_eq!(
        bench.pipeline.take_settled(),
        [],
        "the second peer is still asked about"
    );
    bench.answer("203.0.113.8", Ok("b.example"), 2);
    assert_eq!(bench.told(), ["opened 203.0.113.8:80 b.example"]);
    assert!(bench.pipeline.take_settled()[0].entered);
}

#[test]
fn what_enters_silently_is_asked_about_when_it_closes() {
    let mut bench = Bench::new(vec![stage(&["tcp *"], true)]);
    let now = bench.at(0);
    let entered = bench.pipeline.open(silent(1, "203.0.113.7:80"), now);
    assert_eq!(entered, Verdict::Entered(Host::Unasked));
    assert_eq!(bench.stats.lookups.count(), 0);
    bench.pipeline.close(closed(1, "203.0.113.7:80"), now);
    bench.answer("203.0.113.7", Ok("a.example"), 1);
    assert_eq!(bench.told(), ["closed 203.0.113.7:80 a.example"]);
}

#[test]
fn a_locked_id_is_muted_and_asks_nobody() {
    let mut bench = Bench::new(vec![Stage {
        locked: true,
        ..stage(&[], true)
    }]);
    let now = bench.at(0);
    assert_eq!(
        bench.pipeline.open(opened(1, "203.0.113.7:80"), now),
        Verdict::Waiting
    );
    bench.answer("203.0.113.7", Ok("a.example"), 1);
    let late = bench.at(120_000); // the name has expired
    let entered = bench.pipeline.open(opened(2, "203.0.113.7:80"), late);
    assert_eq!(entered, Verdict::Entered(Host::Unasked));
    assert_eq!(bench.told(), ["opened 203.0.113.7:80 a.example"]);
    assert_eq!(
        (
            bench.stats.lookups.count(),
            bench.stats.events_muted.count()
        ),
        (1, 1)
    );
    assert_eq!(
        bench.pipeline.release_locks(),
        Released { locks: 1, muted: 1 }
    );
}

#[test]
fn an_event_that_no_sink_took_releases_its_lock() {
    let mut bench = Bench::new(vec![Stage {
        locked: true,
        ..stage(&[], false)
    }]);
    let now = bench.at(0);
    *bench.kept.refuse.borrow_mut() = true;
    bench.pipeline.open(opened(1, "10.0.0.9:80"), now);
    *bench.kept.refuse.borrow_mut() = false;
    bench.pipeline.open(opened(2, "10.0.0.9:80"), now);
    bench.pipeline.open(opened(3, "10.0.0.9:80"), now);
    assert_eq!(bench.told().len(), 1);
    assert_eq!(bench.stats.events_dropped.count(), 1);
    assert_eq!(
        bench.pipeline.release_locks(),
        Released { locks: 1, muted: 1 }
    );
}

#[test]
fn the_end_leaves_nothing_waiting() {
    let mut bench = Bench::new(vec![stage(&[], true)]);
    let now = bench.at(0);
    bench.pipeline.open(opened(1, "203.0.113.7:80"), now);
    bench.pipeline.open(opened(2, "203.0.113.8:80"), now);
    bench.pipeline.close(closed(1, "203.0.113.7:80"), now);
    bench.pipeline.finish(now);
    let expected = [
        "opened 203.0.113.7:80 -",
        "closed 203.0.113.7:80 -",
        "opened 203.0.113.8:80 -",
    ];
    assert_eq!(bench.told(), expected);
    assert_eq!(bench.pipeline.deadline(), None);
}

#[test]
fn the_end_leaves_no_line_that_waits_for_a_second_name() {
    let mut bench = Bench::new(vec![stage(&[], true)]);
    let now = bench.at(0);
    bench.pipeline.open(opened(1, "203.0.113.7:80"), now);
    bench.pipeline.close(closed(1, "203.0.113.7:80"), now);
    bench.pipeline.open(opened(1, "203.0.113.8:80"), now);
    bench.pipeline.close(closed(1, "203.0.113.8:80"), now);
    bench.pipeline.finish(now);
    assert_eq!(bench.told().len(), 4);
    assert_eq!(bench.pipeline.deadline(), None);
}

#[test]
fn event_ids_and_numbers() {
    let tagged = Stage {
        tag: Some("t".into()),
        ..stage(&[], false)
    };
    let mut bench = Bench::new(vec![tagged]);
    let now = bench.at(0);
    bench.pipeline.open(opened(1, "10.0.0.9:80"), now);
    bench.pipeline.close(closed(1, "10.0.0.9:80"), now);
    let events = bench.kept.events.borrow();
    assert_eq!(events[0].eid, "s|net.socket@t|opened@10.0.0.9:80|0");
    assert_eq!(events[1].eid, "s|net.socket@t|closed@10.0.0.9:80|0");
    assert_eq!((events[0].seq, events[1].seq), (1, 2));
}

#[test]
fn what_waits_goes_on_under_other_numbers() {
    let named = |id: &str| Stage {
        id: id.into(),
        ..stage(&[], true)
    };
    let mut bench = Bench::new(vec![named("gone"), named("kept")]);
    bench.pipeline.keep_journal(Netns(1));
    let now = bench.at(0);
    let of = |sensor, change| Change {
        sensor: SensorIx(sensor),
        ..change
    };
    for sensor in [0, 1] {
        let waits = of(sensor, opened(1, "203.0.113.7:80"));
        assert_eq!(bench.pipeline.open(waits, now), Verdict::Waiting);
    }
    bench
        .pipeline
        .close(of(1, closed(1, "203.0.113.7:80")), now);
    let mut sensors = Renumbering::NONE;
    sensors.keep(SensorIx(1), SensorIx(0));
    bench.pipeline.replace(vec![named("kept")], &sensors, now);
    let told: Vec<_> = bench.kept.events.take();
    assert_eq!(&*told[0].sensor, "gone", "it goes without a name");
    assert!(bench.pipeline.take_settled().is_empty(), "its view is gone");
    bench.answer("203.0.113.7", Ok("a.example"), 5);
    let told = bench.kept.events.take();
    let ids: Vec<&str> = told.iter().map(|event| &*event.sensor).collect();
    assert_eq!(ids, ["kept", "kept"]);
    let settled = bench.pipeline.take_settled();
    assert_eq!((settled.len(), settled[0].sensor), (1, SensorIx(0)));
    assert!(bench.pipeline.journal_mut().unwrap().is_urgent());
}

#[test]
fn silent_openings_are_noted_as_one_or_each_by_itself() {
    let mut bench = Bench::new(vec![stage(&["tcp * * *.example *"], true)]);
    bench.pipeline.keep_journal(Netns(1));
    let now = bench.at(0);
    bench.pipeline.open(silent(1, "203.0.113.7:80"), now);
    bench.answer("203.0.113.7", Ok("a.example"), 5);
    assert!(!bench.pipeline.take_unnoted());
    assert!(bench.pipeline.journal_mut().unwrap().is_urgent());
    bench.pipeline.open(silent(2, "203.0.113.7:80"), now);
    assert!(
        bench.pipeline.take_unnoted(),
        "as at the end of a first dump"
    );
    assert!(!bench.pipeline.take_unnoted());
}

#[test]
fn what_is_missing_of_a_source_is_missing_part_by_part() {
    let mut bench = Bench::new(vec![stage(&[], false)]);
    let degraded = Degraded {
        source: "x",
        missing: vec!["a"],
        reason: String::new(),
        cost: String::new(),
    };
    bench.pipeline.degraded(degraded, bench.at(0));
    let missing = |bench: &Bench, part| bench.pipeline.is_missing("x", part);
    assert!(missing(&bench, "a") && !missing(&bench, "b"));
    for (part, left) in [("b", true), ("a", false)] {
        let (source, parts) = ("x", vec![part]);
        bench
            .pipeline
            .restored(Restored { source, parts }, bench.at(1));
        assert_eq!(missing(&bench, "a"), left, "{part}");
    }
}
