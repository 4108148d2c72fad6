//! What is emitted: one record, before it becomes text.

use std::sync::Arc;
use std::time::SystemTime;

use super::{
    Action, Attempt, Attribution, Caller, ClosedFirst, Comm, Cookie, Direction, Evidence, Host,
    Life, Name, Netns, NoResults, Now, Owner, Placed, SockId, TcpInfo, TcpState,
};

/// The kind of a sensor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Listener {
    /// `net.socket`.
    NetSocket,
    /// `net.tcp_connect`.
    TcpConnect,
    /// sockwatch speaking of itself.
    Own,
}

impl Listener {
    /// The word in `listener` and in the event id.
    pub fn as_str(self) -> &'static str {
        match self {
            Listener::NetSocket => "net.socket",
            Listener::TcpConnect => "net.tcp_connect",
            Listener::Own => "self",
        }
    }
}

/// One record of the output.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// When it was learned.
    pub ts: SystemTime,
    /// The number of the record, from 1; a hole is a loss.
    pub seq: u64,
    /// The event id: `<sensor-id>|<listener>[@tag]|<action>@<remote>|0`.
    pub eid: String,
    /// The sensor's id, `sockwatch` for self records.
    pub sensor: Arc<str>,
    /// The sensor's kind.
    pub listener: Listener,
    /// The tag in the envelope; self records have none.
    pub tag: Option<Arc<str>>,
    /// The payload.
    pub data: Data,
}

/// The payload of an [`Event`].
#[derive(Clone, PartialEq, Debug)]
pub enum Data {
    /// A socket opened or closed.
    Socket(SocketData),
    /// A process called connect().
    Connect(ConnectData),
    /// Something was lost.
    Gap(Gap),
    /// A source is missing or was lost.
    Degraded(Degraded),
    /// A source that was missing is there after all.
    Restored(Restored),
}

/// A socket: the `data` of an event, or a row of `--dump`.
#[derive(Clone, PartialEq, Debug)]
pub struct SocketData {
    /// What happened and how it is known; a dump row has neither.
    pub action: Option<(Action, Evidence)>,
    /// The ends.
    pub id: SockId,
    /// The peer's port is not known.
    pub wiped: bool,
    /// The reverse name of the peer.
    pub host: Host,
    /// The state.
    pub state: TcpState,
    /// Which way a TCP connection was opened; what is no connection has none.
    pub direction: Option<Direction>,
    /// The cookie.
    pub cookie: Cookie,
    /// The namespace.
    pub netns: Netns,
    /// Its name, where it has one that was looked for.
    pub netns_name: Option<Arc<str>>,
    /// Whose it is.
    pub owner: Owner,
    /// The name of that user, where /etc/passwd has one and processes were asked
    /// for.
    pub user: Option<Arc<str>>,
    /// Who called connect(), where a hook saw it.
    pub process: Option<Caller>,
    /// Who has it open; `None` where nobody asked.
    pub holders: Option<Attribution>,
    /// Command lines are wanted.
    pub cmdline: bool,
    /// Its cgroup; `None` where nobody asked.
    pub cgroup: Option<Placed>,
    /// Opened and closed between two ticks.
    pub between_ticks: bool,
    /// Who closed first, where that is known (closed TCP).
    pub closed_first: Option<ClosedFirst>,
    /// How long it lived (closed).
    pub life: Option<Life>,
    /// What it did (closed TCP).
    pub traffic: Option<Traffic>,
}

impl SocketData {
    /// The one process that stands for all: its pid, its name, and its program
    /// where /proc told of that.
    pub fn shown_process(&self) -> Option<(u32, &Comm, Option<&str>)> {
        let held = match &self.holders {
            Some(Attribution::Held(holders)) => holders.oldest.as_slice(),
            Some(Attribution::Unknown(_)) | None => &[],
        };
        if let Some(caller) = &self.process {
            let same = held.iter().find(|process| process.pid == caller.pid);
            let exe = same.and_then(|process| process.exe.as_deref());
            return Some((caller.pid, &caller.comm, exe));
        }
        let oldest = held.first()?;
        Some((oldest.pid, &oldest.comm, oldest.exe.as_deref()))
    }
}

/// A connect(): the `data` of a `net.tcp_connect` event.
#[derive(Clone, PartialEq, Debug)]
pub struct ConnectData {
    /// What was called, and how that is known.
    pub attempt: Attempt,
    /// The name of its namespace, where it has one that was looked for.
    pub netns_name: Option<Arc<str>>,
    /// The names that were resolved to the destination, newest answer first.
    pub results: Vec<Name>,
    /// Why there is none.
    pub no_results: Option<NoResults>,
    /// The caller's cgroup, or the socket's where no hook saw the call.
    pub cgroup: Placed,
    /// The name of the user, where /etc/passwd has one.
    pub user: Option<Arc<str>>,
}

/// What a TCP connection did, from the tcp_info of its notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Traffic {
    /// Payload sent, each byte once (`bytes_sent - bytes_retrans`).
    pub bytes_sent: Option<u64>,
    /// Payload received. The peer's FIN counts as 1 where it came before the full
    /// socket was gone: always where the peer closed first, and where this end did
    /// so with shutdown(2); not where it did with close(2), after which what
    /// remains of the connection takes it.
    pub bytes_received: Option<u64>,
    /// Segments sent.
    pub segments_sent: u32,
    /// Segments received.
    pub segments_received: u32,
    /// Segments sent again.
    pub retransmits: u32,
    /// Smoothed round trip in µs; `None` when no sample was taken.
    pub rtt_us: Option<u32>,
}

impl Traffic {
    /// The traffic of a notice; `None` when the counters were wiped: the remote
    /// port is 0, or not one segment was counted.
    pub fn of(notice: &super::Notice) -> Option<Traffic> {
        let tcp: TcpInfo = notice.tcp?;
        let (segs_out, segs_in) = (tcp.segs_out?, tcp.segs_in?);
        if notice.id.remote.port == 0 || (segs_out == 0 && segs_in == 0) {
            return None;
        }
        Some(Traffic {
            bytes_sent: tcp
                .bytes_sent
                .zip(tcp.bytes_retrans)
                .map(|(sent, again)| sent.saturating_sub(again)),
            bytes_received: tcp.bytes_received,
            segments_sent: segs_out,
            segments_received: segs_in,
            retransmits: tcp.total_retrans,
            rtt_us: (tcp.rtt_us != 0).then_some(tcp.rtt_us),
        })
    }
}

/// Why something was lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum GapCause {
    /// The kernel dropped notices: the receive buffer was full (ENOBUFS).
    Overrun,
    /// A sink lagged behind by more than `daemon.queue` events.
    Queue,
    /// The ring buffer of connect records was full.
    Ring,
}

impl GapCause {
    /// The word in `cause` and in the event id.
    pub fn as_str(self) -> &'static str {
        match self {
            GapCause::Overrun => "overrun",
            GapCause::Queue => "queue",
            GapCause::Ring => "ring",
        }
    }
}

/// A stretch in which something was lost, written when it is over.
#[derive(Clone, PartialEq, Debug)]
pub struct Gap {
    /// Why.
    pub cause: GapCause,
    /// Closed events that the reconciliation found (overrun).
    pub closed_recovered: Option<u64>,
    /// TCP sockets that were opened, by the kernel's count, and of which nothing
    /// was ever seen (overrun).
    pub tcp_unseen: Option<u64>,
    /// The sink that lost events, and how many (queue).
    pub lost: Option<(Arc<str>, u64)>,
    /// Connect records that the kernel had no room for (ring).
    pub connects_lost: Option<u64>,
    /// How long it lasted, in milliseconds.
    pub duration_ms: u64,
}

/// A source that is missing, and what that costs.
#[derive(Clone, PartialEq, Debug)]
pub struct Degraded {
    /// What is missing, in one word: `notices`, `udp`, `tcp`, `connect`, `dns_tap`,
    /// `netns`, `processes`, `receive_buffer`.
    pub source: &'static str,
    /// The parts of it that are missing, such as multicast groups.
    pub missing: Vec<&'static str>,
    /// Why, as the kernel put it.
    pub reason: String,
    /// What is lost by it, in a sentence.
    pub cost: String,
}

/// A source, given up before, that is there after all.
#[derive(Clone, PartialEq, Debug)]
pub struct Restored {
    /// What it is, in the word of its [`Degraded`] record.
    pub source: &'static str,
    /// The parts of it that are there now.
    pub parts: Vec<&'static str>,
}

impl Event {
    /// The milliseconds between two readings of the clock.
    pub fn elapsed_ms(since: std::time::Instant, now: Now) -> u64 {
        u64::try_from(now.mono.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX)
    }
}
