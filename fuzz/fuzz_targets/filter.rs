//! Any globs and any socket: what is certain without the name is true with it,
//! and the kernel is asked for whatever can pass.
//!
//! The input is 40 bytes of a socket, then lines: the peer's reverse name, and
//! globs, of which those that begin with `!` are to be ignored.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use sockwatch::filter::{Answer, Filter};
use sockwatch::model::{Family, Name, Proto, SockId, StateGroups, TcpState};

fuzz_target!(|input: &[u8]| {
    let Some((socket, text)) = input.split_first_chunk::<40>() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let mut lines = text.lines();
    let name = Name::escaped(lines.next().unwrap_or_default().as_bytes());
    let (ignore, patterns): (Vec<&str>, Vec<&str>) =
        lines.take(8).partition(|line| line.starts_with('!'));
    let patterns: Vec<String> = patterns.into_iter().map(str::to_string).collect();
    let ignore: Vec<String> = ignore
        .into_iter()
        .map(|line| line[1..].to_string())
        .collect();
    let Ok(filter) = Filter::new(&patterns, &ignore) else {
        return;
    };
    let (id, state) = read(socket);
    let early = filter.judge(&id, state, None);
    for host in [name.as_str(), "-"] {
        let answer = filter.judge(&id, state, Some(host));
        assert_ne!(
            answer,
            Answer::NeedsHost,
            "asked for a name that it was given"
        );
        if early != Answer::NeedsHost {
            assert_eq!(answer, early, "certain too early");
        }
        if answer == Answer::Pass {
            let needs = filter.needs();
            assert!(needs.proto(id.proto), "would not be asked for");
            assert!(
                id.proto == Proto::Udp
                    || state == TcpState::TimeWait
                    || needs.tcp.contains(StateGroups::of(state))
            );
        }
    }
});

fn read(bytes: &[u8; 40]) -> (SockId, TcpState) {
    let proto = if bytes[0] & 1 == 0 {
        Proto::Tcp
    } else {
        Proto::Udp
    };
    let family = if bytes[0] & 2 == 0 {
        Family::V4
    } else {
        Family::V6
    };
    let ip = |from: usize| -> IpAddr {
        let mut ip = [0; 16];
        ip.copy_from_slice(&bytes[from..from + 16]);
        match family {
            Family::V4 => Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3]).into(),
            Family::V6 => Ipv6Addr::from(ip).into(),
        }
    };
    let port = |from: usize| u16::from_be_bytes([bytes[from], bytes[from + 1]]);
    let id = SockId::from_wire(proto, family, (ip(4), port(36)), (ip(20), port(38)), 0);
    let state = match proto {
        Proto::Tcp => TcpState::ALL[usize::from(bytes[1]) % TcpState::ALL.len()],
        Proto::Udp if bytes[1] & 1 == 0 => TcpState::Close,
        Proto::Udp => TcpState::Established,
    };
    (id, state)
}
