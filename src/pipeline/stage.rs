//! What the pipeline must know of one configured sensor.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::About;
use crate::enrich;
use crate::filter::{Answer, Filter};
use crate::model::{
    Action, Attempt, CgroupUnknown, Change, ConnectData, Data, Event, Listener, Name, NoResults,
    Placed, Step, TcpState,
};

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

/// How a sensor says who has a socket open.
#[derive(Clone, Copy, Debug)]
pub struct Attribute {
    /// How long an event waits for it.
    pub timeout: Duration,
    /// Command lines are shown.
    pub cmdline: bool,
}

/// One sensor's settings, as the pipeline needs them.
pub struct Stage {
    /// The sensor's id.
    pub id: Arc<str>,
    /// What it watches. Changes come to a stage of `net.socket`, connect() calls
    /// to those of `net.tcp_connect`.
    pub listener: Listener,
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
    /// Resolved names are wanted.
    pub results: bool,
    /// Who has the socket open, where that is wanted.
    pub process: Option<Attribute>,
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

    pub(super) fn write_eid(&self, about: About, out: &mut String) {
        let About { action, remote } = about;
        out.clear();
        let (sensor, listener) = (&self.id, self.listener.as_str());
        // Writing to a String cannot fail.
        let written = match &self.tag {
            Some(tag) => write!(out, "{sensor}|{listener}@{tag}|{action}@{remote}|0"),
            None => write!(out, "{sensor}|{listener}|{action}@{remote}|0"),
        };
        debug_assert!(written.is_ok());
    }

    /// What an attempt's event holds, if it passes the filter.
    pub(super) fn connect(
        &self,
        attempt: &Attempt,
        place: Option<&Arc<str>>,
        names: &[Name],
        none: Option<NoResults>,
    ) -> Option<ConnectData> {
        let (names, none) = if self.results {
            (names, none)
        } else {
            (&[][..], Some(NoResults::Disabled))
        };
        let passes = self
            .filter
            .passes(&attempt.remote, attempt.shown_family(), names);
        passes.then(|| ConnectData {
            attempt: *attempt,
            netns_name: place.cloned(),
            results: names.to_vec(),
            no_results: none.filter(|_| names.is_empty()),
            cgroup: Placed {
                id: attempt.cgroup_id().ok(),
                cgroup: Err(match attempt.cgroup_id() {
                    Ok(_) => CgroupUnknown::Timeout,
                    Err(why) => why,
                }),
            },
            user: None,
        })
    }

    pub(super) fn event(&self, data: Data, seq: u64, ts: SystemTime, eid: String) -> Event {
        Event {
            ts,
            seq,
            eid,
            sensor: Arc::clone(&self.id),
            listener: self.listener,
            tag: Some(Arc::clone(self.tag.as_ref().unwrap_or(&self.default_tag))),
            data,
        }
    }
}
