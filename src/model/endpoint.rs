//! Where a socket's two ends are.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The transport protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Proto {
    /// IPPROTO_TCP.
    Tcp,
    /// IPPROTO_UDP.
    Udp,
}

impl Proto {
    /// Both, in the order in which they are dumped.
    pub const ALL: [Proto; 2] = [Proto::Tcp, Proto::Udp];

    /// The first word of a tuple.
    pub fn as_str(self) -> &'static str {
        match self {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
        }
    }

    /// The protocol number (netinet/in.h).
    pub fn number(self) -> u8 {
        match self {
            Proto::Tcp => 6,
            Proto::Udp => 17,
        }
    }
}

/// The address family of the socket itself (its `socket()` call), which decides
/// the notice group it reports to; a v4-mapped socket is [`Family::V6`] here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// AF_INET.
    V4,
    /// AF_INET6.
    V6,
}

impl Family {
    /// Both, in the order in which they are dumped.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];
}

/// An address and a port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address; a v4-mapped one is held as IPv4.
    pub ip: IpAddr,
    /// The port in host byte order; 0 when unconnected or wiped.
    pub port: u16,
}

impl Endpoint {
    /// An endpoint of these two.
    pub fn new(ip: impl Into<IpAddr>, port: u16) -> Endpoint {
        Endpoint {
            ip: ip.into(),
            port,
        }
    }

    /// The unconnected end of a socket: `0.0.0.0:0` or `[::]:0`.
    pub fn is_unconnected(&self) -> bool {
        self.port == 0 && self.ip.is_unspecified()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            IpAddr::V4(ip) => write!(f, "{ip}:{}", self.port),
            IpAddr::V6(ip) => write!(f, "[{ip}]:{}", self.port),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What names a socket on the wire (`struct inet_diag_sockid`): protocol,
/// family and both ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SockId {
    /// The protocol.
    pub proto: Proto,
    /// The family of the socket itself.
    pub family: Family,
    /// An AF_INET6 socket that carries IPv4; its ends are held as IPv4.
    pub v4_mapped: bool,
    /// This host's end.
    pub local: Endpoint,
    /// The other end.
    pub remote: Endpoint,
    /// The interface the socket is bound to, 0 for none. An exact query must
    /// repeat it.
    pub ifindex: u32,
}

impl SockId {
    /// An identity from the addresses as the kernel holds them; recognises
    /// v4-mapped sockets (RFC 4291 section 2.5.5.2).
    pub fn from_wire(
        proto: Proto,
        family: Family,
        local: (IpAddr, u16),
        remote: (IpAddr, u16),
        ifindex: u32,
    ) -> SockId {
        let mapped = |ip: IpAddr| matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        let v4_mapped = mapped(local.0) || mapped(remote.0);
        let end = |(ip, port): (IpAddr, u16)| match ip {
            IpAddr::V6(v6) if v4_mapped => match v6.to_ipv4_mapped() {
                Some(v4) => Endpoint::new(v4, port),
                // The other end is mapped, so `::` here means "not yet known".
                None if v6.is_unspecified() => Endpoint::new(Ipv4Addr::UNSPECIFIED, port),
                None => Endpoint::new(v6, port),
            },
            ip => Endpoint { ip, port },
        };
        SockId {
            proto,
            family,
            v4_mapped,
            local: end(local),
            remote: end(remote),
            ifindex,
        }
    }

    /// The addresses as the kernel holds them: the way back from
    /// [`SockId::from_wire`], for an exact query.
    pub fn wire_ip(&self, end: Endpoint) -> IpAddr {
        match end.ip {
            IpAddr::V4(v4) if self.family == Family::V6 && v4.is_unspecified() => {
                IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            }
            IpAddr::V4(v4) if self.family == Family::V6 => IpAddr::V6(v4.to_ipv6_mapped()),
            ip => ip,
        }
    }

    /// The family that the tuple shows: IPv4 for a v4-mapped socket.
    pub fn shown_family(&self) -> Family {
        if self.v4_mapped {
            Family::V4
        } else {
            self.family
        }
    }

    /// Whether both ends are the same; a change is a rebound.
    pub fn same_ends(&self, other: &SockId) -> bool {
        self.local == other.local && self.remote == other.remote
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v4_mapped_is_written_as_ipv4() {
        let id = SockId::from_wire(
            Proto::Tcp,
            Family::V6,
            ("::ffff:10.0.0.2".parse().unwrap(), 5),
            ("::ffff:10.0.0.9".parse().unwrap(), 80),
            0,
        );
        assert!(id.v4_mapped);
        assert_eq!(id.shown_family(), Family::V4);
        assert_eq!(id.local.to_string(), "10.0.0.2:5");
        assert_eq!(id.remote.to_string(), "10.0.0.9:80");
        assert_eq!(id.wire_ip(id.remote).to_string(), "::ffff:10.0.0.9");
    }

    #[test]
    fn a_dual_stack_listener_stays_ipv6() {
        let any: IpAddr = "::".parse().unwrap();
        let id = SockId::from_wire(Proto::Tcp, Family::V6, (any, 80), (any, 0), 0);
        assert!(!id.v4_mapped);
        assert_eq!(id.local.to_string(), "[::]:80");
        assert!(id.remote.is_unconnected());
    }
}
