//! Handlers: what takes events beside standard output, as configured.
//!
//! A handler is a sink. One with `file` is an [`emit::File`](crate::emit::File);
//! one with `exec` queues what it is offered, and runs its program for each event
//! ([`Handlers::work`]). Promises: nothing here waits for a program or a reader;
//! queues, runs at once, time and output of a run are bounded; every event that a
//! program's handler was offered is run, failed, dropped or left at the end, and
//! counted as that; a program that is started is ended and reaped, with whatever
//! is left of its process group.

mod inbox;
mod program;
mod run;
mod selected;
mod vars;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Registry, Token};

use crate::config::{Action, Handler};
use crate::emit::{Fan, File, Json, Renderer, Reopen};
use crate::lock::Locks;
use crate::log::Plain;
use crate::model::Now;
use crate::stats::Stats;
use crate::sys;
use inbox::{Emitted, Inbox};
use program::Program;
use run::Pipes;
use selected::Selected;

/// How long a run may go on when the daemon is to end; then SIGTERM.
const LAST_RUNS: Duration = Duration::from_secs(2);

/// How many bytes of output are read in one turn, of all runs together: in lines
/// of one byte that takes a millisecond.
const READ_A_TURN: usize = 64 * 1024;
/// And of each at least.
const READ_AT_LEAST: usize = 512;

/// Why a handler cannot be had: a file that cannot be opened.
#[derive(Debug)]
pub struct OpenError {
    handler: Arc<str>,
    path: PathBuf,
    error: io::Error,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.to_string_lossy();
        write!(
            f,
            "the file of handler {}, {}, cannot be opened: {}",
            Plain(&self.handler),
            Plain(&path),
            self.error
        )
    }
}

impl std::error::Error for OpenError {}

/// What all handlers need of the daemon.
pub struct Surroundings {
    /// For the JSON of an event: the machine's name.
    pub host: String,
    /// How many events a file may lag behind.
    pub queue: usize,
    /// Where pipes are registered.
    pub registry: Registry,
    /// The first of the tokens that are theirs: all from here on.
    pub tokens: usize,
    /// Counters.
    pub stats: Rc<Stats>,
}

/// All handlers.
pub struct Handlers {
    /// What is configured, and what tells its sink that it is not any more.
    configured: Vec<(Handler, Rc<Cell<bool>>)>,
    /// Those with `exec`, and those that still have runs and are configured no
    /// more.
    programs: Vec<Program>,
    reopen: Reopen,
    json: Json,
    /// How many runs there have been.
    runs: usize,
    /// A child may have ended.
    reap: bool,
    surroundings: Surroundings,
}

impl Handlers {
    /// None yet.
    pub fn new(surroundings: Surroundings) -> Handlers {
        Handlers {
            configured: Vec::new(),
            programs: Vec::new(),
            reopen: Reopen::default(),
            json: Json::new(surroundings.host.as_str()),
            runs: 0,
            reap: false,
            surroundings,
        }
    }

    /// Has these handlers from now on, with their sinks in `fan`. One that is
    /// configured as before goes on with what it has queued. One that is not there
    /// any more, or is configured otherwise, starts nothing: what it has queued is
    /// counted as left, and its runs end as they would have.
    ///
    /// # Errors
    /// A file that cannot be opened; then nothing has changed.
    pub fn replace(&mut self, handlers: Vec<Handler>, fan: &mut Fan) -> Result<(), OpenError> {
        let mut fresh = Vec::new();
        for handler in &handlers {
            if !self.configured.iter().any(|(known, _)| known == handler) {
                fresh.push((handler.clone(), self.ready_file(handler)?));
            }
        }
        self.configured.retain(|(known, over)| {
            let stays = handlers.contains(known);
            if !stays {
                over.set(true);
                let mut programs = self.programs.iter_mut();
                if let Some(program) = programs.find(|program| program.is(&known.name)) {
                    program.retire("the handler is not configured any more");
                }
            }
            stays
        });
        for (handler, file) in fresh {
            let over = self.add(&handler, file, fan);
            self.configured.push((handler, over));
        }
        if !self.programs.is_empty()
            && let Err(error) = sys::keep_descriptors()
        {
            log::debug!("programs get the descriptors that the daemon was given: {error}");
        }
        Ok(())
    }

    /// The file of a handler that has one, open.
    fn ready_file(&self, handler: &Handler) -> Result<Option<File>, OpenError> {
        let Action::File(path) = &handler.action else {
            return Ok(None);
        };
        let renderer = Renderer::Json(self.json.clone());
        let (queue, reopen) = (self.surroundings.queue, self.reopen.clone());
        match File::open(sink_name(handler), path, renderer, queue, reopen) {
            Ok(file) => Ok(Some(file)),
            Err(error) => Err(OpenError {
                handler: Arc::clone(&handler.name),
                path: path.clone(),
                error,
            }),
        }
    }

    fn add(&mut self, handler: &Handler, file: Option<File>, fan: &mut Fan) -> Rc<Cell<bool>> {
        let over = Rc::new(Cell::new(false));
        let (sink, matches) = (sink_name(handler), handler.matches.clone());
        if let Some(file) = file {
            fan.add(Selected::new(matches, file, Rc::clone(&over)).with_gaps_of(sink));
        } else if let Action::Exec(exec) = &handler.action {
            let inbox = Inbox::new(sink, exec.queue, exec.unlock);
            fan.add(Selected::new(matches, inbox.clone(), Rc::clone(&over)));
            let stats = Rc::clone(&self.surroundings.stats);
            let name = Arc::clone(&handler.name);
            self.programs
                .push(Program::new(name, exec.clone(), inbox, stats));
        }
        over
    }

    /// Has the files opened anew before they are written next.
    pub fn reopen(&self) {
        self.reopen.wanted();
    }

    /// A descriptor of a run is ready, or its other end is gone.
    pub fn ready(&mut self, token: Token) {
        let Some(at) = token.0.checked_sub(self.surroundings.tokens) else {
            return;
        };
        for program in &mut self.programs {
            program.ready(at / 2);
        }
    }

    /// A child has ended, or several (SIGCHLD).
    pub fn child_ended(&mut self) {
        self.reap = true;
    }

    /// Whether this process is a run.
    pub fn have(&self, pid: u32) -> bool {
        self.programs.iter().any(|program| program.has(pid))
    }

    /// Carries runs on, ends those that take too long, reaps those that have
    /// ended, releases locks, and starts one that there is room for: the loop
    /// waits until the kernel has loaded a program, 0.15 ms where a processor is
    /// free for it and some 10 ms where none is, and meanwhile nothing is heard.
    /// Whether there is more to do at once.
    pub fn work(&mut self, locks: &mut Locks, now: Now) -> bool {
        let reap = std::mem::take(&mut self.reap);
        let Surroundings {
            registry,
            tokens,
            stats,
            ..
        } = &self.surroundings;
        let mut release = |name: &str, Emitted { eid, at }: &Emitted| {
            if let Some(lock) = locks.release_of(eid, *at) {
                stats.locks_released.bump();
                let muted = lock.muted;
                log::debug!("handler {name} released {eid}, which had muted {muted} events");
            }
        };
        let runs: usize = self.programs.iter().map(Program::runs).sum();
        let share = (READ_A_TURN / runs.max(1)).max(READ_AT_LEAST);
        let mut busy = false;
        for program in &mut self.programs {
            busy |= program.carry_on(share, reap, &mut release, now);
        }
        self.programs.retain(|program| !program.is_over());
        if let Some(at) = self.programs.iter().position(Program::can_start) {
            let pipes = Pipes {
                registry,
                number: self.runs,
                token: tokens + 2 * self.runs,
            };
            self.programs[at].start(&self.json, pipes, &mut release, now);
            // Tokens come round after more runs than can be under way.
            self.runs = (self.runs + 1) % (1 << 24);
            // The next one comes first next time.
            self.programs.rotate_left(at + 1);
        }
        busy || self.programs.iter().any(Program::can_start)
    }

    /// When a run takes too long, or something in the log is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.programs.iter().filter_map(Program::deadline).min()
    }

    /// The daemon is to end: nothing is started any more, what waits is told and
    /// counted, and runs get two seconds before they are asked to end.
    pub fn finish(&mut self, now: Now) {
        for program in &mut self.programs {
            program.finish(now.mono + LAST_RUNS);
        }
    }

    /// Whether nothing runs.
    pub fn are_idle(&self) -> bool {
        self.programs.iter().all(|program| program.runs() == 0)
    }

    /// Kills whatever still runs, which is counted as failed.
    pub fn kill(&mut self) {
        for program in &mut self.programs {
            program.kill();
        }
    }
}

/// The name of a handler's sink, as it stands in the record of a loss.
fn sink_name(handler: &Handler) -> Arc<str> {
    format!("handlers.{}", handler.name).into()
}

#[cfg(test)]
mod tests;
