//! dnsmasq as a user has it, in the namespace of a test, and a resolver small
//! enough to know what it sends.
//!
//! The C library's resolver would do more than a test asks for (search lists,
//! both families, a cache); this one asks once for one type, and again over TCP
//! when the answer was truncated.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::daemon::{PATIENCE, Scratch};
use crate::{netns, proc_net};

/// A running dnsmasq; ends with its value.
pub struct Dnsmasq {
    child: Child,
    /// Where it listens, over UDP and TCP.
    pub address: SocketAddr,
    _scratch: Scratch,
}

impl Dnsmasq {
    /// Starts it on port 53 of an address of this namespace, with these lines as
    /// its configuration (dnsmasq(8)) and these as a hosts file, and waits until it
    /// listens. `None`, with a visible word, where it is not installed.
    pub fn start(ip: &str, conf: &[&str], hosts: &str) -> Option<Dnsmasq> {
        let address = SocketAddr::new(ip.parse().expect("an address"), 53);
        let scratch = Scratch::new();
        let hosts = scratch.write("hosts", hosts);
        let conf = [
            "no-resolv",
            "no-hosts",
            "bind-interfaces",
            &format!("listen-address={ip}"),
            &format!("addn-hosts={}", hosts.display()),
        ]
        .into_iter()
        .chain(conf.iter().copied())
        .map(|line| format!("{line}\n"))
        .collect::<String>();
        let conf = scratch.write("dnsmasq.conf", &conf);
        // Where Debian has it, which is not in every user's PATH.
        let debian = Path::new("/usr/sbin/dnsmasq");
        let mut command = Command::new(if debian.exists() {
            debian
        } else {
            Path::new("dnsmasq")
        });
        // No daemon: it stays who and where it is.
        command
            .arg("--no-daemon")
            .arg(format!("--conf-file={}", conf.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: it only makes a system call.
        unsafe { command.pre_exec(netns::die_with_parent) };
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                netns::skip(&format!("no dnsmasq (dnsmasq-base): {error}"));
                return None;
            }
        };
        let mut dnsmasq = Dnsmasq {
            child,
            address,
            _scratch: scratch,
        };
        dnsmasq.wait();
        Some(dnsmasq)
    }

    fn wait(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let listens = |proto: &str| {
            proc_net::rows()
                .iter()
                .any(|row| row.proto == proto && row.local == self.address)
        };
        while !(listens("udp") && listens("tcp")) {
            let ended = self.child.try_wait().expect("one's own child");
            assert_eq!(ended, None, "dnsmasq ended by itself");
            assert!(Instant::now() < deadline, "dnsmasq does not listen");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A resolver that asks it.
    pub fn resolver(&self) -> Resolver {
        Resolver {
            server: self.address,
        }
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        // It has ended already where a test failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Type A.
pub const A: u16 = 1;
/// Type AAAA.
pub const AAAA: u16 = 28;

/// Asks one server.
#[derive(Clone, Copy, Debug)]
pub struct Resolver {
    /// Which.
    pub server: SocketAddr,
}

impl Resolver {
    /// The addresses of a name: over UDP, and over TCP when that was truncated.
    pub fn resolve(&self, name: &str, kind: u16) -> Vec<IpAddr> {
        let query = query(fresh_id(), name, kind);
        let answer = self.udp(&query);
        if answer[2] & 2 == 0 {
            addresses(&answer)
        } else {
            addresses(&self.tcp(&query))
        }
    }

    /// Only over TCP.
    pub fn resolve_tcp(&self, name: &str, kind: u16) -> Vec<IpAddr> {
        addresses(&self.tcp(&query(fresh_id(), name, kind)))
    }

    /// Sends a query and waits for its answer.
    pub fn udp(&self, query: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind((unspecified(self.server), 0)).expect("a free port");
        socket.connect(self.server).expect("a route");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time");
        socket.send(query).expect("lo takes a datagram");
        let mut answer = vec![0; 4096];
        loop {
            let length = socket.recv(&mut answer).expect("an answer");
            if answer[..2] == query[..2] {
                answer.truncate(length);
                return answer;
            }
        }
    }

    /// The same over TCP.
    pub fn tcp(&self, query: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.server).expect("a server that listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        stream.write_all(&framed(query)).expect("a connection");
        read_framed(&mut stream)
    }
}

/// A message with its length before it.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("a short message");
    [&length.to_be_bytes(), message].concat()
}

/// Reads such a message.
pub fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("a length");
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).expect("a message");
    message
}

fn unspecified(of: SocketAddr) -> IpAddr {
    match of {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// An id that no other query of this process has.
pub fn fresh_id() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A query of class IN, recursion desired, without EDNS.
pub fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut query = Vec::new();
    for word in [id, 0x0100, 1, 0, 0, 0] {
        query.extend(word.to_be_bytes());
    }
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).expect("a label"));
        query.extend(label.bytes());
    }
    query.push(0);
    query.extend(kind.to_be_bytes());
    query.extend([0, 1]);
    query
}

/// An answer to a query: this address, for 60 s.
pub fn answer(query: &[u8], ip: Ipv4Addr) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[7] = 1;
    // The question's name, by a pointer to it.
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    answer.extend(ip.octets());
    answer
}

/// The address records of an answer section, whatever their names.
fn addresses(answer: &[u8]) -> Vec<IpAddr> {
    let word = |at: usize| u16::from_be_bytes([answer[at], answer[at + 1]]);
    let mut at = skip_name(answer, 12) + 4;
    let mut found = Vec::new();
    for _ in 0..word(6) {
        at = skip_name(answer, at);
        let (kind, length) = (word(at), usize::from(word(at + 8)));
        let data = &answer[at + 10..at + 10 + length];
        at += 10 + length;
        match kind {
            A => found.push(IpAddr::from(<[u8; 4]>::try_from(data).expect("4 bytes"))),
            AAAA => found.push(IpAddr::from(<[u8; 16]>::try_from(data).expect("16 bytes"))),
            _ => {}
        }
    }
    found
}

fn skip_name(bytes: &[u8], mut at: usize) -> usize {
    loop {
        match bytes[at] {
            0 => return at + 1,
            pointer if pointer >= 0xc0 => return at + 2,
            length => at += 1 + usize::from(length),
        }
    }
}
