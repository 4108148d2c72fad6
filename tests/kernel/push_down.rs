//! What patterns allow is asked of the kernel, and nobody notices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;

use serde_json::Value;

use sockwatch::filter::Filter;
use sockwatch::model::{
    Coverage, Family, Netns, Now, Proto, Row, RowKind, SockId, Sought, StateGroups, TcpState,
};
use sockwatch::source::diag::{Progress, Scope};
use sockwatch::stats::Stats;
use sockwatch::wire::bytecode::Condition;

use crate::daemon::{BEACON, Launch, Tick};
use crate::dump::sample;
use crate::netns;
use crate::proc_net;
use crate::record::Record;
use crate::refused::counted;
use crate::sock::{Domain, Sock};

/// All rows of both protocols, as the kernel gives them under a condition.
fn rows(scope: &mut Scope, sought: Option<&[Sought; 2]>) -> Vec<Row> {
    let mut rows = Vec::new();
    let (v4, v6) = (Some(Family::V4), Some(Family::V6));
    for (proto, family) in [
        (Proto::Tcp, None),
        (Proto::Tcp, v4),
        (Proto::Tcp, v6),
        (Proto::Udp, v4),
        (Proto::Udp, v6),
    ] {
        let coverage = Coverage {
            proto,
            family,
            groups: StateGroups::ALL,
        };
        let code = sought.and_then(|sought| Condition::of(&sought[proto as usize]));
        scope
            .begin_where(coverage, code.as_ref(), Now::read())
            .expect("a dump begins");
        loop {
            match scope.read(Now::read(), &mut |row| rows.push(row)) {
                Progress::Done(_) => break,
                Progress::More => {}
                other => panic!("{other:?}"),
            }
        }
    }
    rows
}

/// What tells rows apart, of those that stay.
fn keys<'a>(rows: impl Iterator<Item = &'a Row>) -> BTreeSet<String> {
    let lasting = rows.filter(|row| row.kind == RowKind::Full);
    lasting
        .map(|row| {
            format!(
                "{:?} {:?} {:?} {:?}",
                row.cookie, row.id, row.state, row.kind
            )
        })
        .collect()
}

fn passes(filter: &Filter, id: &SockId, state: TcpState) -> bool {
    filter.judge(id, state, Some("-")) == sockwatch::filter::Answer::Pass
}

/// The real kernel takes the code, and weighs each socket as is written here.
#[test]
fn the_kernel_leaves_out_what_nobody_wants_and_nothing_else() {
    netns::run(
        "push_down::the_kernel_leaves_out_what_nobody_wants_and_nothing_else",
        || {
            let _sample = sample();
            let stats = Rc::new(Stats::default());
            let mut scope = Scope::open(Netns(1), Rc::clone(&stats)).expect("a scope");
            let all = rows(&mut scope, None);
            let mut lists: Vec<(Vec<String>, Vec<String>)> = Vec::new();
            for row in all.iter().step_by(4) {
                let (local, remote) = (row.id.local, row.id.remote);
                for pattern in [
                    format!("* {local} * * *"),
                    format!("* * {remote} * *"),
                    format!("*:{} *", local.port),
                    format!("* *:{} *:{} * *", local.port, remote.port),
                    format!("{}* {local} {remote} * *", row.id.proto.as_str()),
                ] {
                    lists.push((vec![pattern.clone()], Vec::new()));
                    lists.push((Vec::new(), vec![pattern]));
                }
            }
            let both: Vec<String> = lists
                .iter()
                .take(9)
                .flat_map(|(patterns, _)| patterns.clone())
                .collect();
            lists.push((both.clone(), Vec::new()));
            lists.push((
                both,
                vec!["* 127.0.0.1:* * * *".into(), "* * [::1]:* * *".into()],
            ));
            lists.dedup();
            let (mut narrow, lasting) = (0, keys(all.iter()).len());
            for (patterns, ignore) in lists {
                let Ok(filter) = Filter::new(&patterns, &ignore) else {
                    continue;
                };
                for once in [true, false] {
                    let sought = Proto::ALL.map(|proto| match once {
                        true => filter.sought_in_dump(proto),
                        false => filter.sought(proto),
                    });
                    let told = rows(&mut scope, Some(&sought));
                    let expected = all
                        .iter()
                        .filter(|row| sought[row.id.proto as usize].wants(&row.id));
                    let (told, expected) = (keys(told.iter()), keys(expected));
                    let differ: Vec<_> = told.symmetric_difference(&expected).collect();
                    assert!(
                        differ.is_empty(),
                        "{patterns:?} {ignore:?} {once}: {differ:?}"
                    );
                    narrow += usize::from(told.len() < lasting);
                    let passing = |row: &&Row| {
                        passes(&filter, &row.id, row.state)
                            && (once || row.state != TcpState::TimeWait)
                    };
                    let missing = &keys(all.iter().filter(passing)) - &told;
                    assert!(missing.is_empty(), "{patterns:?} {ignore:?}: {missing:?}");
                }
            }
            assert!(
                narrow > 100,
                "only {narrow} dumps held less than everything"
            );
            assert!(!scope.is_unconditional(), "a condition was refused");
            assert_eq!(stats.conditions_refused.count(), 0);
        },
    );
}

/// A condition that no kernel takes stands for a kernel that takes none.
#[test]
fn a_kernel_that_takes_no_condition_gives_all_rows() {
    netns::run(
        "push_down::a_kernel_that_takes_no_condition_gives_all_rows",
        || {
            let _sample = sample();
            let stats = Rc::new(Stats::default());
            let mut scope = Scope::open(Netns(1), Rc::clone(&stats)).expect("a scope");
            let all = rows(&mut scope, None);
            let coverage = Coverage {
                proto: Proto::Tcp,
                family: None,
                groups: StateGroups::ALL,
            };
            let unknown = Condition {
                code: Box::new([99, 4, 8, 0]),
            };
            scope
                .begin_where(coverage, Some(&unknown), Now::read())
                .expect("it is refused later");
            let mut told = Vec::new();
            loop {
                match scope.read(Now::read(), &mut |row| told.push(row)) {
                    Progress::Done(_) => break,
                    Progress::More => {}
                    other => panic!("{other:?}"),
                }
            }
            let tcp = all.iter().filter(|row| row.id.proto == Proto::Tcp);
            assert_eq!(keys(told.iter()), keys(tcp));
            assert!(scope.is_unconditional());
            assert_eq!(stats.conditions_refused.count(), 1);
            assert_eq!(stats.dumps_failed.count(), 0);
        },
    );
}

/// What a sensor wants.
pub const SENSORS: [&str; 6] = [
    r#"patterns: ["tcp * *:4443 * *", "tcp *:4022 * * *"]"#,
    r#"patterns: ["*:4443 *", "*:4022 *"], ignore: ["tcp *:4080 * * *", "tcp * *:4022 * CLOSE*"]"#,
    r#"patterns: ["tcp * * * LISTEN"]"#,
    // Addresses, of which a v4-mapped socket has the first.
    r#"patterns: ["tcp * 127.0.0.1:4443 * *", "tcp [::1]:4022 * * *", "tcp 127.0.0.1:4080 * * *"]"#,
    r#"patterns: ["tcp4 * *:4443 * *", "tcp6 *:4022 * * *"], ignore: ["tcp * 127.0.0.1:* * ESTABLISHED"]"#,
    // A host that none of them has, and one that all have.
    r#"patterns: ["tcp * *:4443 *.example *", "tcp * *:4022 - *"]"#,
];

/// It, and the harness's own, which must not want more of TCP connections.
pub fn sensors(args: &str) -> String {
    let beacon = format!(
        r#"patterns: ["* {BEACON}:* * * LISTEN", "* {BEACON}:* * * CLOSE", "udp {BEACON}:* * * *"]"#
    );
    let sensor = |id, args: String| {
        format!("  {id}: {{listener: net.socket, args: {{process: false, {args}}}}}\n")
    };
    sensor("sockets", args.to_owned()) + &sensor("beacon", beacon)
}

/// What happens in one round; sockets that stay open are kept.
struct Traffic {
    seed: u64,
    listeners: Vec<Sock>,
    open: Vec<Sock>,
    cookies: Vec<u64>,
}

impl Traffic {
    fn new(seed: u64) -> Traffic {
        let mut listeners = Vec::new();
        for domain in [Domain::V4, Domain::V6] {
            for port in [4443, 4080, 4022] {
                let listener = Sock::tcp(domain);
                listener.share_port();
                listener.bind(SocketAddr::new(domain.loopback(), port));
                listener.listen(64);
                listeners.push(listener);
            }
        }
        Traffic {
            seed,
            listeners,
            open: Vec::new(),
            cookies: Vec::new(),
        }
    }

    /// A number below `n` (xorshift).
    fn pick(&mut self, n: usize) -> usize {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed % n as u64) as usize
    }

    fn keep(&mut self, sockets: impl IntoIterator<Item = Sock>) {
        for socket in sockets {
            self.cookies.push(socket.cookie);
            self.open.push(socket);
        }
    }

    fn take(&mut self) -> Option<Sock> {
        let n = self.open.len();
        (n > 0)
            .then(|| self.pick(n))
            .map(|at| self.open.swap_remove(at))
    }

    fn step(&mut self) {
        let at = self.pick(self.listeners.len());
        match self.pick(9) {
            0..=2 => {
                let listener = &self.listeners[at];
                let pair: [Sock; 2] = match listener.domain() {
                    // An AF_INET6 socket with an IPv4 peer.
                    Domain::V4 if self.seed & 64 == 0 => {
                        let client = Sock::tcp(Domain::Mapped);
                        client.connect(listener.local()).expect("it listens");
                        [client, listener.accept()]
                    }
                    _ => Sock::pair(listener).into(),
                };
                self.keep(pair);
            }
            3 => drop(self.take()),
            4 => {
                // As a linger-0 closer, whose notice has lost the remote port.
                if let Some(socket) = self.take() {
                    socket.reset_on_close();
                }
            }
            5 => {
                // Gone before anybody looks.
                let (client, server) = Sock::pair(&self.listeners[at]);
                self.cookies.extend([client.cookie, server.cookie]);
            }
            6 => {
                // The same socket goes elsewhere.
                let Some(socket) = self.take() else { return };
                socket.disconnect();
                let domain = socket.domain();
                let to = SocketAddr::new(domain.loopback(), [4443, 4080][self.pick(2)]);
                if socket.connect(to).is_ok() && socket.ident().proto == "tcp" {
                    let listener = self.listeners.iter().find(|it| it.local() == to);
                    let server = listener.map(Sock::accept);
                    self.keep(server);
                }
                self.keep([socket]);
            }
            7 => {
                let udp = Sock::udp(Domain::V4);
                udp.connect(SocketAddr::new(
                    Domain::V4.loopback(),
                    [4443, 53][self.pick(2)],
                ))
                .expect("UDP asks nobody");
                self.keep([udp]);
            }
            _ => {
                let socket = Sock::tcp(Domain::V4);
                socket.bind_loopback();
                if self.pick(2) == 0 {
                    socket.listen(1);
                }
                self.keep([socket]);
            }
        }
    }
}

/// What was told of each socket, in order, without the times.
pub fn told(record: &Record, cookies: &[u64]) -> BTreeMap<u64, Vec<Value>> {
    let mut told: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
    for event in record.only(cookies).events() {
        let mut data = event["data"].clone();
        let fields = data.as_object_mut().expect("an object");
        fields.retain(|key, _| !key.starts_with("duration"));
        // In which of these it was read last depends on the moment.
        let closing = [
            "FIN_WAIT1",
            "FIN_WAIT2",
            "CLOSE_WAIT",
            "LAST_ACK",
            "CLOSING",
        ];
        if closing.iter().any(|state| fields["state"] == *state) {
            fields["state"] = "ESTABLISHED".into();
        }
        let cookie = data["cookie"].as_u64().expect("a cookie");
        told.entry(cookie).or_default().push(data);
    }
    told
}

/// Two daemons beside the same sockets, of which one asks the kernel to leave out
/// what no pattern could match: they say the same.
#[test]
fn it_changes_no_event() {
    netns::run("push_down::it_changes_no_event", || {
        let mut widened = 0;
        for (number, args) in SENSORS.into_iter().enumerate() {
            let start = |on: &str| {
                let launch = Launch::new(Tick::Fast).sensors(&sensors(args));
                let launch = launch.without_beacon().setting("gate", "off");
                let launch = launch.setting("cpu-budget", "off");
                launch.setting("push-down", on).start()
            };
            let (on, off) = (start("true"), start("false"));
            let mut traffic = Traffic::new(0x9e37_79b9_7f4a_7c15 + number as u64);
            for daemon in [&on, &off] {
                daemon.ticks(1);
            }
            for _ in 0..25 {
                on.paused(|| {
                    off.paused(|| {
                        (0..6).for_each(|_| traffic.step());
                        // Both find every end where it is to stay.
                        proc_net::quiet();
                    });
                });
                for daemon in [&on, &off] {
                    daemon.ticks(1);
                }
            }
            on.paused(|| off.paused(|| traffic.open.clear()));
            for daemon in [&on, &off] {
                daemon.ticks(1);
                daemon.settle();
            }
            let (on, off) = (on.stop(), off.stop());
            let cookies = traffic.cookies;
            let (narrowed, whole) = (told(&on, &cookies), told(&off, &cookies));
            assert!(whole.len() > 3, "{args}: {whole:#?}");
            for (cookie, expected) in &whole {
                assert_eq!(narrowed.get(cookie), Some(expected), "{args}\n{}", on.log);
            }
            assert_eq!(narrowed.len(), whole.len(), "{args}");
            let count = |record: &Record, name| counted(&record.log, name);
            assert!(count(&on, "dumps_narrowed") > 10, "{}", on.log);
            widened += count(&on, "dumps_widened");
            assert_eq!(count(&off, "dumps_narrowed"), 0, "{}", off.log);
        }
        assert!(widened > 0, "no socket went elsewhere");
    });
}
