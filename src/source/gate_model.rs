//! The gate against a model of a kernel and of the table that dumps fill.
//!
//! What must hold after each tick, as long as no failed dump waits to be tried
//! again:
//! * of connections, everything that is in the kernel's table has been read, in
//!   the state in which it is;
//! * of sockets that no counter tells for good (UDP, and listeners), everything
//!   too, unless a notice is on its way: a close can hide an open until it is heard.

use super::*;
use proptest::prelude::*;

const TICK: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Udp,
    Listener,
    Connection,
    /// A connection in SYN_SENT.
    Handshake,
}

impl Kind {
    fn proto(self) -> Proto {
        match self {
            Kind::Udp => Proto::Udp,
            _ => Proto::Tcp,
        }
    }

    fn is_counted(self) -> bool {
        matches!(self, Kind::Connection | Kind::Handshake)
    }
}

/// What happens between two readings.
#[derive(Clone, Copy, Debug)]
enum Step {
    Open(Kind),
    /// A connection that is counted, but stands in the table only after the dump
    /// that the next tick may ask for.
    Race,
    /// The end of some socket, whose notice is heard before so many ticks more.
    Close(usize, u32),
    /// The first handshake comes to its end.
    Establish,
    /// Notices were dropped.
    Forget(Proto),
    /// The next dumps fail, and are tried again later.
    Fail,
    /// What failed is tried again.
    Retry,
    Tick,
}

#[derive(Clone, Copy, Debug)]
struct Socket {
    kind: Kind,
    /// As what it was read.
    read: Option<Kind>,
}

struct Model {
    gate: Gate,
    now: Instant,
    opens: u64,
    sockets: Vec<Socket>,
    racing: u64,
    /// Notices on their way, and how many ticks more they take.
    notices: Vec<(Proto, u32)>,
    /// Nothing that was counted is to be relied on.
    forgotten: [bool; 2],
    fails: bool,
    /// Failed dumps that wait to be tried again.
    retries: [bool; 2],
}

impl Model {
    fn new() -> Model {
        Model {
            gate: Gate::new(Duration::MAX, |_| false),
            now: Instant::now(),
            opens: 0,
            sockets: Vec::new(),
            racing: 0,
            notices: Vec::new(),
            forgotten: [false; 2],
            fails: false,
            retries: [false; 2],
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Open(kind) => {
                self.opens += u64::from(kind.is_counted());
                self.sockets.push(Socket { kind, read: None });
            }
            Step::Race => {
                self.opens += 1;
                self.racing += 1;
            }
            Step::Close(which, late) if !self.sockets.is_empty() => {
                let socket = self.sockets.swap_remove(which % self.sockets.len());
                self.notices.push((socket.kind.proto(), late));
            }
            Step::Close(..) => {}
            Step::Establish => {
                let mut sockets = self.sockets.iter_mut();
                if let Some(socket) = sockets.find(|it| it.kind == Kind::Handshake) {
                    socket.kind = Kind::Connection;
                }
            }
            Step::Forget(proto) => {
                self.gate.forget(proto);
                self.forgotten[proto as usize] = true;
            }
            Step::Fail => self.fails = true,
            Step::Retry => {
                for proto in Proto::ALL {
                    if std::mem::take(&mut self.retries[proto as usize]) {
                        self.dump(proto);
                    }
                }
            }
            Step::Tick => {
                self.tick();
            }
        }
    }

    fn in_use(&self, proto: Proto) -> u64 {
        let such = self.sockets.iter().filter(|it| it.kind.proto() == proto);
        such.count() as u64
    }

    fn dump(&mut self, proto: Proto) {
        for socket in &mut self.sockets {
            if socket.kind.proto() == proto {
                socket.read = Some(socket.kind);
            }
        }
    }

    /// What the tick dumps.
    fn tick(&mut self) -> Needs {
        self.now += TICK;
        let gate = &mut self.gate;
        self.notices.retain_mut(|(proto, late)| {
            if *late == 0 {
                gate.noticed(*proto);
                return false;
            }
            *late -= 1;
            true
        });
        let handshakes = self
            .sockets
            .iter()
            .any(|socket| socket.read == Some(Kind::Handshake));
        let reading = Reading {
            tcp_opens: self.opens,
            tcp_in_use: self.in_use(Proto::Tcp) + self.racing,
            udp_in_use: self.in_use(Proto::Udp),
        };
        let tick = Tick {
            now: self.now,
            reading: Some(reading),
            handshakes,
        };
        let (needs, _) = self.gate.pass(Needs::EVERYTHING, tick);
        for proto in Proto::ALL {
            let forgotten = std::mem::take(&mut self.forgotten[proto as usize]);
            assert!(needs.proto(proto) || !forgotten, "{proto:?} was forgotten");
            if !needs.proto(proto) || self.retries[proto as usize] {
                continue;
            }
            if self.fails {
                self.retries[proto as usize] = true;
            } else {
                self.dump(proto);
            }
        }
        self.fails = false;
        self.hold();
        for _ in 0..std::mem::take(&mut self.racing) {
            let kind = Kind::Connection;
            self.sockets.push(Socket { kind, read: None });
        }
        needs
    }

    fn hold(&self) {
        for socket in &self.sockets {
            let proto = socket.kind.proto();
            let hidden = self.notices.iter().any(|(other, _)| *other == proto);
            let excused = self.retries[proto as usize] || hidden && !socket.kind.is_counted();
            let known = socket.read == Some(socket.kind);
            assert!(known || excused, "{socket:?} after a tick");
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        Just(Kind::Udp),
        Just(Kind::Listener),
        Just(Kind::Connection),
        Just(Kind::Handshake),
    ];
    prop_oneof![
        4 => kind.prop_map(Step::Open),
        1 => Just(Step::Race),
        4 => (any::<usize>(), 0_u32..3).prop_map(|(which, late)| Step::Close(which, late)),
        1 => Just(Step::Establish),
        1 => prop_oneof![Just(Proto::Tcp), Just(Proto::Udp)].prop_map(Step::Forget),
        1 => Just(Step::Fail),
        1 => Just(Step::Retry),
        6 => Just(Step::Tick),
    ]
}

proptest! {
    #[test]
    fn nothing_waits_longer_than_a_tick(steps in proptest::collection::vec(step(), 1..200)) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
        }
        // When it is quiet again, two rounds are the last.
        while model.sockets.iter().any(|socket| socket.kind == Kind::Handshake) {
            model.step(Step::Establish);
        }
        for _ in 0..4 {
            model.step(Step::Retry);
            model.step(Step::Tick);
        }
        prop_assert_eq!(model.tick(), Needs::default());
    }
}
