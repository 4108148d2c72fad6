//! The records of a state file, to bytes and back.
//!
//! Integers are little-endian. A reader takes nothing on trust: what is no record
//! is an error, whatever the checksum says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::{
    Caller, Comm, Cookie, Direction, Endpoint, Family, HostUnknown, Name, Owner, OwnerUnknown,
    Primed, Proto, RowKind, SockId, TcpState,
};

/// What a file belongs to. Cookies mean something only within one boot and one
/// namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// The boot's id.
    pub boot: u128,
    /// The namespace's inode.
    pub netns: u32,
    /// The namespace's cookie, where the kernel has one: inodes are given again.
    pub netns_cookie: Option<u64>,
}

/// A sensor of the run that wrote the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sensor {
    /// Its number: the bit in `in_view`.
    pub number: u8,
    /// Its id.
    pub id: String,
    /// A hash of what decides its view.
    pub view: u64,
    /// What had been read when the view was last brought up to date.
    pub primed: Primed,
}

/// A socket in the view of at least one sensor.
#[derive(Clone, PartialEq, Debug)]
pub struct Socket {
    /// Its cookie.
    pub cookie: Cookie,
    /// In full or mini.
    pub kind: RowKind,
    /// Its ends.
    pub id: SockId,
    /// The last state seen.
    pub state: TcpState,
    /// Which way the connection was opened, where it is one.
    pub direction: Option<Direction>,
    /// Who called connect(), where a hook saw it.
    pub process: Option<Caller>,
    /// Whose it is.
    pub owner: Owner,
    /// When it was first seen with these ends, in ms of CLOCK_MONOTONIC.
    pub first_seen_ms: u64,
    /// The sensors that have it in view.
    pub in_view: u32,
    /// The peer's reverse name, if one was found.
    pub name: Option<Name>,
    /// Why those of `nameless` have none.
    pub no_name: Option<HostUnknown>,
    /// The sensors that settled on having none.
    pub nameless: u32,
}

/// A lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockNote {
    /// The event id.
    pub eid: String,
    /// When the event was emitted.
    pub first: SystemTime,
    /// When the last one was muted.
    pub last: SystemTime,
    /// How many were muted.
    pub muted: u64,
    /// The event that it was taken for may not have been written.
    pub fresh: bool,
}

/// A socket whose end was told without a notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grave {
    /// Its cookie.
    pub cookie: Cookie,
    /// Until when its notice may come, in ms of CLOCK_MONOTONIC.
    pub until_ms: u64,
}

/// One record.
#[derive(Clone, PartialEq, Debug)]
pub enum Record {
    /// The first one.
    Head(Head),
    /// A sensor.
    Sensor(Sensor),
    /// A socket that is, or has come, into view; adds to what was said of it.
    Socket(Socket),
    /// It has left the view of these sensors, and that is written.
    Left {
        /// Its cookie.
        cookie: Cookie,
        /// In full or mini.
        kind: RowKind,
        /// Whose view.
        sensors: u32,
    },
    /// Openings before the last one of these are sure to be written.
    Settled,
    /// A socket was found ended; its notice may still come.
    Grave(Grave),
    /// A lock was taken, or has muted.
    Lock(LockNote),
    /// A lock was released.
    Unlocked(String),
    /// The base is complete.
    Complete,
    /// The run ended as it should, with everything written.
    Ended,
}

const HEAD: u8 = 1;
const SENSOR: u8 = 2;
const SOCKET: u8 = 3;
const LEFT: u8 = 4;
const SETTLED: u8 = 5;
const LOCK: u8 = 6;
const UNLOCKED: u8 = 7;
const COMPLETE: u8 = 8;
const ENDED: u8 = 9;
const GRAVE: u8 = 10;

const UDP: u8 = 1;
const V6: u8 = 2;
const MAPPED: u8 = 4;
const MINI: u8 = 8;
const OWNED: u8 = 16;
const NAMED: u8 = 32;
const BOUND: u8 = 64;
const CALLED: u8 = 128;

impl Record {
    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Head(head) => {
                out.push(HEAD);
                out.extend(head.boot.to_le_bytes());
                out.extend(head.netns.to_le_bytes());
                // The kernel counts namespace cookies from 1.
                out.extend(head.netns_cookie.unwrap_or(0).to_le_bytes());
            }
            Record::Sensor(sensor) => {
                out.extend([SENSOR, sensor.number]);
                out.extend(sensor.view.to_le_bytes());
                out.extend(sensor.primed.bits());
                text(&sensor.id, out);
            }
            Record::Socket(socket) => socket.encode(out),
            Record::Left {
                cookie,
                kind,
                sensors,
            } => {
                out.extend([LEFT, if *kind == RowKind::Mini { MINI } else { 0 }]);
                out.extend(cookie.0.to_le_bytes());
                out.extend(sensors.to_le_bytes());
            }
            Record::Settled => out.push(SETTLED),
            Record::Lock(lock) => {
                out.extend([LOCK, u8::from(lock.fresh)]);
                out.extend(micros(lock.first).to_le_bytes());
                out.extend(micros(lock.last).to_le_bytes());
                out.extend(lock.muted.to_le_bytes());
                text(&lock.eid, out);
            }
            Record::Unlocked(eid) => {
                out.push(UNLOCKED);
                text(eid, out);
            }
            Record::Grave(grave) => {
                out.push(GRAVE);
                out.extend(grave.cookie.0.to_le_bytes());
                out.extend(grave.until_ms.to_le_bytes());
            }
            Record::Complete => out.push(COMPLETE),
            Record::Ended => out.push(ENDED),
        }
    }

    /// Takes one record off the front; `None` where there is none.
    pub fn decode(bytes: &mut &[u8]) -> Option<Record> {
        Some(match byte(bytes)? {
            HEAD => Record::Head(Head {
                boot: u128::from_le_bytes(take(bytes)?),
                netns: u32::from_le_bytes(take(bytes)?),
                netns_cookie: Some(u64::from_le_bytes(take(bytes)?)).filter(|cookie| *cookie != 0),
            }),
            SENSOR => Record::Sensor(Sensor {
                number: byte(bytes).filter(|number| *number < 32)?,
                view: u64::from_le_bytes(take(bytes)?),
                primed: Primed::from_bits(take(bytes)?),
                id: read_text(bytes)?,
            }),
            SOCKET => Record::Socket(Socket::decode(bytes)?),
            LEFT => {
                let kind = kind(byte(bytes)?);
                Record::Left {
                    cookie: Cookie(u64::from_le_bytes(take(bytes)?)),
                    kind,
                    sensors: u32::from_le_bytes(take(bytes)?),
                }
            }
            SETTLED => Record::Settled,
            LOCK => Record::Lock(LockNote {
                fresh: byte(bytes)? != 0,
                first: time(u64::from_le_bytes(take(bytes)?)),
                last: time(u64::from_le_bytes(take(bytes)?)),
                muted: u64::from_le_bytes(take(bytes)?),
                eid: read_text(bytes)?,
            }),
            UNLOCKED => Record::Unlocked(read_text(bytes)?),
            GRAVE => Record::Grave(Grave {
                cookie: Cookie(u64::from_le_bytes(take(bytes)?)),
                until_ms: u64::from_le_bytes(take(bytes)?),
            }),
            COMPLETE => Record::Complete,
            ENDED => Record::Ended,
            _ => return None,
        })
    }
}

impl Socket {
    fn encode(&self, out: &mut Vec<u8>) {
        let id = &self.id;
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(id.proto == Proto::Udp, UDP)
            | flag(id.family == Family::V6, V6)
            | flag(id.v4_mapped, MAPPED)
            | flag(self.kind == RowKind::Mini, MINI)
            | flag(matches!(self.owner, Owner::Known { .. }), OWNED)
            | flag(self.name.is_some(), NAMED)
            | flag(id.ifindex != 0, BOUND)
            | flag(self.process.is_some(), CALLED);
        let no_owner = match self.owner {
            Owner::Known { .. } | Owner::Unknown(OwnerUnknown::NotRead) => 0,
            Owner::Unknown(OwnerUnknown::Minisocket) => 1,
            Owner::Unknown(OwnerUnknown::NoFile) => 2,
        };
        let direction = match self.direction {
            None => 0,
            Some(Direction::Inbound) => 1,
            Some(Direction::Outbound) => 2,
            Some(Direction::Unknown) => 3,
        };
        let no_name = self.no_name.map_or(0, |why| why as u8 + 1);
        let why = no_owner | direction << 2 | no_name << 4;
        out.extend([SOCKET, flags, self.state as u8, why]);
        out.extend(self.cookie.0.to_le_bytes());
        out.extend(self.first_seen_ms.to_le_bytes());
        out.extend(self.in_view.to_le_bytes());
        out.extend(self.nameless.to_le_bytes());
        let wide = is_wide(flags);
        for end in [id.local, id.remote] {
            out.extend(end.port.to_le_bytes());
            match end.ip {
                IpAddr::V4(ip) if !wide => out.extend(ip.octets()),
                IpAddr::V4(ip) => out.extend(ip.to_ipv6_mapped().octets()),
                IpAddr::V6(ip) if wide => out.extend(ip.octets()),
                // As the table packs it: no such socket was ever seen.
                IpAddr::V6(ip) => out.extend(&ip.octets()[..4]),
            }
        }
        if id.ifindex != 0 {
            out.extend(id.ifindex.to_le_bytes());
        }
        if let Owner::Known { uid, inode } = self.owner {
            out.extend(uid.to_le_bytes());
            out.extend(inode.to_le_bytes());
        }
        if let Some(Caller { pid, tid, comm }) = self.process {
            out.extend(pid.to_le_bytes());
            out.extend(tid.to_le_bytes());
            out.extend(comm.0);
        }
        if let Some(name) = &self.name {
            text(name.as_str(), out);
        }
    }

    fn decode(bytes: &mut &[u8]) -> Option<Socket> {
        let [flags, state, why] = take(bytes)?;
        let cookie = Cookie(u64::from_le_bytes(take(bytes)?));
        let first_seen_ms = u64::from_le_bytes(take(bytes)?);
        let in_view = u32::from_le_bytes(take(bytes)?);
        let nameless = u32::from_le_bytes(take(bytes)?);
        let wide = is_wide(flags);
        let mut end = || -> Option<Endpoint> {
            let port = u16::from_le_bytes(take(bytes)?);
            Some(if wide {
                Endpoint::new(Ipv6Addr::from(take::<16>(bytes)?), port)
            } else {
                Endpoint::new(Ipv4Addr::from(take::<4>(bytes)?), port)
            })
        };
        let (local, remote) = (end()?, end()?);
        let ifindex = if flags & BOUND == 0 {
            0
        } else {
            u32::from_le_bytes(take(bytes)?)
        };
        let owner = if flags & OWNED == 0 {
            Owner::Unknown(match why & 3 {
                0 => OwnerUnknown::NotRead,
                1 => OwnerUnknown::Minisocket,
                2 => OwnerUnknown::NoFile,
                _ => return None,
            })
        } else {
            Owner::Known {
                uid: u32::from_le_bytes(take(bytes)?),
                inode: u32::from_le_bytes(take(bytes)?),
            }
        };
        let direction = match why >> 2 & 3 {
            0 => None,
            1 => Some(Direction::Inbound),
            2 => Some(Direction::Outbound),
            _ => Some(Direction::Unknown),
        };
        let process = if flags & CALLED == 0 {
            None
        } else {
            Some(Caller {
                pid: u32::from_le_bytes(take(bytes)?),
                tid: u32::from_le_bytes(take(bytes)?),
                comm: Comm(take(bytes)?),
            })
        };
        // Both are of connections, and a process has a number.
        let is_tcp = flags & UDP == 0;
        if !is_tcp && (direction.is_some() || process.is_some())
            || process.is_some_and(|caller| caller.pid == 0)
        {
            return None;
        }
        let name = match flags & NAMED {
            0 => None,
            _ => Some(Name::read(read_text(bytes)?.as_bytes())?),
        };
        let no_name = match why >> 4 {
            0 => None,
            code => Some(*WHY_NAMELESS.get(usize::from(code) - 1)?),
        };
        let (proto, family) = (
            if flags & UDP == 0 {
                Proto::Tcp
            } else {
                Proto::Udp
            },
            if flags & V6 == 0 {
                Family::V4
            } else {
                Family::V6
            },
        );
        Some(Socket {
            cookie,
            kind: kind(flags),
            id: SockId {
                proto,
                family,
                v4_mapped: flags & MAPPED != 0,
                local,
                remote,
                ifindex,
            },
            state: TcpState::from_wire(state)?,
            direction,
            process,
            owner,
            first_seen_ms,
            in_view,
            name,
            no_name,
            nameless,
        })
    }
}

/// In the order of the type: the file has a reason's place in it, from 1.
const WHY_NAMELESS: [HostUnknown; 6] = [
    HostUnknown::NotApplicable,
    HostUnknown::Skipped,
    HostUnknown::NotFound,
    HostUnknown::Failed,
    HostUnknown::TimedOut,
    HostUnknown::Overload,
];

fn is_wide(flags: u8) -> bool {
    flags & V6 != 0 && flags & MAPPED == 0
}

fn kind(flags: u8) -> RowKind {
    if flags & MINI == 0 {
        RowKind::Full
    } else {
        RowKind::Mini
    }
}

/// A text with its length before it. Ids, names and event ids are short; one that
/// is not is cut, and will not be found again.
fn text(text: &str, out: &mut Vec<u8>) {
    let mut length = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    out.extend((length as u16).to_le_bytes());
    out.extend(&text.as_bytes()[..length]);
}

fn read_text(bytes: &mut &[u8]) -> Option<String> {
    let length = usize::from(u16::from_le_bytes(take(bytes)?));
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

fn byte(bytes: &mut &[u8]) -> Option<u8> {
    take::<1>(bytes).map(|[byte]| byte)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn time(micros: u64) -> SystemTime {
    // Far beyond the year 9999 there is no time; the file is not asked to have one.
    UNIX_EPOCH
        .checked_add(Duration::from_micros(micros))
        .unwrap_or(UNIX_EPOCH)
}
