//! A scope: one network namespace, with the socket that dumps its table, the
//! one that asks about single sockets, and those that hear of ends.
//!
//! A dump is read in slices, so that a table of a million sockets never holds up
//! a notice, and it says what it covered when it completes. A dump that failed,
//! was cut short or was answered with something unintelligible is failed as a
//! whole: nothing may be concluded from it.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use super::Notices;
use crate::model::{Cookie, Coverage, Netns, Now, Row, SockId};
use crate::stats::Stats;
use crate::sys::{Netlink, RecvError};
use crate::wire::bytecode::Condition;
use crate::wire::request;
use crate::wire::sock_diag::{self, Body, Malformed, Messages};

/// The kernel never fills more of a dump's buffer than this
/// (`netlink_recvmsg` caps max_recvmsg_len).
const DUMP_ROOM: usize = 32 * 1024;
/// One reply with every attribute the kernel has.
const QUERY_ROOM: usize = 4096;
/// How many datagrams are read for one answer: there is one, unless an earlier
/// query was given up.
const QUERY_TRIES: usize = 16;
/// A dump that gives nothing for so long is taken for dead.
const STALL: Duration = Duration::from_secs(10);

/// Why a dump failed.
#[derive(Debug)]
pub enum DumpError {
    /// The kernel refused it, at the start or in the middle.
    Refused(io::Error),
    /// Reading it failed.
    Read(io::Error),
    /// A reply was longer than the buffer.
    Truncated,
    /// A reply that could not be read.
    Malformed(Malformed),
    /// The kernel said that the table changed under the dump.
    Interrupted,
    /// Nothing came for ten seconds.
    Stalled,
}

impl DumpError {
    /// The kernel does not know the request, whatever it was asked for.
    pub fn is_unknown(&self) -> bool {
        let errno = match self {
            DumpError::Refused(error) => error.raw_os_error(),
            _ => None,
        };
        matches!(errno, Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT))
    }

    /// The kernel found the request invalid.
    fn is_invalid(&self) -> bool {
        matches!(self, DumpError::Refused(error) if error.raw_os_error() == Some(libc::EINVAL))
    }

    /// Nobody answers for this protocol: its diag module is missing.
    pub fn is_missing(&self) -> bool {
        matches!(self, DumpError::Refused(error) if error.raw_os_error() == Some(libc::ENOENT))
    }
}

impl fmt::Display for DumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DumpError::Refused(error) => write!(f, "the kernel refused it: {error}"),
            DumpError::Read(error) => write!(f, "reading it failed: {error}"),
            DumpError::Truncated => f.write_str("a reply was longer than any the kernel sends"),
            DumpError::Malformed(what) => write!(f, "a reply had {}", what.as_str()),
            DumpError::Interrupted => f.write_str("the kernel says that it is inconsistent"),
            DumpError::Stalled => write!(f, "nothing came for {} s", STALL.as_secs()),
        }
    }
}

/// How far a dump is.
#[derive(Debug)]
pub enum Progress {
    /// The slice is used up; there is more to read now.
    More,
    /// Nothing is there now; wait for readiness.
    Waiting,
    /// It completed: every socket in its coverage was handed over.
    Done(Coverage),
    /// It failed and changes nothing.
    Failed(Coverage, DumpError),
}

/// What an exact query found.
#[derive(Debug)]
pub enum Found {
    /// This row.
    Row(Row),
    /// No such socket (ENOENT, ESTALE).
    Gone,
}

/// One namespace's sockets to the kernel.
#[derive(Debug)]
pub struct Scope {
    netns: Netns,
    /// It is the one that this thread is in.
    at_home: bool,
    dump: Netlink,
    query: Netlink,
    buffer: Box<[u8]>,
    job: Option<Job>,
    replaced: bool,
    /// The kernel takes no conditions: the byte code of INET_DIAG_REQ_BYTECODE.
    unconditional: bool,
    seq: u32,
    stats: Rc<Stats>,
}

#[derive(Debug)]
struct Job {
    coverage: Coverage,
    /// The kernel was asked to leave rows out.
    conditional: bool,
    seq: u32,
    /// When something last came.
    heard: std::time::Instant,
}

impl Scope {
    /// Opens the dump and query sockets in the calling thread's namespace.
    ///
    /// # Errors
    /// See [`Netlink::open`].
    pub fn open(netns: Netns, stats: Rc<Stats>) -> io::Result<Scope> {
        let mut scope = Scope::of(
            netns,
            Netlink::open_asking()?,
            Netlink::open_asking()?,
            stats,
        );
        scope.at_home = true;
        Ok(scope)
    }

    /// A scope of sockets that were opened in another namespace. They keep it
    /// alive, so it is to last no longer than what it is for; and when a dump has
    /// failed it is of no more use.
    pub fn of(netns: Netns, dump: Netlink, query: Netlink, stats: Rc<Stats>) -> Scope {
        Scope {
            netns,
            at_home: false,
            dump,
            query,
            buffer: vec![0; DUMP_ROOM].into_boxed_slice(),
            job: None,
            replaced: false,
            unconditional: false,
            seq: 0,
            stats,
        }
    }

    /// Opens a notice socket of this scope.
    ///
    /// # Errors
    /// See [`Netlink::open`].
    pub fn open_notices(&self) -> io::Result<Notices> {
        Notices::open(Rc::clone(&self.stats))
    }

    /// The namespace.
    pub fn netns(&self) -> Netns {
        self.netns
    }

    /// Whether a dump is under way.
    pub fn is_dumping(&self) -> bool {
        self.job.is_some()
    }

    /// Asks for a dump; its rows come from [`Scope::read`].
    ///
    /// # Errors
    /// What the kernel refused at once: a failed dump like any other.
    pub fn begin(&mut self, coverage: Coverage, now: Now) -> Result<(), DumpError> {
        self.begin_where(coverage, None, now)
    }

    /// As [`Scope::begin`], but for the rows that `condition` leaves out. A kernel that refuses it is asked
    /// without, from then on: whoever gives a condition must do without those
    /// rows, and not mind them.
    ///
    /// # Errors
    /// As those of [`Scope::begin`].
    pub fn begin_where(
        &mut self,
        coverage: Coverage,
        condition: Option<&Condition>,
        now: Now,
    ) -> Result<(), DumpError> {
        debug_assert!(
            self.job.is_none(),
            "a netlink socket serves one dump at a time"
        );
        let condition = condition.filter(|_| !self.unconditional);
        self.seq = self.seq.wrapping_add(1);
        match self
            .dump
            .send(&request::dump_where(coverage, condition, self.seq))
        {
            Ok(()) => {
                self.job = Some(Job {
                    coverage,
                    conditional: condition.is_some(),
                    seq: self.seq,
                    heard: now.mono,
                });
                Ok(())
            }
            Err(error) => {
                self.stats.dumps_failed.bump();
                Err(DumpError::Refused(error))
            }
        }
    }

    /// Whether the kernel has refused a condition.
    pub fn is_unconditional(&self) -> bool {
        self.unconditional
    }

    /// Reads one datagram of the dump under way and hands its rows over. Call
    /// it again on [`Progress::More`], after whatever is more urgent.
    pub fn read(&mut self, now: Now, each: &mut dyn FnMut(Row)) -> Progress {
        let Some(mut job) = self.job.take() else {
            return Progress::Waiting;
        };
        let failed = match self.step(&mut job, now, each) {
            Ok(Step::More) => {
                self.job = Some(job);
                return Progress::More;
            }
            Ok(Step::Waiting) if now.mono.duration_since(job.heard) < STALL => {
                self.job = Some(job);
                return Progress::Waiting;
            }
            Ok(Step::Done) => {
                self.stats.dumps.bump();
                return Progress::Done(job.coverage);
            }
            Ok(Step::Waiting) => DumpError::Stalled,
            // Before the first row: nothing was handed over that must be taken back.
            Err(error) if job.conditional && error.is_invalid() => {
                self.unconditional = true;
                self.stats.conditions_refused.bump();
                log::warn!(
                    "the kernel does not take the condition on ports and addresses \
                     ({error}): it writes all rows, and they are weighed here"
                );
                return match self.begin(job.coverage, now) {
                    Ok(()) => Progress::More,
                    Err(error) => Progress::Failed(job.coverage, error),
                };
            }
            Err(error) => error,
        };
        self.stats.dumps_failed.bump();
        if !self.at_home {
            return Progress::Failed(job.coverage, failed);
        }
        // What the kernel still holds of this dump would be in the way of the
        // next one (EBUSY): a fresh socket forgets it.
        match Netlink::open_asking() {
            Ok(fresh) => {
                self.dump = fresh;
                self.replaced = true;
            }
            Err(error) => log::warn!("cannot replace the dump socket: {error}"),
        }
        Progress::Failed(job.coverage, failed)
    }

    fn step(
        &mut self,
        job: &mut Job,
        now: Now,
        each: &mut dyn FnMut(Row),
    ) -> Result<Step, DumpError> {
        let length = match self.dump.recv(&mut self.buffer) {
            Ok(length) => length,
            Err(RecvError::WouldBlock) => return Ok(Step::Waiting),
            Err(RecvError::Foreign) => {
                self.stats.netlink_rejected.bump();
                return Ok(Step::More);
            }
            Err(RecvError::Truncated) => return Err(DumpError::Truncated),
            Err(RecvError::Overrun) => {
                return Err(DumpError::Read(io::Error::from_raw_os_error(libc::ENOBUFS)));
            }
            Err(RecvError::Io(error)) => return Err(DumpError::Read(error)),
        };
        job.heard = now.mono;
        let mut rows = 0;
        let mut end = Ok(Step::More);
        for message in Messages::new(&self.buffer[..length]) {
            let message = match message {
                Ok(message) if message.seq == job.seq && message.port == self.dump.port() => {
                    message
                }
                Ok(_) => continue, // the tail of a dump that was given up
                Err(malformed) => {
                    end = Err(DumpError::Malformed(malformed));
                    break;
                }
            };
            match message.body {
                Body::Socket(payload) => match sock_diag::row(payload, job.coverage.proto) {
                    Ok(row) => {
                        rows += 1;
                        each(row);
                    }
                    Err(malformed) => {
                        end = Err(DumpError::Malformed(malformed));
                        break;
                    }
                },
                Body::Done(0) => {
                    end = Ok(Step::Done);
                    break;
                }
                Body::Done(code) | Body::Error(code) => {
                    let error = io::Error::from_raw_os_error(code.saturating_neg());
                    end = Err(DumpError::Refused(error));
                    break;
                }
                Body::Interrupted => {
                    end = Err(DumpError::Interrupted);
                    break;
                }
                Body::Other => {}
            }
        }
        self.stats.rows.add(rows);
        if matches!(end, Err(DumpError::Malformed(_))) {
            self.stats.netlink_rejected.bump();
        }
        end
    }

    /// Whether the dump socket is another one since the last call, and has to be
    /// registered anew.
    pub fn take_replaced(&mut self) -> bool {
        std::mem::take(&mut self.replaced)
    }

    /// When the dump under way is to be given up unless something comes.
    pub fn stalls_at(&self) -> Option<std::time::Instant> {
        self.job.as_ref().map(|job| job.heard + STALL)
    }

    /// Asks about one connected TCP socket or minisocket. The kernel answers
    /// within the call.
    ///
    /// # Errors
    /// Anything but a row, ENOENT or ESTALE: then nothing may be concluded.
    pub fn ask(&mut self, id: &SockId, cookie: Cookie) -> io::Result<Found> {
        self.stats.queries.bump();
        let answer = self.exchange(id, cookie);
        if answer.is_err() {
            self.stats.queries_failed.bump();
        }
        answer
    }

    fn exchange(&mut self, id: &SockId, cookie: Cookie) -> io::Result<Found> {
        self.seq = self.seq.wrapping_add(1);
        self.query.send(&request::exact(id, cookie, self.seq))?;
        let mut buffer = [0_u8; QUERY_ROOM];
        for _ in 0..QUERY_TRIES {
            let length = match self.query.recv(&mut buffer) {
                Ok(length) => length,
                Err(RecvError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(RecvError::Overrun) => return Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
                Err(RecvError::Truncated) => return Err(invalid("a reply too long")),
                Err(RecvError::Foreign) => {
                    self.stats.netlink_rejected.bump();
                    continue;
                }
                Err(RecvError::Io(error)) => return Err(error),
            };
            for message in Messages::new(&buffer[..length]) {
                let message = message.map_err(|malformed| invalid(malformed.as_str()))?;
                if message.seq != self.seq {
                    continue;
                }
                match message.body {
                    Body::Socket(payload) => {
                        return sock_diag::row(payload, id.proto)
                            .map(Found::Row)
                            .map_err(|malformed| invalid(malformed.as_str()));
                    }
                    Body::Error(code) => {
                        return match code.saturating_neg() {
                            libc::ENOENT | libc::ESTALE => Ok(Found::Gone),
                            errno => Err(io::Error::from_raw_os_error(errno)),
                        };
                    }
                    _ => {}
                }
            }
        }
        Err(invalid("only answers to something else"))
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

enum Step {
    More,
    Waiting,
    Done,
}

impl AsRawFd for Scope {
    /// The dump socket: readable while a dump has more to say.
    fn as_raw_fd(&self) -> RawFd {
        self.dump.as_raw_fd()
    }
}
