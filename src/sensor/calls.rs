//! The connect() calls that a hook saw and whose sockets the table does not have
//! yet: a socket is read at the next tick, or heard of when it ends.
//!
//! A call is kept until a row or the notice of its socket takes it, for as long
//! as the socket lives: a failed connect() leaves a socket that no dump holds,
//! and whose notice has lost its destination. Bounded: past it the oldest goes,
//! and is counted.

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

use crate::model::{Caller, Cgroup, Connect, Cookie, Endpoint, Who};

/// How many calls may wait for their sockets.
const BOUND: usize = 65_536;
/// Calls of MPTCP sockets that are remembered, and for how many dumps: their
/// subflows have cookies of their own, and are known by their destination alone.
const MPTCP_BOUND: usize = 1024;
const MPTCP_DUMPS: u8 = 2;
/// Dumps that complete before a sweep: the one under way may have passed by a
/// socket in the making, the next one holds it.
const SWEEP_DUMPS: u8 = 2;

/// What a hook saw, as far as its socket needs it.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub caller: Rc<Who>,
    pub remote: Endpoint,
    pub v4_mapped: bool,
    turn: u64,
}

/// Whether a call to one address made a connection to another: to no address in
/// particular is to loopback.
pub(super) fn leads_to(called: &Endpoint, remote: &Endpoint) -> bool {
    called == remote
        || called.port == remote.port && called.ip.is_unspecified() && remote.ip.is_loopback()
}

#[derive(Debug)]
struct Mptcp {
    caller: Rc<Who>,
    remote: Endpoint,
    /// The number of the newest dump when it was made.
    at: u32,
    dumps: u8,
}

/// All calls that wait.
#[derive(Debug, Default)]
pub(super) struct Calls {
    held: HashMap<Cookie, Call>,
    /// In the order of the calls, with some that are not held any more.
    order: VecDeque<(Cookie, u64)>,
    turns: u64,
    mptcp: VecDeque<Mptcp>,
    /// Calls up to this turn go when so many dumps have completed.
    sweep: Option<(u64, u8)>,
    /// Each caller once, however many sockets it has.
    callers: HashSet<Rc<Who>>,
    /// How many callers there may be before those without a socket are forgotten.
    callers_until: usize,
}

impl Calls {
    /// The caller of a connect() and its cgroup, shared by all its sockets.
    pub fn caller(&mut self, caller: Caller, cgroup: Option<Rc<Cgroup>>) -> Rc<Who> {
        self.who(Who {
            caller: Some(caller),
            holders: None,
            cgroup,
        })
    }

    /// A record of who has a socket, shared by all of theirs.
    pub fn who(&mut self, who: Who) -> Rc<Who> {
        if let Some(known) = self.callers.get(&who) {
            return Rc::clone(known);
        }
        if self.callers.len() >= self.callers_until {
            self.callers.retain(|known| Rc::strong_count(known) > 1);
            self.callers.shrink_to(self.callers.len() * 2);
            self.callers_until = (self.callers.len() * 2).max(64);
        }
        let who = Rc::new(who);
        self.callers.insert(Rc::clone(&who));
        who
    }

    /// Keeps a call for its socket. True when another one had to go for it.
    pub fn keep(&mut self, connect: &Connect, caller: Rc<Who>) -> bool {
        self.turns += 1;
        let turn = self.turns;
        let call = Call {
            caller,
            remote: connect.remote,
            v4_mapped: connect.v4_mapped,
            turn,
        };
        let cookie = connect.cookie;
        let forgotten = self.held.len() >= BOUND && !self.held.contains_key(&cookie);
        if forgotten {
            self.forget_oldest();
        }
        self.held.insert(cookie, call);
        self.order.push_back((cookie, turn));
        if self.order.len() > 2 * self.held.len() + 64 {
            let held = &self.held;
            self.order
                .retain(|(cookie, turn)| held.get(cookie).is_some_and(|it| it.turn == *turn));
        }
        forgotten
    }

    fn forget_oldest(&mut self) {
        while let Some((cookie, turn)) = self.order.pop_front() {
            if self.held.get(&cookie).is_some_and(|it| it.turn == turn) {
                self.held.remove(&cookie);
                return;
            }
        }
    }

    /// The call of a socket.
    pub fn of(&self, cookie: Cookie) -> Option<&Call> {
        self.held.get(&cookie)
    }

    /// Takes the call of a socket.
    pub fn take(&mut self, cookie: Cookie) -> Option<Call> {
        let call = self.held.remove(&cookie)?;
        if self.held.is_empty() {
            self.order.clear();
            if self.held.capacity() > 4096 {
                self.held.shrink_to(1024);
                self.order.shrink_to(1024);
            }
        }
        Some(call)
    }

    /// Notices were dropped, and what ended unheard has been found: calls whose
    /// sockets do not show in the dumps to come are forgotten.
    pub fn sweep_later(&mut self) {
        self.sweep = Some((self.turns, SWEEP_DUMPS));
    }

    /// Keeps the call of an MPTCP socket, for the subflows that it makes.
    pub fn keep_mptcp(&mut self, remote: Endpoint, caller: Rc<Who>, number: u32) {
        if self.mptcp.len() >= MPTCP_BOUND {
            self.mptcp.pop_front();
        }
        self.mptcp.push_back(Mptcp {
            caller,
            remote,
            at: number,
            dumps: MPTCP_DUMPS,
        });
    }

    /// The caller whose MPTCP socket may have made a subflow to this destination,
    /// of which the notice of one that failed has lost the port.
    pub fn mptcp(&self, remote: &Endpoint) -> Option<Rc<Who>> {
        let is_its = |it: &&Mptcp| {
            let port = match remote.port {
                0 => it.remote.port,
                port => port,
            };
            leads_to(&it.remote, &Endpoint { port, ..*remote })
        };
        let newest = self.mptcp.iter().rev().find(is_its);
        newest.map(|it| Rc::clone(&it.caller))
    }

    /// Dump number `number` of connections completed.
    pub fn dumped(&mut self, number: u32) {
        if let Some((until, dumps)) = &mut self.sweep {
            *dumps -= 1;
            if *dumps == 0 {
                let until = *until;
                self.held.retain(|_, call| call.turn > until);
                self.sweep = None;
            }
        }
        self.mptcp.retain_mut(|call| {
            if number.wrapping_sub(call.at) as i32 > 0 {
                call.dumps -= 1;
            }
            call.dumps > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Comm, Family, Netns, Origin};

    fn connect(cookie: u64, pid: u32) -> Connect {
        Connect {
            origin: Origin::Lsm,
            cookie: Cookie(cookie),
            netns: Some(Netns(1)),
            remote: Endpoint::new([10, 0, 0, 2], 80),
            family: Family::V4,
            v4_mapped: false,
            mptcp: false,
            caller: Caller {
                pid,
                tid: pid,
                comm: Comm([0; 16]),
            },
            uid: 0,
            cgroup_id: 1,
            at_ns: 0,
        }
    }

    fn keep(calls: &mut Calls, cookie: u64, pid: u32) -> bool {
        let connect = connect(cookie, pid);
        let caller = calls.caller(connect.caller, None);
        calls.keep(&connect, caller)
    }

    #[test]
    fn past_the_bound_the_oldest_goes() {
        let mut calls = Calls::default();
        for cookie in 0..BOUND as u64 {
            assert!(!keep(&mut calls, cookie, 1));
        }
        // Called again: it is not the oldest any more.
        assert!(!keep(&mut calls, 0, 1));
        assert!(keep(&mut calls, u64::MAX, 1));
        assert!(calls.take(Cookie(1)).is_none());
        assert!(calls.take(Cookie(0)).is_some() && calls.take(Cookie(2)).is_some());
    }

    #[test]
    fn a_subflow_is_known_by_its_destination_without_the_port_too() {
        let mut calls = Calls::default();
        let caller = calls.caller(connect(1, 7).caller, None);
        let to = |last, port| Endpoint::new([10, 0, 0, last], port);
        calls.keep_mptcp(to(2, 80), caller, 1);
        for (remote, known) in [
            (to(2, 80), true),
            (to(2, 0), true),
            (to(2, 81), false),
            (to(3, 0), false),
        ] {
            assert_eq!(calls.mptcp(&remote).is_some(), known, "{remote}");
        }
    }

    #[test]
    fn what_comes_and_goes_leaves_nothing() {
        let mut calls = Calls::default();
        keep(&mut calls, 0, 1);
        for cookie in 1..100_000 {
            keep(&mut calls, cookie, cookie as u32);
            assert!(calls.take(Cookie(cookie)).is_some());
        }
        assert!(calls.order.len() < 100 && calls.callers.len() < 200);
        assert_eq!(calls.callers_until, 64);
    }

    #[test]
    fn a_sweep_spares_whose_sockets_may_still_show() {
        let mut calls = Calls::default();
        keep(&mut calls, 1, 1);
        calls.sweep_later();
        keep(&mut calls, 2, 1);
        calls.dumped(1);
        assert!(calls.of(Cookie(1)).is_some());
        calls.dumped(2);
        assert!(calls.of(Cookie(1)).is_none() && calls.of(Cookie(2)).is_some());
        calls.dumped(3);
        assert!(
            calls.of(Cookie(2)).is_some(),
            "a failed connect() has no row"
        );
    }

    #[test]
    fn sockets_of_one_caller_share_it() {
        let mut calls = Calls::default();
        let caller = connect(1, 7).caller;
        let one = calls.caller(caller, None);
        assert!(Rc::ptr_eq(&one, &calls.caller(caller, None)));
    }
}
