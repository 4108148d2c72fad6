//! `--dump`: the socket table once, through the same source, table and filter as
//! the daemon's.

mod aside;
mod cgroups;
mod elsewhere;
mod names;
mod print;
mod processes;
mod reading;
mod rows;

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};

use crate::emit::Format;
use crate::filter::{Answer, Filter};
use crate::model::{Needs, Netns, Now, Proto, SockId, Sought, StateGroups, TcpState};
use crate::reactor;
use crate::source::diag::{DumpError, Scope};
use crate::stats::Stats;
use crate::sys;
use crate::sys::output::{OpenError, Output, Patient};
use crate::wire::bytecode::Condition;

use elsewhere::Elsewhere;
use print::Printing;
use reading::{Reading, Taker};
use rows::Rows;

const DUMP: Token = Token(0);

/// What to print.
pub struct Request {
    /// Sets of filters: a row must pass one of each set. The command line's
    /// globs are a set of one, the sensors of a configuration are another.
    pub filters: Vec<Vec<Filter>>,
    /// Look names up.
    pub dns: bool,
    /// Say who has each socket open.
    pub process: bool,
    /// Of every network namespace, and not our own alone.
    pub everywhere: bool,
    /// How.
    pub format: Format,
}

/// Why the table could not be printed.
#[derive(Debug)]
pub enum DumpFailed {
    /// Standard output cannot be used.
    Open(OpenError),
    /// Something at the start was refused.
    Start(&'static str, io::Error),
    /// The kernel did not give the table of this protocol.
    Dump(Proto, DumpError),
    /// The loop itself failed.
    Loop(io::Error),
    /// Standard output failed.
    Output(io::Error),
    /// The reader of standard output is gone: a quiet end.
    ReaderGone,
}

impl fmt::Display for DumpFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DumpFailed::Open(error) => write!(f, "standard output {error}"),
            DumpFailed::Start(what, error) => write!(f, "cannot {what}: {error}"),
            DumpFailed::Dump(proto, error) => {
                write!(f, "the {} table cannot be read: {error}", proto.as_str())
            }
            DumpFailed::Loop(error) => write!(f, "the event loop failed: {error}"),
            DumpFailed::Output(error) => write!(f, "writing to standard output failed: {error}"),
            DumpFailed::ReaderGone => f.write_str("the reader of standard output is gone"),
        }
    }
}

impl std::error::Error for DumpFailed {}

impl From<io::Error> for DumpFailed {
    fn from(error: io::Error) -> DumpFailed {
        DumpFailed::Loop(error)
    }
}

impl Request {
    /// What to ask the kernel for.
    fn needs(&self) -> Needs {
        let everything = Needs {
            tcp: StateGroups::ALL,
            udp: true,
        };
        let of = |set: &Vec<Filter>| {
            let each = set.iter().map(Filter::needs_in_dump);
            each.fold(Needs::default(), |all, needs| all | needs)
        };
        self.filters
            .iter()
            .map(of)
            .fold(everything, |all, needs| all & needs)
    }

    /// Which of them, by their ends: the kernel leaves out the others.
    fn condition(&self, proto: Proto) -> Option<Condition> {
        // A row must pass every set; the one that leaves out most stands for all.
        let each = self.filters.iter().map(|set| {
            let each = set.iter().map(|filter| filter.sought_in_dump(proto));
            each.fold(Sought::NONE, Sought::or)
        });
        let narrow = each.filter(|sought| !sought.is_all());
        narrow
            .min_by_key(Sought::accepted)
            .and_then(|sought| Condition::of(&sought))
    }

    fn judge(&self, id: &SockId, state: TcpState, host: Option<&str>) -> Answer {
        let mut answer = Answer::Pass;
        for set in &self.filters {
            let mut best = Answer::Drop;
            for filter in set {
                match filter.judge(id, state, host) {
                    Answer::Pass => best = Answer::Pass,
                    Answer::NeedsHost if best == Answer::Drop => best = Answer::NeedsHost,
                    Answer::NeedsHost | Answer::Drop => {}
                }
            }
            match best {
                Answer::Drop => return Answer::Drop,
                Answer::NeedsHost => answer = Answer::NeedsHost,
                Answer::Pass => {}
            }
        }
        answer
    }
}

/// Prints the table.
///
/// # Errors
/// See [`DumpFailed`]; [`DumpFailed::ReaderGone`] is no failure.
pub fn run(request: &Request) -> Result<(), DumpFailed> {
    let out = Patient(Output::standard().map_err(DumpFailed::Open)?);
    let stats = Rc::new(Stats::default());
    let netns =
        sys::netns().map_err(|error| DumpFailed::Start("read the network namespace", error))?;
    let scope = Scope::open(Netns(netns), Rc::clone(&stats))
        .map_err(|error| DumpFailed::Start("open a sock_diag netlink socket", error))?;
    let mut poll = Poll::new().map_err(|error| DumpFailed::Start("make an event loop", error))?;
    poll.registry()
        .register(&mut SourceFd(&scope.as_raw_fd()), DUMP, Interest::READABLE)
        .map_err(|error| DumpFailed::Start("watch a descriptor", error))?;
    let elsewhere = request.everywhere.then(Elsewhere::look).flatten();
    let to_find = request.dns || request.process || request.everywhere;
    let taker = if to_find {
        Taker::Keep(Rows::default(), out)
    } else {
        Taker::Print(Box::new(Printing::new(request.format, out)))
    };
    let mut reading = Reading::new(scope, elsewhere, request, taker);
    let read = reactor::run(&mut poll, &mut reading, Now::read);
    match reading.taker {
        Taker::Print(mut printing) => {
            let printed = printing.end();
            read?;
            printed
        }
        Taker::Keep(rows, out) => {
            read?;
            let mut rows = rows.into_data();
            if let Some(elsewhere) = &reading.elsewhere {
                elsewhere.name(&mut rows);
            }
            // Before the names: in the seconds that they may take, sockets close.
            if request.process {
                processes::look_up(&mut rows);
            }
            if request.dns {
                names::look_up(&mut poll, request, &mut rows, stats)?;
            }
            print::all(&rows, request.format, out)
        }
    }
    .map_err(unprinted)
}

/// A pipe that nobody reads any more is no failure.
fn unprinted(error: io::Error) -> DumpFailed {
    match error.kind() {
        io::ErrorKind::BrokenPipe => DumpFailed::ReaderGone,
        _ => DumpFailed::Output(error),
    }
}
