//! Which way each connection was opened, who opened it, and which connect() calls
//! nobody has told of yet.
//!
//! Three things say something of a connection: a hook that saw the call, the
//! listeners at the time when the socket was first seen, and the tcp_info of its
//! notice. A hook comes first, then what tcp_info proves, then a listener with
//! its local end. What nothing speaks for is outbound when a dump held both the
//! socket and, had there been one, its listener; a socket that was heard of
//! between two dumps stays unknown.
//!
//! A connect() that no hook reported shows in the table all the same, and is
//! reported from there: at once where it is proven, otherwise once another dump
//! has shown that no listener came to be where its local end is. That is also
//! all that there is without any hook.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::calls::{Call, Calls, leads_to};
use super::cgroups::Cgroups;
use super::listeners::{Listeners, Local};
use crate::model::{
    Attempt, Caller, Connect, Cookie, Coverage, Direction, Evidence, Family, Notice, Origin, Proto,
    Row, Sighting, SockId, StateGroups, TcpState, Who,
};
use crate::stats::Stats;
use crate::table::{Entry, Mark};

/// How many connections may wait for a dump that tells which way they go; some
/// 150 bytes each.
const BOUND: usize = 65_536;

/// The ways of all connections of one namespace.
#[derive(Debug)]
pub(super) struct Ways {
    pub listeners: Listeners,
    calls: Calls,
    pub cgroups: Cgroups,
    /// Somebody wants to hear of connect() calls.
    wanted: bool,
    /// A hook reports them.
    hooked: bool,
    candidates: BTreeMap<Cookie, Candidate>,
    attempts: Vec<Attempt>,
    /// Connections seen so far, each once: what the kernel counts as an open.
    pub opens: u64,
    stats: Rc<Stats>,
}

/// A connection that no hook saw and that may be an accepted one.
#[derive(Debug)]
struct Candidate {
    id: SockId,
    attempt: Attempt,
    /// A dump with a greater number decides.
    after: u32,
}

impl Ways {
    pub fn new(stats: Rc<Stats>) -> Ways {
        Ways {
            listeners: Listeners::default(),
            calls: Calls::default(),
            cgroups: Cgroups::default(),
            wanted: false,
            hooked: false,
            candidates: BTreeMap::new(),
            attempts: Vec::new(),
            opens: 0,
            stats,
        }
    }

    /// Whether somebody wants to hear of connect() calls: then every connection is
    /// somebody's concern.
    pub fn are_wanted(&self) -> bool {
        self.wanted
    }

    /// From now on connect() calls are wanted.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// From now on a hook reports them.
    pub fn rely_on_hook(&mut self) {
        self.hooked = true;
    }

    /// The connect() calls found since the last call, for which no hook speaks.
    pub fn take_attempts(&mut self) -> Vec<Attempt> {
        std::mem::take(&mut self.attempts)
    }

    /// A hook saw a call; `entry` is its socket, if the table has it.
    pub fn call(&mut self, connect: &Connect, entry: Option<&mut Entry>, number: u32) {
        let caller = self.caller(connect.caller, connect.cgroup_id);
        if connect.mptcp {
            let caller = Rc::clone(&caller);
            self.calls.keep_mptcp(connect.remote, caller, number);
            // The cookie is not one that the table knows, but with the cgroup
            // hook, which sees the first subflow.
            if connect.origin != Origin::Cgroup {
                return;
            }
        }
        self.candidates.remove(&connect.cookie);
        match entry {
            // A staged one may go again: its dump can fail.
            Some(entry)
                if is_connection(entry)
                    && !entry.is(Mark::Staged)
                    && leads_to(&connect.remote, &entry.id().remote) =>
            {
                self.note_caller(entry, caller);
            }
            // The row with its new ends, or its notice, will take it.
            _ => {
                if self.calls.keep(connect, caller) {
                    self.stats.calls_forgotten.bump();
                }
            }
        }
    }

    /// The caller of a connect(), shared by all its sockets; id 0 is no cgroup.
    pub fn caller(&mut self, caller: Caller, cgroup: u64) -> Rc<Who> {
        let cgroup = self.cgroups.of(cgroup);
        self.calls.caller(caller, cgroup)
    }

    /// Notes who connected a socket, beside what else is known of who has it.
    pub fn note_caller(&mut self, entry: &mut Entry, caller: Rc<Who>) {
        let who = match entry.who() {
            None => caller,
            Some(known) => {
                let who = Who {
                    caller: caller.caller,
                    holders: known.holders.clone(),
                    cgroup: known.cgroup.as_ref().or(caller.cgroup.as_ref()).cloned(),
                };
                self.calls.who(who)
            }
        };
        entry.set_process(who);
    }

    /// Forgets who has a socket open: that is to be asked again.
    pub fn forget_holders(&mut self, entry: &mut Entry) {
        if entry.holders().is_some()
            && let Some(known) = entry.who()
        {
            let who = Who {
                holders: None,
                ..Who::clone(known)
            };
            entry.set_who(self.calls.who(who));
        }
    }

    /// Notes the cgroup of a socket, as its row told it; id 0 is none.
    pub fn belongs(&mut self, entry: &mut Entry, cgroup: u64) {
        if entry.cgroup().map_or(0, |known| known.id()) == cgroup {
            return;
        }
        let Some(cgroup) = self.cgroups.of(cgroup) else {
            return;
        };
        let known = entry.who().map(|who| Who::clone(who)).unwrap_or_default();
        entry.set_who(self.calls.who(Who {
            cgroup: Some(cgroup),
            ..known
        }));
    }

    /// A record of who has a socket, shared by all of theirs.
    pub fn who(&mut self, who: Who) -> Rc<Who> {
        self.calls.who(who)
    }

    /// What a hook saw of a socket, if no row of it has taken that yet.
    pub fn call_of(&self, cookie: Cookie) -> Option<&Call> {
        self.calls.of(cookie)
    }

    /// A socket has ended: what a hook saw of it is of no use any more.
    pub fn forget_call(&mut self, cookie: Cookie) {
        self.calls.take(cookie);
    }

    /// A socket without a peer ended.
    pub fn gone(&mut self, cookie: Cookie, id: &SockId, number: u32) {
        if !self.listeners.ends(cookie, id, number) && id.local.port != 0 {
            self.listeners.may_have_listened(cookie, id, number);
        }
    }

    /// Notices were dropped, and what ended unheard has been found.
    pub fn sweep_later(&mut self) {
        self.calls.sweep_later();
    }

    /// A row says something new of a known socket; the dump under way may yet
    /// fail, but where somebody listens it is believed at once.
    pub fn changes(&mut self, entry: &Entry, row: &Row, number: u32) {
        if row.state == TcpState::Listen {
            self.listeners.listens(row.cookie, &row.id);
        } else if entry.state() == TcpState::Listen {
            self.listeners.ends(row.cookie, &entry.id(), number);
        }
    }

    /// A full socket that dump number `number` held for the first time.
    pub fn read(&mut self, entry: &mut Entry, at_start: bool, number: u32) {
        if !self.counts(entry) || self.is_hooked(entry) {
            return;
        }
        let id = entry.id();
        let local = self.listeners.local(&id);
        let direction = match local {
            _ if entry.state() == TcpState::SynSent => Direction::Outbound,
            Local::Listeners => Direction::Inbound,
            Local::Perhaps => Direction::Unknown,
            // The hook saw nothing, and the dump no listener: one of them is wrong.
            Local::Free if self.hooked && !at_start => Direction::Unknown,
            Local::Free => Direction::Outbound,
        };
        entry.set_direction(direction);
        if at_start {
            return;
        }
        match local {
            _ if entry.state() == TcpState::SynSent => self.tell(entry, Evidence::Dump),
            // A listener may be younger than the moment when the dump passed by.
            Local::Free => self.doubt(entry, Evidence::Dump, number),
            Local::Listeners | Local::Perhaps => {}
        }
    }

    /// A socket has new ends, a known one: if they are those of a connection, it
    /// was opened by a connect(). What is carried over from before a restart may
    /// have called it then.
    pub fn rebound(&mut self, entry: &mut Entry, evidence: Evidence) {
        if self.counts(entry) && !self.is_hooked(entry) {
            entry.set_direction(Direction::Outbound);
            if !entry.is(Mark::Carried) {
                self.tell(entry, evidence);
            }
        }
    }

    /// A socket ended of which nobody was told yet. `at_start`: nothing was read
    /// before.
    pub fn noticed(&mut self, entry: &mut Entry, notice: &Notice, at_start: bool, number: u32) {
        if !self.counts(entry) || self.is_hooked(entry) {
            return;
        }
        let id = entry.id();
        let direction = match (notice.proven_direction(), self.listeners.local(&id)) {
            (Some(proven), _) => proven,
            (None, Local::Listeners) => Direction::Inbound,
            (None, Local::Perhaps | Local::Free) => Direction::Unknown,
        };
        entry.set_direction(direction);
        match direction {
            _ if at_start => {}
            Direction::Inbound => {}
            Direction::Outbound => self.tell(entry, Evidence::Notified),
            // A child that was never accepted looks the same, and its listener's
            // notice may come at any time: the hook's silence says more.
            Direction::Unknown if self.hooked && notice.is_wiped() => {}
            Direction::Unknown => self.doubt(entry, Evidence::Notified, number),
        }
    }

    /// A socket ended that had been told of: its notice may prove which way it
    /// went.
    pub fn ended(&mut self, entry: &mut Entry, notice: &Notice) {
        let Some(direction) = notice.proven_direction().filter(|_| is_connection(entry)) else {
            return;
        };
        if !entry.is(Mark::Hooked) {
            entry.set_direction(direction);
        }
        if let Some(candidate) = self.candidates.remove(&entry.key().cookie)
            && direction == Direction::Outbound
        {
            self.attempts.push(candidate.attempt);
        }
    }

    /// Whether it is a connection, which then has been seen.
    fn counts(&mut self, entry: &Entry) -> bool {
        let is_connection = is_connection(entry);
        self.opens += u64::from(is_connection);
        is_connection
    }

    /// Whether a hook saw the call that made this connection; notes who called.
    fn is_hooked(&mut self, entry: &mut Entry) -> bool {
        let call = self.calls.take(entry.key().cookie).map(|it| it.caller);
        let caller = call.or_else(|| self.calls.mptcp(&entry.id().remote));
        let hooked = caller.is_some();
        if let Some(caller) = caller {
            self.note_caller(entry, caller);
        }
        hooked || entry.is(Mark::Hooked)
    }

    fn tell(&mut self, entry: &Entry, evidence: Evidence) {
        if let Some(attempt) = self.attempt(entry, evidence) {
            self.attempts.push(attempt);
        }
    }

    /// Keeps a connection until a dump that begins from now on has completed.
    fn doubt(&mut self, entry: &Entry, evidence: Evidence, number: u32) {
        let Some(attempt) = self.attempt(entry, evidence) else {
            return;
        };
        if self.candidates.len() >= BOUND {
            self.stats.connects_unsettled.bump();
            return;
        }
        // The notice of a listener comes behind those of the children that it never
        // accepted, and the kernel's work queue may take longer than a dump: the
        // next one does not decide about what only a notice told of.
        let after = match evidence {
            Evidence::Notified => number.wrapping_add(1),
            _ => number,
        };
        let candidate = Candidate {
            id: entry.id(),
            attempt,
            after,
        };
        self.candidates.insert(entry.key().cookie, candidate);
    }

    fn attempt(&self, entry: &Entry, evidence: Evidence) -> Option<Attempt> {
        let id = entry.id();
        self.wanted.then(|| Attempt {
            cookie: entry.key().cookie,
            netns: Some(entry.key().netns),
            remote: id.remote,
            family: id.family,
            v4_mapped: id.v4_mapped,
            mptcp: false,
            sighting: Sighting::Table {
                evidence,
                state: entry.state(),
                owner: entry.owner(),
                cgroup_id: entry.cgroup().map(|cgroup| cgroup.id()),
            },
        })
    }

    /// Whether a dump of TCP would decide something.
    pub fn has_candidates(&self) -> bool {
        !self.candidates.is_empty()
    }

    /// Dump number `number` completed: what waited for it is decided. Says which
    /// way those connections turned out to go.
    pub fn dumped(&mut self, coverage: Coverage, number: u32) -> Vec<(Cookie, Direction)> {
        let both = StateGroups::LISTEN | StateGroups::CONNECTED;
        if coverage.proto != Proto::Tcp || !coverage.groups.contains(both) {
            return Vec::new();
        }
        let covers = |family: Family| coverage.family.is_none_or(|only| only == family);
        let mut decided = Vec::new();
        let (listeners, attempts) = (&self.listeners, &mut self.attempts);
        self.candidates.retain(|cookie, candidate| {
            if number.wrapping_sub(candidate.after) as i32 <= 0 || !covers(candidate.id.family) {
                return true;
            }
            match listeners.local(&candidate.id) {
                Local::Free => {
                    attempts.push(candidate.attempt);
                    decided.push((*cookie, Direction::Outbound));
                }
                Local::Listeners => decided.push((*cookie, Direction::Inbound)),
                Local::Perhaps => {}
            }
            false
        });
        // Where one dump serves one family, the other one's comes next to it.
        if coverage.family != Some(Family::V4) {
            self.listeners.dumped(number);
            self.calls.dumped(number);
        }
        decided
    }
}

/// A TCP socket with a peer, or one that had a peer.
fn is_connection(entry: &Entry) -> bool {
    entry.is_tcp() && entry.state().is_connected()
}
