//! What is in view, carried over: to a later run of the program, or to sensors
//! that were configured anew.
//!
//! A socket that is carried over a restart is in view, but nobody has seen it
//! since. Absence counts for these as after an overrun: an exact query, or two
//! dumps, say which of them vanished. A notice says so sooner.

use std::ops::Range;
use std::time::Duration;

use super::net_socket::NetSocket;
use super::views::{How, Read, View};
use crate::model::{
    Cookie, Evidence, Host, Judge, Needs, Now, Primed, Proto, Renumbering, RowKind, SensorIx,
    SocketKey, StateGroups, TcpState,
};
use crate::state::{Grave, Socket};
use crate::table::{Entry, LATE_NOTICE, Mark};

/// `Entry::seen` of a socket that was in view before a restart and not in a dump
/// since. Dumps are counted from 1.
pub(super) const RESTORED: u32 = u32::MAX;

/// The evidence of the end of a socket that no notice told of.
pub(super) fn vanished(entry: &Entry) -> Evidence {
    if entry.seen == RESTORED {
        Evidence::Restart
    } else {
        Evidence::Verified
    }
}

impl NetSocket {
    /// Makes the ages of sockets comparable with those of other runs: the sensor
    /// began at `ms` of a clock that all of them share.
    pub fn count_from(&mut self, ms: u64) {
        self.views.count_from(ms);
    }

    /// What a sensor's view has read.
    pub fn primed(&self, sensor: SensorIx) -> Primed {
        self.views.primed(sensor)
    }

    /// Takes over what a sensor's view had read before a restart.
    pub fn resume(&mut self, sensor: SensorIx, primed: Primed) {
        self.views.resume(sensor, primed);
    }

    /// Every socket that is in somebody's view.
    pub fn in_view(&self) -> impl Iterator<Item = Socket> + '_ {
        self.slice(0..self.slots())
    }

    /// How many slots there are to go through.
    pub fn slots(&self) -> usize {
        self.sockets.len().max(self.minis.len())
    }

    /// The sockets in view in some slots. Going through all of them from the end
    /// gives every socket that is there all the while, if the entries keep their
    /// places.
    pub fn slice(&self, slots: Range<usize>) -> impl Iterator<Item = Socket> + '_ {
        let kinds = [(RowKind::Full, &self.sockets), (RowKind::Mini, &self.minis)];
        kinds.into_iter().flat_map(move |(kind, table)| {
            let end = slots.end.min(table.len());
            let shown = table.before(end).take(end.saturating_sub(slots.start));
            let shown = shown.filter(|entry| entry.in_view != 0);
            shown.map(move |entry| saved(entry, kind))
        })
    }

    /// Takes a socket over from before a restart: adds to what was taken over of
    /// it before.
    pub fn restore(&mut self, saved: &Socket) {
        let key = self.key(saved.cookie);
        let caller = saved.process.map(|caller| self.ways.caller(caller, 0));
        if saved.state == TcpState::Listen {
            self.ways.listeners.listens(saved.cookie, &saved.id);
        }
        let table = match saved.kind {
            RowKind::Full => &mut self.sockets,
            RowKind::Mini => &mut self.minis,
        };
        if table.find(key).is_none() {
            let seen = saved.first_seen_ms;
            table.insert(Entry::new(key, saved.id, saved.state, saved.owner, seen));
        }
        let Some(entry) = table.find_mut(key) else {
            return;
        };
        if !entry.id().same_ends(&saved.id) {
            entry.rebind(saved.id, saved.first_seen_ms);
        }
        entry.set_state(saved.state);
        entry.set_owner(saved.owner);
        if let Some(caller) = caller {
            self.ways.note_caller(entry, caller);
        }
        if let Some(direction) = saved.direction {
            entry.set_direction(direction);
        }
        entry.note(Mark::Carried, true);
        entry.seen = RESTORED;
        entry.in_view |= saved.in_view;
        for sensor in sensors(saved.in_view) {
            let host = match (&saved.name, saved.no_name) {
                (_, Some(why)) if saved.nameless & sensor.bit() != 0 => Host::Unknown(why),
                (Some(name), _) => Host::Named(name.clone()),
                _ => Host::Unasked,
            };
            entry.set_host(sensor, host);
        }
    }

    /// From now on [`NetSocket::buried`] tells of ends without a notice.
    pub fn note_graves(&mut self) {
        self.buried = Some(Vec::new());
    }

    /// The sockets whose ends were told without a notice since the last call.
    pub fn buried(&mut self, now: Now) -> Vec<Grave> {
        let buried = self.buried.as_mut().map(std::mem::take).unwrap_or_default();
        if buried.is_empty() {
            return Vec::new();
        }
        let wait = u64::try_from(LATE_NOTICE.as_millis()).unwrap_or(u64::MAX);
        let until_ms = self.views.age_ms(now).saturating_add(wait);
        let each = buried.into_iter();
        each.map(|cookie| Grave { cookie, until_ms }).collect()
    }

    /// All sockets whose notices may still come.
    pub fn graves(&self, now: Now) -> impl Iterator<Item = Grave> + '_ {
        let began = self.views.age_ms(now);
        self.graves.waiting().map(move |(key, until)| {
            let left = until.saturating_duration_since(now.mono).as_millis();
            Grave {
                cookie: key.cookie,
                until_ms: began.saturating_add(u64::try_from(left).unwrap_or(u64::MAX)),
            }
        })
    }

    /// Takes over that an earlier run told of a socket's end.
    pub fn restore_grave(&mut self, grave: Grave, now: Now) {
        let left = grave.until_ms.saturating_sub(self.views.age_ms(now));
        let left = Duration::from_millis(left).min(LATE_NOTICE);
        if !left.is_zero() {
            let key = self.key(grave.cookie);
            self.graves.restore(key, self.number, now.mono + left);
        }
    }

    /// Takes back what [`NetSocket::restore`] took over, for some sensors.
    pub fn unrestore(&mut self, cookie: Cookie, kind: RowKind, sensors: u32) {
        let key = self.key(cookie);
        let table = self.table_mut(kind);
        if let Some(entry) = table.find_mut(key) {
            entry.in_view &= !sensors;
            if entry.in_view == 0
                && let Some(entry) = table.remove(key)
            {
                self.gone(&entry);
            }
        }
    }

    /// Everything is restored. Openings that may not have been told are told, and
    /// which sockets vanished will be found.
    pub fn restored(&mut self, unsure: &[(Cookie, RowKind, u32)], now: Now, judge: &mut dyn Judge) {
        for &(cookie, kind, sensors) in unsure {
            let key = self.key(cookie);
            let table = match kind {
                RowKind::Full => &mut self.sockets,
                RowKind::Mini => &mut self.minis,
            };
            if let Some(entry) = table.find_mut(key) {
                let to = entry.in_view & sensors;
                entry.in_view &= !to;
                let how = How {
                    to,
                    ..How::by(Evidence::Restart)
                };
                self.views.open(entry, kind, how, now, judge);
            }
        }
        if !self.sockets.is_empty() || !self.minis.is_empty() {
            self.absence.resume(self.needs, self.number, now.mono);
        }
    }

    /// A socket from before a restart lives: shows it to the views that begin with
    /// this dump.
    pub(super) fn show_confirmed(
        &mut self,
        key: SocketKey,
        kind: RowKind,
        now: Now,
        judge: &mut dyn Judge,
    ) {
        let table = match kind {
            RowKind::Full => &mut self.sockets,
            RowKind::Mini => &mut self.minis,
        };
        if let Some(entry) = table.find_mut(key) {
            let unread = self.views.unread(&entry.id(), entry.state());
            let how = How {
                to: unread,
                silent: self.views.silent(unread),
                ..How::by(Evidence::Dump)
            };
            self.views.open(entry, kind, how, now, judge);
        }
    }

    /// Puts other sensors in the place of those there are. A sensor that is kept
    /// keeps its view; every other one gets its view from the table, silently
    /// unless it is `initial`, and hears of what comes after the next dump.
    pub fn replace(
        &mut self,
        views: Vec<View>,
        needs: Needs,
        sensors: &Renumbering,
        now: Now,
        judge: &mut dyn Judge,
    ) {
        let fresh = Read {
            since: self.number,
            ..Read::default()
        };
        let all = views.iter().fold(0, |mask, view| mask | view.sensor.bit());
        self.views.replace(views, sensors, fresh);
        self.needs = needs;
        self.absence.forget(needs);
        let fresh = all & !sensors.kept();
        let how = How {
            to: fresh,
            silent: self.views.silent(fresh),
            ..How::by(Evidence::Dump)
        };
        let mut useless = Vec::new();
        let kinds = [
            (RowKind::Full, &mut self.sockets),
            (RowKind::Mini, &mut self.minis),
        ];
        for (kind, table) in kinds {
            for entry in table.iter_mut() {
                entry.renumber(sensors);
                // What is staged is shown when its dump completes, and what is
                // restored when a dump confirms it.
                if entry.is(Mark::Staged) || entry.seen == RESTORED {
                    continue;
                }
                self.views.open(entry, kind, how, now, judge);
                let wanted = match entry.id().proto {
                    Proto::Tcp => needs.tcp.contains(StateGroups::of(entry.state())),
                    Proto::Udp => needs.udp,
                };
                if !wanted && !entry.is_watched() {
                    useless.push((entry.key(), kind));
                }
            }
        }
        for (key, kind) in useless {
            if let Some(entry) = self.table_mut(kind).remove(key) {
                self.gone(&entry);
            }
        }
    }
}

fn saved(entry: &Entry, kind: RowKind) -> Socket {
    let mut saved = Socket {
        cookie: entry.key().cookie,
        kind,
        id: entry.id(),
        state: entry.state(),
        direction: entry.direction(),
        process: entry.process(),
        owner: entry.owner(),
        first_seen_ms: entry.first_seen_ms(),
        in_view: entry.in_view,
        name: None,
        no_name: None,
        nameless: 0,
    };
    for sensor in sensors(entry.in_view) {
        match entry.host(sensor) {
            Host::Unasked => {}
            Host::Named(name) => saved.name = Some(name),
            Host::Unknown(why) => {
                saved.no_name = Some(why);
                saved.nameless |= sensor.bit();
            }
        }
    }
    saved
}

/// The sensors of a mask.
fn sensors(mask: u32) -> impl Iterator<Item = SensorIx> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let next = (rest != 0).then(|| SensorIx(rest.trailing_zeros() as u8))?;
        rest &= rest - 1;
        Some(next)
    })
}
