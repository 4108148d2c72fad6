//! Two readers, written by different people, read the same row alike.

use proptest::prelude::*;
use sockwatch::wire::sock_diag;

use crate::fixture::{self, Fixture};
use crate::lines::Holds;
use crate::peer;

#[test]
fn with_netlink_packet_sock_diag_on_every_row() {
    let mut rows = 0;
    for fixture in fixture::rows() {
        let Holds::Rows(proto) = fixture.holds() else {
            continue;
        };
        for payload in fixture.sockets() {
            assert_eq!(
                peer::differences(payload, proto),
                [""; 0],
                "{}",
                fixture.name
            );
            rows += 1;
        }
    }
    assert!(rows > 40, "only {rows} rows");
}

/// The crate refuses a message over one odd attribute and takes states that do
/// not exist; where both read, both read the same.
#[test]
fn on_every_row_with_one_bit_flipped() {
    let mut both = 0_u32;
    for fixture in fixture::rows() {
        let Holds::Rows(proto) = fixture.holds() else {
            continue;
        };
        for payload in fixture.sockets() {
            let mut flipped = payload.to_vec();
            for bit in 0..8 * payload.len() {
                flipped[bit / 8] ^= 1 << (bit % 8);
                if sock_diag::row(&flipped, proto).is_ok() && peer::read(&flipped).is_some() {
                    assert_eq!(
                        peer::differences(&flipped, proto),
                        [""; 0],
                        "{} bit {bit}",
                        fixture.name
                    );
                    both += 1;
                }
                flipped[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
    assert!(both > 10_000, "only {both} were read by both");
}

proptest! {
    /// And on rows that no kernel sent: whatever the fixed part says.
    #[test]
    fn on_any_addresses_and_numbers(
        which in any::<prop::sample::Index>(),
        ipv6 in any::<bool>(),
        head in prop::array::uniform32(any::<u8>()),
        tail in prop::array::uniform32(any::<u8>()),
        state in 1_u8..=13,
    ) {
        let fixtures = fixture::rows();
        let rows: Vec<(&Fixture, &[u8])> = fixtures
            .iter()
            .flat_map(|fixture| fixture.sockets().into_iter().map(move |payload| (fixture, payload)))
            .collect();
        let (fixture, payload) = rows[which.index(rows.len())];
        let mut payload = payload.to_vec();
        payload[8..40].copy_from_slice(&head);
        payload[40..72].copy_from_slice(&tail);
        payload[0] = if ipv6 { libc::AF_INET6 as u8 } else { libc::AF_INET as u8 };
        payload[1] = state;
        let Holds::Rows(proto) = fixture.holds() else { unreachable!("only rows were asked for") };
        prop_assert!(sock_diag::row(&payload, proto).is_ok());
        prop_assert_eq!(peer::differences(&payload, proto), Vec::<String>::new());
    }
}
