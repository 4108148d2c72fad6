//! Addresses, as a test writes them and as the kernel takes them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;

use crate::netns::check;

/// The family of a socket, and of the addresses it uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Domain {
    /// AF_INET.
    V4,
    /// AF_INET6.
    V6,
    /// AF_INET6 with IPv4-mapped addresses.
    Mapped,
}

impl Domain {
    /// All three.
    pub const ALL: [Domain; 3] = [Domain::V4, Domain::V6, Domain::Mapped];

    /// The loopback address, as a test names it: 127.0.0.1 for a mapped socket.
    pub fn loopback(self) -> IpAddr {
        match self {
            Domain::V4 | Domain::Mapped => Ipv4Addr::LOCALHOST.into(),
            Domain::V6 => Ipv6Addr::LOCALHOST.into(),
        }
    }

    /// The unspecified address, likewise.
    pub fn unspecified(self) -> IpAddr {
        match self {
            Domain::V4 | Domain::Mapped => Ipv4Addr::UNSPECIFIED.into(),
            Domain::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

type GetName =
    unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

/// Asks for one of a socket's addresses; a mapped one comes back as IPv4.
pub fn name(fd: RawFd, get: GetName) -> io::Result<SocketAddr> {
    // SAFETY: zeros are a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&storage) as libc::socklen_t;
    // SAFETY: `storage` is writable for `length` bytes.
    check(unsafe { get(fd, (&raw mut storage).cast(), &raw mut length) })?;
    if libc::c_int::from(storage.ss_family) == libc::AF_INET {
        // SAFETY: the family says what it holds, and a storage is as large and
        // as aligned as any address.
        let v4 = unsafe { &*(&raw const storage).cast::<libc::sockaddr_in>() };
        let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
        Ok(SocketAddr::new(ip.into(), u16::from_be(v4.sin_port)))
    } else {
        // SAFETY: as above.
        let v6 = unsafe { &*(&raw const storage).cast::<libc::sockaddr_in6>() };
        let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr).to_canonical();
        Ok(SocketAddr::new(ip, u16::from_be(v6.sin6_port)))
    }
}

/// An address in the form that a socket of this family takes.
pub fn to_wire(address: SocketAddr, domain: Domain) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: zeros are a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let ip = match (domain, address.ip()) {
        (Domain::V4, IpAddr::V4(ip)) => {
            // SAFETY: a storage is as large and as aligned as any address.
            let v4 = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in>() };
            v4.sin_family = libc::AF_INET as libc::sa_family_t;
            v4.sin_port = address.port().to_be();
            v4.sin_addr.s_addr = u32::from(ip).to_be();
            return (storage, size_of::<libc::sockaddr_in>() as libc::socklen_t);
        }
        (Domain::V4, IpAddr::V6(ip)) => panic!("an AF_INET socket cannot use {ip}"),
        (_, IpAddr::V4(ip)) => ip.to_ipv6_mapped(),
        (_, IpAddr::V6(ip)) => ip,
    };
    // SAFETY: as above.
    let v6 = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in6>() };
    v6.sin6_family = libc::AF_INET6 as libc::sa_family_t;
    v6.sin6_port = address.port().to_be();
    v6.sin6_addr.s6_addr = ip.octets();
    (storage, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
}
