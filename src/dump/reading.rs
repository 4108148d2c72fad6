//! The reading of all dumps: one after the other, and again what failed.

use std::time::Duration;

use mio::Token;

use super::aside::Aside;
use super::elsewhere::Elsewhere;
use super::print::Printing;
use super::rows::{Kept, Rows};
use super::{DumpFailed, Request, unprinted};
use crate::filter::Answer;
use crate::model::{Coverage, Now, Proto, Row};
use crate::reactor::{Handler, Turn};
use crate::source::diag::{DumpError, Progress, Scope};
use crate::source::dumps::{Asked, Dumps};
use crate::sys::output::Patient;
use crate::wire::bytecode::Condition;

/// How often one dump is tried before the whole fails.
const TRIES: u32 = 3;
/// How soon a dump that has nothing to say is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What becomes of rows that pass.
pub(super) enum Taker {
    /// They are printed as they are read. Those of a dump that fails in the middle
    /// have been there as well.
    Print(Box<Printing<Patient>>),
    /// They are kept: something is to be found out of them first.
    Keep(Rows, Patient),
}

/// Reads all dumps.
pub(super) struct Reading<'a> {
    scope: Scope,
    /// The namespaces that come after this one.
    pub elsewhere: Option<Elsewhere>,
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
    pub taker: Taker,
    /// What of the datagram under way can pass.
    kept: Vec<Kept>,
    /// The number of the dump under way.
    number: u32,
}

impl<'a> Reading<'a> {
    pub fn new(
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
