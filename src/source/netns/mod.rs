//! Every network namespace: finding them, and fetching from each what only a
//! thread that is in it can get.
//!
//! A netlink socket and a file of /proc/net are of the namespace in which they
//! were opened. So one thread goes from one to the next, the [`Scout`]; everybody
//! else stays at home. It is asked for one thing after the other, and what it
//! brings is fetched when it has woken the asker.

mod atlas;
mod ids;
mod procs;

pub use atlas::MOST;
pub use ids::{Announcements, News};

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::counters::Reading;
use crate::model::Netns;
use crate::sys::{self, Netlink};
use atlas::{Astray, Atlas};

/// Wakes whoever waits for answers; called from the scout's thread.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// What it does lies on the stack but for some buffers.
const STACK: usize = 256 << 10;

/// One namespace, for as long as it lives: an inode is given again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Number(pub u32);

/// How namespaces are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Each is given an id, so that its notices come.
    pub ids: bool,
    /// The container that a text of /proc/PID/cgroup tells.
    pub container: fn(&[u8]) -> Option<String>,
}

/// What the scout is asked for.
#[derive(Clone, Debug)]
pub enum Job {
    /// To look at which namespaces there are.
    Look {
        /// Those that have ended.
        forget: Vec<Number>,
        /// With a bound on what that may cost.
        bounded: bool,
        /// To find out which have ended, too.
        check: bool,
    },
    /// To read the counters of these.
    Read(Vec<Number>),
    /// To open the sockets for a dump of this one.
    Enter(Number),
}

/// What it brings.
#[derive(Debug)]
pub enum Brought {
    /// What there is.
    Looked(Looked),
    /// The counters, or why there are none.
    Read(Vec<(Number, io::Result<Reading>)>),
    /// The sockets.
    Entered(Number, io::Result<Entered>),
    /// It could not come home and has ended, so as not to keep where it was alive.
    Lost(io::Error),
}

/// An answer, and the CPU time that it took.
#[derive(Debug)]
pub struct Answer {
    /// What it is.
    pub brought: Brought,
    /// What it cost.
    pub cpu: Duration,
}

/// A namespace that was met for the first time.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which.
    pub number: Number,
    /// Its inode.
    pub netns: Netns,
    /// The id by which our namespace knows it; `None` where none was asked for.
    pub id: Option<i32>,
    /// Its name.
    pub name: Option<Arc<str>>,
}

/// A namespace that cannot be entered.
#[derive(Debug)]
pub struct Refused {
    /// Which.
    pub netns: Netns,
    /// Its name.
    pub name: Option<Arc<str>>,
    /// Why.
    pub error: io::Error,
}

/// What a look has found.
#[derive(Debug, Default)]
pub struct Looked {
    /// Whatever there was at this time has been seen.
    pub covered: Option<Instant>,
    /// There are processes that must not be looked into.
    pub denied: bool,
    /// New ones.
    pub found: Vec<Found>,
    /// Known ones whose names are others now.
    pub named: Vec<(Number, Option<Arc<str>>)>,
    /// Our own, if it has another name now.
    pub own: Option<Option<Arc<str>>>,
    /// The id that our own has given itself.
    pub own_id: Option<i32>,
    /// Those that have ended, where that was asked.
    pub ended: Vec<Number>,
    /// Those that cannot be entered, each told once.
    pub refused: Vec<Refused>,
    /// How many cannot be entered now.
    pub refused_now: usize,
    /// How many there are no places for.
    pub left_out: usize,
}

/// The sockets for one dump of a namespace. They keep it alive.
#[derive(Debug)]
pub struct Entered {
    /// For the dump.
    pub dump: Netlink,
    /// For exact queries.
    pub query: Netlink,
}

/// The thread that goes.
#[derive(Debug)]
pub struct Scout {
    jobs: Sender<Job>,
    answers: Receiver<Answer>,
}

impl Scout {
    /// Starts the thread, in the namespace of the caller. It ends when this is
    /// dropped and what it does is done.
    ///
    /// # Errors
    /// EPERM where it may not go anywhere (without CAP_SYS_ADMIN), or give ids
    /// (without CAP_NET_ADMIN).
    pub fn start(setup: Setup, wake: Wake) -> io::Result<Scout> {
        let (jobs, to_do) = mpsc::channel();
        let (brings, answers) = mpsc::channel();
        let (says, ready) = mpsc::sync_channel(1);
        thread::Builder::new()
            .name("sw-netns".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                let (atlas, said) = match Atlas::new(&setup) {
                    Ok(atlas) => (Some(atlas), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                if says.send(said).is_ok()
                    && let Some(atlas) = atlas
                {
                    serve(atlas, &to_do, &brings, &wake);
                }
            })?;
        let gone = |_| io::Error::other("the thread ended at once");
        ready.recv().map_err(gone)??;
        Ok(Scout { jobs, answers })
    }

    /// Asks for something.
    ///
    /// # Errors
    /// The thread has ended; why is among its answers.
    pub fn ask(&self, job: Job) -> io::Result<()> {
        let gone = |_| io::Error::other("the thread for namespaces has ended");
        self.jobs.send(job).map_err(gone)
    }

    /// Takes an answer, if there is one.
    pub fn take(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }

    /// Waits for an answer.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn wait(&self) -> io::Result<Answer> {
        let gone = |_| io::Error::other("the thread for namespaces has ended");
        self.answers.recv().map_err(gone)
    }
}

/// The thread's life.
fn serve(mut atlas: Atlas, jobs: &Receiver<Job>, answers: &Sender<Answer>, wake: &Wake) {
    while let Ok(job) = jobs.recv() {
        let before = sys::thread_cpu();
        let brought = done(&mut atlas, job).unwrap_or_else(Brought::Lost);
        let lost = matches!(brought, Brought::Lost(_));
        let cpu = sys::thread_cpu().saturating_sub(before);
        if answers.send(Answer { brought, cpu }).is_err() {
            return;
        }
        wake();
        if lost {
            return;
        }
    }
}

fn done(atlas: &mut Atlas, job: Job) -> io::Result<Brought> {
    match job {
        Job::Look {
            forget,
            bounded,
            check,
        } => {
            for number in forget {
                atlas.forget(number);
            }
            let ended = if check { atlas.ended() } else { Vec::new() };
            match atlas.look(bounded) {
                Ok(looked) => Ok(Brought::Looked(Looked { ended, ..looked })),
                Err(Astray::Refused(error)) => {
                    log::debug!("namespaces cannot be looked for: {error}");
                    Ok(Brought::Looked(Looked {
                        ended,
                        ..Looked::default()
                    }))
                }
                Err(Astray::Lost(error)) => Err(error),
            }
        }
        Job::Read(numbers) => {
            let each = numbers.into_iter();
            let read = each.map(|number| Ok((number, settled(atlas.read(number))?)));
            Ok(Brought::Read(read.collect::<io::Result<_>>()?))
        }
        Job::Enter(number) => Ok(Brought::Entered(number, settled(atlas.sockets(number))?)),
    }
}

/// A refusal is an answer; to be lost is the end.
fn settled<T>(fetched: Result<T, Astray>) -> io::Result<io::Result<T>> {
    match fetched {
        Ok(fetched) => Ok(Ok(fetched)),
        Err(Astray::Refused(error)) => Ok(Err(error)),
        Err(Astray::Lost(error)) => Err(error),
    }
}
