//! The reader of sock_diag replies and notices, in the hot path of every dump.
//!
//! netlink-packet-sock-diag reads the same bytes with five allocations a row,
//! refuses replies of the legacy type, and fails a whole message over one
//! attribute of unexpected length. This reader takes what sockwatch needs by
//! offset, checks every bound, and ignores what it does not know;
//! tests/wire holds the two against each other on the same bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{
    Cookie, Family, Notice, Owner, OwnerUnknown, Proto, Row, RowKind, SockId, TcpInfo, TcpState,
};

/// NLMSG_ERROR and NLMSG_DONE (linux/netlink.h).
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Message types below this are netlink's own.
const NLMSG_MIN_TYPE: u16 = 16;
/// The dump was interrupted by a change of the table (never seen for inet_diag).
const NLM_F_DUMP_INTR: u16 = 0x10;

const HEADER: usize = 16;
const DIAG_MSG: usize = 72;

const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_SHUTDOWN: u16 = 8;
const INET_DIAG_PROTOCOL: u16 = 10;
const INET_DIAG_CGROUP_ID: u16 = 21;

/// Bytes that are not what the kernel sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// A message's length field is shorter than its header or longer than the
    /// buffer.
    Length,
    /// The payload is shorter than `struct inet_diag_msg`.
    Short,
    /// A family that is neither AF_INET nor AF_INET6.
    Family,
    /// A state beyond the kernel's list.
    State,
    /// A notice that does not say which protocol it is of.
    Protocol,
}

impl Malformed {
    /// In words, for the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Malformed::Length => "a message length that does not fit",
            Malformed::Short => "a message too short for inet_diag_msg",
            Malformed::Family => "an address family that is neither IPv4 nor IPv6",
            Malformed::State => "a socket state that does not exist",
            Malformed::Protocol => "a notice without a protocol",
        }
    }
}

/// One netlink message of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// `nlmsg_seq`: which request it answers.
    pub seq: u32,
    /// `nlmsg_pid`: whose request it answers.
    pub port: u32,
    /// What it says.
    pub body: Body<'a>,
}

/// The meaning of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body<'a> {
    /// A socket: `struct inet_diag_msg` and attributes.
    Socket(&'a [u8]),
    /// NLMSG_DONE with its code: 0, or a negative errno that ended the dump.
    Done(i32),
    /// NLMSG_ERROR with its code: 0 is an acknowledgement.
    Error(i32),
    /// The dump is not consistent (NLM_F_DUMP_INTR).
    Interrupted,
    /// A control message of no interest (NLMSG_NOOP).
    Other,
}

/// The messages of one datagram. Ends after the first malformed one: what
/// follows it cannot be found.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// The messages in `datagram`.
    pub fn new(datagram: &'a [u8]) -> Messages<'a> {
        Messages { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = self.split();
        if message.is_err() {
            self.rest = &[];
        }
        Some(message)
    }
}

impl<'a> Messages<'a> {
    fn split(&mut self) -> Result<Message<'a>, Malformed> {
        let header: &[u8; HEADER] = self.rest.first_chunk().ok_or(Malformed::Length)?;
        let length = long(header, 0) as usize;
        let payload = self.rest.get(HEADER..length).ok_or(Malformed::Length)?;
        // The last message of a datagram may lack its padding.
        self.rest = self.rest.get(align4(length)..).unwrap_or(&[]);
        let (kind, flags) = (word(header, 4), word(header, 6));
        let code = || u32_at(payload, 0).map_or(0, |code| code as i32);
        let body = match kind {
            _ if flags & NLM_F_DUMP_INTR != 0 && kind != NLMSG_ERROR => Body::Interrupted,
            NLMSG_DONE => Body::Done(code()),
            NLMSG_ERROR if payload.len() < 4 => return Err(Malformed::Short),
            NLMSG_ERROR => Body::Error(code()),
            kind if kind < NLMSG_MIN_TYPE => Body::Other,
            _ => Body::Socket(payload),
        };
        Ok(Message {
            seq: long(header, 8),
            port: long(header, 12),
            body,
        })
    }
}

/// A row of a dump of `proto` (a legacy reply does not name its protocol).
///
/// # Errors
/// What is [`Malformed`] about it.
pub fn row(payload: &[u8], proto: Proto) -> Result<Row, Malformed> {
    let (fields, attributes) = split(payload)?;
    let id = id(fields, proto)?;
    let (uid, inode) = (long(fields, 64), long(fields, 68));
    let state = TcpState::from_wire(fields[1]).ok_or(Malformed::State)?;
    let kind = match state {
        TcpState::TimeWait => RowKind::Mini,
        // A full socket's row begins with its shutdown mask, whatever was asked
        // for (inet_diag_msg_attrs_fill); request and time-wait sockets have
        // none to tell.
        TcpState::SynRecv | TcpState::FinWait2 if !attributes.have(INET_DIAG_SHUTDOWN) => {
            RowKind::Mini
        }
        _ => RowKind::Full,
    };
    let owner = match kind {
        RowKind::Mini => Owner::Unknown(OwnerUnknown::Minisocket),
        RowKind::Full if inode == 0 => Owner::Unknown(OwnerUnknown::NoFile),
        RowKind::Full => Owner::Known { uid, inode },
    };
    Ok(Row {
        cookie: cookie(fields),
        id,
        state,
        kind,
        owner,
        cgroup: match kind {
            RowKind::Full => cgroup(attributes),
            RowKind::Mini => 0,
        },
    })
}

/// A destruction notice.
///
/// # Errors
/// What is [`Malformed`] about it.
pub fn notice(payload: &[u8]) -> Result<Notice, Malformed> {
    let (fields, attributes) = split(payload)?;
    let (mut proto, mut tcp) = (None, None);
    for (kind, value) in attributes {
        match kind {
            INET_DIAG_PROTOCOL => proto = value.first().copied(),
            INET_DIAG_INFO => tcp = Some(tcp_info(value)),
            _ => {}
        }
    }
    let proto = match proto {
        Some(6) => Proto::Tcp,
        Some(17) => Proto::Udp,
        _ => return Err(Malformed::Protocol),
    };
    Ok(Notice {
        cookie: cookie(fields),
        id: id(fields, proto)?,
        tcp: if proto == Proto::Tcp {
            Some(tcp.unwrap_or_default())
        } else {
            None
        },
    })
}

/// `struct tcp_info` by offset (linux/tcp.h); what lies beyond its end, as an
/// older kernel writes it, is `None` or 0.
fn tcp_info(bytes: &[u8]) -> TcpInfo {
    let long = |offset| u32_at(bytes, offset);
    let quad = |offset: usize| {
        bytes
            .get(offset..offset + 8)
            .and_then(|eight| eight.try_into().ok())
            .map(u64::from_ne_bytes)
    };
    TcpInfo {
        last_data_sent_ms: long(44).unwrap_or(0),
        last_data_recv_ms: long(52).unwrap_or(0),
        rtt_us: long(68).unwrap_or(0),
        advmss: long(84).unwrap_or(0),
        rcv_space: long(96).unwrap_or(0),
        total_retrans: long(100).unwrap_or(0),
        bytes_acked: quad(120),
        bytes_received: quad(128),
        segs_out: long(136),
        segs_in: long(140),
        bytes_sent: quad(200),
        bytes_retrans: quad(208),
    }
}

/// A `struct inet_diag_msg`.
type Fields = [u8; DIAG_MSG];

/// The fields, which rows and notices hold at the same offsets, and what follows.
fn split(payload: &[u8]) -> Result<(&Fields, Attributes<'_>), Malformed> {
    let (fields, rest) = payload.split_first_chunk().ok_or(Malformed::Short)?;
    Ok((fields, Attributes { rest }))
}

/// Protocol, family and ends.
fn id(fields: &Fields, proto: Proto) -> Result<SockId, Malformed> {
    let ips: (IpAddr, IpAddr) = match i32::from(fields[0]) {
        libc::AF_INET => (ipv4(long(fields, 8)), ipv4(long(fields, 24))),
        libc::AF_INET6 => (ipv6(&fields[8..24]), ipv6(&fields[24..40])),
        _ => return Err(Malformed::Family),
    };
    let family = if ips.0.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let (local, remote) = (word(fields, 4), word(fields, 6));
    Ok(SockId::from_wire(
        proto,
        family,
        (ips.0, u16::from_be(local)),
        (ips.1, u16::from_be(remote)),
        long(fields, 40),
    ))
}

fn ipv4(bytes: u32) -> IpAddr {
    Ipv4Addr::from_bits(u32::from_be(bytes)).into()
}

fn ipv6(bytes: &[u8]) -> IpAddr {
    let mut address = [0; 16];
    address.copy_from_slice(bytes);
    Ipv6Addr::from(address).into()
}

/// `idiag_cookie[2]`: the low word first, each in host byte order.
fn cookie(fields: &Fields) -> Cookie {
    Cookie(u64::from(long(fields, 44)) | u64::from(long(fields, 48)) << 32)
}

/// The id of the socket's cgroup in a row; 0 where there is none (the kernel has
/// no CONFIG_SOCK_CGROUP_DATA) or it has not the length of one.
fn cgroup(mut attributes: Attributes<'_>) -> u64 {
    attributes
        .find(|(kind, _)| *kind == INET_DIAG_CGROUP_ID)
        .and_then(|(_, value)| value.try_into().ok())
        .map_or(0, u64::from_ne_bytes)
}

/// The attributes (`struct nlattr`) behind an inet_diag_msg; ends at the first
/// that does not fit.
#[derive(Clone, Copy)]
struct Attributes<'a> {
    rest: &'a [u8],
}

impl Attributes<'_> {
    fn have(mut self, wanted: u16) -> bool {
        self.any(|(kind, _)| kind == wanted)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let head: &[u8; 4] = self.rest.first_chunk()?;
        let (length, kind) = (usize::from(word(head, 0)), word(head, 2));
        let value = self.rest.get(4..length)?;
        self.rest = self.rest.get(align4(length)..).unwrap_or(&[]);
        // The two top bits are flags (NLA_TYPE_MASK).
        Some((kind & 0x3fff, value))
    }
}

fn align4(length: usize) -> usize {
    (length + 3) & !3
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let four = bytes.get(offset..offset + 4)?;
    Some(u32::from_ne_bytes([four[0], four[1], four[2], four[3]]))
}

/// Two bytes at a place that is within.
#[inline(always)]
fn word<const N: usize>(bytes: &[u8; N], offset: usize) -> u16 {
    u16::from_ne_bytes([bytes[offset], bytes[offset + 1]])
}

/// Four of them.
#[inline(always)]
fn long<const N: usize>(bytes: &[u8; N], offset: usize) -> u32 {
    u32::from_ne_bytes([
        bytes[offset],
        bytes[offset + 1],
        bytes[offset + 2],
        bytes[offset + 3],
    ])
}
