//! Records as lines for a person at a terminal.
//!
//! The columns that have a width come first (time, action, protocol, state), so
//! the eye can run down them whatever the addresses are; then the two ends, the
//! evidence, and what else is known as `key=value`. Nothing here is meant to be
//! parsed. Promises: one line a record, and everything that came from outside
//! goes through [`Plain`].

use std::fmt;
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{cgroup, digits};
use crate::log::Plain;
use crate::model::{
    Comm, ConnectData, Data, Degraded, Direction, Endpoint, Event, Family, Gap, GapCause, Host,
    Life, Owner, Proto, Sighting, SocketData, Traffic,
};

/// Renders text lines.
#[derive(Clone, Copy, Debug, Default)]
pub struct Text {
    sensors: bool,
}

impl Text {
    /// A renderer; `sensors` adds the sensor's id to each line, for
    /// configurations with more than one.
    pub fn new(sensors: bool) -> Text {
        Text { sensors }
    }

    /// Appends an event as one line.
    pub fn event(&self, event: &Event, out: &mut Vec<u8>) -> io::Result<()> {
        let clock = Clock(event.ts);
        match &event.data {
            Data::Socket(data) => {
                let (action, evidence) = match data.action {
                    Some((action, evidence)) => (action.as_str(), evidence.as_str()),
                    None => ("open", "dump"),
                };
                write!(
                    out,
                    "{clock} {action:8} {:4} {:11} ",
                    proto(data),
                    data.state.as_str(data.id.proto),
                )?;
                ends(data, out)?;
                write!(out, " {evidence}")?;
                details(data, out)?;
                if self.sensors {
                    write!(out, " sensor={}", Plain(&event.sensor))?;
                }
            }
            Data::Connect(data) => {
                write!(out, "{clock} {:8} ", "connect")?;
                connect(data, out)?;
                if self.sensors {
                    write!(out, " sensor={}", Plain(&event.sensor))?;
                }
            }
            Data::Gap(gap) => write!(out, "{clock} {:8} {}", "gap", GapText(gap))?,
            Data::Restored(restored) => {
                let parts = restored.parts.join(", ");
                write!(
                    out,
                    "{clock} {:8} {} {}",
                    "restored",
                    restored.source,
                    Plain(&parts)
                )?;
            }
            Data::Degraded(degraded) => {
                write!(out, "{clock} {:8} {}", "degraded", DegradedText(degraded))?;
            }
        }
        out.push(b'\n');
        Ok(())
    }
}

/// The protocol as a pattern may say it, with the family that the addresses
/// show.
pub(super) fn proto(data: &SocketData) -> &'static str {
    word(data.id.proto, data.id.shown_family())
}

fn word(proto: Proto, shown: Family) -> &'static str {
    match (proto, shown) {
        (Proto::Tcp, Family::V4) => "tcp",
        (Proto::Tcp, Family::V6) => "tcp6",
        (Proto::Udp, Family::V4) => "udp",
        (Proto::Udp, Family::V6) => "udp6",
    }
}

/// Appends the remote end; `?` for a port that was wiped.
pub(super) fn remote(data: &SocketData, out: &mut Vec<u8>) {
    end(&data.id.remote, data.wiped, out);
}

fn end(end: &Endpoint, wiped: bool, out: &mut Vec<u8>) {
    digits::endpoint(end, out);
    if wiped {
        out.truncate(
            out.iter()
                .rposition(|byte| *byte == b':')
                .map_or(out.len(), |colon| colon + 1),
        );
        out.push(b'?');
    }
}

/// Appends `local -> remote (host)`, the local end padded to the longest IPv4
/// one.
fn ends(data: &SocketData, out: &mut Vec<u8>) -> io::Result<()> {
    let start = out.len();
    digits::endpoint(&data.id.local, out);
    out.resize(out.len().max(start + 21), b' ');
    out.extend_from_slice(b" -> ");
    remote(data, out);
    match &data.host {
        Host::Named(name) => write!(out, " ({})", Plain(name.as_str())),
        Host::Unasked | Host::Unknown(_) => Ok(()),
    }
}

/// Appends a connect(), in the columns of a socket: the words of its tuple, then
/// what told of it and who called.
fn connect(data: &ConnectData, out: &mut Vec<u8>) -> io::Result<()> {
    let attempt = &data.attempt;
    let proto = word(Proto::Tcp, attempt.shown_family());
    write!(out, "{proto:4} {:11} {:21} -> ", "CONNECT", "-")?;
    end(&attempt.remote, attempt.is_wiped(), out);
    for (index, name) in data.results.iter().enumerate() {
        let before = if index == 0 { " (" } else { ", " };
        write!(out, "{before}{}", Plain(name.as_str()))?;
    }
    if !data.results.is_empty() {
        out.push(b')');
    }
    write!(out, " {}", attempt.origin().as_str())?;
    match &attempt.sighting {
        Sighting::Hook { caller, uid, .. } => {
            process(caller.pid, &caller.comm, out)?;
            write!(out, " uid={uid}")?;
        }
        Sighting::Table {
            evidence,
            state,
            owner,
            ..
        } => {
            let state = state.as_str(Proto::Tcp);
            write!(out, " inexact {} {state}", evidence.as_str())?;
            if let Owner::Known { uid, .. } = owner {
                write!(out, " uid={uid}")?;
            }
        }
    }
    cgroup::details(&data.cgroup, out)?;
    if attempt.v4_mapped {
        out.write_all(b" v4-mapped")?;
    }
    if attempt.mptcp {
        out.write_all(b" mptcp")?;
    }
    place(data.netns_name.as_deref(), out)
}

/// Appends the namespace, where it has a name. Whoever made it chose that.
fn place(name: Option<&str>, out: &mut Vec<u8>) -> io::Result<()> {
    match name {
        Some(name) => write!(out, " netns={}", Plain(name)),
        None => Ok(()),
    }
}

/// Appends who called, or has it open. The task chose its name, so it stands in quotes that it
/// cannot end.
fn process(pid: u32, comm: &Comm, out: &mut Vec<u8>) -> io::Result<()> {
    let comm = comm.to_string().replace('"', "'");
    write!(out, " pid={} comm=\"{}\"", pid, Plain(&comm))
}

fn user(user: Option<&str>, out: &mut Vec<u8>) -> io::Result<()> {
    match user {
        Some(user) => write!(out, " user={}", Plain(user)),
        None => Ok(()),
    }
}

fn details(data: &SocketData, out: &mut Vec<u8>) -> io::Result<()> {
    if let Some(direction @ (Direction::Inbound | Direction::Outbound)) = data.direction {
        write!(out, " {}", direction.as_str())?;
    }
    if let Some((pid, comm, exe)) = data.shown_process() {
        process(pid, comm, out)?;
        if let Some(exe) = exe {
            write!(out, " exe=\"{}\"", Plain(&exe.replace('"', "'")))?;
        }
    }
    if let Owner::Known { uid, .. } = data.owner {
        write!(out, " uid={uid}")?;
    }
    user(data.user.as_deref(), out)?;
    if let Some(placed) = &data.cgroup {
        cgroup::details(placed, out)?;
    }
    if data.id.v4_mapped {
        out.write_all(b" v4-mapped")?;
    }
    place(data.netns_name.as_deref(), out)?;
    if data.between_ticks {
        out.write_all(b" between-ticks")?;
    }
    if let Some(first) = data.closed_first {
        write!(out, " closed-first={}", first.as_str())?;
    }
    match data.life {
        Some(Life::Seen { ms }) => write!(out, " lived={}", Span(ms))?,
        Some(Life::Between {
            min_ms: Some(min),
            max_ms: Some(max),
        }) => write!(out, " lived={}..{}", Span(min), Span(max))?,
        Some(Life::Between {
            min_ms: Some(min),
            max_ms: None,
        }) => write!(out, " lived>={}", Span(min))?,
        Some(Life::Between {
            min_ms: None,
            max_ms: Some(max),
        }) => write!(out, " lived<={}", Span(max))?,
        Some(Life::Between {
            min_ms: None,
            max_ms: None,
        })
        | None => {}
    }
    data.traffic
        .map_or(Ok(()), |traffic| traffic_details(&traffic, out))
}

fn traffic_details(traffic: &Traffic, out: &mut Vec<u8>) -> io::Result<()> {
    if let Some(bytes) = traffic.bytes_sent {
        write!(out, " sent={}", Size(bytes))?;
    }
    if let Some(bytes) = traffic.bytes_received {
        write!(out, " received={}", Size(bytes))?;
    }
    if traffic.retransmits > 0 {
        write!(out, " retransmits={}", traffic.retransmits)?;
    }
    if let Some(us) = traffic.rtt_us {
        write!(out, " rtt={}.{}ms", us / 1000, us / 100 % 10)?;
    }
    Ok(())
}

struct GapText<'a>(&'a Gap);

impl fmt::Display for GapText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gap = self.0;
        let span = Span(gap.duration_ms);
        match gap.cause {
            GapCause::Overrun => write!(f, "the kernel dropped notices, for {span} at most")?,
            GapCause::Queue => write!(f, "an output fell behind for {span}")?,
            GapCause::Ring => write!(
                f,
                "the ring buffer of connect() calls was full, for {span} at most"
            )?,
        }
        if let Some(closed) = gap.closed_recovered {
            write!(f, "; closed events recovered: {closed}")?;
        }
        if let Some(unseen) = gap.tcp_unseen {
            write!(f, "; TCP sockets never seen: {unseen}")?;
        }
        if let Some((sink, lost)) = &gap.lost {
            write!(f, "; events lost by {}: {lost}", Plain(sink))?;
        }
        if let Some(lost) = gap.connects_lost {
            write!(f, "; calls lost: {lost}")?;
        }
        Ok(())
    }
}

struct DegradedText<'a>(&'a Degraded);

impl fmt::Display for DegradedText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let degraded = self.0;
        f.write_str(degraded.source)?;
        for (index, part) in degraded.missing.iter().enumerate() {
            let separator = if index == 0 { " without " } else { ", " };
            write!(f, "{separator}{}", Plain(part))?;
        }
        write!(
            f,
            ": {}; {}",
            Plain(&degraded.reason),
            Plain(&degraded.cost)
        )
    }
}

/// The time of day, UTC. The date is in the JSON; a terminal shows today.
struct Clock(SystemTime);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A clock set before 1970 shows as midnight, as the JSON shows it.
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (secs, micros) = (since.as_secs(), since.subsec_micros());
        let (hours, minutes, secs) = (secs / 3600 % 24, secs / 60 % 60, secs % 60);
        write!(f, "{hours:02}:{minutes:02}:{secs:02}.{micros:06}")
    }
}

/// Milliseconds, to the precision that a person wants at that length.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ms, secs) = (self.0, self.0 / 1000);
        match secs {
            0 => write!(f, "{ms}ms"),
            1..60 => write!(f, "{secs}.{:03}s", ms % 1000),
            60..3600 => write!(f, "{}m{:02}s", secs / 60, secs % 60),
            3600..86_400 => write!(f, "{}h{:02}m", secs / 3600, secs / 60 % 60),
            _ => write!(f, "{}d{:02}h", secs / 86_400, secs / 3600 % 24),
        }
    }
}

/// Bytes, in powers of 1024 with one decimal, cut and not rounded: it never
/// says more than there was.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{}B", self.0);
        }
        let unit = (self.0.ilog2() / 10 - 1) as usize;
        let shift = 10 * (unit + 1);
        let tenths = ((self.0 as u128 * 10) >> shift) % 10;
        write!(f, "{}.{tenths}{}", self.0 >> shift, UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let shown = |bytes| Size(bytes).to_string();
        assert_eq!(shown(0), "0B");
        assert_eq!(shown(1023), "1023B");
        assert_eq!(shown(1024), "1.0KiB");
        assert_eq!(shown(88_123), "86.0KiB");
        assert_eq!(shown((1 << 20) - 1), "1023.9KiB");
        assert_eq!(shown(1 << 20), "1.0MiB");
        assert_eq!(shown(u64::MAX), "15.9EiB");
    }

    #[test]
    fn spans() {
        let shown = |ms| Span(ms).to_string();
        assert_eq!(shown(0), "0ms");
        assert_eq!(shown(999), "999ms");
        assert_eq!(shown(1503), "1.503s");
        assert_eq!(shown(60_000), "1m00s");
        assert_eq!(shown(3_723_000), "1h02m");
        assert_eq!(shown(90_000_000), "1d01h");
        assert!(shown(u64::MAX).ends_with('h'));
    }

    #[test]
    fn a_clock_before_the_epoch_is_midnight() {
        let before = UNIX_EPOCH - std::time::Duration::from_secs(5);
        assert_eq!(Clock(before).to_string(), "00:00:00.000000");
    }
}
