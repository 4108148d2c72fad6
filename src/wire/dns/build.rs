//! Messages and packets for tests, written out by hand so that the readers are
//! held against something else than themselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::Endpoint;

pub(crate) const A: u16 = 1;
pub(crate) const CNAME: u16 = 5;
pub(crate) const AAAA: u16 = 28;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// A name as it is written; `.` alone is the root.
pub(crate) fn name(text: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        wire.push(u8::try_from(label.len()).unwrap());
        wire.extend(label.bytes());
    }
    wire.push(0);
    wire
}

/// The header and the question; `flags` are bytes 2 and 3.
pub(crate) fn head(id: u16, flags: u16, question: &str, kind: u16, answers: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [id, flags, 1, answers, 0, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(name(question));
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// A query, recursion desired.
pub(crate) fn query(id: u16, question: &str, kind: u16) -> Vec<u8> {
    head(id, 0x0100, question, kind, 0)
}

/// One resource record of class IN.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub owner: Vec<u8>,
    pub kind: u16,
    pub ttl: u32,
    pub data: Vec<u8>,
}

/// An address record.
pub(crate) fn address(owner: &str, ttl: u32, ip: &str) -> Record {
    let (kind, data) = match ip.parse().unwrap() {
        IpAddr::V4(ip) => (A, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AAAA, ip.octets().to_vec()),
    };
    Record {
        owner: name(owner),
        kind,
        ttl,
        data,
    }
}

/// A CNAME record.
pub(crate) fn cname(owner: &str, ttl: u32, target: &str) -> Record {
    Record {
        owner: name(owner),
        kind: CNAME,
        ttl,
        data: name(target),
    }
}

/// A response without an error.
pub(crate) fn response(id: u16, question: &str, kind: u16, records: &[Record]) -> Vec<u8> {
    let count = u16::try_from(records.len()).unwrap();
    let mut bytes = head(id, 0x8180, question, kind, count);
    for record in records {
        bytes.extend(&record.owner);
        bytes.extend(record.kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(record.ttl.to_be_bytes());
        bytes.extend(u16::try_from(record.data.len()).unwrap().to_be_bytes());
        bytes.extend(&record.data);
    }
    bytes
}

/// A UDP datagram in an IP packet.
pub(crate) fn udp(from: Endpoint, to: Endpoint, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = u16::try_from(8 + payload.len()).unwrap();
    for word in [from.port, to.port, length, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(payload);
    ip(from.ip, to.ip, 17, &bytes)
}

/// A TCP segment in an IP packet, with 4 bytes of options.
pub(crate) fn tcp(
    from: Endpoint,
    to: Endpoint,
    (seq, ack): (u32, u32),
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(from.port.to_be_bytes());
    bytes.extend(to.port.to_be_bytes());
    bytes.extend(seq.to_be_bytes());
    bytes.extend(ack.to_be_bytes());
    bytes.extend([6 << 4, flags, 0xff, 0xff, 0, 0, 0, 0, 1, 1, 1, 1]);
    bytes.extend(payload);
    ip(from.ip, to.ip, 6, &bytes)
}

fn ip(from: IpAddr, to: IpAddr, protocol: u8, body: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ip4(from, to, protocol, body),
        (IpAddr::V6(from), IpAddr::V6(to)) => ip6(from, to, &[], protocol, body),
        _ => panic!("two families"),
    }
}

/// An IPv4 packet with 4 bytes of options.
pub(crate) fn ip4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let total = u16::try_from(24 + body.len()).unwrap().to_be_bytes();
    let mut bytes = vec![
        0x46, 0, total[0], total[1], 0, 0, 0x40, 0, 64, protocol, 0, 0,
    ];
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend([1, 1, 1, 0]);
    bytes.extend(body);
    bytes
}

/// An IPv6 packet with these extension headers: each its type and its bytes,
/// whose first is set here.
pub(crate) fn ip6(
    from: Ipv6Addr,
    to: Ipv6Addr,
    extensions: &[(u8, Vec<u8>)],
    protocol: u8,
    body: &[u8],
) -> Vec<u8> {
    let behind: usize = extensions.iter().map(|(_, bytes)| bytes.len()).sum();
    let length = u16::try_from(behind + body.len()).unwrap().to_be_bytes();
    let kinds: Vec<u8> = extensions.iter().map(|(kind, _)| *kind).collect();
    let mut nexts = kinds.into_iter().chain([protocol]);
    let first = nexts.next().unwrap();
    let mut bytes = vec![0x60, 0, 0, 0, length[0], length[1], first, 64];
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    for ((_, extension), next) in extensions.iter().zip(nexts) {
        bytes.push(next);
        bytes.extend(&extension[1..]);
    }
    bytes.extend(body);
    bytes
}
