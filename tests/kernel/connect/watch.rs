//! A daemon that watches connects by the hook under test, and the account of
//! what it said.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::callers::Caller;
use crate::attribution::name_user;
use crate::cgroups;
use crate::daemon::{BEACON, Daemon, Launch, Tick};
use crate::netns;
use crate::record::Record;
use crate::sock::{Domain, Sock};

/// The variable that names the hook under test: `lsm`, `fentry` or `cgroup`,
/// which is the one taken without it.
pub const HOOK: &str = "SOCKWATCH_TEST_HOOK";

/// The hook under test.
pub fn hook() -> String {
    std::env::var(HOOK).unwrap_or_else(|_| "cgroup".to_string())
}

/// Whether the hook is called for the function behind connect(2), which only
/// connect(2) calls. The other is called by the protocol.
pub fn by_system_call() -> bool {
    hook() != "cgroup"
}

/// One connect() that must be reported.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its `data`.
    data: Value,
    /// The event need not say the same cookie: the test cannot know it.
    any_cookie: bool,
}

impl Call {
    /// The calling thread connects this socket.
    pub fn of(socket: &Sock, to: SocketAddr) -> Call {
        let caller = Caller::current();
        let mut data = json!({
            "action": "connect",
            "origin": hook(),
            "dstIP": to.ip().to_string(),
            "dstPort": to.port(),
            "results": [],
            "results_reason": "not_seen",
            "proto": "tcp",
            "family": if to.is_ipv4() { "ipv4" } else { "ipv6" },
            "process": {"pid": caller.pid, "tid": caller.tid, "comm": caller.comm},
            "uid": caller.uid,
            "netns": caller.netns,
            "cookie": socket.cookie,
        });
        cgroups::show(&mut data, &caller);
        if socket.domain() == Domain::Mapped {
            data["v4_mapped"] = json!(true);
        }
        name_user(&mut data);
        Call {
            data,
            any_cookie: false,
        }
    }

    /// By MPTCP. What the protocol connects then is a TCP socket of its own.
    #[cfg(feature = "bpf")]
    pub fn mptcp(mut self) -> Call {
        self.data["mptcp"] = json!(true);
        self.any_cookie = !by_system_call();
        self
    }

    /// That no hook sees, of a socket that a dump reads in this state.
    pub fn read_in(mut self, state: &str) -> Call {
        for (key, value) in [
            ("origin", json!("sock_diag")),
            ("exact", json!(false)),
            ("evidence", json!("dump")),
            ("state", json!(state)),
            ("process", Value::Null),
            ("process_reason", json!("no_hook")),
        ] {
            self.data[key] = value;
        }
        self
    }

    /// To an address with these names.
    pub fn resolved(mut self, names: &[&str]) -> Call {
        if !names.is_empty() {
            self.data["results"] = json!(names);
            let data = self.data.as_object_mut().expect("an object");
            data.remove("results_reason");
        }
        self
    }

    /// The namespace in which it was called.
    pub fn netns(&self) -> u64 {
        self.data["netns"].as_u64().expect("a namespace")
    }

    /// The event id of a sensor.
    fn eid(&self) -> String {
        let ip: std::net::IpAddr = self.data["dstIP"]
            .as_str()
            .and_then(|ip| ip.parse().ok())
            .expect("an address");
        let port = self.data["dstPort"].as_u64().unwrap_or(0);
        let to = SocketAddr::new(ip, u16::try_from(port).expect("a port"));
        format!("connects|net.tcp_connect@outbound|connect@{to}|0")
    }

    /// Whether an event is about this call, right or wrong.
    fn is_told_by(&self, event: &Value) -> bool {
        let same = |key: &str| event["data"][key] == self.data[key];
        if self.any_cookie {
            same("dstIP") && same("dstPort")
        } else {
            same("cookie") && same("dstIP") && same("dstPort")
        }
    }

    /// What is wrong with an event that is about this call.
    fn problems(&self, event: &Value) -> Vec<String> {
        let mut wanted = self.data.clone();
        if self.any_cookie && event["data"]["cookie"].as_u64().is_some() {
            wanted["cookie"] = event["data"]["cookie"].clone();
        }
        let (found, wanted) = (&event["data"], &wanted);
        let keys = |value: &Value| -> Vec<String> {
            let map = value.as_object().expect("data is an object");
            map.keys().cloned().collect()
        };
        let mut all = [keys(found), keys(wanted)].concat();
        all.sort();
        all.dedup();
        let mut problems: Vec<String> = all
            .iter()
            .filter(|key| found.get(key) != wanted.get(key))
            .map(|key| format!("{key}: {} instead of {}", found[key], wanted[key]))
            .collect();
        for (key, wanted) in [
            ("eid", self.eid()),
            ("sensor", "connects".to_string()),
            ("listener", "net.tcp_connect".to_string()),
            ("tag", "outbound".to_string()),
        ] {
            if event[key] != wanted {
                problems.push(format!("{key}: {} instead of {wanted:?}", event[key]));
            }
        }
        problems
    }
}

/// A daemon with the sensor `connects` on the hook under test.
pub struct Watch {
    /// The daemon.
    pub daemon: Daemon,
    expected: RefCell<Vec<Call>>,
    /// The namespaces of this test.
    netns: RefCell<Vec<u64>>,
    ignored_port: Cell<Option<u16>>,
}

/// Runs a test in a namespace of its own, beside a daemon, and holds what the
/// daemon says to what the test expected.
pub fn run(name: &str, body: impl FnOnce(&Watch)) {
    run_with(name, "", |watch| {
        body(watch);
        |_: &Record| {}
    });
}

/// The same with further sensors; the body says how to look at what they said.
pub fn run_with<Look: FnOnce(&Record)>(
    name: &str,
    sensors: &str,
    body: impl FnOnce(&Watch) -> Look,
) {
    privileged(name, || {
        let watch = Watch::start(sensors);
        let look = body(&watch);
        look(&watch.finish());
    });
}

/// Runs a test that needs what a hook needs, in a namespace of its own.
pub fn privileged(name: &str, body: impl FnOnce()) {
    netns::run(name, || {
        if netns::is_root() {
            body();
        } else {
            netns::skip("a hook needs privileges in the initial user namespace");
        }
    });
}

impl Watch {
    /// Starts it, with these sensors besides.
    pub fn start(sensors: &str) -> Watch {
        Watch::start_narrow("*", sensors)
    }

    /// Starts it with a pattern for `connects`.
    pub fn start_narrow(pattern: &str, sensors: &str) -> Watch {
        let hook = hook();
        let own = format!(
            "  connects: {{listener: net.tcp_connect, tag: outbound, \
             args: {{hook: {hook}, patterns: [\"{pattern}\"]}}}}\n"
        );
        let daemon = Launch::new(Tick::Fast)
            .sensors(&format!("{own}{sensors}"))
            .start();
        Watch {
            daemon,
            expected: RefCell::default(),
            netns: RefCell::new(vec![netns::inode()]),
            ignored_port: Cell::default(),
        }
    }

    /// The calling thread is about to connect this socket for the first time.
    pub fn expect(&self, socket: &Sock, to: SocketAddr) {
        self.expect_call(Call::of(socket, to));
    }

    /// This must be reported too.
    pub fn expect_call(&self, call: Call) {
        self.netns.borrow_mut().push(call.netns());
        self.expected.borrow_mut().push(call);
    }

    /// Calls to this port need not be expected.
    pub fn ignore_port(&self, port: u16) {
        self.ignored_port.set(Some(port));
    }

    /// Waits until a call has been reported.
    pub fn reported(&self, call: &Call) {
        self.daemon.wait_for(&format!("{}", call.data), |event| {
            is_connect(event) && call.is_told_by(event)
        });
    }

    /// Waits for dumps of TCP that began after this call: what the hooks have
    /// not seen is in them.
    pub fn dumps(&self) {
        // See Daemon::ticks. A listener is in a dump of every kernel, a bound
        // socket since 6.8.
        for _ in 0..=2 {
            let beacon = Sock::tcp(Domain::V4);
            beacon.bind(SocketAddr::new(BEACON.parse().expect("an address"), 0));
            beacon.listen(1);
            self.daemon.reported("beacon", "opened", beacon.cookie);
        }
    }

    /// Ends the daemon when it has reported all that happened so far, and
    /// accounts for every event.
    pub fn finish(self) -> Record {
        // The ring keeps the order of the calls: what comes behind this one
        // does not exist.
        let last = Sock::tcp(Domain::V4);
        let nobody = SocketAddr::new(Domain::V4.loopback(), 1);
        let call = Call::of(&last, nobody);
        self.expect_call(call.clone());
        last.connect(nobody).expect_err("nobody listens on port 1");
        self.reported(&call);
        self.dumps();
        let daemon = u64::from(self.daemon.id());
        let record = self.daemon.stop();
        let namespaces = self.netns.into_inner();
        let ignored = self.ignored_port.get().map(|port| json!(port));
        let mine = |event: &&Value| {
            let (netns, pid) = (&event["data"]["netns"], &event["data"]["process"]["pid"]);
            let pids = [u64::from(std::process::id()), daemon];
            is_connect(event)
                && Some(&event["data"]["dstPort"]) != ignored.as_ref()
                && (netns
                    .as_u64()
                    .is_some_and(|netns| namespaces.contains(&netns))
                    || pid.as_u64().is_some_and(|pid| pids.contains(&pid)))
        };
        hold(
            self.expected.into_inner(),
            record.events().filter(mine).collect(),
            &record.log,
        );
        record
    }
}

/// Whether an event is one of the sensor `connects`.
pub fn is_connect(event: &Value) -> bool {
    event["sensor"] == "connects"
}

/// Accounts for every event.
fn hold(expected: Vec<Call>, mut events: Vec<&Value>, log: &str) {
    let mut problems = Vec::new();
    for call in expected {
        match events.iter().position(|event| call.is_told_by(event)) {
            None => problems.push(format!("missing: {}", call.data)),
            Some(at) => {
                let event = events.remove(at);
                problems.extend(
                    call.problems(event)
                        .into_iter()
                        .map(|problem| format!("wrong: {problem}\n    in {event}")),
                );
            }
        }
    }
    problems.extend(events.iter().map(|event| format!("unexpected: {event}")));
    assert!(problems.is_empty(), "{}\nlog:\n{log}", problems.join("\n"));
}
