//! IP packets, from the network header on, to the UDP or TCP that they carry.
//!
//! Offsets are those of RFC 791, RFC 8200, RFC 768 and RFC 9293. Checksums are not
//! looked at: on their way to and from a device that computes them they are not
//! there yet.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::model::Endpoint;

/// IPv6 extension headers that are skipped.
const EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// What a packet carries, and between whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// Who sent it.
    pub source: Endpoint,
    /// To whom.
    pub destination: Endpoint,
    /// What.
    pub body: Body<'a>,
}

/// The transport's part of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body<'a> {
    /// A UDP datagram.
    Udp {
        /// What it carries.
        payload: &'a [u8],
        /// All of it is there: no fragment, and not cut off.
        whole: bool,
    },
    /// A TCP segment, or several in one as the kernel passes them to and from
    /// devices.
    Tcp(Segment<'a>),
}

/// A TCP segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment<'a> {
    /// The number of its first byte, or of its SYN.
    pub seq: u32,
    /// The number of the byte that is expected next; valid with `ack`.
    pub ack_seq: u32,
    /// ACK.
    pub ack: bool,
    /// SYN.
    pub syn: bool,
    /// FIN.
    pub fin: bool,
    /// RST.
    pub rst: bool,
    /// What it carries, as far as it is there.
    pub payload: &'a [u8],
}

/// The packet is of no use: not IP, not UDP or TCP, not a first fragment, or cut
/// within its headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unreadable;

/// Reads a packet that begins with its IP header.
///
/// # Errors
/// See [`Unreadable`].
pub fn read(bytes: &[u8]) -> Result<Packet<'_>, Unreadable> {
    match bytes.first().ok_or(Unreadable)? >> 4 {
        4 => version_4(bytes),
        6 => version_6(bytes),
        _ => Err(Unreadable),
    }
}

fn version_4(bytes: &[u8]) -> Result<Packet<'_>, Unreadable> {
    let header: &[u8; 20] = bytes.first_chunk().ok_or(Unreadable)?;
    let header_length = usize::from(header[0] & 0x0f) * 4;
    // 0 where the device is to fill it in (BIG TCP).
    let total = match u16(bytes, 2)? {
        0 => bytes.len(),
        total => usize::from(total),
    };
    let fragment = u16(bytes, 6)?;
    if header_length < header.len() || fragment & 0x1fff != 0 {
        return Err(Unreadable);
    }
    // Frames have a least length, so there may be padding behind the packet.
    let packet = &bytes[..total.min(bytes.len())];
    let whole = total <= bytes.len() && fragment & 0x2000 == 0;
    let [a, b, c, d] = [12, 13, 14, 15].map(|at| header[at]);
    let [e, f, g, h] = [16, 17, 18, 19].map(|at| header[at]);
    transport(
        header[9],
        packet.get(header_length..).ok_or(Unreadable)?,
        whole,
        |port| Endpoint::new(Ipv4Addr::new(a, b, c, d), port),
        |port| Endpoint::new(Ipv4Addr::new(e, f, g, h), port),
    )
}

fn version_6(bytes: &[u8]) -> Result<Packet<'_>, Unreadable> {
    let header: &[u8; 40] = bytes.first_chunk().ok_or(Unreadable)?;
    // 0 in a jumbogram, which the kernel makes of TCP (BIG TCP).
    let total = match u16(bytes, 4)? {
        0 => bytes.len(),
        length => header.len() + usize::from(length),
    };
    let packet = &bytes[..total.min(bytes.len())];
    let mut whole = total <= bytes.len();
    let mut at = header.len();
    let mut next = header[6];
    for _ in 0..EXTENSIONS {
        let length = match next {
            HOP_BY_HOP | ROUTING | DESTINATION => (usize::from(u8(packet, at + 1)?) + 1) * 8,
            AUTHENTICATION => (usize::from(u8(packet, at + 1)?) + 2) * 4,
            FRAGMENT => {
                let fragment = u16(packet, at + 2)?;
                if fragment & 0xfff8 != 0 {
                    return Err(Unreadable);
                }
                whole &= fragment & 1 == 0;
                8
            }
            _ => break,
        };
        next = u8(packet, at)?;
        at += length;
    }
    let address = |at: usize| {
        let octets: Option<&[u8; 16]> = bytes.get(at..).and_then(<[u8]>::first_chunk);
        octets
            .map(|octets| Ipv6Addr::from(*octets))
            .ok_or(Unreadable)
    };
    let (source, destination) = (address(8)?, address(24)?);
    transport(
        next,
        packet.get(at..).ok_or(Unreadable)?,
        whole,
        |port| Endpoint::new(source, port),
        |port| Endpoint::new(destination, port),
    )
}

fn transport(
    protocol: u8,
    bytes: &[u8],
    whole: bool,
    source: impl Fn(u16) -> Endpoint,
    destination: impl Fn(u16) -> Endpoint,
) -> Result<Packet<'_>, Unreadable> {
    let body = match protocol {
        UDP => {
            let length = usize::from(u16(bytes, 4)?);
            let end = length.min(bytes.len());
            Body::Udp {
                payload: bytes.get(8..end).ok_or(Unreadable)?,
                whole: whole && length <= bytes.len(),
            }
        }
        TCP => {
            let flags = u8(bytes, 13)?;
            let header_length = usize::from(u8(bytes, 12)? >> 4) * 4;
            if header_length < 20 {
                return Err(Unreadable);
            }
            Body::Tcp(Segment {
                seq: u32(bytes, 4)?,
                ack_seq: u32(bytes, 8)?,
                ack: flags & 0x10 != 0,
                syn: flags & 0x02 != 0,
                fin: flags & 0x01 != 0,
                rst: flags & 0x04 != 0,
                payload: bytes.get(header_length..).ok_or(Unreadable)?,
            })
        }
        _ => return Err(Unreadable),
    };
    Ok(Packet {
        source: source(u16(bytes, 0)?),
        destination: destination(u16(bytes, 2)?),
        body,
    })
}

fn u8(bytes: &[u8], at: usize) -> Result<u8, Unreadable> {
    bytes.get(at).copied().ok_or(Unreadable)
}

fn u16(bytes: &[u8], at: usize) -> Result<u16, Unreadable> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map(|two| u16::from_be_bytes(*two)).ok_or(Unreadable)
}

fn u32(bytes: &[u8], at: usize) -> Result<u32, Unreadable> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes
        .map(|four| u32::from_be_bytes(*four))
        .ok_or(Unreadable)
}

#[cfg(test)]
mod tests;
