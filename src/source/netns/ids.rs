//! The ids by which our network namespace knows others: a namespace has to have
//! one for its notices to come.
//!
//! An id that the kernel chooses is the lowest that is free, and so is given
//! again at once: a notice of the next namespace could pass for one of the last.
//! Those that sockwatch chooses count up, and are never given twice.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use crate::stats::Stats;
use crate::sys::{self, Namespace, Netlink, RecvError};
use crate::wire::nsid::{self, Said};

/// One answer, or one announcement.
const ROOM: usize = 4096;
/// The first id that sockwatch may give.
const FIRST: i32 = 1 << 30;
/// Where it begins depends on the time, so that a later run does not meet with
/// the ids of an earlier one, which last as long as their namespaces.
const SPREAD: u64 = 1 << 28;
/// How many ids are tried for one namespace.
const TRIES: usize = 64;
/// Datagrams read for one answer: what was left of others comes first.
const READS: usize = 16;

/// Asks about ids and gives them, in the namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Ids {
    netlink: Netlink,
    next: i32,
    seq: u32,
}

impl Ids {
    /// Opens a socket in the calling thread's namespace.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN.
    pub fn open() -> io::Result<Ids> {
        let offset = sys::monotonic_ms() % SPREAD;
        let mut ids = Ids {
            netlink: Netlink::open_route()?,
            // Below 2^28.
            next: FIRST + offset as i32,
            seq: 0,
        };
        // Whether it may is looked at before what it asks for: no descriptor.
        match ids.ask(|seq| nsid::assign(-1, FIRST, seq))? {
            Said::Done { code } if -code == libc::EPERM => Err(refused(Said::Done { code })),
            _ => Ok(ids),
        }
    }

    /// The id of a namespace, which is given one if it has none.
    pub fn of(&mut self, namespace: &Namespace) -> io::Result<i32> {
        for _ in 0..TRIES {
            if let Some(id) = self.known(namespace)? {
                return Ok(id);
            }
            let id = self.next;
            self.next = self.next.checked_add(1).unwrap_or(FIRST);
            let request = |seq| nsid::assign(namespace.as_raw_fd(), id, seq);
            match self.ask(request)? {
                Said::Done { code: 0 } => return Ok(id),
                // It has got one meanwhile, or this one is taken.
                Said::Done { code } if -code == libc::EEXIST => {}
                other => return Err(refused(other)),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EEXIST))
    }

    /// The id of a namespace, if it has one.
    pub fn known(&mut self, namespace: &Namespace) -> io::Result<Option<i32>> {
        match self.ask(|seq| nsid::get(namespace.as_raw_fd(), seq))? {
            Said::Has(id) => Ok(Some(id)),
            Said::HasNone => Ok(None),
            other => Err(refused(other)),
        }
    }

    /// Whether no namespace has this id any more. A kernel that cannot tell says
    /// no.
    pub fn is_free(&mut self, id: i32) -> io::Result<bool> {
        let said = self.ask(|seq| nsid::find(id, seq))?;
        Ok(matches!(said, Said::Done { code } if -code == libc::ENOENT))
    }

    /// Sends a request and reads its answer: the kernel writes it within the call.
    fn ask(&mut self, request: impl Fn(u32) -> Vec<u8>) -> io::Result<Said> {
        self.seq = self.seq.wrapping_add(1);
        self.netlink.send(&request(self.seq))?;
        let mut buffer = [0; ROOM];
        for _ in 0..READS {
            let length = match self.netlink.recv(&mut buffer) {
                Ok(length) => length,
                Err(RecvError::Foreign | RecvError::Truncated) => continue,
                Err(RecvError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(RecvError::Overrun) => return Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
                Err(RecvError::Io(error)) => return Err(error),
            };
            for (seq, said) in nsid::read(&buffer[..length]) {
                if seq == self.seq {
                    return Ok(said);
                }
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }
}

fn refused(said: Said) -> io::Error {
    match said {
        Said::Done { code } => io::Error::from_raw_os_error(code.saturating_neg()),
        Said::Has(_) | Said::HasNone | Said::Ended(_) => io::ErrorKind::InvalidData.into(),
    }
}

/// What was heard of ids.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct News {
    /// Namespaces that have been given these.
    pub given: Vec<i32>,
    /// Namespaces with these have ended. Every notice of theirs came before.
    pub ended: Vec<i32>,
    /// Announcements were lost.
    pub lost: bool,
}

/// Hears of ids that are given, and of namespaces that end.
#[derive(Debug)]
pub struct Announcements {
    netlink: Netlink,
    stats: Rc<Stats>,
}

impl Announcements {
    /// Joins the group in the calling thread's namespace. Takes no privilege.
    ///
    /// # Errors
    /// See [`Netlink::open`]; EINVAL before Linux 4.0.
    pub fn open(stats: Rc<Stats>) -> io::Result<Announcements> {
        let netlink = Netlink::open_route()?;
        netlink.join(nsid::GROUP)?;
        Ok(Announcements { netlink, stats })
    }

    /// Takes what there is.
    ///
    /// # Errors
    /// Those of recvfrom(2).
    pub fn drain(&mut self) -> io::Result<News> {
        let mut news = News::default();
        let mut buffer = [0; ROOM];
        loop {
            let length = match self.netlink.recv(&mut buffer) {
                Ok(length) => length,
                Err(RecvError::WouldBlock) => return Ok(news),
                Err(RecvError::Overrun) => {
                    news.lost = true;
                    continue;
                }
                Err(RecvError::Truncated | RecvError::Foreign) => {
                    self.stats.netlink_rejected.bump();
                    continue;
                }
                Err(RecvError::Io(error)) => return Err(error),
            };
            for (_, said) in nsid::read(&buffer[..length]) {
                match said {
                    Said::Has(id) => news.given.push(id),
                    Said::Ended(id) => news.ended.push(id),
                    Said::HasNone | Said::Done { .. } => {}
                }
            }
        }
    }
}

impl AsRawFd for Announcements {
    fn as_raw_fd(&self) -> RawFd {
        self.netlink.as_raw_fd()
    }
}
