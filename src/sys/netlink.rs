//! A NETLINK_SOCK_DIAG socket: non-blocking, bound, and suspicious of what it
//! receives.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

/// One sock_diag socket (sock_diag(7)).
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    port: u32,
}

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
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.set_non_blocking(true)?;
        let port = socket.bind_auto()?.port_number();
        Ok(Netlink { socket, port })
    }

    /// The port id that replies to this socket carry.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Joins a multicast group (`enum sknetlink_groups`, linux/sock_diag.h).
    ///
    /// # Errors
    /// EINVAL where the kernel has no such group (before Linux 4.2).
    pub fn join(&self, group: u32) -> io::Result<()> {
        self.socket.add_membership(group)
    }

    /// Asks for a receive buffer of `bytes` and returns what was granted, both
    /// as setsockopt(2) counts: the kernel doubles it for its bookkeeping and
    /// charges each message against the double.
    ///
    /// SO_RCVBUFFORCE needs CAP_NET_ADMIN in the initial user namespace;
    /// without it the limit is net.core.rmem_max.
    ///
    /// # Errors
    /// The kernel's, when even SO_RCVBUF is refused.
    pub fn request_buffer(&self, bytes: usize) -> io::Result<usize> {
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        if self.set_int(libc::SO_RCVBUFFORCE, bytes).is_err() {
            self.set_int(libc::SO_RCVBUF, bytes)?;
        }
        self.socket.get_rx_buf_sz()
    }

    fn set_int(&self, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        // SAFETY: `value` lives across the call and its size is passed with it;
        // the kernel only reads it. The descriptor is open: `self` owns it.
        let answer = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
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

impl AsRawFd for Netlink {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
