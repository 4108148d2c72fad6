//! The programs, run by the kernel: attached to a Unix datagram socket, they see
//! what is sent to that as they would see a notice.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixDatagram;

use proptest::prelude::*;

use super::*;
use crate::model::{Family, Notice, Proto, TcpState};
use crate::wire::sock_diag;

/// A socket that takes what a program takes.
struct Taker(UnixDatagram, UnixDatagram);

impl Taker {
    fn new(program: &[Instruction]) -> Taker {
        let (send, receive) = UnixDatagram::pair().unwrap();
        receive.set_nonblocking(true).unwrap();
        attach(&receive, program).unwrap();
        Taker(send, receive)
    }

    fn takes(&self, message: &[u8]) -> bool {
        self.0.send(message).unwrap();
        self.1.recv(&mut [0; 512]).is_ok()
    }
}

/// What a socket had when it ended.
#[derive(Clone, Copy, Debug)]
struct Ended {
    proto: u8,
    local: (IpAddr, u16),
    remote: (IpAddr, u16),
    family: i32,
    cookie: u64,
}

/// Its notice as the kernel writes it, without the tcp_info.
fn message(ended: &Ended) -> Vec<u8> {
    let mut bytes = 96_u32.to_ne_bytes().to_vec();
    bytes.extend([20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes[4..6].copy_from_slice(&20_u16.to_ne_bytes());
    bytes.extend([ended.family as u8, TcpState::Close as u8, 0, 0]);
    bytes.extend(ended.local.1.to_be_bytes());
    bytes.extend(ended.remote.1.to_be_bytes());
    for (ip, _) in [ended.local, ended.remote] {
        let mut octets = [0; 16];
        match ip {
            IpAddr::V4(ip) => octets[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => octets = ip.octets(),
        }
        bytes.extend(octets);
    }
    bytes.extend([0; 4]);
    bytes.extend((ended.cookie as u32).to_ne_bytes());
    bytes.extend(((ended.cookie >> 32) as u32).to_ne_bytes());
    bytes.extend([0; 20]);
    for half in PROTOCOL_ATTRIBUTE {
        bytes.extend(half.to_ne_bytes());
    }
    bytes.extend([ended.proto, 0, 0, 0]);
    bytes
}

fn notice(message: &[u8]) -> Notice {
    sock_diag::notice(&message[16..]).unwrap()
}

/// Whether anybody could make something of it: what the sensor asks.
fn is_wanted(notice: &Notice, sought: &Sought, cookies: &[u64]) -> bool {
    notice.id.proto == Proto::Udp
        || notice.id.local.port == 0
        || notice.id.remote.port == 0
        || sought.wants_in(&notice.id, TcpState::Established)
        || cookies
            .iter()
            .any(|it| *it as u32 == notice.cookie.0 as u32)
}

const V4: [Ipv4Addr; 3] = [
    Ipv4Addr::LOCALHOST,
    Ipv4Addr::new(10, 0, 0, 2),
    Ipv4Addr::new(10, 0, 0, 3),
];
const V6: [Ipv6Addr; 3] = [
    Ipv6Addr::LOCALHOST,
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0x0a00, 2),
];
const PORTS: [u16; 4] = [0, 22, 443, 5000];

/// One of a few addresses as patterns have them.
fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0..3_usize).prop_map(|at| IpAddr::V4(V4[at])),
        (0..3_usize).prop_map(|at| IpAddr::V6(V6[at])),
    ]
}

fn end() -> impl Strategy<Value = End> {
    let port = proptest::option::of((1..4_usize).prop_map(|at| PORTS[at]));
    (proptest::option::of(ip()), port).prop_map(|(ip, port)| End { ip, port })
}

fn ends() -> impl Strategy<Value = Ends> {
    (end(), end()).prop_map(|(local, remote)| Ends { local, remote })
}

fn sought() -> impl Strategy<Value = Sought> {
    let some = || proptest::collection::vec(ends(), 0..6);
    (proptest::option::of(some()), some(), any::<bool>()).prop_map(|(accept, refuse, all)| {
        let sought = Sought::new(accept, refuse);
        if all {
            sought.with_unconnected()
        } else {
            sought
        }
    })
}

fn ended() -> impl Strategy<Value = Ended> {
    let pick = || (0..4_usize, 0..4_usize);
    let cookie = prop_oneof![1..40_u64, (1..40_u64).prop_map(|low| low | 7 << 32)];
    (0..3_u8, any::<bool>(), pick(), pick(), cookie).prop_map(
        |(kind, udp, local, remote, cookie)| {
            let end = |(ip, port): (usize, usize)| {
                let ip = match (kind, ip) {
                    (0, 3) => Ipv4Addr::UNSPECIFIED.into(),
                    (0, at) => V4[at].into(),
                    (_, 3) => Ipv6Addr::UNSPECIFIED.into(),
                    (1, at) => V4[at].to_ipv6_mapped().into(),
                    (_, at) => V6[at].into(),
                };
                (ip, PORTS[port])
            };
            Ended {
                proto: if udp { 17 } else { 6 },
                local: end(local),
                remote: end(remote),
                family: if kind == 0 {
                    libc::AF_INET
                } else {
                    libc::AF_INET6
                },
                cookie,
            }
        },
    )
}

proptest! {
    /// What is refused is what nobody wants; of several sockets one takes the rest.
    #[test]
    fn what_is_wanted_is_taken_and_nothing_else(
        sought in sought(),
        cookies in proptest::collection::vec(1..40_u64, 0..30),
        bits in 0..4_u32,
        all in proptest::collection::vec(ended(), 1..60),
    ) {
        let Some(wanted) = Wanted::new(&sought, cookies.iter().copied().map(Cookie)) else {
            prop_assert!(sought.has_any_ends());
            return Ok(());
        };
        let share = |number| (bits > 0).then_some(Share { number, bits });
        let takers: Vec<_> = (0..1 << bits).map(|at| Taker::new(&wanted.program(share(at)))).collect();
        for ended in all {
            let message = message(&ended);
            let notice = notice(&message);
            let taken: Vec<u32> = (0..).zip(&takers).filter(|(_, it)| it.takes(&message)).map(|(at, _)| at).collect();
            let expected = is_wanted(&notice, &sought, &cookies);
            let mine = if bits == 0 { 0 } else { Share::of(notice.cookie, bits) };
            prop_assert_eq!(taken, if expected { vec![mine] } else { vec![] }, "{:?}", ended);
        }
    }
}

fn https() -> Sought {
    let port = |port| End { ip: None, port };
    let ends = Ends {
        local: port(None),
        remote: port(Some(443)),
    };
    Sought::new(Some(vec![ends]), Vec::new()).with_unconnected()
}

fn foreign() -> Ended {
    Ended {
        proto: 6,
        local: (V4[0].into(), 5000),
        remote: (V4[1].into(), 22),
        family: libc::AF_INET,
        cookie: 1,
    }
}

#[test]
fn as_many_cookies_as_there_may_be_are_told_apart() {
    let cookies = |count| (1..=count).map(|number: u64| Cookie(number * 7919));
    for count in [0, 1, 15, 16, 17, 32, 100, 255, 256] {
        let wanted = Wanted::new(&https(), cookies(count)).unwrap();
        let taker = Taker::new(&wanted.program(None));
        let takes = |cookie| {
            let cookie = Cookie(cookie).0;
            taker.takes(&message(&Ended {
                cookie,
                ..foreign()
            }))
        };
        for number in 0..=257 {
            assert_eq!(
                takes(number * 7919),
                (1..=count).contains(&number),
                "{count} {number}"
            );
            assert!(!takes(number * 7919 + 1), "{count} {number}");
        }
    }
    assert!(Wanted::new(&https(), cookies(257)).is_none());
}

#[test]
fn what_is_not_understood_is_taken() {
    let wanted = Wanted::new(&https(), std::iter::empty()).unwrap();
    let taker = Taker::new(&wanted.program(None));
    let known = message(&foreign());
    assert!(!taker.takes(&known));
    let with = |at: usize, byte: u8| {
        let mut other = known.clone();
        other[at] = byte;
        other
    };
    assert!(taker.takes(&known[..95]), "too short");
    assert!(taker.takes(&with(88, 9)), "another attribute");
    assert!(taker.takes(&with(90, 9)), "another attribute");
    assert!(taker.takes(&with(92, 132)), "another protocol");
    let by_ip = Sought::new(
        Some(vec![Ends {
            local: End {
                ip: Some(V4[2].into()),
                port: None,
            },
            remote: End::default(),
        }]),
        Vec::new(),
    );
    let wanted = Wanted::new(&by_ip, std::iter::empty()).unwrap();
    let taker = Taker::new(&wanted.program(None));
    assert!(!taker.takes(&known));
    assert!(taker.takes(&with(16, 1)), "another family");
    assert!(!is_told(&Sought::ALL));
    let any = End {
        ip: Some(Ipv4Addr::UNSPECIFIED.into()),
        port: None,
    };
    let ends = Ends {
        local: any,
        remote: End::default(),
    };
    assert!(!is_told(&Sought::new(Some(vec![ends]), Vec::new())));
    assert_eq!(notice(&known).id.family, Family::V4);
}

/// The most rules and cookies are a program that the kernel takes.
#[test]
fn the_largest_program_fits() {
    let ends = |number: u16| {
        let end = |port| End {
            ip: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, port).into()),
            port: Some(port),
        };
        Ends {
            local: end(number),
            remote: end(number + 1),
        }
    };
    let sought = Sought::new(Some((1..=64).map(ends).collect()), Vec::new());
    let wanted = Wanted::new(&sought, (1..=256).map(Cookie)).unwrap();
    let share = Share { number: 0, bits: 4 };
    let program = wanted.program(Some(share));
    assert!(program.len() <= 4096, "{}", program.len());
    Taker::new(&program);
}
