//! All connections: who gets in, whose turn it is, and who has to go.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::client::{After, Client, Desk};
use super::listen::{ListenError, Place};
use super::{Access, CLIENTS, Commands, replies};
use crate::emit::Subscribers;
use crate::log::RateLimit;
use crate::model::Now;
use crate::stats::Stats;
use crate::sys::{self, Peer};

/// How many of the clients can be subscribers: the others can still be told to
/// release a lock.
const SUBSCRIBERS: usize = CLIENTS / 4 * 3;
/// Connections taken in one turn.
const ACCEPTS: usize = 32;
/// What a turn may cost, in bytes written; beyond it the other clients wait for
/// the next one. That is a few milliseconds.
const COST: usize = 1 << 20;
/// How soon a connection that could not be taken is tried again: no descriptor
/// was left, and nothing tells when one is.
const RETRY: Duration = Duration::from_secs(1);
/// How often one kind of message is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The control socket and its clients.
#[derive(Debug)]
pub struct Server {
    place: Place,
    access: Access,
    uid: u32,
    /// The listener's token; the clients' are those behind it.
    base: usize,
    clients: Vec<Option<Client>>,
    /// How many there are.
    connected: usize,
    /// Whose turn is first.
    first: usize,
    /// There may be connections to take.
    pending: bool,
    retry: Option<Instant>,
    began: Instant,
    subscribers: Rc<RefCell<Subscribers>>,
    limit: RateLimit,
    stats: Rc<Stats>,
}

impl Server {
    /// Takes the path and listens, for these besides root and the own user. The
    /// tokens from `base` on are its own.
    ///
    /// # Errors
    /// Why the path is not to be had.
    pub fn open(
        path: &Path,
        access: Access,
        base: Token,
        subscribers: Rc<RefCell<Subscribers>>,
        stats: Rc<Stats>,
        now: Now,
    ) -> Result<Server, ListenError> {
        Ok(Server {
            place: Place::take(path, &access)?,
            access,
            uid: sys::effective_uid(),
            base: base.0,
            clients: Vec::new(),
            connected: 0,
            first: 0,
            pending: true,
            retry: None,
            began: now.mono,
            subscribers,
            limit: RateLimit::new(3, LOG_EVERY),
            stats,
        })
    }

    /// Watches for connections.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn register(&self, registry: &Registry) -> io::Result<()> {
        let fd = self.place.listener.as_raw_fd();
        registry.register(&mut SourceFd(&fd), Token(self.base), Interest::READABLE)
    }

    /// A descriptor became ready.
    pub fn ready(&mut self, token: Token) {
        match self.client(token) {
            Some(client) => {
                client.readable = true;
                client.writable = true;
            }
            None => self.pending |= token.0 == self.base,
        }
    }

    /// A client is gone, or its connection failed. What it sent before is still
    /// carried out.
    pub fn broken(&mut self, token: Token) {
        if let Some(client) = self.client(token) {
            client.gone = true;
            client.readable = true;
            client.writable = true;
        }
    }

    fn client(&mut self, token: Token) -> Option<&mut Client> {
        let at = token.0.checked_sub(self.base + 1)?;
        self.clients.get_mut(at)?.as_mut()
    }

    /// Takes connections and gives every client its turn; true when there is
    /// more to do now.
    pub fn turn<C: Commands>(&mut self, commands: &mut C, registry: &Registry, now: Now) -> bool {
        self.tell_suppressed(now);
        self.accept(registry, now);
        if self.connected == 0 {
            return self.pending;
        }
        let mut busy = self.pending;
        let (mut spent, count) = (0, self.clients.len());
        let first = self.first % count;
        for at in (first..count).chain(0..first) {
            if spent >= COST {
                self.first = at;
                busy = true;
                break;
            }
            let (after, cost) = self.turn_of(at, commands, now);
            spent += cost;
            busy |= after == After::Busy;
            if after == After::Close {
                self.close(at);
            }
        }
        while self.clients.last().is_some_and(Option::is_none) {
            self.clients.pop();
        }
        self.subscribers.borrow_mut().trim();
        let lists = self.clients.iter().flatten().any(Client::lists_sockets);
        commands.keep_places(lists);
        busy
    }

    fn turn_of<C: Commands>(&mut self, at: usize, commands: &mut C, now: Now) -> (After, usize) {
        let Some(client) = &mut self.clients[at] else {
            return (After::Waits, 0);
        };
        if client.due().is_some_and(|due| due <= now.mono) {
            self.stats.control_evicted.bump();
            return (After::Close, 0);
        }
        let may_subscribe = self.subscribers.borrow().len() < SUBSCRIBERS;
        client.turn(&mut Desk {
            commands,
            subscribers: &self.subscribers,
            stats: &self.stats,
            uptime: now.mono.saturating_duration_since(self.began),
            clients: self.connected,
            may_subscribe,
            now,
        })
    }

    /// When something is due that no descriptor tells of.
    pub fn deadline(&self) -> Option<Instant> {
        let due = self.clients.iter().flatten().filter_map(Client::due);
        due.chain(self.retry).min()
    }

    fn accept(&mut self, registry: &Registry, now: Now) {
        if self.retry.is_some_and(|at| at <= now.mono) {
            self.pending = true;
        }
        if !self.pending {
            return;
        }
        self.retry = None;
        for _ in 0..ACCEPTS {
            match self.place.listener.accept() {
                Ok((stream, _)) => {
                    self.stats.control_clients.bump();
                    self.admit(stream, registry, now);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.pending = false;
                    return;
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => {
                    self.pending = false;
                    self.retry = Some(now.mono + RETRY);
                    self.warn("accept", now, || {
                        format!("a control connection cannot be taken: {error}")
                    });
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: UnixStream, registry: &Registry, now: Now) {
        let peer = match sys::peer(stream.as_fd()) {
            Ok(peer) => peer,
            Err(error) => {
                self.stats.control_refused.bump();
                return self.warn("peer", now, || {
                    format!("a control connection is closed, for nobody knows whose it is: {error}")
                });
            }
        };
        if let Err(error) = stream.set_nonblocking(true) {
            return self.warn("connection", now, || {
                format!("a control connection is closed: {error}")
            });
        }
        if !self.may(peer, &stream) {
            self.stats.control_refused.bump();
            self.warn("refused", now, || {
                format!(
                    "the control socket refused uid {} (process {})",
                    peer.uid, peer.pid
                )
            });
            let error = format!(
                "user {} may not use this socket: only root, user {} and those of \
                 daemon.control-uids and daemon.control-gids may",
                peer.uid, self.uid
            );
            return turn_away(stream, &error);
        }
        let Some(at) = self.free_place(now.mono) else {
            self.stats.control_evicted.bump();
            let error = format!("all {CLIENTS} places are taken; try again later");
            return turn_away(stream, &error);
        };
        let token = Token(self.base + 1 + at);
        let fd = stream.as_raw_fd();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = registry.register(&mut SourceFd(&fd), token, interest) {
            return self.warn("connection", now, || {
                format!("a control connection is closed: {error}")
            });
        }
        self.clients[at] = Some(Client::new(stream, peer, now.mono));
        self.connected += 1;
    }

    fn may(&self, peer: Peer, stream: &UnixStream) -> bool {
        if peer.uid == 0 || peer.uid == self.uid || self.access.uids.contains(&peer.uid) {
            return true;
        }
        let gids = &self.access.gids;
        if gids.is_empty() {
            return false;
        }
        // An older kernel tells the effective group alone.
        gids.contains(&peer.gid)
            || sys::peer_groups(stream.as_fd())
                .is_ok_and(|groups| groups.iter().any(|group| gids.contains(group)))
    }

    /// A place for one more, if need be that of somebody who has made no request,
    /// does not get on with something, or has been idle for long.
    fn free_place(&mut self, now: Instant) -> Option<usize> {
        if let Some(at) = self.clients.iter().position(Option::is_none) {
            return Some(at);
        }
        if self.clients.len() < CLIENTS {
            self.clients.push(None);
            return Some(self.clients.len() - 1);
        }
        let oldest = |such: &dyn Fn(&Client) -> bool| {
            let all = self.clients.iter().enumerate();
            all.filter_map(|(at, client)| client.as_ref().map(|client| (at, client)))
                .filter(|(_, client)| such(client))
                .min_by_key(|(_, client)| client.since)
                .map(|(at, _)| at)
        };
        let at = oldest(&|client| !client.proven)
            .or_else(|| oldest(&|client| client.is_stuck(now)))
            .or_else(|| oldest(&|client| client.subscription.is_none()))?;
        self.stats.control_evicted.bump();
        self.close(at);
        Some(at)
    }

    /// Closes a connection. Its descriptor leaves epoll with it, for there is
    /// no other of the same description.
    fn close(&mut self, at: usize) {
        if let Some(mut client) = self.clients[at].take() {
            client.close();
            if let Some(subscription) = client.subscription {
                self.subscribers.borrow_mut().unsubscribe(subscription);
            }
            self.connected -= 1;
        }
    }

    fn tell_suppressed(&mut self, now: Now) {
        for (kind, more) in self.limit.over(now.mono) {
            log::warn!("{more} more messages about control \"{kind}\" were not logged");
        }
    }

    fn warn(&mut self, kind: &'static str, now: Now, message: impl Fn() -> String) {
        match self.limit.admit(kind, now.mono) {
            Some(0) => log::warn!("{}", message()),
            Some(more) => log::warn!("{} ({more} more like it were not logged)", message()),
            None => {}
        }
    }
}

/// Says why, as far as there is room, and hangs up.
fn turn_away(mut stream: UnixStream, error: &str) {
    let mut line = Vec::new();
    replies::failed(&mut line, None, error, |_| {});
    if let Err(error) = stream.write_all(&line) {
        log::debug!("a refused client is not there any more: {error}");
    }
}
