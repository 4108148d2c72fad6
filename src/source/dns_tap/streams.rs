//! DNS over TCP: segments to messages (RFC 1035 section 4.2.2, RFC 7766).
//!
//! Only connections whose SYN was seen leaving can be framed; of others nothing is
//! known. Both directions are put in order: a segment that comes early waits, what
//! was there already is passed over, a message may lie in several segments and a
//! segment hold several messages. What waits is bounded for each direction and in
//! sum; a connection that would exceed it (a segment was missed) is given up and
//! counted.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::aging::Aging;
use crate::stats::Stats;
use crate::wire::dns::packet::Segment;

use super::matching::Talk;

/// Connections that are followed at one time. One without anything waiting takes
/// some 300 bytes.
const CONNECTIONS: usize = 1024;

/// Bytes that may wait in all connections together.
const WAITING: usize = 1 << 20;

/// Segments that may wait for an earlier one, in one direction.
const EARLY: usize = 32;

/// How far ahead of what is expected a segment may be: the largest window without
/// scaling, with some room. Anything beyond is forged.
const AHEAD: i32 = 1 << 18;

/// A connection without a segment for so long is forgotten. Resolvers that keep
/// theirs open do so for seconds to minutes (RFC 7828).
const IDLE: Duration = Duration::from_secs(600);

/// Whose words a segment has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// Who asks.
    Client,
    /// Who answers.
    Server,
}

/// All connections.
#[derive(Debug)]
pub(super) struct Streams {
    connections: Aging<Talk, Connection>,
    /// Bytes that wait, over all connections.
    waiting: usize,
    stats: Rc<Stats>,
}

#[derive(Debug)]
struct Connection {
    /// The number of the client's SYN.
    syn: u32,
    client: Stream,
    /// From the server's SYN on.
    server: Option<Stream>,
}

impl Connection {
    fn waiting(&self) -> usize {
        self.client.waiting() + self.server.as_ref().map_or(0, Stream::waiting)
    }

    fn has_ended(&self) -> bool {
        self.client.ended && self.server.as_ref().is_some_and(|server| server.ended)
    }
}

impl Streams {
    pub(super) fn new(stats: Rc<Stats>) -> Streams {
        Streams {
            connections: Aging::new(CONNECTIONS),
            waiting: 0,
            stats,
        }
    }

    /// Takes a segment and hands out the messages that it completes.
    pub(super) fn segment(
        &mut self,
        side: Side,
        talk: &Talk,
        segment: &Segment<'_>,
        now: Instant,
        each: &mut dyn FnMut(&[u8]),
    ) {
        while let Some((_, idle)) = self.connections.pop_older(IDLE, now) {
            self.waiting -= idle.waiting();
        }
        if side == Side::Client && segment.syn && !segment.ack {
            self.begin(talk, segment, now);
        }
        let Some(connection) = self.connections.get_mut(talk) else {
            return;
        };
        let before = connection.waiting();
        let step = connection.take(side, segment, each);
        let after = connection.waiting();
        self.waiting = self.waiting + after - before;
        match step {
            Step::Goes => self.connections.touch(talk, now),
            Step::Ended => self.forget(talk),
            Step::Lost => {
                self.forget(talk);
                self.stats.dns_streams_lost.bump();
            }
        }
        while self.waiting > WAITING {
            let Some((_, oldest)) = self.connections.pop_oldest() else {
                return;
            };
            self.waiting -= oldest.waiting();
            self.stats.dns_streams_lost.bump();
        }
    }

    /// A SYN: a connection, unless it is the same SYN again.
    fn begin(&mut self, talk: &Talk, segment: &Segment<'_>, now: Instant) {
        match self.connections.get(talk) {
            Some(known) if known.syn == segment.seq => return,
            Some(_) => self.forget(talk),
            None => {}
        }
        let connection = Connection {
            syn: segment.seq,
            client: Stream::behind(segment.seq),
            server: None,
        };
        if let Some((_, oldest)) = self.connections.put(*talk, connection, now) {
            self.waiting -= oldest.waiting();
            self.stats.dns_streams_lost.bump();
        }
    }

    fn forget(&mut self, talk: &Talk) {
        if let Some(connection) = self.connections.remove(talk) {
            self.waiting -= connection.waiting();
        }
    }
}

/// What a segment did to its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Goes,
    Ended,
    Lost,
}

impl Connection {
    fn take(&mut self, side: Side, segment: &Segment<'_>, each: &mut dyn FnMut(&[u8])) -> Step {
        // A SYN takes a number of its own (and may bring data, RFC 7413).
        let first = segment.seq.wrapping_add(u32::from(segment.syn));
        let stream = match side {
            Side::Client => &mut self.client,
            Side::Server => {
                let answers = segment.ack_seq.wrapping_sub(self.syn).cast_signed() > 0;
                if segment.syn && segment.ack && answers && self.server.is_none() {
                    self.server = Some(Stream::behind(segment.seq));
                }
                match &mut self.server {
                    Some(stream) => stream,
                    // Refused.
                    None if segment.rst && segment.ack && answers => return Step::Ended,
                    None => return Step::Goes,
                }
            }
        };
        // Anything but the next number may be forged (RFC 5961).
        if segment.rst {
            return if first == stream.next {
                Step::Ended
            } else {
                Step::Goes
            };
        }
        if stream.take(first, segment.payload, each).is_err() {
            return Step::Lost;
        }
        let end = first.wrapping_add(segment.payload.len() as u32);
        stream.ended |= segment.fin && end == stream.next;
        if self.has_ended() {
            Step::Ended
        } else {
            Step::Goes
        }
    }
}

/// One direction of a connection.
#[derive(Debug)]
struct Stream {
    /// The number of the next byte.
    next: u32,
    /// The beginning of a message, with its length before it.
    partial: Vec<u8>,
    /// Segments that came early.
    early: Vec<(u32, Box<[u8]>)>,
    ended: bool,
}

/// Too much is missing.
struct Lost;

impl Stream {
    /// The stream behind a SYN of this number.
    fn behind(syn: u32) -> Stream {
        Stream {
            next: syn.wrapping_add(1),
            partial: Vec::new(),
            early: Vec::new(),
            ended: false,
        }
    }

    fn waiting(&self) -> usize {
        let early: usize = self.early.iter().map(|(_, bytes)| bytes.len()).sum();
        self.partial.capacity() + early
    }

    /// Takes bytes that begin at a number.
    fn take(&mut self, first: u32, bytes: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<(), Lost> {
        let ahead = first.wrapping_sub(self.next).cast_signed();
        if bytes.is_empty() || ahead > AHEAD {
            return Ok(());
        }
        if ahead > 0 {
            return self.keep(first, bytes);
        }
        self.append(first, bytes, each);
        // What came early may be next now. Each step takes one away.
        while let Some(at) = self
            .early
            .iter()
            .position(|(first, _)| first.wrapping_sub(self.next).cast_signed() <= 0)
        {
            let (first, bytes) = self.early.swap_remove(at);
            self.append(first, &bytes, each);
        }
        Ok(())
    }

    /// Keeps a segment that came early, once.
    fn keep(&mut self, first: u32, bytes: &[u8]) -> Result<(), Lost> {
        let same = |(of, kept): &(u32, Box<[u8]>)| *of == first && kept.len() >= bytes.len();
        if self.early.iter().any(same) {
            return Ok(());
        }
        if self.early.len() == EARLY {
            return Err(Lost);
        }
        self.early.push((first, bytes.into()));
        Ok(())
    }

    /// Bytes that begin at the next number or before it.
    fn append(&mut self, first: u32, bytes: &[u8], each: &mut dyn FnMut(&[u8])) {
        let known = self.next.wrapping_sub(first) as usize;
        if let Some(new) = bytes.get(known..) {
            self.next = self.next.wrapping_add(new.len() as u32);
            self.frame(new, each);
        }
    }

    /// Cuts bytes into messages.
    fn frame(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(&[u8])) {
        while !bytes.is_empty() {
            if self.partial.is_empty()
                && let Some((message, rest)) = whole(bytes)
            {
                each(message);
                bytes = rest;
                continue;
            }
            // Its length first, then as much as that says.
            let needed = match self.partial.first_chunk::<2>() {
                Some(length) => 2 + usize::from(u16::from_be_bytes(*length)),
                None => 2,
            };
            let missing = needed - self.partial.len();
            let (more, rest) = bytes.split_at(missing.min(bytes.len()));
            self.partial.extend_from_slice(more);
            bytes = rest;
            if let Some((message, _)) = whole(&self.partial) {
                each(message);
                self.partial = Vec::new();
            }
        }
    }
}

/// The first message, if all of it is there, and what is behind it.
fn whole(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}
