//! The byte order of the fixtures.
//!
//! sock_diag speaks in the byte order of its machine, and the fixtures come from
//! a little-endian one. On a big-endian machine each is turned, field by field as
//! the kernel's structures have them (linux/netlink.h, linux/inet_diag.h,
//! linux/tcp.h), into what the same kernel would have sent there. Addresses and
//! ports are in network byte order everywhere and stay as they are. So do the
//! bit-fields in bytes 6 and 7 of tcp_info and in INET_DIAG_SOCKOPT, which
//! compilers lay out the other way round there: nothing reads them.

use std::ops::Range;

use crate::fixture;

/// A byte order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// The fixtures' own.
    Little,
    /// The other.
    Big,
}

impl Order {
    /// Of the machine that this runs on.
    pub const HERE: Order = if cfg!(target_endian = "big") {
        Order::Big
    } else {
        Order::Little
    };

    fn word(self, bytes: &[u8]) -> usize {
        let two = bytes[..2].try_into().expect("two bytes");
        usize::from(match self {
            Order::Little => u16::from_le_bytes(two),
            Order::Big => u16::from_be_bytes(two),
        })
    }

    fn long(self, bytes: &[u8]) -> usize {
        let four = bytes[..4].try_into().expect("four bytes");
        let long = match self {
            Order::Little => u32::from_le_bytes(four),
            Order::Big => u32::from_be_bytes(four),
        };
        usize::try_from(long).expect("a length")
    }
}

/// `struct nlmsghdr`.
const HEADER: &[(usize, usize)] = &[(1, 4), (2, 2), (2, 4)];
/// `struct inet_diag_msg`: family, state, timer, retransmissions; ports and
/// addresses; interface and both words of the cookie; timer, queues, uid, inode.
const DIAG_MSG: &[(usize, usize)] = &[(4, 1), (36, 1), (3, 4), (5, 4)];
/// `struct tcp_info` of Linux 6.18.
const TCP_INFO: &[(usize, usize)] = &[
    (8, 1),
    (24, 4),
    (4, 8),
    (6, 4),
    (4, 8),
    (2, 4),
    (2, 8),
    (6, 4),
    (2, 2),
    (8, 4),
    (2, 2),
];

/// How an attribute's value is laid out, of those that the fixtures have.
fn layout(attribute: usize) -> &'static [(usize, usize)] {
    match attribute {
        2 => TCP_INFO,
        // SHUTDOWN, PROTOCOL, SKV6ONLY, SOCKOPT.
        8 | 10 | 11 => &[(1, 1)],
        22 => &[(2, 1)],
        // MARK, CGROUP_ID.
        15 => &[(1, 4)],
        21 => &[(1, 8)],
        _ => panic!("the layout of attribute {attribute} is not written down here"),
    }
}

/// Turns the fields of one structure: so many of so many bytes, in sequence.
fn turn(bytes: &mut [u8], layout: &[(usize, usize)]) {
    let mut rest = bytes;
    for &(count, width) in layout {
        let (fields, behind) = rest.split_at_mut(count * width);
        for field in fields.chunks_exact_mut(width) {
            field.reverse();
        }
        rest = behind;
    }
    assert!(rest.is_empty(), "{} bytes are not laid out", rest.len());
}

/// The parts of a datagram or of a list of attributes, each with its length in
/// front and padding behind.
fn parts(bytes: &[u8], length: impl Fn(&[u8]) -> usize) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + length(&bytes[at..]);
        parts.push(at..end);
        at = end.next_multiple_of(4);
    }
    parts
}

/// A datagram of a kernel with byte order `from` as one with the other would
/// have sent it.
pub fn turned(datagram: &[u8], from: Order) -> Vec<u8> {
    let mut turned = datagram.to_vec();
    for range in parts(datagram, |message| from.long(message)) {
        let kind = from.word(&datagram[range.start + 4..]);
        let (header, payload) = turned[range].split_at_mut(16);
        turn(header, HEADER);
        match kind {
            // NLMSG_ERROR, NLMSG_DONE: the code; behind it what was asked.
            2 | 3 => payload[..4].reverse(),
            _ => turn_socket(payload, from),
        }
    }
    turned
}

fn turn_socket(payload: &mut [u8], from: Order) {
    let (fixed, attributes) = payload.split_at_mut(72);
    turn(fixed, DIAG_MSG);
    for range in parts(attributes, |attribute| from.word(attribute)) {
        let attribute = &mut attributes[range];
        let kind = from.word(&attribute[2..]);
        let (head, value) = attribute.split_at_mut(4);
        turn(head, &[(2, 2)]);
        turn(value, layout(kind));
    }
}

#[test]
fn turned_twice_is_as_it_was() {
    let other = match Order::HERE {
        Order::Little => Order::Big,
        Order::Big => Order::Little,
    };
    for fixture in fixture::all() {
        let turned_once = turned(&fixture.bytes, Order::HERE);
        assert_ne!(turned_once, fixture.bytes, "{}", fixture.name);
        assert_eq!(turned(&turned_once, other), fixture.bytes);
    }
}
