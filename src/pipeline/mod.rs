//! From a change to a record: filter, names, filter again, lock, emit.
//!
//! Every sensor's changes pass here. A change that needs no name is decided
//! within the call; one that does waits in line (`waiting`), and everything
//! that happens to its socket meanwhile queues up behind it, so that events of
//! one socket never overtake each other while all others pass freely.

mod stage;
#[cfg(test)]
mod tests;
mod waiting;

pub use stage::{Dns, Stage};

use std::fmt::Write as _;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::emit::Fan;
use crate::enrich::{Lookup, Names};
use crate::lock::{Admission, Locks, Released};
use crate::model::{
    Change, Data, Degraded, Event, Gap, Host, HostUnknown, Judge, Listener, Now, Restored, Settled,
    SocketData, Step, TcpState, Verdict,
};
use crate::stats::Stats;
use stage::Match;
use waiting::{Line, WaitKey, Waiting};

/// The stages that all sensors share.
pub struct Pipeline {
    stages: Vec<Stage>,
    names: Names,
    waiting: Waiting,
    locks: Locks,
    fan: Fan,
    seq: u64,
    /// The program ends: nothing is asked any more.
    finishing: bool,
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
            locks: Locks::default(),
            fan,
            seq: 0,
            finishing: false,
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

    /// When something that waits must go on without a name.
    pub fn deadline(&mut self) -> Option<Instant> {
        self.waiting.next_deadline()
    }

    /// Takes the answers that came in and lets go on what waited for them.
    pub fn collect(&mut self, now: Now) {
        let mut found = std::mem::take(&mut self.found);
        self.names.collect(now, &mut found);
        for (ip, host) in found.drain(..) {
            for key in self.waiting.waiting_for(ip) {
                self.advance(key, Some((ip, host.clone())), now);
            }
        }
        self.found = found;
    }

    /// Lets go on, without a name, what has waited long enough.
    pub fn expire(&mut self, now: Now) {
        while let Some((key, ip)) = self.waiting.pop_expired(now.mono) {
            self.stats.names_timed_out.bump();
            self.advance(key, Some((ip, Host::Unknown(HostUnknown::TimedOut))), now);
        }
    }

    /// Lets everything go on without a name: the program ends.
    pub fn finish(&mut self, now: Now) {
        self.finishing = true;
        for (key, ip) in self.waiting.drain_heads() {
            self.advance(key, Some((ip, Host::Unknown(HostUnknown::TimedOut))), now);
        }
    }

    /// What became of changes that waited, for the sensors; call it after every
    /// call that may settle something.
    pub fn take_settled(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.settled)
    }

    /// Releases all locks.
    pub fn release_locks(&mut self) -> Released {
        self.locks.release_all()
    }

    /// Emits the record of a gap.
    pub fn gap(&mut self, gap: Gap, now: Now) {
        self.own("gap", gap.cause.as_str(), Data::Gap(gap), now);
    }

    /// Emits the record of a source that is missing.
    pub fn degraded(&mut self, degraded: Degraded, now: Now) {
        self.own("degraded", degraded.source, Data::Degraded(degraded), now);
    }

    /// Emits the record of a source that is there after all.
    pub fn restored(&mut self, restored: Restored, now: Now) {
        self.own("restored", restored.source, Data::Restored(restored), now);
    }

    fn own(&mut self, action: &str, cause: &str, data: Data, now: Now) {
        self.seq += 1;
        let event = Event {
            ts: now.wall,
            seq: self.seq,
            eid: format!("sockwatch|self|{action}@{cause}|0"),
            sensor: Arc::clone(&self.own_id),
            listener: Listener::Own,
            tag: None,
            data,
        };
        self.stats.events.bump();
        self.fan.emit(&event);
    }

    /// Tells of what a sink lost, once it can take events again: the record
    /// stands between the last event before the loss and the first one after.
    pub fn tell_losses(&mut self, now: Now) {
        while let Some(loss) = self.fan.loss() {
            self.gap(loss.gap(), now);
        }
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
        stage.write_eid(change, &mut self.eid);
        !self.locks.holds(&self.eid)
    }

    /// Asks for the peer's name, or says what is known of it now.
    fn ask(&mut self, change: &Change, now: Now) -> Lookup {
        let Some(dns) = &self.stages[usize::from(change.sensor.0)].dns else {
            return Lookup::Known(Host::Unknown(HostUnknown::NotApplicable));
        };
        let ip = change.id.remote.ip;
        if self.finishing || self.waiting.is_full() {
            let why = if self.finishing {
                HostUnknown::TimedOut
            } else {
                self.stats.names_overload.bump();
                HostUnknown::Overload
            };
            let known = self.names.recall(ip, dns.ttl, now);
            return Lookup::Known(known.unwrap_or(Host::Unknown(why)));
        }
        self.names.ask(ip, dns.ttl, now.mono + dns.timeout, now)
    }

    /// Puts a change behind those of its socket that wait; false when none does.
    /// Where no more may wait, the line goes on without a name instead.
    fn queue(&mut self, key: WaitKey, change: &Change, now: Now) -> bool {
        if self.waiting.is_full()
            && let Some(ip) = self.waiting.head(key)
        {
            self.stats.names_overload.bump();
            self.advance(key, Some((ip, Host::Unknown(HostUnknown::Overload))), now);
        }
        let until = self.wait_until(change, now);
        self.waiting.append(key, change, until, now)
    }

    fn wait_until(&self, change: &Change, now: Now) -> Instant {
        let timeout = self.stage(change).dns.as_ref().map(|dns| dns.timeout);
        now.mono + timeout.unwrap_or_default()
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

    fn emit(&mut self, change: &Change, state: TcpState, host: &Host, at: Now) {
        let stage = &self.stages[usize::from(change.sensor.0)];
        if !stage.reports(change) {
            return;
        }
        stage.write_eid(change, &mut self.eid);
        let locked = stage.locked
            && match self.locks.admit(&self.eid, at.wall) {
                Admission::Locked => true,
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
        let stage = &self.stages[usize::from(change.sensor.0)];
        let event = stage.event(change, state, host, self.seq, at.wall, self.eid.clone());
        self.stats.events.bump();
        let delivered = self.fan.emit(&event);
        if locked && !delivered {
            self.locks.release(&event.eid);
        }
    }

    /// Works off a line: its head now has a host, and whatever stands behind it
    /// goes on as far as it can without another look-up.
    fn advance(&mut self, key: WaitKey, answer: Option<(IpAddr, Host)>, now: Now) {
        let Some(mut line) = self.waiting.take(key) else {
            return;
        };
        let mut answer = answer;
        while let Some(step) = line.steps.pop_front() {
            let ip = step.change.id.remote.ip;
            let host = match answer.take().filter(|(answered, _)| *answered == ip) {
                Some((_, host)) => host,
                None => match self.host_in_line(&line, &step, now) {
                    Lookup::Known(host) => host,
                    Lookup::Pending => {
                        line.steps.push_front(step);
                        self.waiting.put(key, line);
                        return;
                    }
                },
            };
            match step.change.step {
                Step::Opened { .. } if line.entered => {}
                Step::Opened { .. } => {
                    line.entered = self.decide(&step.change, &host, step.at);
                    line.host = host;
                    line.host_of = Some(ip);
                }
                Step::Closed { .. } => {
                    if line.entered {
                        self.emit(&step.change, step.change.state, &host, step.at);
                    }
                    line.entered = false;
                }
            }
        }
        self.settled.push(Settled {
            sensor: key.sensor,
            key: key.socket,
            kind: key.kind,
            entered: line.entered,
            host: line.host,
        });
    }

    /// The host of a step that comes up in its line.
    fn host_in_line(&mut self, line: &Line, step: &waiting::Waiter, now: Now) -> Lookup {
        let known = match line.host_of {
            Some(ip) if ip == step.change.id.remote.ip => line.host.clone(),
            _ => self.known_host(&step.change),
        };
        if known != Host::Unasked {
            return Lookup::Known(known);
        }
        let closes_nothing = matches!(step.change.step, Step::Closed { .. }) && !line.entered;
        let opens_again = matches!(step.change.step, Step::Opened { .. }) && line.entered;
        if closes_nothing || opens_again {
            return Lookup::Known(Host::Unasked);
        }
        if step.until <= now.mono {
            return Lookup::Known(Host::Unknown(HostUnknown::TimedOut));
        }
        self.ask(&step.change, now)
    }

    /// The sinks.
    pub fn fan_mut(&mut self) -> &mut Fan {
        &mut self.fan
    }
}

impl Judge for Pipeline {
    fn open(&mut self, change: Change, now: Now) -> Verdict {
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
                    self.waiting.begin(key, change, until, now, false);
                    Verdict::Waiting
                }
            },
        }
    }

    fn close(&mut self, change: Change, now: Now) {
        let key = WaitKey::of(&change);
        if self.queue(key, &change, now) {
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

/// Writes an event id: `<sensor-id>|<listener>[@tag]|<action>@<remote>|0`.
fn write_eid(out: &mut String, sensor: &str, tag: Option<&str>, change: &Change) {
    out.clear();
    let listener = Listener::NetSocket.as_str();
    let action = change.action().as_str();
    let remote = change.id.remote;
    // Writing to a String cannot fail.
    let written = match tag {
        Some(tag) => write!(out, "{sensor}|{listener}@{tag}|{action}@{remote}|0"),
        None => write!(out, "{sensor}|{listener}|{action}@{remote}|0"),
    };
    debug_assert!(written.is_ok());
}

/// The payload of a socket event.
fn socket_data(change: &Change, state: TcpState, host: &Host) -> SocketData {
    let (life, traffic) = match change.step {
        Step::Closed { life, traffic } => (life, traffic),
        Step::Opened { .. } => (None, None),
    };
    SocketData {
        action: Some((change.action(), change.evidence)),
        id: change.id,
        wiped: change.wiped,
        host: host.clone(),
        state,
        cookie: change.key.cookie,
        netns: change.key.netns,
        owner: change.owner,
        between_ticks: change.between_ticks,
        life,
        traffic,
    }
}
