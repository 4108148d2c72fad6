//! Records as JSON, one object a line: the interface that programs read.
//!
//! Promises: the order of the keys never changes; what does not apply is absent;
//! what could not be known is `null` with `<key>_reason` beside it; whatever a
//! text holds, a record is one line, and no character in it is one that a
//! terminal would obey (they are written as `\u` escapes, which parse back to
//! the same text).

use std::io;
use std::sync::Arc;

use super::cgroup::write_placed;
use super::object::Object;
use super::process::{write_caller, write_user, write_who};
use crate::model::{
    ConnectData, Data, Degraded, Event, Family, Gap, Host, Life, Owner, OwnerUnknown, Proto,
    Restored, Sighting, SocketData, Traffic,
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
        self.record(event, Some(event.seq), out);
        Ok(())
    }

    /// Appends an event that is told to one reader alone, and so has no number,
    /// as one line.
    pub(super) fn unnumbered(&self, event: &Event, out: &mut Vec<u8>) {
        self.record(event, None, out);
    }

    fn record(&self, event: &Event, seq: Option<u64>, out: &mut Vec<u8>) {
        let mut line = Object::open(out);
        line.time("ts", event.ts);
        line.maybe_number("seq", seq);
        line.text("host", &self.host);
        line.text("eid", &event.eid);
        line.text("sensor", &event.sensor);
        line.word("listener", event.listener.as_str());
        if let Some(tag) = &event.tag {
            line.text("tag", tag);
        }
        let data = line.object("data");
        match &event.data {
            Data::Socket(socket) => write_socket(socket, data),
            Data::Connect(connect) => write_connect(connect, data),
            Data::Gap(gap) => write_gap(gap, data),
            Data::Degraded(degraded) => write_degraded(degraded, data),
            Data::Restored(restored) => write_restored(restored, data),
        }
        line.close();
        out.push(b'\n');
    }

    /// Appends a row of `--dump` as one line.
    pub fn row(&self, data: &SocketData, out: &mut Vec<u8>) {
        write_row(data, Object::open(out));
        out.push(b'\n');
    }
}

fn write_socket(data: &SocketData, mut out: Object<'_>) {
    if let Some((action, evidence)) = data.action {
        out.word("action", action.as_str());
        out.word("evidence", evidence.as_str());
    }
    out.word("proto", data.id.proto.as_str());
    out.word("family", family(data.id.shown_family()));
    out.flag("v4_mapped", data.id.v4_mapped);
    out.end("local", &data.id.local);
    out.end("remote", &data.id.remote);
    if data.wiped {
        out.null("remote_port");
        out.word("remote_port_reason", WIPED);
    }
    write_host(&data.host, &mut out);
    out.word("state", data.state.as_str(data.id.proto));
    if let Some(direction) = data.direction {
        out.word("direction", direction.as_str());
    }
    out.number("cookie", data.cookie.0);
    write_netns(data, &mut out);
    write_owner(data.owner, &mut out);
    write_who(data, &mut out);
    if let Some(placed) = &data.cgroup {
        write_placed(placed, &mut out);
    }
    out.flag("between_ticks", data.between_ticks);
    out.maybe_word(
        "closed_first",
        data.closed_first.map(|first| first.as_str()),
    );
    match data.life {
        None => {}
        Some(Life::Seen { ms }) => out.number("duration_ms", ms),
        Some(Life::Between { min_ms, max_ms }) => {
            out.maybe_number("duration_min_ms", min_ms);
            out.maybe_number("duration_max_ms", max_ms);
        }
    }
    if let Some(traffic) = &data.traffic {
        write_traffic(traffic, &mut out);
    }
    out.close();
}

fn write_traffic(traffic: &Traffic, out: &mut Object<'_>) {
    out.maybe_number("bytes_sent", traffic.bytes_sent);
    out.maybe_number("bytes_received", traffic.bytes_received);
    out.number("segments_sent", traffic.segments_sent);
    out.number("segments_received", traffic.segments_received);
    out.number("retransmits", traffic.retransmits);
    out.maybe_number("rtt_us", traffic.rtt_us);
}

/// A row of `--dump`: what a dump tells, ends first. Nothing is wiped in one,
/// since only notices come that late.
fn write_row(data: &SocketData, mut out: Object<'_>) {
    out.end("local", &data.id.local);
    out.end("remote", &data.id.remote);
    out.word("proto", data.id.proto.as_str());
    out.word("family", family(data.id.shown_family()));
    out.flag("v4_mapped", data.id.v4_mapped);
    out.word("state", data.state.as_str(data.id.proto));
    write_host(&data.host, &mut out);
    out.number("cookie", data.cookie.0);
    write_netns(data, &mut out);
    write_owner(data.owner, &mut out);
    write_who(data, &mut out);
    if let Some(placed) = &data.cgroup {
        write_placed(placed, &mut out);
    }
    out.close();
}

fn write_netns(data: &SocketData, out: &mut Object<'_>) {
    out.number("netns", data.netns.0);
    if let Some(name) = &data.netns_name {
        out.text("netns_name", name);
    }
}

/// `remote_port_reason` of a socket that went through tcp_disconnect().
const WIPED: &str = "wiped";

fn family(shown: Family) -> &'static str {
    match shown {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

fn write_host(host: &Host, out: &mut Object<'_>) {
    match host {
        Host::Named(name) => out.text("remote_host", name.as_str()),
        Host::Unknown(why) => {
            out.null("remote_host");
            out.maybe_word("remote_host_reason", why.reason());
        }
        Host::Unasked => out.null("remote_host"),
    }
}

fn write_owner(owner: Owner, out: &mut Object<'_>) {
    match owner {
        Owner::Known { uid, inode } => {
            out.number("inode", inode);
            out.number("uid", uid);
        }
        Owner::Unknown(why) => {
            out.null("inode");
            out.word("inode_reason", why.as_str());
            write_no_uid(why, out);
        }
    }
}

fn write_no_uid(why: OwnerUnknown, out: &mut Object<'_>) {
    out.null("uid");
    out.word("uid_reason", why.as_str());
}

/// `process_reason` of a connect() that no hook saw.
const NO_HOOK: &str = "no_hook";

/// `netns_reason` where the hook cannot tell one other namespace from another.
const NO_BTF: &str = "no_btf";

fn write_connect(data: &ConnectData, mut out: Object<'_>) {
    let attempt = &data.attempt;
    out.word("action", "connect");
    out.word("origin", attempt.origin().as_str());
    if let Sighting::Table {
        evidence, state, ..
    } = attempt.sighting
    {
        out.no("exact");
        out.word("evidence", evidence.as_str());
        out.word("state", state.as_str(Proto::Tcp));
    }
    out.shown("dstIP", &attempt.remote.ip);
    if attempt.is_wiped() {
        out.null("dstPort");
        out.word("dstPort_reason", WIPED);
    } else {
        out.number("dstPort", attempt.remote.port);
    }
    out.names("results", &data.results);
    out.maybe_word("results_reason", data.no_results.map(|why| why.as_str()));
    out.word("proto", Proto::Tcp.as_str());
    out.word("family", family(attempt.shown_family()));
    out.flag("v4_mapped", attempt.v4_mapped);
    out.flag("mptcp", attempt.mptcp);
    match &attempt.sighting {
        Sighting::Hook { caller, uid, .. } => {
            write_caller(caller, &mut out);
            out.number("uid", *uid);
            write_user(data.user.as_deref(), &mut out);
        }
        Sighting::Table { owner, .. } => {
            out.null("process");
            out.word("process_reason", NO_HOOK);
            match *owner {
                Owner::Known { uid, .. } => out.number("uid", uid),
                Owner::Unknown(why) => write_no_uid(why, &mut out),
            }
            write_user(data.user.as_deref(), &mut out);
        }
    }
    write_placed(&data.cgroup, &mut out);
    match attempt.netns {
        Some(netns) => {
            out.number("netns", netns.0);
            if let Some(name) = &data.netns_name {
                out.text("netns_name", name);
            }
        }
        None => {
            out.null("netns");
            out.word("netns_reason", NO_BTF);
        }
    }
    out.number("cookie", attempt.cookie.0);
    out.close();
}

fn write_gap(gap: &Gap, mut out: Object<'_>) {
    out.word("action", "gap");
    out.word("cause", gap.cause.as_str());
    out.maybe_number("closed_recovered", gap.closed_recovered);
    out.maybe_number("tcp_unseen", gap.tcp_unseen);
    if let Some((sink, events)) = &gap.lost {
        out.text("sink", sink);
        out.number("events_lost", *events);
    }
    out.maybe_number("connects_lost", gap.connects_lost);
    out.number("duration_ms", gap.duration_ms);
    out.close();
}

fn write_degraded(degraded: &Degraded, mut out: Object<'_>) {
    out.word("action", "degraded");
    out.word("source", degraded.source);
    out.words("missing", &degraded.missing);
    out.text("reason", &degraded.reason);
    out.text("cost", &degraded.cost);
    out.close();
}

fn write_restored(restored: &Restored, mut out: Object<'_>) {
    out.word("action", "restored");
    out.word("source", restored.source);
    out.words("restored", &restored.parts);
    out.close();
}
