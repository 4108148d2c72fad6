//! A netlink socket: non-blocking, bound, and suspicious of what it receives.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};

use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_ROUTE, NETLINK_SOCK_DIAG},
};

use super::capability;
use super::classic::{self, Instruction};

/// One netlink socket, of sock_diag(7) or rtnetlink(7).
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    port: u32,
}

/// The option, and the type of the control message (linux/netlink.h).
const LISTEN_ALL_NSID: libc::c_int = 8;

/// Why a receive gave no bytes.
#[derive(Debug)]
pub enum RecvError {
    /// Nothing is there; wait for readiness.
    WouldBlock,
    /// ENOBUFS: the receive buffer was full and the kernel dropped messages.
    Overrun,
    /// The message was longer than the buffer; its rest is lost.
    Truncated,
    /// Not sent by the kernel: a process with CAP_NET_ADMIN over the namespace can
    /// address our port.
    Foreign,
    /// Everything else.
    Io(io::Error),
}

impl Netlink {
    /// Opens and binds a socket in the namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's: EPROTONOSUPPORT where sock_diag is not built in, EPERM or
    /// EACCES under a security policy, EMFILE.
    pub fn open() -> io::Result<Netlink> {
        Netlink::of(NETLINK_SOCK_DIAG)
    }

    /// The same for whoever asks for sockets. To a socket that was opened with
    /// CAP_NET_ADMIN the kernel tells the mark of each, and looks for its keys and
    /// protocols on top: a twelfth of its time, for what nobody here reads. So this
    /// one is opened without.
    ///
    /// # Errors
    /// As [`Netlink::open`].
    pub fn open_asking() -> io::Result<Netlink> {
        capability::without_net_admin(Netlink::open)
    }

    /// The same for rtnetlink(7).
    ///
    /// # Errors
    /// As [`Netlink::open`].
    pub fn open_route() -> io::Result<Netlink> {
        Netlink::of(NETLINK_ROUTE)
    }

    fn of(protocol: isize) -> io::Result<Netlink> {
        let mut socket = Socket::new(protocol)?;
        socket.set_non_blocking(true)?;
        let port = socket.bind_auto()?.port_number();
        Ok(Netlink { socket, port })
    }

    /// The port id that replies to this socket carry.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Joins a multicast group (`enum sknetlink_groups`, linux/sock_diag.h; `enum
    /// rtnetlink_groups`, linux/rtnetlink.h).
    ///
    /// # Errors
    /// EINVAL where the kernel has no such group (before Linux 4.2).
    pub fn join(&self, group: u32) -> io::Result<()> {
        self.socket.add_membership(group)
    }

    /// Leaves a multicast group: what it has sent already stays.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn leave(&self, group: u32) -> io::Result<()> {
        self.socket.drop_membership(group)
    }

    /// Has multicast messages come from every network namespace that has an id in
    /// this socket's (NETLINK_LISTEN_ALL_NSID, netlink(7)), or from this one alone
    /// again.
    ///
    /// # Errors
    /// EPERM without CAP_NET_BROADCAST. A namespace in whose user namespace it is
    /// missing stays silent.
    pub fn listen_all(&self, on: bool) -> io::Result<()> {
        self.set(libc::SOL_NETLINK, LISTEN_ALL_NSID, libc::c_int::from(on))
    }

    /// The cookie of the network namespace that the socket is in (Linux 5.14):
    /// unlike its inode it is never given again. `None` on an older kernel.
    pub fn netns_cookie(&self) -> Option<u64> {
        let mut value: u64 = 0;
        let mut length = size_of::<u64>() as libc::socklen_t;
        // SAFETY: `value` and `length` are valid for writes, and `length` says how
        // large `value` is; the option writes eight bytes.
        let answer = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_NETNS_COOKIE,
                (&raw mut value).cast(),
                &raw mut length,
            )
        };
        (answer == 0).then_some(value)
    }

    /// Asks for a receive buffer of `bytes` and returns what was granted, both
    /// as setsockopt(2) counts: the kernel doubles it for its bookkeeping and
    /// charges each message against the double.
    ///
    /// SO_RCVBUFFORCE needs CAP_NET_ADMIN in the initial user namespace;
    /// without it the limit is net.core.rmem_max. Where a security policy refuses
    /// both, the socket keeps what it has.
    ///
    /// # Errors
    /// Those of reading SO_RCVBUF, which the kernel does not document for a
    /// socket.
    pub fn request_buffer(&self, bytes: usize) -> io::Result<usize> {
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        if self.set_int(libc::SO_RCVBUFFORCE, bytes).is_err()
            && let Err(error) = self.set_int(libc::SO_RCVBUF, bytes)
        {
            log::debug!("the receive buffer cannot be set: {error}");
        }
        self.socket.get_rx_buf_sz()
    }

    /// Has the kernel ask this program about every message, before it charges the
    /// receive buffer. What was queued before stays, and no message is weighed by
    /// half of the old program and half of the new one.
    ///
    /// # Errors
    /// Those of [`classic::attach`]; then the program is the one it was before.
    pub fn filter(&self, program: &[Instruction]) -> io::Result<()> {
        classic::attach(&self.socket, program)
    }

    /// Takes every message again.
    ///
    /// # Errors
    /// Those of [`classic::detach`].
    pub fn unfilter(&self) -> io::Result<()> {
        classic::detach(&self.socket)
    }

    fn set_int(&self, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, option, value)
    }

    fn set(&self, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        // SAFETY: `value` lives across the call and its size is passed with it;
        // the kernel only reads it. The descriptor is open: `self` owns it.
        let answer = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if answer == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Sends one request to the kernel.
    ///
    /// # Errors
    /// The kernel's; for a dump this includes what its start-up refused.
    pub fn send(&self, request: &[u8]) -> io::Result<()> {
        let sent = self.socket.send_to(request, &SocketAddr::new(0, 0), 0)?;
        if sent == request.len() {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::WriteZero,
                "a netlink request was cut short",
            ))
        }
    }

    /// Receives one datagram into `buffer` and returns its length.
    ///
    /// # Errors
    /// See [`RecvError`]; an interrupted call is repeated.
    pub fn recv(&self, buffer: &mut [u8]) -> Result<usize, RecvError> {
        let room = buffer.len();
        loop {
            let mut window = &mut buffer[..];
            match self
                .socket
                .recv_from(&mut window, libc::MSG_TRUNC | libc::MSG_DONTWAIT)
            {
                Ok((_, from)) if from.port_number() != 0 => return Err(RecvError::Foreign),
                Ok((length, _)) if length > room => return Err(RecvError::Truncated),
                Ok((length, _)) => return Ok(length),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => continue,
                    Some(libc::EAGAIN) => return Err(RecvError::WouldBlock),
                    Some(libc::ENOBUFS) => return Err(RecvError::Overrun),
                    _ => return Err(RecvError::Io(error)),
                },
            }
        }
    }
}

impl Netlink {
    /// As [`Netlink::recv`], with the id of the network namespace that the message
    /// came from, where that is another one ([`Netlink::listen_all`]).
    ///
    /// # Errors
    /// See [`RecvError`].
    pub fn recv_from_any(&self, buffer: &mut [u8]) -> Result<(usize, Option<i32>), RecvError> {
        let room = buffer.len();
        let mut from = MaybeUninit::<libc::sockaddr_nl>::zeroed();
        // Room for one control message with an int, aligned as cmsghdr is.
        let mut control = [0_u64; 4];
        let mut part = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: room,
        };
        // SAFETY: a msghdr of zeros is a valid one: no name, no parts.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_name = from.as_mut_ptr().cast();
        header.msg_namelen = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        let length = loop {
            header.msg_controllen = size_of_val(&control) as _;
            // SAFETY: the header points to buffers that live across the call and
            // gives their sizes; the descriptor is open: `self` owns it.
            let length = unsafe {
                libc::recvmsg(
                    self.socket.as_raw_fd(),
                    &raw mut header,
                    libc::MSG_TRUNC | libc::MSG_DONTWAIT,
                )
            };
            if let Ok(length) = usize::try_from(length) {
                break length;
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) => return Err(RecvError::WouldBlock),
                Some(libc::ENOBUFS) => return Err(RecvError::Overrun),
                _ => return Err(RecvError::Io(error)),
            }
        };
        // SAFETY: zeros are a valid sockaddr_nl, and the kernel wrote over them.
        if unsafe { from.assume_init() }.nl_pid != 0 {
            return Err(RecvError::Foreign);
        }
        if length > room {
            return Err(RecvError::Truncated);
        }
        Ok((length, nsid(&header)))
    }
}

/// The namespace id among the control messages of a message received.
fn nsid(header: &libc::msghdr) -> Option<i32> {
    // SAFETY: the header is one that recvmsg(2) filled in, and its control buffer
    // is still there; the macros stay within the length that it gives.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give a whole, aligned cmsghdr or null.
    while let Some(message) = unsafe { next.as_ref() } {
        if message.cmsg_level == libc::SOL_NETLINK && message.cmsg_type == LISTEN_ALL_NSID {
            // SAFETY: a control message of this type holds an int.
            return Some(unsafe { libc::CMSG_DATA(next).cast::<i32>().read_unaligned() });
        }
        // SAFETY: as for the first one.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    None
}

impl AsRawFd for Netlink {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
