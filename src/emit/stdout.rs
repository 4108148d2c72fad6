//! Standard output as a sink: in order, whole lines, never waiting.
//!
//! Promises: an offered event is either written in full (unless the program
//! ends) or dropped in full, counted, and told by a gap record that stands in
//! its place; a slow or stopped reader costs at most `daemon.queue` events of
//! memory; an idle daemon's event is one system call in the reactor's own
//! thread; a full disk is waited out.

use std::io::{self, ErrorKind};
use std::os::fd::RawFd;
use std::time::Instant;

use super::queue::Queue;
use super::{Delivery, Flush, Loss, OutputError, Renderer, Sink};
use crate::model::{Data, Event, GapCause};
use crate::sys::output::{Kind, OpenError, Output};

const NAME: &str = "stdout";

/// How often a write is tried while a long turn has the queue more than half
/// full: once in so many events.
const TRY_AFTER: usize = 64;

/// Events to standard output.
#[derive(Debug)]
pub struct Stdout {
    output: Output,
    renderer: Renderer,
    queue: Queue,
    limit: usize,
    /// Events taken since a write was last tried.
    untried: usize,
    /// Lines taken since it was opened, and how many of these had been at the mark.
    taken: u64,
    marked: u64,
    losing: Option<Losing>,
    refused: u64,
}

/// A loss that is not told yet.
#[derive(Debug)]
struct Losing {
    since: Instant,
    lost: u64,
    /// When there was room again.
    until: Option<Instant>,
}

impl Stdout {
    /// The sink for fd 1, which may lag behind by `limit` events.
    pub fn open(renderer: Renderer, limit: usize) -> Result<Stdout, OpenError> {
        Ok(Stdout::over(Output::standard()?, renderer, limit))
    }

    /// The same over another stream.
    pub fn over(output: Output, renderer: Renderer, limit: usize) -> Stdout {
        Stdout {
            output,
            renderer,
            queue: Queue::default(),
            // With one place a gap record alone would fill the queue, and the
            // next event would be lost again.
            limit: limit.max(2),
            untried: 0,
            taken: 0,
            marked: 0,
            losing: None,
            refused: 0,
        }
    }

    fn drop_event(&mut self) -> Delivery {
        let losing = self.losing.get_or_insert_with(|| Losing {
            since: Instant::now(),
            lost: 0,
            until: None,
        });
        losing.lost += 1;
        Delivery::Dropped
    }

    /// Notes when a loss is over: less than half the queue is in use.
    fn note_room(&mut self) {
        if self.queue.lines() * 2 < self.limit
            && let Some(losing) = &mut self.losing
        {
            losing.until.get_or_insert_with(Instant::now);
        }
    }

    fn accepted(&mut self) {
        if self.refused > 0 {
            log::info!(
                "standard output takes events again; {} attempts failed, nothing was lost by them",
                self.refused
            );
            self.refused = 0;
        }
    }

    fn failed(&mut self, error: io::Error) -> Result<Flush, OutputError> {
        match fate(&error, self.output.kind()) {
            Fate::Blocked => Ok(Flush::Blocked),
            Fate::Closed => Err(OutputError::Closed),
            Fate::Fatal => Err(OutputError::Io(error)),
            Fate::Passing => {
                if self.refused == 0 {
                    log::warn!(
                        "standard output: {error}; events are kept and tried again at each tick"
                    );
                }
                self.refused = self.refused.saturating_add(1);
                Ok(Flush::Retry)
            }
        }
    }
}

impl Sink for Stdout {
    fn offer(&mut self, event: &Event) -> Delivery {
        // One turn of the loop can make more events than there is room for: a
        // reader that keeps up must not lose any. Should this write fail, the
        // flush at the end of the turn meets the same error, and tells it.
        self.untried += 1;
        if self.queue.lines() * 2 >= self.limit
            && self.untried >= TRY_AFTER.min(self.limit / 4)
            && let Err(error) = self.flush()
        {
            log::debug!("standard output: {error}");
        }
        // The place of the own gap record is one that events cannot take.
        let limit = self.limit + usize::from(is_own_gap(event));
        if self.losing.is_some() || self.queue.lines() >= limit {
            return self.drop_event();
        }
        match self.queue.push(|out| self.renderer.event(event, out)) {
            Ok(()) => {
                self.taken += 1;
                Delivery::Delivered
            }
            Err(error) => {
                log::error!("event {} cannot be rendered: {error}", event.seq);
                self.drop_event()
            }
        }
    }

    fn loss(&mut self) -> Option<Loss> {
        self.note_room();
        let losing = self.losing.take_if(|losing| losing.until.is_some())?;
        Some(Loss {
            sink: NAME,
            lost: losing.lost,
            duration: losing.until?.saturating_duration_since(losing.since),
        })
    }

    fn set_limit(&mut self, limit: usize) {
        self.limit = limit.max(2);
    }

    fn mark(&mut self) {
        self.marked = self.taken;
    }

    fn is_past_mark(&self) -> bool {
        self.taken - self.queue.lines() as u64 >= self.marked
    }

    fn flush(&mut self) -> Result<Flush, OutputError> {
        self.untried = 0;
        while !self.queue.front().is_empty() {
            match self.output.write(self.queue.front()) {
                // No file answers this to a write of something; were it taken
                // for progress, this loop would not end.
                Ok(0) => return Err(OutputError::Io(ErrorKind::WriteZero.into())),
                Ok(written) => {
                    self.queue.consume(written);
                    self.note_room();
                    self.accepted();
                }
                Err(error) => return self.failed(error),
            }
        }
        Ok(Flush::Drained)
    }

    fn source(&self) -> Option<RawFd> {
        self.output.source()
    }
}

fn is_own_gap(event: &Event) -> bool {
    matches!(&event.data, Data::Gap(gap) if gap.cause == GapCause::Queue
        && gap.lost.is_some_and(|(sink, _)| sink == NAME))
}

/// What a failed write means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// No room now.
    Blocked,
    /// It can succeed later without anybody's doing here.
    Passing,
    /// Nobody reads any more.
    Closed,
    /// It will not succeed.
    Fatal,
}

fn fate(error: &io::Error, kind: Kind) -> Fate {
    match error.raw_os_error() {
        // EFBIG: the largest file of a small file system; rotation helps.
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG | libc::ENOMEM | libc::ENOBUFS) => {
            Fate::Passing
        }
        Some(libc::EPIPE | libc::ECONNRESET) => Fate::Closed,
        // A terminal that was hung up (tty_write() in tty_io.c).
        Some(libc::EIO) if kind == Kind::Terminal => Fate::Closed,
        _ if error.kind() == ErrorKind::WouldBlock => Fate::Blocked,
        _ => Fate::Fatal,
    }
}

#[cfg(test)]
#[path = "stdout_tests.rs"]
mod tests;
