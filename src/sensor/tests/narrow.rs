//! Dumps that leave out what nobody wants, and a table that lets go by what else is
//! read, beside dumps and a table of everything: the same is told, whatever becomes
//! of the sockets.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// Of two sensors one wants what goes to port 443 or comes from port 22, the other
/// what goes to port 53; both once it is established.
#[derive(Default)]
struct Picky {
    told: Vec<String>,
    /// There is one alone, which wants listeners.
    listeners: bool,
}

impl Judge for Picky {
    fn open(&mut self, change: Change, _now: Now) -> Verdict {
        let ends = match change.sensor.0 {
            _ if self.listeners => change.state == Listen,
            0 => change.id.remote.port == 443 || change.id.local.port == 22,
            _ => change.id.remote.port == 53,
        };
        let first = matches!(
            change.step,
            Step::Opened {
                established_first: true,
                ..
            }
        );
        if !ends || change.state == SynSent && !first {
            return Verdict::Dropped(Host::Unasked);
        }
        if !change.is_silent() {
            self.told.push(format!("{change:?}"));
        }
        Verdict::Entered(Host::Unasked)
    }

    fn close(&mut self, change: Change, _now: Now) {
        self.told.push(format!("{change:?}"));
    }

    fn owned(&mut self, key: SocketKey, owner: Owner, sensors: u32) {
        self.told.push(format!("{key:?} {owner:?} {sensors}"));
    }
}

/// What a filter makes of the same wishes.
fn wishes() -> [Sought; 2] {
    let end = |port| End {
        ip: None,
        port: Some(port),
    };
    let remote = |port| Ends {
        remote: end(port),
        ..Ends::default()
    };
    let ssh = Ends {
        local: end(22),
        ..Ends::default()
    };
    let wish = |ends| Sought::new(Some(ends), Vec::new()).with_unconnected();
    [wish(vec![remote(443), ssh]), wish(vec![remote(53)])]
}

/// One sensor and how its dumps are made: as the daemon makes them.
struct Watcher {
    sensor: NetSocket,
    needs: Needs,
    judge: Picky,
    /// What the sensors could want.
    sought: Sought,
    narrow: bool,
    /// What no dump holds is due to be looked for.
    looks: bool,
    narrowed: u32,
}

impl Watcher {
    /// One sensor or two; none is the one that wants listeners.
    fn new(narrow: bool, sensors: u8, now: Now) -> Watcher {
        let stats = Rc::new(Stats::default());
        let (wishes, needs) = if sensors == 0 {
            let wish = Sought::NONE.with_unconnected().without_bound();
            let needs = Needs {
                tcp: StateGroups::LISTEN,
                udp: false,
            };
            (vec![wish], needs)
        } else {
            (
                wishes().into_iter().take(usize::from(sensors)).collect(),
                Needs::EVERYTHING,
            )
        };
        let views = wishes.iter().zip(0..).map(|(sought, number)| View {
            sensor: SensorIx(number),
            sought: sought.clone(),
            ..view()
        });
        let mut sensor = NetSocket::new(NETNS, views.collect(), needs, stats, now);
        let sought = wishes.into_iter().fold(Sought::NONE, Sought::or);
        if narrow {
            sensor.seek(sought.clone());
        }
        Watcher {
            sensor,
            needs,
            judge: Picky {
                listeners: sensors == 0,
                ..Picky::default()
            },
            sought,
            narrow,
            looks: false,
            narrowed: 0,
        }
    }

    fn dump(&mut self, coverage: Coverage, rows: &[Row], narrow: bool, now: Now) {
        self.sensor.begin_dump(coverage, now);
        self.read(coverage, rows, narrow, now);
    }

    fn read(&mut self, coverage: Coverage, rows: &[Row], narrow: bool, now: Now) {
        if narrow {
            self.sensor.narrowed();
            self.narrowed += 1;
        }
        for row in rows
            .iter()
            .filter(|row| coverage.includes(&row.id, row.state))
        {
            if !narrow || self.sought.wants(&row.id) {
                self.sensor.row(*row, now);
            }
        }
        self.sensor.end_dump(now, &mut self.judge);
    }

    fn tick(&mut self, mut coverage: Coverage, rows: &[Row], now: Now) {
        let tcp = coverage.proto == Proto::Tcp;
        let gap = self.sensor.has_gap();
        if tcp && gap {
            coverage.groups = coverage.groups.for_absence();
        }
        let all = coverage.groups.contains(self.needs.tcp);
        if tcp && all && std::mem::take(&mut self.looks) {
            self.look(rows, false, now);
        } else {
            let narrow = self.narrow && tcp && !gap;
            self.dump(coverage, rows, narrow, now);
            let part = narrow || coverage.groups != coverage.groups.for_absence();
            let whole = !part && coverage.groups.contains(self.needs.tcp.for_absence());
            let number = self.sensor.dump_number();
            if tcp && (self.narrow || part) && self.sensor.misses(coverage, number, whole).any {
                self.look(rows, coverage.groups.contains(StateGroups::CONNECTED), now);
            }
        }
        while let Some(suspect) = self.sensor.next_suspect() {
            let found = rows.iter().find(|row| row.cookie == suspect.key.cookie);
            let found = found.filter(|row| row.id.same_ends(&suspect.id)).copied();
            self.sensor.answered(suspect, found, now, &mut self.judge);
        }
        // The gap record is the daemon's to write.
        self.sensor.settled_gap(now);
    }

    /// The whole dump that tells where sockets have gone.
    fn look(&mut self, rows: &[Row], widened: bool, now: Now) {
        let coverage = Coverage {
            groups: self.needs.tcp.for_absence(),
            ..coverages()[0]
        };
        self.sensor.begin_dump(coverage, now);
        if widened {
            self.sensor.widened();
        }
        self.read(coverage, rows, false, now);
        let number = self.sensor.dump_number();
        assert!(!self.sensor.misses(coverage, number, true).any);
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// A new socket: what it is, and where it goes.
    Open(u8, u8),
    /// It is connected anew, or listens, or is shut down.
    Move(u8, u8),
    /// It loses its ends, and lives: no dump holds it.
    Vanish(u8),
    Close(u8, bool),
    /// Of TCP, of UDP.
    Tick(u8),
    Hear(u8),
    Lose,
    Wait,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0_u8..4, any::<u8>()).prop_map(|(what, to)| Op::Open(what, to)),
        4 => (any::<u8>(), any::<u8>()).prop_map(|(which, to)| Op::Move(which, to)),
        1 => any::<u8>().prop_map(Op::Vanish),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(which, wiped)| Op::Close(which, wiped)),
        5 => (0_u8..2).prop_map(Op::Tick),
        6 => (1_u8..4).prop_map(Op::Hear),
        1 => Just(Op::Lose),
        2 => Just(Op::Wait),
    ]
}

/// The ends and the state that a socket can have.
fn shape(what: u8, to: u8, port: u16) -> (SockId, TcpState) {
    let local = [port, 22, 8000][usize::from(to % 3)];
    let remote = [443, 80, 53, 0][usize::from(to / 3 % 4)];
    match (what, remote) {
        (3, 0) => (id(Proto::Udp, local, 0), Close),
        (3, remote) => (id(Proto::Udp, local, remote), Established),
        (_, 0) if to & 64 == 0 => (id(Proto::Tcp, local, 0), Listen),
        (_, 0) => (id(Proto::Tcp, local, 0), Close),
        (_, remote) if to & 64 == 0 => (id(Proto::Tcp, local, remote), Established),
        (_, remote) => (id(Proto::Tcp, local, remote), SynSent),
    }
}

/// Two watchers beside the same sockets, each narrow or not, with so many sensors.
/// Within one step the order is that of rows and tables; `alike` puts that right, and
/// leaves out what may differ.
fn same(
    ops: Vec<Op>,
    watchers: [(bool, u8); 2],
    alike: fn(Vec<String>) -> Vec<String>,
) -> Result<(), TestCaseError> {
    let start = Instant::now();
    let mut ms = 0;
    let at = |ms: u64| Now {
        mono: start + Duration::from_millis(ms),
        wall: SystemTime::UNIX_EPOCH + Duration::from_millis(ms),
    };
    let mut watchers = watchers.map(|(narrow, sensors)| Watcher::new(narrow, sensors, at(0)));
    // Sockets with their rows; those that have vanished, to close without ends.
    let (mut alive, mut hidden): (Vec<Row>, Vec<Row>) = (Vec::new(), Vec::new());
    let mut notices: VecDeque<Notice> = VecDeque::new();
    let (mut next, mut lost) = (0, false);
    for op in ops {
        ms += 1;
        let now = at(ms);
        match op {
            Op::Open(what, to) => {
                next += 1;
                let (id, state) = shape(what, to, 1000 + next as u16);
                alive.push(row(next, id, state));
            }
            Op::Move(which, to) => {
                let (all, from) = if which & 1 == 0 || hidden.is_empty() {
                    (alive.len(), false)
                } else {
                    (hidden.len(), true)
                };
                if all == 0 {
                    continue;
                }
                let at = usize::from(which / 2) % all;
                let mut one = if from {
                    hidden.swap_remove(at)
                } else {
                    alive.swap_remove(at)
                };
                let what = if one.id.proto == Proto::Udp { 3 } else { 0 };
                (one.id, one.state) = shape(what, to, 1000 + one.cookie.0 as u16);
                // Whatever comes out of hiding is looked for, sooner or later: here, at once.
                for watcher in watchers
                    .iter_mut()
                    .filter(|it| from && (it.narrow || it.judge.listeners))
                {
                    watcher.looks = true;
                }
                alive.push(one);
            }
            Op::Vanish(which) if !alive.is_empty() => {
                let at = usize::from(which) % alive.len();
                hidden.push(alive.swap_remove(at));
            }
            Op::Close(which, wiped) if !alive.is_empty() => {
                let mut dead = alive.swap_remove(usize::from(which) % alive.len());
                let tcp = match dead.state {
                    Established => established(),
                    SynSent => TcpInfo {
                        advmss: 1,
                        ..TcpInfo::default()
                    },
                    _ => TcpInfo::default(),
                };
                if wiped && dead.id.proto == Proto::Tcp {
                    dead.id.remote.port = 0;
                }
                if !std::mem::take(&mut lost) {
                    notices.push_back(notice(dead.cookie.0, dead.id, tcp));
                } else {
                    for watcher in &mut watchers {
                        watcher.sensor.overrun(now);
                    }
                }
            }
            Op::Tick(which) => {
                for watcher in &mut watchers {
                    let needs = watcher.needs;
                    let coverage = match which {
                        0 => Coverage {
                            groups: needs.tcp,
                            ..coverages()[0]
                        },
                        _ if needs.udp => coverages()[1],
                        _ => continue,
                    };
                    watcher.tick(coverage, &alive, now);
                }
            }
            Op::Hear(n) => {
                for _ in 0..n {
                    let Some(notice) = notices.pop_front() else {
                        break;
                    };
                    for watcher in &mut watchers {
                        watcher.sensor.notice(notice, now, &mut watcher.judge);
                    }
                }
            }
            Op::Lose => lost = true,
            Op::Wait => ms += 150,
            Op::Vanish(_) | Op::Close(..) => {}
        }
        let [one, other] = &mut watchers;
        let (one, other) = (
            std::mem::take(&mut one.judge.told),
            std::mem::take(&mut other.judge.told),
        );
        prop_assert_eq!(alike(one), alike(other));
    }
    let [narrow, whole] = &watchers;
    prop_assert_eq!(whole.narrowed, 0);
    // What the table holds is bounded by what is sought and has been in view.
    prop_assert!(narrow.sensor.len() <= next as usize);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Nor a table that lets go by what nobody wants.
    #[test]
    fn nobody_can_tell_a_narrowed_dump(ops in prop::collection::vec(op(), 1..200), sensors in 0_u8..3) {
        same(ops, [(true, sensors), (false, sensors)], sorted)?;
    }

    /// But for the direction of what others have seen connected anew: that is
    /// outbound, even from where somebody listens. (After a gap others can also have
    /// seen that a socket lives which was taken for gone.)
    #[test]
    fn a_sensor_tells_the_same_whatever_others_want(ops in prop::collection::vec(op(), 1..200)) {
        let ops = ops.into_iter().filter(|op| !matches!(op, Op::Lose));
        same(ops.collect(), [(true, 1), (false, 2)], of_the_first)?;
    }
}

fn sorted(mut told: Vec<String>) -> Vec<String> {
    told.sort();
    told
}

/// What the first sensor tells, without directions.
fn of_the_first(told: Vec<String>) -> Vec<String> {
    let mine = told.into_iter().filter(|it| !it.contains("SensorIx(1)"));
    sorted(
        mine.map(|it| {
            let ways = ["Inbound", "Outbound", "Unknown"];
            ways.iter().fold(it, |it, way| {
                it.replace(&format!("direction: Some({way})"), "")
            })
        })
        .collect(),
    )
}

fn bench() -> (Watcher, Now) {
    let now = Now {
        mono: Instant::now(),
        wall: SystemTime::UNIX_EPOCH,
    };
    (Watcher::new(true, 1, now), now)
}

#[test]
fn what_is_not_sought_is_not_kept() {
    let (mut watcher, now) = bench();
    let rows = [
        row(1, id(Proto::Tcp, 5000, 80), Established),
        row(2, id(Proto::Tcp, 5001, 443), Established),
        row(3, id(Proto::Tcp, 8000, 0), Listen),
    ];
    watcher.dump(coverages()[0], &rows, false, now);
    assert_eq!(watcher.sensor.len(), 2);
    assert!(!watcher.sensor.misses(coverages()[0], 1, false).any);
    watcher.sensor.notice(
        notice(1, rows[0].id, established()),
        now,
        &mut watcher.judge,
    );
    assert!(watcher.judge.told.is_empty());
}

/// A socket in view goes elsewhere: one more dump tells.
#[test]
fn a_socket_that_leaves_is_missed_and_found() {
    let (mut watcher, now) = bench();
    let mut rows = [row(2, id(Proto::Tcp, 5001, 443), Established)];
    watcher.tick(coverages()[0], &rows, now);
    rows[0].id = id(Proto::Tcp, 5002, 80);
    watcher.tick(coverages()[0], &rows, now);
    let [closed] = &watcher.judge.told[..] else {
        panic!("{:?}", watcher.judge.told);
    };
    assert!(
        closed.contains("Rebound") && closed.contains(":443"),
        "{closed}"
    );
    assert_eq!(watcher.sensor.dump_number(), 3, "one more told");
    watcher.tick(coverages()[0], &[], now);
    assert_eq!(
        watcher.sensor.dump_number(),
        4,
        "nobody asks for what it has become"
    );
}

/// One that is held open without ends costs one whole dump, and not every dump.
#[test]
fn what_no_dump_holds_is_looked_for_once() {
    let (mut watcher, now) = bench();
    let mut rows = [row(2, id(Proto::Tcp, 5001, 443), Established)];
    watcher.tick(coverages()[0], &rows, now);
    for number in 3..9 {
        watcher.tick(coverages()[0], &[], now);
        assert_eq!(watcher.sensor.dump_number(), number);
    }
    // A dump has held it again: the next one that does not is made up for.
    watcher.tick(coverages()[0], &rows, now);
    watcher.tick(coverages()[0], &[], now);
    assert_eq!(watcher.sensor.dump_number(), 11);
    // It went where no narrowed dump shows it: one that looks for it tells.
    rows[0].id = id(Proto::Tcp, 5002, 80);
    watcher.tick(coverages()[0], &rows, now);
    assert!(watcher.judge.told.is_empty());
    watcher.looks = true;
    watcher.tick(coverages()[0], &rows, now);
    assert!(watcher.judge.told[0].contains("Rebound"));
}

/// What others had been connected to is nothing new to a sensor that begins.
#[test]
fn what_is_sought_later_was_there_before() {
    let (mut watcher, now) = bench();
    let rows = [row(1, id(Proto::Tcp, 5000, 80), Established)];
    watcher.tick(coverages()[0], &rows, now);
    let sensors = Renumbering::NONE;
    let needs = Needs::EVERYTHING;
    watcher
        .sensor
        .replace(vec![view()], needs, &sensors, now, &mut watcher.judge);
    watcher.sensor.seek(Sought::ALL);
    assert!(!watcher.sensor.is_read(Proto::Tcp));
    let mut all = Recorder::default();
    watcher.sensor.begin_dump(coverages()[0], now);
    watcher.sensor.row(rows[0], now);
    watcher.sensor.end_dump(now, &mut all);
    assert!(all.take().is_empty(), "it enters in silence");
    let now = Now {
        mono: now.mono + Duration::from_secs(1),
        ..now
    };
    watcher
        .sensor
        .notice(notice(1, rows[0].id, established()), now, &mut all);
    assert_eq!(all.take().len(), 1);
}
