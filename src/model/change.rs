//! What a sensor concluded, on its way to the pipeline.

use std::rc::Rc;
use std::sync::Arc;

use super::{
    Attribution, Caller, Cgroup, CgroupUnknown, Direction, Name, Netns, Now, Owner, RowKind,
    SensorIx, SockId, SocketKey, TcpState, Traffic,
};

/// What happened to a socket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// It entered a view.
    Opened,
    /// It ended.
    Closed,
}

impl Action {
    /// The word in `action` and in the event id.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Opened => "opened",
            Action::Closed => "closed",
        }
    }
}

/// How sockwatch knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Evidence {
    /// Opened: a completed dump held it.
    Dump,
    /// The kernel's notice said or proved it.
    Notified,
    /// Closed without a notice: an exact query, or two completed dumps.
    Verified,
    /// The ends changed under one cookie.
    Rebound,
    /// Closed: it vanished while sockwatch was down. Opened: sockwatch was killed
    /// before it could be sure that this was written; it may be a repetition.
    Restart,
}

impl Evidence {
    /// The word in `evidence`.
    pub fn as_str(self) -> &'static str {
        match self {
            Evidence::Dump => "dump",
            Evidence::Notified => "notified",
            Evidence::Verified => "verified",
            Evidence::Rebound => "rebound",
            Evidence::Restart => "restart",
        }
    }
}

/// What is known of a socket's reverse name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Host {
    /// Nobody has asked yet.
    Unasked,
    /// There is none, and that is final for the socket.
    Unknown(HostUnknown),
    /// The name.
    Named(Name),
}

impl Host {
    /// The word in a tuple: the name or `-`.
    pub fn as_str(&self) -> &str {
        match self {
            Host::Named(name) => name.as_str(),
            Host::Unasked | Host::Unknown(_) => "-",
        }
    }
}

/// Why there is no reverse name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HostUnknown {
    /// `dns: false`, or the socket has no peer: nothing was asked.
    NotApplicable,
    /// `skip-reverse-dns`, and the address is of a skipped kind.
    Skipped,
    /// The resolver answered that there is none.
    NotFound,
    /// The resolver failed.
    Failed,
    /// No answer within `dns-timeout`.
    TimedOut,
    /// More look-ups were waiting than the bound allows.
    Overload,
}

impl HostUnknown {
    /// The word for `remote_host_reason`; none where nothing was to be asked.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            HostUnknown::NotApplicable => None,
            HostUnknown::Skipped => Some("skipped"),
            HostUnknown::NotFound => Some("not_found"),
            HostUnknown::Failed => Some("failed"),
            HostUnknown::TimedOut => Some("timeout"),
            HostUnknown::Overload => Some("overload"),
        }
    }
}

/// How long a closed socket lived, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// From the first sight to the notice.
    Seen {
        /// The duration.
        ms: u64,
    },
    /// Never seen alive: between these.
    Between {
        /// At least as long as its last data is old, where that is known.
        min_ms: Option<u64>,
        /// At most since the last completed dump without it began.
        max_ms: Option<u64>,
    },
}

/// Whose end of a TCP connection closed first, as this end saw it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ClosedFirst {
    /// Ours: it had sent its FIN before one came.
    Local,
    /// The peer's: its FIN had come before one was sent.
    Remote,
    /// Both at once: each sent its FIN before the other's came.
    Both,
}

impl ClosedFirst {
    /// What a state proves (RFC 9293, section 3.3.2); most prove nothing, and a
    /// reset leaves no state.
    pub fn shown_by(state: TcpState) -> Option<ClosedFirst> {
        match state {
            TcpState::FinWait1 | TcpState::FinWait2 => Some(ClosedFirst::Local),
            TcpState::CloseWait | TcpState::LastAck => Some(ClosedFirst::Remote),
            TcpState::Closing => Some(ClosedFirst::Both),
            _ => None,
        }
    }

    /// The word in `closed_first`.
    pub fn as_str(self) -> &'static str {
        match self {
            ClosedFirst::Local => "local",
            ClosedFirst::Remote => "remote",
            ClosedFirst::Both => "both",
        }
    }
}

/// One thing that happened to one socket, as one sensor may report it.
#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    /// Whose view it concerns.
    pub sensor: SensorIx,
    /// The socket.
    pub key: SocketKey,
    /// The name of its namespace, where it has one that was looked for.
    pub netns_name: Option<Arc<str>>,
    /// A full socket, or a minisocket that the sensor watches.
    pub kind: RowKind,
    /// The ends that the event shows.
    pub id: SockId,
    /// The peer's port was wiped before the notice was written.
    pub wiped: bool,
    /// The state that is matched (opened) or was the last one seen (closed).
    pub state: TcpState,
    /// Which way the connection was opened; what is no TCP connection has none.
    pub direction: Option<Direction>,
    /// Who called connect(), where a hook saw it.
    pub process: Option<Caller>,
    /// Who has it open, where that was asked before.
    pub holders: Option<Attribution>,
    /// The cgroup that it belongs to, or why its id is not known.
    pub cgroup: Result<Rc<Cgroup>, CgroupUnknown>,
    /// How it is known.
    pub evidence: Evidence,
    /// Opened and closed between two ticks.
    pub between_ticks: bool,
    /// Whose the socket is.
    pub owner: Owner,
    /// When the socket was first seen with these ends, as its table counts.
    pub first_seen_ms: u64,
    /// What is known of its reverse name for this sensor.
    pub host: Host,
    /// Opened or closed, with what only that has.
    pub step: Step,
}

impl Change {
    /// Which way it goes.
    pub fn action(&self) -> Action {
        match self.step {
            Step::Opened { .. } => Action::Opened,
            Step::Closed { .. } => Action::Closed,
        }
    }

    /// Whether it is an opening without an event.
    pub fn is_silent(&self) -> bool {
        matches!(self.step, Step::Opened { silent: true, .. })
    }
}

/// The part of a [`Change`] that depends on its direction.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// A candidate for the view: it enters if its tuple passes.
    Opened {
        /// Matched as ESTABLISHED before it is matched as `state`: it must have
        /// been that.
        established_first: bool,
        /// Enters without an event (it was there at start).
        silent: bool,
    },
    /// An end. It is not matched again.
    Closed {
        /// Who closed first, where that is proven.
        first: Option<ClosedFirst>,
        /// How long it lived.
        life: Option<Life>,
        /// What it did.
        traffic: Option<Traffic>,
    },
}

/// What became of an offered opening.
#[derive(Clone, PartialEq, Debug)]
pub enum Verdict {
    /// In the view; with what is now known of the host.
    Entered(Host),
    /// Not in the view; with what is now known of the host.
    Dropped(Host),
    /// Waits for a name; a [`Settled`] will tell.
    Waiting,
}

/// What became of changes that had to wait for a name.
#[derive(Clone, PartialEq, Debug)]
pub struct Settled {
    /// Whose view.
    pub sensor: SensorIx,
    /// Which socket.
    pub key: SocketKey,
    /// In full or mini.
    pub kind: RowKind,
    /// Whether it is in the view now.
    pub entered: bool,
    /// The host, final for this sensor and socket.
    pub host: Host,
}

/// Decides about changes: the pipeline, as a sensor sees it.
pub trait Judge {
    /// Takes an opening; says whether the socket is in the sensor's view now.
    fn open(&mut self, change: Change, now: Now) -> Verdict;

    /// A socket in the view of some sensors that was nobody's has an owner now: a
    /// connection was accepted.
    fn owned(&mut self, key: SocketKey, owner: Owner, sensors: u32);

    /// Takes an end of a socket that is in the view or waits to be.
    fn close(&mut self, change: Change, now: Now);
}

impl SocketKey {
    /// A key of these two.
    pub fn new(netns: Netns, cookie: super::Cookie) -> SocketKey {
        SocketKey { netns, cookie }
    }
}
