//! Who accepts connections where.
//!
//! An accepted socket has its listener's local end, and is made while that
//! listener lives. So a connection that is new to the table is inbound if its
//! local end is that of a listener in the table, or of one that ended too
//! recently for the last dump to have held its children. Of a socket that was
//! never read and ended without a connection nobody can say whether it was a
//! listener or only bound: its local end may have been a listener's.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::model::{Cookie, Family, SockId};

/// Dumps that must begin and complete after a listener's end before its children
/// are all known. One would do, were it not that a dump under churn can miss a
/// row, and that a child of which only its notice told is decided about a dump
/// later.
const DUMPS: u8 = 3;

/// How many ended listeners are remembered; past it, until they are forgotten,
/// nothing that matches no listener is taken for outbound.
const BOUND: usize = 65_536;

/// What a local end is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Local {
    /// No listener's.
    Free,
    /// Perhaps a listener's.
    Perhaps,
    /// A listener's.
    Listeners,
}

/// Every listener, and the ended ones that may still be needed.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    by_port: HashMap<u16, Vec<Listener>>,
    ended: usize,
    /// Too many ended at once: what is not known to be a listener's may be.
    blurred: Option<Ended>,
}

#[derive(Debug)]
struct Listener {
    cookie: Cookie,
    ip: IpAddr,
    family: Family,
    ifindex: u32,
    ended: Option<Ended>,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    /// The number of the newest dump at its end.
    at: u32,
    /// How many dumps that began since must still complete.
    dumps: u8,
    /// It is known to have been a listener.
    certain: bool,
}

impl Ended {
    fn at(at: u32, certain: bool) -> Ended {
        Ended {
            at,
            dumps: DUMPS,
            certain,
        }
    }

    /// A dump completed; whether that was the last one it was kept for.
    fn outlives(&mut self, number: u32) -> bool {
        if number.wrapping_sub(self.at) as i32 > 0 {
            self.dumps -= 1;
        }
        self.dumps > 0
    }
}

impl Listener {
    fn new(cookie: Cookie, id: &SockId, ended: Option<Ended>) -> Listener {
        Listener {
            cookie,
            ip: id.local.ip,
            family: id.family,
            ifindex: id.ifindex,
            ended,
        }
    }

    /// Whether both ended, at the same place, with the same certainty.
    fn is_like(&self, other: &Listener) -> bool {
        let certain = |one: &Listener| one.ended.map(|ended| ended.certain);
        let place = |one: &Listener| (one.ip, one.family, one.ifindex);
        certain(self).is_some() && certain(self) == certain(other) && place(self) == place(other)
    }

    /// Whether it could have accepted such a socket. An AF_INET socket is no
    /// child of an AF_INET6 listener, whose IPv4 children are v4-mapped; one that
    /// is bound to a device hands that on. A local address that was wiped may
    /// have been any.
    fn fits(&self, id: &SockId) -> bool {
        let any = match self.ip {
            IpAddr::V4(ip) => ip.is_unspecified() && id.local.ip.is_ipv4(),
            // Without IPV6_V6ONLY it takes v4-mapped connections too.
            IpAddr::V6(ip) => ip.is_unspecified(),
        };
        self.family == id.family
            && (self.ifindex == 0 || self.ifindex == id.ifindex)
            && (any || self.ip == id.local.ip || id.local.ip.is_unspecified())
    }
}

impl Listeners {
    /// A socket listens; it may be known already.
    pub fn listens(&mut self, cookie: Cookie, id: &SockId) {
        let bucket = self.by_port.entry(id.local.port).or_default();
        let listener = Listener::new(cookie, id, None);
        match bucket.iter_mut().find(|known| known.cookie == cookie) {
            Some(known) => {
                self.ended -= usize::from(known.ended.is_some());
                *known = listener;
            }
            None => bucket.push(listener),
        }
    }

    /// A socket ended, or listens no more, while dump number `number` was the
    /// newest. Tells whether it listened.
    pub fn ends(&mut self, cookie: Cookie, id: &SockId, number: u32) -> bool {
        let listened = self
            .by_port
            .get(&id.local.port)
            .is_some_and(|bucket| bucket.iter().any(|known| known.cookie == cookie));
        if listened {
            self.end(cookie, id, Ended::at(number, true));
        }
        listened
    }

    /// A socket that was never read ended; it may have been a listener.
    pub fn may_have_listened(&mut self, cookie: Cookie, id: &SockId, number: u32) {
        self.end(cookie, id, Ended::at(number, false));
    }

    fn end(&mut self, cookie: Cookie, id: &SockId, ended: Ended) {
        let listener = Listener::new(cookie, id, Some(ended));
        let bucket = self.by_port.entry(id.local.port).or_default();
        // What was known of it gives way; and one that ended at the same place before
        // need not be remembered besides.
        let before = bucket.len();
        let ended = &mut self.ended;
        bucket.retain(|known| {
            let superseded = known.cookie == cookie || known.is_like(&listener);
            *ended -= usize::from(superseded && known.ended.is_some());
            !superseded
        });
        if bucket.len() < before || self.ended < BOUND {
            self.ended += 1;
            bucket.push(listener);
        } else {
            if bucket.is_empty() {
                self.by_port.remove(&id.local.port);
            }
            self.blurred = listener.ended;
        }
    }

    /// Those that listen.
    pub fn live(&self) -> impl Iterator<Item = Cookie> + '_ {
        let each = self.by_port.values().flatten();
        each.filter(|listener| listener.ended.is_none())
            .map(|listener| listener.cookie)
    }

    /// Whose the local end of a connection is.
    pub fn local(&self, id: &SockId) -> Local {
        let bucket = self.by_port.get(&id.local.port).map_or(&[][..], |it| it);
        let best = bucket
            .iter()
            .filter(|listener| listener.fits(id))
            .map(|listener| match listener.ended {
                None | Some(Ended { certain: true, .. }) => Local::Listeners,
                Some(_) => Local::Perhaps,
            })
            .max();
        match (best, self.blurred) {
            (Some(best), _) => best,
            (None, Some(_)) => Local::Perhaps,
            (None, None) => Local::Free,
        }
    }

    /// Dump number `number` of connections and listeners completed.
    pub fn dumped(&mut self, number: u32) {
        if let Some(blurred) = &mut self.blurred
            && !blurred.outlives(number)
        {
            self.blurred = None;
        }
        if self.ended == 0 {
            return;
        }
        let mut ended = 0;
        self.by_port.retain(|_, bucket| {
            bucket.retain_mut(|listener| match &mut listener.ended {
                None => true,
                Some(end) => {
                    let kept = end.outlives(number);
                    ended += usize::from(kept);
                    kept
                }
            });
            !bucket.is_empty()
        });
        self.ended = ended;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Proto;

    fn id(family: Family, local: &str, port: u16, ifindex: u32) -> SockId {
        let remote = match family {
            Family::V4 => "192.0.2.1",
            Family::V6 if local.starts_with("::ffff:") => "::ffff:192.0.2.1",
            Family::V6 => "2001:db8::9",
        };
        let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
        SockId::from_wire(Proto::Tcp, family, (local, port), (remote, 9), ifindex)
    }

    fn listener(family: Family, local: &str, ifindex: u32) -> SockId {
        let any = match family {
            Family::V4 => "0.0.0.0",
            Family::V6 => "::",
        };
        let (local, any) = (local.parse().unwrap(), any.parse().unwrap());
        SockId::from_wire(Proto::Tcp, family, (local, 80), (any, 0), ifindex)
    }

    #[test]
    fn a_child_has_the_end_the_family_and_the_device_of_its_listener() {
        use Family::{V4, V6};
        for (listens, child, fits) in [
            (listener(V4, "0.0.0.0", 0), id(V4, "10.0.0.1", 80, 0), true),
            (listener(V4, "0.0.0.0", 0), id(V4, "10.0.0.1", 81, 0), false),
            (listener(V4, "10.0.0.1", 0), id(V4, "10.0.0.1", 80, 0), true),
            (
                listener(V4, "10.0.0.2", 0),
                id(V4, "10.0.0.1", 80, 0),
                false,
            ),
            (
                listener(V4, "0.0.0.0", 0),
                id(V6, "::ffff:10.0.0.1", 80, 0),
                false,
            ),
            (listener(V6, "::", 0), id(V4, "10.0.0.1", 80, 0), false),
            (
                listener(V6, "::", 0),
                id(V6, "::ffff:10.0.0.1", 80, 0),
                true,
            ),
            (listener(V6, "::", 0), id(V6, "2001:db8::1", 80, 0), true),
            (
                listener(V6, "2001:db8::1", 0),
                id(V6, "2001:db8::1", 80, 0),
                true,
            ),
            (
                listener(V6, "2001:db8::1", 0),
                id(V6, "2001:db8::2", 80, 0),
                false,
            ),
            (
                listener(V6, "::ffff:10.0.0.1", 0),
                id(V6, "::ffff:10.0.0.1", 80, 0),
                true,
            ),
            (
                listener(V6, "::ffff:10.0.0.1", 0),
                id(V6, "2001:db8::1", 80, 0),
                false,
            ),
            (
                listener(V6, "::ffff:0.0.0.0", 0),
                id(V6, "::ffff:10.0.0.1", 80, 0),
                true,
            ),
            (listener(V4, "0.0.0.0", 3), id(V4, "10.0.0.1", 80, 3), true),
            (listener(V4, "0.0.0.0", 3), id(V4, "10.0.0.1", 80, 0), false),
            // The kernel binds a link-local child to its device.
            (listener(V6, "::", 0), id(V6, "fe80::1", 80, 3), true),
            // tcp_disconnect() took the address away.
            (listener(V4, "10.0.0.2", 0), id(V4, "0.0.0.0", 80, 0), true),
        ] {
            let mut listeners = Listeners::default();
            listeners.listens(Cookie(1), &listens);
            let expected = if fits { Local::Listeners } else { Local::Free };
            assert_eq!(listeners.local(&child), expected, "{listens:?} {child:?}");
        }
    }

    #[test]
    fn an_ended_listener_is_remembered_for_three_dumps_that_began_since() {
        let (listens, child) = (
            listener(Family::V4, "0.0.0.0", 0),
            id(Family::V4, "10.0.0.1", 80, 0),
        );
        let mut listeners = Listeners::default();
        listeners.listens(Cookie(1), &listens);
        listeners.ends(Cookie(1), &listens, 7);
        listeners.ends(Cookie(1), &listens, 7);
        listeners.may_have_listened(Cookie(2), &listens, 7);
        for number in [6, 7, 8, 9] {
            assert_eq!(listeners.local(&child), Local::Listeners);
            listeners.dumped(number);
        }
        assert_eq!(listeners.local(&child), Local::Listeners);
        listeners.dumped(10);
        assert_eq!(listeners.local(&child), Local::Free);
        assert_eq!((listeners.ended, listeners.by_port.len()), (0, 0));
    }

    /// Whatever ended at its place before.
    #[test]
    fn a_listener_that_has_ended_listens_no_more() {
        let (listens, child) = (
            listener(Family::V4, "0.0.0.0", 0),
            id(Family::V4, "10.0.0.1", 80, 0),
        );
        let mut listeners = Listeners::default();
        for cookie in [1, 2] {
            listeners.listens(Cookie(cookie), &listens);
        }
        for cookie in [1, 2] {
            listeners.ends(Cookie(cookie), &listens, 7);
        }
        assert_eq!(listeners.ended, 1, "one stands for both");
        for number in [8, 9, 10] {
            assert_eq!(listeners.local(&child), Local::Listeners);
            listeners.dumped(number);
        }
        assert_eq!(listeners.local(&child), Local::Free);
        assert_eq!((listeners.ended, listeners.by_port.len()), (0, 0));
    }

    #[test]
    fn too_many_ends_blur_what_is_free_and_nothing_else() {
        let child = id(Family::V4, "10.0.0.1", 80, 0);
        let mut listeners = Listeners::default();
        for cookie in 0..=BOUND as u64 {
            let other = id(
                Family::V4,
                "10.0.0.1",
                81 + (cookie % 5000) as u16,
                cookie as u32 / 5000,
            );
            listeners.may_have_listened(Cookie(cookie), &other, 1);
        }
        assert_eq!(listeners.local(&child), Local::Perhaps);
        listeners.listens(Cookie(u64::MAX), &listener(Family::V4, "0.0.0.0", 0));
        assert_eq!(listeners.local(&child), Local::Listeners);
        for number in [2, 3, 4] {
            listeners.dumped(number);
        }
        assert_eq!((listeners.ended, listeners.by_port.len()), (0, 1));
        assert_eq!(
            listeners.local(&id(Family::V4, "10.0.0.1", 82, 0)),
            Local::Free
        );
    }
}
