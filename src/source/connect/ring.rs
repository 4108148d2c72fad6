//! The ring: what a hook wrote, read in order.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use aya::maps::{MapData, MapError, PerCpuArray};

use super::hooks::{Attached, Maps, Programs};
use super::{Setup, Tried, candidates};
use crate::model::{Connect, Netns, Origin};
use crate::stats::Stats;
use crate::sys::{self, Ring, memory};
use crate::wire::connect::{self, Record};

/// How long a hook may take to show the connect() that proves it. It takes none:
/// the record is in the ring before connect() returns, unless one that was begun
/// before it, on another CPU, is not finished yet.
const PATIENCE: Duration = Duration::from_secs(1);

/// A hook in place, and the ring it writes to. Dropped, the hook is gone.
pub struct Connects {
    origin: Origin,
    ring: Ring,
    lost: PerCpuArray<MapData, u64>,
    /// How many of the lost have been told.
    told: u64,
    /// The namespace of this process, by its cookie.
    own_netns: Option<(u64, Netns)>,
    /// What was read while the hook was being proved.
    held: VecDeque<Record>,
    stats: Rc<Stats>,
    _attached: Attached,
}

impl Connects {
    /// Tries the hooks, best first, or only the one that is forced, and returns
    /// the first that shows a connect() of sockwatch's own. Connects of the calling
    /// process are left out from then on. What failed is in the list, and so is
    /// what the hook that is used cannot tell.
    pub fn open(forced: Option<Origin>, stats: Rc<Stats>) -> (Option<Connects>, Vec<Tried>) {
        Connects::open_with(forced, Setup::default(), stats)
    }

    /// The same with a set-up other than the usual.
    pub fn open_with(
        forced: Option<Origin>,
        setup: Setup,
        stats: Rc<Stats>,
    ) -> (Option<Connects>, Vec<Tried>) {
        // The kernel's BTF takes 16 MB while it is read.
        memory::briefly(|| Connects::first(forced, setup, stats))
    }

    fn first(
        forced: Option<Origin>,
        setup: Setup,
        stats: Rc<Stats>,
    ) -> (Option<Connects>, Vec<Tried>) {
        let mut tried = Vec::new();
        let hooks: Vec<Origin> = candidates(forced).collect();
        let Some(best) = hooks.first() else {
            return (None, tried);
        };
        if cfg!(target_endian = "big") {
            return (None, hooks.into_iter().map(of_other_order).collect());
        }
        let (mut programs, mut maps) = match Programs::load(setup, *best) {
            Ok(loaded) => loaded,
            Err(failed) => {
                tried.extend(hooks.into_iter().map(|hook| Tried {
                    hook,
                    ..failed.clone()
                }));
                return (None, tried);
            }
        };
        for origin in hooks {
            let proved = programs.attach(origin).and_then(|(attached, shortcoming)| {
                let proof = Proof::of(origin, &mut maps, &stats)?;
                Ok((attached, shortcoming, proof))
            });
            match proved {
                Ok((attached, shortcoming, proof)) => {
                    tried.extend(shortcoming);
                    let connects = Connects {
                        origin,
                        ring: maps.ring,
                        lost: maps.lost,
                        told: 0,
                        own_netns: proof.own_netns,
                        held: proof.held,
                        stats,
                        _attached: attached,
                    };
                    return (Some(connects), tried);
                }
                Err(failed) => tried.push(failed),
            }
        }
        (None, tried)
    }

    /// The hook that is in place.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Hands out what the ring holds, oldest first, at most `limit` records; true
    /// when there may be more. An empty ring costs no system call.
    ///
    /// # Errors
    /// Those of mmap(2), by which another part of the ring comes into sight.
    pub fn drain(&mut self, limit: usize, each: &mut dyn FnMut(Connect)) -> io::Result<bool> {
        for _ in 0..limit {
            let record = match self.held.pop_front() {
                Some(record) => Some(record),
                None => match next(&mut self.ring, &self.stats)? {
                    Next::Record(record) => Some(record),
                    Next::Rejected => None,
                    Next::Empty => return Ok(false),
                },
            };
            if let Some(record) = record {
                self.stats.connects.bump();
                each(self.placed(record));
            }
        }
        Ok(true)
    }

    /// After a drain that left nothing: whether a record that is not finished yet
    /// keeps others back, so that a connect() which has gone on may still be unread.
    /// That lasts as long as a task is kept from its CPU; then the descriptor is
    /// readable.
    pub fn blocked(&self) -> bool {
        self.ring.blocked()
    }

    /// How far the hook has come: the record of every connect() that is over by
    /// now lies before this mark.
    pub fn mark(&self) -> usize {
        self.ring.mark()
    }

    /// Whether [`Connects::drain`] has handed out everything before a mark.
    pub fn has_passed(&self, mark: usize) -> bool {
        self.held.is_empty() && self.ring.has_passed(mark)
    }

    /// How far it has been read; it stands still while a record is not finished.
    pub fn position(&self) -> usize {
        self.ring.position()
    }

    /// How many connects found the ring full since the last call.
    ///
    /// # Errors
    /// Those of reading a BPF map (bpf(2)).
    pub fn take_lost(&mut self) -> io::Result<u64> {
        let counts = self.lost.get(&0, 0).map_err(io_error)?;
        let sum = counts.iter().fold(0_u64, |sum, n| sum.wrapping_add(*n));
        let lost = sum.wrapping_sub(self.told);
        self.told = sum;
        self.stats.connects_lost.add(lost);
        Ok(lost)
    }

    /// The connect with its namespace, where only the cookie of that was told.
    fn placed(&self, record: Record) -> Connect {
        let mut connect = record.connect;
        if connect.netns.is_none() {
            connect.netns = self
                .own_netns
                .filter(|(cookie, _)| record.netns_cookie == Some(*cookie))
                .map(|(_, netns)| netns);
        }
        connect
    }
}

impl AsRawFd for Connects {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl fmt::Debug for Connects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connects")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// The object in this build is little-endian, and what a kernel of the other order
/// would make of it is not worth a guess.
fn of_other_order(hook: Origin) -> Tried {
    Tried {
        hook,
        reason: "its program is compiled for little-endian machines, and this one is big-endian"
            .to_string(),
        remedy: None,
    }
}

/// What a look at the ring came to.
enum Next {
    Record(Record),
    Rejected,
    Empty,
}

fn next(ring: &mut Ring, stats: &Stats) -> io::Result<Next> {
    Ok(match ring.next(connect::record)? {
        None => Next::Empty,
        Some(Ok(record)) => Next::Record(record),
        Some(Err(malformed)) => {
            stats.connects_rejected.bump();
            log::debug!("a connect record was rejected: {}", malformed.as_str());
            Next::Rejected
        }
    })
}

/// What a connect() of sockwatch's own brought to light.
struct Proof {
    own_netns: Option<(u64, Netns)>,
    /// What others did meanwhile.
    held: VecDeque<Record>,
}

impl Proof {
    /// Proves that a hook which is attached tells of connects, of each family that
    /// there is, and has it leave out this process from now on, by the id that it
    /// goes by in the hook: in a pid namespace getpid(2) answers another.
    fn of(origin: Origin, maps: &mut Maps, stats: &Stats) -> Result<Proof, Tried> {
        let failed = |reason: String| Tried {
            hook: origin,
            reason,
            remedy: None,
        };
        let mut held = VecDeque::new();
        let mut own = None;
        for v6 in [false, true] {
            let cookie = match sys::connect_nowhere(v6) {
                Ok(cookie) => cookie,
                Err(error) if v6 && error.raw_os_error() == Some(libc::EAFNOSUPPORT) => continue,
                Err(error) => {
                    return Err(failed(format!(
                        "it cannot be proved, as sockwatch has no connect() of its own: {error}"
                    )));
                }
            };
            let seen = await_cookie(&mut maps.ring, stats, &mut held, cookie)
                .map_err(|error| failed(format!("its ring cannot be read: {error}")))?;
            own = Some(seen.ok_or_else(|| {
                failed(format!(
                    "attached, but blind to {} connects",
                    if v6 { "IPv6" } else { "IPv4" }
                ))
            })?);
        }
        // The loop has returned or set it: IPv4 is never skipped.
        let own = own.ok_or_else(|| failed("there is no IPv4".to_string()))?;
        let pid = own.connect.caller.pid;
        maps.own.set(0, pid, 0).map_err(|error| {
            failed(format!("sockwatch cannot be left out: {}", io_error(error)))
        })?;
        held.retain(|record: &Record| record.connect.caller.pid != pid);
        let netns = sys::netns()
            .inspect_err(|error| log::debug!("sockwatch's own network namespace: {error}"))
            .ok();
        Ok(Proof {
            own_netns: own.netns_cookie.zip(netns.map(Netns)),
            held,
        })
    }
}

/// Reads up to the record of the socket with this cookie, and keeps the others.
/// They are as many as the ring holds at most, or what came within the patience.
fn await_cookie(
    ring: &mut Ring,
    stats: &Stats,
    held: &mut VecDeque<Record>,
    cookie: u64,
) -> io::Result<Option<Record>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match next(ring, stats)? {
            Next::Record(record) if record.connect.cookie.0 == cookie => return Ok(Some(record)),
            Next::Record(record) => held.push_back(record),
            Next::Rejected => {}
            Next::Empty if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Next::Empty => return Ok(None),
        }
    }
}

fn io_error(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(error) => error.io_error,
        MapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}
