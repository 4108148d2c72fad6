//! What one event must say: every key of it, and no other.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::cgroups;
use crate::daemon::Tick;
use crate::netns;
use crate::sock::{Domain, Ident};

/// One expected event.
#[derive(Clone, Debug)]
pub struct Expect {
    sensor: String,
    tag: Option<String>,
    ident: Ident,
    action: &'static str,
    data: BTreeMap<&'static str, Field>,
}

/// What a key's value must be.
#[derive(Clone, Debug)]
enum Field {
    Is(Value),
    Within(RangeInclusive<u64>),
    /// Within, or not there.
    Perhaps(RangeInclusive<u64>),
    /// One of these words.
    Word([&'static str; 2]),
}

/// What a connection carried, as its events must tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Traffic {
    /// The counters are wiped, or there never were any.
    None,
    /// Only a handshake was tried: no payload, perhaps no sample of the round
    /// trip.
    Handshake,
    /// This many bytes.
    Bytes {
        /// Sent.
        sent: u64,
        /// Received; the peer's FIN may count as one more.
        received: u64,
    },
}

/// No payload in an established connection.
pub const SILENT: Traffic = Traffic::Bytes {
    sent: 0,
    received: 0,
};

/// No run is longer.
const LONG: u64 = 200_000;

impl Expect {
    fn new(ident: Ident, action: &'static str, evidence: &str, state: &str) -> Expect {
        let family = if ident.domain == Domain::V6 {
            "ipv6"
        } else {
            "ipv4"
        };
        let mut expect = Expect {
            sensor: "sockets".to_string(),
            tag: None,
            ident,
            action,
            data: BTreeMap::new(),
        };
        for (key, value) in [
            ("action", json!(action)),
            ("evidence", json!(evidence)),
            ("proto", json!(ident.proto)),
            ("family", json!(family)),
            ("local", json!(ident.local.to_string())),
            ("remote", json!(ident.remote.to_string())),
            ("remote_host", Value::Null),
            ("state", json!(state)),
            ("netns", json!(netns::inode())),
        ] {
            expect.data.insert(key, Field::Is(value));
        }
        if ident.domain == Domain::Mapped {
            expect.data.insert("v4_mapped", Field::Is(json!(true)));
        }
        expect.data.insert(
            "cookie",
            ident.cookie.map_or(Field::Within(1..=u64::MAX), |cookie| {
                Field::Is(json!(cookie))
            }),
        );
        if ident.proto == "tcp" && !matches!(state, "LISTEN" | "CLOSE") {
            let way = if ident.accepted {
                "inbound"
            } else {
                "outbound"
            };
            expect.data.insert("direction", Field::Word([way; 2]));
        }
        // SAFETY: getuid(2) takes nothing and cannot fail.
        let uid = unsafe { libc::getuid() };
        match ident.inode {
            Some(inode) => {
                expect.data.insert("inode", Field::Is(json!(inode)));
                expect.data.insert("uid", Field::Is(json!(uid)));
                expect
            }
            None => expect.ownerless("no_file"),
        }
    }

    /// An opening.
    pub fn opened(ident: Ident, evidence: &str, state: &str) -> Expect {
        Expect::new(ident, "opened", evidence, state)
    }

    /// An end, with nothing known but the socket.
    pub fn closed(ident: Ident, evidence: &str, state: &str) -> Expect {
        Expect::new(ident, "closed", evidence, state)
    }

    /// An end of a socket that was seen before, by its notice.
    pub fn notified(ident: Ident, state: &str, traffic: Traffic) -> Expect {
        let mut expect = Expect::closed(ident, "notified", state).traffic(traffic);
        expect.data.insert("duration_ms", Field::Within(0..=LONG));
        expect
    }

    /// Opened and closed by a socket that stayed: read by a dump in `state`,
    /// last seen in `last`.
    pub fn read(ident: Ident, state: &str, last: &str, traffic: Traffic) -> [Expect; 2] {
        [
            Expect::opened(ident, "dump", state),
            Expect::notified(ident, last, traffic),
        ]
    }

    /// Opened and closed by a socket that no dump has read.
    pub fn between_ticks(ident: Ident, state: &str, traffic: Traffic) -> [Expect; 2] {
        ["opened", "closed"].map(|action| {
            let mut expect = Expect::new(ident, action, "notified", state).ownerless("not_read");
            expect.data.insert("between_ticks", Field::Is(json!(true)));
            // A notice alone does not prove it in every case.
            if let Some(Field::Word(words)) = expect.data.get_mut("direction") {
                words[1] = "unknown";
            }
            if action == "closed" {
                expect = expect.traffic(traffic);
                expect
                    .data
                    .insert("duration_max_ms", Field::Within(0..=LONG));
                if state == "ESTABLISHED" && ident.proto == "tcp" && ident.remote.port() != 0 {
                    expect
                        .data
                        // Absent where a dump came between the end and its notice,
                        // and the upper bound is less.
                        .insert("duration_min_ms", Field::Perhaps(0..=LONG));
                }
            }
            if ident.remote.port() == 0 && !ident.remote.ip().is_unspecified() {
                expect.data.insert("remote_port", Field::Is(Value::Null));
                expect
                    .data
                    .insert("remote_port_reason", Field::Is(json!("wiped")));
            }
            expect
        })
    }

    /// Either, by the tick: a connection that stays ESTABLISHED all its life.
    pub fn connection(tick: Tick, ident: Ident, traffic: Traffic) -> [Expect; 2] {
        match tick {
            Tick::Fast => Expect::read(ident, "ESTABLISHED", "ESTABLISHED", traffic),
            Tick::Slow => Expect::between_ticks(ident, "ESTABLISHED", traffic),
        }
    }

    /// By another sensor than `sockets`.
    pub fn by(mut self, sensor: &str) -> Expect {
        self.sensor = sensor.to_string();
        self
    }

    /// With a configured tag.
    pub fn tagged(mut self, tag: &str) -> Expect {
        self.tag = Some(tag.to_string());
        self
    }

    /// Of another user than the tests'.
    pub fn owned_by(mut self, uid: u32) -> Expect {
        self.data.insert("uid", Field::Is(json!(uid)));
        self
    }

    /// Without an owner, for this reason.
    pub fn ownerless(mut self, reason: &str) -> Expect {
        // What is left of a connection, or not one yet, goes no way.
        if reason == "minisocket" {
            self.data.remove("direction");
        }
        for (key, reason_key) in [("uid", "uid_reason"), ("inode", "inode_reason")] {
            self.data.insert(key, Field::Is(Value::Null));
            self.data.insert(reason_key, Field::Is(json!(reason)));
        }
        self
    }

    /// With this reverse name.
    pub fn named(mut self, name: &str) -> Expect {
        self.data.insert("remote_host", Field::Is(json!(name)));
        self
    }

    /// Without a reverse name, for this reason.
    pub fn nameless(mut self, reason: &str) -> Expect {
        self.data.insert("remote_host", Field::Is(Value::Null));
        self.data
            .insert("remote_host_reason", Field::Is(json!(reason)));
        self
    }

    /// That lasted so long.
    pub fn lasted(mut self, key: &'static str, ms: RangeInclusive<u64>) -> Expect {
        self.data.insert(key, Field::Within(ms));
        self
    }

    fn traffic(mut self, traffic: Traffic) -> Expect {
        let (sent, received) = match traffic {
            Traffic::None => return self,
            Traffic::Handshake => {
                self.data.insert("rtt_us", Field::Perhaps(1..=60_000_000));
                (0, 0)
            }
            Traffic::Bytes { sent, received } => {
                self.data.insert("rtt_us", Field::Within(1..=60_000_000));
                (sent, received)
            }
        };
        self.data.insert("bytes_sent", Field::Is(json!(sent)));
        self.data
            .insert("bytes_received", Field::Within(received..=received + 1));
        for key in ["segments_sent", "segments_received", "retransmits"] {
            self.data.insert(key, Field::Within(0..=100));
        }
        self
    }

    /// Whose it must be.
    pub fn sensor(&self) -> &str {
        &self.sensor
    }

    /// The cookie, where it is known.
    pub fn cookie(&self) -> Option<u64> {
        self.ident.cookie
    }

    /// Whether an event has the same two ends.
    pub fn has_the_ends_of(&self, event: &Value) -> bool {
        let data = &event["data"];
        data["local"] == self.ident.local.to_string()
            && data["remote"] == self.ident.remote.to_string()
            && data["proto"] == self.ident.proto
    }

    fn eid(&self) -> String {
        let Expect {
            sensor,
            tag,
            ident,
            action,
            ..
        } = self;
        let tag = tag
            .as_ref()
            .map(|tag| format!("@{tag}"))
            .unwrap_or_default();
        format!("{sensor}|net.socket{tag}|{action}@{}|0", ident.remote)
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.eid())?;
        for (key, field) in &self.data {
            match field {
                Field::Is(value) => write!(f, " {key}={value}")?,
                Field::Within(range) => write!(f, " {key}={range:?}")?,
                Field::Perhaps(range) => write!(f, " [{key}={range:?}]")?,
                Field::Word(words) => write!(f, " {key}={words:?}")?,
            }
        }
        Ok(())
    }
}

/// What says who has a socket.
const ATTRIBUTION: [&str; 5] = [
    "process",
    "process_reason",
    "processes",
    "processes_more",
    "user",
];

/// Whether a key is not looked at as others are.
fn is_told_apart(key: &str) -> bool {
    ATTRIBUTION.contains(&key) || cgroups::is_told_by(key) || key == "closed_first"
}

/// What is wrong with what an event says of who closed first: what the state
/// shows, else what the notice of a socket that received nothing may prove.
fn misjudged(data: &serde_json::Map<String, Value>) -> Option<String> {
    let said = data.get("closed_first").and_then(Value::as_str);
    let closed = data.get("action").is_some_and(|action| action == "closed");
    let good = match data.get("state").and_then(Value::as_str) {
        _ if !closed => said.is_none(),
        Some("FIN_WAIT1" | "FIN_WAIT2") => said == Some("local"),
        Some("CLOSE_WAIT" | "LAST_ACK") => said == Some("remote"),
        Some("CLOSING") => said == Some("both"),
        _ => match said {
            None => true,
            Some("local") => data.get("bytes_received") == Some(&json!(0)),
            Some(_) => false,
        },
    };
    (!good).then(|| format!("wrong: closed_first: {said:?}"))
}

/// What is wrong with what an event says of who has the socket, whoever it is: a
/// process, or a reason why there is none; and where nobody can be looked for,
/// the reason is that of the inode. (A hook may know better.)
fn misattributed(data: &serde_json::Map<String, Value>) -> Option<String> {
    let (process, reason) = (data.get("process"), data.get("process_reason"));
    let Some(process) = process else {
        return Some("no process".to_string());
    };
    let good = match (process, reason.and_then(Value::as_str)) {
        (Value::Object(process), None) => {
            process["pid"].as_u64().is_some_and(|pid| pid > 0)
                && process["comm"].is_string()
                && !process.contains_key("cmdline")
        }
        (Value::Null, Some(reason)) => match data.get("inode_reason").and_then(Value::as_str) {
            Some("no_file") => reason == "kernel",
            Some(inode_reason) => reason == inode_reason,
            // A machine that is busy enough can miss any deadline.
            None => ["timeout", "gone", "not_permitted", "not_read"].contains(&reason),
        },
        _ => false,
    };
    (!good).then(|| format!("wrong: process: {process:?}, process_reason: {reason:?}"))
}

/// What all events of one run have in common.
pub struct Frame {
    host: String,
    times: RangeInclusive<SystemTime>,
}

impl Frame {
    /// Of a run that began then and has ended now.
    pub fn new(launched: SystemTime) -> Frame {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("/proc is mounted");
        // The clock of the machine may be adjusted meanwhile.
        let slack = Duration::from_secs(1);
        Frame {
            host: host.trim_end().to_string(),
            times: launched - slack..=SystemTime::now() + slack,
        }
    }

    /// What is wrong with an event.
    pub fn problems(&self, expect: &Expect, event: &Value) -> Vec<String> {
        let mut problems = self.envelope(expect, event);
        let Some(data) = event["data"].as_object() else {
            problems.push("no data".to_string());
            return problems;
        };
        for (key, field) in &expect.data {
            let value = data.get(*key);
            let right = match (field, value) {
                (Field::Is(wanted), Some(value)) => wanted == value,
                (Field::Within(range) | Field::Perhaps(range), Some(value)) => {
                    value.as_u64().is_some_and(|number| range.contains(&number))
                }
                (Field::Perhaps(_), None) => true,
                (Field::Word(words), Some(value)) => words.iter().any(|word| value == word),
                (_, None) => false,
            };
            if !right {
                problems.push(format!(
                    "wrong: {key}: {}",
                    value.unwrap_or(&json!("(absent)"))
                ));
            }
        }
        problems.extend(misattributed(data));
        problems.extend(misjudged(data));
        problems.extend(cgroups::misplaced(&event["data"]));
        for key in data
            .keys()
            .filter(|key| !is_told_apart(key))
            .filter(|key| !expect.data.contains_key(key.as_str()))
        {
            problems.push(format!("too much: {key}: {}", data[key]));
        }
        problems
    }

    fn envelope(&self, expect: &Expect, event: &Value) -> Vec<String> {
        let mut problems = Vec::new();
        let ts = event["ts"].as_str().unwrap_or_default();
        let known = humantime::parse_rfc3339(ts).is_ok_and(|ts| self.times.contains(&ts));
        if !known || ts.len() != "2026-11-22T17:04:36.123456Z".len() {
            problems.push(format!("wrong: ts: {}", event["ts"]));
        }
        let tag = expect.tag.as_deref().unwrap_or("net.socket");
        for (key, wanted) in [
            ("host", self.host.as_str()),
            ("eid", &expect.eid()),
            ("sensor", &expect.sensor),
            ("listener", "net.socket"),
            ("tag", tag),
        ] {
            if event[key] != wanted {
                problems.push(format!(
                    "wrong: {key}: {} instead of {wanted:?}",
                    event[key]
                ));
            }
        }
        let keys = [
            "data", "eid", "host", "listener", "sensor", "seq", "tag", "ts",
        ];
        let mut found: Vec<_> = event
            .as_object()
            .into_iter()
            .flat_map(|map| map.keys())
            .collect();
        found.sort();
        if found != keys {
            problems.push(format!("the envelope has {found:?}"));
        }
        problems
    }
}
