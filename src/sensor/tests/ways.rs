//! Which way connections go and who called, each race by hand, then all of them
//! at random on a simulated machine.

use std::collections::{HashMap, HashSet, VecDeque};

use proptest::prelude::*;

use super::*;
use Direction::{Inbound, Outbound, Unknown};

const PORT: u16 = 80;

impl Bench {
    fn wanting() -> Bench {
        let mut bench = Bench::plain();
        bench.sensor.want_attempts();
        bench
    }

    fn called(&mut self, cookie: u64, remote: u16) {
        self.sensor.called(&connect(cookie, remote));
    }

    /// The attempts that were told since the last call: cookie, port, evidence.
    fn attempts(&mut self) -> Vec<(u64, u16, Evidence)> {
        let attempts = self.sensor.take_attempts().into_iter();
        attempts
            .map(|one| match one.sighting {
                Sighting::Table { evidence, .. } => (one.cookie.0, one.remote.port, evidence),
                Sighting::Hook { .. } => panic!("the table has no hook: {one:?}"),
            })
            .collect()
    }

    /// What was told of a socket: action, direction, process.
    fn ways(&mut self, cookie: u64) -> Vec<(Action, Option<Direction>, Option<u32>)> {
        let told = self.judge.told.drain(..);
        told.filter(|one| one.key.cookie.0 == cookie)
            .map(|one| (one.action(), one.direction, one.process.map(|it| it.pid)))
            .collect()
    }
}

fn connect(cookie: u64, port: u16) -> Connect {
    Connect {
        origin: Origin::Lsm,
        cookie: Cookie(cookie),
        netns: Some(NETNS),
        remote: Endpoint::new([10, 0, 0, 2], port),
        family: Family::V4,
        v4_mapped: false,
        mptcp: false,
        caller: Caller {
            pid: 812,
            tid: 812,
            comm: Comm([0; 16]),
        },
        uid: 7,
        cgroup_id: 1,
        at_ns: 0,
    }
}

fn listener(cookie: u64) -> Row {
    row(cookie, id(Proto::Tcp, PORT, 0), Listen)
}

/// Accepted by a listener at [`PORT`].
fn child(cookie: u64) -> Row {
    row(
        cookie,
        id(Proto::Tcp, PORT, 4000 + cookie as u16),
        Established,
    )
}

fn active(cookie: u64) -> Row {
    row(
        cookie,
        id(Proto::Tcp, 4000 + cookie as u16, 443),
        Established,
    )
}

/// The tcp_info of a connection that ended: what was acknowledged proves which
/// way it went, or (`None`) nothing.
fn acked(bytes: Option<u64>) -> TcpInfo {
    TcpInfo {
        bytes_acked: Some(bytes.unwrap_or(11)),
        bytes_sent: Some(10),
        bytes_retrans: Some(0),
        ..established()
    }
}

const OPENER: Option<u64> = Some(12);
const ACCEPTED: Option<u64> = Some(0);

fn gone(row: Row, proof: Option<u64>) -> Notice {
    let tcp = match row.state {
        Listen | Close => TcpInfo::default(),
        _ => acked(proof),
    };
    notice(row.cookie.0, row.id, tcp)
}

/// Where connect() calls are wanted the table knows every connection, whatever the
/// sensors of sockets want.
#[test]
fn a_connection_that_no_view_wants_is_known_all_the_same() {
    let mut bench = Bench::new(View {
        sought: Sought::NONE,
        ..view()
    });
    bench.sensor.want_attempts();
    let row = child(1);
    bench.dump_all(&[row]);
    bench.notice(notice(1, row.id, established()));
    assert_eq!(bench.attempts(), [], "it was there at the start");
    assert!(!bench.sensor.has_candidates());
}

#[test]
fn a_listener_and_its_child_are_read_in_any_order() {
    for rows in [[listener(1), child(2)], [child(2), listener(1)]] {
        let mut bench = Bench::wanting();
        bench.dump_all(&rows);
        assert_eq!(bench.ways(2), [(Opened, Some(Inbound), None)]);
        bench.dump_all(&rows);
        assert_eq!(bench.attempts(), []);
    }
}

#[test]
fn what_is_no_connection_has_no_direction() {
    let mut bench = Bench::wanting();
    let bound = row(2, id(Proto::Tcp, 9, 0), Close);
    let udp = row(3, id(Proto::Udp, 9, 53), Established);
    bench.dump_all(&[listener(1), bound, udp]);
    assert_eq!(bench.judge.told.len(), 3);
    assert!(bench.judge.told.iter().all(|one| one.direction.is_none()));
}

#[test]
fn a_child_outlives_its_listener() {
    let mut bench = Bench::wanting();
    bench.dump_all(&[listener(1)]);
    bench.notice(gone(listener(1), None));
    bench.dump_all(&[child(2)]);
    assert_eq!(bench.ways(2), [(Opened, Some(Inbound), None)]);
    for _ in 0..3 {
        bench.dump_all(&[child(2)]);
    }
    // Where nobody has listened for long, nobody accepts.
    bench.dump_all(&[child(2), child(3)]);
    assert_eq!(bench.ways(3), [(Opened, Some(Outbound), None)]);
}

#[test]
fn a_listener_that_no_dump_has_read_leaves_doubt() {
    let mut bench = Bench::wanting();
    bench.notice(gone(listener(1), None));
    bench.dump_all(&[child(2), active(3)]);
    assert_eq!(bench.ways(2), [(Opened, Some(Unknown), None)]);
    bench.dump_all(&[child(2), active(3)]);
    assert_eq!(bench.attempts(), [(3, 443, Evidence::Dump)]);
}

#[test]
fn a_bound_socket_may_have_become_a_listener_since_it_was_read() {
    let mut bench = Bench::wanting();
    let bound = row(1, id(Proto::Tcp, PORT, 0), Close);
    bench.dump_all(&[bound]);
    bench.notice(gone(bound, None));
    bench.dump_all(&[child(2)]);
    bench.dump_all(&[child(2)]);
    assert_eq!(bench.attempts(), []);
}

#[test]
fn a_bound_socket_that_listens_now_is_a_listener_before_its_children_are_judged() {
    let mut bench = Bench::wanting();
    bench.dump_all(&[row(1, id(Proto::Tcp, PORT, 0), Close)]);
    bench.judge.take();
    bench.dump_all(&[child(2), listener(1)]);
    assert_eq!(bench.ways(2), [(Opened, Some(Inbound), None)]);
}

#[test]
fn a_connection_whose_listener_is_younger_than_the_last_dump_is_not_taken_for_a_call() {
    let mut bench = Bench::wanting();
    bench.notice(gone(child(2), None));
    let ways = [(Opened, Some(Unknown), None), (Closed, Some(Unknown), None)];
    assert_eq!(bench.ways(2), ways);
    bench.notice(gone(child(3), None));
    assert!(bench.sensor.has_candidates());
    for _ in 0..2 {
        bench.dump_all(&[listener(1)]);
        assert_eq!(bench.attempts(), []);
    }
    assert!(!bench.sensor.has_candidates());
}

#[test]
fn a_listener_that_begins_behind_the_back_of_a_dump_is_found_by_the_next() {
    let mut bench = Bench::wanting();
    // The dump had passed by the listeners when this one began.
    bench.dump_all(&[child(2)]);
    assert_eq!(bench.attempts(), []);
    bench.dump_all(&[listener(1), child(2)]);
    assert_eq!(bench.attempts(), []);
    bench.judge.take();
    bench.notice(gone(child(2), None));
    assert_eq!(bench.ways(2), [(Closed, Some(Inbound), None)]);
}

#[test]
fn a_connection_between_two_dumps_is_a_call_when_the_next_two_show_no_listener() {
    let mut bench = Bench::wanting();
    let now = bench.now();
    bench.sensor.begin_dump(coverages()[0], now);
    bench.notice(gone(active(2), None));
    bench.sensor.end_dump(now, &mut bench.judge);
    assert_eq!(bench.attempts(), [], "that dump began before the end");
    bench.dump_all(&[]);
    assert_eq!(
        bench.attempts(),
        [],
        "its listener's notice may be on its way"
    );
    bench.dump_all(&[]);
    assert_eq!(bench.attempts(), [(2, 443, Evidence::Notified)]);
}

#[test]
fn tcp_info_proves_what_it_can() {
    let mut bench = Bench::wanting();
    bench.notice(gone(active(2), OPENER));
    assert_eq!(bench.ways(2)[0].1, Some(Outbound));
    assert_eq!(bench.attempts(), [(2, 443, Evidence::Notified)]);
    bench.notice(gone(child(3), ACCEPTED));
    assert_eq!(bench.ways(3)[0].1, Some(Inbound));
    // An opener that shares a listener's port.
    bench.dump_all(&[listener(1)]);
    bench.notice(gone(child(4), OPENER));
    assert_eq!(bench.ways(4)[0].1, Some(Outbound));
    assert_eq!(bench.attempts(), [(4, 4004, Evidence::Notified)]);
    // Refused.
    let syn = TcpInfo {
        advmss: 1,
        ..TcpInfo::default()
    };
    bench.notice(notice(5, id(Proto::Tcp, 4005, 443), syn));
    assert_eq!(bench.ways(5)[0].1, Some(Outbound));
    assert_eq!(bench.attempts(), [(5, 443, Evidence::Notified)]);
}

#[test]
fn a_call_that_waits_for_a_dump_is_proven_by_its_notice() {
    for (proof, told) in [(OPENER, 1), (ACCEPTED, 0)] {
        let mut bench = Bench::wanting();
        bench.dump_all(&[active(2)]);
        assert_eq!(bench.attempts(), []);
        bench.notice(gone(active(2), proof));
        assert_eq!(bench.attempts().len(), told);
        bench.dump_all(&[]);
        assert_eq!(bench.attempts(), []);
    }
}

#[test]
fn sockets_at_start_are_no_calls() {
    let start = View {
        initial: true,
        ..view()
    };
    let mut bench = Bench::new(start);
    bench.sensor.want_attempts();
    let syn = row(4, id(Proto::Tcp, 5, 443), SynSent);
    let rows = [listener(1), child(2), active(3), syn];
    bench.dump_all(&rows);
    bench.dump_all(&rows);
    assert_eq!(bench.attempts(), []);
    let told = &bench.judge.told;
    let directions: Vec<_> = told.iter().map(|one| one.direction).collect();
    assert_eq!(
        directions,
        [None, Some(Inbound), Some(Outbound), Some(Outbound)]
    );
}

#[test]
fn a_handshake_under_way_is_told_at_once_and_once() {
    let mut bench = Bench::wanting();
    let syn = row(2, id(Proto::Tcp, 5, 443), SynSent);
    bench.dump_all(&[syn]);
    assert_eq!(bench.attempts(), [(2, 443, Evidence::Dump)]);
    let established = Row {
        state: Established,
        ..syn
    };
    bench.dump_all(&[established]);
    bench.notice(gone(established, OPENER));
    bench.dump_all(&[]);
    assert_eq!(bench.attempts(), []);
}

#[test]
fn a_new_destination_of_one_socket_is_another_call() {
    let mut bench = Bench::wanting();
    bench.dump_all(&[row(2, id(Proto::Tcp, 5, 443), SynSent)]);
    bench.dump_all(&[row(2, id(Proto::Tcp, 5, 444), SynSent)]);
    let calls = [(2, 443, Evidence::Dump), (2, 444, Evidence::Rebound)];
    assert_eq!(bench.attempts(), calls);
    bench.notice(notice(2, id(Proto::Tcp, 5, 445), acked(None)));
    assert_eq!(bench.attempts(), [(2, 445, Evidence::Rebound)]);
}

#[test]
fn what_a_hook_saw_is_not_told_again_and_names_the_process() {
    let mut bench = Bench::wanting();
    // Before the row, between two dumps, and after the row.
    bench.called(2, 443);
    bench.dump_all(&[active(2)]);
    bench.notice(gone(active(2), OPENER));
    let ways = [
        (Opened, Some(Outbound), Some(812)),
        (Closed, Some(Outbound), Some(812)),
    ];
    assert_eq!(bench.ways(2), ways);
    bench.called(3, 443);
    bench.notice(gone(active(3), None));
    assert_eq!(bench.ways(3), ways);
    let now = bench.now();
    bench.sensor.begin_dump(coverages()[0], now);
    bench.sensor.row(active(4), now);
    bench.called(4, 443);
    bench.sensor.end_dump(now, &mut bench.judge);
    bench.notice(gone(active(4), OPENER));
    assert_eq!(bench.ways(4), ways);
    // To no address in particular is to loopback.
    let mut anywhere = connect(5, 443);
    anywhere.remote = Endpoint::new([0, 0, 0, 0], 443);
    let local = (std::net::IpAddr::from([127, 0, 0, 1]), 443);
    let ends = SockId::from_wire(Proto::Tcp, Family::V4, (local.0, 5), local, 0);
    bench.sensor.called(&anywhere);
    bench.dump_all(&[row(5, ends, Established)]);
    assert_eq!(bench.ways(5), ways[..1]);
    bench.dump_all(&[]);
    assert_eq!(bench.attempts(), []);
}

#[test]
fn a_hook_knows_better_than_a_listener() {
    let mut bench = Bench::wanting();
    bench.called(2, 4002);
    bench.dump_all(&[listener(1), child(2)]);
    assert_eq!(bench.ways(2), [(Opened, Some(Outbound), Some(812))]);
}

#[test]
fn calls_of_other_namespaces_name_nobody_here() {
    let mut bench = Bench::wanting();
    for netns in [None, Some(Netns(2))] {
        bench.sensor.called(&Connect {
            netns,
            ..connect(2, 443)
        });
    }
    bench.dump_all(&[active(2)]);
    assert_eq!(bench.ways(2), [(Opened, Some(Outbound), None)]);
}

#[test]
fn with_a_hook_a_wiped_notice_alone_is_no_call() {
    let mut bench = Bench::wanting();
    bench.sensor.rely_on_hook();
    let mut wiped = notice(2, id(Proto::Tcp, 5, 0), established());
    wiped.id.remote = Endpoint::new([10, 0, 0, 2], 0);
    bench.notice(wiped);
    assert!(!bench.sensor.has_candidates());
    // What it was connected to is told, where the counters prove that it called.
    bench.notice(gone(active(3), OPENER));
    assert_eq!(bench.attempts(), [(3, 443, Evidence::Notified)]);
}

/// Accepted by a listener that came to be while the dump went by, it looks like a
/// call that the hook missed. The next dump tells which it is.
#[test]
fn with_a_hook_what_no_listener_matches_is_unknown_until_the_next_dump() {
    for (listens, way) in [(true, Inbound), (false, Outbound)] {
        let mut bench = Bench::wanting();
        bench.sensor.rely_on_hook();
        bench.dump_all(&[]);
        bench.dump_all(&[child(2)]);
        assert_eq!(bench.ways(2), [(Opened, Some(Unknown), None)]);
        let rows = [child(2), listener(1)];
        bench.dump_all(if listens { &rows } else { &rows[..1] });
        assert_eq!(bench.attempts().len(), usize::from(!listens));
        bench.notice(gone(child(2), None));
        assert_eq!(bench.ways(2), [(Closed, Some(way), None)]);
    }
}

#[test]
fn a_wiped_destination_is_filled_in() {
    let mut bench = Bench::wanting();
    let mut wiped = notice(2, id(Proto::Tcp, 5, 0), established());
    wiped.id.remote = Endpoint::new([10, 0, 0, 2], 0);
    bench.notice(wiped);
    assert!(
        bench
            .judge
            .told
            .iter()
            .all(|one| one.wiped && one.id.remote.port == 0)
    );
    bench.judge.take();
    assert_eq!(bench.attempts(), [], "nobody knows which way it went");
    for _ in 0..2 {
        bench.dump_all(&[]);
    }
    assert_eq!(bench.attempts(), [(2, 0, Evidence::Notified)]);
    bench.called(3, 443);
    wiped.cookie = Cookie(3);
    bench.notice(wiped);
    let right = |one: &Change| {
        !one.wiped && one.id.remote.to_string() == "10.0.0.2:443" && one.process.is_some()
    };
    assert_eq!(bench.judge.told.len(), 2);
    assert!(bench.judge.told.iter().all(right));
    bench.judge.take();
    // Read as bound only before it called: the bound socket closes as what it was.
    bench.dump_all(&[row(4, id(Proto::Tcp, 5, 0), Close)]);
    bench.called(4, 443);
    wiped.cookie = Cookie(4);
    bench.judge.refused = vec![Established];
    bench.notice(wiped);
    assert!(bench.judge.told.iter().all(|one| !one.wiped));
    assert_eq!(bench.attempts(), []);
}

#[test]
fn subflows_of_mptcp_are_joined_by_their_destination() {
    let mut bench = Bench::wanting();
    bench.sensor.called(&Connect {
        mptcp: true,
        ..connect(900, 443)
    });
    bench.dump_all(&[active(2), row(3, id(Proto::Tcp, 5, 444), Established)]);
    assert_eq!(bench.ways(2), [(Opened, Some(Outbound), Some(812))]);
    bench.dump_all(&[]);
    assert_eq!(bench.attempts(), [(3, 444, Evidence::Dump)]);
    // Later ones to the same place are nobody's.
    bench.dump_all(&[active(4)]);
    bench.dump_all(&[active(4)]);
    assert_eq!(bench.attempts(), [(4, 443, Evidence::Dump)]);
}

#[test]
fn nobody_who_wants_calls_is_told_none() {
    let mut bench = Bench::plain();
    bench.dump_all(&[active(2)]);
    bench.notice(gone(active(3), None));
    assert!(!bench.sensor.has_candidates());
    bench.dump_all(&[]);
    assert_eq!(bench.attempts(), []);
}

#[derive(Clone, Debug)]
enum Op {
    Listen(u8),
    Accept(u8),
    /// A connect(), and whether the hook's record finds room.
    Call(bool),
    Close(u8, bool),
    Tick,
    Fill(u8),
    Read,
    End,
    Fail,
    Hear,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0_u8..3).prop_map(Op::Listen),
        4 => any::<u8>().prop_map(Op::Accept),
        4 => any::<bool>().prop_map(Op::Call),
        5 => any::<(u8, bool)>().prop_map(|(which, proof)| Op::Close(which, proof)),
        3 => Just(Op::Tick),
        5 => (1_u8..4).prop_map(Op::Fill),
        6 => Just(Op::Read),
        3 => Just(Op::End),
        1 => Just(Op::Fail),
        4 => Just(Op::Hear),
    ]
}

/// The machine of `machine.rs`, with listeners that accept, and a ring.
#[derive(Default)]
struct Machine {
    alive: Vec<Row>,
    next: u64,
    /// Who called connect(), and whether the hook could say so.
    callers: HashMap<u64, bool>,
    accepted: HashSet<u64>,
    ring: VecDeque<Connect>,
    notices: VecDeque<Notice>,
    walk: Option<VecDeque<u64>>,
    queue: VecDeque<Row>,
}

impl Machine {
    fn add(&mut self, row: Row) {
        self.next = row.cookie.0;
        // Listeners stand at the beginning of the walk, which has passed them.
        if row.state != Listen
            && let Some(walk) = &mut self.walk
        {
            walk.push_back(row.cookie.0);
        }
        self.alive.push(row);
    }

    fn listeners(&self) -> Vec<Row> {
        let listens = |row: &&Row| row.state == Listen;
        self.alive.iter().filter(listens).copied().collect()
    }

    fn fill(&mut self, n: u8) {
        let Some(walk) = &mut self.walk else {
            return;
        };
        for _ in 0..n {
            let Some(cookie) = walk.pop_front() else {
                return;
            };
            self.queue
                .extend(self.alive.iter().find(|row| row.cookie.0 == cookie));
        }
    }

    fn drain(&mut self, bench: &mut Bench) {
        for call in self.ring.drain(..) {
            bench.sensor.called(&call);
        }
    }

    fn hear(&mut self, bench: &mut Bench) {
        self.drain(bench);
        if let Some(notice) = self.notices.pop_front() {
            bench.notice(notice);
        }
    }

    fn act(&mut self, op: Op, bench: &mut Bench) {
        let cookie = self.next + 1;
        match op {
            Op::Listen(port) => {
                self.add(row(
                    cookie,
                    id(Proto::Tcp, PORT + u16::from(port), 0),
                    Listen,
                ));
            }
            Op::Accept(which) => {
                let listeners = self.listeners();
                if let Some(at) = usize::from(which).checked_rem(listeners.len()) {
                    let local = listeners[at].id.local.port;
                    self.accepted.insert(cookie);
                    self.add(row(
                        cookie,
                        id(Proto::Tcp, local, 9000 + cookie as u16),
                        Established,
                    ));
                }
            }
            Op::Call(room) => {
                self.callers.insert(cookie, room);
                if room {
                    self.ring.push_back(connect(cookie, 443));
                }
                self.add(row(
                    cookie,
                    id(Proto::Tcp, 4000 + cookie as u16, 443),
                    Established,
                ));
            }
            Op::Close(which, proven) => {
                if let Some(at) = usize::from(which).checked_rem(self.alive.len()) {
                    let dead = self.alive.swap_remove(at);
                    let proof = if self.accepted.contains(&dead.cookie.0) {
                        ACCEPTED
                    } else {
                        OPENER
                    };
                    self.notices.push_back(gone(dead, proof.filter(|_| proven)));
                }
            }
            Op::Tick if self.walk.is_none() => {
                bench.sensor.begin_dump(coverages()[0], bench.now());
                let mut walk: Vec<_> = self.alive.iter().collect();
                walk.sort_by_key(|row| row.state != Listen);
                self.walk = Some(walk.iter().map(|row| row.cookie.0).collect());
            }
            Op::Tick => {}
            Op::Fill(n) => self.fill(n),
            Op::Read => {
                if let Some(row) = self.queue.pop_front() {
                    bench.sensor.row(row, bench.now());
                }
            }
            Op::End if self.walk.is_some() => {
                self.fill(u8::MAX);
                let now = bench.now();
                for row in self.queue.drain(..) {
                    bench.sensor.row(row, now);
                }
                self.walk = None;
                // As the daemon does it: notices and calls come first.
                while !self.notices.is_empty() {
                    self.hear(bench);
                }
                self.drain(bench);
                bench.sensor.end_dump(now, &mut bench.judge);
            }
            Op::End => {}
            Op::Fail => {
                self.walk = None;
                self.queue.clear();
                bench.sensor.fail_dump(bench.now());
            }
            Op::Hear => self.hear(bench),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Whatever the order: every call that the hook could not report is told once
    /// by the table, nothing else is, and no event says the opposite of the truth
    /// but of a child that a dump held without its listener.
    #[test]
    fn every_call_is_told_once(ops in proptest::collection::vec(op(), 1..200)) {
        let mut bench = Bench::wanting();
        let mut machine = Machine::default();
        let mut told = Vec::new();
        for op in ops {
            bench.ms += 1;
            machine.act(op, &mut bench);
            told.extend(bench.attempts());
        }
        let rounds = (0..3).flat_map(|_| [Op::Tick, Op::End]);
        for op in [Op::Fail].into_iter().chain(rounds) {
            machine.act(op, &mut bench);
            told.extend(bench.attempts());
        }
        prop_assert!(!bench.sensor.has_candidates());
        let mut expected: Vec<u64> = machine
            .callers
            .iter()
            .filter(|(_, hooked)| !**hooked)
            .map(|(cookie, _)| *cookie)
            .collect();
        let mut told: Vec<u64> = told.into_iter().map(|(cookie, ..)| cookie).collect();
        told.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(told, expected);
        let mut unlucky = HashSet::new();
        for one in &bench.judge.told {
            let cookie = one.key.cookie.0;
            match (machine.callers.get(&cookie), one.direction) {
                (Some(true), way) => {
                    prop_assert_eq!(way, Some(Outbound));
                    prop_assert!(one.process.is_some());
                }
                (Some(false), way) => prop_assert_ne!(way, Some(Inbound)),
                (None, Some(Outbound)) if one.evidence == Evidence::Dump => {
                    unlucky.insert(cookie);
                }
                (None, Some(Outbound)) => prop_assert!(unlucky.contains(&cookie)),
                (None, _) => prop_assert!(one.process.is_none()),
            }
        }
    }
}
