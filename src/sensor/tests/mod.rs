//! The sensor without a kernel: each race by hand, then ([`machine`]) all of them
//! at random.

mod carry;
mod machine;
mod narrow;
mod ways;

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use super::{NetSocket, View};
use crate::model::*;
use crate::stats::Stats;

const NETNS: Netns = Netns(1);

/// Lets everything in, and remembers what it was told.
#[derive(Default)]
struct Recorder {
    told: Vec<Change>,
    /// Sockets that got an owner, and in whose views they are.
    owned: Vec<(u64, u32)>,
    /// States that do not pass.
    refused: Vec<TcpState>,
    /// The sensors whose views are of no interest.
    unheard: u32,
}

impl Judge for Recorder {
    fn owned(&mut self, key: SocketKey, _owner: Owner, sensors: u32) {
        self.owned.push((key.cookie.0, sensors));
    }

    fn open(&mut self, change: Change, _now: Now) -> Verdict {
        let established_first = matches!(
            change.step,
            Step::Opened {
                established_first: true,
                ..
            }
        );
        let passes = |state| !self.refused.contains(&state);
        let first = established_first && passes(TcpState::Established);
        if !first && !passes(change.state) {
            return Verdict::Dropped(Host::Unasked);
        }
        if !change.is_silent() && self.unheard & change.sensor.bit() == 0 {
            self.told.push(change);
        }
        Verdict::Entered(Host::Unasked)
    }

    fn close(&mut self, change: Change, _now: Now) {
        if self.unheard & change.sensor.bit() == 0 {
            self.told.push(change);
        }
    }
}

impl Recorder {
    /// What was told since the last call, in short.
    fn take(&mut self) -> Vec<(u64, Action, Evidence, TcpState)> {
        self.told
            .drain(..)
            .map(|one| (one.key.cookie.0, one.action(), one.evidence, one.state))
            .collect()
    }
}

struct Bench {
    sensor: NetSocket,
    judge: Recorder,
    start: Instant,
    ms: u64,
}

impl Bench {
    fn new(view: View) -> Bench {
        let start = Instant::now();
        let now = Now {
            mono: start,
            wall: SystemTime::UNIX_EPOCH,
        };
        let stats = Rc::new(Stats::default());
        let sensor = NetSocket::new(NETNS, vec![view], Needs::EVERYTHING, stats, now);
        Bench {
            sensor,
            judge: Recorder::default(),
            start,
            ms: 0,
        }
    }

    fn plain() -> Bench {
        let mut bench = Bench::new(view());
        bench.dump_all(&[]);
        bench
    }

    fn now(&self) -> Now {
        let past = Duration::from_millis(self.ms);
        Now {
            mono: self.start + past,
            wall: SystemTime::UNIX_EPOCH + past,
        }
    }

    fn dump(&mut self, coverage: Coverage, rows: &[Row]) {
        let now = self.now();
        self.sensor.begin_dump(coverage, now);
        for row in rows.iter().filter(|row| coverage.proto == row.id.proto) {
            self.sensor.row(*row, now);
        }
        self.sensor.end_dump(now, &mut self.judge);
    }

    fn dump_all(&mut self, rows: &[Row]) {
        for coverage in coverages() {
            self.dump(coverage, rows);
        }
    }

    fn notice(&mut self, notice: Notice) {
        let now = self.now();
        self.sensor.notice(notice, now, &mut self.judge);
    }

    fn answer(&mut self, found: impl Fn(&super::absence::Suspect) -> Option<Row>) {
        let now = self.now();
        while let Some(suspect) = self.sensor.next_suspect() {
            let row = found(&suspect);
            self.sensor.answered(suspect, row, now, &mut self.judge);
        }
    }
}

fn view() -> View {
    View {
        sensor: SensorIx(0),
        initial: false,
        time_wait: false,
        syn_recv: false,
        sought: Sought::ALL,
    }
}

fn coverages() -> [Coverage; 2] {
    let groups = Needs::EVERYTHING.tcp;
    [
        Coverage {
            proto: Proto::Tcp,
            family: None,
            groups,
        },
        Coverage {
            proto: Proto::Udp,
            family: None,
            groups: StateGroups::ALL,
        },
    ]
}

fn id(proto: Proto, local: u16, remote: u16) -> SockId {
    let peer = if remote == 0 { "0.0.0.0" } else { "10.0.0.2" };
    SockId::from_wire(
        proto,
        Family::V4,
        ("10.0.0.1".parse().unwrap(), local),
        (peer.parse().unwrap(), remote),
        0,
    )
}

fn row(cookie: u64, id: SockId, state: TcpState) -> Row {
    let kind = if state == TcpState::TimeWait {
        RowKind::Mini
    } else {
        RowKind::Full
    };
    let owner = Owner::Known {
        uid: 7,
        inode: cookie as u32,
    };
    Row {
        cookie: Cookie(cookie),
        id,
        state,
        kind,
        owner,
        cgroup: 0,
    }
}

fn established() -> TcpInfo {
    TcpInfo {
        rcv_space: 1,
        advmss: 1,
        segs_out: Some(2),
        segs_in: Some(2),
        ..TcpInfo::default()
    }
}

fn notice(cookie: u64, id: SockId, tcp: TcpInfo) -> Notice {
    let tcp = (id.proto == Proto::Tcp).then_some(tcp);
    Notice {
        cookie: Cookie(cookie),
        id,
        tcp,
    }
}

use Action::{Closed, Opened};
use TcpState::{Close, CloseWait, Established, Listen, SynSent, TimeWait};

#[test]
fn a_row_read_after_its_notice_opens_nothing() {
    let mut bench = Bench::plain();
    let tcp = id(Proto::Tcp, 1, 80);
    let now = bench.now();
    bench.sensor.begin_dump(coverages()[0], now);
    bench.notice(notice(5, tcp, established()));
    bench.sensor.row(row(5, tcp, Established), now);
    bench.sensor.end_dump(now, &mut bench.judge);
    let expected = [
        (5, Opened, Evidence::Notified, Established),
        (5, Closed, Evidence::Notified, Established),
    ];
    assert_eq!(bench.judge.take(), expected);
    bench.dump_all(&[row(5, tcp, TimeWait)]);
    assert_eq!(bench.judge.take(), []);
}

#[test]
fn a_socket_read_by_the_dump_under_way_and_gone_keeps_its_owner() {
    let mut bench = Bench::plain();
    let tcp = id(Proto::Tcp, 1, 80);
    let now = bench.now();
    bench.sensor.begin_dump(coverages()[0], now);
    bench.sensor.row(row(5, tcp, Established), now);
    bench.notice(notice(5, tcp, established()));
    assert!(bench.judge.told.iter().all(|one| !one.between_ticks));
    assert!(
        bench
            .judge
            .told
            .iter()
            .all(|one| one.owner == Owner::Known { uid: 7, inode: 5 })
    );
    assert_eq!(bench.judge.take().len(), 2);
    bench.sensor.end_dump(now, &mut bench.judge);
    assert_eq!(bench.judge.take(), []);
}

#[test]
fn a_failed_dump_changes_nothing() {
    let mut bench = Bench::plain();
    let (old, new) = (id(Proto::Tcp, 1, 80), id(Proto::Tcp, 2, 80));
    bench.dump_all(&[row(1, old, SynSent)]);
    bench.judge.take();
    let now = bench.now();
    bench.sensor.begin_dump(coverages()[0], now);
    bench.sensor.row(row(1, old, Established), now);
    bench.sensor.row(row(2, new, Established), now);
    bench.sensor.fail_dump(now);
    assert_eq!(bench.judge.take(), []);
    assert_eq!(bench.sensor.len(), 1);
    bench.dump_all(&[row(1, old, SynSent), row(2, new, Established)]);
    assert_eq!(
        bench.judge.take(),
        [(2, Opened, Evidence::Dump, Established)]
    );
}

#[test]
fn before_the_first_dump_completes_notices_only_leave_tombstones() {
    let mut bench = Bench::new(View {
        initial: true,
        ..view()
    });
    let tcp = id(Proto::Tcp, 1, 80);
    let now = bench.now();
    bench.sensor.begin_dump(coverages()[0], now);
    bench.sensor.row(row(6, tcp, Established), now);
    bench.notice(notice(5, tcp, established()));
    bench.notice(notice(6, tcp, established()));
    bench.sensor.row(row(5, tcp, Established), now);
    bench.sensor.row(row(7, tcp, Established), now);
    bench.sensor.end_dump(now, &mut bench.judge);
    assert_eq!(
        bench.judge.take(),
        [(7, Opened, Evidence::Dump, Established)]
    );
}

#[test]
fn a_view_is_entered_once_whatever_the_state_becomes() {
    let mut bench = Bench::plain();
    bench.judge.refused = vec![SynSent];
    let tcp = id(Proto::Tcp, 1, 80);
    bench.dump_all(&[row(1, tcp, SynSent)]);
    assert_eq!(bench.judge.take(), []);
    bench.dump_all(&[row(1, tcp, Established)]);
    bench.dump_all(&[row(1, tcp, CloseWait)]);
    assert_eq!(
        bench.judge.take(),
        [(1, Opened, Evidence::Dump, Established)]
    );
    bench.notice(notice(1, tcp, established()));
    assert_eq!(
        bench.judge.take(),
        [(1, Closed, Evidence::Notified, CloseWait)]
    );
}

#[test]
fn a_notice_that_proves_a_handshake_lets_the_socket_in_first() {
    let mut bench = Bench::plain();
    bench.judge.refused = vec![SynSent];
    let tcp = id(Proto::Tcp, 1, 80);
    bench.dump_all(&[row(1, tcp, SynSent)]);
    bench.notice(notice(1, tcp, established()));
    let expected = [
        (1, Opened, Evidence::Notified, Established),
        (1, Closed, Evidence::Notified, Established),
    ];
    assert_eq!(bench.judge.take(), expected);
}

#[test]
fn new_ends_under_one_cookie_are_a_rebound_unless_they_are_wiped() {
    let mut bench = Bench::plain();
    let (first, second) = (id(Proto::Udp, 1, 53), id(Proto::Udp, 1, 54));
    bench.dump_all(&[row(1, first, Established)]);
    bench.dump_all(&[row(1, second, Established)]);
    let told: Vec<_> = bench
        .judge
        .told
        .iter()
        .map(|one| one.id.remote.port)
        .collect();
    assert_eq!(told, [53, 53, 54]);
    assert_eq!(
        bench.judge.take()[1],
        (1, Closed, Evidence::Rebound, Established)
    );
    bench.notice(notice(1, first, established()));
    let told: Vec<_> = bench.judge.take();
    let evidence: Vec<_> = told.iter().map(|one| (one.1, one.2)).collect();
    let expected = [
        (Closed, Evidence::Rebound),
        (Opened, Evidence::Rebound),
        (Closed, Evidence::Notified),
    ];
    assert_eq!(evidence, expected);

    let tcp = id(Proto::Tcp, 9, 80);
    bench.dump_all(&[row(2, tcp, Established)]);
    bench.judge.take();
    bench.notice(notice(
        2,
        id(Proto::Tcp, 9, 0),
        TcpInfo {
            rcv_space: 1,
            ..TcpInfo::default()
        },
    ));
    let closed = bench.judge.told.pop().unwrap();
    assert_eq!(
        (closed.id.remote.port, closed.wiped),
        (80, false),
        "the table's ends win"
    );
}

#[test]
fn a_bound_socket_that_connected_unseen_is_told_to_who_waits_for_connections() {
    let mut wiped = id(Proto::Tcp, 9, 0);
    wiped.remote.ip = "10.0.0.2".parse().unwrap();
    let proof = TcpInfo {
        rcv_space: 1,
        advmss: 1,
        ..TcpInfo::default()
    };
    let mut bench = Bench::plain();
    bench.judge.refused = vec![Close];
    bench.dump_all(&[row(1, id(Proto::Tcp, 9, 0), Close)]);
    bench.notice(notice(1, wiped, proof));
    assert!(
        bench
            .judge
            .told
            .iter()
            .all(|one| one.wiped && one.id.remote.ip == wiped.remote.ip)
    );
    let expected = [
        (1, Opened, Evidence::Notified, Established),
        (1, Closed, Evidence::Notified, Established),
    ];
    assert_eq!(bench.judge.take(), expected);
    // In view as bound, the table's ends win.
    let mut bench = Bench::plain();
    bench.dump_all(&[row(1, id(Proto::Tcp, 9, 0), Close)]);
    bench.judge.take();
    bench.notice(notice(1, wiped, proof));
    assert_eq!(bench.judge.take(), [(1, Closed, Evidence::Notified, Close)]);
}

/// Seen on Linux 6.18 under load: a row of the bound sockets that connect() had
/// just bound, without its local port, before the same socket as ESTABLISHED.
#[test]
fn a_row_without_a_port_is_a_socket_in_the_making() {
    let mut bench = Bench::plain();
    bench.dump_all(&[]);
    bench.dump_all(&[row(1, id(Proto::Tcp, 0, 80), Close)]);
    assert_eq!(bench.judge.take(), []);
    bench.dump_all(&[row(1, id(Proto::Tcp, 5, 80), Established)]);
    assert_eq!(bench.judge.take().len(), 1, "opened, and no rebound");
    bench.dump_all(&[row(1, id(Proto::Tcp, 0, 80), Close)]);
    assert_eq!(bench.judge.take(), [], "nor later");
}

#[test]
fn a_notice_without_any_port_is_nothing() {
    let mut bench = Bench::plain();
    bench.notice(notice(1, id(Proto::Tcp, 0, 0), TcpInfo::default()));
    assert_eq!(bench.judge.take(), []);
}

#[test]
fn what_a_closed_event_says_of_its_life() {
    let mut bench = Bench::plain();
    bench.ms = 1000;
    bench.dump_all(&[]);
    bench.ms = 1400;
    let tcp = id(Proto::Tcp, 1, 80);
    let told = TcpInfo {
        last_data_sent_ms: 90,
        last_data_recv_ms: 7_000_000,
        ..established()
    };
    bench.notice(notice(1, tcp, told));
    let life = |change: &Change| match change.step {
        Step::Closed { life, .. } => life,
        Step::Opened { .. } => None,
    };
    let expected = Life::Between {
        min_ms: None,
        max_ms: Some(401),
    };
    assert_eq!(
        life(&bench.judge.told[1]),
        Some(expected),
        "a clock that never started is no clock"
    );
    let told = TcpInfo {
        last_data_recv_ms: 80,
        ..told
    };
    bench.notice(notice(2, tcp, told));
    let expected = Life::Between {
        min_ms: Some(80),
        max_ms: Some(401),
    };
    assert_eq!(life(&bench.judge.told[3]), Some(expected));
    bench.judge.take();
    bench.ms = 1420;
    bench.dump_all(&[]);
    bench.ms = 1430;
    bench.notice(notice(4, tcp, told));
    let expected = Life::Between {
        min_ms: Some(80),
        max_ms: Some(431),
    };
    assert_eq!(
        life(&bench.judge.told[1]),
        Some(expected),
        "it may have ended before the dump of 10 ms ago"
    );
    bench.judge.take();
    bench.ms = 1400;
    bench.dump_all(&[row(3, tcp, Established)]);
    bench.ms = 1650;
    bench.notice(notice(3, tcp, established()));
    assert_eq!(life(&bench.judge.told[1]), Some(Life::Seen { ms: 250 }));
}

#[test]
fn an_overrun_is_reconciled_by_query_or_by_two_absences() {
    let mut bench = Bench::plain();
    let live = [
        row(1, id(Proto::Tcp, 1, 80), Established),
        row(2, id(Proto::Tcp, 2, 0), Listen),
        row(3, id(Proto::Udp, 3, 0), Close),
    ];
    let dead = [
        row(4, id(Proto::Tcp, 4, 80), Established),
        row(5, id(Proto::Tcp, 5, 0), Listen),
        row(6, id(Proto::Udp, 6, 0), Close),
        row(7, id(Proto::Tcp, 7, 0), Close),
    ];
    bench.dump_all(&[&live[..], &dead[..]].concat());
    bench.judge.take();
    bench.sensor.overrun(bench.now());
    assert_eq!(bench.sensor.wants_dump(), Some(Needs::EVERYTHING));
    // The dump lies about a live connection and a live listener.
    bench.dump_all(&[live[2]]);
    bench.answer(|suspect| (suspect.key.cookie.0 == 1).then_some(live[0]));
    assert_eq!(
        bench.judge.take(),
        [(4, Closed, Evidence::Verified, Established)]
    );
    let now = bench.now();
    assert_eq!(
        bench.sensor.settled_gap(now),
        None,
        "some must be missing twice"
    );
    bench.dump_all(&live);
    let mut told = bench.judge.take();
    told.sort_by_key(|one| one.0);
    let expected = [
        (5, Closed, Evidence::Verified, Listen),
        (6, Closed, Evidence::Verified, Close),
        (7, Closed, Evidence::Verified, Close),
    ];
    assert_eq!(told, expected);
    let gap = bench.sensor.settled_gap(now).unwrap();
    assert_eq!(gap.closed_recovered, Some(4));
    assert_eq!(bench.sensor.wants_dump(), None);
    // The late notice of a recovered end closes nothing twice.
    bench.notice(notice(4, dead[0].id, established()));
    assert_eq!(bench.judge.take(), []);
    bench.dump_all(&[]);
    assert_eq!(
        bench.judge.take(),
        [],
        "without a gap absence is not looked at"
    );
}

#[test]
fn a_dump_begun_before_the_overrun_settles_nothing() {
    let mut bench = Bench::plain();
    let tcp = row(1, id(Proto::Tcp, 1, 80), Established);
    bench.dump_all(&[tcp]);
    let now = bench.now();
    bench.sensor.begin_dump(coverages()[0], now);
    bench.sensor.row(tcp, now);
    bench.sensor.overrun(now);
    bench.sensor.end_dump(now, &mut bench.judge);
    assert_eq!(bench.sensor.wants_dump(), Some(Needs::EVERYTHING));
    assert_eq!(bench.sensor.settled_gap(now), None);
    // Nor does one that does not cover all that sensors need.
    bench.dump(
        Coverage {
            groups: StateGroups::LISTEN,
            ..coverages()[0]
        },
        &[],
    );
    assert_eq!(bench.sensor.wants_dump(), Some(Needs::EVERYTHING));
}

#[test]
fn without_notices_ends_are_found_at_ticks() {
    let mut bench = Bench::plain();
    bench.sensor.blind(Family::V4, Proto::Tcp);
    let tcp = row(1, id(Proto::Tcp, 1, 80), Established);
    let listener = row(2, id(Proto::Tcp, 2, 0), Listen);
    bench.dump_all(&[tcp, listener]);
    bench.judge.take();
    bench.dump_all(&[]);
    bench.answer(|_| None);
    assert_eq!(
        bench.judge.take(),
        [(1, Closed, Evidence::Verified, Established)]
    );
    bench.dump_all(&[listener]);
    bench.dump_all(&[]);
    assert_eq!(
        bench.judge.take(),
        [],
        "present in between: missing once again"
    );
    bench.dump_all(&[]);
    assert_eq!(
        bench.judge.take(),
        [(2, Closed, Evidence::Verified, Listen)]
    );
}

#[test]
fn what_ended_while_notices_could_not_be_had_is_found_when_they_can() {
    let mut bench = Bench::plain();
    bench.sensor.blind(Family::V4, Proto::Udp);
    let udp = row(1, id(Proto::Udp, 1, 0), Close);
    bench.dump_all(&[udp]);
    bench.judge.take();
    let now = bench.now();
    bench.sensor.sees(Family::V4, Proto::Udp, now);
    assert!(bench.sensor.wants_dump().is_some());
    bench.dump_all(&[]);
    bench.dump_all(&[]);
    assert_eq!(bench.judge.take(), [(1, Closed, Evidence::Verified, Close)]);
    assert_eq!(bench.sensor.settled_gap(now), None, "nothing was dropped");
    assert_eq!(bench.sensor.wants_dump(), None);
}

#[test]
fn a_group_that_comes_back_does_not_disturb_a_gap() {
    let mut bench = Bench::plain();
    bench.sensor.blind(Family::V6, Proto::Tcp);
    bench.dump_all(&[row(1, id(Proto::Udp, 1, 0), Close)]);
    bench.judge.take();
    let now = bench.now();
    bench.sensor.overrun(now);
    bench.dump_all(&[]);
    bench.sensor.sees(Family::V6, Proto::Tcp, now);
    bench.dump_all(&[]);
    bench.dump_all(&[]);
    assert_eq!(bench.judge.take(), [(1, Closed, Evidence::Verified, Close)]);
    let gap = bench.sensor.settled_gap(now).expect("the overrun is told");
    assert_eq!(gap.closed_recovered, Some(1));
}

#[test]
fn a_row_of_an_own_socket_read_after_its_notice_opens_nothing() {
    let mut bench = Bench::plain();
    let udp = id(Proto::Udp, 1, 53);
    let now = bench.now();
    bench.sensor.begin_dump(coverages()[1], now);
    bench.sensor.disown(&[Cookie(6)]);
    bench.notice(notice(6, udp, TcpInfo::default()));
    bench.sensor.row(row(6, udp, Established), now);
    bench.sensor.end_dump(now, &mut bench.judge);
    assert_eq!(bench.judge.take(), []);
    assert!(bench.sensor.is_empty());
}

#[test]
fn a_query_that_fails_convicts_nobody() {
    let mut bench = Bench::plain();
    let tcp = row(1, id(Proto::Tcp, 1, 80), Established);
    bench.dump_all(&[tcp]);
    bench.judge.take();
    let now = bench.now();
    bench.sensor.overrun(now);
    bench.dump_all(&[]);
    let suspect = bench.sensor.next_suspect().unwrap();
    bench.sensor.unanswered(suspect);
    assert_eq!(bench.judge.take(), []);
    assert_eq!(bench.sensor.settled_gap(now), None);
    assert!(
        bench.sensor.wants_dump().is_some(),
        "it is asked about after another dump"
    );
    bench.dump_all(&[]);
    assert_eq!(
        bench.judge.take(),
        [(1, Closed, Evidence::Verified, Established)],
        "missing twice convicts where nobody can be asked"
    );
    assert!(bench.sensor.next_suspect().is_none());
    assert!(bench.sensor.settled_gap(now).is_some());
}

#[test]
fn a_failed_dump_leaves_the_tombstones() {
    let mut bench = Bench::plain();
    let tcp = row(1, id(Proto::Tcp, 1, 80), Established);
    bench.dump_all(&[tcp]);
    bench.sensor.overrun(bench.now());
    bench.dump_all(&[]);
    bench.answer(|_| None);
    let now = bench.now();
    bench.sensor.begin_dump(coverages()[0], now);
    bench.sensor.row(tcp, now);
    bench.sensor.fail_dump(now);
    bench.judge.take();
    bench.notice(notice(1, tcp.id, established()));
    assert_eq!(bench.judge.take(), [], "it was closed before");
}

#[test]
fn without_a_dump_nothing_is_kept_of_what_has_ended() {
    let mut bench = Bench::plain();
    for cookie in 1..1000 {
        bench.notice(notice(cookie, id(Proto::Tcp, 1, 80), established()));
    }
    assert_eq!(bench.judge.take().len(), 2 * 999);
    assert!(bench.sensor.graves.is_empty());
}

#[test]
fn a_socket_known_as_own_too_late_is_closed_all_the_same() {
    let mut bench = Bench::plain();
    let udp = row(1, id(Proto::Udp, 1, 53), Established);
    bench.dump_all(&[udp]);
    bench.sensor.disown(&[Cookie(1)]);
    bench.notice(notice(1, udp.id, TcpInfo::default()));
    let told: Vec<_> = bench.judge.take().iter().map(|one| one.1).collect();
    assert_eq!(told, [Opened, Closed]);
    // Known before the dump that read it completes: it is nothing.
    let now = bench.now();
    bench.sensor.begin_dump(coverages()[1], now);
    bench.sensor.row(row(2, udp.id, Established), now);
    bench.sensor.disown(&[Cookie(2)]);
    bench.sensor.end_dump(now, &mut bench.judge);
    assert_eq!(bench.judge.take(), []);
    for _ in 0..10 {
        bench.dump_all(&[]);
    }
    assert!(
        bench.sensor.own.is_empty(),
        "own cookies are not kept for ever"
    );
}

#[test]
fn minisockets_are_watched_only_where_asked_for_and_end_verified() {
    let tcp = id(Proto::Tcp, 1, 80);
    let mut bench = Bench::plain();
    bench.dump_all(&[row(1, tcp, TimeWait)]);
    assert_eq!(bench.judge.take(), []);
    let mut bench = Bench::new(View {
        time_wait: true,
        ..view()
    });
    let groups = StateGroups::ALL;
    let coverage = Coverage {
        groups,
        ..coverages()[0]
    };
    bench.dump(coverage, &[]);
    bench.dump(coverage, &[row(1, tcp, Established)]);
    bench.notice(notice(1, tcp, established()));
    bench.dump(coverage, &[row(1, tcp, TimeWait)]);
    bench.dump(coverage, &[row(1, tcp, TimeWait)]);
    bench.dump(coverage, &[]);
    bench.answer(|_| Some(row(1, tcp, TimeWait)));
    bench.dump(coverage, &[]);
    bench.answer(|_| None);
    let expected = [
        (1, Opened, Evidence::Dump, Established),
        (1, Closed, Evidence::Notified, Established),
        (1, Opened, Evidence::Dump, TimeWait),
        (1, Closed, Evidence::Verified, TimeWait),
    ];
    assert_eq!(bench.judge.take(), expected);
}

#[test]
fn own_sockets_are_no_events() {
    let mut bench = Bench::plain();
    let udp = id(Proto::Udp, 1, 53);
    bench.sensor.disown(&[Cookie(1)]);
    bench.dump_all(&[row(1, udp, Established)]);
    bench.notice(notice(1, udp, TcpInfo::default()));
    assert_eq!(bench.judge.take(), []);
}
