//! A resolver without a cache, which asks one question and takes the answer: what
//! any program does that was not told a name before, without the C library's
//! own ideas of when to ask and whom.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

use crate::daemon::PATIENCE;

/// How a question travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    Udp,
    Tcp,
}

/// What is asked for (RFC 1035, RFC 3596).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    A = 1,
    Aaaa = 28,
}

/// The addresses that a name has, in the order of the answer. A truncated answer
/// is asked for again over TCP.
pub fn ask(server: SocketAddr, by: By, name: &str, kind: Kind) -> Vec<IpAddr> {
    let query = question(name, kind);
    let answer = match by {
        By::Udp => udp(server, &query),
        By::Tcp => tcp(server, &query),
    };
    assert_eq!(answer[..2], query[..2], "the id of the question");
    if answer[2] & 0x02 != 0 {
        assert_eq!(by, By::Udp, "truncated over TCP");
        return ask(server, By::Tcp, name, kind);
    }
    addresses(&answer, query.len(), kind)
}

/// A query with one question, for a recursive answer.
pub fn question(name: &str, kind: Kind) -> Vec<u8> {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let mut query = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes().to_vec();
    query.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).expect("a label has 63 bytes at most"));
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, kind as u8, 0, 1]);
    query
}

fn udp(server: SocketAddr, query: &[u8]) -> Vec<u8> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).expect("a port");
    socket.connect(server).expect("UDP asks nobody");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.send(query).expect("lo takes a datagram");
    let mut answer = vec![0; 4096];
    let length = socket.recv(&mut answer).expect("an answer");
    answer.truncate(length);
    answer
}

fn tcp(server: SocketAddr, query: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).expect("a server that listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let length = u16::try_from(query.len()).expect("short");
    let message = [&length.to_be_bytes(), query].concat();
    stream.write_all(&message).expect("the server reads");
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("an answer");
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).expect("all of it");
    answer
}

/// The addresses among the answer's records; the question ends at `at`.
fn addresses(answer: &[u8], mut at: usize, kind: Kind) -> Vec<IpAddr> {
    let number = |at: usize| u16::from_be_bytes([answer[at], answer[at + 1]]);
    let mut found = Vec::new();
    for _ in 0..number(6) {
        // A name ends with a pointer or with the root.
        while answer[at] & 0xc0 != 0xc0 && answer[at] != 0 {
            at += 1 + usize::from(answer[at]);
        }
        at += if answer[at] == 0 { 1 } else { 2 };
        let (of, length) = (number(at), usize::from(number(at + 8)));
        let data = &answer[at + 10..at + 10 + length];
        at += 10 + length;
        if of == kind as u16 {
            found.push(match kind {
                Kind::A => Ipv4Addr::from(<[u8; 4]>::try_from(data).expect("four bytes")).into(),
                Kind::Aaaa => Ipv6Addr::from(<[u8; 16]>::try_from(data).expect("sixteen")).into(),
            });
        }
    }
    found
}
