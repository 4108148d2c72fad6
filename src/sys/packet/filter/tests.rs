//! The program, run by the kernel: attached to a Unix datagram socket, it sees
//! what is sent to that as it would see a packet, and needs no privilege.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixDatagram;

use super::*;

/// Which of these packets pass.
fn passes(packet: &[u8]) -> bool {
    let (send, receive) = UnixDatagram::pair().unwrap();
    receive.set_nonblocking(true).unwrap();
    attach(&receive, &program()).unwrap();
    send.send(packet).unwrap();
    receive.recv(&mut [0; 2048]).is_ok()
}

fn ports(source: u16, destination: u16) -> Vec<u8> {
    let mut bytes = source.to_be_bytes().to_vec();
    bytes.extend(destination.to_be_bytes());
    bytes.extend([0; 16]);
    bytes
}

fn v4(protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x46, 0, 0, 44, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    bytes.extend(Ipv4Addr::LOCALHOST.octets());
    bytes.extend(Ipv4Addr::LOCALHOST.octets());
    bytes.extend([1, 1, 1, 0]);
    bytes.extend(body);
    bytes
}

/// Behind these extension headers, each its type and the number of its units.
fn v6(extensions: &[(u8, u8)], protocol: u8, body: &[u8]) -> Vec<u8> {
    let first = extensions.first().map_or(protocol, |(kind, _)| *kind);
    let mut bytes = vec![0x60, 0, 0, 0, 0, 0, first, 64];
    bytes.extend(Ipv6Addr::LOCALHOST.octets());
    bytes.extend(Ipv6Addr::LOCALHOST.octets());
    for (at, &(kind, units)) in extensions.iter().enumerate() {
        let next = extensions.get(at + 1).map_or(protocol, |(kind, _)| *kind);
        let length = match kind {
            44 => 8,
            51 => (usize::from(units) + 2) * 4,
            _ => (usize::from(units) + 1) * 8,
        };
        let mut header = vec![0; length];
        header[0] = next;
        header[1] = if kind == 44 { 0 } else { units };
        bytes.extend(header);
    }
    bytes.extend(body);
    bytes
}

#[test]
fn port_53_passes_and_nothing_else() {
    for protocol in [6, 17] {
        for (source, destination, expected) in [
            (53, 4000, true),
            (4000, 53, true),
            (53, 53, true),
            (4000, 443, false),
            (5353, 5353, false),
        ] {
            let body = ports(source, destination);
            assert_eq!(
                passes(&v4(protocol, &body)),
                expected,
                "{protocol} {source}"
            );
            assert_eq!(
                passes(&v6(&[], protocol, &body)),
                expected,
                "{protocol} {source}"
            );
        }
    }
    assert!(!passes(&v4(1, &ports(53, 53))));
    assert!(!passes(&v6(&[], 58, &ports(53, 53))));
    assert!(!passes(&[]));
    assert!(!passes(&[0; 64]));
    assert!(!passes(&v4(17, &[])));
    assert!(!passes(&v6(&[(0, 0)], 17, &[])));
}

#[test]
fn only_first_fragments_pass() {
    let mut packet = v4(17, &ports(53, 4000));
    packet[6] = 0x20;
    assert!(passes(&packet));
    packet[7] = 1;
    assert!(!passes(&packet));
    let mut packet = v6(&[(44, 0)], 17, &ports(53, 4000));
    assert!(passes(&packet));
    packet[43] = 1;
    assert!(passes(&packet), "more fragments follow the first");
    packet[43] = 8;
    assert!(!passes(&packet));
}

#[test]
fn extension_headers_are_skipped() {
    let kinds = [0, 43, 44, 51, 60];
    for first in kinds {
        for second in kinds {
            for units in [0, 1, 7] {
                let extensions = [(first, units), (second, 3)];
                let packet = |port| v6(&extensions, 17, &ports(4000, port));
                assert!(passes(&packet(53)), "{extensions:?}");
                assert!(!passes(&packet(54)), "{extensions:?}");
            }
        }
    }
    let all = kinds.map(|kind| (kind, 1));
    assert_eq!(all.len(), EXTENSIONS);
    assert!(passes(&v6(&all, 6, &ports(53, 4000))));
    let more: Vec<_> = all.into_iter().chain([(60, 0)]).collect();
    assert!(!passes(&v6(&more, 6, &ports(53, 4000))));
}
