//! Who has which socket in view, and how a socket is offered and taken away.

use std::sync::Arc;
use std::time::Instant;

use super::ways::Ways;
use crate::model::{
    Change, ClosedFirst, Coverage, Event, Evidence, Judge, Life, Now, Primed, Proto, Renumbering,
    Row, RowKind, SensorIx, Settled, SockId, Sought, Step, TcpState, Traffic, Verdict,
};
use crate::table::Entry;

/// What the socket table must know of one configured sensor.
#[derive(Clone, Debug)]
pub struct View {
    /// Its number.
    pub sensor: SensorIx,
    /// Report what is open at start.
    pub initial: bool,
    /// A pattern asks literally for TIME_WAIT minisockets.
    pub time_wait: bool,
    /// A pattern asks literally for SYN_RECV minisockets.
    pub syn_recv: bool,
    /// What of TCP it could want by the ends of sockets.
    pub sought: Sought,
}

/// How an opening came to be known.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    pub evidence: Evidence,
    /// The sensors that may hear of it at all.
    pub to: u32,
    /// The sensors whose view it enters without an event.
    pub silent: u32,
    pub between_ticks: bool,
    /// The notice's remote port was wiped.
    pub wiped: bool,
}

impl How {
    pub fn by(evidence: Evidence) -> How {
        How {
            evidence,
            to: u32::MAX,
            silent: 0,
            between_ticks: false,
            wiped: false,
        }
    }
}

/// How an end came to be known.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub how: How,
    /// Who closed first, where its notice proves it.
    pub first: Option<ClosedFirst>,
    pub life: Option<Life>,
    pub traffic: Option<Traffic>,
}

impl End {
    pub fn by(evidence: Evidence) -> End {
        End {
            how: How::by(evidence),
            first: None,
            life: None,
            traffic: None,
        }
    }
}

/// All configured views.
#[derive(Debug)]
pub(super) struct Views {
    /// When the sensor began, and what entries call that time: they count from
    /// before it, so that a socket can be older than sockwatch.
    epoch: Instant,
    epoch_ms: u64,
    /// The name of the namespace, for those who are told.
    pub name: Option<Arc<str>>,
    views: Vec<View>,
    /// What was read since each view began.
    reads: Vec<Read>,
    initial: u32,
    time_wait: u32,
    syn_recv: u32,
}

/// What was read since a view began: what turns up of such a kind is new.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Read {
    pub primed: Primed,
    /// Dumps up to this number had begun before.
    pub since: u32,
}

impl Views {
    pub fn new(views: Vec<View>, epoch: Instant) -> Views {
        let mask = |wanted: fn(&View) -> bool| {
            views
                .iter()
                .filter(|view| wanted(view))
                .fold(0, |mask, view| mask | view.sensor.bit())
        };
        Views {
            epoch,
            epoch_ms: 0,
            name: None,
            reads: vec![Read::default(); views.len()],
            initial: mask(|view| view.initial),
            time_wait: mask(|view| view.time_wait),
            syn_recv: mask(|view| view.syn_recv),
            views,
        }
    }

    /// The time as an entry keeps it.
    pub fn age_ms(&self, now: Now) -> u64 {
        self.epoch_ms + Event::elapsed_ms(self.epoch, now)
    }

    /// Sets what entries call the time at which the sensor began.
    pub fn count_from(&mut self, epoch_ms: u64) {
        self.epoch_ms = epoch_ms;
    }

    /// Puts other views in the place of these. Those that are kept know what they
    /// have read; `fresh` is that of the others.
    pub fn replace(&mut self, views: Vec<View>, sensors: &Renumbering, fresh: Read) {
        let mut new = Views::new(views, self.epoch);
        new.epoch_ms = self.epoch_ms;
        new.name = self.name.take();
        new.reads.fill(fresh);
        for (view, read) in self.views.iter().zip(&self.reads) {
            if let Some(kept) = sensors.of(view.sensor).and_then(|ix| new.read_mut(ix)) {
                *kept = *read;
            }
        }
        *self = new;
    }

    /// What a view has read.
    pub fn primed(&self, sensor: SensorIx) -> Primed {
        let mut reads = self.views.iter().zip(&self.reads);
        let read = reads.find(|(view, _)| view.sensor == sensor);
        read.map_or(Primed::default(), |(_, read)| read.primed)
    }

    /// Not every sensor has a view.
    fn read_mut(&mut self, sensor: SensorIx) -> Option<&mut Read> {
        let at = self.views.iter().position(|view| view.sensor == sensor)?;
        self.reads.get_mut(at)
    }

    /// Takes over what a view had read before a restart.
    pub fn resume(&mut self, sensor: SensorIx, primed: Primed) {
        if let Some(read) = self.read_mut(sensor) {
            read.primed = primed;
        }
    }

    /// A dump completed.
    pub fn completed(&mut self, coverage: Coverage, number: u32) {
        for read in &mut self.reads {
            if number > read.since {
                read.primed.add(coverage);
            }
        }
    }

    /// The views that such a read or unread kind of socket concerns.
    fn where_read(&self, is: impl Fn(&Primed) -> bool) -> u32 {
        let views = self.views.iter().zip(&self.reads);
        views
            .filter(|(_, read)| is(&read.primed))
            .fold(0, |mask, (view, _)| mask | view.sensor.bit())
    }

    /// The views that have not read such sockets yet: one that turns up was there
    /// when they began.
    pub fn unread(&self, id: &SockId, state: TcpState) -> u32 {
        self.where_read(|primed| !primed.includes(id, state))
    }

    /// The views that have read sockets of this protocol and family, and hear of
    /// ends.
    pub fn hearing(&self, id: &SockId) -> u32 {
        self.where_read(|primed| !primed.groups(id.proto, id.family).is_empty())
    }

    /// The views that could want such a socket by its ends.
    pub fn seekers(&self, id: &SockId, state: TcpState) -> u32 {
        let seeks = |view: &&View| id.proto == Proto::Udp || view.sought.wants_in(id, state);
        let views = self.views.iter().filter(seeks);
        views.fold(0, |mask, view| mask | view.sensor.bit())
    }

    /// The views that know a socket as it is in the table. To the others it is as
    /// good as unread: what they tell of a socket is the same whether the table
    /// held it when it had ends that do not concern them, or not.
    pub fn knowing(&self, entry: &Entry) -> u32 {
        entry.in_view | entry.waiting | self.seekers(&entry.id(), entry.state())
    }

    /// Those of `views` that say nothing of what was there when they began.
    pub fn silent(&self, views: u32) -> u32 {
        views & !self.initial
    }

    /// Whether any sensor watches minisockets in this state.
    pub fn watch(&self, state: TcpState) -> bool {
        self.watchers(state) != 0
    }

    fn watchers(&self, state: TcpState) -> u32 {
        match state {
            TcpState::TimeWait => self.time_wait,
            TcpState::SynRecv => self.syn_recv,
            _ => 0,
        }
    }

    /// Offers a socket, as it is now, to every sensor that does not have it in
    /// view. A sensor for which it waits for a name is offered it again: should
    /// the first offer be turned down, the next one counts.
    pub fn open(
        &self,
        entry: &mut Entry,
        kind: RowKind,
        how: How,
        now: Now,
        judge: &mut dyn Judge,
    ) {
        let state = entry.state();
        let mask = match kind {
            RowKind::Full => u32::MAX,
            RowKind::Mini => self.watchers(state),
        } & how.to
            & !entry.in_view;
        for view in self
            .views
            .iter()
            .filter(|view| mask & view.sensor.bit() != 0)
        {
            let step = Step::Opened {
                established_first: kind == RowKind::Full && state.follows_established(),
                silent: how.silent & view.sensor.bit() != 0,
            };
            let change = self.change(entry, view.sensor, kind, how, step);
            match judge.open(change, now) {
                Verdict::Entered(host) => {
                    entry.in_view |= view.sensor.bit();
                    entry.set_host(view.sensor, host);
                }
                Verdict::Dropped(host) => entry.set_host(view.sensor, host),
                Verdict::Waiting => entry.waiting |= view.sensor.bit(),
            }
        }
    }

    /// Ends a socket for every sensor of `mask` that has it in view or waits for
    /// it. True when there was one.
    pub fn close(
        &self,
        entry: &mut Entry,
        kind: RowKind,
        mask: u32,
        end: End,
        now: Now,
        judge: &mut dyn Judge,
    ) -> bool {
        let mask = mask & (entry.in_view | entry.waiting);
        for view in self
            .views
            .iter()
            .filter(|view| mask & view.sensor.bit() != 0)
        {
            let step = Step::Closed {
                first: ClosedFirst::shown_by(entry.state()).or(end.first),
                life: end.life,
                traffic: end.traffic,
            };
            judge.close(self.change(entry, view.sensor, kind, end.how, step), now);
        }
        entry.in_view &= !mask;
        entry.waiting &= !mask;
        mask != 0
    }

    /// The same cookie has new ends: what was open under the old ones is closed,
    /// and the new ones are offered to those who knew the old ones. Returns who did.
    pub fn rebound(
        &self,
        entry: &mut Entry,
        id: SockId,
        state: TcpState,
        ways: &mut Ways,
        now: Now,
        judge: &mut dyn Judge,
    ) -> u32 {
        let to = self.knowing(entry);
        self.close(
            entry,
            RowKind::Full,
            u32::MAX,
            End::by(Evidence::Rebound),
            now,
            judge,
        );
        entry.rebind(id, self.age_ms(now));
        entry.set_state(state);
        ways.rebound(entry, Evidence::Rebound);
        let rebound = How {
            to,
            ..How::by(Evidence::Rebound)
        };
        self.open(entry, RowKind::Full, rebound, now, judge);
        to
    }

    /// Brings an entry up to date with a row: new ends are a rebound to whoever knew
    /// the old ones, a new state is another chance to enter a view.
    pub fn update(
        &self,
        entry: &mut Entry,
        row: &Row,
        ways: &mut Ways,
        now: Now,
        judge: &mut dyn Judge,
    ) {
        let was_owned = entry.has_inode();
        entry.set_owner(row.owner);
        if !was_owned && entry.has_inode() {
            ways.forget_holders(entry);
            if entry.in_view != 0 {
                judge.owned(entry.key(), entry.owner(), entry.in_view);
            }
        }
        if !entry.id().same_ends(&row.id) {
            let knew = self.rebound(entry, row.id, row.state, ways, now, judge);
            let read = How {
                to: !knew,
                silent: self.silent(self.unread(&row.id, row.state)),
                ..How::by(Evidence::Dump)
            };
            self.open(entry, RowKind::Full, read, now, judge);
        } else if entry.state() != row.state {
            entry.set_state(row.state);
            self.open(entry, RowKind::Full, How::by(Evidence::Dump), now, judge);
        }
    }

    /// Takes note of what became of an opening that had to wait.
    pub fn settle(entry: &mut Entry, settled: &Settled) {
        entry.waiting &= !settled.sensor.bit();
        if settled.entered {
            entry.in_view |= settled.sensor.bit();
        }
        entry.set_host(settled.sensor, settled.host.clone());
    }

    fn change(
        &self,
        entry: &Entry,
        sensor: SensorIx,
        kind: RowKind,
        how: How,
        step: Step,
    ) -> Change {
        Change {
            sensor,
            key: entry.key(),
            netns_name: self.name.clone(),
            kind,
            id: entry.id(),
            wiped: how.wiped,
            state: entry.state(),
            direction: entry.direction(),
            process: entry.process(),
            holders: entry.holders().cloned(),
            cgroup: entry.belongs_to().cloned(),
            evidence: how.evidence,
            between_ticks: how.between_ticks,
            owner: entry.owner(),
            first_seen_ms: entry.first_seen_ms(),
            host: entry.host(sensor),
            step,
        }
    }
}
