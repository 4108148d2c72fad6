//! What the pipeline tells a later run, and how it goes on with other sensors.

use super::waiting::WaitKey;
use super::{Pipeline, Stage};
use crate::model::{Change, Host, Netns, Now, Renumbering, SensorIx, SocketKey, Step};
use crate::state::{Journal, Socket};

impl Pipeline {
    /// From now on notes what enters and leaves views in this namespace, and what
    /// changes of locks. A later run knows no other namespace again.
    pub fn keep_journal(&mut self, netns: Netns) {
        self.journal = Some(Journal::new());
        self.journal_of = Some(netns);
        self.locks.note_changes();
    }

    /// What was noted.
    pub fn journal_mut(&mut self) -> Option<&mut Journal> {
        self.journal.as_mut()
    }

    /// Whether sockets entered views that were not noted one by one: the whole
    /// table has to be.
    pub fn take_unnoted(&mut self) -> bool {
        std::mem::take(&mut self.unnoted)
    }

    /// Notes a change of a view that has been decided.
    pub(super) fn note(&mut self, change: &Change, host: &Host) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        if self.journal_of != Some(change.key.netns) {
            return;
        }
        let bit = change.sensor.bit();
        let (name, no_name) = match host {
            Host::Named(name) => (Some(name.clone()), None),
            Host::Unknown(why) => (None, Some(*why)),
            Host::Unasked => (None, None),
        };
        let socket = Socket {
            cookie: change.key.cookie,
            kind: change.kind,
            id: change.id,
            state: change.state,
            direction: change.direction,
            process: change.process,
            owner: change.owner,
            first_seen_ms: change.first_seen_ms,
            in_view: bit,
            name,
            no_name,
            nameless: if no_name.is_some() { bit } else { 0 },
        };
        match change.step {
            Step::Opened { .. } => journal.opened(socket),
            Step::Closed { .. } => journal.left(socket),
        }
    }

    /// Takes out of a socket's view, as it is to be kept, the sensors whose opening
    /// of it still waits to be told: a later run would tell its end alone. What
    /// waits to be told again stays. None when no sensor is left.
    pub fn told(&self, mut socket: Socket) -> Option<Socket> {
        let (Some(netns), false) = (self.journal_of, self.tells_all()) else {
            return Some(socket);
        };
        let in_view = socket.in_view;
        let sensors = (0..self.stages.len()).map(|at| SensorIx(at as u8));
        for sensor in sensors.filter(|sensor| in_view & sensor.bit() != 0) {
            let key = WaitKey {
                sensor,
                socket: SocketKey::new(netns, socket.cookie),
                kind: socket.kind,
            };
            if self.attribution.withholds(key) || self.placing.withholds(key) {
                socket.in_view &= !sensor.bit();
            }
        }
        (socket.in_view != 0).then_some(socket)
    }

    /// Whether no event is held back.
    fn tells_all(&self) -> bool {
        self.attribution.holds_none() && self.placing.holds_none()
    }

    /// Puts other sensors in the place of those there are. What waits for a name
    /// on behalf of a sensor that is kept goes on waiting, and on behalf of another
    /// goes on without; names that are known stay known, and locks that are held
    /// stay held. Whatever was settled must have been taken before.
    pub fn replace(&mut self, stages: Vec<Stage>, sensors: &Renumbering, now: Now) {
        self.finish_where(|sensor| sensors.of(sensor).is_none(), now);
        // Their views are gone.
        self.settled.clear();
        self.release_all();
        self.release_cgroups();
        self.stages = stages;
        self.find_processes();
        self.waiting.renumber(sensors);
        if let Some(journal) = &mut self.journal {
            journal.renumber(|mask| sensors.mask(mask));
        }
    }
}
