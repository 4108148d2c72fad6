//! Numbers and addresses as text, appended to bytes.
//!
//! A dump writes five of them a row. The formatting machinery of the standard
//! library takes longer for those than the kernel takes to find the socket.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use crate::model::Endpoint;

/// Appends a number in decimal.
pub(super) fn number(number: impl Into<u64>, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number.into()).as_bytes());
}

/// Appends what `Display` writes of an end.
pub(super) fn endpoint(end: &Endpoint, out: &mut Vec<u8>) {
    match end.ip {
        IpAddr::V4(ip) => return ipv4(ip, end.port, out),
        IpAddr::V6(ip) => {
            out.push(b'[');
            ipv6(ip, out);
            out.push(b']');
        }
    }
    out.push(b':');
    number(end.port, out);
}

/// Most ends by far: put together beside, and appended in one go.
fn ipv4(ip: Ipv4Addr, port: u16, out: &mut Vec<u8>) {
    let mut text = *b"255.255.255.255:65535";
    let mut length = 0;
    for (octet, after) in ip.octets().into_iter().zip(*b"...:") {
        let (hundreds, tens) = (octet / 100, octet / 10 % 10);
        if hundreds > 0 {
            text[length] = b'0' + hundreds;
            length += 1;
        }
        if octet >= 10 {
            text[length] = b'0' + tens;
            length += 1;
        }
        text[length] = b'0' + octet % 10;
        text[length + 1] = after;
        length += 2;
    }
    let mut digits = itoa::Buffer::new();
    let port = digits.format(port).as_bytes();
    text[length..length + port.len()].copy_from_slice(port);
    out.extend_from_slice(&text[..length + port.len()]);
}

/// As RFC 5952 has it: the longest run of zeros, the first of equals, is `::`.
fn ipv6(ip: Ipv6Addr, out: &mut Vec<u8>) {
    if ip.to_ipv4_mapped().is_some() {
        // No socket has one here: the model holds it as IPv4.
        write!(out, "{ip}").expect("a Vec takes any text");
        return;
    }
    let segments = ip.segments();
    let gap = longest_zeros(&segments);
    if gap.len() < 2 {
        run(&segments, out);
    } else {
        run(&segments[..gap.start], out);
        out.extend_from_slice(b"::");
        run(&segments[gap.end..], out);
    }
}

fn run(segments: &[u16], out: &mut Vec<u8>) {
    for (index, &segment) in segments.iter().enumerate() {
        if index > 0 {
            out.push(b':');
        }
        hex(segment, out);
    }
}

fn longest_zeros(segments: &[u16; 8]) -> Range<usize> {
    let (mut longest, mut at) = (0..0, 0);
    while at < segments.len() {
        let zeros = segments[at..]
            .iter()
            .take_while(|segment| **segment == 0)
            .count();
        if zeros > longest.len() {
            longest = at..at + zeros;
        }
        at += zeros + 1;
    }
    longest
}

fn hex(segment: u16, out: &mut Vec<u8>) {
    let digits = (16 - segment.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[usize::from(segment >> (4 * digit) & 15)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_end_is_written_as_it_is_displayed(
            v4: u32, v6: u128, zeros in prop::collection::vec(any::<bool>(), 8), port: u16,
        ) {
            let mut segments = Ipv6Addr::from(v6).segments();
            for (segment, _) in segments.iter_mut().zip(&zeros).filter(|(_, zero)| **zero) {
                *segment = 0;
            }
            let short = segments.map(|segment| segment & 0xff);
            let ends: [IpAddr; 4] = [
                IpAddr::from(v4.to_be_bytes()),
                IpAddr::from(segments),
                IpAddr::from(short),
                Ipv4Addr::from(v4).to_ipv6_mapped().into(),
            ];
            for ip in ends {
                let (end, mut out) = (Endpoint::new(ip, port), Vec::new());
                endpoint(&end, &mut out);
                prop_assert_eq!(String::from_utf8(out).unwrap(), end.to_string());
            }
        }
    }
}
