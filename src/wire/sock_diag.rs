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
        let length = u32_at(self.rest, 0).ok_or(Malformed::Length)? as usize;
        if length < HEADER || length > self.rest.len() {
            return Err(Malformed::Length);
        }
        let (message, payload) = (&self.rest[..length], &self.rest[HEADER..length]);
        // The last message of a datagram may lack its padding.
        self.rest = self.rest.get(align4(length)..).unwrap_or(&[]);
        let (kind, flags) = (word(message, 4), word(message, 6));
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
            seq: long(message, 8),
            port: long(message, 12),
            body,
        })
    }
}

/// A row of a dump of `proto` (a legacy reply does not name its protocol).
///
/// # Errors
/// What is [`Malformed`] about it.
pub fn row(payload: &[u8], proto: Proto) -> Result<Row, Malformed> {
    let head = head(payload, proto)?;
    let (uid, inode) = (long(payload, 64), long(payload, 68));
    let state = TcpState::from_wire(payload[1]).ok_or(Malformed::State)?;
    let kind = match state {
        TcpState::TimeWait => RowKind::Mini,
        // A full socket's row begins with its shutdown mask, whatever was asked
        // for (inet_diag_msg_attrs_fill); request and time-wait sockets have
        // none to tell.
        TcpState::SynRecv | TcpState::FinWait2 if !has_attribute(payload, INET_DIAG_SHUTDOWN) => {
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
        cookie: cookie(payload),
        id: head,
        state,
        kind,
        owner,
        cgroup: match kind {
            RowKind::Full => cgroup(payload),
            RowKind::Mini => 0,
        },
    })
}

/// A destruction notice.
///
/// # Errors
/// What is [`Malformed`] about it.
pub fn notice(payload: &[u8]) -> Result<Notice, Malformed> {
    if payload.len() < DIAG_MSG {
        return Err(Malformed::Short);
    }
    let (mut proto, mut tcp) = (None, None);
    for (kind, value) in Attributes::of(payload) {
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
        cookie: cookie(payload),
        id: head(payload, proto)?,
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

/// The addresses, which rows and notices hold at the same offsets.
fn head(payload: &[u8], proto: Proto) -> Result<SockId, Malformed> {
    if payload.len() < DIAG_MSG {
        return Err(Malformed::Short);
    }
    let family = match i32::from(payload[0]) {
        libc::AF_INET => Family::V4,
        libc::AF_INET6 => Family::V6,
        _ => return Err(Malformed::Family),
    };
    let ip = |offset: usize| -> IpAddr {
        let mut bytes = [0_u8; 16];
        bytes.copy_from_slice(&payload[offset..offset + 16]);
        match family {
            Family::V4 => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
            Family::V6 => Ipv6Addr::from(bytes).into(),
        }
    };
    let port = |offset: usize| u16::from_be_bytes([payload[offset], payload[offset + 1]]);
    Ok(SockId::from_wire(
        proto,
        family,
        (ip(8), port(4)),
        (ip(24), port(6)),
        long(payload, 40),
    ))
}

/// `idiag_cookie[2]`: the low word first, each in host byte order.
fn cookie(payload: &[u8]) -> Cookie {
    Cookie(u64::from(long(payload, 44)) | u64::from(long(payload, 48)) << 32)
}

/// The id of the socket's cgroup in a row; 0 where there is none (the kernel has
/// no CONFIG_SOCK_CGROUP_DATA) or it has not the length of one.
fn cgroup(payload: &[u8]) -> u64 {
    Attributes::of(payload)
        .find(|(kind, _)| *kind == INET_DIAG_CGROUP_ID)
        .and_then(|(_, value)| value.try_into().ok())
        .map_or(0, u64::from_ne_bytes)
}

fn has_attribute(payload: &[u8], wanted: u16) -> bool {
    Attributes::of(payload).any(|(kind, _)| kind == wanted)
}

/// The attributes (`struct nlattr`) behind an inet_diag_msg; ends at the first
/// that does not fit.
struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    fn of(payload: &'a [u8]) -> Attributes<'a> {
        Attributes {
            rest: payload.get(DIAG_MSG..).unwrap_or(&[]),
        }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.rest, 0)?);
        let kind = u16_at(self.rest, 2)?;
        let value = self.rest.get(4..length)?;
        self.rest = self.rest.get(align4(length)..).unwrap_or(&[]);
        // The two top bits are flags (NLA_TYPE_MASK).
        Some((kind & 0x3fff, value))
    }
}

fn align4(length: usize) -> usize {
    (length + 3) & !3
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let two = bytes.get(offset..offset + 2)?;
    Some(u16::from_ne_bytes([two[0], two[1]]))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let four = bytes.get(offset..offset + 4)?;
    Some(u32::from_ne_bytes([four[0], four[1], four[2], four[3]]))
}

/// As [`u16_at`], where the length was checked before.
fn word(bytes: &[u8], offset: usize) -> u16 {
    u16::from_ne_bytes([bytes[offset], bytes[offset + 1]])
}

/// As [`u32_at`], where the length was checked before.
fn long(bytes: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes([
        bytes[offset],
        bytes[offset + 1],
        bytes[offset + 2],
        bytes[offset + 3],
    ])
}
