//! One connection: its lines in, its lines out, and what it owes.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::protocol::{BadRequest, Request};
use super::task::Task;
use super::{Commands, LONGEST, replies};
use crate::emit::{Subscribers, Subscription, Terms};
use crate::model::Now;
use crate::stats::Stats;
use crate::sys::Peer;

/// Nothing is added to the output while so much of it waits.
const ENOUGH: usize = 16 * 1024;
/// Rounds of reading, working and writing in one turn.
const ROUNDS: usize = 4;
/// What a piece of work counts for, in bytes written: some 20 µs.
const PIECE: usize = 4096;
/// What a glob counts for that is compiled: up to a millisecond.
const GLOB: usize = 128 * 1024;
/// What a byte of a request counts for: it is parsed, and may be a glob.
const BYTE: usize = 64;
/// A turn in which so much was done is over.
const TURN: usize = 256 * 1024;
/// Requests in one round.
const REQUESTS: usize = 16;
/// How long a client may take over what it owes: the first request, the rest of
/// a line, the reading of a reply.
const PATIENCE: Duration = Duration::from_secs(30);
/// After how long over it a client makes room for another.
const STUCK: Duration = Duration::from_millis(100);

/// A connection.
#[derive(Debug)]
pub(super) struct Client {
    pub stream: UnixStream,
    pub peer: Peer,
    pub subscription: Option<Subscription>,
    input: Vec<u8>,
    output: Vec<u8>,
    /// How much of the output is written.
    written: usize,
    task: Option<Task>,
    /// There may be something to read.
    pub readable: bool,
    /// There may be room to write.
    pub writable: bool,
    /// The other end is gone altogether.
    pub gone: bool,
    /// It will send no more.
    ended: bool,
    /// It is closed once what it is told is written.
    closing: bool,
    /// It has made a request that is one.
    pub proven: bool,
    /// When it last got on with something: came, finished a request, read.
    pub since: Instant,
}

/// What a client may use in its turn.
pub(super) struct Desk<'a, C> {
    pub commands: &'a mut C,
    pub subscribers: &'a RefCell<Subscribers>,
    pub stats: &'a Stats,
    pub uptime: Duration,
    pub clients: usize,
    /// Whether there is room for one more subscriber.
    pub may_subscribe: bool,
    pub now: Now,
}

/// What a client's turn came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum After {
    /// It waits for the other end, or for an event.
    Waits,
    /// It has more to do.
    Busy,
    /// It is done with.
    Close,
}

impl Client {
    pub fn new(stream: UnixStream, peer: Peer, now: Instant) -> Client {
        Client {
            stream,
            peer,
            subscription: None,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            task: None,
            readable: true,
            writable: true,
            gone: false,
            ended: false,
            closing: false,
            proven: false,
            since: now,
        }
    }

    /// Whether it owes something and has not got on with it.
    pub fn is_stuck(&self, now: Instant) -> bool {
        self.owes() && now.saturating_duration_since(self.since) >= STUCK
    }

    fn owes(&self) -> bool {
        !self.proven
            || self.subscription.is_none()
                && !(self.input.is_empty() && self.output.is_empty() && self.task.is_none())
    }

    /// Whether the table must keep its order for it.
    pub fn lists_sockets(&self) -> bool {
        self.task.as_ref().is_some_and(Task::lists_sockets)
    }

    /// When it is closed for what it owes.
    pub fn due(&self) -> Option<Instant> {
        self.owes().then(|| self.since + PATIENCE)
    }

    /// Does a bounded piece of what there is to do, and tells what that has cost,
    /// in bytes written.
    pub fn turn<C: Commands>(&mut self, desk: &mut Desk<'_, C>) -> (After, usize) {
        let mut cost = 0;
        for _ in 0..ROUNDS {
            let before = self.output.len();
            if self.read(desk.now.mono).is_err() {
                return (After::Close, cost);
            }
            let more = self.work(desk, &mut cost);
            let made = self.output.len() > before;
            let Ok(wrote) = self.write(desk.now.mono) else {
                return (After::Close, cost);
            };
            cost += wrote;
            if self.is_done() {
                return (After::Close, cost);
            }
            let stuck = !self.output.is_empty() && !self.writable;
            let goes_on = more || made || wrote > 0 || self.task.is_some();
            if stuck || !(goes_on || self.readable && self.has_room()) {
                return (After::Waits, cost);
            }
            if cost >= TURN {
                break;
            }
        }
        (After::Busy, cost)
    }

    fn has_room(&self) -> bool {
        !self.ended && !self.closing && self.input.len() < LONGEST
    }

    /// Nobody is left to be told anything, or everything was.
    fn is_done(&self) -> bool {
        let quiet = self.output.is_empty() && self.task.is_none();
        let answered = self.ended && self.input.is_empty();
        self.closing && self.output.is_empty()
            || answered && quiet && self.subscription.is_none()
            || self.gone && self.ended && self.task.is_none() && answered
    }

    /// Reads once, if there is room: who does not read replies is not read from.
    fn read(&mut self, now: Instant) -> io::Result<()> {
        if !self.readable || !self.has_room() || self.output.len() >= ENOUGH {
            return Ok(());
        }
        let mut buffer = [0; 4096];
        let room = buffer.len().min(LONGEST - self.input.len());
        match self.stream.read(&mut buffer[..room]) {
            Ok(0) => {
                self.ended = true;
                self.readable = false;
                Ok(())
            }
            Ok(count) => {
                // It has been idle, for as long as it liked: what it owes begins now.
                if !self.owes() {
                    self.since = now;
                }
                self.input.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Goes on with a reply, answers requests, and adds events; whether there are
    /// more of those.
    fn work<C: Commands>(&mut self, desk: &mut Desk<'_, C>, cost: &mut usize) -> bool {
        let mut taken = 0;
        for _ in 0..REQUESTS {
            if self.output.len() >= ENOUGH || self.closing || *cost >= TURN {
                break;
            }
            *cost += PIECE;
            if let Some(mut task) = self.task.take() {
                let before = task.compiled();
                let done = task.go_on(desk.commands, &mut self.output);
                *cost += GLOB * (task.compiled() - before);
                if done {
                    self.finish(&task, desk);
                } else {
                    self.task = Some(task);
                }
                continue;
            }
            let rest = &self.input[taken..];
            match rest.iter().position(|byte| *byte == b'\n') {
                Some(length) => {
                    let line = rest[..length].to_vec();
                    taken += length + 1;
                    *cost += BYTE * length;
                    self.answer(&line, desk);
                }
                // The other end will send no more, not even the line end.
                None if self.ended && !rest.is_empty() => {
                    let line = rest.to_vec();
                    taken = self.input.len();
                    self.answer(&line, desk);
                }
                None if rest.len() >= LONGEST => {
                    desk.stats.control_failed.bump();
                    let error =
                        format!("a request has at most {LONGEST} bytes; the connection is closed");
                    replies::failed(&mut self.output, None, &error, |_| {});
                    self.closing = true;
                }
                None => {
                    *cost -= PIECE;
                    break;
                }
            }
        }
        self.input.drain(..taken);
        if self.input.is_empty() && self.input.capacity() > 1024 {
            self.input = Vec::new();
        }
        match self.subscription {
            Some(subscription) if self.task.is_none() && self.output.len() < ENOUGH => {
                let output = &mut self.output;
                let more = desk
                    .subscribers
                    .borrow_mut()
                    .fill(subscription, output, ENOUGH);
                *cost += if more { PIECE } else { 0 };
                more
            }
            _ => false,
        }
    }

    fn answer<C: Commands>(&mut self, line: &[u8], desk: &mut Desk<'_, C>) {
        match Request::parse(line) {
            Ok(request) => {
                self.proven = true;
                self.since = desk.now.mono;
                self.carry_out(request, desk);
            }
            Err(BadRequest { request, message }) => {
                desk.stats.control_failed.bump();
                replies::failed(&mut self.output, request, &message, |_| {});
            }
        }
    }

    fn carry_out<C: Commands>(&mut self, request: Request, desk: &mut Desk<'_, C>) {
        let name = request.name();
        match request {
            Request::Ping => replies::ok(&mut self.output, name, |line| {
                replies::introduce(line, desk.uptime);
            }),
            Request::Stats => {
                let connected = (desk.clients, desk.subscribers.borrow_mut().len());
                let locks = desk.commands.locks().len();
                replies::ok(&mut self.output, name, |line| {
                    replies::introduce(line, desk.uptime);
                    let status = desk.commands.status();
                    let (asked, stats) = (desk.commands.asked(), desk.commands.stats());
                    replies::missing(line, desk.commands.missing());
                    replies::count(line, status, locks, connected, &asked, stats);
                });
            }
            Request::Locks => return self.task = Some(Task::locks()),
            Request::Unlock(eids) => return self.task = Some(Task::unlock(eids)),
            Request::Dump => return self.task = Some(Task::dump()),
            Request::Subscribe(terms) => return self.subscribe(*terms, desk),
            Request::Reload => match desk.commands.reload(desk.now) {
                Ok(message) => replies::ok(&mut self.output, name, |line| {
                    line.text("message", &message);
                }),
                Err(problems) => {
                    desk.stats.control_failed.bump();
                    return replies::not_reloaded(&mut self.output, &problems);
                }
            },
        }
        desk.stats.control_requests.bump();
    }

    fn subscribe<C: Commands>(&mut self, terms: Terms, desk: &mut Desk<'_, C>) {
        match self.subscription.take() {
            Some(before) => desk.subscribers.borrow_mut().unsubscribe(before),
            None if !desk.may_subscribe => {
                desk.stats.control_failed.bump();
                let error = "there are as many subscribers as there may be; end one of them";
                return replies::failed(&mut self.output, Some("subscribe"), error, |_| {});
            }
            None => {}
        }
        desk.may_subscribe = false;
        self.subscription = Some(desk.subscribers.borrow_mut().subscribe(terms));
        desk.stats.control_requests.bump();
        replies::ok(&mut self.output, "subscribe", |_| {});
    }

    fn finish<C: Commands>(&mut self, task: &Task, desk: &mut Desk<'_, C>) {
        self.since = desk.now.mono;
        if matches!(task, Task::Unlock(unlock) if unlock.has_failed()) {
            desk.stats.control_failed.bump();
        } else {
            desk.stats.control_requests.bump();
        }
        self.tell_released(task);
    }

    fn tell_released(&self, task: &Task) {
        if let Task::Unlock(unlock) = task
            && let (locks, muted) = unlock.released()
            && locks > 0
        {
            log::info!(
                "released {locks} locks, which had muted {muted} events, as uid {} asked",
                self.peer.uid
            );
        }
    }

    /// It is about to be closed: says what it had done half-way.
    pub fn close(&mut self) {
        if let Some(task) = self.task.take() {
            self.tell_released(&task);
        }
    }

    /// Writes what there is room for; how much.
    fn write(&mut self, now: Instant) -> io::Result<usize> {
        let mut wrote = 0;
        while self.writable && self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.written += count;
                    self.since = if self.proven { now } else { self.since };
                    wrote += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.written == self.output.len() {
            self.output.clear();
            if self.output.capacity() > 2 * ENOUGH || self.subscription.is_none() {
                self.output = Vec::new();
            }
            self.written = 0;
        }
        Ok(wrote)
    }
}
