//! `net.socket`: the socket table of one namespace, and what changes in it.
//!
//! Two things are told of a socket: a row says that it is there, a notice that
//! it is gone. They race (a row can be read after its socket's notice, a notice
//! can be the first word of a socket), and this is where the race is settled, so
//! that each socket opens once and closes once in each view.
//! `rows` reads the dumps, `ends` the notices, and `verdicts` sees what became of
//! what a dump should have held.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::absence::Absence;
use super::rows::UnderWay;
use super::views::{View, Views};
use super::ways::Ways;
use crate::model::{
    Attempt, Attributed, Attribution, Cgroup, Connect, Cookie, Event, Family, Gap, GapCause, Needs,
    Netns, Now, Proto, RowKind, Settled, SockId, SocketKey, Sought, StateGroups, TcpState, Who,
};
use crate::stats::Stats;
use crate::table::{Entry, Table, Tombstones, Walk};

/// The state of one namespace's sockets, for any number of sensors.
#[derive(Debug)]
pub struct NetSocket {
    pub(super) netns: Netns,
    pub(super) needs: Needs,
    /// Which TCP sockets anybody could want by their ends: what else is read goes
    /// by, unless it is in the table already.
    pub(super) sought: Sought,
    pub(super) views: Views,
    pub(super) sockets: Table,
    pub(super) minis: Table,
    pub(super) graves: Tombstones,
    pub(super) mini_graves: Tombstones,
    /// The sockets whose ends were told without a notice since somebody last
    /// asked, where somebody does.
    pub(super) buried: Option<Vec<Cookie>>,
    pub(super) absence: Absence,
    pub(super) ways: Ways,
    /// How many dumps have begun; the number of the newest.
    pub(super) number: u32,
    pub(super) dump: Option<UnderWay>,
    /// The dumps' ways through `sockets` and `minis`.
    pub(super) walk: Walk,
    pub(super) mini_walk: Walk,
    /// Who goes through the tables piece by piece, by [`Reader`](super::Reader).
    pub(super) in_place: [bool; 3],
    /// sockwatch's own sockets, and the number of the dump that was the newest
    /// when each was last seen open.
    pub(super) own: HashMap<Cookie, u32>,
    /// Full sockets of each family whose handshake was under way in the last
    /// dump of connections.
    pub(super) handshakes: [u32; 2],
    pub(super) stats: Rc<Stats>,
}

impl NetSocket {
    /// A table that nothing was read into yet. `needs` is the union of what the
    /// sensors need.
    pub fn new(
        netns: Netns,
        views: Vec<View>,
        needs: Needs,
        stats: Rc<Stats>,
        now: Now,
    ) -> NetSocket {
        NetSocket {
            netns,
            needs,
            sought: Sought::ALL,
            views: Views::new(views, now.mono),
            sockets: Table::new(),
            minis: Table::new(),
            graves: Tombstones::default(),
            mini_graves: Tombstones::default(),
            buried: None,
            absence: Absence::default(),
            ways: Ways::new(Rc::clone(&stats)),
            number: 0,
            dump: None,
            walk: Walk::default(),
            mini_walk: Walk::default(),
            in_place: [false; 3],
            own: HashMap::new(),
            handshakes: [0; 2],
            stats,
        }
    }

    /// From now on these TCP sockets are read and no others: all that any view could
    /// want. What others there are enters no view and is not remembered, as the
    /// kernel leaves it out of its dumps ([`NetSocket::narrowed`]). It makes no
    /// difference to what is told: where they are read, no view knows them.
    pub fn seek(&mut self, sought: Sought) {
        if self.sought == sought {
            return;
        }
        self.sought = sought;
        // What turns up now may have been there all the while.
        self.absence.unread(Proto::Tcp);
        if let Some(dump) = &mut self.dump {
            dump.outdated = true;
        }
    }

    /// Whether no sensor knows this socket, as it was read last: whatever it becomes,
    /// it is new to all of them.
    pub(super) fn is_strange(&self, entry: &Entry) -> bool {
        !self.ways.are_wanted() && self.views.knowing(entry) == 0
    }

    /// The TCP sockets in the table: their notices matter whatever became of their
    /// ends.
    pub fn tcp_cookies(&self) -> impl Iterator<Item = Cookie> {
        let tcp = self.sockets.iter().filter(|entry| entry.is_tcp());
        tcp.map(|entry| entry.key().cookie)
    }

    /// Whether anybody could want this socket, as it is.
    pub(super) fn seeks(&self, id: &SockId, state: TcpState) -> bool {
        id.proto == Proto::Udp || self.sought.wants_in(id, state)
    }

    /// From now on [`NetSocket::take_attempts`] has the connect() calls that no
    /// hook reported.
    pub fn want_attempts(&mut self) {
        self.ways.want();
    }

    /// A hook reports calls: what only looks like one in the table is none.
    pub fn rely_on_hook(&mut self) {
        self.ways.rely_on_hook();
    }

    /// What the table shows of connect() calls that no hook reported: take it
    /// after every notice and dump.
    pub fn take_attempts(&mut self) -> Vec<Attempt> {
        self.ways.take_attempts()
    }

    /// Whether a dump of TCP would tell which of these are connect() calls.
    pub fn has_candidates(&self) -> bool {
        self.ways.has_candidates()
    }

    /// A hook saw a connect(). Its socket learns who called, if it is one of this
    /// namespace and not sockwatch's own.
    pub fn called(&mut self, connect: &Connect) {
        let key = self.key(connect.cookie);
        if connect.netns == Some(self.netns) && !self.own.contains_key(&connect.cookie) {
            let entry = self.sockets.find_mut(key);
            self.ways.call(connect, entry, self.number);
        }
    }

    /// The namespace has this name now.
    pub fn set_name(&mut self, name: Option<Arc<str>>) {
        self.views.name = name;
    }

    /// The name of the namespace, where it has one.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.views.name.as_ref()
    }

    /// The namespace.
    pub fn netns(&self) -> Netns {
        self.netns
    }

    /// How many sockets are held.
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    pub(super) fn key(&self, cookie: Cookie) -> SocketKey {
        SocketKey::new(self.netns, cookie)
    }

    /// There are no notices of this family and protocol: ends will be found by
    /// absence.
    pub fn blind(&mut self, family: Family, proto: Proto) {
        self.absence.blind(proto, family);
    }

    /// There are notices of this family and protocol after all.
    pub fn sees(&mut self, family: Family, proto: Proto, now: Now) {
        self.absence.sees(proto, family, self.number, now.mono);
    }

    /// These sockets are sockwatch's own: they are no events.
    pub fn disown(&mut self, cookies: &[Cookie]) {
        let number = self.number;
        self.own
            .extend(cookies.iter().map(|cookie| (*cookie, number)));
    }

    /// Whether everything that sensors need of a protocol has been read once.
    pub fn is_read(&self, proto: Proto) -> bool {
        let needed = match proto {
            Proto::Tcp => self.needs.tcp,
            Proto::Udp => StateGroups::ALL,
        };
        Family::ALL
            .into_iter()
            .all(|family| self.absence.unit(proto, family).primed.contains(needed))
    }

    pub(super) fn table_mut(&mut self, kind: RowKind) -> &mut Table {
        match kind {
            RowKind::Full => &mut self.sockets,
            RowKind::Mini => &mut self.minis,
        }
    }

    /// How many connections have been seen, each once.
    pub fn opens(&self) -> u64 {
        self.ways.opens
    }

    /// Whether connections were being made at the time of the last dump: when
    /// they succeed, no counter moves.
    pub fn has_handshakes(&self) -> bool {
        self.handshakes != [0; 2]
    }

    /// The kernel's counters say that a dump of this would hold nothing new:
    /// whatever opened since was counted, and nothing was.
    pub fn quiet(&mut self, spared: Needs, now: Now) {
        self.absence.quiet(spared, now.mono);
    }

    /// Notices were lost.
    pub fn overrun(&mut self, now: Now) {
        self.absence.overrun(self.needs, self.number, now.mono);
    }

    /// What must be dumped at once, to reconcile after an overrun.
    pub fn wants_dump(&self) -> Option<Needs> {
        self.absence.wants(self.needs)
    }

    /// The record of a gap, once it is reconciled.
    pub fn settled_gap(&mut self, now: Now) -> Option<Gap> {
        let taken = self.absence.take_settled()?;
        self.ways.sweep_later();
        Some(gap_record(taken, now))
    }

    /// The record of a gap that there is no time to reconcile any more.
    pub fn abandon_gap(&mut self, now: Now) -> Option<Gap> {
        self.absence.take_gap().map(|taken| gap_record(taken, now))
    }

    /// Whether something may have ended that was not accounted for yet.
    pub fn has_gap(&self) -> bool {
        self.absence.has_gap()
    }

    /// An entry was taken out of the table: if it was a listener, or may have
    /// become one since it was read, its children must still be told from other
    /// connections.
    pub(super) fn gone(&mut self, entry: &Entry) {
        let has_peer = entry.state().is_connected() || entry.id().remote.port != 0;
        if entry.is_tcp() && !has_peer {
            self.ways.gone(entry.key().cookie, &entry.id(), self.number);
        }
    }

    /// What became of an opening that waited for a name. A socket that has ended
    /// meanwhile is not in the table any more, and needs nothing.
    pub fn settle(&mut self, settled: &Settled) {
        if let Some(entry) = self.table_mut(settled.kind).find_mut(settled.key) {
            Views::settle(entry, settled);
        }
    }

    /// The cgroups met since the last call, each once: sooner or later their paths
    /// will be asked for.
    pub fn take_cgroups(&mut self) -> Vec<Rc<Cgroup>> {
        self.ways.cgroups.take_met()
    }

    /// Notes who has a socket open, for its close. One that has ended meanwhile
    /// needs nothing.
    pub fn attribute(&mut self, attributed: Attributed) {
        let Some(entry) = self.table_mut(RowKind::Full).find_mut(attributed.key) else {
            return;
        };
        // One sensor's patience may have ended before another's answer came.
        if matches!(entry.holders(), Some(Attribution::Held(_))) {
            return;
        }
        let (caller, cgroup) = (entry.process(), entry.cgroup().cloned());
        let who = self.ways.who(Who {
            caller,
            holders: Some(attributed.holders),
            cgroup,
        });
        if let Some(entry) = self.table_mut(RowKind::Full).find_mut(attributed.key) {
            entry.set_who(who);
        }
    }
}

fn gap_record((began, recovered): (Instant, u64), now: Now) -> Gap {
    Gap {
        cause: GapCause::Overrun,
        closed_recovered: Some(recovered),
        tcp_unseen: None,
        lost: None,
        connects_lost: None,
        duration_ms: Event::elapsed_ms(began, now),
    }
}
