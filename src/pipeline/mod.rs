//! From a change to a record: filter, names, filter again, lock, emit.
//!
//! Every sensor's changes pass here. A change that needs no name is decided
//! within the call; one that does waits in line (`waiting`), and everything
//! that happens to its socket meanwhile queues up behind it, so that events of
//! one socket never overtake each other while all others pass freely.

mod attribution;
mod carry;
mod cgroups;
mod lines;
mod own;
mod stage;
#[cfg(test)]
mod tests;
mod waiting;

pub use attribution::Silent;
pub use stage::{Attribute, Dns, Stage};

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::emit::Fan;
use crate::enrich::{Lookup, Names};
use crate::lock::{Admission, Locks, Released};
use crate::model::{
    Attempt, Attribution, Change, ConnectData, Data, Degraded, Endpoint, Host, HostUnknown, Judge,
    Listener, Name, Netns, NoResults, Now, Owner, Placed, SensorIx, Settled, SocketData, SocketKey,
    Step, TcpState, Verdict,
};
use crate::state::Journal;
use crate::stats::Stats;
use attribution::Attributing;
use cgroups::{Placing, Record};
use stage::Match;
use waiting::{WaitKey, Waiting};

/// For how many answers room is kept from one time to the next.
const KEPT: usize = 256;

/// The stages that all sensors share.
pub struct Pipeline {
    stages: Vec<Stage>,
    names: Names,
    waiting: Waiting,
    attribution: Attributing,
    placing: Placing,
    locks: Locks,
    fan: Fan,
    seq: u64,
    /// The sources that are missing, or parts of them: as many as there are.
    missing: Vec<Degraded>,
    /// The program ends: nothing is asked any more.
    finishing: bool,
    /// What a restart must know of, where that is kept.
    journal: Option<Journal>,
    /// The namespace whose sockets it knows.
    journal_of: Option<Netns>,
    /// Sockets entered views at once, and were not noted one by one.
    unnoted: bool,
    own_id: Arc<str>,
    settled: Vec<Settled>,
    found: Vec<(IpAddr, Host)>,
    eid: String,
    stats: Rc<Stats>,
}

impl Pipeline {
    /// A pipeline for these sensors; a sensor's number is its place.
    pub fn new(stages: Vec<Stage>, names: Names, fan: Fan, stats: Rc<Stats>) -> Pipeline {
        Pipeline {
            stages,
            names,
            waiting: Waiting::default(),
            attribution: Attributing::default(),
            placing: Placing::new(Rc::clone(&stats)),
            locks: Locks::default(),
            fan,
            seq: 0,
            missing: Vec::new(),
            finishing: false,
            journal: None,
            journal_of: None,
            unnoted: false,
            own_id: Arc::from("sockwatch"),
            settled: Vec::new(),
            found: Vec::new(),
            eid: String::new(),
            stats,
        }
    }

    /// Whether a look-up is under way: then sockets of sockwatch's own exist.
    pub fn is_looking_up(&self) -> bool {
        self.names.is_busy()
    }

    /// What became of changes that waited, for the sensors; call it after every
    /// call that may settle something.
    pub fn take_settled(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.settled)
    }

    /// The number of the newest record; 0 before the first.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// How many changes and records wait for something, and how many questions that
    /// nothing waits for are put.
    pub fn waiting(&self) -> usize {
        self.waiting.len() + self.attribution.len() + self.placing.len()
    }

    /// The locks that are held.
    pub fn locks(&self) -> &Locks {
        &self.locks
    }

    /// The same, to release some or to take some over.
    pub fn locks_mut(&mut self) -> &mut Locks {
        &mut self.locks
    }

    /// Releases all locks.
    pub fn release_locks(&mut self) -> Released {
        self.locks.release_all()
    }

    /// What is known of the peer's name without asking anybody.
    fn known_host(&self, change: &Change) -> Host {
        let stage = self.stage(change);
        let ip = change.id.remote.ip;
        match &stage.dns {
            None => Host::Unknown(HostUnknown::NotApplicable),
            Some(_) if change.id.remote.is_unconnected() => {
                Host::Unknown(HostUnknown::NotApplicable)
            }
            Some(dns) if dns.skips(ip) => Host::Unknown(HostUnknown::Skipped),
            Some(_) => change.host.clone(),
        }
    }

    fn stage(&self, change: &Change) -> &Stage {
        &self.stages[usize::from(change.sensor.0)]
    }

    /// Whether emitting the change would come to anything: it is wanted, and its
    /// id is not muted.
    fn is_emittable(&mut self, change: &Change) -> bool {
        let stage = &self.stages[usize::from(change.sensor.0)];
        if !stage.reports(change) {
            return false;
        }
        if !stage.locked {
            return true;
        }
        stage.write_eid(About::of(change), &mut self.eid);
        !self.locks.holds(&self.eid)
    }

    /// Decides about an opening whose host is settled; emits it when it passes.
    fn decide(&mut self, change: &Change, host: &Host, at: Now) -> bool {
        match self.stage(change).matches(change, Some(host.as_str())) {
            Match::As(state) => {
                self.emit(change, state, host, at);
                true
            }
            Match::No | Match::NeedsHost => false,
        }
    }

    /// Emits a change that has been decided, once it is known who has the socket.
    fn emit(&mut self, change: &Change, state: TcpState, host: &Host, at: Now) {
        if let Some(holders) = self.attribute(change, state, host, at) {
            self.tell(change, state, host, holders, at);
        }
    }

    /// Tells a change once it is known where the socket belongs.
    fn tell(
        &mut self,
        change: &Change,
        state: TcpState,
        host: &Host,
        holders: Option<Attribution>,
        at: Now,
    ) {
        let record = || Record::Socket {
            change: Box::new(change.clone()),
            state,
            host: host.clone(),
            holders: holders.clone(),
            at,
        };
        if let Some(placed) = self.place(change, at, record) {
            self.write(change, state, host, holders, placed, at);
        }
    }

    fn write(
        &mut self,
        change: &Change,
        state: TcpState,
        host: &Host,
        holders: Option<Attribution>,
        placed: Option<Placed>,
        at: Now,
    ) {
        if !change.is_silent() {
            self.note(change, host);
        }
        if self.stage(change).reports(change) {
            let wanted = self.stage(change).process;
            let user = match change.owner {
                Owner::Known { uid, .. } if wanted.is_some() => self.user(uid, at),
                Owner::Known { .. } | Owner::Unknown(_) => None,
            };
            let who = (holders, user, wanted);
            let data = || Data::Socket(socket_data(change, state, host, who, placed));
            self.pass(change.sensor, About::of(change), data, at);
        }
    }

    /// Takes a connect(): to each sensor of its kind. `names` are those that were
    /// resolved to its destination, `none` why there is none.
    pub fn connect(
        &mut self,
        attempt: &Attempt,
        place: Option<&Arc<str>>,
        names: &[Name],
        none: Option<NoResults>,
        now: Now,
    ) {
        let about = About {
            action: "connect",
            remote: attempt.remote,
        };
        let user = attempt.uid().and_then(|uid| self.user(uid, now));
        for at in 0..self.stages.len() {
            let stage = &self.stages[at];
            if stage.listener == Listener::TcpConnect
                && let Some(mut data) = stage.connect(attempt, place, names, none)
            {
                data.user.clone_from(&user);
                // As many stages as SensorIx can number.
                self.tell_connect(SensorIx(at as u8), data, about, now);
            }
        }
    }

    /// Tells a connect() once it is known where its caller belongs.
    fn tell_connect(&mut self, sensor: SensorIx, mut data: ConnectData, about: About, at: Now) {
        let record = || Record::Connect {
            data: Box::new(data.clone()),
            about,
            at,
        };
        if let Ok(id) = data.attempt.cgroup_id() {
            match self.place_connect(sensor, id, at, record) {
                Some(placed) => data.cgroup = placed,
                None => return,
            }
        }
        self.pass(sensor, about, || Data::Connect(data), at);
    }

    /// The lock, and what passes it: the sinks.
    fn pass(&mut self, sensor: SensorIx, about: About, data: impl FnOnce() -> Data, at: Now) {
        let stage = &self.stages[usize::from(sensor.0)];
        stage.write_eid(about, &mut self.eid);
        let locked = stage.locked
            && match self.locks.admit(&self.eid, at.wall) {
                Admission::Locked => {
                    if let Some(journal) = &mut self.journal {
                        journal.locked(&self.eid, at.wall);
                    }
                    true
                }
                Admission::Full => {
                    self.stats.locks_full.bump();
                    false
                }
                Admission::Muted => {
                    self.stats.events_muted.bump();
                    return;
                }
            };
        self.tell_losses(at);
        self.seq += 1;
        let stage = &self.stages[usize::from(sensor.0)];
        let event = stage.event(data(), self.seq, at.wall, self.eid.clone());
        self.stats.events.bump();
        let delivered = self.fan.emit(&event);
        // What a restart must know of it is written first, when the turn is over.
        if self.journal.is_none() {
            self.fan.relieve();
        }
        if locked && !delivered {
            self.locks.release(&event.eid);
        }
    }

    /// The sinks.
    pub fn fan_mut(&mut self) -> &mut Fan {
        &mut self.fan
    }
}

impl Judge for Pipeline {
    fn open(&mut self, change: Change, now: Now) -> Verdict {
        let silent = change.is_silent() && self.journal_of == Some(change.key.netns);
        let verdict = self.offer(change, now);
        self.unnoted |= silent && matches!(verdict, Verdict::Entered(_));
        verdict
    }

    fn owned(&mut self, key: SocketKey, owner: Owner, sensors: u32) {
        if let Owner::Known { uid, inode } = owner
            && sensors & self.attributing() != 0
        {
            self.attribution.owned(Silent { key, uid, inode });
        }
    }

    fn close(&mut self, change: Change, now: Now) {
        let key = WaitKey::of(&change);
        if self.queue(key, &change, now) {
            self.ended_meanwhile(&change);
            return;
        }
        let mut host = self.known_host(&change);
        if host == Host::Unasked && self.is_emittable(&change) {
            match self.ask(&change, now) {
                Lookup::Known(known) => host = known,
                Lookup::Pending => {
                    let until = self.wait_until(&change, now);
                    self.waiting.begin(key, change, until, now, true);
                    return;
                }
            }
        }
        self.emit(&change, change.state, &host, now);
    }
}

impl Pipeline {
    /// Decides about an opening, or has it wait.
    fn offer(&mut self, change: Change, now: Now) -> Verdict {
        let key = WaitKey::of(&change);
        if self.queue(key, &change, now) {
            return Verdict::Waiting;
        }
        let host = self.known_host(&change);
        if host != Host::Unasked {
            let entered = self.decide(&change, &host, now);
            return if entered {
                Verdict::Entered(host)
            } else {
                Verdict::Dropped(host)
            };
        }
        match self.stage(&change).matches(&change, None) {
            Match::No => Verdict::Dropped(Host::Unasked),
            // The name decides nothing and would be told to nobody; should the
            // close need it, that is the time to ask.
            Match::As(state) if !self.is_emittable(&change) => {
                self.emit(&change, state, &Host::Unasked, now);
                Verdict::Entered(Host::Unasked)
            }
            Match::As(_) | Match::NeedsHost => match self.ask(&change, now) {
                Lookup::Known(host) => {
                    let entered = self.decide(&change, &host, now);
                    if entered {
                        Verdict::Entered(host)
                    } else {
                        Verdict::Dropped(host)
                    }
                }
                Lookup::Pending => {
                    let until = self.wait_until(&change, now);
                    self.attribute_meanwhile(&change, now);
                    self.waiting.begin(key, change, until, now, false);
                    Verdict::Waiting
                }
            },
        }
    }
}

/// What an event id says beyond its sensor:
/// `<sensor-id>|<listener>[@tag]|<action>@<remote>|0`.
#[derive(Clone, Copy)]
struct About {
    action: &'static str,
    remote: Endpoint,
}

impl About {
    fn of(change: &Change) -> About {
        About {
            action: change.action().as_str(),
            remote: change.id.remote,
        }
    }
}

/// The payload of a socket event.
fn socket_data(
    change: &Change,
    state: TcpState,
    host: &Host,
    who: (Option<Attribution>, Option<Arc<str>>, Option<Attribute>),
    cgroup: Option<Placed>,
) -> SocketData {
    let (holders, user, wanted) = who;
    let (closed_first, life, traffic) = match change.step {
        Step::Closed {
            first,
            life,
            traffic,
        } => (first, life, traffic),
        Step::Opened { .. } => (None, None, None),
    };
    SocketData {
        action: Some((change.action(), change.evidence)),
        id: change.id,
        wiped: change.wiped,
        host: host.clone(),
        state,
        direction: change.direction,
        cookie: change.key.cookie,
        netns: change.key.netns,
        netns_name: change.netns_name.clone(),
        owner: change.owner,
        user,
        process: change.process,
        holders,
        cmdline: wanted.is_some_and(|wanted| wanted.cmdline),
        cgroup,
        between_ticks: change.between_ticks,
        closed_first,
        life,
        traffic,
    }
}
