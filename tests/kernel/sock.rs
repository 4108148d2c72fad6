//! Sockets as the tests use them: each knows its cookie, its inode and what it
//! was told to connect to, so that it can be looked for in events after it is
//! gone.
//!
//! Reading SO_COOKIE makes the kernel assign the cookie at that moment. All
//! sockets here read theirs when they are made, which is right where identity is
//! the question; those of std have none until somebody asks.

mod address;
mod unusual;

pub use address::{Domain, to_wire};

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Mutex;
use std::time::Duration;

use crate::netns::check;
use address::name;

/// A socket with a cookie.
#[derive(Debug)]
pub struct Sock {
    fd: OwnedFd,
    domain: Domain,
    tcp: bool,
    /// Its cookie.
    pub cookie: u64,
    /// It was accepted.
    accepted: bool,
    /// What connect() was told, or the peer of an accepted socket.
    remote: Mutex<Option<SocketAddr>>,
}

/// Who a socket is, kept beyond its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ident {
    /// `tcp` or `udp`.
    pub proto: &'static str,
    /// The family.
    pub domain: Domain,
    /// This end; a mapped address is held as IPv4.
    pub local: SocketAddr,
    /// The other end, or the unspecified address.
    pub remote: SocketAddr,
    /// The cookie, where the test can know it.
    pub cookie: Option<u64>,
    /// The inode of its file, where it has one.
    pub inode: Option<u64>,
    /// It was accepted, or waits to be: a connection of it is inbound.
    pub accepted: bool,
}

/// Makes a socket that has no cookie yet.
fn bare(domain: Domain, kind: libc::c_int) -> OwnedFd {
    of_protocol(domain, kind, 0)
        .unwrap_or_else(|error| panic!("no {domain:?} socket to be had: {error}"))
}

fn of_protocol(domain: Domain, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    let family = match domain {
        Domain::V4 => libc::AF_INET,
        Domain::V6 | Domain::Mapped => libc::AF_INET6,
    };
    // SAFETY: socket(2) takes no pointers.
    let fd = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: just opened, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl Sock {
    fn with_cookie(fd: OwnedFd, domain: Domain, tcp: bool) -> Sock {
        let cookie = option::<u64>(fd.as_raw_fd(), libc::SO_COOKIE).expect("SO_COOKIE");
        Sock {
            fd,
            domain,
            tcp,
            cookie,
            accepted: false,
            remote: Mutex::new(None),
        }
    }

    /// A TCP socket.
    pub fn tcp(domain: Domain) -> Sock {
        Sock::with_cookie(bare(domain, libc::SOCK_STREAM), domain, true)
    }

    /// A TCP socket that speaks MPTCP, where the kernel has it.
    #[cfg(feature = "bpf")]
    pub fn mptcp(domain: Domain) -> io::Result<Sock> {
        let fd = of_protocol(domain, libc::SOCK_STREAM, libc::IPPROTO_MPTCP)?;
        Ok(Sock::with_cookie(fd, domain, true))
    }

    /// A UDP socket.
    pub fn udp(domain: Domain) -> Sock {
        Sock::with_cookie(bare(domain, libc::SOCK_DGRAM), domain, false)
    }

    /// A TCP socket that listens on the loopback address.
    pub fn listener(domain: Domain) -> Sock {
        let socket = Sock::tcp(domain);
        socket.bind(SocketAddr::new(domain.loopback(), 0));
        socket.listen(64);
        socket
    }

    /// A TCP socket connected to `listener`, and its accepted peer.
    pub fn pair(listener: &Sock) -> (Sock, Sock) {
        let client = Sock::tcp(listener.domain);
        client
            .connect(listener.local())
            .expect("a listener on lo takes connections");
        let server = listener.accept();
        (client, server)
    }

    /// Its family.
    pub fn domain(&self) -> Domain {
        self.domain
    }

    /// The descriptor.
    pub fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Binds; panics when the address is not to be had.
    pub fn bind(&self, address: SocketAddr) {
        let (storage, length) = to_wire(address, self.domain);
        // SAFETY: `storage` lives across the call and holds `length` bytes.
        check(unsafe { libc::bind(self.raw(), (&raw const storage).cast(), length) })
            .unwrap_or_else(|error| panic!("cannot bind to {address}: {error}"));
    }

    /// Binds to a free port of the loopback address.
    pub fn bind_loopback(&self) {
        self.bind(SocketAddr::new(self.domain.loopback(), 0));
    }

    /// Listens.
    pub fn listen(&self, backlog: libc::c_int) {
        // SAFETY: listen(2) takes no pointers.
        check(unsafe { libc::listen(self.raw(), backlog) }).expect("a bound socket can listen");
    }

    /// Connects.
    pub fn connect(&self, address: SocketAddr) -> io::Result<()> {
        let (storage, length) = to_wire(address, self.domain);
        self.aim(Some(address));
        // SAFETY: `storage` lives across the call and holds `length` bytes.
        check(unsafe { libc::connect(self.raw(), (&raw const storage).cast(), length) })?;
        Ok(())
    }

    fn aim(&self, remote: Option<SocketAddr>) {
        *self.remote.lock().expect("nobody panicked with it") = remote;
    }

    /// Begins to connect without waiting.
    pub fn connect_nonblocking(&self, address: SocketAddr) {
        self.nonblocking();
        match self.connect(address) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            other => panic!("a non-blocking connect to {address} said {other:?}"),
        }
    }

    /// Makes it non-blocking.
    pub fn nonblocking(&self) {
        // SAFETY: F_SETFL takes a number.
        check(unsafe { libc::fcntl(self.raw(), libc::F_SETFL, libc::O_NONBLOCK) })
            .expect("O_NONBLOCK");
    }

    /// Makes it blocking again.
    pub fn blocking(&self) {
        // SAFETY: F_SETFL takes a number.
        check(unsafe { libc::fcntl(self.raw(), libc::F_SETFL, 0) }).expect("no flags");
    }

    /// Takes the peer away from a UDP socket (connect(2) with AF_UNSPEC).
    pub fn disconnect(&self) {
        // SAFETY: a sockaddr of zeros is AF_UNSPEC.
        let nobody: libc::sockaddr = unsafe { std::mem::zeroed() };
        let length = size_of::<libc::sockaddr>() as libc::socklen_t;
        // SAFETY: `nobody` lives across the call and is `length` bytes long.
        check(unsafe { libc::connect(self.raw(), &raw const nobody, length) }).expect("AF_UNSPEC");
        self.aim(None);
    }

    /// Accepts a connection.
    pub fn accept(&self) -> Sock {
        // SAFETY: null pointers ask for no address.
        let fd = check(unsafe {
            libc::accept4(
                self.raw(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                libc::SOCK_CLOEXEC,
            )
        })
        .expect("a connection to accept");
        // SAFETY: just opened, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let remote = name(fd.as_raw_fd(), libc::getpeername).ok();
        // A dual-stack listener's children are mapped when their peers are IPv4.
        let domain = match (self.domain, remote) {
            (Domain::V6, Some(SocketAddr::V4(_))) => Domain::Mapped,
            (domain, _) => domain,
        };
        let mut socket = Sock::with_cookie(fd, domain, true);
        socket.accepted = true;
        socket.aim(remote);
        socket
    }

    /// Sends `bytes` bytes, all of which must fit in the send buffer.
    pub fn send(&self, bytes: usize) {
        let data = vec![b'x'; bytes];
        // SAFETY: `data` is `bytes` long and lives across the call.
        let sent =
            unsafe { libc::send(self.raw(), data.as_ptr().cast(), bytes, libc::MSG_NOSIGNAL) };
        assert_eq!(
            usize::try_from(sent),
            Ok(bytes),
            "{}",
            io::Error::last_os_error()
        );
    }

    /// Sends one byte to an address.
    pub fn send_to(&self, address: SocketAddr) {
        let (storage, length) = to_wire(address, self.domain);
        // SAFETY: `storage` holds `length` bytes, the payload one; both live
        // across the call.
        let sent = unsafe {
            let to = (&raw const storage).cast();
            libc::sendto(self.raw(), b"x".as_ptr().cast(), 1, 0, to, length)
        };
        assert_eq!(sent, 1, "{}", io::Error::last_os_error());
    }

    /// Receives exactly `bytes` bytes.
    pub fn receive(&self, bytes: usize) {
        let mut data = vec![0_u8; bytes];
        // SAFETY: `data` is `bytes` long and lives across the call.
        let got = unsafe {
            libc::recv(
                self.raw(),
                data.as_mut_ptr().cast(),
                bytes,
                libc::MSG_WAITALL,
            )
        };
        assert_eq!(
            usize::try_from(got),
            Ok(bytes),
            "{}",
            io::Error::last_os_error()
        );
    }

    /// Waits until the peer's FIN has come.
    pub fn receive_end(&self) {
        let mut byte = 0_u8;
        // SAFETY: one byte, as said.
        let got = unsafe { libc::recv(self.raw(), (&raw mut byte).cast(), 1, 0) };
        assert_eq!(got, 0, "the peer's end, not {}", io::Error::last_os_error());
    }

    /// Ends the sending side.
    pub fn shutdown(&self) {
        // SAFETY: shutdown(2) takes no pointers.
        check(unsafe { libc::shutdown(self.raw(), libc::SHUT_WR) }).expect("a connected socket");
    }

    /// Will reset the connection when it is closed (SO_LINGER 0).
    pub fn reset_on_close(&self) {
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        self.set(libc::SOL_SOCKET, libc::SO_LINGER, linger);
    }

    /// Sets a socket option.
    pub fn set<T>(&self, level: libc::c_int, option: libc::c_int, value: T) {
        // SAFETY: `value` lives across the call and its size is passed with it.
        check(unsafe {
            libc::setsockopt(
                self.raw(),
                level,
                option,
                (&raw const value).cast(),
                size_of::<T>() as libc::socklen_t,
            )
        })
        .unwrap_or_else(|error| panic!("socket option {option} of {level}: {error}"));
    }

    /// Allows several sockets on one port.
    pub fn share_port(&self) {
        self.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1 as libc::c_int);
    }

    /// Waits for the outcome of a pending connect.
    pub fn outcome(&self, within: Duration) -> io::Result<()> {
        let mut poll = libc::pollfd {
            fd: self.raw(),
            events: libc::POLLOUT,
            revents: 0,
        };
        // SAFETY: one pollfd, which lives across the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, within.as_millis() as libc::c_int) };
        assert_eq!(ready, 1, "the connect came to no end within {within:?}");
        match option::<libc::c_int>(self.raw(), libc::SO_ERROR).expect("SO_ERROR") {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    /// Waits until a pending connect has failed, and says how.
    pub fn failure(&self, within: Duration) -> io::Error {
        self.outcome(within).expect_err("the connect should fail")
    }

    /// The local address.
    pub fn local(&self) -> SocketAddr {
        name(self.raw(), libc::getsockname).expect("every socket has a local address")
    }

    /// Who it is now.
    pub fn ident(&self) -> Ident {
        Ident {
            proto: if self.tcp { "tcp" } else { "udp" },
            domain: self.domain,
            local: self.local(),
            remote: self
                .remote
                .lock()
                .expect("nobody panicked with it")
                .unwrap_or_else(|| SocketAddr::new(self.domain.unspecified(), 0)),
            cookie: Some(self.cookie),
            inode: Some(self.inode()),
            accepted: self.accepted,
        }
    }

    /// Closes it; who it was.
    pub fn close(self) -> Ident {
        self.ident()
    }

    fn inode(&self) -> u64 {
        // SAFETY: a stat of zeros is valid, and fstat(2) fills it in.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            check(libc::fstat(self.raw(), &raw mut stat)).expect("fstat of an open socket");
            stat.st_ino
        }
    }
}

impl Ident {
    /// The other end of the connection, which is not accepted: it has no file,
    /// and its cookie cannot be read.
    pub fn unaccepted_peer(self) -> Ident {
        Ident {
            local: self.remote,
            remote: self.local,
            cookie: None,
            inode: None,
            accepted: true,
            ..self
        }
    }

    /// As tcp_disconnect() leaves it: the remote port gone, and the local
    /// address too unless it was bound.
    pub fn wiped(self, local_too: bool) -> Ident {
        let local = if local_too {
            self.domain.unspecified()
        } else {
            self.local.ip()
        };
        Ident {
            local: SocketAddr::new(local, self.local.port()),
            remote: SocketAddr::new(self.remote.ip(), 0),
            ..self
        }
    }
}

/// A socket option of the SOL_SOCKET level.
fn option<T: Default>(fd: RawFd, option: libc::c_int) -> io::Result<T> {
    let mut value = T::default();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` and `length` are valid for writes and `length` says how
    // large `value` is.
    check(unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    })?;
    Ok(value)
}
