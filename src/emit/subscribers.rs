//! Events for any number of subscribers, rendered once for all of them.
//!
//! One ring holds what some subscriber has still to be told; each has its place
//! in it. So a subscriber costs no memory of its own however far it lags, and
//! all together cost one ring of `daemon.queue` events at the most. When the
//! ring is full its oldest event goes, and whoever had not got it yet is told
//! how many it lost, by a gap record without a number (it is no record of the
//! daemon's, but of this one subscription) that stands where the loss is. Nobody
//! else notices.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Delivery, Json, Loss, Sink, Text};
use crate::filter::IdGlob;
use crate::model::{Data, Event, Listener};
use crate::stats::Stats;

/// How many events are looked at for one subscriber in one go.
const SCANNED: usize = 256;

/// What a subscriber wants.
#[derive(Debug, Default)]
pub struct Terms {
    /// Only events whose id matches.
    pub glob: Option<IdGlob>,
    /// Lines for a person, each as the `text` of an object, instead of records.
    pub as_text: bool,
}

impl Terms {
    fn want(&self, eid: &str) -> bool {
        self.glob.as_ref().is_none_or(|glob| glob.matches(eid))
    }
}

/// A subscription.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Subscription(u64);

/// All subscribers.
#[derive(Debug)]
pub struct Subscribers {
    json: Json,
    text: Text,
    ring: VecDeque<Line>,
    /// How many events have left the ring: the number of its first.
    gone: u64,
    limit: usize,
    members: BTreeMap<Subscription, Member>,
    next: u64,
    stats: Rc<Stats>,
}

/// One event.
#[derive(Debug)]
struct Line {
    eid: Box<str>,
    json: Box<[u8]>,
    /// Where some subscriber wants it.
    text: Option<Box<[u8]>>,
}

#[derive(Debug)]
struct Member {
    terms: Terms,
    /// The number of the next event for it.
    place: u64,
    lost: Option<Lost>,
}

#[derive(Debug)]
struct Lost {
    events: u64,
    since: SystemTime,
    until: SystemTime,
}

impl Subscribers {
    /// None yet; they may lag behind by `limit` events. `several_sensors` is as
    /// for [`Text::new`].
    pub fn new(host: String, several_sensors: bool, limit: usize, stats: Rc<Stats>) -> Subscribers {
        Subscribers {
            json: Json::new(host),
            text: Text::new(several_sensors),
            ring: VecDeque::new(),
            gone: 0,
            limit: limit.max(1),
            members: BTreeMap::new(),
            next: 0,
            stats,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Adds one, who is told what happens from now on.
    pub fn subscribe(&mut self, terms: Terms) -> Subscription {
        let subscription = Subscription(self.next);
        self.next += 1;
        let member = Member {
            terms,
            place: self.gone + self.ring.len() as u64,
            lost: None,
        };
        self.members.insert(subscription, member);
        subscription
    }

    /// Takes one away.
    pub fn unsubscribe(&mut self, subscription: Subscription) {
        self.members.remove(&subscription);
        self.trim();
    }

    /// Appends what a subscriber has not got yet, as long as `out` is shorter
    /// than `until`; whether there is more.
    pub fn fill(&mut self, subscription: Subscription, out: &mut Vec<u8>, until: usize) -> bool {
        let Some(member) = self.members.get_mut(&subscription) else {
            return false;
        };
        if let Some(lost) = member.lost.take() {
            let event = lost.told();
            if member.terms.as_text {
                append_text(&self.text, &event, out);
            } else {
                self.json.unnumbered(&event, out);
            }
        }
        for _ in 0..SCANNED {
            if out.len() >= until {
                break;
            }
            let at = usize::try_from(member.place - self.gone).unwrap_or(usize::MAX);
            let Some(line) = self.ring.get(at) else {
                return false;
            };
            member.place += 1;
            if member.terms.want(&line.eid) {
                match &line.text {
                    Some(text) if member.terms.as_text => out.extend_from_slice(text),
                    _ => out.extend_from_slice(&line.json),
                }
            }
        }
        member.place < self.gone + self.ring.len() as u64
    }

    /// Forgets what everybody has got; to be called once a turn.
    pub fn trim(&mut self) {
        let end = self.gone + self.ring.len() as u64;
        let least = self.members.values().map(|member| member.place).min();
        let done = least.unwrap_or(end) - self.gone;
        self.ring.drain(..done as usize);
        self.gone += done;
        if self.ring.is_empty() && self.ring.capacity() > 64 {
            self.ring.shrink_to(64);
        }
    }

    /// They may lag behind by so many events from now on; when that is less than
    /// they do, the oldest are lost with the next one.
    fn set_limit(&mut self, limit: usize) {
        self.limit = limit.max(1);
    }

    fn offer(&mut self, event: &Event) -> Delivery {
        let wanted = self
            .members
            .values()
            .any(|member| member.terms.want(&event.eid));
        if !wanted {
            return Delivery::Unwanted;
        }
        while self.ring.len() >= self.limit {
            self.drop_oldest(event.ts);
        }
        let mut json = Vec::with_capacity(1024);
        if let Err(error) = self.json.event(event, &mut json) {
            log::error!("event {} cannot be rendered: {error}", event.seq);
            return Delivery::Dropped;
        }
        let text = self.members.values().any(|member| member.terms.as_text);
        let text = text.then(|| {
            let mut line = Vec::with_capacity(256);
            append_text(&self.text, event, &mut line);
            line.into()
        });
        self.ring.push_back(Line {
            eid: event.eid.as_str().into(),
            json: json.into(),
            text,
        });
        Delivery::Delivered
    }

    fn drop_oldest(&mut self, now: SystemTime) {
        let Some(line) = self.ring.pop_front() else {
            return;
        };
        for member in self.members.values_mut() {
            if member.place > self.gone {
                continue;
            }
            member.place = self.gone + 1;
            if member.terms.want(&line.eid) {
                self.stats.subscribers_lost.bump();
                let lost = member.lost.get_or_insert(Lost {
                    events: 0,
                    since: now,
                    until: now,
                });
                lost.events += 1;
                lost.until = now;
            }
        }
        self.gone += 1;
    }
}

impl Lost {
    /// The record of it.
    fn told(&self) -> Event {
        let loss = Loss {
            sink: Arc::from("subscriber"),
            lost: self.events,
            duration: self.until.duration_since(self.since).unwrap_or_default(),
        };
        Event {
            ts: self.until,
            seq: 0,
            eid: "sockwatch|self|gap@queue|0".to_string(),
            sensor: Arc::from("sockwatch"),
            listener: Listener::Own,
            tag: None,
            data: Data::Gap(loss.gap()),
        }
    }
}

/// Appends an event as an object that holds its line of text.
fn append_text(text: &Text, event: &Event, out: &mut Vec<u8>) {
    let mut line = Vec::with_capacity(256);
    text.event(event, &mut line).expect("a Vec takes any text");
    line.truncate(line.trim_ascii_end().len());
    let mut object = super::Object::open(out);
    object.text("text", &String::from_utf8_lossy(&line));
    object.close();
    out.push(b'\n');
}

/// The subscribers, shared by the one who offers events and the one who writes
/// to them.
pub type Shared = Rc<std::cell::RefCell<Subscribers>>;

impl Sink for Shared {
    fn offer(&mut self, event: &Event) -> Delivery {
        self.borrow_mut().offer(event)
    }

    fn loss(&mut self) -> Option<Loss> {
        // Each subscriber is told of its own.
        None
    }

    fn set_limit(&mut self, limit: usize) {
        self.borrow_mut().set_limit(limit);
    }

    fn held(&self) -> usize {
        self.borrow().ring.len()
    }
}

#[cfg(test)]
#[path = "subscribers_tests.rs"]
mod tests;
