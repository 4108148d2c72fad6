//! Which notices the kernel is told to refuse.
//!
//! Where dumps are narrowed by the ends of sockets, so can notices be: of a socket
//! that nobody seeks and that is not in the table, the sensor makes nothing. What
//! nobody wants then costs no room in the receive buffer and no time of ours.
//!
//! Taken are, whatever is sought: notices of UDP; of sockets without a port, which
//! were wiped, listened, or are probes of ours; and of the TCP sockets in the
//! table, whose ends may have changed since they were read. The table grows in
//! dumps alone. So before one of TCP begins everything is taken again, also since
//! whoever ends then may have left a row in it; and when it has completed, and the
//! notices that came meanwhile are heard, the kernel is told anew. A socket is in
//! no table any more when its notice is sent: what was refused before a dump began
//! cannot be in it.
//!
//! Everything is taken where more than [`MOST_COOKIES`] TCP sockets are in the
//! table, where dumps are not narrowed, in a gap, while groups are probed or
//! silent, where connect() calls or other namespaces are watched.
//!
//! A notice also tells the gate to let the next dump through, since the close can
//! balance an open in the counters; of connections that is no concern, as each is
//! counted for good (but for those that TCP_REPAIR restores: they are found by the
//! next dump that anything calls for). Where a gate is to be told of listeners or
//! bound sockets, everything is taken until one notice was heard since the last
//! dump: from there on the next tick dumps in any case.
//!
//! [`MOST_COOKIES`]: crate::wire::notice_filter::MOST_COOKIES

use super::reload::is_gate_off;
use super::sources::Sources;
use crate::config::{self, Settings};
use crate::model::{Listener, Now, Proto, Sought};
use crate::wire::notice_filter::{self, Wanted};

/// What is said of the groups whose notices are refused.
pub(super) const ONLY: &str = ", of others none while at most 256 sockets are in the table";
const _: () = assert!(notice_filter::MOST_COOKIES == 256);

/// When the kernel may be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Guard {
    /// Something can be refused at all.
    on: bool,
    /// Only once a notice was heard since the last dump.
    hides: bool,
    /// Nothing has entered the table since the notices that matter to it were
    /// heard, and nothing speaks against trying.
    due: bool,
}

impl Guard {
    /// For what is sought; unless it is `on` nothing is refused. `hides`: the close
    /// of a socket that nobody wants can hide an opening from a gate.
    pub fn new(sought: &Sought, on: bool, hides: bool) -> Guard {
        Guard {
            on: on && notice_filter::is_told(sought),
            hides,
            due: false,
        }
    }

    /// A dump of TCP begins.
    pub fn dump_begins(&mut self) {
        self.due = false;
    }

    /// A dump of TCP has completed, and the notices that came meanwhile are heard.
    pub fn dump_is_heard(&mut self) {
        self.due = true;
    }
}

/// Whether a close that nobody hears of can hide from a gate what it is there for.
pub(super) fn hides(settings: &Settings) -> bool {
    let sockets = |sensor: &&config::Sensor| sensor.listener == Listener::NetSocket;
    settings.sensors.iter().filter(sockets).any(|sensor| {
        sensor.filter.can_pass_without_peer() && !is_gate_off(settings, sensor, Proto::Tcp)
    })
}

/// Whether the kernel is told to refuse anything under these settings.
pub(super) fn refuses(settings: &Settings, sought: &Sought) -> bool {
    let everywhere = settings.sensors.iter().any(|sensor| sensor.everywhere);
    !everywhere && settings.daemon.push_down && notice_filter::is_told(sought)
}

impl Sources {
    /// Whether the kernel is told which notices to refuse, as long as nothing is
    /// amiss.
    pub(super) fn has_guard(&self) -> bool {
        self.home.narrow.guard.on && self.away.is_none() && self.connects.is_none()
    }

    /// A tick: from the reading of the counters on, what a gate is to hear of must
    /// be heard.
    pub(super) fn tick_guard(&mut self, now: Now) {
        if self.home.narrow.guard.hides {
            self.lower_guard(now);
        }
    }

    /// Before a dump can begin: takes everything again, or has the kernel refuse
    /// what does not matter now.
    pub(super) fn guard(&mut self, now: Now) {
        let guard = self.home.narrow.guard;
        let dumps = self.home.dumps.has(Proto::Tcp);
        if dumps {
            self.lower_guard(now);
        }
        let heard = !guard.hides || self.home.noticed[Proto::Tcp as usize];
        if guard.due && heard && !dumps && !self.notices_ready && self.is_settled() {
            self.raise_guard(now);
        }
    }

    /// Whether nothing is amiss, and nothing but notices tells of ends.
    fn is_settled(&self) -> bool {
        self.has_guard()
            && self.probes.are_done()
            && !self.shared.congested
            && !self.shared.is_deaf(Proto::Tcp)
            && !self.home.sensor.has_gap()
            && !self.home.dumps.lacks(Proto::Tcp)
            && self.home.sensor.is_read(Proto::Tcp)
    }

    fn raise_guard(&mut self, now: Now) {
        if self.notices.is_refusing() {
            return;
        }
        let (sensor, narrow) = (&self.home.sensor, &mut self.home.narrow);
        let Some(wanted) = Wanted::new(narrow.sought(), sensor.tcp_cookies()) else {
            narrow.guard.due = false;
            return;
        };
        match self.notices.refuse_but(&wanted) {
            Ok(()) => {
                self.shared.stats.notices_narrowed.bump();
                log::debug!("the kernel refuses notices that nobody wants");
            }
            Err(error) => {
                narrow.guard.due = false;
                self.shared.warn("filter", now, || {
                    format!("the kernel cannot be told which notices nobody wants: {error}")
                });
            }
        }
    }

    /// Takes everything again.
    pub(super) fn lower_guard(&mut self, now: Now) {
        if !self.notices.is_refusing() {
            return;
        }
        if let Err(error) = self.notices.take_all() {
            self.shared.warn("filter", now, || {
                format!("the kernel goes on to refuse notices: {error}; reconciling")
            });
            self.lost(now);
        }
    }
}
