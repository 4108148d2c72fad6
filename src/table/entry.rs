//! One socket in the table, packed: a hundred bytes, whatever the family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{
    Cookie, Endpoint, Family, Host, HostUnknown, Name, Netns, Owner, OwnerUnknown, Proto,
    Renumbering, Row, SensorIx, SockId, SocketKey, TcpState,
};

/// A socket as it was last seen, and which sensors have it in view.
#[derive(Clone, Debug)]
pub struct Entry {
    cookie: Cookie,
    local_ip: [u8; 16],
    remote_ip: [u8; 16],
    first_seen_ms: u64,
    name: Option<Name>,
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
    state: TcpState,
    bits: u8,
    no_name: Option<HostUnknown>,
    no_owner: Option<OwnerUnknown>,
    /// Read by the dump under way, which has not completed yet.
    pub staged: bool,
    /// A change of it waits for the dump under way to complete.
    pub changing: bool,
    /// Missing from a completed dump whose absences are looked at.
    pub missed: bool,
    /// Waits to be asked about.
    pub suspected: bool,
    /// The exact query about it has failed.
    pub unaskable: bool,
}

const UDP: u8 = 1;
const V6: u8 = 2;
const MAPPED: u8 = 4;

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
            state,
            bits: 0,
            no_name: None,
            no_owner: None,
            staged: false,
            changing: false,
            missed: false,
            suspected: false,
            unaskable: false,
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
            if self.bits & V6 == 0 || self.bits & MAPPED != 0 {
                Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()
            } else {
                Ipv6Addr::from(*bytes).into()
            }
        };
        SockId {
            proto: self.proto(),
            family: if self.bits & V6 == 0 {
                Family::V4
            } else {
                Family::V6
            },
            v4_mapped: self.bits & MAPPED != 0,
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

    fn proto(&self) -> Proto {
        if self.bits & UDP == 0 {
            Proto::Tcp
        } else {
            Proto::Udp
        }
    }

    /// Gives it new ends, first seen at `seen_ms`; the name of the old peer goes
    /// with it.
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
        self.bits = if id.proto == Proto::Udp { UDP } else { 0 }
            | if id.family == Family::V6 { V6 } else { 0 }
            | if id.v4_mapped { MAPPED } else { 0 };
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
        match self.no_owner {
            Some(why) => Owner::Unknown(why),
            None => Owner::Known {
                uid: self.uid,
                inode: self.inode,
            },
        }
    }

    /// Notes an owner. What was known once is kept: a socket that lost its file
    /// still belongs to who opened it.
    pub fn set_owner(&mut self, owner: Owner) {
        match owner {
            Owner::Known { uid, inode } => {
                (self.uid, self.inode) = (uid, inode);
                self.no_owner = None;
            }
            Owner::Unknown(why) if self.inode == 0 => self.no_owner = Some(why),
            Owner::Unknown(_) => {}
        }
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
mod tests {
    use super::*;

    fn id(family: Family, local: &str, remote: &str) -> SockId {
        SockId::from_wire(
            Proto::Udp,
            family,
            (local.parse().unwrap(), 5),
            (remote.parse().unwrap(), 53),
            3,
        )
    }

    #[test]
    fn packing_loses_nothing() {
        for id in [
            id(Family::V4, "10.0.0.1", "10.0.0.2"),
            id(Family::V6, "2001:db8::1", "fe80::1"),
            id(Family::V6, "::ffff:10.0.0.1", "::ffff:10.0.0.2"),
            id(Family::V6, "::", "::"),
        ] {
            let key = SocketKey::new(Netns(4_026_531_833), Cookie(u64::MAX));
            let entry = Entry::new(
                key,
                id,
                TcpState::Close,
                Owner::Unknown(OwnerUnknown::NoFile),
                9,
            );
            assert_eq!(entry.id(), id);
            assert_eq!(entry.key(), key);
            assert_eq!(entry.owner(), Owner::Unknown(OwnerUnknown::NoFile));
        }
    }

    #[test]
    fn an_entry_is_about_a_hundred_bytes() {
        assert!(size_of::<Entry>() <= 112, "{}", size_of::<Entry>());
    }

    #[test]
    fn no_name_is_final_for_the_sensor_that_gave_up() {
        let key = SocketKey::new(Netns(1), Cookie(1));
        let id = id(Family::V4, "10.0.0.1", "10.0.0.2");
        let owner = Owner::Known { uid: 0, inode: 7 };
        let mut entry = Entry::new(key, id, TcpState::Established, owner, 0);
        let (hasty, patient) = (SensorIx(0), SensorIx(1));
        entry.set_host(hasty, Host::Unknown(HostUnknown::TimedOut));
        assert_eq!(entry.host(patient), Host::Unasked, "it has not asked yet");
        entry.set_host(patient, Host::Named(Name::escaped(b"a.example")));
        assert_eq!(entry.host(hasty), Host::Unknown(HostUnknown::TimedOut));
        assert_eq!(entry.host(patient).as_str(), "a.example");
        entry.set_owner(Owner::Unknown(OwnerUnknown::NoFile));
        assert_eq!(entry.owner(), owner, "an owner once known is kept");
    }
}
