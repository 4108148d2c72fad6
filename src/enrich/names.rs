//! Reverse names: which name a PTR look-up gives for an address now.
//!
//! Look-ups are slow, cost somebody else's server and are triggered by whoever
//! connects, so each address is asked once at a time and hits and misses are
//! both remembered. A dead resolver costs a bounded amount of memory and no time:
//! what is cached is answered at once, what cannot even be queued is told apart
//! as overload.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dns_lookup::LookupErrorKind;

use super::Lookup;
use super::cache::Cache;
use super::pool::{Outcome, Refused, Wake, Workers};
use crate::model::{Host, HostUnknown, Name, Now};
use crate::stats::Stats;

/// Addresses that may be looked up or wait for it at one time.
const LINE: usize = 4096;

/// Addresses whose names are remembered: some 10 MiB when full.
const REMEMBERED: usize = 65_536;

/// The longest name there is (RFC 1035 section 2.3.4).
const LONGEST: usize = 255;

/// Why a resolver has no name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ResolveError {
    /// It answered that there is none.
    NotFound,
    /// It did not answer, or nothing that could be used.
    Failed,
}

/// Asks for the raw name of an address; may block.
pub type Resolver = Arc<dyn Fn(IpAddr) -> Result<Vec<u8>, ResolveError> + Send + Sync>;

/// The names of addresses, as far as they are known or being looked up.
#[derive(Debug)]
pub struct Names {
    workers: Workers<IpAddr, Result<Vec<u8>, ResolveError>>,
    cache: Cache<IpAddr, Host>,
    /// Until when somebody waits for an address.
    pending: HashMap<IpAddr, Instant>,
    /// How many of these there may be.
    most: usize,
    stats: Rc<Stats>,
}

impl Names {
    /// Names from the system's resolver (getnameinfo with NI_NAMEREQD), asked by
    /// at most this many threads. `wake` is called when there is something to
    /// collect.
    pub fn new(threads: usize, wake: Wake, stats: Rc<Stats>) -> Names {
        Names::with_resolver(threads, wake, stats, Arc::new(resolve))
    }

    /// Names from a resolver of the caller's own.
    pub fn with_resolver(
        threads: usize,
        wake: Wake,
        stats: Rc<Stats>,
        resolver: Resolver,
    ) -> Names {
        Names::bounded(threads, wake, stats, resolver, LINE, REMEMBERED)
    }

    fn bounded(
        threads: usize,
        wake: Wake,
        stats: Rc<Stats>,
        resolver: Resolver,
        line: usize,
        remembered: usize,
    ) -> Names {
        Names {
            workers: Workers::new("names", threads, line, wake, move |ip| resolver(*ip)),
            cache: Cache::new(remembered),
            pending: HashMap::new(),
            // A full line, all threads, and a line's worth that was given up
            // and is not collected yet.
            most: 2 * line + threads.max(1),
            stats,
        }
    }

    /// What was learned of an address less than `ttl` ago; asks nobody.
    pub fn recall(&mut self, ip: IpAddr, ttl: Duration, now: Now) -> Option<Host> {
        self.cache.recall(ip, ttl, now.mono)
    }

    /// Asks for the name of an address. What was learned less than `ttl` ago is
    /// good enough; after `until` the asker waits no longer.
    pub fn ask(&mut self, ip: IpAddr, ttl: Duration, until: Instant, now: Now) -> Lookup {
        if let Some(host) = self.recall(ip, ttl, now) {
            return Lookup::Known(host);
        }
        let waiting = self.pending.len();
        match self.pending.entry(ip) {
            Entry::Occupied(mut pending) => {
                let latest = until.max(*pending.get());
                pending.insert(latest);
                Lookup::Pending
            }
            Entry::Vacant(_) if waiting >= self.most => Lookup::Known(self.refused(&Refused::Full)),
            Entry::Vacant(entry) => match self.workers.submit(ip, until) {
                Ok(()) => {
                    entry.insert(until);
                    self.stats.lookups.bump();
                    Lookup::Pending
                }
                Err(refused) => Lookup::Known(self.refused(&refused)),
            },
        }
    }

    /// Takes what came in: remembers it and adds it to `found`. To be called
    /// whenever the threads have woken the reactor.
    pub fn collect(&mut self, now: Now, found: &mut Vec<(IpAddr, Host)>) {
        for (ip, outcome) in self.workers.collect() {
            let host = match outcome {
                Outcome::Done(answer) => self.learn(ip, answer, now),
                Outcome::Failed => self.learn(ip, Err(ResolveError::Failed), now),
                Outcome::Skipped => match self.pending.get(&ip) {
                    // Somebody asked later than the one whose time was over.
                    Some(&until) if until > now.mono => match self.workers.submit(ip, until) {
                        Ok(()) => continue,
                        Err(refused) => self.refused(&refused),
                    },
                    _ => {
                        self.pending.remove(&ip);
                        continue;
                    }
                },
            };
            self.pending.remove(&ip);
            found.push((ip, host));
        }
    }

    /// Whether look-ups are under way.
    pub fn is_busy(&self) -> bool {
        !self.pending.is_empty()
    }

    fn learn(&mut self, ip: IpAddr, answer: Result<Vec<u8>, ResolveError>, now: Now) -> Host {
        let host = match answer.and_then(|raw| usable(&raw)) {
            Ok(name) => Host::Named(name),
            Err(ResolveError::NotFound) => Host::Unknown(HostUnknown::NotFound),
            Err(ResolveError::Failed) => {
                self.stats.lookups_failed.bump();
                Host::Unknown(HostUnknown::Failed)
            }
        };
        self.cache.learn(ip, host.clone(), now.mono);
        host
    }

    fn refused(&self, refused: &Refused) -> Host {
        match refused {
            Refused::Full => {
                self.stats.names_overload.bump();
                Host::Unknown(HostUnknown::Overload)
            }
            Refused::NoThread(_) => {
                self.stats.lookups_failed.bump();
                log::debug!("reverse names: {refused}");
                Host::Unknown(HostUnknown::Failed)
            }
        }
    }
}

/// The system's resolver. A name that is not UTF-8 is an I/O error to
/// dns-lookup, so it counts as a failure.
fn resolve(ip: IpAddr) -> Result<Vec<u8>, ResolveError> {
    dns_lookup::lookup_addr(&ip)
        .map(String::into_bytes)
        .map_err(|error| match error.kind() {
            LookupErrorKind::NoName | LookupErrorKind::NoData => ResolveError::NotFound,
            _ => ResolveError::Failed,
        })
}

/// The name as it may enter a tuple: without the root's dot. An empty one is
/// none; one longer than names can be is no answer to rely on.
fn usable(raw: &[u8]) -> Result<Name, ResolveError> {
    let raw = raw.strip_suffix(b".").unwrap_or(raw);
    match raw.len() {
        0 => Err(ResolveError::NotFound),
        1..=LONGEST => Ok(Name::escaped(raw)),
        _ => Err(ResolveError::Failed),
    }
}

/// Whether `skip-reverse-dns` leaves this address out: loopback, private,
/// link-local, unique-local, shared (RFC 6598), multicast, broadcast and
/// unspecified addresses. A v4-mapped address is judged as IPv4.
pub fn skipped(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || is_shared(ip)
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip.is_unspecified()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
                || ip.is_multicast()
                || ip.is_unspecified()
        }
    }
}

fn is_shared(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 100 && b & 0xc0 == 64
}

#[cfg(test)]
mod tests;
