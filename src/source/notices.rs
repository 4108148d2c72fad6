//! One socket that receives destruction notices: which groups it is in, how much
//! room it has, and how it is drained.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use crate::model::{Family, Notice, Proto};
use crate::stats::Stats;
use crate::sys::{Netlink, RecvError};
use crate::wire::sock_diag::{self, Body, Messages};

/// A multicast group of destruction notices (`enum sknetlink_groups`,
/// linux/sock_diag.h).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Group {
    /// The family of the sockets it tells of.
    pub family: Family,
    /// Their protocol.
    pub proto: Proto,
}

impl Group {
    /// All four.
    pub const ALL: [Group; 4] = [
        Group {
            family: Family::V4,
            proto: Proto::Tcp,
        },
        Group {
            family: Family::V4,
            proto: Proto::Udp,
        },
        Group {
            family: Family::V6,
            proto: Proto::Tcp,
        },
        Group {
            family: Family::V6,
            proto: Proto::Udp,
        },
    ];

    /// The kernel's number for it.
    pub fn number(self) -> u32 {
        match (self.family, self.proto) {
            (Family::V4, Proto::Tcp) => 1,
            (Family::V4, Proto::Udp) => 2,
            (Family::V6, Proto::Tcp) => 3,
            (Family::V6, Proto::Udp) => 4,
        }
    }

    /// The kernel's name for it, without the prefix.
    pub fn as_str(self) -> &'static str {
        match (self.family, self.proto) {
            (Family::V4, Proto::Tcp) => "INET_TCP_DESTROY",
            (Family::V4, Proto::Udp) => "INET_UDP_DESTROY",
            (Family::V6, Proto::Tcp) => "INET6_TCP_DESTROY",
            (Family::V6, Proto::Udp) => "INET6_UDP_DESTROY",
        }
    }
}

/// What a drain came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drained {
    /// There may be more: the limit was reached before the socket was empty.
    pub more: bool,
    /// The kernel dropped notices since the last drain.
    pub overrun: bool,
}

/// A notice socket.
#[derive(Debug)]
pub struct Notices {
    socket: Netlink,
    buffer: Box<[u8]>,
    stats: Rc<Stats>,
}

/// A notice with today's tcp_info has 384 bytes; the rest is for tomorrow's.
const NOTICE_ROOM: usize = 4096;

/// What the kernel charges a receive buffer for one notice: the truesize of its
/// sk_buff, measured on Linux 6.18.
const CHARGE: usize = 1280;

impl Notices {
    /// Opens a socket in no group yet.
    ///
    /// # Errors
    /// See [`Netlink::open`].
    pub fn open(stats: Rc<Stats>) -> io::Result<Notices> {
        Ok(Notices {
            socket: Netlink::open()?,
            buffer: vec![0; NOTICE_ROOM].into_boxed_slice(),
            stats,
        })
    }

    /// Joins a group.
    ///
    /// # Errors
    /// See [`Netlink::join`].
    pub fn join(&self, group: Group) -> io::Result<()> {
        self.socket.join(group.number())
    }

    /// Asks for a receive buffer; returns what was granted, in bytes as the
    /// kernel charges them, and how many notices that holds.
    ///
    /// # Errors
    /// See [`Netlink::request_buffer`].
    pub fn request_buffer(&self, bytes: usize) -> io::Result<(usize, usize)> {
        let granted = self.socket.request_buffer(bytes)?;
        Ok((granted, granted / CHARGE))
    }

    /// Hands over what is there, at most `limit` notices, until the socket is
    /// empty. An overrun does not end it: what was queued before is still good.
    ///
    /// # Errors
    /// Those of recvfrom(2) that are neither of the above.
    pub fn drain(&mut self, limit: usize, each: &mut dyn FnMut(Notice)) -> io::Result<Drained> {
        let mut drained = Drained::default();
        for _ in 0..limit {
            let length = match self.socket.recv(&mut self.buffer) {
                Ok(length) => length,
                Err(RecvError::WouldBlock) => return Ok(drained),
                Err(RecvError::Overrun) => {
                    self.stats.overruns.bump();
                    drained.overrun = true;
                    continue;
                }
                Err(RecvError::Truncated | RecvError::Foreign) => {
                    self.stats.netlink_rejected.bump();
                    continue;
                }
                Err(RecvError::Io(error)) => return Err(error),
            };
            for message in Messages::new(&self.buffer[..length]) {
                let notice = message.and_then(|message| match message.body {
                    Body::Socket(payload) => sock_diag::notice(payload).map(Some),
                    _ => Ok(None),
                });
                match notice {
                    Ok(Some(notice)) => {
                        self.stats.notices.bump();
                        each(notice);
                    }
                    Ok(None) => {}
                    Err(malformed) => {
                        self.stats.netlink_rejected.bump();
                        log::debug!("a notice was rejected: {}", malformed.as_str());
                    }
                }
            }
        }
        drained.more = true;
        Ok(drained)
    }
}

impl AsRawFd for Notices {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
