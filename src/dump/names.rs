//! The reverse names of a printed table: all addresses are asked about at once,
//! and all rows together wait for the answers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Poll, Token, Waker};

use super::{DumpFailed, Request};
use crate::enrich::{Lookup, Names};
use crate::filter::Answer;
use crate::model::{Host, HostUnknown, Now, RowKind, SocketData};
use crate::reactor::{self, Handler, Turn};
use crate::stats::Stats;

const WOKEN: Token = Token(1);
/// How long all rows together wait.
const PATIENCE: Duration = Duration::from_secs(2);
/// Nothing else goes on meanwhile, so there may be many.
const THREADS: usize = 16;

/// Looks the names of all remote addresses up, and filters again with them.
pub(super) fn look_up(
    poll: &mut Poll,
    request: &Request,
    rows: &mut Vec<(SocketData, RowKind)>,
    stats: Rc<Stats>,
) -> Result<(), DumpFailed> {
    let waker = Waker::new(poll.registry(), WOKEN)
        .map_err(|error| DumpFailed::Start("make a waker", error))?;
    let wake = Arc::new(move || {
        if let Err(error) = waker.wake() {
            log::error!("cannot wake the event loop for a name: {error}");
        }
    });
    let now = Now::read();
    let mut naming = Naming {
        names: Names::new(THREADS, wake, stats),
        hosts: HashMap::new(),
        pending: 0,
        until: now.mono + PATIENCE,
        found: Vec::new(),
    };
    for (data, _) in rows
        .iter()
        .filter(|(data, _)| !data.id.remote.is_unconnected())
    {
        naming.ask(data.id.remote.ip, now);
    }
    reactor::run(poll, &mut naming, Now::read)?;
    rows.retain_mut(|(data, _)| {
        if let Some(host) = naming.hosts.get(&data.id.remote.ip) {
            data.host = host.clone();
        }
        request.judge(&data.id, data.state, Some(data.host.as_str())) == Answer::Pass
    });
    Ok(())
}

struct Naming {
    names: Names,
    /// What is known; until it is answered, that it came too late.
    hosts: HashMap<IpAddr, Host>,
    pending: usize,
    until: Instant,
    found: Vec<(IpAddr, Host)>,
}

impl Naming {
    fn ask(&mut self, ip: IpAddr, now: Now) {
        if self.hosts.contains_key(&ip) {
            return;
        }
        let host = match self.names.ask(ip, PATIENCE, self.until, now) {
            Lookup::Known(host) => host,
            Lookup::Pending => {
                self.pending += 1;
                Host::Unknown(HostUnknown::TimedOut)
            }
        };
        self.hosts.insert(ip, host);
    }
}

impl Handler for Naming {
    type Error = DumpFailed;

    fn ready(&mut self, _token: Token, _now: Now) -> Result<(), DumpFailed> {
        Ok(())
    }

    fn broken(&mut self, _token: Token, _now: Now) -> Result<(), DumpFailed> {
        Ok(())
    }

    fn turn(&mut self, now: Now) -> Result<Turn, DumpFailed> {
        self.names.collect(now, &mut self.found);
        for (ip, host) in self.found.drain(..) {
            self.pending = self.pending.saturating_sub(1);
            self.hosts.insert(ip, host);
        }
        let done = self.pending == 0 || now.mono >= self.until;
        Ok(if done {
            Turn::Done
        } else {
            Turn::Idle(Some(self.until))
        })
    }
}
