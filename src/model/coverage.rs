//! What sensors need from the kernel, and what one dump covers of it.

use std::ops::{BitAnd, BitOr, Sub};

use super::{Family, Proto, SockId, TcpState};

/// Groups of TCP states. The kernel keeps listening sockets, bound ones, connected
/// sockets and time-wait sockets apart, so states are asked for by group and
/// never singly. Listeners alone cost it next to nothing; to find what is bound and no
/// more, it walks everything that has a port, and then every connection (Linux 6.18).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct StateGroups(u8);

impl StateGroups {
    /// No state at all.
    pub const NONE: StateGroups = StateGroups(0);
    /// LISTEN.
    pub const LISTEN: StateGroups = StateGroups(1);
    /// Every state with a peer, SYN_RECV and FIN_WAIT2 minisockets included.
    pub const CONNECTED: StateGroups = StateGroups(2);
    /// TIME_WAIT.
    pub const TIME_WAIT: StateGroups = StateGroups(4);
    /// Bound-only (CLOSE).
    pub const BOUND: StateGroups = StateGroups(8);
    /// Everything.
    pub const ALL: StateGroups = StateGroups(15);

    /// The four groups, each alone.
    pub const EACH: [StateGroups; 4] =
        [Self::LISTEN, Self::CONNECTED, Self::TIME_WAIT, Self::BOUND];

    /// In a file: listening and bound sockets, which once were one group.
    const UNCONNECTED_BIT: u8 = 1;
    /// In a file: listening ones alone.
    const LISTEN_BIT: u8 = 8;
    /// In a file: bound ones alone.
    const BOUND_BIT: u8 = 16;

    /// The group a state belongs to.
    pub fn of(state: TcpState) -> StateGroups {
        match state {
            TcpState::Listen => Self::LISTEN,
            TcpState::Close => Self::BOUND,
            TcpState::TimeWait => Self::TIME_WAIT,
            _ => Self::CONNECTED,
        }
    }

    /// The groups as bits of a byte, for a file.
    pub fn bits(self) -> u8 {
        let both = Self::LISTEN | Self::BOUND;
        let without_peer = match self & both {
            Self::NONE => 0,
            Self::LISTEN => Self::LISTEN_BIT,
            Self::BOUND => Self::BOUND_BIT,
            _ => Self::UNCONNECTED_BIT,
        };
        without_peer | self.without(both).0
    }

    /// The groups of such a byte; bits that mean nothing are left out.
    pub fn from_bits(bits: u8) -> StateGroups {
        let mut groups = StateGroups(bits & (Self::CONNECTED | Self::TIME_WAIT).0);
        if bits & (Self::UNCONNECTED_BIT | Self::LISTEN_BIT) != 0 {
            groups = groups | Self::LISTEN;
        }
        if bits & (Self::UNCONNECTED_BIT | Self::BOUND_BIT) != 0 {
            groups = groups | Self::BOUND;
        }
        groups
    }

    /// What must be asked for if a socket of these that is not there is to have
    /// ended: a listener that was shut down is bound and lives.
    pub fn for_absence(self) -> StateGroups {
        if self.contains(Self::LISTEN) {
            self | Self::BOUND
        } else {
            self
        }
    }

    /// The groups of this that are not in `other`.
    pub fn without(self, other: StateGroups) -> StateGroups {
        StateGroups(self.0 & !other.0)
    }

    /// Whether every group of `other` is in this.
    pub fn contains(self, other: StateGroups) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is no group in this.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The `idiag_states` mask: bit n is state n (net/tcp_states.h). Bit 13 is
    /// TCP_BOUND_INACTIVE (Linux 6.8); older kernels ignore it.
    pub fn mask(self) -> u32 {
        let mut mask = 0;
        for state in TcpState::ALL {
            if self.contains(Self::of(state)) {
                mask |= 1 << (state as u32);
            }
        }
        if self.contains(Self::BOUND) {
            mask |= 1 << 13;
        }
        if self.contains(Self::CONNECTED) {
            mask |= 1 << 12;
        }
        mask
    }
}

impl BitOr for StateGroups {
    type Output = StateGroups;
    fn bitor(self, other: StateGroups) -> StateGroups {
        StateGroups(self.0 | other.0)
    }
}

impl BitAnd for StateGroups {
    type Output = StateGroups;
    fn bitand(self, other: StateGroups) -> StateGroups {
        StateGroups(self.0 & other.0)
    }
}

/// What the patterns of one or more sensors can match at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Needs {
    /// The TCP states that matter.
    pub tcp: StateGroups,
    /// Whether UDP matters.
    pub udp: bool,
}

impl Needs {
    /// Both protocols, every state but TIME_WAIT (which only a sensor that
    /// watches minisockets asks for).
    pub const EVERYTHING: Needs = Needs {
        tcp: StateGroups(1 | 2 | 8),
        udp: true,
    };

    /// The protocol matters.
    pub fn proto(self, proto: Proto) -> bool {
        match proto {
            Proto::Tcp => !self.tcp.is_empty(),
            Proto::Udp => self.udp,
        }
    }

    /// The part of one protocol.
    pub fn only(self, proto: Proto) -> Needs {
        let none = Needs::default();
        match proto {
            Proto::Tcp => Needs {
                tcp: self.tcp,
                ..none
            },
            Proto::Udp => Needs {
                udp: self.udp,
                ..none
            },
        }
    }
}

impl BitOr for Needs {
    type Output = Needs;
    fn bitor(self, other: Needs) -> Needs {
        Needs {
            tcp: self.tcp | other.tcp,
            udp: self.udp || other.udp,
        }
    }
}

impl BitAnd for Needs {
    type Output = Needs;
    fn bitand(self, other: Needs) -> Needs {
        Needs {
            tcp: self.tcp & other.tcp,
            udp: self.udp && other.udp,
        }
    }
}

impl Sub for Needs {
    type Output = Needs;
    /// What is in `self` and not in `other`.
    fn sub(self, other: Needs) -> Needs {
        Needs {
            tcp: StateGroups(self.tcp.0 & !other.tcp.0),
            udp: self.udp && !other.udp,
        }
    }
}

/// What somebody has read all of, by protocol and family: a socket of such a kind
/// that turns up afterwards is a new one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Primed([[StateGroups; 2]; 2]);

impl Primed {
    /// The groups that were read of a protocol and family.
    pub fn groups(&self, proto: Proto, family: Family) -> StateGroups {
        self.0[proto as usize][family as usize]
    }

    /// Whether sockets of this identity and state were.
    pub fn includes(&self, id: &SockId, state: TcpState) -> bool {
        self.groups(id.proto, id.family)
            .contains(StateGroups::of(state))
    }

    /// A dump completed.
    pub fn add(&mut self, coverage: Coverage) {
        for family in Family::ALL {
            if coverage.family.is_none_or(|only| only == family) {
                let groups = &mut self.0[coverage.proto as usize][family as usize];
                *groups = *groups | coverage.groups;
            }
        }
    }

    /// For a file: by protocol, and by family within it.
    pub fn bits(&self) -> [u8; 4] {
        let [[a, b], [c, d]] = self.0;
        [a, b, c, d].map(StateGroups::bits)
    }

    /// The way back.
    pub fn from_bits(bits: [u8; 4]) -> Primed {
        let [a, b, c, d] = bits.map(StateGroups::from_bits);
        Primed([[a, b], [c, d]])
    }
}

/// What one completed dump has seen all of: absence from it means something
/// only for what it covers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Coverage {
    /// The protocol.
    pub proto: Proto,
    /// One family, or both in one pass.
    pub family: Option<Family>,
    /// The state groups; for UDP always [`StateGroups::ALL`].
    pub groups: StateGroups,
}

impl Coverage {
    /// Whether a socket of this identity and state would have been in the dump.
    pub fn includes(&self, id: &SockId, state: TcpState) -> bool {
        self.proto == id.proto
            && self.family.is_none_or(|family| family == id.family)
            && (self.proto == Proto::Udp || self.groups.contains(StateGroups::of(state)))
    }

    /// Whether a socket of this identity and state that was not in the dump can have
    /// ended for that: it includes whatever else it can have become unconnected.
    pub fn can_tell_end(&self, id: &SockId, state: TcpState) -> bool {
        let others = StateGroups::of(state).for_absence();
        self.includes(id, state) && (self.proto == Proto::Udp || self.groups.contains(others))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_asks_for_its_own_states() {
        assert_eq!(StateGroups::LISTEN.mask(), 1 << 10);
        assert_eq!(StateGroups::BOUND.mask(), 1 << 7 | 1 << 13);
        assert_eq!(StateGroups::TIME_WAIT.mask(), 1 << 6);
        let each = StateGroups::EACH.map(StateGroups::mask);
        assert_eq!(each.iter().sum::<u32>(), StateGroups::ALL.mask());
    }

    #[test]
    fn a_file_holds_what_it_held_when_there_were_three_groups() {
        let (listen, bound) = (StateGroups::LISTEN, StateGroups::BOUND);
        assert_eq!(StateGroups::from_bits(1), listen | bound);
        assert_eq!(StateGroups::from_bits(7), StateGroups::ALL);
        for bits in 0..16 {
            let groups = StateGroups(bits);
            assert_eq!(StateGroups::from_bits(groups.bits()), groups);
        }
        // What an older version would make of it: too little, but not too much.
        assert_eq!(listen.bits() & 7, 0);
        assert_eq!(StateGroups::from_bits(0xe0), StateGroups::NONE);
    }
}
