//! Plain data: what the kernel told, what changed, what is emitted.
//!
//! Everything above this level speaks in these types, so they hold no file
//! descriptor, no clock and no policy. An identity is a newtype, a state is an
//! exhaustive enum, and what can be unknown says why it is.

mod change;
mod connect;
mod coverage;
mod dns;
mod endpoint;
mod event;
mod identity;
mod observation;
mod process;
mod sought;
mod state;

pub use change::{
    Action, Change, ClosedFirst, Evidence, Host, HostUnknown, Judge, Life, Settled, Step, Verdict,
};
pub use connect::{Attempt, Caller, Comm, Connect, Direction, Origin, Sighting};
pub use coverage::{Coverage, Needs, Primed, StateGroups};
pub use dns::{Answer, NoResults, Resolution};
pub use endpoint::{Endpoint, Family, Proto, SockId};
pub use event::{
    ConnectData, Data, Degraded, Event, Gap, GapCause, Listener, Restored, SocketData, Traffic,
};
pub use identity::{Cookie, Name, Netns, Owner, OwnerUnknown, Renumbering, SensorIx, SocketKey};
pub use observation::{Notice, Row, RowKind, TcpInfo};
pub use process::{
    Attributed, Attribution, Cgroup, CgroupAnswer, CgroupInfo, CgroupUnknown, Holders, Placed,
    Process, ProcessUnknown, Who,
};
pub use sought::{End, Ends, Sought};
pub use state::TcpState;

use std::time::{Instant, SystemTime};

/// The time, read once for each wake-up and passed down, so that everything
/// below the reactor can be tested with a clock of the test's own.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines and durations (CLOCK_MONOTONIC).
    pub mono: Instant,
    /// For the time stamp of an event (CLOCK_REALTIME).
    pub wall: SystemTime,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Now {
        Now {
            mono: Instant::now(),
            wall: SystemTime::now(),
        }
    }
}
