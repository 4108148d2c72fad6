//! One socket in the table, packed: a hundred bytes, whatever the family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use crate::model::{
    Attribution, Caller, Cgroup, CgroupUnknown, Cookie, Direction, Endpoint, Family, Host,
    HostUnknown, Name, Netns, Owner, OwnerUnknown, Placed, Proto, Renumbering, Row, SensorIx,
    SockId, SocketData, SocketKey, TcpState, Who,
};

/// A socket as it was last seen, and which sensors have it in view.
#[derive(Clone, Debug)]
pub struct Entry {
    cookie: Cookie,
    local_ip: [u8; 16],
    remote_ip: [u8; 16],
    first_seen_ms: u64,
    name: Option<Name>,
    who: Option<Rc<Who>>,
    netns: Netns,
    ifindex: u32,
    uid: u32,
    inode: u32,
    /// The sensors that have the socket in view.
    pub in_view: u32,
    /// The sensors for which an opening waits for a name.
    pub waiting: u32,
    /// The sensors that settled on "no name" whatever the others found.
    nameless: u32,
    /// The number of the last dump that held it.
    pub seen: u32,
    local_port: u16,
    remote_port: u16,
    flags: u16,
    state: TcpState,
    no_name: Option<HostUnknown>,
}

/// What can be noted of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Mark {
    /// Read by the dump under way, which has not completed yet.
    Staged = 1 << 3,
    /// A change of it waits for the dump under way to complete.
    Changing = 1 << 4,
    /// Missing from a completed dump whose absences are looked at.
    Missed = 1 << 5,
    /// Waits to be asked about.
    Suspected = 1 << 6,
    /// The exact query about it has failed.
    Unaskable = 1 << 7,
    /// A hook saw the connect() that gave it its ends.
    Hooked = 1 << 8,
    /// Taken over from before a restart, and not brought up to date since.
    Carried = 1 << 13,
    /// Not even a whole dump held it: it lives, and the kernel shows it to nobody.
    Hidden = 1 << 14,
}

// The flags that are no marks.
const UDP: u16 = 1;
const V6: u16 = 1 << 1;
const MAPPED: u16 = 1 << 2;
/// Two bits: none, or a direction.
const DIRECTION: u16 = 9;
/// Two bits: an owner is known, or why none is.
const OWNER: u16 = 11;

const DIRECTIONS: [Option<Direction>; 4] = [
    None,
    Some(Direction::Inbound),
    Some(Direction::Outbound),
    Some(Direction::Unknown),
];

const OWNERS: [Option<OwnerUnknown>; 4] = [
    None,
    Some(OwnerUnknown::NotRead),
    Some(OwnerUnknown::Minisocket),
    Some(OwnerUnknown::NoFile),
];

impl Entry {
    /// A socket that was first seen `first_seen_ms` after the sensor began, in
    /// nobody's view yet.
    pub fn new(
        key: SocketKey,
        id: SockId,
        state: TcpState,
        owner: Owner,
        first_seen_ms: u64,
    ) -> Entry {
        let mut entry = Entry {
            cookie: key.cookie,
            local_ip: [0; 16],
            remote_ip: [0; 16],
            first_seen_ms,
            name: None,
            who: None,
            netns: key.netns,
            ifindex: 0,
            uid: 0,
            inode: 0,
            in_view: 0,
            waiting: 0,
            nameless: 0,
            seen: 0,
            local_port: 0,
            remote_port: 0,
            flags: 0,
            state,
            no_name: None,
        };
        entry.rebind(id, first_seen_ms);
        entry.set_owner(owner);
        entry
    }

    /// Its identity.
    pub fn key(&self) -> SocketKey {
        SocketKey {
            netns: self.netns,
            cookie: self.cookie,
        }
    }

    /// Its ends.
    pub fn id(&self) -> SockId {
        let ip = |bytes: &[u8; 16]| -> IpAddr {
            if self.flags & V6 == 0 || self.flags & MAPPED != 0 {
                Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()
            } else {
                Ipv6Addr::from(*bytes).into()
            }
        };
        SockId {
            proto: self.proto(),
            family: if self.flags & V6 == 0 {
                Family::V4
            } else {
                Family::V6
            },
            v4_mapped: self.flags & MAPPED != 0,
            local: Endpoint {
                ip: ip(&self.local_ip),
                port: self.local_port,
            },
            remote: Endpoint {
                ip: ip(&self.remote_ip),
                port: self.remote_port,
            },
            ifindex: self.ifindex,
        }
    }

    /// Whether it speaks TCP.
    pub fn is_tcp(&self) -> bool {
        self.proto() == Proto::Tcp
    }

    fn proto(&self) -> Proto {
        if self.flags & UDP == 0 {
            Proto::Tcp
        } else {
            Proto::Udp
        }
    }

    /// Gives it new ends, first seen at `seen_ms`; the name of the old peer, who
    /// connected to it and which way go with them.
    pub fn rebind(&mut self, id: SockId, seen_ms: u64) {
        self.first_seen_ms = seen_ms;
        let pack = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&v4.octets());
                bytes
            }
            IpAddr::V6(v6) => v6.octets(),
        };
        let remote_ip = pack(id.remote.ip);
        if remote_ip != self.remote_ip {
            self.name = None;
            self.no_name = None;
            self.nameless = 0;
        }
        self.local_ip = pack(id.local.ip);
        self.remote_ip = remote_ip;
        self.local_port = id.local.port;
        self.remote_port = id.remote.port;
        self.ifindex = id.ifindex;
        self.forget_caller();
        self.flags &= !(UDP | V6 | MAPPED | 0b11 << DIRECTION | Mark::Hooked as u16);
        self.flags |= if id.proto == Proto::Udp { UDP } else { 0 }
            | if id.family == Family::V6 { V6 } else { 0 }
            | if id.v4_mapped { MAPPED } else { 0 };
    }

    /// Whether this is noted of it.
    pub fn is(&self, mark: Mark) -> bool {
        self.flags & mark as u16 != 0
    }

    /// Notes this of it, or that it is not so.
    pub fn note(&mut self, mark: Mark, on: bool) {
        if on {
            self.flags |= mark as u16;
        } else {
            self.flags &= !(mark as u16);
        }
    }

    /// Which way the connection was opened.
    pub fn direction(&self) -> Option<Direction> {
        DIRECTIONS[usize::from(self.flags >> DIRECTION & 0b11)]
    }

    /// Notes which way the connection was opened.
    pub fn set_direction(&mut self, direction: Direction) {
        let bits = match direction {
            Direction::Inbound => 1,
            Direction::Outbound => 2,
            Direction::Unknown => 3,
        };
        self.flags = self.flags & !(0b11 << DIRECTION) | bits << DIRECTION;
    }

    /// Who connected it, where a hook saw that.
    pub fn process(&self) -> Option<Caller> {
        self.who.as_ref()?.caller
    }

    /// Who has it open, where that was asked.
    pub fn holders(&self) -> Option<&Attribution> {
        self.who.as_ref()?.holders.as_ref()
    }

    /// The cgroup that it belongs to, where its id is known.
    pub fn cgroup(&self) -> Option<&Rc<Cgroup>> {
        self.who.as_ref()?.cgroup.as_ref()
    }

    /// The same, or why that is not known.
    pub fn belongs_to(&self) -> Result<&Rc<Cgroup>, CgroupUnknown> {
        self.cgroup().ok_or_else(|| match self.owner() {
            // No row of it was read since the restart.
            Owner::Known { .. } if self.is(Mark::Carried) => CgroupUnknown::NotRead,
            owner => owner.into(),
        })
    }

    /// All of these.
    pub fn who(&self) -> Option<&Rc<Who>> {
        self.who.as_ref()
    }

    /// Notes all of these.
    pub fn set_who(&mut self, who: Rc<Who>) {
        self.who = Some(who);
    }

    /// Other ends, and so another connect(); those who have it open stay, and so
    /// does its cgroup.
    fn forget_caller(&mut self) {
        if let Some(who) = self.who.as_ref().filter(|who| who.caller.is_some()) {
            self.who = Some(Rc::new(Who {
                caller: None,
                ..Who::clone(who)
            }));
        }
    }

    /// Notes who connected it, as a hook saw it: `who` says so, and what else was
    /// known of it.
    pub fn set_process(&mut self, who: Rc<Who>) {
        self.who = Some(who);
        self.note(Mark::Hooked, true);
        self.set_direction(Direction::Outbound);
    }

    /// The last state seen.
    pub fn state(&self) -> TcpState {
        self.state
    }

    /// Notes a new state.
    pub fn set_state(&mut self, state: TcpState) {
        self.state = state;
    }

    /// When it was first seen with these ends, in ms since the sensor began.
    pub fn first_seen_ms(&self) -> u64 {
        self.first_seen_ms
    }

    /// Whose it is.
    pub fn owner(&self) -> Owner {
        match OWNERS[usize::from(self.flags >> OWNER & 0b11)] {
            Some(why) => Owner::Unknown(why),
            None => Owner::Known {
                uid: self.uid,
                inode: self.inode,
            },
        }
    }

    /// Whether some process may have it open.
    pub fn has_inode(&self) -> bool {
        self.inode != 0
    }

    /// Notes an owner. What was known once is kept: a socket that lost its file
    /// still belongs to who opened it.
    pub fn set_owner(&mut self, owner: Owner) {
        match owner {
            Owner::Known { uid, inode } => {
                (self.uid, self.inode) = (uid, inode);
                self.set_no_owner(0);
            }
            Owner::Unknown(why) if self.inode == 0 => self.set_no_owner(match why {
                OwnerUnknown::NotRead => 1,
                OwnerUnknown::Minisocket => 2,
                OwnerUnknown::NoFile => 3,
            }),
            Owner::Unknown(_) => {}
        }
    }

    fn set_no_owner(&mut self, bits: u16) {
        self.flags = self.flags & !(0b11 << OWNER) | bits << OWNER;
    }

    /// Whether a row says nothing new.
    pub fn is_current(&self, row: &Row) -> bool {
        self.state == row.state
            && self.id().same_ends(&row.id)
            && match row.owner {
                Owner::Known { uid, inode } => self.inode == inode && self.uid == uid,
                Owner::Unknown(_) => true,
            }
    }

    /// It as a row of a table that is shown, with the name that is known.
    pub fn data(&self) -> SocketData {
        SocketData {
            action: None,
            id: self.id(),
            wiped: false,
            host: match &self.name {
                Some(name) => Host::Named(name.clone()),
                None => Host::Unknown(HostUnknown::NotApplicable),
            },
            state: self.state,
            direction: self.direction(),
            cookie: self.cookie,
            netns: self.netns,
            netns_name: None,
            owner: self.owner(),
            user: None,
            process: self.process(),
            holders: self.holders().cloned(),
            cmdline: false,
            cgroup: Some(match self.belongs_to() {
                Ok(cgroup) => cgroup.placed(),
                Err(why) => Placed::nowhere(why),
            }),
            between_ticks: false,
            closed_first: None,
            life: None,
            traffic: None,
        }
    }

    /// Whether a sensor has it in view, or waits for a name to know.
    pub fn is_watched(&self) -> bool {
        (self.in_view | self.waiting) != 0
    }

    /// The sensors have other numbers now.
    pub fn renumber(&mut self, sensors: &Renumbering) {
        self.in_view = sensors.mask(self.in_view);
        self.waiting = sensors.mask(self.waiting);
        self.nameless = sensors.mask(self.nameless);
    }

    /// What a sensor knows of its reverse name.
    pub fn host(&self, sensor: SensorIx) -> Host {
        match (&self.name, self.no_name) {
            (Some(name), _) if self.nameless & sensor.bit() == 0 => Host::Named(name.clone()),
            (_, why) if self.nameless & sensor.bit() != 0 => {
                Host::Unknown(why.unwrap_or(HostUnknown::TimedOut))
            }
            _ => Host::Unasked,
        }
    }

    /// Notes what a sensor found out; it is final for that sensor.
    pub fn set_host(&mut self, sensor: SensorIx, host: Host) {
        match host {
            // Not asked, or nothing to be asked: each sensor knows that itself.
            Host::Unasked | Host::Unknown(HostUnknown::NotApplicable | HostUnknown::Skipped) => {}
            Host::Unknown(why) => {
                self.no_name = Some(why);
                self.nameless |= sensor.bit();
            }
            Host::Named(name) => self.name = Some(name),
        }
    }
}

#[cfg(test)]
mod tests;
