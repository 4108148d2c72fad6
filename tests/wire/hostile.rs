//! Bytes that no kernel sent. The reader is safe code, so a read beyond its
//! slice is a panic; what is checked besides is that it ends, and that nothing
//! but a message's own bytes decides what is read of it.

use std::hint::black_box;

use proptest::prelude::*;
use sockwatch::model::Proto;
use sockwatch::wire::sock_diag::{self, Body, Malformed, Messages};

use crate::fixture::{self, Fixture};

/// Reads a datagram in every way there is.
fn exhaust(datagram: &[u8]) {
    // A message is never shorter than its header, and a malformed one is the last.
    let most = datagram.len() / 16 + 1;
    let mut count = 0;
    let mut ended = false;
    for message in Messages::new(datagram) {
        count += 1;
        assert!(count <= most, "more messages than fit");
        assert!(!ended, "read on after a malformed one");
        ended = message.is_err();
        if let Ok(Body::Socket(payload)) = message.map(|message| message.body) {
            let (inner, outer) = (payload.as_ptr_range(), datagram.as_ptr_range());
            assert!(outer.start <= inner.start && inner.end <= outer.end);
            for proto in Proto::ALL {
                black_box(sock_diag::row(payload, proto).is_ok());
            }
            black_box(sock_diag::notice(payload).is_ok());
        }
    }
}

/// A fixture's messages, each a datagram of its own: a change to one byte can
/// only matter within its message.
fn single_messages() -> Vec<(String, Vec<u8>)> {
    let mut single = Vec::new();
    for fixture in fixture::all() {
        let mut rest = &fixture.bytes[..];
        while let Some(length) = rest.first_chunk::<4>() {
            let length = u32::from_ne_bytes(*length) as usize;
            single.push((fixture.name.clone(), rest[..length].to_vec()));
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        }
    }
    single
}

#[test]
fn a_truncated_datagram_keeps_its_whole_messages_and_ends() {
    for Fixture { name, bytes, .. } in fixture::all() {
        let whole: Vec<_> = Messages::new(&bytes).flatten().collect();
        for length in 0..bytes.len() {
            // A copy of exactly that length: no byte beyond it to be read.
            let cut = bytes[..length].to_vec();
            exhaust(&cut);
            let read: Vec<_> = Messages::new(&cut).collect();
            let good = read.iter().flatten().count();
            assert!(
                read.iter().flatten().eq(&whole[..good]),
                "{name} cut to {length} bytes reads other messages"
            );
            assert!(
                good < whole.len(),
                "{name} cut to {length} bytes is still whole"
            );
        }
    }
}

#[test]
fn a_truncated_payload_is_short_or_says_the_same() {
    for fixture in fixture::all() {
        for payload in fixture.sockets() {
            for length in 0..payload.len() {
                let cut = payload[..length].to_vec();
                let row = sock_diag::row(&cut, Proto::Tcp);
                let notice = sock_diag::notice(&cut);
                if length < 72 {
                    assert_eq!(row, Err(Malformed::Short));
                    assert_eq!(notice, Err(Malformed::Short));
                } else {
                    let whole = sock_diag::row(payload, Proto::Tcp).expect("a kernel's row");
                    let row = row.expect("the fixed part is whole");
                    // What attributes decide may differ; what lies before them not.
                    assert_eq!(
                        (row.cookie, row.id, row.state),
                        (whole.cookie, whole.id, whole.state)
                    );
                }
            }
        }
    }
}

#[test]
fn every_change_of_one_byte_is_survived() {
    for (_, message) in single_messages() {
        let mut changed = message.clone();
        for at in 0..message.len() {
            for change in 1..=u8::MAX {
                changed[at] = message[at] ^ change;
                exhaust(&changed);
            }
            changed[at] = message[at];
        }
    }
}

#[test]
fn what_follows_a_message_does_not_change_it() {
    for (name, message) in single_messages() {
        let alone: Vec<_> = Messages::new(&message).collect();
        for poison in [0x00, 0xff, 0x02, 0x10] {
            let mut longer = message.clone();
            longer.resize(message.len().next_multiple_of(4) + 300, poison);
            let first = Messages::new(&longer).next();
            assert_eq!(first, alone.first().copied(), "{name}");
        }
    }
}

/// Bytes that look like netlink: random messages with lengths that mostly fit.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let message = (
        prop_oneof![Just(2_u16), Just(3), Just(18), Just(20), any::<u16>()],
        any::<[u8; 10]>(),
        payload(),
        prop_oneof![9 => Just(0_i32), 1 => -20..20_i32],
    )
        .prop_map(|(kind, rest, payload, error)| {
            let length = (16 + payload.len() as i32 + error).max(0) as u32;
            let mut message = length.to_ne_bytes().to_vec();
            message.extend(kind.to_ne_bytes());
            message.extend(rest);
            message.extend(payload);
            message.resize(message.len().next_multiple_of(4), 0);
            message
        });
    prop::collection::vec(message, 0..6).prop_map(|messages| messages.concat())
}

/// Bytes that look like inet_diag_msg and attributes.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let attribute = (
        0_u16..40,
        any::<u16>(),
        prop::collection::vec(any::<u8>(), 0..300),
        any::<bool>(),
    )
        .prop_map(|(kind, length, value, honest)| {
            let length = if honest {
                value.len() as u16 + 4
            } else {
                length
            };
            let mut attribute = length.to_ne_bytes().to_vec();
            attribute.extend(kind.to_ne_bytes());
            attribute.extend(value);
            attribute.resize(attribute.len().next_multiple_of(4), 0);
            attribute
        });
    let head = (
        prop_oneof![Just(2_u8), Just(10), any::<u8>()],
        0_u8..15,
        prop::collection::vec(any::<u8>(), 70),
    );
    (head, prop::collection::vec(attribute, 0..5)).prop_map(
        |((family, state, rest), attributes)| {
            [vec![family, state], rest, attributes.concat()].concat()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        exhaust(&bytes);
        prop_assert!(sock_diag::row(&bytes, Proto::Udp).is_ok() <= (bytes.len() >= 72));
        prop_assert!(sock_diag::notice(&bytes).is_ok() <= (bytes.len() >= 72));
    }

    #[test]
    fn messages_of_any_kind_are_survived(bytes in messages()) {
        exhaust(&bytes);
    }

    #[test]
    fn any_payload_is_read_or_refused(bytes in payload()) {
        let known = |kind: u8| matches!(i32::from(kind), libc::AF_INET | libc::AF_INET6);
        let row = sock_diag::row(&bytes, Proto::Tcp);
        prop_assert_eq!(row.is_ok(), known(bytes[0]) && (1..=13).contains(&bytes[1]));
        if let Ok(notice) = sock_diag::notice(&bytes) {
            prop_assert!(known(bytes[0]));
            prop_assert_eq!(notice.tcp.is_some(), notice.id.proto == Proto::Tcp);
        }
    }
}
