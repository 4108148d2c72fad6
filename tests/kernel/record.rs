//! What a daemon said in one run, and the account of it: every event expected,
//! none too many.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::Value;

use crate::daemon::BEACON;
use crate::expect::{Expect, Frame};

/// All records of one run, in their order.
#[derive(Debug)]
pub struct Record {
    all: Vec<Value>,
    /// The log.
    pub log: String,
    launched: SystemTime,
}

impl Record {
    /// Takes what a daemon said. Its records must be numbered without a hole but
    /// those that a gap record owns up to.
    pub fn new(all: Vec<Value>, log: String, launched: SystemTime) -> Record {
        let mut next = 1;
        for event in &all {
            let lost = match event["data"]["sink"].as_str() {
                Some("stdout") => event["data"]["events_lost"].as_u64().unwrap_or(0),
                _ => 0,
            };
            assert_eq!(event["seq"], next + lost, "a hole in `seq` before {event}");
            next += lost + 1;
        }
        Record { all, log, launched }
    }

    /// The events of sockets, without those of the harness.
    pub fn events(&self) -> impl Iterator<Item = &Value> {
        self.all.iter().filter(|event| {
            let local = event["data"]["local"].as_str().unwrap_or_default();
            event["listener"] != "self" && !local.starts_with(BEACON)
        })
    }

    /// The daemon's records about itself, but for what it may not do: that depends
    /// on whose test it is.
    pub fn own(&self) -> Vec<&Value> {
        let own = self.all.iter().filter(|event| event["listener"] == "self");
        own.filter(|event| !is_lack(event)).collect()
    }

    /// What it says that it may not do.
    pub fn lacks(&self) -> Vec<&Value> {
        self.all.iter().filter(|event| is_lack(event)).collect()
    }

    /// The cookies of all events with this action, in their order.
    pub fn cookies(&self, action: &str) -> Vec<u64> {
        self.events()
            .filter(|event| event["data"]["action"] == action)
            .map(|event| {
                event["data"]["cookie"]
                    .as_u64()
                    .expect("every socket has a cookie")
            })
            .collect()
    }

    /// The one event of a cookie with this action.
    pub fn find(&self, action: &str, cookie: u64) -> &Value {
        let found: Vec<&Value> = self
            .events()
            .filter(|event| event["data"]["action"] == action && event["data"]["cookie"] == cookie)
            .collect();
        assert_eq!(found.len(), 1, "{action} of {cookie}: {found:?}");
        found[0]
    }

    /// Its evidence.
    pub fn evidence(&self, action: &str, cookie: u64) -> String {
        self.find(action, cookie)["data"]["evidence"]
            .as_str()
            .expect("a word")
            .to_string()
    }

    /// The same run with the events of these cookies alone.
    pub fn only(&self, cookies: &[u64]) -> Record {
        self.filtered(|event| {
            cookies
                .iter()
                .any(|cookie| event["data"]["cookie"] == *cookie)
        })
    }

    /// The same run with some of the events alone.
    pub fn filtered(&self, wanted: impl Fn(&Value) -> bool) -> Record {
        let all = self.all.iter();
        let all = all.filter(|event| event["listener"] == "self" || wanted(event));
        Record {
            all: all.cloned().collect(),
            log: self.log.clone(),
            launched: self.launched,
        }
    }

    /// Where in the run a record stands.
    pub fn position(&self, record: &Value) -> usize {
        self.all
            .iter()
            .position(|other| other == record)
            .expect("a record of this run")
    }

    /// Accounts for every event of every sensor, and for there being no record
    /// of the daemon about itself.
    pub fn hold(&self, expected: &[Expect]) {
        assert_eq!(
            self.own(),
            Vec::<&Value>::new(),
            "nothing was lost or missing"
        );
        self.hold_events(expected);
    }

    /// Accounts for every event of every sensor. The events of one socket must
    /// come in the order of `expected`; different sockets may swap.
    pub fn hold_events(&self, expected: &[Expect]) {
        let frame = Frame::new(self.launched);
        let mut found: BTreeMap<(String, u64), Vec<&Value>> = BTreeMap::new();
        for event in self.events() {
            let sensor = event["sensor"].as_str().expect("a sensor").to_string();
            let cookie = event["data"]["cookie"].as_u64().expect("a cookie");
            found.entry((sensor, cookie)).or_default().push(event);
        }
        let mut wanted: BTreeMap<(String, u64), Vec<&Expect>> = BTreeMap::new();
        let mut problems = Vec::new();
        for expect in expected {
            match self.cookie_of(expect, expected) {
                Some(cookie) => {
                    wanted
                        .entry((expect.sensor().to_string(), cookie))
                        .or_default()
                        .push(expect);
                }
                None => problems.push(format!("missing: {expect}")),
            }
        }
        for (key, expects) in &wanted {
            let events = found.remove(key).unwrap_or_default();
            for (at, expect) in expects.iter().enumerate() {
                match events.get(at) {
                    None => problems.push(format!("missing: {expect}")),
                    Some(event) => problems.extend(
                        frame
                            .problems(expect, event)
                            .into_iter()
                            .map(|problem| format!("{problem}\n    in {event}\n    for {expect}")),
                    ),
                }
            }
            for event in events.iter().skip(expects.len()) {
                problems.push(format!("too many: {event}"));
            }
        }
        for event in found.into_values().flatten() {
            problems.push(format!("unexpected: {event}"));
        }
        if !problems.is_empty() {
            panic!(
                "{}\nall events:\n{}\nlog:\n{}",
                problems.join("\n"),
                listing(self.events()),
                self.log
            );
        }
    }

    /// The cookie of a socket; one whose cookie the test could not read is
    /// found by its ends, among the cookies that nobody else is known to have.
    fn cookie_of(&self, expect: &Expect, expected: &[Expect]) -> Option<u64> {
        expect.cookie().or_else(|| {
            self.events()
                .filter(|event| expect.has_the_ends_of(event))
                .filter_map(|event| event["data"]["cookie"].as_u64())
                .find(|&cookie| expected.iter().all(|other| other.cookie() != Some(cookie)))
        })
    }
}

fn is_lack(event: &Value) -> bool {
    let source = &event["data"]["source"];
    event["listener"] == "self" && (source == "processes" || source == "receive_buffer")
}

/// The last events of a run for a person, a short line each.
pub fn listing<'a>(events: impl Iterator<Item = &'a Value>) -> String {
    const LINES: usize = 200;
    let events: Vec<&Value> = events.collect();
    let line = |event: &&Value| {
        let data = &event["data"];
        let word = |key: &str| {
            data[key]
                .as_str()
                .map_or_else(|| data[key].to_string(), str::to_string)
        };
        let keys = [
            "action", "evidence", "proto", "local", "remote", "state", "cookie",
        ];
        format!(
            "  {} {} {}\n",
            event["seq"],
            event["sensor"],
            keys.map(word).join(" ")
        )
    };
    events[events.len().saturating_sub(LINES)..]
        .iter()
        .map(line)
        .collect()
}
