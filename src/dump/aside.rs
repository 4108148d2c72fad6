//! Bound TCP sockets, read beside the others.
//!
//! To find sockets that are bound and no more, the kernel goes through all that have
//! a port, which takes it a quarter of the time that the connected ones take, and it
//! looks for those elsewhere. So where there are many, another thread asks for the
//! few.

use std::rc::Rc;
use std::thread::{self, JoinHandle};

use crate::model::{Coverage, Needs, Netns, Now, Proto, Row, StateGroups};
use crate::source::counters::Counters;
use crate::source::diag::{Progress, Scope};
use crate::stats::Stats;

/// From so many TCP sockets on it is worth a thread.
const MANY: u64 = 4096;

/// The thread, which ends with what it has read. Whatever is in its way, it gives
/// up: whoever asked for it asks for the same.
pub(super) struct Aside(JoinHandle<Option<Vec<Row>>>);

impl Aside {
    /// Takes over a part of what is needed, if that is worth it. The caller is in the
    /// namespace that is meant.
    pub fn take_over(needs: &mut Needs, netns: Netns) -> Option<Aside> {
        let few = StateGroups::BOUND;
        let others = needs.tcp.without(few);
        if others == needs.tcp || others.is_empty() {
            return None;
        }
        let counted = Counters::open().and_then(|mut counters| counters.read());
        if counted.map_or(0, |reading| reading.tcp_in_use) < MANY {
            return None;
        }
        let coverage = Coverage {
            proto: Proto::Tcp,
            family: None,
            groups: few,
        };
        let thread = thread::Builder::new()
            .spawn(move || read(coverage, netns))
            .inspect_err(|error| log::debug!("no thread that reads beside: {error}"))
            .ok()?;
        needs.tcp = others;
        Some(Aside(thread))
    }

    /// The rows; `None` if they are to be asked for again.
    pub fn rows(self) -> Option<Vec<Row>> {
        self.0
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// What it took over.
    pub fn needs() -> Needs {
        Needs {
            tcp: StateGroups::BOUND,
            udp: false,
        }
    }
}

fn read(coverage: Coverage, netns: Netns) -> Option<Vec<Row>> {
    let give_up = |why: &dyn std::fmt::Display| log::debug!("nothing is read beside: {why}");
    let mut scope = Scope::open(netns, Rc::new(Stats::default()))
        .inspect_err(|error| give_up(error))
        .ok()?;
    let mut rows = Vec::new();
    scope
        .begin(coverage, Now::read())
        .inspect_err(|error| give_up(error))
        .ok()?;
    loop {
        match scope.read(Now::read(), &mut |row| rows.push(row)) {
            Progress::More => {}
            Progress::Done(_) => return Some(rows),
            // A dump is written while it is read.
            Progress::Waiting => {
                give_up(&"the kernel takes its time");
                return None;
            }
            Progress::Failed(_, error) => {
                give_up(&error);
                return None;
            }
        }
    }
}
