//! Standard output as a sink: in order, whole lines, never waiting.
//!
//! Promises: an offered event is either written in full (unless the program
//! ends) or dropped in full, counted, and told by a gap record that stands in
//! its place; a slow or stopped reader costs at most `daemon.queue` events of
//! memory; an idle daemon's event is one system call in the reactor's own
//! thread; a full disk is waited out.

use std::io::{self, ErrorKind};
use std::os::fd::RawFd;

use super::backlog::Backlog;
use super::{Delivery, Flush, Loss, OutputError, Renderer, Sink};
use crate::model::Event;
use crate::sys::output::{Kind, OpenError, Output};

const NAME: &str = "stdout";
const WHAT: &str = "standard output";

/// Events to standard output.
#[derive(Debug)]
pub struct Stdout {
    output: Output,
    backlog: Backlog,
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
            backlog: Backlog::new(NAME.into(), renderer, limit),
        }
    }

    fn failed(&mut self, error: io::Error) -> Result<Flush, OutputError> {
        match fate(&error, self.output.kind()) {
            Fate::Blocked => {
                self.backlog.accepted(WHAT);
                Ok(Flush::Blocked)
            }
            Fate::Closed => Err(OutputError::Closed),
            Fate::Fatal => Err(OutputError::Io(error)),
            Fate::Passing => {
                self.backlog.refused(WHAT, &error);
                Ok(Flush::Retry)
            }
        }
    }
}

impl Sink for Stdout {
    fn offer(&mut self, event: &Event) -> Delivery {
        // Should this write fail, the flush at the end of the turn meets the
        // same error, and tells it.
        if self.backlog.is_pressing()
            && let Err(error) = self.flush()
        {
            log::debug!("{WHAT}: {error}");
        }
        self.backlog.take(event)
    }

    fn loss(&mut self) -> Option<Loss> {
        self.backlog.loss()
    }

    fn set_limit(&mut self, limit: usize) {
        self.backlog.set_limit(limit);
    }

    fn mark(&mut self) {
        self.backlog.mark();
    }

    fn is_past_mark(&self) -> bool {
        self.backlog.is_past_mark()
    }

    fn flush(&mut self) -> Result<Flush, OutputError> {
        match self.backlog.write(|bytes| self.output.write(bytes)) {
            Ok(()) => {
                self.backlog.accepted(WHAT);
                Ok(Flush::Drained)
            }
            Err(error) => self.failed(error),
        }
    }

    fn relieve(&mut self) {
        if self.backlog.is_ample()
            && let Err(error) = self.flush()
        {
            log::debug!("{WHAT}: {error}");
        }
    }

    fn held(&self) -> usize {
        self.backlog.lines()
    }

    fn source(&self) -> Option<RawFd> {
        self.output.source()
    }
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
