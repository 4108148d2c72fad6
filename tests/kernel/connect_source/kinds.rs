//! Every kind of connect() there is, and what is none.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use crate::netns::{self, check};
use crate::sock::{Domain, Sock, to_wire};

use super::actor::{Account, Truth, truth};

const PATIENCE: Duration = Duration::from_secs(10);
/// linux/tcp.h: connect() waits for the first send.
const TCP_FASTOPEN_CONNECT: libc::c_int = 30;

/// What was done, and the next destination: each is used once.
struct Kinds {
    truths: Vec<Truth>,
    port: u16,
}

/// Does all of it.
pub fn act() -> Account {
    let mut kinds = Kinds {
        truths: Vec::new(),
        port: 1,
    };
    for domain in Domain::ALL {
        kinds.plain(domain);
        kinds.without_waiting(domain);
        kinds.again(domain);
    }
    kinds.unreachable();
    kinds.unspecified();
    kinds.fast_open();
    kinds.mptcp();
    kinds.elsewhere();
    kinds.none();
    Account {
        truths: kinds.truths,
        ..Account::default()
    }
}

impl Kinds {
    /// A destination that refuses.
    fn nobody(&mut self, domain: Domain) -> SocketAddr {
        self.port += 1;
        SocketAddr::new(domain.loopback(), self.port)
    }

    fn note(
        &mut self,
        name: &str,
        domain: Domain,
        socket: &Sock,
        to: SocketAddr,
        act: impl FnOnce(),
    ) -> &mut Truth {
        let name = format!("{name}, {domain:?}");
        self.truths.push(truth(&name, socket, domain, to, act));
        self.truths.last_mut().expect("just pushed")
    }

    fn plain(&mut self, domain: Domain) {
        let listener = Sock::listener(domain);
        let socket = Sock::tcp(domain);
        let to = listener.local();
        self.note("blocking", domain, &socket, to, || {
            socket.connect(to).expect("somebody listens there");
        });

        let socket = Sock::tcp(domain);
        let to = self.nobody(domain);
        self.note("refused", domain, &socket, to, || {
            socket.connect(to).expect_err("nobody listens there");
        });

        let socket = Sock::tcp(domain);
        socket.bind_loopback();
        let to = self.nobody(domain);
        self.note("bound before", domain, &socket, to, || {
            socket.connect(to).expect_err("nobody listens there");
        });
    }

    /// The second connect() asks how the first went.
    fn without_waiting(&mut self, domain: Domain) {
        let listener = Sock::listener(domain);
        let socket = Sock::tcp(domain);
        let to = listener.local();
        self.note("non-blocking, asked again", domain, &socket, to, || {
            socket.connect_nonblocking(to);
            socket.outcome(PATIENCE).expect("somebody listens there");
            socket.connect(to).expect("it is connected");
            let again = socket.connect(to).expect_err("and was told so");
            assert_eq!(again.raw_os_error(), Some(libc::EISCONN));
        });

        let socket = Sock::tcp(domain);
        let to = self.nobody(domain);
        self.note(
            "non-blocking, refused when asked",
            domain,
            &socket,
            to,
            || {
                socket.connect_nonblocking(to);
                let again = loop {
                    let error = socket.connect(to).expect_err("nobody listens there");
                    if error.raw_os_error() != Some(libc::EALREADY) {
                        break error;
                    }
                };
                assert_eq!(again.raw_os_error(), Some(libc::ECONNREFUSED));
            },
        );
    }

    /// A socket that failed and tries once more is two connects.
    fn again(&mut self, domain: Domain) {
        let socket = Sock::tcp(domain);
        let to = self.nobody(domain);
        let truth = self.note("repeated", domain, &socket, to, || {
            socket.connect(to).expect_err("nobody listens there");
            socket.connect(to).expect_err("nor now");
        });
        truth.times = 2;

        let listener = Sock::listener(domain);
        let socket = Sock::tcp(domain);
        let to = listener.local();
        // connect() with AF_UNSPEC is none, the one after it is another.
        let truth = self.note(
            "disconnected and connected again",
            domain,
            &socket,
            to,
            || {
                socket.connect(to).expect("somebody listens there");
                socket.disconnect();
                socket.connect(to).expect("and still does");
            },
        );
        truth.times = 2;
    }

    fn unreachable(&mut self) {
        for (domain, ip) in [
            // RFC 5737 and RFC 3849; a new namespace has no routes.
            (Domain::V4, IpAddr::from(Ipv4Addr::new(203, 0, 113, 7))),
            (
                Domain::V6,
                IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7)),
            ),
            (Domain::V4, IpAddr::from(Ipv4Addr::BROADCAST)),
        ] {
            let socket = Sock::tcp(domain);
            let to = SocketAddr::new(ip, 443);
            self.note("unreachable", domain, &socket, to, || {
                socket.connect(to).expect_err("there is no way to it");
            });
        }
    }

    /// The kernel goes on to connect to loopback; the caller said otherwise.
    fn unspecified(&mut self) {
        for (domain, ip) in [
            (Domain::V4, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
            (Domain::V6, IpAddr::from(Ipv6Addr::UNSPECIFIED)),
        ] {
            let socket = Sock::tcp(domain);
            let to = SocketAddr::new(ip, self.nobody(domain).port());
            self.note("unspecified", domain, &socket, to, || {
                socket.connect(to).expect_err("nobody listens there");
            });
        }
    }

    fn fast_open(&mut self) {
        for domain in [Domain::V4, Domain::V6] {
            let listener = Sock::listener(domain);
            let socket = Sock::tcp(domain);
            let to = listener.local();
            let truth = self.note("fast open by sendto", domain, &socket, to, || {
                let (storage, length) = to_wire(to, domain);
                // SAFETY: `storage` holds `length` bytes, the payload one; both live
                // across the call.
                let sent = unsafe {
                    let to = (&raw const storage).cast();
                    let flags = libc::MSG_FASTOPEN;
                    libc::sendto(socket.raw(), b"x".as_ptr().cast(), 1, flags, to, length)
                };
                assert_eq!(sent, 1, "{}", io::Error::last_os_error());
            });
            truth.fast_open = true;

            let listener = Sock::listener(domain);
            let socket = Sock::tcp(domain);
            socket.set(libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1 as libc::c_int);
            let to = listener.local();
            self.note("fast open by connect", domain, &socket, to, || {
                socket.connect(to).expect("somebody listens there");
                socket.send(1);
            });
        }
    }

    fn mptcp(&mut self) {
        for domain in Domain::ALL {
            let listener = Sock::listener(domain);
            for (name, to) in [
                ("MPTCP", listener.local()),
                ("MPTCP refused", self.nobody(domain)),
            ] {
                let socket = match Sock::mptcp(domain) {
                    Ok(socket) => socket,
                    Err(error) => return netns::visibly(&format!("SKIPPED MPTCP: {error}")),
                };
                let truth = self.note(name, domain, &socket, to, || {
                    assert_eq!(socket.connect(to).is_ok(), name == "MPTCP");
                });
                truth.mptcp = true;
            }
        }
    }

    /// Another thread, another user, another namespace.
    fn elsewhere(&mut self) {
        let mut on_a_thread = |name: &str, enter: fn()| {
            let to = self.nobody(Domain::V4);
            let title = name.to_string();
            let act = move || {
                enter();
                let socket = Sock::tcp(Domain::V4);
                truth(&title, &socket, Domain::V4, to, || {
                    socket.connect(to).expect_err("nobody listens there");
                })
            };
            let thread = std::thread::Builder::new().name(name.to_string());
            let thread = thread.spawn(act).expect("a thread");
            self.truths.push(thread.join().expect("it does not panic"));
        };
        on_a_thread("thread", || ());
        on_a_thread("a name cut short by the kernel", || ());
        if !netns::is_root() {
            return;
        }
        on_a_thread("another user", || {
            // The wrapper of the C library would change every thread.
            // SAFETY: setresuid(2) takes numbers.
            let answer = unsafe { libc::syscall(libc::SYS_setresuid, 12345, 23456, 34567) };
            assert_eq!(answer, 0, "{}", io::Error::last_os_error());
        });
        on_a_thread("another namespace", || {
            // SAFETY: unshare(2) takes a number.
            check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).expect("root may");
        });
    }

    /// What is no connect() of a TCP socket to a destination.
    fn none(&mut self) {
        for domain in Domain::ALL {
            let socket = Sock::udp(domain);
            let to = self.nobody(domain);
            let truth = self.note("UDP", domain, &socket, to, || {
                socket.connect(to).expect("UDP always connects");
            });
            truth.times = 0;

            let socket = Sock::tcp(domain);
            let truth = self.note("AF_UNSPEC", domain, &socket, to, || socket.disconnect());
            truth.times = 0;

            let listener = Sock::listener(domain);
            let truth = self.note("a listener's", domain, &listener, to, || {
                let refused = listener.connect(to).expect_err("it listens");
                assert_eq!(refused.raw_os_error(), Some(libc::EISCONN));
            });
            truth.times = 0;

            // One byte short of what tcp_v4_connect() and tcp_v6_connect() ask for.
            let socket = Sock::tcp(domain);
            let enough = if domain == Domain::V4 { 16 } else { 24 };
            self.odd(
                "too short",
                &socket,
                domain,
                domain,
                enough - 1,
                libc::EINVAL,
            );
            let socket = Sock::tcp(domain);
            self.odd("no family", &socket, domain, domain, 1, libc::EINVAL);
        }
        let socket = Sock::tcp(Domain::V6);
        self.odd(
            "IPv4 address",
            &socket,
            Domain::V6,
            Domain::V4,
            28,
            libc::EAFNOSUPPORT,
        );
        let socket = Sock::tcp(Domain::V4);
        self.odd(
            "IPv6 address",
            &socket,
            Domain::V4,
            Domain::V6,
            28,
            libc::EAFNOSUPPORT,
        );

        // By their nature without a cookie of a TCP socket; they would show as records
        // too many.
        let name = format!("/tmp/sockwatch-test-{}", std::process::id());
        let listener = UnixListener::bind(&name).expect("a name of our own");
        UnixStream::connect(&name).expect("somebody listens there");
        drop(listener);
        std::fs::remove_file(&name).expect("it was just made");
    }

    /// Passes `length` bytes of an address of another domain, for which there is
    /// no connect() but an error.
    fn odd(
        &mut self,
        name: &str,
        socket: &Sock,
        domain: Domain,
        address: Domain,
        length: libc::socklen_t,
        errno: libc::c_int,
    ) {
        let to = self.nobody(address);
        let truth = self.note(name, domain, socket, to, || {
            let (storage, _) = to_wire(to, address);
            // SAFETY: `storage` lives across the call and is longer than `length`.
            let answer = unsafe {
                libc::connect(
                    socket.raw().as_raw_fd(),
                    (&raw const storage).cast(),
                    length,
                )
            };
            let error = check(answer).expect_err("no destination");
            assert_eq!(error.raw_os_error(), Some(errno), "{name}");
        });
        truth.times = 0;
    }
}
