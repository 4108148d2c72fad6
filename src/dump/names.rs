//! The reverse names of a printed table: the addresses are asked about many at a
//! time, and all rows together wait for the answers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Poll, Token, Waker};

use super::{DumpFailed, Request};
use crate::enrich::{Lookup, Names};
use crate::filter::Answer;
use crate::model::{Host, HostUnknown, Now, SocketData};
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
    rows: &mut Vec<SocketData>,
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
        to_ask: VecDeque::new(),
        pending: HashSet::new(),
        until: now.mono + PATIENCE,
        found: Vec::new(),
    };
    for data in rows.iter().filter(|data| !data.id.remote.is_unconnected()) {
        let ip = data.id.remote.ip;
        if naming.hosts.insert(ip, LATE).is_none() {
            naming.to_ask.push_back(ip);
        }
    }
    reactor::run(poll, &mut naming, Now::read)?;
    let late = naming.to_ask.len() + naming.pending.len();
    if late > 0 {
        log::warn!(
            "{late} of {} addresses had no answer within {} s; their rows have no name",
            naming.hosts.len(),
            PATIENCE.as_secs()
        );
    }
    rows.retain_mut(|data| {
        if let Some(host) = naming.hosts.get(&data.id.remote.ip) {
            data.host = host.clone();
        }
        request.judge(&data.id, data.state, Some(data.host.as_str())) == Answer::Pass
    });
    Ok(())
}

/// What is known of an address until it is answered.
const LATE: Host = Host::Unknown(HostUnknown::TimedOut);
/// How many addresses are being asked about at one time: a few for each thread.
const AT_ONCE: usize = 4 * THREADS;

struct Naming {
    names: Names,
    hosts: HashMap<IpAddr, Host>,
    to_ask: VecDeque<IpAddr>,
    pending: HashSet<IpAddr>,
    until: Instant,
    found: Vec<(IpAddr, Host)>,
}

impl Naming {
    fn ask_more(&mut self, now: Now) {
        while self.pending.len() < AT_ONCE {
            let Some(ip) = self.to_ask.pop_front() else {
                return;
            };
            match self.names.ask(ip, PATIENCE, self.until, now) {
                Lookup::Known(host) => {
                    self.hosts.insert(ip, host);
                }
                Lookup::Pending => {
                    self.pending.insert(ip);
                }
            }
        }
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
            self.pending.remove(&ip);
            self.hosts.insert(ip, host);
        }
        self.ask_more(now);
        let done = self.pending.is_empty() || now.mono >= self.until;
        Ok(if done {
            Turn::Done
        } else {
            Turn::Idle(Some(self.until))
        })
    }
}
