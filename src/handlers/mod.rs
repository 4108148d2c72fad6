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
use inbox::Inbox;
use program::Program;
use selected::Selected;

/// How many programs are started in one turn of the loop: the kernel takes up to
/// a millisecond for each.
const STARTS_A_TURN: usize = 4;
/// How long a run may go on when the daemon is to end; then SIGTERM.
const LAST_RUNS: Duration = Duration::from_secs(2);

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
    programs: Vec<Program>,
    reopen: Reopen,
    json: Json,
    registry: Registry,
    tokens: usize,
    /// How many runs there have been.
    runs: usize,
    /// A child may have ended.
    reap: bool,
    stats: Rc<Stats>,
}

impl Handlers {
    /// Opens the handlers and adds their sinks.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn open(
        handlers: Vec<Handler>,
        surroundings: Surroundings,
        fan: &mut Fan,
    ) -> Result<Handlers, OpenError> {
        let json = Json::new(surroundings.host);
        let reopen = Reopen::default();
        let mut programs = Vec::new();
        for Handler {
            name,
            matches,
            action,
        } in handlers
        {
            let sink: Arc<str> = format!("handlers.{name}").into();
            match action {
                Action::File(path) => {
                    let renderer = Renderer::Json(json.clone());
                    let queue = surroundings.queue;
                    let file = File::open(sink.clone(), &path, renderer, queue, reopen.clone());
                    let file = file.map_err(|error| OpenError {
                        handler: name,
                        path,
                        error,
                    })?;
                    fan.add(Selected::new(matches, file).with_gaps_of(sink));
                }
                Action::Exec(exec) => {
                    let inbox = Inbox::new(sink, exec.queue, exec.unlock);
                    fan.add(Selected::new(matches, inbox.clone()));
                    let stats = Rc::clone(&surroundings.stats);
                    programs.push(Program::new(name, exec, inbox, stats));
                }
            }
        }
        if !programs.is_empty()
            && let Err(error) = sys::keep_descriptors()
        {
            log::debug!("programs get the descriptors that the daemon was given: {error}");
        }
        Ok(Handlers {
            programs,
            reopen,
            json,
            registry: surroundings.registry,
            tokens: surroundings.tokens,
            runs: 0,
            reap: false,
            stats: surroundings.stats,
        })
    }

    /// Has the files opened anew before they are written next.
    pub fn reopen(&self) {
        self.reopen.wanted();
    }

    /// A descriptor of a run is ready, or its other end is gone.
    pub fn ready(&mut self, token: Token) {
        let Some(number) = token.0.checked_sub(self.tokens).map(|at| at / 2) else {
            return;
        };
        for program in &mut self.programs {
            program.ready(number);
        }
    }

    /// A child has ended, or several (SIGCHLD).
    pub fn child_ended(&mut self) {
        self.reap = true;
    }

    /// Carries runs on, ends those that take too long, reaps those that have
    /// ended, releases locks, and starts what there is room for. Whether there is
    /// more to do at once.
    pub fn work(&mut self, locks: &mut Locks, now: Now) -> bool {
        let reap = std::mem::take(&mut self.reap);
        let mut release = |name: &str, eid: &str| {
            if let Some(lock) = locks.release(eid) {
                self.stats.locks_released.bump();
                let muted = lock.muted;
                log::debug!("handler {name} released {eid}, which had muted {muted} events");
            }
        };
        let mut busy = false;
        let mut starts = STARTS_A_TURN;
        for program in &mut self.programs {
            busy |= program.carry_on(reap, &mut release, now);
            while starts > 0 && program.can_start() {
                starts -= 1;
                let token = self.tokens + 2 * self.runs;
                program.start(
                    self.runs,
                    token,
                    &self.registry,
                    &self.json,
                    &mut release,
                    now,
                );
                // Tokens come round after more runs than can be under way.
                self.runs = (self.runs + 1) % (1 << 24);
            }
            busy |= program.can_start();
        }
        // Where many wait, the next one's turn comes first.
        if busy && !self.programs.is_empty() {
            self.programs.rotate_left(1);
        }
        busy
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
        self.programs.iter().all(Program::is_idle)
    }

    /// Kills whatever still runs.
    pub fn kill(&mut self) {
        for program in &mut self.programs {
            program.kill();
        }
    }
}
