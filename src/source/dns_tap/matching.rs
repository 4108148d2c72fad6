//! Which answers are answers: queries that left this host, and what came back.
//!
//! A query is known by its transport, both ends, its id and its question, case
//! folded (a resolver that mixes the case to make forging harder compares it
//! itself). An answer must have all of these. The first that does counts, as it
//! does for whoever asked; later ones are repetitions. They are no error: the same
//! packet is seen on a VLAN, bridge or bond and again on the device below it. A query
//! that is sent again may be answered again.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::aging::Aging;
use crate::model::{Answer, Endpoint, Proto};
use crate::stats::Stats;
use crate::sys::Way;
use crate::wire::dns::packet::{self, Body, Packet};
use crate::wire::dns::{Malformed, Message};

use super::streams::{Side, Streams};

/// The domain port.
const DOMAIN: u16 = 53;

/// Queries that are remembered: some 1.5 MiB when full.
const QUERIES: usize = 8192;

/// How long an answer is waited for. Resolvers ask again, or give up, after 5 s
/// (`timeout` in resolv.conf(5), which cannot be set to more than this).
const PATIENCE: Duration = Duration::from_secs(30);

/// Queries, connections, and what becomes of them.
#[derive(Debug)]
pub(super) struct Matching {
    queries: Queries,
    streams: Streams,
}

impl Matching {
    pub(super) fn new(stats: Rc<Stats>) -> Matching {
        Matching {
            streams: Streams::new(Rc::clone(&stats)),
            queries: Queries {
                asked: Aging::new(QUERIES),
                hasher: RandomState::new(),
                stats,
            },
        }
    }

    /// Takes one packet, from its IP header on.
    pub(super) fn packet(
        &mut self,
        way: Way,
        bytes: &[u8],
        now: Instant,
        each: &mut dyn FnMut(Answer),
    ) {
        let Ok(packet) = packet::read(bytes) else {
            self.queries.stats.dns_malformed.bump();
            return;
        };
        let Some((side, talk)) = side(way, &packet) else {
            return;
        };
        self.queries.forget_old(now);
        let queries = &mut self.queries;
        match packet.body {
            Body::Udp { payload, whole } => {
                let spoken = Spoken {
                    side,
                    talk,
                    proto: Proto::Udp,
                    whole,
                };
                queries.message(&spoken, payload, now, each);
            }
            Body::Tcp(segment) => {
                let spoken = Spoken {
                    side,
                    talk,
                    proto: Proto::Tcp,
                    whole: true,
                };
                let mut each = |message: &[u8]| queries.message(&spoken, message, now, each);
                self.streams.segment(side, &talk, &segment, now, &mut each);
            }
        }
    }
}

/// How a message came.
#[derive(Clone, Copy, Debug)]
struct Spoken {
    side: Side,
    talk: Talk,
    proto: Proto,
    /// Nothing of it was cut off.
    whole: bool,
}

/// Two ends that speak DNS.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Talk {
    /// Who asks.
    pub client: Endpoint,
    /// Who answers, on port 53.
    pub server: Endpoint,
}

/// Whose words a packet has: the client's, if it leaves for a server, the
/// server's, if it comes from one. Neither are the queries that come to this host
/// as a server, and its answers.
fn side(way: Way, packet: &Packet<'_>) -> Option<(Side, Talk)> {
    let asks = packet.destination.port == DOMAIN;
    let answers = packet.source.port == DOMAIN;
    let side = match (way, asks, answers) {
        // Both ends on port 53: some forwarders ask from there.
        (Way::Within, true, true) => {
            let response = match packet.body {
                Body::Udp { payload, .. } => payload.get(2).is_some_and(|flags| flags & 0x80 != 0),
                Body::Tcp(_) => return None,
            };
            if response { Side::Server } else { Side::Client }
        }
        (Way::Out | Way::Within, true, _) => Side::Client,
        (Way::In | Way::Within, _, true) => Side::Server,
        _ => return None,
    };
    let talk = match side {
        Side::Client => Talk {
            client: packet.source,
            server: packet.destination,
        },
        Side::Server => Talk {
            client: packet.destination,
            server: packet.source,
        },
    };
    Some((side, talk))
}

/// What a query is known by. The question is hashed with a key of this process,
/// so that nobody can make one that hashes like another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Query {
    talk: Talk,
    proto: Proto,
    id: u16,
    question: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open,
    Answered,
}

#[derive(Debug)]
struct Queries {
    asked: Aging<Query, State>,
    hasher: RandomState,
    stats: Rc<Stats>,
}

impl Queries {
    fn message(
        &mut self,
        spoken: &Spoken,
        bytes: &[u8],
        now: Instant,
        each: &mut dyn FnMut(Answer),
    ) {
        let message = match Message::read(bytes) {
            Ok(message) => message,
            Err(malformed) => return self.malformed(malformed),
        };
        if !message.is_about_a_name() || message.is_response() != (spoken.side == Side::Server) {
            return;
        }
        let mut hasher = self.hasher.build_hasher();
        message.hash_question(&mut hasher);
        let query = Query {
            talk: spoken.talk,
            proto: spoken.proto,
            id: message.id(),
            question: hasher.finish(),
        };
        match spoken.side {
            Side::Client => self.query(query, now),
            Side::Server => self.response(&query, &message, spoken.whole, each),
        }
    }

    fn query(&mut self, query: Query, now: Instant) {
        self.stats.dns_queries.bump();
        if let Some((_, State::Open)) = self.asked.put(query, State::Open, now) {
            self.stats.dns_queries_forgotten.bump();
        }
    }

    fn response(
        &mut self,
        query: &Query,
        message: &Message<'_>,
        whole: bool,
        each: &mut dyn FnMut(Answer),
    ) {
        match self.asked.get_mut(query) {
            None => self.stats.dns_unmatched.bump(),
            Some(State::Answered) => self.stats.dns_repeated.bump(),
            Some(state) => match message.answer(whole) {
                Ok(answer) => {
                    *state = State::Answered;
                    self.stats.dns_answers.bump();
                    if let Some(answer) = answer {
                        each(answer);
                    }
                }
                // Whoever asked does not take it either, and goes on waiting.
                Err(malformed) => self.malformed(malformed),
            },
        }
    }

    fn malformed(&self, malformed: Malformed) {
        self.stats.dns_malformed.bump();
        log::debug!("dns: a message was not read: {}", malformed.as_str());
    }

    fn forget_old(&mut self, now: Instant) {
        while self.asked.pop_older(PATIENCE, now).is_some() {}
    }
}

#[cfg(test)]
mod tests;
