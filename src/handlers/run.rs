//! One run of a program: the event goes in, output comes out line by line, and it
//! ends by itself or is ended.

use std::io::{self, ErrorKind, Read, Write};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use mio::unix::pipe::{Receiver, Sender};
use mio::{Interest, Registry, Token};

use super::inbox::Emitted;
use crate::sys::{Child, Ending, Spawned};

/// How long after SIGTERM comes SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// The longest line of output; what is longer is told in several.
const LINE: usize = 1024;
/// What is read at the end: a pipe's whole capacity.
const LAST_READ: usize = 64 * 1024;

/// Where the pipes of a run are registered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pipes<'r> {
    /// With what.
    pub registry: &'r Registry,
    /// The number by which they are known.
    pub number: usize,
    /// The first of their two tokens.
    pub token: usize,
}

/// A run under way.
#[derive(Debug)]
pub(super) struct Run {
    /// The number by which its descriptors are known.
    pub number: usize,
    /// Its event.
    pub event: Emitted,
    child: Child,
    /// Standard input, and the rest of what goes there.
    input: Option<(Sender, Vec<u8>)>,
    output: Option<Receiver>,
    /// The beginning of a line.
    line: Vec<u8>,
    /// Its descriptors may be ready.
    pub ready: bool,
    /// When it is asked to end, or killed.
    due: Option<Instant>,
    asked: bool,
    /// It took longer than it may.
    pub timed_out: bool,
}

impl Run {
    /// Takes over what was started; `line` goes to its standard input.
    ///
    /// # Errors
    /// Those of epoll_ctl(2); the child is killed then.
    pub fn new(
        event: Emitted,
        spawned: Spawned,
        line: Vec<u8>,
        due: Instant,
        pipes: Pipes<'_>,
    ) -> io::Result<Run> {
        let Pipes {
            registry,
            number,
            token,
        } = pipes;
        let Spawned {
            child,
            mut input,
            mut output,
        } = spawned;
        registry.register(&mut input, Token(token), Interest::WRITABLE)?;
        registry.register(&mut output, Token(token + 1), Interest::READABLE)?;
        Ok(Run {
            number,
            event,
            child,
            input: Some((input, line)),
            output: Some(output),
            line: Vec::new(),
            ready: true,
            due: Some(due),
            asked: false,
            timed_out: false,
        })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes what can be written, and reads some `share` bytes; each line of
    /// output goes to `tell`. Whether there may be more at once.
    pub fn carry_on(&mut self, share: usize, tell: &mut dyn FnMut(&str)) -> bool {
        if !std::mem::take(&mut self.ready) {
            return false;
        }
        self.write();
        self.ready = self.read(share, tell);
        self.ready
    }

    fn write(&mut self) {
        let Some((pipe, rest)) = &mut self.input else {
            return;
        };
        while !rest.is_empty() {
            match pipe.write(rest) {
                Ok(written) => {
                    rest.drain(..written);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // EPIPE: a program need not read its event.
                Err(_) => break,
            }
        }
        // Closed: the program finds the end.
        self.input = None;
    }

    /// Reads at most so much; whether there may be more.
    fn read(&mut self, most: usize, tell: &mut dyn FnMut(&str)) -> bool {
        let mut page = [0; 4096];
        let mut read = 0;
        while read < most {
            let room = page.len().min(most - read);
            let Some(pipe) = &mut self.output else {
                return false;
            };
            match pipe.read(&mut page[..room]) {
                Ok(0) => self.output = None,
                Ok(count) => {
                    read += count;
                    self.take(&page[..count], tell);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => {
                    log::warn!(
                        "the output of process {} cannot be read: {error}",
                        self.pid()
                    );
                    self.output = None;
                }
            }
        }
        true
    }

    fn take(&mut self, bytes: &[u8], tell: &mut dyn FnMut(&str)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, whole) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            for piece in text.chunks(LINE) {
                if self.line.len() + piece.len() > LINE {
                    self.tell_line(tell);
                }
                self.line.extend_from_slice(piece);
            }
            if whole {
                self.tell_line(tell);
            }
        }
    }

    fn tell_line(&mut self, tell: &mut dyn FnMut(&str)) {
        let line = String::from_utf8_lossy(&self.line);
        let text = line.trim_end();
        if !text.is_empty() {
            tell(text);
        }
        self.line.clear();
    }

    /// When something is due.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// It is to end by then at the latest, whatever it may take otherwise.
    pub fn end_by(&mut self, at: Instant) {
        if !self.asked {
            self.due = self.due.map(|due| due.min(at));
        }
    }

    /// Whether it is to be asked to end, or killed, now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Asks it to end, or kills it, if that is due; whether it was asked just now.
    pub fn end_if_due(&mut self, now: Instant) -> bool {
        if !self.is_due(now) {
            return false;
        }
        if self.asked {
            self.kill();
            return false;
        }
        self.asked = true;
        self.timed_out = true;
        self.child.end(Ending::Term);
        self.due = Some(now + GRACE);
        true
    }

    /// Kills it and its group.
    pub fn kill(&mut self) {
        self.timed_out = true;
        self.child.end(Ending::Kill);
        self.due = None;
    }

    /// Whether it has ended, and how; then its last lines have been told.
    ///
    /// # Errors
    /// See [`Child::ended`]; it cannot be reaped then.
    pub fn ended(&mut self, tell: &mut dyn FnMut(&str)) -> io::Result<Option<ExitStatus>> {
        let Some(status) = self.child.ended()? else {
            return Ok(None);
        };
        // What the pipe holds; its writers are dead, unless one left the group.
        self.read(LAST_READ, tell);
        self.tell_line(tell);
        Ok(Some(status))
    }
}
