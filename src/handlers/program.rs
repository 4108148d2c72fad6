//! A handler with `exec`: one run for each event, so many at once, the others in
//! line.

use std::io;
use std::process::ExitStatus;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::inbox::{Emitted, Inbox};
use super::run::{Pipes, Run};
use super::vars;
use crate::config::{Exec, Unlock};
use crate::emit::Json;
use crate::log::RateLimit;
use crate::model::{Event, Now};
use crate::stats::Stats;
use crate::sys::Spawned;

/// How many lines of output one handler may have in the log, in how long.
const LINES: (u32, Duration) = (100, Duration::from_secs(10));
/// How many failures of one kind it may have there.
const FAILURES: (u32, Duration) = (5, Duration::from_secs(60));

/// What releases a lock: the name of the handler and the event that set it.
type Release<'r> = dyn FnMut(&str, &Emitted) + 'r;

/// A program and its runs.
pub(super) struct Program {
    name: Arc<str>,
    exec: Exec,
    inbox: Inbox,
    /// It is configured no more.
    retired: bool,
    runs: Vec<Run>,
    lines: RateLimit,
    failures: RateLimit,
    stats: Rc<Stats>,
}

impl Program {
    /// One that has not run yet.
    pub fn new(name: Arc<str>, exec: Exec, inbox: Inbox, stats: Rc<Stats>) -> Program {
        Program {
            name,
            exec,
            inbox,
            retired: false,
            runs: Vec::new(),
            lines: RateLimit::new(LINES.0, LINES.1),
            failures: RateLimit::new(FAILURES.0, FAILURES.1),
            stats,
        }
    }

    /// The descriptors of a run are ready, if it is one of these.
    pub fn ready(&mut self, number: usize) {
        if let Some(run) = self.runs.iter_mut().find(|run| run.number == number) {
            run.ready = true;
        }
    }

    /// As [`Program::ready`] for all its runs, where no loop tells.
    #[cfg(test)]
    pub fn all_ready(&mut self) {
        for run in &mut self.runs {
            run.ready = true;
        }
    }

    /// How many lines of output were kept out of the log since this was asked.
    #[cfg(test)]
    pub fn unlogged(&mut self) -> u64 {
        let later = Instant::now() + LINES.1 * 2;
        self.lines.over(later).map(|(_, lines)| lines).sum()
    }

    /// Whether an event waits and there is room for its run.
    pub fn can_start(&self) -> bool {
        self.runs.len() < self.exec.concurrency && !self.inbox.is_empty()
    }

    /// Starts the run of the next event.
    pub fn start(&mut self, json: &Json, pipes: Pipes<'_>, release: &mut Release<'_>, now: Now) {
        let Some(event) = self.inbox.next() else {
            return;
        };
        let due = now.mono + self.exec.timeout;
        let run = self
            .spawn(&event, json)
            .and_then(|(spawned, line)| Run::new(Emitted::of(&event), spawned, line, due, pipes));
        match run {
            Ok(run) => {
                log::debug!(
                    "handler {}[{}] runs for {}",
                    self.name,
                    run.pid(),
                    run.event.eid
                );
                self.runs.push(run);
            }
            Err(error) => {
                let program = self.exec.program.display();
                let why = format!("{program} cannot be started for {}: {error}", event.eid);
                self.failed("start", why, now);
                if self.exec.unlock == Unlock::Always {
                    release(&self.name, &Emitted::of(&event));
                }
            }
        }
    }

    fn spawn(&self, event: &Event, json: &Json) -> io::Result<(Spawned, Vec<u8>)> {
        let mut line = Vec::new();
        json.event(event, &mut line)?;
        let set = vars::of(event);
        let unset = vars::NAMES.into_iter().map(|name| (name, None));
        let set = set
            .iter()
            .map(|(name, value)| (*name, Some(value.as_str())));
        let vars = unset.chain(set);
        let spawned = Spawned::start(&self.exec.program, &self.exec.args, vars)?;
        Ok((spawned, line))
    }

    /// Carries its runs on, and reads so many bytes of the output of each; `reap`
    /// where a child may have ended. Whether there is more to do at once.
    pub fn carry_on(
        &mut self,
        share: usize,
        reap: bool,
        release: &mut Release<'_>,
        now: Now,
    ) -> bool {
        let (dropped, released) = self.inbox.dropped();
        if dropped > 0 {
            let why = format!("its queue is full: {dropped} events are dropped");
            self.tell_failure("queue", why, now);
        }
        for event in released {
            release(&self.name, &event);
        }
        let mut busy = false;
        let mut at = 0;
        while let Some(run) = self.runs.get_mut(at) {
            let pid = run.pid();
            let ended = {
                let mut tell = teller(&self.name, pid, &mut self.lines, now.mono);
                busy |= run.carry_on(share, &mut tell);
                // One that has ended by itself does not take too long, however
                // late this loop comes to it.
                if reap || run.is_due(now.mono) {
                    run.ended(&mut tell)
                } else {
                    Ok(None)
                }
            };
            match ended {
                Ok(None) => {
                    at += 1;
                    if run.end_if_due(now.mono) {
                        let eid = &run.event.eid;
                        let why = format!("process {pid} for {eid} takes too long and is ended");
                        self.tell_failure("timeout", why, now);
                    }
                }
                Ok(Some(status)) => self.ended(at, Some(status), release, now),
                Err(error) => {
                    log::error!("process {pid} of handler {} is lost: {error}", self.name);
                    self.ended(at, None, release, now);
                }
            }
        }
        self.tell_suppressed(now.mono);
        busy
    }

    /// A run is over: counts it, and releases its event's lock where that is so.
    fn ended(
        &mut self,
        at: usize,
        status: Option<ExitStatus>,
        release: &mut Release<'_>,
        now: Now,
    ) {
        let run = self.runs.swap_remove(at);
        let good = !run.timed_out && status.is_some_and(|status| status.success());
        if good {
            self.stats.runs.bump();
        } else if run.timed_out {
            self.stats.runs_failed.bump();
            self.stats.runs_timed_out.bump();
        } else {
            let how = status.map_or("was lost".to_owned(), |status| status.to_string());
            let (pid, eid) = (run.pid(), &run.event.eid);
            let why = format!("process {pid} for {eid} failed: {how}");
            self.failed("run", why, now);
        }
        let released = match self.exec.unlock {
            Unlock::Never => false,
            Unlock::OnSuccess => good,
            Unlock::Always => true,
        };
        if released {
            release(&self.name, &run.event);
        }
    }

    fn failed(&mut self, kind: &'static str, why: String, now: Now) {
        self.stats.runs_failed.bump();
        self.tell_failure(kind, why, now);
    }

    fn tell_failure(&mut self, kind: &'static str, why: String, now: Now) {
        match self.failures.admit(kind, now.mono) {
            Some(0) => log::warn!("handler {}: {why}", self.name),
            Some(more) => log::warn!(
                "handler {}: {why} ({more} more like it were not logged)",
                self.name
            ),
            None => {}
        }
    }

    /// Tells how much was kept out of the log, when the time for it is over.
    fn tell_suppressed(&mut self, now: Instant) {
        for (_, lines) in self.lines.over(now) {
            log::warn!(
                "handler {}: {lines} lines of output were not logged",
                self.name
            );
        }
        for (kind, count) in self.failures.over(now) {
            log::warn!(
                "handler {}: {count} failures ({kind}) were not logged",
                self.name
            );
        }
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Instant> {
        let runs = self.runs.iter().filter_map(Run::due);
        let limits = [self.lines.deadline(), self.failures.deadline()];
        runs.chain(limits.into_iter().flatten()).min()
    }

    /// Whether it is the one of this name that is configured.
    pub fn is(&self, name: &str) -> bool {
        !self.retired && *self.name == *name
    }

    /// Starts nothing any more; what waits is counted as left, for this reason.
    pub fn retire(&mut self, why: &str) {
        self.retired = true;
        let left = self.inbox.close().len();
        if left > 0 {
            self.stats.runs_left.add(left as u64);
            log::warn!(
                "handler {}: {left} events are left without a run: {why}",
                self.name
            );
        }
    }

    /// Whether it is retired and its last run has ended.
    pub fn is_over(&self) -> bool {
        self.retired && self.runs.is_empty()
    }

    /// The daemon is to end: as [`Program::retire`], and runs are ended then.
    pub fn finish(&mut self, at: Instant) {
        self.retire("the daemon ends");
        for run in &mut self.runs {
            run.end_by(at);
        }
    }

    /// Whether this process is one of its runs.
    pub fn has(&self, pid: u32) -> bool {
        self.runs.iter().any(|run| run.pid() == pid)
    }

    /// How many runs are under way.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Kills whatever runs, and counts it as failed: nobody will wait for it.
    pub fn kill(&mut self) {
        for mut run in self.runs.drain(..) {
            log::warn!("handler {}: process {} is killed", self.name, run.pid());
            self.stats.runs_failed.bump();
            run.kill();
        }
    }
}

/// What puts lines of output into the log, at a bounded rate.
fn teller(name: &str, pid: u32, limit: &mut RateLimit, now: Instant) -> impl FnMut(&str) {
    move |line: &str| match limit.admit("output", now) {
        Some(0) => log::info!("handler {name}[{pid}]: {line}"),
        Some(more) => {
            log::info!("handler {name}[{pid}]: {line} ({more} lines before it were not logged)");
        }
        None => {}
    }
}
