//! Which sockets anybody could want, by their ends alone: what can be asked of the
//! kernel beyond protocols and states.

use std::fmt;
use std::net::IpAddr;

use super::{Endpoint, Proto, SockId, TcpState};

/// What one end of a socket must be. An address is held as tuples show it, a
/// v4-mapped one as IPv4.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct End {
    /// This address, where one is given.
    pub ip: Option<IpAddr>,
    /// This port, where one is given.
    pub port: Option<u16>,
}

/// What both ends of a socket must be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Ends {
    /// This host's end.
    pub local: End,
    /// The other end.
    pub remote: End,
}

/// A set of sockets of one protocol that holds all that are wanted, and as few
/// others as literal ports and addresses can tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sought {
    /// Those with one of these ends; `None` for all of them.
    accept: Option<Vec<Ends>>,
    /// But not those with one of these.
    refuse: Vec<Ends>,
    /// All without a remote port too, whatever the above says.
    unconnected: bool,
    /// Not those that are bound and neither listen nor connect.
    unbound: bool,
}

impl End {
    /// Whether it is such an end.
    pub fn is(&self, end: &Endpoint) -> bool {
        self.ip.is_none_or(|ip| ip == end.ip) && self.port.is_none_or(|port| port == end.port)
    }

    /// Whether any end will do.
    pub fn is_any(&self) -> bool {
        self.ip.is_none() && self.port.is_none()
    }

    fn contains(&self, other: &End) -> bool {
        self.ip.is_none_or(|ip| other.ip == Some(ip))
            && self.port.is_none_or(|port| other.port == Some(port))
    }
}

impl Ends {
    /// Those of every socket without a peer.
    pub const UNCONNECTED: Ends = Ends {
        local: End {
            ip: None,
            port: None,
        },
        remote: End {
            ip: None,
            port: Some(0),
        },
    };

    /// Whether a socket has such ends.
    pub fn are(&self, id: &SockId) -> bool {
        self.local.is(&id.local) && self.remote.is(&id.remote)
    }

    /// Whether any ends will do.
    pub fn are_any(&self) -> bool {
        self.local.is_any() && self.remote.is_any()
    }

    /// Whether every socket with the ends of `other` has these too.
    pub fn contain(&self, other: &Ends) -> bool {
        self.local.contains(&other.local) && self.remote.contains(&other.remote)
    }
}

impl Sought {
    /// Every socket.
    pub const ALL: Sought = Sought {
        accept: None,
        refuse: Vec::new(),
        unconnected: false,
        unbound: false,
    };

    /// No socket.
    pub const NONE: Sought = Sought {
        accept: Some(Vec::new()),
        refuse: Vec::new(),
        unconnected: false,
        unbound: true,
    };

    /// Those with ends in `accept` (`None`: all) and none in `refuse`.
    pub fn new(accept: Option<Vec<Ends>>, refuse: Vec<Ends>) -> Sought {
        if refuse.iter().any(Ends::are_any) {
            return Sought::NONE;
        }
        Sought {
            accept: accept
                .filter(|ends| !ends.iter().any(Ends::are_any))
                .map(fewest),
            refuse: fewest(refuse),
            unconnected: false,
            unbound: false,
        }
    }

    /// With every socket that has no remote port.
    pub fn with_unconnected(mut self) -> Sought {
        self.unconnected = true;
        self
    }

    /// Without TCP sockets that are bound only.
    pub fn without_bound(mut self) -> Sought {
        self.unbound = true;
        self
    }

    /// Whether it is every socket, as far as can be told.
    pub fn is_all(&self) -> bool {
        self.has_any_ends() && !self.unbound
    }

    /// Whether ends make no difference.
    pub fn has_any_ends(&self) -> bool {
        self.accept.is_none() && self.refuse.is_empty()
    }

    /// Whether a socket with these ends belongs to it, in some state.
    pub fn wants(&self, id: &SockId) -> bool {
        let any = |list: &[Ends]| list.iter().any(|ends| ends.are(id));
        self.unconnected && id.remote.port == 0
            || !any(&self.refuse) && self.accept.as_deref().is_none_or(any)
    }

    /// Whether a socket in this state belongs to it.
    pub fn wants_in(&self, id: &SockId, state: TcpState) -> bool {
        let bound = id.proto == Proto::Tcp && state == TcpState::Close && id.remote.port == 0;
        !(self.unbound && bound) && (self.has_any_ends() || self.wants(id))
    }

    /// How much it says of what belongs to it: less is less, and the most is a set
    /// that only leaves out.
    pub fn accepted(&self) -> usize {
        self.accept.as_ref().map_or(usize::MAX, Vec::len)
    }

    /// Everything in either, and what cannot be told from that.
    pub fn or(self, other: Sought) -> Sought {
        let unconnected = self.unconnected || other.unconnected;
        let unbound = self.unbound && other.unbound;
        let is_none = |one: &Sought| one.accept.as_ref().is_some_and(Vec::is_empty);
        if is_none(&self) || is_none(&other) {
            let rest = if is_none(&self) { other } else { self };
            return Sought {
                unconnected,
                unbound,
                ..rest
            };
        }
        let accept = match (self.accept, other.accept) {
            (Some(mut accept), Some(more)) => {
                accept.extend(more);
                Some(fewest(accept))
            }
            _ => None,
        };
        // What both leave out.
        let mut refuse = Vec::new();
        for (mine, theirs) in [(&self.refuse, &other.refuse), (&other.refuse, &self.refuse)] {
            let both = mine
                .iter()
                .filter(|ends| theirs.iter().any(|it| it.contain(ends)));
            refuse.extend(both);
        }
        Sought {
            accept,
            refuse: fewest(refuse),
            unconnected,
            unbound,
        }
    }

    /// As a list to go through: the first ends that a socket has decide whether it
    /// belongs to the set; the answer for one that has none of them comes last.
    pub fn rules(&self) -> (Vec<(Ends, bool)>, bool) {
        let unconnected = self.unconnected.then_some((Ends::UNCONNECTED, true));
        let refuse = self.refuse.iter().map(|ends| (*ends, false));
        let accept = self.accept.iter().flatten().map(|ends| (*ends, true));
        let rules = unconnected.into_iter().chain(refuse).chain(accept);
        (rules.collect(), self.accept.is_none())
    }
}

/// Leaves out what others in the list contain.
fn fewest(mut list: Vec<Ends>) -> Vec<Ends> {
    list.sort_unstable();
    list.dedup();
    let contained: Vec<bool> = (0..list.len())
        .map(|at| {
            let mut others = list.iter().enumerate().filter(|(other, _)| *other != at);
            others.any(|(_, other)| other.contain(&list[at]))
        })
        .collect();
    let mut at = contained.iter();
    list.retain(|_| !at.next().copied().unwrap_or(false));
    list
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            None => f.write_str("*:")?,
        }
        match self.port {
            Some(port) => write!(f, "{port}"),
            None => f.write_str("*"),
        }
    }
}

impl fmt::Display for Ends {
    /// As a pattern has them: local, remote.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.local, self.remote)
    }
}

/// How many ends are written out.
const SHOWN: usize = 8;

impl fmt::Display for Sought {
    /// In words, for whoever wants to know what is asked of the kernel.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, list: &[Ends]| {
            for (at, ends) in list.iter().take(SHOWN).enumerate() {
                write!(f, "{}{ends}", if at == 0 { " " } else { ", " })?;
            }
            match list.len().checked_sub(SHOWN) {
                None | Some(0) => Ok(()),
                Some(more) => write!(f, " and {more} more"),
            }
        };
        match &self.accept {
            None => f.write_str("all ends")?,
            Some(accept) if accept.is_empty() && self.unconnected => {
                return f.write_str("none but those without a peer");
            }
            Some(accept) if accept.is_empty() => f.write_str("no ends")?,
            Some(accept) => {
                f.write_str("ends")?;
                list(f, accept)?;
            }
        }
        if !self.refuse.is_empty() {
            f.write_str(", but not")?;
            list(f, &self.refuse)?;
        }
        if self.unconnected && !self.has_any_ends() {
            f.write_str(", and all without a peer")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Family, Proto};

    fn id(local: &str, remote: &str) -> SockId {
        let end = |text: &str| {
            let at: std::net::SocketAddr = text.parse().expect("an end");
            (at.ip(), at.port())
        };
        let (local, remote) = (end(local), end(remote));
        SockId::from_wire(Proto::Tcp, Family::V4, local, remote, 0)
    }

    fn port(local: Option<u16>, remote: Option<u16>) -> Ends {
        let end = |port| End { ip: None, port };
        Ends {
            local: end(local),
            remote: end(remote),
        }
    }

    #[test]
    fn what_is_ignored_is_left_out_and_what_has_no_peer_stays() {
        let https = port(None, Some(443));
        let ssh = port(Some(22), None);
        let sought = Sought::new(Some(vec![https, ssh]), vec![port(Some(80), None)]);
        let [a, b] = ["10.0.0.1:80", "10.0.0.1:81"];
        assert!(sought.wants(&id(b, "10.0.0.2:443")));
        assert!(!sought.wants(&id(a, "10.0.0.2:443")));
        assert!(!sought.wants(&id(b, "10.0.0.2:444")));
        assert!(!sought.wants(&id(a, "0.0.0.0:0")));
        let sought = sought.with_unconnected();
        assert!(sought.wants(&id(a, "0.0.0.0:0")));
        assert_eq!(
            sought.to_string(),
            "ends *:* *:443, *:22 *:*, but not *:80 *:*, and all without a peer"
        );
    }

    #[test]
    fn either_holds_what_both_hold_and_leaves_out_what_both_leave_out() {
        let (https, ssh, web) = (
            port(None, Some(443)),
            port(Some(22), None),
            port(Some(80), None),
        );
        let one = Sought::new(Some(vec![https]), vec![ssh, web]);
        let other = Sought::new(Some(vec![ssh]), vec![port(Some(80), Some(9)), ssh]);
        let both = one.clone().or(other.clone());
        assert_eq!(both.rules().0.len(), 4);
        assert!(!both.wants(&id("10.0.0.1:80", "10.0.0.2:9")));
        assert!(both.wants(&id("10.0.0.1:80", "10.0.0.2:443")));
        assert!(one.clone().or(Sought::ALL).is_all());
        assert_eq!(one.clone().or(Sought::NONE), one);
        assert_eq!(Sought::NONE.or(one.clone()), one);
        assert!(Sought::new(Some(vec![Ends::default()]), Vec::new()).is_all());
        let all = Sought::new(None, vec![ssh]);
        assert!(!all.is_all() && all.wants(&id("10.0.0.1:80", "10.0.0.2:9")));
    }
}
