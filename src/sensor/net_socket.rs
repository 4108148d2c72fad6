//! `net.socket`: the socket table of one namespace, and what changes in it.
//!
//! Two things are told of a socket: a row says that it is there, a notice that
//! it is gone. They race (a row can be read after its socket's notice, a notice
//! can be the first word of a socket), and this is where the race is settled, so
//! that each socket opens once and closes once in each view.
//!
//! Rows of a dump under way are staged: entered in the table, but told to nobody
//! until the dump completes. A dump that fails leaves the table as it was.

use std::collections::HashSet;
use std::rc::Rc;
use std::time::Instant;

use super::absence::{Absence, Missing, Suspect};
use super::views::{End, How, View, Views};
use crate::model::{
    Cookie, Coverage, Event, Evidence, Family, Gap, GapCause, Judge, Life, Needs, Netns, Notice,
    Now, Owner, OwnerUnknown, Proto, Row, RowKind, Settled, SockId, SocketKey, StateGroups,
    TcpState, Traffic,
};
use crate::stats::Stats;
use crate::table::{Entry, Table, Tombstones, Walk};

/// The longest a jiffy can be (CONFIG_HZ=100).
const JIFFY_MS: u64 = 10;

/// The state of one namespace's sockets, for any number of sensors.
#[derive(Debug)]
pub struct NetSocket {
    netns: Netns,
    needs: Needs,
    views: Views,
    sockets: Table,
    minis: Table,
    graves: Tombstones,
    mini_graves: Tombstones,
    absence: Absence,
    /// How many dumps have begun; the number of the newest.
    number: u32,
    dump: Option<UnderWay>,
    /// The dumps' ways through `sockets` and `minis`.
    walk: Walk,
    mini_walk: Walk,
    own: HashSet<Cookie>,
    stats: Rc<Stats>,
}

/// A dump between its request and its end.
#[derive(Debug)]
struct UnderWay {
    coverage: Coverage,
    began: Instant,
    staged: Vec<(SocketKey, RowKind)>,
    changed: Vec<Row>,
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
            own: HashSet::new(),
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

    fn key(&self, cookie: Cookie) -> SocketKey {
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
        self.own.extend(cookies);
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
            changed: Vec::new(),
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
        if let Some(entry) = table.find_next(key, walk) {
            // A dump under churn can hold a row twice; the first one counts.
            if entry.seen != self.number {
                entry.seen = self.number;
                if !entry.is_current(&row) {
                    entry.changing = true;
                    dump.changed.push(row);
                }
            }
            return;
        }
        if graves.covers(key, self.number) {
            return;
        }
        if self.own.contains(&row.cookie) {
            self.stats.own_sockets.bump();
            return;
        }
        graves.lift(key);
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
            let table = if kind == RowKind::Full {
                &mut self.sockets
            } else {
                &mut self.minis
            };
            // It may have ended while the dump was read.
            let Some(entry) = table.find_mut(key).filter(|entry| entry.staged) else {
                continue;
            };
            entry.staged = false;
            let id = entry.id();
            let primed = self.absence.unit(id.proto, id.family).primed;
            let how = How {
                at_start: !primed.contains(StateGroups::of(entry.state())),
                ..How::by(Evidence::Dump)
            };
            self.views.open(entry, kind, how, now, judge);
        }
        for row in dump.changed {
            self.update(&row, now, judge);
        }
        let once = self.look_for_absent(dump.coverage, now, judge);
        self.absence
            .completed(dump.coverage, self.needs, self.number, dump.began, once);
        self.graves.sweep(self.number, now.mono);
        self.mini_graves.sweep(self.number, now.mono);
    }

    /// The dump under way failed: it changes nothing.
    pub fn fail_dump(&mut self) {
        let Some(dump) = self.dump.take() else {
            return;
        };
        for (key, kind) in dump.staged {
            let table = if kind == RowKind::Full {
                &mut self.sockets
            } else {
                &mut self.minis
            };
            if table.find(key).is_some_and(|entry| entry.staged) {
                table.remove(key);
            }
        }
        for row in dump.changed {
            let key = self.key(row.cookie);
            if let Some(entry) = self.sockets.find_mut(key) {
                entry.changing = false;
            }
        }
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
            RowKind::Mini => {
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
                    entry.missed = false;
                    continue;
                }
                match self.absence.missing(&id, state, entry.missed) {
                    Missing::Ignored => entry.missed = false,
                    Missing::Suspect => {
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
        for entry in self.minis.iter() {
            let (key, id) = (entry.key(), entry.id());
            if entry.seen != self.number && coverage.includes(&id, entry.state()) {
                self.absence.suspect(Suspect {
                    key,
                    kind: RowKind::Mini,
                    id,
                });
            }
        }
        once
    }

    /// The next socket that an exact query has to be asked about.
    pub fn next_suspect(&mut self) -> Option<Suspect> {
        loop {
            let suspect = self.absence.next_suspect()?;
            let table = if suspect.kind == RowKind::Full {
                &self.sockets
            } else {
                &self.minis
            };
            // Its notice may have come meanwhile, or its ends have changed.
            if table
                .find(suspect.key)
                .is_some_and(|entry| entry.id().same_ends(&suspect.id))
            {
                return Some(suspect);
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

    /// The exact query could not be asked: nothing may be concluded from it. A
    /// full socket now has to be missing from another dump; a minisocket is
    /// asked about after the next one.
    pub fn unanswered(&mut self, suspect: Suspect) {
        if suspect.kind == RowKind::Full {
            self.absence.unanswered(&suspect.id);
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
            self.mini_graves.noticed(key, self.number);
            let end = End::by(Evidence::Verified);
            self.views
                .close(&mut entry, RowKind::Mini, u32::MAX, end, now, judge);
        }
    }

    /// A full socket is gone.
    pub fn notice(&mut self, notice: Notice, now: Now, judge: &mut dyn Judge) {
        if self.own.remove(&notice.cookie) {
            self.stats.own_sockets.bump();
            return;
        }
        let key = self.key(notice.cookie);
        if self.graves.late_notice(key) {
            self.stats.notices_late.bump();
            return;
        }
        let primed = !self
            .absence
            .unit(notice.id.proto, notice.id.family)
            .primed
            .is_empty();
        let portless = notice.id.local.port == 0 && notice.id.remote.port == 0;
        match self.sockets.remove(key) {
            // Never bound: it was in no table, so it is nothing.
            None if portless => return,
            None if primed => self.between_ticks(key, &notice, now, judge),
            Some(mut entry) if primed => self.ended(&mut entry, &notice, now, judge),
            // The first dump is still under way: nothing is in view yet.
            _ => {}
        }
        self.graves.noticed(key, self.number);
    }

    /// The notice is the first word of this socket.
    fn between_ticks(&mut self, key: SocketKey, notice: &Notice, now: Now, judge: &mut dyn Judge) {
        let state = notice.proven_state();
        let first_seen = self.views.age_ms(now);
        let owner = Owner::Unknown(OwnerUnknown::NotRead);
        let mut entry = Entry::new(key, notice.id, state, owner, first_seen);
        let how = How {
            between_ticks: true,
            wiped: notice.is_wiped(),
            ..How::by(Evidence::Notified)
        };
        self.views.open(&mut entry, RowKind::Full, how, now, judge);
        let max_ms = self
            .absence
            .last_dump(&notice.id, state)
            // Rounded up: it is a bound.
            .map(|began| Event::elapsed_ms(began, now) + 1);
        let min_ms = notice
            .tcp
            .filter(|_| state == TcpState::Established && !how.wiped)
            .map(|tcp| u64::from(tcp.last_data_sent_ms.max(tcp.last_data_recv_ms)))
            // Counted in ticks of the kernel's clock, so up to one too many.
            .map(|min| min.saturating_sub(JIFFY_MS))
            // A clock that never started counts from the boot.
            .filter(|min| max_ms.is_none_or(|max| *min <= max));
        let end = End {
            how,
            life: Some(Life::Between { min_ms, max_ms }),
            traffic: Traffic::of(notice),
        };
        self.views
            .close(&mut entry, RowKind::Full, u32::MAX, end, now, judge);
    }

    /// A socket that was read before has ended.
    fn ended(&mut self, entry: &mut Entry, notice: &Notice, now: Now, judge: &mut dyn Judge) {
        if entry.staged {
            // Read by the dump under way; the notice vouches for it before the
            // dump's end does.
            self.views.open(
                entry,
                RowKind::Full,
                How::by(Evidence::Notified),
                now,
                judge,
            );
        } else if entry.changing {
            let read = self.dump.as_mut().and_then(|dump| {
                let at = dump
                    .changed
                    .iter()
                    .position(|row| row.cookie == notice.cookie)?;
                Some(dump.changed.swap_remove(at))
            });
            if let Some(row) = read {
                self.views.update(entry, &row, now, judge);
            }
        }
        let proven = notice.proven_state();
        let id = entry.id();
        let mut wiped = None;
        if notice.id.remote.port != 0 && !id.same_ends(&notice.id) {
            self.views.rebound(entry, notice.id, proven, now, judge);
        } else if notice.is_wiped() && id.remote.is_unconnected() {
            wiped = Some(self.wiped_connection(entry, notice, now, judge));
        } else if proven == TcpState::Established && is_before_established(entry.state()) {
            entry.set_state(proven);
            self.views.open(
                entry,
                RowKind::Full,
                How::by(Evidence::Notified),
                now,
                judge,
            );
        }
        let seen = self.views.age_ms(now).saturating_sub(entry.first_seen_ms());
        let mut end = End {
            how: How::by(Evidence::Notified),
            life: Some(Life::Seen { ms: seen }),
            traffic: Traffic::of(notice),
        };
        if let Some(mut ghost) = wiped {
            let mask = !entry.in_view;
            entry.waiting &= !(ghost.in_view | ghost.waiting);
            self.views
                .close(entry, RowKind::Full, u32::MAX, end, now, judge);
            end.how.wiped = true;
            self.views
                .close(&mut ghost, RowKind::Full, mask, end, now, judge);
        } else {
            self.views
                .close(entry, RowKind::Full, u32::MAX, end, now, judge);
        }
    }

    /// A socket last read as bound only, whose notice proves a connection but
    /// has no remote port any more. That is no rebound (the table's ends win
    /// where the socket is in view), but a sensor that waits for connections
    /// must hear of it: the socket as those sensors see it.
    fn wiped_connection(
        &self,
        entry: &Entry,
        notice: &Notice,
        now: Now,
        judge: &mut dyn Judge,
    ) -> Entry {
        let mut ghost = entry.clone();
        ghost.rebind(
            SockId {
                local: entry.id().local,
                ..notice.id
            },
            self.views.age_ms(now),
        );
        ghost.set_state(notice.proven_state());
        let how = How {
            wiped: true,
            ..How::by(Evidence::Notified)
        };
        self.views.open(&mut ghost, RowKind::Full, how, now, judge);
        ghost
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
        let table = match settled.kind {
            RowKind::Full => &mut self.sockets,
            RowKind::Mini => &mut self.minis,
        };
        if let Some(entry) = table.find_mut(settled.key) {
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

fn is_before_established(state: TcpState) -> bool {
    matches!(state, TcpState::SynSent | TcpState::SynRecv)
}
