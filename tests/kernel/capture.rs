//! The sockets of `fixtures/netlink/`, live: what the kernel says of them over
//! sock_diag is read back as what the sockets API says, by the same code that
//! reads the fixtures.
//!
//! With SOCKWATCH_CAPTURE set to a directory, the datagrams are written there,
//! each with what its sockets were: this is how the fixtures were made.

mod notices;
mod rows;

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Instant;

use sockwatch::model::{Coverage, Family, Proto, StateGroups};
use sockwatch::sys::{Netlink, RecvError};
use sockwatch::wire::sock_diag::{Body, Messages};

use crate::daemon::PATIENCE;
use crate::lines::{self, Ends, Holds};
use crate::sock::{Domain, Sock};

/// Every kind of state, group and protocol there is.
const EVERY: StateGroups = StateGroups::ALL;

/// Holds a datagram against what its sockets were, and writes both where the
/// fixtures are being made.
fn hold(name: &str, datagram: &[u8], holds: Holds, mut expected: Vec<String>) {
    expected.sort();
    assert_eq!(lines::read(datagram, holds), expected, "{name}");
    if let Some(directory) = std::env::var_os("SOCKWATCH_CAPTURE").map(PathBuf::from) {
        let write = |ending, bytes: &[u8]| {
            std::fs::write(directory.join(name).with_extension(ending), bytes)
        };
        write("bin", datagram).expect("SOCKWATCH_CAPTURE is a directory to write to");
        write("txt", (expected.join("\n") + "\n").as_bytes()).expect("as the other");
    }
}

/// Receives one datagram, waiting for it.
fn receive(netlink: &Netlink) -> Vec<u8> {
    let mut buffer = vec![0; 1 << 15];
    let deadline = Instant::now() + PATIENCE;
    loop {
        match netlink.recv(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return buffer;
            }
            Err(RecvError::WouldBlock) => {
                let mut poll = libc::pollfd {
                    fd: netlink.as_raw_fd(),
                    events: libc::POLLIN,
                    revents: 0,
                };
                let left = deadline.saturating_duration_since(Instant::now());
                // SAFETY: one pollfd, which lives across the call.
                let ready =
                    unsafe { libc::poll(&raw mut poll, 1, left.as_millis() as libc::c_int) };
                assert_eq!(ready, 1, "nothing came from the kernel");
            }
            Err(error) => panic!("netlink: {error:?}"),
        }
    }
}

/// Asks, and receives all of the answer: its datagrams, one behind the other.
fn ask(netlink: &Netlink, request: &[u8]) -> Vec<u8> {
    netlink.send(request).expect("a request is taken");
    let mut answer = Vec::new();
    loop {
        answer.extend(receive(netlink));
        let ends = |body: Body| matches!(body, Body::Done(_) | Body::Error(_));
        let messages = || Messages::new(&answer).map(|message| message.expect("the kernel's"));
        let is_dump = request[6..8] == (0x301_u16).to_ne_bytes();
        if !is_dump || messages().any(|message| ends(message.body)) {
            return answer;
        }
    }
}

/// A dump of this.
fn dump(netlink: &Netlink, proto: Proto, family: Option<Family>) -> Vec<u8> {
    let coverage = Coverage {
        proto,
        family,
        groups: EVERY,
    };
    ask(netlink, &sockwatch::wire::request::dump(coverage, 1))
}

/// A socket as the API tells of it.
fn ends(socket: &Sock) -> Ends {
    let ident = socket.ident();
    Ends {
        proto: if ident.proto == "tcp" {
            Proto::Tcp
        } else {
            Proto::Udp
        },
        family: family(ident.domain),
        mapped: ident.domain == Domain::Mapped,
        local: ident.local,
        remote: ident.remote,
        ifindex: 0,
        cookie: socket.cookie,
    }
}

fn family(domain: Domain) -> Family {
    match domain {
        Domain::V4 => Family::V4,
        Domain::V6 | Domain::Mapped => Family::V6,
    }
}

/// The part of a fixture's name that tells the domain.
fn word(domain: Domain) -> &'static str {
    match domain {
        Domain::V4 => "v4",
        Domain::V6 => "v6",
        Domain::Mapped => "mapped",
    }
}

/// A port of the loopback address where nobody listens.
fn nobody(domain: Domain) -> SocketAddr {
    SocketAddr::new(domain.loopback(), 9)
}
