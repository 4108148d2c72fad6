//! `--dump`: the socket table once, through the same source, table and filter as
//! the daemon's.

mod aside;
mod cgroups;
mod elsewhere;
mod names;
mod print;
mod processes;
mod rows;

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};

use crate::emit::Format;
use crate::filter::{Answer, Filter};
use crate::model::{
    Coverage, Needs, Netns, Now, Proto, Row, SockId, Sought, StateGroups, TcpState,
};
use crate::reactor::{self, Handler, Turn};
use crate::source::diag::{DumpError, Progress, Scope};
use crate::source::dumps::{Asked, Dumps};
use crate::stats::Stats;
use crate::sys;
use crate::sys::output::{OpenError, Output, Patient};
use crate::wire::bytecode::Condition;

use aside::Aside;
use elsewhere::Elsewhere;
use print::Printing;
use rows::{Kept, Rows};

const DUMP: Token = Token(0);

/// How often one dump is tried before the whole fails.
const TRIES: u32 = 3;
/// How soon a dump that has nothing to say is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

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

/// What becomes of rows that pass.
enum Taker {
    /// They are printed as they are read. Those of a dump that fails in the middle
    /// have been there as well.
    Print(Box<Printing<Patient>>),
    /// They are kept: something is to be found out of them first.
    Keep(Rows, Patient),
}

/// Reads all dumps.
struct Reading<'a> {
    scope: Scope,
    /// The namespaces that come after this one.
    elsewhere: Option<Elsewhere>,
    /// The one that is being read is not our own.
    away: bool,
    request: &'a Request,
    /// Who reads a part of it.
    aside: Option<Aside>,
    dumps: Dumps,
    tries: u32,
    /// The protocol that nobody answers for.
    missing: Option<Proto>,
    ready: bool,
    /// What TCP and UDP rows must be, for the kernel.
    conditions: [Option<Condition>; 2],
    taker: Taker,
    /// What of the datagram under way can pass.
    kept: Vec<Kept>,
    /// The number of the dump under way.
    number: u32,
}

impl<'a> Reading<'a> {
    fn new(
        scope: Scope,
        elsewhere: Option<Elsewhere>,
        request: &'a Request,
        taker: Taker,
    ) -> Reading<'a> {
        let (mut dumps, mut needs) = (Dumps::default(), request.needs());
        let aside = Aside::take_over(&mut needs, scope.netns());
        dumps.ask(needs);
        Reading {
            scope,
            elsewhere,
            away: false,
            request,
            aside,
            dumps,
            tries: 0,
            missing: None,
            ready: false,
            conditions: Proto::ALL.map(|proto| request.condition(proto)),
            taker,
            kept: Vec::new(),
            number: 0,
        }
    }

    /// Goes on with the next namespace; false when there is none.
    fn go_on(&mut self) -> bool {
        let Some(next) = self.elsewhere.as_mut().and_then(Elsewhere::next) else {
            return false;
        };
        self.scope = next;
        self.away = true;
        self.tries = 0;
        self.dumps.ask(self.request.needs());
        true
    }

    /// Takes what was read beside, or has it read here.
    fn take_from(&mut self, aside: Aside) -> Result<(), DumpFailed> {
        let Some(rows) = aside.rows() else {
            self.dumps.ask(Aside::needs());
            return Ok(());
        };
        self.number += 1;
        let (netns, dump) = (self.scope.netns(), self.number);
        let rows = rows.into_iter().filter(|row| can_pass(row, self.request));
        self.kept.extend(rows.map(|row| Kept { row, netns, dump }));
        self.put()
    }

    /// Gives what can pass to whoever takes it.
    fn put(&mut self) -> Result<(), DumpFailed> {
        match &mut self.taker {
            Taker::Print(printing) => printing.put(&mut self.kept).map_err(unprinted),
            Taker::Keep(rows, _) => {
                rows.put(&mut self.kept);
                Ok(())
            }
        }
    }

    fn failed(&mut self, coverage: Coverage, error: DumpError, now: Now) -> Result<(), DumpFailed> {
        if let Taker::Keep(rows, _) = &mut self.taker {
            rows.forget(self.number);
        }
        self.tries += 1;
        if error.is_unknown() && self.dumps.fall_back(Asked::due(coverage)) {
            return Ok(());
        }
        if self.away && !error.is_missing() {
            let netns = self.scope.netns().0;
            log::warn!(
                "the {} sockets of network namespace {netns} cannot be read: {error}",
                coverage.proto.as_str()
            );
            // What the kernel still holds of it is in the way of any other.
            self.dumps = Dumps::default();
            return Ok(());
        }
        if error.is_missing() && self.missing.is_none_or(|proto| proto == coverage.proto) {
            // Whoever asks for the table wants what there is of it.
            if self.dumps.is_missing_now(coverage.proto) {
                log::warn!("no {} sockets: {error}", coverage.proto.as_str());
            }
            self.missing = Some(coverage.proto);
            return Ok(());
        }
        if error.is_missing() || self.tries >= TRIES {
            // What was read beside is there all the same.
            if let Some(aside) = self.aside.take() {
                self.take_from(aside)?;
            }
            return Err(DumpFailed::Dump(coverage.proto, error));
        }
        self.dumps.retry(Asked::due(coverage), now.mono);
        Ok(())
    }
}

impl Handler for Reading<'_> {
    type Error = DumpFailed;

    fn ready(&mut self, _token: Token, _now: Now) -> Result<(), DumpFailed> {
        self.ready = true;
        Ok(())
    }

    fn broken(&mut self, _token: Token, _now: Now) -> Result<(), DumpFailed> {
        self.ready = true;
        Ok(())
    }

    fn turn(&mut self, now: Now) -> Result<Turn, DumpFailed> {
        if !self.scope.is_dumping() {
            let Some(Asked { coverage, .. }) = self.dumps.next(now.mono, false) else {
                if let Some(at) = self.dumps.next_at(now.mono, None) {
                    return Ok(Turn::Idle(Some(at)));
                }
                if let Some(aside) = self.aside.take() {
                    self.take_from(aside)?;
                    return Ok(Turn::Busy);
                }
                return Ok(if self.go_on() { Turn::Busy } else { Turn::Done });
            };
            self.number += 1;
            let condition = self.conditions[coverage.proto as usize].as_ref();
            if let Err(error) = self.scope.begin_where(coverage, condition, now) {
                self.failed(coverage, error, now)?;
                return Ok(Turn::Busy);
            }
        }
        let netns = self.scope.netns();
        let (request, kept, dump) = (self.request, &mut self.kept, self.number);
        let progress = self.scope.read(now, &mut |row| {
            if can_pass(&row, request) {
                kept.push(Kept { row, netns, dump });
            }
        });
        self.put()?;
        match progress {
            // A dump is written while it is read, so this is rare: worth no more
            // than a look every now and then, whichever socket it is by now.
            Progress::Waiting => Ok(Turn::Idle(Some(now.mono + LOOK_AGAIN))),
            Progress::More => Ok(Turn::Busy),
            Progress::Done(_) => {
                self.tries = 0;
                Ok(Turn::Busy)
            }
            Progress::Failed(coverage, error) => {
                self.failed(coverage, error, now)?;
                Ok(Turn::Busy)
            }
        }
    }
}

/// Whether a row can pass, with whatever name it will have.
fn can_pass(row: &Row, request: &Request) -> bool {
    let host = if request.dns { None } else { Some("-") };
    request.judge(&row.id, row.state, host) != Answer::Drop
}
