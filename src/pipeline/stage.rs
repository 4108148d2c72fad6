//! What the pipeline must know of one configured sensor.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{socket_data, write_eid};
use crate::enrich;
use crate::filter::{Answer, Filter};
use crate::model::{Action, Change, Data, Event, Host, Listener, Step, TcpState};

/// How a sensor looks names up.
#[derive(Clone, Copy, Debug)]
pub struct Dns {
    /// How long an answer, or the lack of one, is good for.
    pub ttl: Duration,
    /// How long an event waits for it.
    pub timeout: Duration,
    /// Addresses that no public resolver knows are not asked about.
    pub skip_special: bool,
}

impl Dns {
    /// Whether this address is not to be asked about.
    pub fn skips(&self, ip: IpAddr) -> bool {
        self.skip_special && enrich::skipped(ip)
    }
}

/// One sensor's settings, as the pipeline needs them.
pub struct Stage {
    /// The sensor's id.
    pub id: Arc<str>,
    /// Its tag, where one is configured.
    pub tag: Option<Arc<str>>,
    /// The tag that the envelope shows without one.
    pub default_tag: Arc<str>,
    /// What enters the view.
    pub filter: Filter,
    /// Report openings.
    pub opened: bool,
    /// Report ends.
    pub closed: bool,
    /// Reverse names, where they are wanted.
    pub dns: Option<Dns>,
    /// Mute an event id once it was emitted.
    pub locked: bool,
}

/// What a filter says of an opening.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Match {
    /// It passes, in this state.
    As(TcpState),
    /// It does not.
    No,
    /// That depends on the name.
    NeedsHost,
}

impl Stage {
    /// Matches an opening: as ESTABLISHED first where it must have been that,
    /// then as what it is.
    pub(super) fn matches(&self, change: &Change, host: Option<&str>) -> Match {
        let established_first = matches!(
            change.step,
            Step::Opened {
                established_first: true,
                ..
            }
        );
        let first = established_first.then_some(TcpState::Established);
        for state in first.into_iter().chain([change.state]) {
            match self.filter.judge(&change.id, state, host) {
                Answer::Pass => return Match::As(state),
                Answer::NeedsHost => return Match::NeedsHost,
                Answer::Drop => {}
            }
        }
        Match::No
    }

    /// Whether the sensor is to report such a change.
    pub(super) fn reports(&self, change: &Change) -> bool {
        match change.action() {
            Action::Opened => {
                self.opened && !matches!(change.step, Step::Opened { silent: true, .. })
            }
            Action::Closed => self.closed,
        }
    }

    pub(super) fn write_eid(&self, change: &Change, out: &mut String) {
        write_eid(out, &self.id, self.tag.as_deref(), change);
    }

    pub(super) fn event(
        &self,
        change: &Change,
        state: TcpState,
        host: &Host,
        seq: u64,
        ts: SystemTime,
        eid: String,
    ) -> Event {
        Event {
            ts,
            seq,
            eid,
            sensor: Arc::clone(&self.id),
            listener: Listener::NetSocket,
            tag: Some(Arc::clone(self.tag.as_ref().unwrap_or(&self.default_tag))),
            data: Data::Socket(socket_data(change, state, host)),
        }
    }
}
