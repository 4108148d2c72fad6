//! `net.socket`: the socket table of one namespace, and what changes in it.
//!
//! Two things are told of a socket: a row says that it is there, a notice that
//! it is gone. They race (a row can be read after its socket's notice, a notice
//! can be the first word of a socket), and this is where the race is settled, so
//! that each socket opens once and closes once in each view.
//!
//! Rows of a dump under way are staged: entered in the table, but told to nobody
//! until the dump completes. A dump that fails leaves the table as it was.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Instant;

use super::absence::{Absence, Missing, Suspect};
use super::views::{End, How, View, Views};
use crate::model::{
    Cookie, Coverage, Event, Evidence, Family, Gap, GapCause, Judge, Needs, Netns, Now, Proto, Row,
    RowKind, Settled, SocketKey, StateGroups,
};
use crate::stats::Stats;
use crate::table::{Entry, Table, Tombstones, Walk};

/// For how many dumps an own socket that has not been seen open since is
/// remembered: its notice comes within milliseconds.
const OWN_KEPT: u32 = 8;

/// The state of one namespace's sockets, for any number of sensors.
#[derive(Debug)]
pub struct NetSocket {
    netns: Netns,
    needs: Needs,
    pub(super) views: Views,
    pub(super) sockets: Table,
    minis: Table,
    pub(super) graves: Tombstones,
    mini_graves: Tombstones,
    pub(super) absence: Absence,
    /// How many dumps have begun; the number of the newest.
    pub(super) number: u32,
    pub(super) dump: Option<UnderWay>,
    /// The dumps' ways through `sockets` and `minis`.
    walk: Walk,
    mini_walk: Walk,
    /// sockwatch's own sockets, and the number of the dump that was the newest
    /// when each was last seen open.
    pub(super) own: HashMap<Cookie, u32>,
    pub(super) stats: Rc<Stats>,
}

/// A dump between its request and its end.
#[derive(Debug)]
pub(super) struct UnderWay {
    coverage: Coverage,
    began: Instant,
    staged: Vec<(SocketKey, RowKind)>,
    /// Rows that say something new of sockets in the table.
    pub(super) changed: BTreeMap<(SocketKey, RowKind), Row>,
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
            views: Views::new(views, now.mono),
            sockets: Table::new(),
            minis: Table::new(),
            graves: Tombstones::default(),
            mini_graves: Tombstones::default(),
            absence: Absence::default(),
            number: 0,
            dump: None,
            walk: Walk::default(),
            mini_walk: Walk::default(),
            own: HashMap::new(),
            stats,
        }
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
    pub fn sees(&mut self, family: Family, proto: Proto) {
        self.absence.sees(proto, family);
        for entry in self.sockets.iter_mut() {
            entry.missed = false;
        }
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

    /// A dump was asked for.
    pub fn begin_dump(&mut self, coverage: Coverage, now: Now) {
        self.number = self.number.wrapping_add(1);
        self.walk.begin(coverage);
        self.mini_walk.begin(coverage);
        self.dump = Some(UnderWay {
            coverage,
            began: now.mono,
            staged: Vec::new(),
            changed: BTreeMap::new(),
        });
    }

    /// A row of the dump under way.
    pub fn row(&mut self, row: Row, now: Now) {
        let key = self.key(row.cookie);
        let Some(dump) = &mut self.dump else {
            return;
        };
        let (table, walk, graves) = match row.kind {
            RowKind::Full => (&mut self.sockets, &mut self.walk, &mut self.graves),
            RowKind::Mini if self.views.watch(row.state) => {
                (&mut self.minis, &mut self.mini_walk, &mut self.mini_graves)
            }
            RowKind::Mini => return,
        };
        // In the middle of connect() a socket is read without its port: it is
        // there, but its ends are not to be believed.
        let half_made = row.id.local.port == 0;
        if let Some(entry) = table.find_next(key, walk) {
            // A dump under churn can hold a row twice; the first one counts.
            if entry.seen != self.number {
                entry.seen = self.number;
                if !half_made && !entry.is_current(&row) {
                    entry.changing = true;
                    dump.changed.insert((key, row.kind), row);
                }
            }
            return;
        }
        if half_made || graves.covers(key, self.number) {
            return;
        }
        if self.own.contains_key(&row.cookie) {
            self.stats.own_sockets.bump();
            return;
        }
        let first_seen = self.views.age_ms(now);
        let mut entry = Entry::new(key, row.id, row.state, row.owner, first_seen);
        entry.seen = self.number;
        entry.staged = true;
        table.insert(entry);
        dump.staged.push((key, row.kind));
    }

    /// The dump under way completed: what was staged counts now.
    pub fn end_dump(&mut self, now: Now, judge: &mut dyn Judge) {
        let Some(dump) = self.dump.take() else {
            return;
        };
        for (key, kind) in dump.staged {
            let (table, graves) = match kind {
                RowKind::Full => (&mut self.sockets, &mut self.graves),
                RowKind::Mini => (&mut self.minis, &mut self.mini_graves),
            };
            // It may have ended while the dump was read.
            let Some(entry) = table.find_mut(key).filter(|entry| entry.staged) else {
                continue;
            };
            if self.own.contains_key(&key.cookie) {
                table.remove(key);
                self.stats.own_sockets.bump();
                continue;
            }
            entry.staged = false;
            graves.lift(key);
            let id = entry.id();
            let primed = self.absence.unit(id.proto, id.family).primed;
            let how = How {
                at_start: !primed.contains(StateGroups::of(entry.state())),
                ..How::by(Evidence::Dump)
            };
            self.views.open(entry, kind, how, now, judge);
        }
        for row in dump.changed.into_values() {
            self.update(&row, now, judge);
        }
        let once = self.look_for_absent(dump.coverage, now, judge);
        self.absence
            .completed(dump.coverage, self.needs, self.number, dump.began, once);
        self.sweep(now);
    }

    /// Forgets what only the dump that is over could have made use of.
    fn sweep(&mut self, now: Now) {
        self.graves.sweep(self.number, now.mono);
        self.mini_graves.sweep(self.number, now.mono);
        let number = self.number;
        self.own
            .retain(|_, seen| number.wrapping_sub(*seen) <= OWN_KEPT);
    }

    /// The dump under way failed: it changes nothing.
    pub fn fail_dump(&mut self, now: Now) {
        let Some(dump) = self.dump.take() else {
            return;
        };
        for (key, kind) in dump.staged {
            let table = self.table_mut(kind);
            if table.find(key).is_some_and(|entry| entry.staged) {
                table.remove(key);
            }
        }
        for row in dump.changed.into_values() {
            let key = self.key(row.cookie);
            if let Some(entry) = self.sockets.find_mut(key) {
                entry.changing = false;
            }
        }
        self.sweep(now);
    }

    fn update(&mut self, row: &Row, now: Now, judge: &mut dyn Judge) {
        let key = self.key(row.cookie);
        match row.kind {
            RowKind::Full => {
                if let Some(entry) = self.sockets.find_mut(key) {
                    entry.changing = false;
                    self.views.update(entry, row, now, judge);
                }
            }
            // A minisocket of another state is another one: SYN_RECV became a
            // full socket, which left a TIME_WAIT.
            RowKind::Mini if self.minis.find(key).is_some() => {
                let first_seen = self.views.age_ms(now);
                self.end_mini(key, now, judge);
                let mut entry = Entry::new(key, row.id, row.state, row.owner, first_seen);
                entry.seen = self.number;
                self.views.open(
                    &mut entry,
                    RowKind::Mini,
                    How::by(Evidence::Dump),
                    now,
                    judge,
                );
                self.minis.insert(entry);
                self.mini_graves.lift(key);
            }
            RowKind::Mini => {}
        }
    }

    /// Draws the conclusions from what a completed dump did not hold. Tells for
    /// each family whether something must be missing once more.
    fn look_for_absent(
        &mut self,
        coverage: Coverage,
        now: Now,
        judge: &mut dyn Judge,
    ) -> [bool; 2] {
        let mut once = [false; 2];
        if self.absence.matter(coverage, self.needs, self.number) {
            let mut ended = Vec::new();
            for entry in self.sockets.iter_mut() {
                let (id, state) = (entry.id(), entry.state());
                if !coverage.includes(&id, state) {
                    continue;
                }
                if entry.seen == self.number {
                    (entry.missed, entry.unaskable) = (false, false);
                    continue;
                }
                match self
                    .absence
                    .missing(&id, state, entry.missed, entry.unaskable)
                {
                    Missing::Ignored => entry.missed = false,
                    Missing::Suspect if entry.suspected => {}
                    Missing::Suspect => {
                        entry.suspected = true;
                        let (key, kind) = (entry.key(), RowKind::Full);
                        self.absence.suspect(Suspect { key, kind, id });
                    }
                    Missing::Once => {
                        entry.missed = true;
                        once[id.family as usize] = true;
                    }
                    Missing::Ended => ended.push(entry.key()),
                }
            }
            for key in ended {
                self.end_verified(key, now, judge);
            }
        }
        let mut ended = Vec::new();
        for entry in self.minis.iter_mut() {
            let (key, id) = (entry.key(), entry.id());
            if entry.seen == self.number || !coverage.includes(&id, entry.state()) {
                continue;
            }
            if entry.unaskable {
                ended.push(key);
            } else if !entry.suspected {
                entry.suspected = true;
                let kind = RowKind::Mini;
                self.absence.suspect(Suspect { key, kind, id });
            }
        }
        for key in ended {
            self.end_mini(key, now, judge);
        }
        once
    }

    fn table_mut(&mut self, kind: RowKind) -> &mut Table {
        match kind {
            RowKind::Full => &mut self.sockets,
            RowKind::Mini => &mut self.minis,
        }
    }

    /// The next socket that an exact query has to be asked about.
    pub fn next_suspect(&mut self) -> Option<Suspect> {
        loop {
            let suspect = self.absence.next_suspect()?;
            // Its notice may have come meanwhile, or its ends have changed.
            if let Some(entry) = self.table_mut(suspect.kind).find_mut(suspect.key) {
                entry.suspected = false;
                if entry.id().same_ends(&suspect.id) {
                    return Some(suspect);
                }
            }
        }
    }

    /// Whether there is a suspect to ask about.
    pub fn has_suspects(&self) -> bool {
        self.absence.has_suspects()
    }

    /// What the exact query said: a row, or that the socket is gone (`None`).
    pub fn answered(
        &mut self,
        suspect: Suspect,
        found: Option<Row>,
        now: Now,
        judge: &mut dyn Judge,
    ) {
        match (suspect.kind, found) {
            (RowKind::Full, Some(row)) if row.kind == RowKind::Full => {
                self.update(&row, now, judge)
            }
            // What is left is a minisocket: the full socket has ended.
            (RowKind::Full, _) => self.end_verified(suspect.key, now, judge),
            (RowKind::Mini, Some(row)) if row.kind == RowKind::Mini => {}
            (RowKind::Mini, _) => self.end_mini(suspect.key, now, judge),
        }
    }

    /// The exact query could not be asked: nothing is concluded from it. The
    /// socket has now to be missing from another dump, as those for which the
    /// query is not to be trusted.
    pub fn unanswered(&mut self, suspect: Suspect) {
        if let Some(entry) = self.table_mut(suspect.kind).find_mut(suspect.key) {
            (entry.missed, entry.unaskable) = (true, true);
            if suspect.kind == RowKind::Full {
                self.absence.unanswered(&suspect.id);
            }
        }
    }

    fn end_verified(&mut self, key: SocketKey, now: Now, judge: &mut dyn Judge) {
        if let Some(mut entry) = self.sockets.remove(key) {
            self.graves.verified(key, self.number, now.mono);
            let end = End::by(Evidence::Verified);
            if self
                .views
                .close(&mut entry, RowKind::Full, u32::MAX, end, now, judge)
            {
                self.absence.recovered();
            }
        }
    }

    fn end_mini(&mut self, key: SocketKey, now: Now, judge: &mut dyn Judge) {
        if let Some(mut entry) = self.minis.remove(key) {
            if self.dump.is_some() {
                self.mini_graves.noticed(key, self.number);
            }
            let end = End::by(Evidence::Verified);
            self.views
                .close(&mut entry, RowKind::Mini, u32::MAX, end, now, judge);
        }
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
        self.absence
            .take_settled()
            .map(|taken| gap_record(taken, now))
    }

    /// The record of a gap that there is no time to reconcile any more.
    pub fn abandon_gap(&mut self, now: Now) -> Option<Gap> {
        self.absence.take_gap().map(|taken| gap_record(taken, now))
    }

    /// Whether something may have ended that was not accounted for yet.
    pub fn has_gap(&self) -> bool {
        self.absence.has_gap()
    }

    /// What became of an opening that waited for a name. A socket that has ended
    /// meanwhile is not in the table any more, and needs nothing.
    pub fn settle(&mut self, settled: &Settled) {
        if let Some(entry) = self.table_mut(settled.kind).find_mut(settled.key) {
            Views::settle(entry, settled);
        }
    }
}

fn gap_record((began, recovered): (Instant, u64), now: Now) -> Gap {
    Gap {
        cause: GapCause::Overrun,
        closed_recovered: Some(recovered),
        lost: None,
        duration_ms: Event::elapsed_ms(began, now),
    }
}
