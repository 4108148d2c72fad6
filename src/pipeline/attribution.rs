//! Who has a socket open: events that wait for the answer.
//!
//! A change comes here when it has been decided, so that a view never waits; its
//! event does, and whatever the same sensor has to say of the same socket queues
//! up behind it. The question is put when a socket enters a view. The answer goes
//! to the event, and to whoever keeps the socket ([`Pipeline::take_attributed`]),
//! for by the time it ends nobody has it open any more. So an end waits no longer
//! than for the search that is under way: what that has not found nobody will.
//! For sockets that enter a view without an event nothing waits: they are asked
//! about some at a time.
//!
//! A change that has to wait for a name first may do so for seconds, in which the
//! socket or its process can end: the question is put meanwhile, and the answer
//! is kept with the change.

mod held;
mod silent;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use held::{Held, Lines};
pub use silent::Silent;
use silent::Silents;

use super::waiting::WaitKey;
use super::{KEPT, Pipeline};
use crate::enrich::pool::Wake;
use crate::enrich::{Lookup, Processes, Users};
use crate::model::{
    Attributed, Attribution, Change, Evidence, Host, Now, Owner, ProcessUnknown, RowKind, SensorIx,
    SocketData, Step, TcpState,
};

/// Everything that waits for processes.
#[derive(Default)]
pub(super) struct Attributing {
    wake: Option<Wake>,
    processes: Option<Processes>,
    users: Option<Users>,
    lines: Lines,
    silents: Silents,
    attributed: Vec<Attributed>,
    found: Vec<(u32, Attribution)>,
    /// The time of the last call: an event may have waited for a name before.
    clock: Option<Now>,
}

impl Attributing {
    /// Whether the opening of this socket is held back, and no earlier run told of
    /// it.
    pub fn withholds(&self, key: WaitKey) -> bool {
        let first = self.lines.first(key);
        first.is_some_and(|first| first.change.evidence != Evidence::Restart)
    }

    /// Whether none of any socket is.
    pub fn holds_none(&self) -> bool {
        self.lines.is_empty()
    }

    /// Finds processes with this.
    #[cfg(test)]
    pub fn find_with(&mut self, processes: Processes) {
        self.processes = Some(processes);
    }

    /// Whether anybody is being looked for.
    #[cfg(test)]
    pub fn is_looking(&self) -> bool {
        self.processes.as_ref().is_some_and(Processes::is_busy)
    }

    /// How many events are held back, and how many sockets are asked about besides.
    pub fn len(&self) -> usize {
        self.lines.len() + self.silents.len()
    }

    /// When something that waits is due.
    pub fn deadline(&self) -> Option<Instant> {
        let rest = self.processes.as_ref().zip(self.clock);
        let rest = rest.and_then(|(processes, now)| processes.deadline(now));
        self.lines.deadline().into_iter().chain(rest).min()
    }

    /// Asks about a socket that nothing waits for.
    fn ask_silently(&mut self, silent: Silent, now: Now) {
        let Some(processes) = &mut self.processes else {
            return;
        };
        let Silent { key, uid, inode } = silent;
        match processes.ask(inode, Some(uid), Silents::patience(now.mono)) {
            Lookup::Known(holders) => self.attributed.push(Attributed { key, holders }),
            Lookup::Pending => self.silents.asked(silent, now.mono),
        }
    }

    /// Asks about some of the sockets that nothing waits for.
    fn ask_more(&mut self, now: Now) {
        self.silents.expire(now.mono);
        while let Some(silent) = self.silents.pop() {
            self.ask_silently(silent, now);
        }
    }

    /// Asks about a socket whose change waits for something else.
    fn ask_meanwhile(&mut self, silent: Silent, now: Now) {
        if self.silents.room() == 0 {
            return;
        }
        if let Some(processes) = &mut self.processes
            && let until = Silents::patience(now.mono)
            && let Lookup::Pending = processes.ask(silent.inode, Some(silent.uid), until)
        {
            self.silents.asked(silent, now.mono);
        }
    }

    /// The socket of a change, to be asked about when there is time.
    fn silent(&self, change: &Change) -> Option<Silent> {
        match change.owner {
            Owner::Known { uid, inode } if inode != 0 && self.processes.is_some() => {
                let key = change.key;
                Some(Silent { key, uid, inode })
            }
            Owner::Known { .. } | Owner::Unknown(_) => None,
        }
    }

    /// Sockets have gone by the thousand.
    pub fn forget_ended(&mut self) {
        if let Some(processes) = &mut self.processes {
            processes.forget_ended();
        }
    }

    /// A socket in view got a file.
    pub fn owned(&mut self, silent: Silent) {
        if self.processes.is_some() && silent.inode != 0 {
            self.silents.push(silent);
        }
    }

    /// A socket has ended: `None` while somebody may have been found to hold it.
    fn ended(&mut self, inode: u32) -> Option<Attribution> {
        match self.processes.as_mut()?.ended(inode) {
            Lookup::Known(holders) => Some(holders),
            Lookup::Pending => None,
        }
    }
}

const TIMEOUT: Attribution = Attribution::Unknown(ProcessUnknown::Timeout);

impl Pipeline {
    /// From now on finds out who has a socket open, for the sensors that want
    /// it. `wake` is called when there is something to collect.
    pub fn attribute_with(&mut self, wake: Wake) {
        self.attribution.users = Some(Users::new(Arc::clone(&wake)));
        self.attribution.wake = Some(wake);
        self.find_processes();
    }

    /// Looks processes up as the sensors want it now.
    pub(super) fn find_processes(&mut self) {
        let cmdline = self.shows_cmdlines();
        let wake = self.attribution.wake.clone();
        let wanted = wake.filter(|_| self.attributing() != 0);
        self.attribution.silents.forget();
        match (&self.attribution.processes, wanted) {
            // It goes on with what it knows.
            (Some(processes), Some(_)) if processes.reads_cmdlines() == cmdline => {}
            (_, wanted) => {
                let stats = &self.stats;
                self.attribution.processes =
                    wanted.map(|wake| Processes::new(cmdline, wake, Rc::clone(stats)));
            }
        }
    }

    /// Whether any sensor shows command lines.
    pub fn shows_cmdlines(&self) -> bool {
        let wanted = self.stages.iter().filter_map(|stage| stage.process);
        wanted.into_iter().any(|wanted| wanted.cmdline)
    }

    /// Adds to a row of the table what is known of its user, and what command lines
    /// the sensors show.
    pub fn complete(&self, data: &mut SocketData) {
        if self.attributing() == 0 {
            data.holders = None;
            return;
        }
        data.cmdline = self.shows_cmdlines();
        if let Owner::Known { uid, .. } = data.owner {
            let users = self.attribution.users.as_ref();
            data.user = users.and_then(|users| users.known(uid));
        }
    }

    /// The name of a user.
    pub fn user(&mut self, uid: u32, now: Now) -> Option<Arc<str>> {
        self.attribution.users.as_mut()?.name(uid, now)
    }

    /// Which sensors say who has their sockets open.
    pub fn attributing(&self) -> u32 {
        let each = self.stages.iter().enumerate();
        each.filter(|(_, stage)| stage.process.is_some())
            .fold(0, |mask, (at, _)| mask | 1 << at)
    }

    /// Sockets are in view that did not enter through here: they are to be asked
    /// about.
    pub fn attribute_all(&mut self) {
        if self.attribution.processes.is_some() {
            self.attribution.silents.all();
        }
    }

    /// Whether everything in view that was not asked about is to be, by
    /// [`Pipeline::attribute_silently`].
    pub fn take_attribute_all(&mut self) -> bool {
        self.attribution.silents.take_all()
    }

    /// How many sockets may be asked about now without anybody waiting for it.
    pub fn silent_room(&self) -> usize {
        self.attribution.silents.room()
    }

    /// Asks about a socket in view, for the sake of its close.
    pub fn attribute_silently(&mut self, silent: Silent, now: Now) {
        if !self.finishing {
            self.attribution.ask_silently(silent, now);
        }
    }

    /// Sockets have gone by the thousand: what is remembered of who had them may go.
    pub fn forget_ended(&mut self) {
        self.attribution.forget_ended();
    }

    /// Who has which socket, as it was found since the last call; call it after
    /// every call that may emit something.
    pub fn take_attributed(&mut self) -> Vec<Attributed> {
        std::mem::take(&mut self.attribution.attributed)
    }

    /// Asks who has the socket of an opening that waits for a name.
    pub(super) fn attribute_meanwhile(&mut self, change: &Change, now: Now) {
        let wanted = self.stage(change).process.is_some() && !self.finishing;
        if wanted
            && change.holders.is_none()
            && let Some(silent) = self.attribution.silent(change)
        {
            self.attribution.ask_meanwhile(silent, now);
        }
    }

    /// The socket of a change that waits for a name has ended: what is not found
    /// out by now never will be.
    pub(super) fn ended_meanwhile(&mut self, change: &Change) {
        if change.evidence != Evidence::Rebound
            && let Owner::Known { inode, .. } = change.owner
            && self.attribution.silents.is_asked(inode)
            && let Some(holders) = self.attribution.ended(inode)
        {
            self.found_silently(inode, holders);
        }
    }

    /// Passes an answer on that no event waits for by itself.
    fn found_silently(&mut self, inode: u32, holders: Attribution) {
        let Some(key) = self.attribution.silents.take(inode) else {
            return;
        };
        // Who could not be found in time is looked for again when the name is there.
        if holders != TIMEOUT {
            for at in 0..self.stages.len() {
                let line = WaitKey {
                    // As many stages as SensorIx can number.
                    sensor: SensorIx(at as u8),
                    socket: key,
                    kind: RowKind::Full,
                };
                self.waiting.learn(line, &holders);
            }
        }
        self.attribution
            .attributed
            .push(Attributed { key, holders });
    }

    /// What the event of a decided change is to say of who has the socket;
    /// `None` when the event has to wait, and will be told later.
    pub(super) fn attribute(
        &mut self,
        change: &Change,
        state: TcpState,
        host: &Host,
        at: Now,
    ) -> Option<Option<Attribution>> {
        let Some(wanted) = self.stage(change).process else {
            return Some(None);
        };
        let held = || Held {
            change: change.clone(),
            state,
            host: host.clone(),
            at,
        };
        let key = WaitKey::of(change);
        if self.attribution.lines.is_full() {
            self.release(key, &TIMEOUT);
        }
        // A socket that has other ends lives.
        let ended =
            matches!(change.step, Step::Closed { .. }) && change.evidence != Evidence::Rebound;
        if let Some(inode) = self.attribution.lines.inode(key) {
            self.attribution.lines.append(key, held());
            if ended && let Some(holders) = self.attribution.ended(inode) {
                self.release(key, &holders);
            }
            return None;
        }
        if let Some(known) = &change.holders {
            return Some(Some(known.clone()));
        }
        let (uid, inode) = match change.owner {
            Owner::Unknown(why) => return Some(Some(Attribution::Unknown(why.into()))),
            Owner::Known { uid, inode } => (uid, inode),
        };
        let attribution = &mut self.attribution;
        if let Step::Closed { .. } = change.step {
            let asked = ended && attribution.silents.take(inode).is_some();
            let holders = if asked {
                attribution.ended(inode)
            } else {
                None
            };
            let unread = Attribution::Unknown(ProcessUnknown::NotRead);
            return Some(Some(holders.unwrap_or(unread)));
        }
        if !self.is_emittable(change) {
            if let Some(silent) = self.attribution.silent(change) {
                self.attribution.silents.push(silent);
            }
            return Some(None);
        }
        let attribution = &mut self.attribution;
        let Some(processes) = attribution.processes.as_mut().filter(|_| !self.finishing) else {
            return Some(Some(TIMEOUT));
        };
        if attribution.lines.is_full() {
            self.stats.processes_overload.bump();
            return Some(Some(TIMEOUT));
        }
        let now = attribution
            .clock
            .map_or(at.mono, |clock| clock.mono.max(at.mono));
        let until = now + wanted.timeout;
        match processes.ask(inode, Some(uid), until) {
            Lookup::Known(holders) => {
                let (key, known) = (change.key, holders.clone());
                attribution.attributed.push(Attributed { key, holders });
                Some(Some(known))
            }
            Lookup::Pending => {
                attribution.lines.begin(key, inode, until, held());
                None
            }
        }
    }

    /// Takes the answers that came in, and lets go on what waited for them.
    pub(super) fn collect_holders(&mut self, now: Now) {
        self.attribution.clock = Some(now);
        let Some(processes) = &mut self.attribution.processes else {
            return;
        };
        let mut found = std::mem::take(&mut self.attribution.found);
        processes.collect(now, &mut found);
        for (inode, holders) in found.drain(..) {
            for key in self.attribution.lines.waiting_for(inode) {
                self.release(key, &holders);
            }
            self.found_silently(inode, holders);
        }
        if found.capacity() <= KEPT {
            self.attribution.found = found;
        }
        self.attribution.ask_more(now);
    }

    /// Lets go on what has waited long enough.
    pub(super) fn expire_holders(&mut self, now: Now) {
        self.attribution.clock = Some(now);
        while let Some(key) = self.attribution.lines.expired(now.mono) {
            self.stats.processes_timed_out.bump();
            self.release(key, &TIMEOUT);
        }
        self.attribution.ask_more(now);
    }

    /// Has the search begin with what was asked since the last call: one for all.
    pub fn search(&mut self, now: Now) {
        self.attribution.clock = Some(now);
        self.attribution.ask_more(now);
        if let Some(processes) = &mut self.attribution.processes {
            processes.search(now);
        }
    }

    /// Lets everything go on without an answer.
    pub(super) fn release_all(&mut self) {
        while let Some(key) = self.attribution.lines.oldest() {
            self.release(key, &TIMEOUT);
        }
    }

    /// Tells the events of a line. What was not found in time is looked for all
    /// the same, for the close, unless that is among them.
    fn release(&mut self, key: WaitKey, holders: &Attribution) {
        let Some(line) = self.attribution.lines.take(key) else {
            return;
        };
        self.attribution.attributed.push(Attributed {
            key: key.socket,
            holders: holders.clone(),
        });
        if *holders == TIMEOUT
            && !self.finishing
            && let [only] = &line.events[..]
            && let Some(silent) = self.attribution.silent(&only.change)
        {
            self.attribution.silents.push_if_room(silent);
        }
        for held in line.events {
            let known = Some(holders.clone());
            self.tell(&held.change, held.state, &held.host, known, held.at);
        }
    }
}
