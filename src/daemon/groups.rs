//! Joining the notice groups, and proving that they deliver.
//!
//! That setsockopt(2) let us in does not mean that anything will come: where the
//! kernel has no diag module for a protocol, its notices are never written. So
//! one unbound socket of each kind is made and closed, and its notice must come.
//!
//! A protocol needs the groups of both families, whatever the patterns say: an
//! AF_INET6 socket with an IPv4 peer can become an AF_INET one (IPV6_ADDRFORM,
//! ipv6(7)), and then its end is told where those are.
//!
//! On a machine that is short of CPU time the kernel's worker can take its time
//! over that: a group that was given up is taken back when it speaks after all.

use std::io;
use std::time::{Duration, Instant};

use crate::model::{Cookie, Degraded, Family, Needs, Notice, Proto, Restored};
use crate::source::{Group, Notices};
use crate::sys;

/// How long the notice of a probe may take. It takes microseconds, but comes
/// through a work queue of the kernel, which a busy machine was seen to leave
/// alone for more than a second. A wrong verdict lasts until the group speaks; a
/// long wait costs a kernel without the module its `ready`.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often probes are sent again after an overrun.
const SENT_AGAIN: u32 = 8;

/// Probes whose notices have not come yet.
#[derive(Debug)]
pub struct Probes {
    pending: Vec<(Group, Cookie)>,
    /// The groups that were joined.
    joined: Vec<Group>,
    /// The groups that were given up.
    silent: Vec<Group>,
    until: Instant,
    sent_again: u32,
}

/// A group that cannot be used, and why.
#[derive(Debug)]
pub struct Unusable {
    /// Which.
    pub group: Group,
    /// Why, in words.
    pub reason: String,
    /// There can be sockets of this kind, whose ends will have to be found by
    /// other means.
    pub costs: bool,
}

impl Probes {
    /// No probes.
    pub fn none(now: Instant) -> Probes {
        Probes {
            pending: Vec::new(),
            joined: Vec::new(),
            silent: Vec::new(),
            until: now,
            sent_again: 0,
        }
    }

    /// Joins the groups that `needs` calls for and sends a probe to each.
    pub fn join(&mut self, notices: &Notices, needs: Needs, now: Instant) -> Vec<Unusable> {
        self.until = now + PATIENCE;
        self.sent_again = 0;
        let mut unusable = Vec::new();
        let needed = Group::ALL
            .into_iter()
            .filter(|group| needs.proto(group.proto));
        for group in needed {
            if self.joined.contains(&group) {
                continue;
            }
            if let Err(error) = notices.join(group) {
                let reason = format!("joining the group was refused: {error}");
                unusable.push(Unusable {
                    group,
                    reason,
                    costs: true,
                });
                continue;
            }
            self.joined.push(group);
            match unbound_socket(group) {
                Ok(cookie) => self.pending.push((group, cookie)),
                Err(error) if group.family == Family::V6 && is_family_off(&error) => {
                    let reason = "IPv6 is off: the kernel makes no such sockets".to_string();
                    unusable.push(Unusable {
                        group,
                        reason,
                        costs: false,
                    });
                }
                // Joined, and nothing speaks against it but that it cannot be
                // tried (no descriptors left, a sandbox).
                Err(error) => log::warn!("cannot probe the group {}: {error}", group.as_str()),
            }
        }
        unusable
    }

    /// Leaves the groups that `needs` does not call for any more. One that was given
    /// up is kept: nothing comes from it, and if something does, that is news.
    pub fn leave(&mut self, notices: &Notices, needs: Needs) {
        let (silent, pending) = (&self.silent, &mut self.pending);
        self.joined.retain(|group| {
            if needs.proto(group.proto) || silent.contains(group) {
                return true;
            }
            pending.retain(|(probed, _)| probed != group);
            if let Err(error) = notices.leave(*group) {
                log::debug!("notices of {} come on: {error}", group.as_str());
                return true;
            }
            false
        });
    }

    /// Notices were dropped, and those of probes may have been among them: sends
    /// the pending ones again. At most eight times, so that a start amid constant
    /// overruns comes to an end.
    pub fn send_again(&mut self, now: Instant) {
        if self.pending.is_empty() || self.sent_again == SENT_AGAIN {
            return;
        }
        self.sent_again += 1;
        self.until = now + PATIENCE;
        for (group, cookie) in &mut self.pending {
            match unbound_socket(*group) {
                Ok(fresh) => *cookie = fresh,
                Err(error) => log::warn!("cannot probe the group {}: {error}", group.as_str()),
            }
        }
    }

    /// Takes note of a notice; true when it is that of a probe.
    pub fn heard(&mut self, cookie: Cookie) -> bool {
        let before = self.pending.len();
        self.pending.retain(|(_, probe)| *probe != cookie);
        self.pending.len() != before
    }

    /// The group that a notice proves, if it had been given up.
    pub fn revived(&mut self, notice: &Notice) -> Option<Group> {
        let (family, proto) = (notice.id.family, notice.id.proto);
        let at = self
            .silent
            .iter()
            .position(|group| *group == Group { family, proto })?;
        Some(self.silent.swap_remove(at))
    }

    /// Whether every probe was heard or given up.
    pub fn are_done(&self) -> bool {
        self.pending.is_empty()
    }

    /// When the missing ones are given up.
    pub fn deadline(&self) -> Option<Instant> {
        (!self.pending.is_empty()).then_some(self.until)
    }

    /// Whether some have not been heard in time.
    pub fn are_overdue(&self, now: Instant) -> bool {
        !self.pending.is_empty() && now >= self.until
    }

    /// Gives up those that have not been heard.
    pub fn give_up(&mut self) -> Vec<Unusable> {
        let before = self.silent.len();
        self.silent
            .extend(self.pending.drain(..).map(|(group, _)| group));
        let unusable = |group: &Group| Unusable {
            group: *group,
            reason: "the kernel sends no notices (is the protocol's diag module missing?)".into(),
            costs: true,
        };
        self.silent[before..].iter().map(unusable).collect()
    }
}

/// A socket of the kind that a group tells of, closed again.
fn unbound_socket(group: Group) -> io::Result<Cookie> {
    let family = match group.family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    let kind = match group.proto {
        Proto::Tcp => libc::SOCK_STREAM,
        Proto::Udp => libc::SOCK_DGRAM,
    };
    sys::unbound_socket_cookie(family, kind).map(Cookie)
}

fn is_family_off(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

/// The record that tells of groups that speak after all.
pub fn restored(groups: &[Group]) -> Restored {
    Restored {
        source: "notices",
        parts: groups.iter().map(|group| group.as_str()).collect(),
    }
}

/// The record that tells of unusable groups: those with one reason share one.
pub fn degraded(unusable: &[Unusable]) -> Vec<Degraded> {
    let mut records: Vec<Degraded> = Vec::new();
    for one in unusable {
        match records
            .iter_mut()
            .find(|record| record.reason == one.reason)
        {
            Some(record) => record.missing.push(one.group.as_str()),
            None => records.push(Degraded {
                source: "notices",
                missing: vec![one.group.as_str()],
                reason: one.reason.clone(),
                cost: if one.costs {
                    "closed events of these sockets come at a tick and are verified instead of \
                     notified; sockets that live and die between two ticks are missed"
                } else {
                    "nothing, as long as it stays off"
                }
                .to_string(),
            }),
        }
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SockId;

    fn probe(proto: Proto, until: Instant) -> Probes {
        let group = Group {
            family: Family::V4,
            proto,
        };
        Probes {
            pending: vec![(group, Cookie(7))],
            ..Probes::none(until)
        }
    }

    fn notice(proto: Proto) -> Notice {
        let any = ("0.0.0.0".parse().expect("an address"), 0);
        Notice {
            cookie: Cookie(99),
            id: SockId::from_wire(proto, Family::V4, any, any, 0),
            tcp: None,
        }
    }

    #[test]
    fn a_probe_that_is_heard_proves_its_group() {
        let now = Instant::now();
        let mut probes = probe(Proto::Tcp, now);
        assert!(!probes.heard(Cookie(8)), "that is somebody else's socket");
        assert!(probes.heard(Cookie(7)));
        assert!(probes.are_done());
        assert!(!probes.are_overdue(now + PATIENCE));
    }

    #[test]
    fn a_silent_group_is_given_up_and_taken_back_when_it_speaks() {
        let now = Instant::now();
        let mut probes = probe(Proto::Tcp, now + PATIENCE);
        assert!(!probes.are_overdue(now) && probes.are_overdue(now + PATIENCE));
        let lost = probes.give_up();
        assert!(lost[0].costs && probes.are_done());
        assert_eq!(degraded(&lost)[0].missing, ["INET_TCP_DESTROY"]);
        assert_eq!(probes.revived(&notice(Proto::Udp)), None);
        let back = probes.revived(&notice(Proto::Tcp)).expect("it spoke");
        assert_eq!(restored(&[back]).parts, ["INET_TCP_DESTROY"]);
        assert_eq!(probes.revived(&notice(Proto::Tcp)), None, "once");
    }
}
