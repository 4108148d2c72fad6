//! A packet socket that sees port 53 and nothing else (packet(7)).
//!
//! An ordinary one, without a ring: it costs no memory while nothing comes. The
//! link header is left off (SOCK_DGRAM), so that every kind of link looks alike.
//! It is bound only when its filter is in place, so that nothing unfiltered is
//! ever in its queue.

mod filter;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Which way a packet went.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Way {
    /// Out of this host, its own or forwarded (PACKET_OUTGOING).
    Out,
    /// In from a link, and addressed to this host's link address (PACKET_HOST).
    In,
    /// From this host to itself, by way of a loopback device: both at once.
    Within,
}

/// What a receive gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Bytes in the buffer, from the network header on.
    pub length: usize,
    /// Which way it went.
    pub way: Way,
}

/// The packet socket.
#[derive(Debug)]
pub struct Packets {
    fd: OwnedFd,
}

impl Packets {
    /// Opens a socket that sees the DNS of the calling thread's namespace: UDP and
    /// TCP of port 53 on every device. `buffer` bytes are asked for the receive
    /// buffer; less may be granted.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW in the user namespace that owns the network
    /// namespace; EAFNOSUPPORT where the kernel has no packet sockets
    /// (CONFIG_PACKET).
    pub fn open(buffer: usize) -> io::Result<Packets> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: socket(2) takes no pointers. Protocol 0: it receives nothing yet.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened here and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        super::classic::attach(&fd, &filter::program())?;
        let bytes = libc::c_int::try_from(buffer).unwrap_or(libc::c_int::MAX);
        // SO_RCVBUFFORCE needs CAP_NET_ADMIN in the initial user namespace; without
        // it the limit is net.core.rmem_max.
        set_option(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            &bytes,
        )
        .or_else(|_| set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, &bytes))?;
        let packets = Packets { fd };
        packets.bind()?;
        Ok(packets)
    }

    /// Binds to every device and protocol: from here on packets come.
    fn bind(&self) -> io::Result<()> {
        // SAFETY: a sockaddr_ll of zeros is a valid one.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: the address lives across the call and its size is passed with it.
        let answer = unsafe {
            libc::bind(
                self.fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if answer == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// The size of the receive buffer, as the kernel charges packets against it.
    ///
    /// # Errors
    /// Those of getsockopt(2), which has none here.
    pub fn buffer(&self) -> io::Result<usize> {
        let mut bytes: libc::c_int = 0;
        let fd = self.fd.as_raw_fd();
        read_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &mut bytes)?;
        Ok(usize::try_from(bytes).unwrap_or(0))
    }

    /// Receives one packet, or `None` when there is none. What does not fit into
    /// the buffer is cut off. An interrupted call is repeated.
    ///
    /// # Errors
    /// Those of recvfrom(2).
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        loop {
            // SAFETY: a sockaddr_ll of zeros is a valid one.
            let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            // SAFETY: the buffer is writable for its length, and so is the address
            // for the size that is passed with it.
            let length = unsafe {
                libc::recvfrom(
                    self.fd.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    libc::MSG_DONTWAIT,
                    (&raw mut from).cast(),
                    &raw mut size,
                )
            };
            let Ok(length) = usize::try_from(length) else {
                let error = io::Error::last_os_error();
                match error.raw_os_error() {
                    Some(libc::EINTR) => continue,
                    Some(libc::EAGAIN) => return Ok(None),
                    _ => return Err(error),
                }
            };
            // The filter lets no others through.
            let way = if from.sll_hatype == libc::ARPHRD_LOOPBACK {
                Way::Within
            } else if from.sll_pkttype == libc::PACKET_OUTGOING {
                Way::Out
            } else {
                Way::In
            };
            return Ok(Some(Received { length, way }));
        }
    }

    /// How many packets the kernel dropped since the last call, because the
    /// receive buffer was full (PACKET_STATISTICS).
    ///
    /// # Errors
    /// Those of getsockopt(2), which has none here.
    pub fn dropped(&self) -> io::Result<u64> {
        let mut counts = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let fd = self.fd.as_raw_fd();
        read_option(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, &mut counts)?;
        Ok(u64::from(counts.tp_drops))
    }
}

impl AsRawFd for Packets {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// setsockopt(2) with a plain value.
fn set_option<T: Copy>(
    fd: RawFd,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: `value` lives across the call and its size is passed with it; the
    // kernel only reads it.
    let answer = unsafe {
        libc::setsockopt(
            fd,
            level,
            option,
            (&raw const *value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// getsockopt(2) into a plain value.
fn read_option<T: Copy>(
    fd: RawFd,
    level: libc::c_int,
    option: libc::c_int,
    value: &mut T,
) -> io::Result<()> {
    let mut size = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is writable for `size` bytes; the types used here are plain
    // integers and structs of them, which any bytes are valid for.
    let answer =
        unsafe { libc::getsockopt(fd, level, option, (&raw mut *value).cast(), &raw mut size) };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
