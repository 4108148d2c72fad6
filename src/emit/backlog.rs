//! The events that a stream of lines has taken and not written yet.
//!
//! What every such sink promises is kept here: an event is written in full or
//! dropped in full and owned up to; memory is bounded by `daemon.queue` events;
//! what is refused for a while is kept, and told once. How bytes are written, and
//! what an error means, is the sink's own.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::losing::Losing;
use super::queue::Queue;
use super::{Delivery, Loss, Renderer};
use crate::model::Event;

/// How often a write is tried in the middle of a long turn: once in so many events.
const TRY_AFTER: usize = 64;

/// Lines that wait to be written.
#[derive(Debug)]
pub(super) struct Backlog {
    renderer: Renderer,
    queue: Queue,
    losing: Losing,
    /// Events taken since a write was last tried.
    untried: usize,
    /// Events taken since it was made, and how many of these had been at the mark.
    taken: u64,
    marked: u64,
    /// Writes that were refused since the last one that went well.
    refused: u64,
}

impl Backlog {
    /// None yet; room for `limit` events.
    pub fn new(sink: Arc<str>, renderer: Renderer, limit: usize) -> Backlog {
        Backlog {
            renderer,
            queue: Queue::default(),
            losing: Losing::new(sink, limit),
            untried: 0,
            taken: 0,
            marked: 0,
            refused: 0,
        }
    }

    /// Whether a write should be tried before the next event: one turn of the
    /// loop can make more of them than there is room for, and a reader that
    /// keeps up must not lose any.
    pub fn is_pressing(&mut self) -> bool {
        self.untried += 1;
        self.queue.lines() * 2 >= self.losing.limit() && self.is_worth_a_try()
    }

    /// Whether there is enough for the largest write: to hold more than that saves
    /// no call, and takes memory.
    pub fn is_ample(&self) -> bool {
        self.queue.is_ample() && self.is_worth_a_try()
    }

    fn is_worth_a_try(&self) -> bool {
        self.untried >= TRY_AFTER.min(self.losing.limit() / 4)
    }

    /// Takes an event, or drops it.
    pub fn take(&mut self, event: &Event) -> Delivery {
        if !self.losing.has_room(self.queue.lines(), event) {
            return self.losing.lose();
        }
        match self.queue.push(|out| self.renderer.event(event, out)) {
            Ok(()) => {
                self.taken += 1;
                Delivery::Delivered
            }
            Err(error) => {
                log::error!("event {} cannot be rendered: {error}", event.seq);
                self.losing.lose()
            }
        }
    }

    /// May hold so many events from now on.
    pub fn set_limit(&mut self, limit: usize) {
        self.losing.set_limit(limit);
    }

    /// As [`Sink::mark`](super::Sink::mark).
    pub fn mark(&mut self) {
        self.marked = self.taken;
    }

    /// As [`Sink::is_past_mark`](super::Sink::is_past_mark).
    pub fn is_past_mark(&self) -> bool {
        self.taken - self.queue.lines() as u64 >= self.marked
    }

    /// As [`Sink::loss`](super::Sink::loss).
    pub fn loss(&mut self) -> Option<Loss> {
        self.losing.take(self.queue.lines())
    }

    /// Writes until nothing is left or `write` fails.
    pub fn write(&mut self, write: impl Fn(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        self.untried = 0;
        while !self.queue.front().is_empty() {
            match write(self.queue.front())? {
                // No file answers this to a write of something; were it taken
                // for progress, this loop would not end.
                0 => return Err(ErrorKind::WriteZero.into()),
                written => {
                    self.queue.consume(written);
                    self.losing.note_room(self.queue.lines());
                }
            }
        }
        Ok(())
    }

    /// A write was refused that can succeed later: told once.
    pub fn refused(&mut self, what: &str, error: &io::Error) {
        if self.refused == 0 {
            log::warn!("{what}: {error}; events are kept and tried again every second");
        }
        self.refused = self.refused.saturating_add(1);
    }

    /// Writes go well again.
    pub fn accepted(&mut self, what: &str) {
        if self.refused > 0 {
            log::info!(
                "{what} takes events again; {} attempts failed, nothing was lost by them",
                self.refused
            );
            self.refused = 0;
        }
    }

    /// How many events are not written to their end.
    pub fn lines(&self) -> usize {
        self.queue.lines()
    }

    /// How many bytes of the line that is next have been written.
    pub fn begun(&self) -> usize {
        self.queue.begun()
    }

    /// Has the line that was begun written again from its beginning.
    pub fn begin_again(&mut self) {
        self.queue.begin_again();
    }

    /// Its queue, for tests that look at what it holds.
    #[cfg(test)]
    pub fn queue(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// How often a write was refused, for tests.
    #[cfg(test)]
    pub fn refusals(&self) -> u64 {
        self.refused
    }
}
