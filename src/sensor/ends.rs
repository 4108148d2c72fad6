//! What a notice says: the end of a socket, and sometimes all that is ever heard
//! of it.
//!
//! A notice is the kernel's last word about a full socket. The table may know the
//! socket well, may have read it in a dump that has not completed, may hold what
//! it was before it was bound anew, or may never have heard of it. Each of these
//! is settled here, so that every view hears of one opening and one end.

use super::calls::Call;
use super::net_socket::NetSocket;
use super::views::{End, How};
use crate::model::{
    Direction, Event, Evidence, Judge, Life, Notice, Now, Owner, OwnerUnknown, RowKind, SockId,
    SocketKey, TcpState, Traffic,
};
use crate::table::{Entry, Mark};

/// The longest a jiffy can be (CONFIG_HZ=100).
const JIFFY_MS: u64 = 10;

/// Who hears of a notice.
#[derive(Clone, Copy)]
struct Heard {
    /// The views that have read what was there before it.
    by: u32,
    /// Nothing was read yet: the socket may be older than this run.
    at_start: bool,
}

impl NetSocket {
    /// A full socket is gone.
    pub fn notice(&mut self, notice: Notice, now: Now, judge: &mut dyn Judge) {
        self.hear(&notice, now, judge);
        self.ways.forget_call(notice.cookie);
    }

    fn hear(&mut self, notice: &Notice, now: Now, judge: &mut dyn Judge) {
        let key = self.key(notice.cookie);
        // One that was told as opened before it was known as own is told as
        // closed too. The cookie stays known: a row of it may still be unread.
        if self.own.contains_key(&notice.cookie) && self.sockets.find(key).is_none() {
            self.stats.own_sockets.bump();
            let connected = notice.tcp.is_some() && notice.proven_state().is_connected();
            self.ways.opens += u64::from(connected);
            return;
        }
        if self.graves.late_notice(key) {
            self.stats.notices_late.bump();
            return;
        }
        let hearing = self.views.hearing(&notice.id);
        let unit = self.absence.unit(notice.id.proto, notice.id.family);
        let primed = !unit.primed.is_empty();
        let heard = Heard {
            by: hearing,
            at_start: !primed,
        };
        let portless = notice.id.local.port == 0 && notice.id.remote.port == 0;
        // To be counted among the opens once.
        let mut counted = None;
        let known = self.sockets.remove(key).filter(|entry| {
            let strange = self.is_strange(entry);
            if strange && (notice.is_wiped() || entry.id().same_ends(&notice.id)) {
                counted = Some(self.ways.opens);
            }
            !strange
        });
        match known {
            // Bound to nothing, it was in no table when it ended; but a row of what it
            // was before may be unread.
            None if portless => {}
            // Nobody's concern.
            None if notice.id.remote.port != 0
                && !self.seeks(&notice.id, TcpState::Established) => {}
            None if primed || hearing != 0 => {
                self.between_ticks(key, notice, heard, None, now, judge);
            }
            None => {}
            Some(mut entry) => {
                self.gone(&entry);
                // Until the first dump completes nothing else is in view.
                if primed || hearing != 0 || entry.is_watched() {
                    self.ended(&mut entry, notice, heard, now, judge);
                }
            }
        }
        self.ways.opens = counted.unwrap_or(self.ways.opens);
        // Only a dump that began before can still hold a row of it.
        if self.dump.is_some() {
            self.graves.noticed(key, self.number);
        }
    }

    /// The notice is the first word of this socket, to whoever hears of it. `read`
    /// is what the table knew of it, where others knew it.
    fn between_ticks(
        &mut self,
        key: SocketKey,
        notice: &Notice,
        heard: Heard,
        read: Option<&Entry>,
        now: Now,
        judge: &mut dyn Judge,
    ) {
        let state = notice.proven_state();
        let notice = &placed(notice, self.ways.call_of(key.cookie));
        let first_seen = self.views.age_ms(now);
        let owner = Owner::Unknown(OwnerUnknown::NotRead);
        let mut entry = Entry::new(key, notice.id, state, owner, first_seen);
        let how = How {
            to: heard.by,
            between_ticks: true,
            wiped: notice.is_wiped(),
            ..How::by(Evidence::Notified)
        };
        match read {
            Some(read) if state.is_connected() => {
                entry.set_direction(read.direction().unwrap_or(Direction::Unknown));
            }
            Some(_) => {}
            None => {
                self.gone(&entry);
                self.ways
                    .noticed(&mut entry, notice, heard.at_start, self.number);
            }
        }
        self.views.open(&mut entry, RowKind::Full, how, now, judge);
        let max_ms = self
            .absence
            .last_dump(&notice.id, state, now.mono)
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
            first: notice.proven_first(entry.direction()),
            traffic: Traffic::of(notice),
        };
        self.views
            .close(&mut entry, RowKind::Full, u32::MAX, end, now, judge);
    }

    /// A socket that was read before has ended.
    fn ended(
        &mut self,
        entry: &mut Entry,
        notice: &Notice,
        heard: Heard,
        now: Now,
        judge: &mut dyn Judge,
    ) {
        let to = heard.by;
        let notified = How {
            to,
            ..How::by(Evidence::Notified)
        };
        if entry.is(Mark::Staged) {
            self.ways
                .noticed(entry, notice, heard.at_start, self.number);
            // Read by the dump under way; the notice vouches for it before the
            // dump's end does.
            self.views.open(entry, RowKind::Full, notified, now, judge);
        } else if entry.is(Mark::Changing) {
            let at = (entry.key(), RowKind::Full);
            let read = self.dump.as_mut().and_then(|dump| dump.changed.remove(&at));
            if let Some(row) = read {
                self.views.update(entry, &row, &mut self.ways, now, judge);
            }
        }
        let proven = notice.proven_state();
        let id = entry.id();
        let others = Heard {
            by: heard.by & !self.views.knowing(entry),
            ..heard
        };
        if id.same_ends(&notice.id) {
            self.ways.ended(entry, notice);
        }
        let mut wiped = None;
        if notice.id.remote.port != 0 && !id.same_ends(&notice.id) {
            self.views
                .rebound(entry, notice.id, proven, &mut self.ways, now, judge);
        } else if notice.is_wiped() && id.remote.is_unconnected() {
            wiped = Some(self.wiped_connection(entry, notice, to, now, judge));
        } else if proven == TcpState::Established && is_before_established(entry.state()) {
            entry.set_state(proven);
            self.views.open(entry, RowKind::Full, notified, now, judge);
        }
        let seen = self.views.age_ms(now).saturating_sub(entry.first_seen_ms());
        let mut end = End {
            how: How::by(Evidence::Notified),
            life: Some(Life::Seen { ms: seen }),
            first: notice.proven_first(entry.direction()),
            traffic: Traffic::of(notice),
        };
        if let Some(mut ghost) = wiped {
            let mask = !entry.in_view;
            entry.waiting &= !(ghost.in_view | ghost.waiting);
            self.views
                .close(entry, RowKind::Full, u32::MAX, end, now, judge);
            end.how.wiped = ghost.id().remote.port == 0;
            self.views
                .close(&mut ghost, RowKind::Full, mask, end, now, judge);
        } else {
            self.views
                .close(entry, RowKind::Full, u32::MAX, end, now, judge);
        }
        let portless = notice.id.local.port == 0 && notice.id.remote.port == 0;
        if others.by != 0 && !portless && !id.same_ends(&notice.id) {
            self.between_ticks(entry.key(), notice, others, Some(entry), now, judge);
        }
    }

    /// A socket last read as bound only, whose notice proves a connection but
    /// has no remote port any more. That is no rebound (the table's ends win
    /// where the socket is in view), but a sensor that waits for connections
    /// must hear of it: the socket as those sensors see it.
    fn wiped_connection(
        &mut self,
        entry: &Entry,
        notice: &Notice,
        to: u32,
        now: Now,
        judge: &mut dyn Judge,
    ) -> Entry {
        let notice = &placed(notice, self.ways.call_of(entry.key().cookie));
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
            to,
            wiped: notice.is_wiped(),
            ..How::by(Evidence::Notified)
        };
        self.ways.rebound(&mut ghost, Evidence::Notified);
        self.views.open(&mut ghost, RowKind::Full, how, now, judge);
        ghost
    }
}

/// A notice whose remote port was wiped, with the destination that a hook saw.
fn placed(notice: &Notice, call: Option<&Call>) -> Notice {
    let mut placed = *notice;
    if let Some(call) = call.filter(|_| notice.is_wiped()) {
        let end = &mut placed.id.remote;
        end.port = call.remote.port;
        // What was called may be no address in particular.
        if end.ip.is_unspecified() {
            end.ip = call.remote.ip;
            placed.id.v4_mapped = call.v4_mapped;
        }
    }
    placed
}

fn is_before_established(state: TcpState) -> bool {
    matches!(state, TcpState::SynSent | TcpState::SynRecv)
}
