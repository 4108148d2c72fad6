use proptest::prelude::*;

use super::super::build::{self, ACK, FIN};
use super::*;

fn end(ip: &str, port: u16) -> Endpoint {
    Endpoint {
        ip: ip.parse().unwrap(),
        port,
    }
}

fn ends() -> [(Endpoint, Endpoint); 2] {
    [
        (end("192.0.2.1", 4000), end("198.51.100.7", 53)),
        (end("2001:db8::1", 4000), end("2001:db8::2", 53)),
    ]
}

#[test]
fn datagrams_and_segments_are_read_with_options() {
    for (from, to) in ends() {
        let bytes = build::udp(from, to, b"payload");
        let packet = read(&bytes).unwrap();
        assert_eq!((packet.source, packet.destination), (from, to));
        let body = |payload, whole| Body::Udp { payload, whole };
        assert_eq!(packet.body, body(b"payload", true));
        let padded = [&bytes[..], &[0; 20]].concat();
        assert_eq!(read(&padded), Ok(packet));
        let cut = &bytes[..bytes.len() - 3];
        assert_eq!(read(cut).unwrap().body, body(b"payl", false));
        let bytes = build::tcp(from, to, (7, 9), FIN | ACK, b"bytes");
        let packet = read(&bytes).unwrap();
        assert_eq!((packet.source, packet.destination), (from, to));
        let expected = Segment {
            seq: 7,
            ack_seq: 9,
            ack: true,
            syn: false,
            fin: true,
            rst: false,
            payload: b"bytes",
        };
        assert_eq!(packet.body, Body::Tcp(expected));
    }
}

#[test]
fn a_length_of_zero_is_what_is_there() {
    for ((from, to), length) in ends().into_iter().zip([2, 4]) {
        let mut bytes = build::tcp(from, to, (7, 9), ACK, b"bytes");
        bytes[length..length + 2].fill(0);
        let Ok(Body::Tcp(segment)) = read(&bytes).map(|packet| packet.body) else {
            panic!("a segment");
        };
        assert_eq!(segment.payload, b"bytes");
    }
}

#[test]
fn a_first_fragment_is_not_whole_and_others_are_nothing() {
    let (from, to) = ends()[0];
    let mut bytes = build::udp(from, to, b"payload");
    bytes[6] = 0x20;
    let whole = |bytes: &[u8]| match read(bytes).map(|packet| packet.body) {
        Ok(Body::Udp { whole, .. }) => Ok(whole),
        Ok(Body::Tcp(_)) => panic!("UDP"),
        Err(unreadable) => Err(unreadable),
    };
    assert_eq!(whole(&bytes), Ok(false));
    bytes[7] = 1;
    assert_eq!(whole(&bytes), Err(Unreadable));
    let six = |offset: u8| {
        let udp = [0x0f, 0xa0, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4];
        let localhost = Ipv6Addr::LOCALHOST;
        let fragment = (FRAGMENT, vec![0, 0, 0, offset, 0, 0, 0, 1]);
        let options = (DESTINATION, [&[0, 1][..], &[0; 14]].concat());
        let authentication = (AUTHENTICATION, [&[0, 1][..], &[0; 10]].concat());
        build::ip6(
            localhost,
            localhost,
            &[options, authentication, fragment],
            UDP,
            &udp,
        )
    };
    assert_eq!(whole(&six(0)), Ok(true), "a lone fragment");
    assert_eq!(whole(&six(1)), Ok(false));
    assert_eq!(whole(&six(8)), Err(Unreadable));
}

proptest! {
    /// Any bytes, and any change to a good packet: no panic.
    #[test]
    fn nothing_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        six: bool,
        tcp: bool,
        at in 0usize..80,
        byte: u8,
        cut in 0usize..120,
    ) {
        if read(&bytes).is_ok() {
            prop_assert!(bytes.len() >= 28);
        }
        let (from, to) = ends()[usize::from(six)];
        let mut good = if tcp {
            build::tcp(from, to, (1, 2), ACK, &bytes)
        } else {
            build::udp(from, to, &bytes)
        };
        if let Some(changed) = good.get_mut(at) {
            *changed = byte;
        }
        if let Ok(packet) = read(&good[..cut.min(good.len())]) {
            let payload = match packet.body {
                Body::Udp { payload, .. } => payload,
                Body::Tcp(segment) => segment.payload,
            };
            let (inner, outer) = (payload.as_ptr_range(), good.as_ptr_range());
            prop_assert!(outer.start <= inner.start && inner.end <= outer.end);
        }
    }
}
