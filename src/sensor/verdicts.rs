//! What becomes of a socket that a dump did not hold.

use super::absence::{Missing, Suspect};
use super::carry::vanished;
use super::net_socket::NetSocket;
use super::views::End;
use crate::model::{Coverage, Judge, Now, Row, RowKind, SocketKey};
use crate::table::{Entry, Mark, Table};

impl NetSocket {
    /// Draws the conclusions from what a completed dump did not hold. Tells for
    /// each family whether something must be missing once more. A `narrowed` one
    /// tells nothing of full sockets, whose ends can change; while absence matters
    /// dumps are whole.
    pub(super) fn look_for_absent(
        &mut self,
        coverage: Coverage,
        narrowed: bool,
        now: Now,
        judge: &mut dyn Judge,
    ) -> [bool; 2] {
        let mut once = [false; 2];
        if !narrowed && self.absence.matter(coverage, self.needs, self.number) {
            let mut ended = Vec::new();
            for entry in self.sockets.iter_mut() {
                let (id, state) = (entry.id(), entry.state());
                if !coverage.can_tell_end(&id, state) {
                    continue;
                }
                if entry.seen == self.number {
                    entry.note(Mark::Missed, false);
                    entry.note(Mark::Unaskable, false);
                    continue;
                }
                match self.absence.missing(
                    &id,
                    state,
                    entry.is(Mark::Missed),
                    entry.is(Mark::Unaskable),
                ) {
                    Missing::Ignored => entry.note(Mark::Missed, false),
                    Missing::Suspect if entry.is(Mark::Suspected) => {}
                    Missing::Suspect => {
                        entry.note(Mark::Suspected, true);
                        let (key, kind) = (entry.key(), RowKind::Full);
                        self.absence.suspect(Suspect { key, kind, id });
                    }
                    Missing::Once => {
                        entry.note(Mark::Missed, true);
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
            if entry.is(Mark::Unaskable) {
                ended.push(key);
            } else if !entry.is(Mark::Suspected) {
                entry.note(Mark::Suspected, true);
                let kind = RowKind::Mini;
                self.absence.suspect(Suspect { key, kind, id });
            }
        }
        for key in ended {
            self.end_mini(key, now, judge);
        }
        once
    }

    /// The next socket that an exact query has to be asked about.
    pub fn next_suspect(&mut self) -> Option<Suspect> {
        loop {
            let suspect = self.absence.next_suspect()?;
            // Its notice may have come meanwhile, or its ends have changed.
            if let Some(entry) = self.table_mut(suspect.kind).find_mut(suspect.key) {
                entry.note(Mark::Suspected, false);
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
            entry.note(Mark::Missed, true);
            entry.note(Mark::Unaskable, true);
            if suspect.kind == RowKind::Full {
                self.absence.unanswered(&suspect.id);
            }
        }
    }

    /// The namespace has ended, and everything in it: whatever no notice told of
    /// is told now.
    pub fn end_all(&mut self, now: Now, judge: &mut dyn Judge) {
        self.fail_dump(now);
        let keys = |table: &Table| table.iter().map(Entry::key).collect::<Vec<_>>();
        for key in keys(&self.sockets) {
            self.end_verified(key, now, judge);
        }
        for key in keys(&self.minis) {
            self.end_mini(key, now, judge);
        }
    }

    fn end_verified(&mut self, key: SocketKey, now: Now, judge: &mut dyn Judge) {
        if let Some(mut entry) = self.sockets.remove(key) {
            // Nobody was told of it, and nobody is told of its end: should it live
            // after all, it is new.
            if self.is_strange(&entry) {
                return;
            }
            self.graves.verified(key, self.number, now.mono);
            if let Some(buried) = &mut self.buried {
                buried.push(key.cookie);
            }
            self.gone(&entry);
            let end = End::by(vanished(&entry));
            if self
                .views
                .close(&mut entry, RowKind::Full, u32::MAX, end, now, judge)
            {
                self.absence.recovered();
            }
        }
    }

    pub(super) fn end_mini(&mut self, key: SocketKey, now: Now, judge: &mut dyn Judge) {
        if let Some(mut entry) = self.minis.remove(key) {
            if self.dump.is_some() {
                self.mini_graves.noticed(key, self.number);
            }
            let end = End::by(vanished(&entry));
            self.views
                .close(&mut entry, RowKind::Mini, u32::MAX, end, now, judge);
        }
    }
}
