//! The reader of one ring record: `struct record` of `src/bpf/connect.bpf.c`.
//!
//! The writer is a program of ours in the same machine's byte order, but the
//! bytes come out of memory that the kernel shares, and a program left from
//! another version could write it: so every field is checked, none is trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{Caller, Comm, Connect, Cookie, Endpoint, Family, Netns, Origin};

/// The length of a record in bytes.
pub const LENGTH: usize = 88;

/// Bytes that the program does not write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// Not [`LENGTH`] bytes.
    Length,
    /// A hook that does not exist.
    Hook,
    /// A family that is neither AF_INET nor AF_INET6.
    Family,
    /// A socket without a cookie: the kernel hands out none that is 0.
    Cookie,
}

impl Malformed {
    /// In words, for the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Malformed::Length => "a record of another length",
            Malformed::Hook => "a hook that does not exist",
            Malformed::Family => "an address family that is neither IPv4 nor IPv6",
            Malformed::Cookie => "a socket without a cookie",
        }
    }
}

/// A record as it was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// What it tells, with the namespace where the hook could read its inode.
    pub connect: Connect,
    /// The namespace's cookie (SO_NETNS_COOKIE in linux/socket.h), where the hook
    /// could tell.
    pub netns_cookie: Option<u64>,
}

/// Reads one record.
///
/// # Errors
/// See [`Malformed`].
pub fn record(bytes: &[u8]) -> Result<Record, Malformed> {
    let bytes: &[u8; LENGTH] = bytes.try_into().map_err(|_| Malformed::Length)?;
    let origin = match bytes[82] {
        1 => Origin::Lsm,
        2 => Origin::Fentry,
        3 => Origin::Cgroup,
        _ => return Err(Malformed::Hook),
    };
    let address: [u8; 16] = field(bytes, 64);
    let (family, ip) = match libc::c_int::from(bytes[83]) {
        libc::AF_INET => {
            let v4: [u8; 4] = field(bytes, 64);
            (Family::V4, IpAddr::V4(Ipv4Addr::from(v4)))
        }
        libc::AF_INET6 => (Family::V6, IpAddr::V6(Ipv6Addr::from(address))),
        _ => return Err(Malformed::Family),
    };
    // RFC 4291 section 2.5.5.2.
    let shown = ip.to_canonical();
    let cookie = u64::from_ne_bytes(field(bytes, 8));
    if cookie == 0 {
        return Err(Malformed::Cookie);
    }
    let netns = u32::from_ne_bytes(field(bytes, 32));
    let netns_cookie = u64::from_ne_bytes(field(bytes, 16));
    Ok(Record {
        connect: Connect {
            origin,
            cookie: Cookie(cookie),
            netns: (netns != 0).then_some(Netns(netns)),
            remote: Endpoint::new(shown, u16::from_be_bytes(field(bytes, 80))),
            family,
            v4_mapped: shown != ip,
            mptcp: u32::from_ne_bytes(field(bytes, 84)) != 0,
            caller: Caller {
                pid: u32::from_ne_bytes(field(bytes, 36)),
                tid: u32::from_ne_bytes(field(bytes, 40)),
                comm: Comm(field(bytes, 48)),
            },
            uid: u32::from_ne_bytes(field(bytes, 44)),
            cgroup_id: u64::from_ne_bytes(field(bytes, 24)),
            at_ns: u64::from_ne_bytes(field(bytes, 0)),
        },
        netns_cookie: (netns_cookie != 0).then_some(netns_cookie),
    })
}

/// The `N` bytes at an offset of this page's choosing.
fn field<const N: usize>(bytes: &[u8; LENGTH], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
