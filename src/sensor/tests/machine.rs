//! A simulated machine that behaves as the kernel does, and every order in which
//! its rows and notices can be read.

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;

use super::*;

/// One step of a simulated machine.
#[derive(Clone, Debug)]
enum Op {
    Open(u8),
    Close(u8),
    Advance(u8),
    Tick(u8),
    /// The kernel writes rows of the dump under way into the socket's queue.
    Fill(u8),
    ReadRow,
    EndDump,
    FailDump,
    Hear,
    /// The receive buffer was full for the next notice.
    Lose,
    /// The program ends and begins again.
    Restart,
    /// The sensors are configured anew; this one goes on.
    Reload(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0_u8..5).prop_map(Op::Open),
        3 => any::<u8>().prop_map(Op::Close),
        1 => any::<u8>().prop_map(Op::Advance),
        2 => (0_u8..2).prop_map(Op::Tick),
        5 => (1_u8..4).prop_map(Op::Fill),
        8 => Just(Op::ReadRow),
        1 => Just(Op::EndDump),
        1 => Just(Op::FailDump),
        4 => Just(Op::Hear),
        1 => Just(Op::Lose),
        1 => Just(Op::Restart),
        1 => (0_u8..3).prop_map(Op::Reload),
    ]
}

/// A machine that behaves as the kernel does: a dump walks sockets one by one
/// while they come and go, and rows lie in a queue until they are read.
#[derive(Default)]
struct Machine {
    alive: Vec<Row>,
    next: u64,
    notices: VecDeque<Notice>,
    walk: Option<(Proto, VecDeque<u64>)>,
    queue: VecDeque<Row>,
    /// An overrun that was not heard of yet.
    lost: bool,
    /// After an overrun everything is dropped until the queue was read empty.
    congested: bool,
}

impl Machine {
    fn open(&mut self, what: u8) {
        self.next += 1;
        let port = self.next as u16;
        let (id, state) = match what {
            0 => (id(Proto::Tcp, port, 80), Established),
            1 => (id(Proto::Tcp, port, 80), SynSent),
            2 => (id(Proto::Tcp, port, 0), Listen),
            3 => (id(Proto::Udp, port, 0), Close),
            _ => (id(Proto::Udp, port, 53), Established),
        };
        self.alive.push(row(self.next, id, state));
        // New sockets land anywhere in the walk: here, at its end.
        if let Some((proto, walk)) = &mut self.walk
            && *proto == id.proto
            && self.next.is_multiple_of(2)
        {
            walk.push_back(self.next);
        }
    }

    fn close(&mut self, which: u8, lose: bool) {
        if self.alive.is_empty() {
            return;
        }
        let dead = self
            .alive
            .swap_remove(usize::from(which) % self.alive.len());
        let tcp = match dead.state {
            Established => established(),
            SynSent => TcpInfo {
                advmss: 1,
                ..TcpInfo::default()
            },
            _ => TcpInfo::default(),
        };
        if lose && !self.congested {
            self.lost = true;
            self.congested = true;
        }
        if !self.congested {
            self.notices.push_back(notice(dead.cookie.0, dead.id, tcp));
        }
    }

    fn fill(&mut self, n: u8) {
        let Some((_, walk)) = &mut self.walk else {
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
}

fn hear(bench: &mut Bench, machine: &mut Machine) {
    if std::mem::take(&mut machine.lost) {
        bench.sensor.overrun(bench.now());
    }
    if let Some(notice) = machine.notices.pop_front() {
        bench.notice(notice);
    }
    if machine.notices.is_empty() && std::mem::take(&mut machine.congested) {
        // As the daemon does it: from here on dumps can tell what was missed.
        bench.sensor.overrun(bench.now());
    }
}

fn whole_dump(bench: &mut Bench, machine: &Machine) {
    bench.dump_all(&machine.alive);
    let alive: HashMap<_, _> = machine.alive.iter().map(|row| (row.cookie, *row)).collect();
    bench.answer(|suspect| {
        let row = alive.get(&suspect.key.cookie)?;
        // The exact query can be trusted for connected TCP only.
        (row.id.proto == Proto::Tcp && row.state.is_connected()).then_some(*row)
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Whatever the order: a socket opens at most once and closes at most once,
    /// in that order; one that ended in a view is closed, one that lives is not;
    /// and without a loss every socket is told, whether a dump saw it or not.
    #[test]
    fn every_socket_is_told_exactly_once(ops in proptest::collection::vec(op(), 1..300), lossy in any::<bool>()) {
        let mut bench = Bench::plain();
        let mut machine = Machine::default();
        let mut lose_next = false;
        let mut any_lost = false;
        // In this run, and by restarts.
        let (mut gap, mut unheard) = (false, false);
        for op in ops {
            bench.ms += 1;
            let now = bench.now();
            match op {
                Op::Open(what) => machine.open(what),
                Op::Close(which) => {
                    let lose = std::mem::take(&mut lose_next) && lossy;
                    any_lost |= lose && !machine.alive.is_empty();
                    gap |= lose && !machine.alive.is_empty();
                    machine.close(which, lose);
                }
                Op::Advance(which) => {
                    let n = machine.alive.len().max(1);
                    if let Some(row) = machine.alive.get_mut(usize::from(which) % n)
                        && row.state == SynSent
                    {
                        row.state = Established;
                    }
                }
                Op::Tick(which) if machine.walk.is_none() => {
                    let coverage = coverages()[usize::from(which)];
                    bench.sensor.begin_dump(coverage, now);
                    let of_proto = machine.alive.iter().filter(|row| row.id.proto == coverage.proto);
                    machine.walk = Some((coverage.proto, of_proto.map(|row| row.cookie.0).collect()));
                }
                Op::Tick(_) => {}
                Op::Fill(n) => machine.fill(n),
                Op::ReadRow => {
                    if let Some(row) = machine.queue.pop_front() {
                        bench.sensor.row(row, now);
                    }
                }
                Op::EndDump if machine.walk.is_some() => {
                    machine.fill(u8::MAX);
                    for row in machine.queue.drain(..) {
                        bench.sensor.row(row, now);
                    }
                    machine.walk = None;
                    bench.sensor.end_dump(now, &mut bench.judge);
                }
                Op::EndDump => {}
                Op::FailDump => {
                    machine.walk = None;
                    machine.queue.clear();
                    bench.sensor.fail_dump(now);
                }
                Op::Hear => hear(&mut bench, &mut machine),
                Op::Lose => lose_next = true,
                Op::Restart => {
                    unheard = true;
                    gap = false;
                    machine.walk = None;
                    machine.queue.clear();
                    machine.notices.clear();
                    (machine.lost, machine.congested) = (false, false);
                    bench.restart();
                }
                Op::Reload(others) => bench.reload(others),
            }
        }
        // The dump under way is given up, every notice is heard, two dumps pass.
        let now = bench.now();
        bench.sensor.fail_dump(now);
        while !machine.notices.is_empty() || machine.congested {
            hear(&mut bench, &mut machine);
        }
        whole_dump(&mut bench, &machine);
        whole_dump(&mut bench, &machine);
        prop_assert_eq!(bench.sensor.wants_dump(), None);
        let now = bench.now();
        prop_assert_eq!(bench.sensor.settled_gap(now).is_some(), gap);
        prop_assert!(!bench.sensor.has_gap());
        any_lost |= unheard;

        let mut opened: HashMap<u64, bool> = HashMap::new();
        for (cookie, action, _, _) in bench.judge.take() {
            match action {
                Opened => prop_assert!(opened.insert(cookie, true).is_none(), "{} opened twice", cookie),
                Closed => prop_assert_eq!(opened.insert(cookie, false), Some(true), "{} closed while shut", cookie),
            }
        }
        for cookie in 1..=machine.next {
            let alive = machine.alive.iter().any(|row| row.cookie.0 == cookie);
            match opened.get(&cookie) {
                Some(open) => prop_assert_eq!(*open, alive, "{} is wrong about its end", cookie),
                None => prop_assert!(any_lost && !alive, "{} was never told", cookie),
            }
        }
        prop_assert_eq!(bench.sensor.len(), machine.alive.len());
    }
}
