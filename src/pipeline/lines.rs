//! Changes that wait for a name, on their way through the pipeline: who asks,
//! what happens when the answer comes, when it does not, and when too many wait.

use std::net::IpAddr;
use std::time::Instant;

use super::waiting::{Line, WaitKey, Waiter};
use super::{KEPT, Pipeline};
use crate::enrich::Lookup;
use crate::model::{Change, Host, HostUnknown, Now, SensorIx, Settled, Step};

impl Pipeline {
    /// When something that waits must go on without what it waits for.
    pub fn deadline(&mut self) -> Option<Instant> {
        let attribution = self.attribution.deadline();
        let name = self.waiting.next_deadline();
        let cgroup = self.placing.deadline();
        [name, attribution, cgroup].into_iter().flatten().min()
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
        if found.capacity() <= KEPT {
            self.found = found;
        }
        self.collect_holders(now);
        self.collect_cgroups(now);
    }

    /// Lets go on, without a name, what has waited long enough.
    pub fn expire(&mut self, now: Now) {
        while let Some((key, ip)) = self.waiting.expired(now.mono) {
            self.stats.names_timed_out.bump();
            self.advance(key, Some((ip, Host::Unknown(HostUnknown::TimedOut))), now);
        }
        self.expire_holders(now);
        self.expire_cgroups(now);
    }

    /// Lets everything go on without a name: the program ends.
    pub fn finish(&mut self, now: Now) {
        self.finish_where(|_| true, now);
        self.finishing = true;
        self.release_all();
        self.release_cgroups();
    }

    /// Lets everything of some sensors go on without a name.
    pub(super) fn finish_where(&mut self, of: impl Fn(SensorIx) -> bool, now: Now) {
        let finishing = std::mem::replace(&mut self.finishing, true);
        for (key, ip) in self.waiting.heads() {
            if of(key.sensor) {
                self.advance(key, Some((ip, Host::Unknown(HostUnknown::TimedOut))), now);
            }
        }
        self.finishing = finishing;
    }

    /// Asks for the peer's name, or says what is known of it now.
    pub(super) fn ask(&mut self, change: &Change, now: Now) -> Lookup {
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
    pub(super) fn queue(&mut self, key: WaitKey, change: &Change, now: Now) -> bool {
        if self.waiting.is_full()
            && let Some(ip) = self.waiting.head(key)
        {
            self.stats.names_overload.bump();
            self.advance(key, Some((ip, Host::Unknown(HostUnknown::Overload))), now);
        }
        let until = self.wait_until(change, now);
        self.waiting.append(key, change, until, now)
    }

    pub(super) fn wait_until(&self, change: &Change, now: Now) -> Instant {
        let timeout = self.stage(change).dns.as_ref().map(|dns| dns.timeout);
        now.mono + timeout.unwrap_or_default()
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
                    if line.entered && step.change.is_silent() {
                        self.note(&step.change, &host);
                    }
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
    fn host_in_line(&mut self, line: &Line, step: &Waiter, now: Now) -> Lookup {
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
}
