//! Records as JSON, one object a line: the interface that programs read.
//!
//! Promises: the order of the keys never changes; what does not apply is absent;
//! what could not be known is `null` with `<key>_reason` beside it; whatever a
//! text holds, a record is one line, and no character in it is one that a
//! terminal would obey (they are written as `\u` escapes, which parse back to
//! the same text).

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use crate::log::is_harmful;
use crate::model::{
    Data, Degraded, Endpoint, Event, Family, Gap, Host, Life, Owner, Restored, SocketData,
};

/// Renders JSON lines.
#[derive(Clone, Debug)]
pub struct Json {
    host: Arc<str>,
}

impl Json {
    /// A renderer for the machine of this name.
    pub fn new(host: impl Into<Arc<str>>) -> Json {
        Json { host: host.into() }
    }

    /// Appends an event as one line.
    pub fn event(&self, event: &Event, out: &mut Vec<u8>) -> io::Result<()> {
        line(
            &Envelope {
                ts: Shown(humantime::format_rfc3339_micros(expressible(event.ts))),
                seq: event.seq,
                host: &self.host,
                eid: &event.eid,
                sensor: &event.sensor,
                listener: event.listener.as_str(),
                tag: event.tag.as_deref(),
                data: match &event.data {
                    Data::Socket(data) => Payload::Socket(SocketView::new(data)),
                    Data::Gap(gap) => Payload::Gap(GapView::new(gap)),
                    Data::Degraded(degraded) => Payload::Degraded(DegradedView::new(degraded)),
                    Data::Restored(restored) => Payload::Restored(RestoredView::new(restored)),
                },
            },
            out,
        )
    }

    /// Appends a row of `--dump` as one line.
    pub fn row(&self, data: &SocketData, out: &mut Vec<u8>) -> io::Result<()> {
        line(&RowView::new(data), out)
    }
}

fn line(view: &impl Serialize, out: &mut Vec<u8>) -> io::Result<()> {
    view.serialize(&mut serde_json::Serializer::with_formatter(
        &mut *out, Guarded,
    ))?;
    out.push(b'\n');
    Ok(())
}

/// A clock set before 1970 or after 9999 has no RFC 3339 time here; the nearest
/// one that has is shown, so that the record itself is not lost.
fn expressible(ts: SystemTime) -> SystemTime {
    const LAST: Duration = Duration::from_micros(253_402_300_799_999_999);
    ts.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST)
}

/// Compact JSON in which characters that a terminal would obey are escaped.
struct Guarded;

impl serde_json::ser::Formatter for Guarded {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let mut rest = fragment;
        while let Some((at, harmful)) = rest.char_indices().find(|(_, c)| is_harmful(*c)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            for unit in harmful.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[at + harmful.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

/// What is written as the text that it shows.
struct Shown<T>(T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    ts: Shown<humantime::Rfc3339Timestamp>,
    seq: u64,
    host: &'a str,
    eid: &'a str,
    sensor: &'a str,
    listener: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a str>,
    data: Payload<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
enum Payload<'a> {
    Socket(SocketView<'a>),
    Gap(GapView),
    Degraded(DegradedView<'a>),
    Restored(RestoredView<'a>),
}

/// A key that is present with `null` for its value.
type Null = Option<()>;

#[derive(Serialize)]
struct SocketView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<&'static str>,
    proto: &'static str,
    family: &'static str,
    #[serde(skip_serializing_if = "is_false")]
    v4_mapped: bool,
    local: Shown<Endpoint>,
    remote: Shown<Endpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_port: Null,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_port_reason: Option<&'static str>,
    remote_host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_host_reason: Option<&'static str>,
    state: &'static str,
    cookie: u64,
    netns: u32,
    inode: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inode_reason: Option<&'static str>,
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "is_false")]
    between_ticks: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_min_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_max_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_received: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segments_sent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segments_received: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retransmits: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_us: Option<u32>,
}

impl<'a> SocketView<'a> {
    fn new(data: &'a SocketData) -> SocketView<'a> {
        let (remote_host, remote_host_reason) = host(&data.host);
        let (uid, inode, owner_reason) = owner(data.owner);
        let (duration_ms, duration_min_ms, duration_max_ms) = match data.life {
            None => (None, None, None),
            Some(Life::Seen { ms }) => (Some(ms), None, None),
            Some(Life::Between { min_ms, max_ms }) => (None, min_ms, max_ms),
        };
        let traffic = data.traffic.as_ref();
        SocketView {
            action: data.action.map(|(action, _)| action.as_str()),
            evidence: data.action.map(|(_, evidence)| evidence.as_str()),
            proto: data.id.proto.as_str(),
            family: family(data),
            v4_mapped: data.id.v4_mapped,
            local: Shown(data.id.local),
            remote: Shown(data.id.remote),
            remote_port: data.wiped.then_some(()),
            remote_port_reason: data.wiped.then_some(WIPED),
            remote_host,
            remote_host_reason,
            state: data.state.as_str(data.id.proto),
            cookie: data.cookie.0,
            netns: data.netns.0,
            inode,
            inode_reason: owner_reason,
            uid,
            uid_reason: owner_reason,
            between_ticks: data.between_ticks,
            duration_ms,
            duration_min_ms,
            duration_max_ms,
            bytes_sent: traffic.and_then(|traffic| traffic.bytes_sent),
            bytes_received: traffic.and_then(|traffic| traffic.bytes_received),
            segments_sent: traffic.map(|traffic| traffic.segments_sent),
            segments_received: traffic.map(|traffic| traffic.segments_received),
            retransmits: traffic.map(|traffic| traffic.retransmits),
            rtt_us: traffic.and_then(|traffic| traffic.rtt_us),
        }
    }
}

/// A row of `--dump`: what a dump tells, ends first. Nothing is wiped in one,
/// since only notices come that late.
#[derive(Serialize)]
struct RowView<'a> {
    local: Shown<Endpoint>,
    remote: Shown<Endpoint>,
    proto: &'static str,
    family: &'static str,
    #[serde(skip_serializing_if = "is_false")]
    v4_mapped: bool,
    state: &'static str,
    remote_host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_host_reason: Option<&'static str>,
    cookie: u64,
    inode: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inode_reason: Option<&'static str>,
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid_reason: Option<&'static str>,
}

impl<'a> RowView<'a> {
    fn new(data: &'a SocketData) -> RowView<'a> {
        let (remote_host, remote_host_reason) = host(&data.host);
        let (uid, inode, owner_reason) = owner(data.owner);
        RowView {
            local: Shown(data.id.local),
            remote: Shown(data.id.remote),
            proto: data.id.proto.as_str(),
            family: family(data),
            v4_mapped: data.id.v4_mapped,
            state: data.state.as_str(data.id.proto),
            remote_host,
            remote_host_reason,
            cookie: data.cookie.0,
            inode,
            inode_reason: owner_reason,
            uid,
            uid_reason: owner_reason,
        }
    }
}

/// `remote_port_reason` of a socket that went through tcp_disconnect().
const WIPED: &str = "wiped";

fn family(data: &SocketData) -> &'static str {
    match data.id.shown_family() {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

fn host(host: &Host) -> (Option<&str>, Option<&'static str>) {
    match host {
        Host::Named(name) => (Some(name.as_str()), None),
        Host::Unknown(why) => (None, why.reason()),
        Host::Unasked => (None, None),
    }
}

/// The uid, the inode, and why there are none.
fn owner(owner: Owner) -> (Option<u32>, Option<u32>, Option<&'static str>) {
    match owner {
        Owner::Known { uid, inode } => (Some(uid), Some(inode), None),
        Owner::Unknown(why) => (None, None, Some(why.as_str())),
    }
}

#[derive(Serialize)]
struct GapView {
    action: &'static str,
    cause: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_recovered: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sink: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events_lost: Option<u64>,
    duration_ms: u64,
}

impl GapView {
    fn new(gap: &Gap) -> GapView {
        GapView {
            action: "gap",
            cause: gap.cause.as_str(),
            closed_recovered: gap.closed_recovered,
            sink: gap.lost.map(|(sink, _)| sink),
            events_lost: gap.lost.map(|(_, events)| events),
            duration_ms: gap.duration_ms,
        }
    }
}

#[derive(Serialize)]
struct DegradedView<'a> {
    action: &'static str,
    source: &'static str,
    missing: &'a [&'static str],
    reason: &'a str,
    cost: &'a str,
}

impl<'a> DegradedView<'a> {
    fn new(degraded: &'a Degraded) -> DegradedView<'a> {
        DegradedView {
            action: "degraded",
            source: degraded.source,
            missing: &degraded.missing,
            reason: &degraded.reason,
            cost: &degraded.cost,
        }
    }
}

#[derive(Serialize)]
struct RestoredView<'a> {
    action: &'static str,
    source: &'static str,
    restored: &'a [&'static str],
}

impl<'a> RestoredView<'a> {
    fn new(restored: &'a Restored) -> RestoredView<'a> {
        RestoredView {
            action: "restored",
            source: restored.source,
            restored: &restored.parts,
        }
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}
