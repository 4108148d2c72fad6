//! Handlers in the daemon: opened with its sinks, worked once a turn, ended with it.

use std::rc::Rc;

use mio::{Registry, Token};

use super::{Daemon, RunError};
use crate::config::{self, Handler};
use crate::emit::Fan;
use crate::handlers::{Handlers, Surroundings};
use crate::model::Now;
use crate::stats::Stats;
use crate::sys;

/// The tokens from here on are those of handlers' runs.
pub(super) const TOKENS: Token = Token(1 << 30);

/// Opens the configured handlers.
pub(super) fn open(
    handlers: Vec<Handler>,
    daemon: &config::Daemon,
    registry: &Registry,
    stats: &Rc<Stats>,
    fan: &mut Fan,
) -> Result<Handlers, RunError> {
    let registry = registry
        .try_clone()
        .map_err(|error| RunError::Start("share an event loop", error))?;
    let surroundings = Surroundings {
        host: sys::hostname(),
        queue: daemon.queue,
        registry,
        tokens: TOKENS.0,
        stats: Rc::clone(stats),
    };
    let mut opened = Handlers::new(surroundings);
    opened.replace(handlers, fan).map_err(RunError::Handler)?;
    Ok(opened)
}

impl Daemon {
    /// Carries handlers on; whether they have more to do at once.
    pub(super) fn work_handlers(&mut self, now: Now) -> bool {
        let busy = self.handlers.work(self.pipeline.locks_mut(), now);
        if std::mem::take(&mut self.child_ended)
            && let Err(error) = sys::reap_strangers(|pid| self.handlers.have(pid))
        {
            log::warn!("processes that ended stay as zombies: {error}");
        }
        busy
    }
}
