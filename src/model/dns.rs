//! What a DNS answer said of a name.

use std::net::IpAddr;

use super::Name;

/// The addresses that an answer gave for a name, along its chain of CNAMEs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The question's name, then its CNAMEs in order; the addresses are those of
    /// the last.
    pub names: Vec<Name>,
    /// At least one.
    pub addresses: Vec<Resolution>,
}

/// One address of an [`Answer`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resolution {
    /// The address, as the record had it.
    pub ip: IpAddr,
    /// How long it is good for, in seconds: the smallest TTL of its own record and
    /// of the CNAMEs that lead to it, as answered.
    pub ttl: u32,
}

/// Why `results` is empty.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NoResults {
    /// No answer with this address was seen.
    NotSeen,
    /// Every answer with it was seen longer ago than its TTL.
    Expired,
    /// Names are not collected.
    Disabled,
    /// DNS answers cannot be seen: the packet socket was refused.
    NoTap,
}

impl NoResults {
    /// The word in `results_reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            NoResults::NotSeen => "not_seen",
            NoResults::Expired => "expired",
            NoResults::Disabled => "disabled",
            NoResults::NoTap => "no_tap",
        }
    }
}
