//! The daemon as its control socket sees it.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use mio::{Registry, Token};

use super::{Daemon, RunError};
use crate::config;
use crate::control::{Access, Commands, Server, Status};
use crate::emit::Subscribers;
use crate::lock::Locks;
use crate::model::{Degraded, Now, SocketData};
use crate::sensor::{Listing, Reader};
use crate::stats::Stats;

/// The tokens from here on belong to the control socket and its clients.
pub(super) const CONTROL: Token = Token(1 << 16);

/// Opens the control socket, where one is configured.
pub(super) fn open(
    settings: &config::Daemon,
    subscribers: Rc<RefCell<Subscribers>>,
    stats: Rc<Stats>,
    now: Now,
) -> Result<Option<Server>, RunError> {
    let Some(path) = &settings.control else {
        return Ok(None);
    };
    let access = Access {
        uids: settings.control_uids.clone(),
        gids: settings.control_gids.clone(),
    };
    Server::open(path, access, CONTROL, subscribers, stats, now)
        .map(Some)
        .map_err(RunError::Control)
}

impl Daemon {
    /// Watches for connections to the control socket.
    pub(super) fn register_control(&self, registry: &Registry) -> io::Result<()> {
        self.control
            .as_ref()
            .map_or(Ok(()), |control| control.register(registry))
    }

    /// The control socket or one of its clients became ready.
    pub(super) fn control_ready(&mut self, token: Token) {
        if let Some(control) = &mut self.control {
            control.ready(token);
        }
    }

    /// A client is gone, which is nobody else's concern.
    pub(super) fn control_broken(&mut self, token: Token) {
        if let Some(control) = &mut self.control {
            control.broken(token);
        }
    }

    /// Gives the clients of the control socket their turn; true when they have
    /// more to do now.
    pub(super) fn control(&mut self, now: Now) -> bool {
        // Taken out for the turn, in which it asks the rest of the daemon.
        let Some(mut control) = self.control.take() else {
            return false;
        };
        let registry = Rc::clone(&self.registry);
        let busy = control.turn(self, &registry, now);
        self.control = Some(control);
        busy
    }
}

impl Commands for Daemon {
    fn status(&self) -> Status {
        Status {
            seq: self.pipeline.seq(),
            sockets: self.sources.len(),
        }
    }

    fn missing(&self) -> &[Degraded] {
        self.pipeline.missing()
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn asked(&self) -> Vec<String> {
        let sources = &self.sources;
        sources.home.asked(sources.has_guard(), &sources.shared)
    }

    fn locks(&self) -> &Locks {
        self.pipeline.locks()
    }

    fn locks_mut(&mut self) -> &mut Locks {
        self.pipeline.locks_mut()
    }

    fn list(
        &self,
        listing: &mut Listing,
        entries: usize,
        row: &mut dyn FnMut(&SocketData),
    ) -> bool {
        self.sources.list(listing, entries, &mut |mut data| {
            self.pipeline.complete(&mut data);
            row(&data);
        })
    }

    fn keep_places(&mut self, keep: bool) {
        self.sources.keep_places(Reader::Clients, keep);
    }

    fn reload(&mut self, now: Now) -> Result<String, Vec<String>> {
        Daemon::reload(self, now).map(|reloaded| reloaded.to_string())
    }
}
