//! The code as the kernel would take it and run it (`inet_diag_bc_audit` and
//! `inet_diag_bc_run`, net/ipv4/inet_diag.c, written anew from what they do).

use super::*;
use crate::model::{Endpoint, Ends, Family, Proto, SockId};
use proptest::prelude::*;

/// A socket as the kernel's interpreter sees it.
struct Seen {
    family: i32,
    source: ([u32; 4], u16),
    destination: ([u32; 4], u16),
}

fn words(ip: IpAddr) -> [u32; 4] {
    let mut words = [0; 4];
    match ip {
        IpAddr::V4(ip) => words[0] = ip.into(),
        IpAddr::V6(ip) => {
            for (word, octets) in words.iter_mut().zip(ip.octets().chunks(4)) {
                *word = u32::from_be_bytes(octets.try_into().unwrap());
            }
        }
    }
    words
}

fn seen(id: &SockId) -> Seen {
    Seen {
        family: match id.family {
            Family::V4 => libc::AF_INET,
            Family::V6 => libc::AF_INET6,
        },
        source: (words(id.wire_ip(id.local)), id.local.port),
        destination: (words(id.wire_ip(id.remote)), id.remote.port),
    }
}

fn half(code: &[u8], at: usize) -> usize {
    usize::from(u16::from_ne_bytes([code[at], code[at + 1]]))
}

/// Whether a jump of the audited way arrives with this much left.
fn arrives(code: &[u8], left: usize) -> bool {
    let mut at = 0;
    while at <= code.len() {
        if code.len() - at == left {
            return true;
        }
        if at == code.len() || code[at + 1] < 4 || !code[at + 1].is_multiple_of(4) {
            return false;
        }
        at += usize::from(code[at + 1]);
    }
    false
}

/// Whether the kernel takes it.
fn audit(code: &[u8]) -> bool {
    let mut at = 0;
    while at < code.len() {
        let left = code.len() - at;
        let (op, yes, no) = (code[at], usize::from(code[at + 1]), half(code, at + 2));
        let least = match op {
            JMP => 4,
            S_COND | D_COND => {
                let address = match i32::from(code[at + 4]) {
                    libc::AF_UNSPEC => 0,
                    libc::AF_INET => 4,
                    libc::AF_INET6 => 16,
                    _ => return false,
                };
                if usize::from(code[at + 5]) > 8 * address {
                    return false;
                }
                12 + address
            }
            _ => return false,
        };
        if least > left || no < least || no > left + 4 || no % 4 != 0 {
            return false;
        }
        if no < left && !arrives(code, left - no) {
            return false;
        }
        if yes < least || yes > left + 4 || yes % 4 != 0 {
            return false;
        }
        at += yes;
    }
    at == code.len()
}

/// Whether a socket passes.
fn run(code: &[u8], socket: &Seen) -> bool {
    let mut at = 0;
    while at < code.len() {
        let holds = match code[at] {
            JMP => false,
            op => condition(
                &code[at + 4..],
                if op == S_COND {
                    socket.source
                } else {
                    socket.destination
                },
                socket.family,
            ),
        };
        at += if holds {
            usize::from(code[at + 1])
        } else {
            half(code, at + 2)
        };
    }
    at == code.len()
}

fn condition(cond: &[u8], (address, port): ([u32; 4], u16), family: i32) -> bool {
    let wanted = i32::from_ne_bytes(cond[4..8].try_into().unwrap());
    if wanted != -1 && wanted != i32::from(port) {
        return false;
    }
    let asked = i32::from(cond[0]);
    let prefix = usize::from(cond[1]) / 32;
    let given = |at: usize| {
        let at = 8 + 4 * at;
        u32::from_be_bytes(cond[at..at + 4].try_into().unwrap())
    };
    let equal = |words: &[u32]| (0..prefix).all(|at| words[at] == given(at));
    if asked != libc::AF_UNSPEC && asked != family {
        return family == libc::AF_INET6
            && asked == libc::AF_INET
            && address[..3] == [0, 0, 0xffff]
            && equal(&address[3..]);
    }
    equal(&address)
}

fn ip() -> impl Strategy<Value = IpAddr> {
    let some = [
        "10.0.0.2",
        "203.0.113.7",
        "::1",
        "2001:db8::1",
        "2001:db8::2",
    ];
    prop::sample::select(some.to_vec()).prop_map(|ip| ip.parse().unwrap())
}

fn port() -> impl Strategy<Value = u16> {
    prop::sample::select(vec![0_u16, 22, 443, 65535])
}

fn ends() -> impl Strategy<Value = Ends> {
    let end = || {
        (prop::option::of(ip()), prop::option::of(port())).prop_map(|(ip, port)| End { ip, port })
    };
    (end(), end()).prop_map(|(local, remote)| Ends { local, remote })
}

fn sought() -> impl Strategy<Value = Sought> {
    let some = || prop::collection::vec(ends(), 0..6);
    (prop::option::of(some()), some(), any::<bool>()).prop_map(|(accept, refuse, unconnected)| {
        let sought = Sought::new(accept, refuse);
        if unconnected {
            sought.with_unconnected()
        } else {
            sought
        }
    })
}

/// Sockets of both families, v4-mapped ones too.
fn socket() -> impl Strategy<Value = SockId> {
    let end = || (ip(), port());
    (end(), end(), any::<bool>()).prop_map(|((local, sport), (remote, dport), mapped)| {
        let remote = match (local, remote) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => remote,
            _ => local,
        };
        let family = if local.is_ipv4() && !mapped {
            Family::V4
        } else {
            Family::V6
        };
        let wire = |ip: IpAddr| match ip {
            IpAddr::V4(ip) if family == Family::V6 => ip.to_ipv6_mapped().into(),
            ip => ip,
        };
        SockId::from_wire(
            Proto::Tcp,
            family,
            (wire(local), sport),
            (wire(remote), dport),
            0,
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn the_kernel_weighs_what_is_wanted(sought in sought(), sockets in prop::collection::vec(socket(), 1..20)) {
        let code = assemble(&sought);
        prop_assert_eq!(code.is_none(), sought.is_all());
        if let Some(code) = code {
            prop_assert!(audit(&code), "{sought:?}: {code:?}");
            for id in sockets {
                prop_assert_eq!(run(&code, &seen(&id)), sought.wants(&id), "{:?} {:?}", sought, id);
            }
        }
    }
}

#[test]
fn a_port_is_three_operations() {
    let https = Ends {
        remote: End {
            ip: None,
            port: Some(443),
        },
        ..Ends::default()
    };
    let code = assemble(&Sought::new(Some(vec![https]), Vec::new())).unwrap();
    let mut expected = vec![8, 12];
    expected.extend(16_u16.to_ne_bytes());
    expected.extend([0, 0, 0, 0]);
    expected.extend(443_i32.to_ne_bytes());
    expected.extend([1, 4]);
    expected.extend(8_u16.to_ne_bytes());
    expected.extend([1, 4]);
    expected.extend(8_u16.to_ne_bytes());
    assert_eq!(code.as_ref(), expected);
}

#[test]
fn too_many_rules_are_none() {
    let each = (1..=65).map(|port| Ends {
        local: End {
            ip: None,
            port: Some(port),
        },
        ..Ends::default()
    });
    let each: Vec<_> = each.collect();
    assert!(assemble(&Sought::new(Some(each[..64].to_vec()), Vec::new())).is_some());
    assert!(assemble(&Sought::new(Some(each.clone()), Vec::new())).is_none());
    let longest = Ends {
        local: End {
            ip: Some("2001:db8::1".parse().unwrap()),
            port: Some(1),
        },
        remote: End {
            ip: Some("2001:db8::1".parse().unwrap()),
            port: Some(1),
        },
    };
    let many: Vec<_> = (0..64)
        .map(|port| Ends {
            local: End {
                port: Some(port),
                ..longest.local
            },
            ..longest
        })
        .collect();
    assert!(audit(
        &assemble(&Sought::new(Some(many), Vec::new())).unwrap()
    ));
}

#[test]
fn the_interpreter_refuses_what_the_kernel_refuses() {
    let end = Endpoint::new([10, 0, 0, 2], 22);
    let ends = Ends {
        local: End {
            ip: Some(end.ip),
            port: Some(22),
        },
        ..Ends::default()
    };
    let code = assemble(&Sought::new(Some(vec![ends]), Vec::new())).unwrap();
    assert!(audit(&code));
    let mut far = code.clone();
    far[2..4].copy_from_slice(&400_u16.to_ne_bytes());
    assert!(!audit(&far), "a jump beyond the end");
    let mut between = code.clone();
    between[2..4].copy_from_slice(&(16_u16 + 2).to_ne_bytes());
    assert!(!audit(&between), "a jump between operations");
}
