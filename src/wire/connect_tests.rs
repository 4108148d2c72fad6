use proptest::prelude::*;

use super::*;

/// A record with a value of its own in every field.
fn sample() -> [u8; LENGTH] {
    let mut bytes = [0_u8; LENGTH];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &1_000_000_007_u64.to_ne_bytes());
    put(8, &4097_u64.to_ne_bytes());
    put(16, &9_u64.to_ne_bytes());
    put(24, &4242_u64.to_ne_bytes());
    put(32, &4_026_531_833_u32.to_ne_bytes());
    put(36, &812_u32.to_ne_bytes());
    put(40, &813_u32.to_ne_bytes());
    put(44, &1000_u32.to_ne_bytes());
    put(48, b"curl\0garbage\0\0\0\0");
    put(64, &[203, 0, 113, 7]);
    put(80, &443_u16.to_be_bytes());
    put(82, &[3, 2]);
    bytes
}

/// The sample as an AF_INET6 socket's, with this destination.
fn sample_v6(address: &str) -> [u8; LENGTH] {
    let mut bytes = sample();
    let address: Ipv6Addr = address.parse().unwrap();
    bytes[64..80].copy_from_slice(&address.octets());
    bytes[83] = 10;
    bytes
}

#[test]
fn every_field_is_read_from_its_place() {
    let read = record(&sample()).unwrap();
    assert_eq!(
        read,
        Record {
            connect: Connect {
                origin: Origin::Cgroup,
                cookie: Cookie(4097),
                netns: Some(Netns(4_026_531_833)),
                remote: Endpoint::new(Ipv4Addr::new(203, 0, 113, 7), 443),
                family: Family::V4,
                v4_mapped: false,
                mptcp: false,
                caller: Caller {
                    pid: 812,
                    tid: 813,
                    comm: Comm(*b"curl\0garbage\0\0\0\0"),
                },
                uid: 1000,
                cgroup_id: 4242,
                at_ns: 1_000_000_007,
            },
            netns_cookie: Some(9),
        }
    );
    assert_eq!(read.connect.caller.comm.to_string(), "curl");
}

#[test]
fn an_ipv6_address_and_a_mapped_one() {
    let plain = record(&sample_v6("2001:db8::1")).unwrap().connect;
    assert_eq!(plain.remote.to_string(), "[2001:db8::1]:443");
    assert_eq!((plain.family, plain.v4_mapped), (Family::V6, false));

    let mapped = record(&sample_v6("::ffff:10.0.0.9")).unwrap().connect;
    assert_eq!(mapped.remote.to_string(), "10.0.0.9:443");
    assert_eq!((mapped.family, mapped.v4_mapped), (Family::V6, true));
}

#[test]
fn each_hook_has_its_number() {
    for (number, origin) in [(1, Origin::Lsm), (2, Origin::Fentry), (3, Origin::Cgroup)] {
        let mut bytes = sample();
        bytes[82] = number;
        assert_eq!(record(&bytes).unwrap().connect.origin, origin);
    }
}

#[test]
fn what_a_hook_could_not_tell_is_none() {
    let mut bytes = sample();
    bytes[16..24].fill(0);
    bytes[32..36].fill(0);
    let read = record(&bytes).unwrap();
    assert_eq!((read.connect.netns, read.netns_cookie), (None, None));
    assert_eq!(read.connect.key(), None);
}

#[test]
fn what_the_program_does_not_write_is_refused() {
    let changed = |at: usize, value: u8| {
        let mut bytes = sample();
        bytes[at] = value;
        record(&bytes)
    };
    for hook in [0, 4, 255] {
        assert_eq!(changed(82, hook), Err(Malformed::Hook));
    }
    for family in [0, 1, 3, 16, 255] {
        assert_eq!(changed(83, family), Err(Malformed::Family));
    }
    let mut bytes = sample();
    bytes[8..16].fill(0);
    assert_eq!(record(&bytes), Err(Malformed::Cookie));
    for length in (0..LENGTH).chain([LENGTH + 1, LENGTH + 8]) {
        let mut bytes = sample().to_vec();
        bytes.resize(length, 0);
        assert_eq!(record(&bytes), Err(Malformed::Length), "{length} bytes");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..=LENGTH + 8)) {
        if let Ok(read) = record(&bytes) {
            prop_assert_eq!(bytes.len(), LENGTH);
            prop_assert_ne!(read.connect.cookie, Cookie(0));
            prop_assert_ne!(read.connect.origin, Origin::SockDiag);
        }
    }

    #[test]
    fn a_record_of_the_right_shape_is_read(
        mut bytes in prop::collection::vec(any::<u8>(), LENGTH),
        hook in 1_u8..=3,
        v6 in any::<bool>(),
        cookie in 1_u64..,
    ) {
        bytes[8..16].copy_from_slice(&cookie.to_ne_bytes());
        bytes[82] = hook;
        bytes[83] = if v6 { 10 } else { 2 };
        let read = record(&bytes).expect("nothing else is refused").connect;
        prop_assert_eq!(read.cookie, Cookie(cookie));
        // A mapped address is the only IPv4 one that an AF_INET6 socket has.
        prop_assert_eq!(read.v4_mapped, v6 && read.remote.ip.is_ipv4());
        prop_assert!(read.caller.comm.bytes().len() <= 16);
        prop_assert!(!read.caller.comm.bytes().contains(&0));
    }
}
