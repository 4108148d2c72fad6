//! What a dump says: which sockets there are, and what has changed of them.
//!
//! Rows of a dump under way are staged: entered in the table, but told to nobody
//! until the dump completes. A dump that fails leaves the table as it was.

use std::collections::BTreeMap;
use std::time::Instant;

use super::carry::RESTORED;
use super::net_socket::NetSocket;
use super::views::How;
use crate::model::{
    Coverage, Evidence, Judge, Now, Proto, Row, RowKind, SocketKey, StateGroups, TcpState,
};
use crate::table::{Entry, Mark};

/// A dump between its request and its end.
#[derive(Debug)]
pub(super) struct UnderWay {
    coverage: Coverage,
    began: Instant,
    staged: Vec<(SocketKey, RowKind)>,
    /// Sockets from before a restart that live, for views that are new.
    confirmed: Vec<(SocketKey, RowKind)>,
    /// Full sockets whose handshake is under way.
    handshakes: u32,
    /// The kernel was asked to leave out what is not sought.
    narrowed: bool,
    /// It follows a narrowed one at once, for what that did not hold.
    widened: bool,
    /// Something else is sought since it began.
    pub(super) outdated: bool,
    /// Rows that say something new of sockets in the table.
    pub(super) changed: BTreeMap<(SocketKey, RowKind), Row>,
}

/// What was not in a dump, and has not been heard to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Missed {
    /// There is something whose new ends a whole dump would tell.
    pub any: bool,
    /// There is something that the last whole dump did not hold either.
    pub hidden: bool,
}

/// For how many dumps an own socket that has not been seen open since is
/// remembered: its notice comes within milliseconds.
const OWN_KEPT: u32 = 8;

impl NetSocket {
    /// A dump was asked for.
    pub fn begin_dump(&mut self, coverage: Coverage, now: Now) {
        self.number = self.number.wrapping_add(1);
        self.walk.begin(coverage);
        self.mini_walk.begin(coverage);
        self.dump = Some(UnderWay {
            coverage,
            began: now.mono,
            staged: Vec::new(),
            confirmed: Vec::new(),
            handshakes: 0,
            narrowed: false,
            widened: false,
            outdated: false,
            changed: BTreeMap::new(),
        });
    }

    /// The kernel was asked to leave what is not sought out of the dump that has
    /// just begun: absence from it proves nothing. A socket that was connected
    /// anew to where nobody looks is missing from it and lives, and what became of
    /// it only a whole dump tells ([`NetSocket::misses`]).
    pub fn narrowed(&mut self) {
        if let Some(dump) = &mut self.dump {
            dump.narrowed = true;
        }
    }

    /// The dump that has just begun is the whole one that follows a narrowed one: to
    /// what is remembered for some dumps they are one.
    pub fn widened(&mut self) {
        if let Some(dump) = &mut self.dump {
            dump.widened = true;
        }
    }

    /// The number of the newest dump.
    pub fn dump_number(&self) -> u32 {
        self.number
    }

    /// What of the table is sought, has not been heard to end, and was not in a dump
    /// that completed and was the newest until now. If that was `whole`, nothing is
    /// missing from it: what it did not hold the kernel shows to nobody, and no dump is
    /// to be asked for it until one has held it again.
    pub fn misses(&mut self, coverage: Coverage, number: u32, whole: bool) -> Missed {
        let (sought, sockets) = (&self.sought, &mut self.sockets);
        let mut missed = Missed::default();
        let mut look = |entry: &mut Entry| {
            let (id, state) = (entry.id(), entry.state());
            if entry.seen == number {
                entry.note(Mark::Hidden, false);
            } else if coverage.includes(&id, state)
                && (id.proto == Proto::Udp || sought.wants_in(&id, state))
            {
                if whole {
                    entry.note(Mark::Hidden, true);
                }
                if entry.is(Mark::Hidden) {
                    missed.hidden = true;
                } else {
                    missed.any = true;
                }
            }
        };
        if coverage.groups == StateGroups::LISTEN {
            // They are few, and the table may be large.
            for cookie in self.ways.listeners.live() {
                let entry = sockets.find_mut(SocketKey::new(self.netns, cookie));
                entry.into_iter().for_each(&mut look);
            }
        } else {
            sockets.iter_mut().for_each(look);
        }
        missed
    }

    /// A row of the dump under way.
    pub fn row(&mut self, row: Row, now: Now) {
        let key = self.key(row.cookie);
        let sought = self.seeks(&row.id, row.state);
        let Some(dump) = &mut self.dump else {
            return;
        };
        if row.kind == RowKind::Full
            && sought
            && matches!(row.state, TcpState::SynSent | TcpState::SynRecv)
        {
            dump.handshakes += 1;
        }
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
        let mut found = table.find_next(key, walk);
        let current = found.as_ref().is_some_and(|entry| entry.is_current(&row));
        // What nobody knew, and has other ends now, or is somebody's concern, is a
        // socket like any that was not in the table.
        if let Some(entry) = &found
            && !current
            && !half_made
            && row.kind == RowKind::Full
            && entry.seen != self.number
            && !self.ways.are_wanted()
            && self.views.knowing(entry) == 0
            && (!entry.id().same_ends(&row.id) || self.views.seekers(&row.id, row.state) != 0)
        {
            table.remove(key);
            found = None;
        }
        if let Some(entry) = found {
            // A dump under churn can hold a row twice; the first one counts.
            if entry.seen != self.number {
                if entry.seen == RESTORED && self.views.unread(&row.id, row.state) != 0 {
                    dump.confirmed.push((key, row.kind));
                }
                entry.seen = self.number;
                if current {
                    if entry.is(Mark::Carried) {
                        entry.note(Mark::Carried, false);
                        self.ways.belongs(entry, row.cgroup);
                    }
                } else if !half_made {
                    self.ways.changes(entry, &row, self.number);
                    entry.note(Mark::Changing, true);
                    dump.changed.insert((key, row.kind), row);
                }
            }
            return;
        }
        if half_made || !sought || graves.covers(key, self.number) {
            return;
        }
        if self.own.contains_key(&row.cookie) {
            self.stats.own_sockets.bump();
            return;
        }
        let first_seen = self.views.age_ms(now);
        let mut entry = Entry::new(key, row.id, row.state, row.owner, first_seen);
        entry.seen = self.number;
        entry.note(Mark::Staged, true);
        self.ways.belongs(&mut entry, row.cgroup);
        if row.state == TcpState::Listen {
            self.ways.listeners.listens(row.cookie, &row.id);
        }
        table.insert(entry);
        dump.staged.push((key, row.kind));
    }

    /// The dump under way completed: what was staged counts now. Says how many
    /// sockets it found that had not been there at start.
    pub fn end_dump(&mut self, now: Now, judge: &mut dyn Judge) -> u64 {
        let Some(dump) = self.dump.take() else {
            return 0;
        };
        let mut found = 0;
        if dump.coverage.proto == Proto::Tcp
            && dump.coverage.groups.contains(StateGroups::CONNECTED)
        {
            match dump.coverage.family {
                None => self.handshakes = [dump.handshakes, 0],
                Some(family) => self.handshakes[family as usize] = dump.handshakes,
            }
        }
        for (key, kind) in dump.staged {
            let (table, graves) = match kind {
                RowKind::Full => (&mut self.sockets, &mut self.graves),
                RowKind::Mini => (&mut self.minis, &mut self.mini_graves),
            };
            // It may have ended while the dump was read.
            let Some(entry) = table.find_mut(key).filter(|entry| entry.is(Mark::Staged)) else {
                continue;
            };
            if self.own.contains_key(&key.cookie) {
                table.remove(key);
                self.stats.own_sockets.bump();
                continue;
            }
            entry.note(Mark::Staged, false);
            let id = entry.id();
            // Whoever was told of an end is not told otherwise by what nobody wants.
            if self.ways.are_wanted() || self.views.seekers(&id, entry.state()) != 0 {
                graves.lift(key);
            }
            let primed = self.absence.unit(id.proto, id.family).primed;
            let at_start = !primed.contains(StateGroups::of(entry.state()));
            let unread = self.views.unread(&id, entry.state());
            let how = How {
                silent: self.views.silent(unread),
                ..How::by(Evidence::Dump)
            };
            found += u64::from(!at_start);
            if kind == RowKind::Full {
                self.ways.read(entry, at_start, self.number);
            }
            self.views.open(entry, kind, how, now, judge);
        }
        for (key, kind) in dump.confirmed {
            self.show_confirmed(key, kind, now, judge);
        }
        for row in dump.changed.into_values() {
            self.update(&row, now, judge);
        }
        let once = self.look_for_absent(dump.coverage, dump.narrowed, now, judge);
        self.absence
            .completed(dump.coverage, self.needs, self.number, dump.began, once);
        if dump.outdated {
            self.absence.unread(Proto::Tcp);
        }
        self.views.completed(dump.coverage, self.number);
        if !dump.widened {
            self.ways_after(dump.coverage);
        }
        self.sweep(now);
        found
    }

    /// What the dump that completed has decided of connections.
    fn ways_after(&mut self, coverage: Coverage) {
        for (cookie, direction) in self.ways.dumped(coverage, self.number) {
            let key = self.key(cookie);
            if let Some(entry) = self.sockets.find_mut(key) {
                entry.set_direction(direction);
            }
        }
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
            if table.find(key).is_some_and(|entry| entry.is(Mark::Staged))
                && let Some(entry) = table.remove(key)
            {
                // Half a dump held it, so it is there.
                self.gone(&entry);
            }
        }
        for (key, kind) in dump.confirmed {
            if let Some(entry) = self.table_mut(kind).find_mut(key) {
                entry.seen = RESTORED;
            }
        }
        for row in dump.changed.into_values() {
            let key = self.key(row.cookie);
            if let Some(entry) = self.sockets.find_mut(key) {
                entry.note(Mark::Changing, false);
            }
        }
        self.sweep(now);
    }

    pub(super) fn update(&mut self, row: &Row, now: Now, judge: &mut dyn Judge) {
        let key = self.key(row.cookie);
        match row.kind {
            RowKind::Full => {
                if let Some(entry) = self.sockets.find_mut(key) {
                    entry.note(Mark::Changing, false);
                    self.ways.belongs(entry, row.cgroup);
                    self.views.update(entry, row, &mut self.ways, now, judge);
                    entry.note(Mark::Carried, false);
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
}
