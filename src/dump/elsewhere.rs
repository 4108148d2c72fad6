//! The other network namespaces of a printed table. They are read one after the
//! other, so that one that ends meanwhile is kept for no longer than its own dump
//! takes.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use crate::enrich::cgroups::path;
use crate::log::Plain;
use crate::model::{Netns, SocketData};
use crate::source::diag::Scope;
use crate::source::netns::{Brought, Entered, Found, Job, Looked, MOST, Scout, Setup};
use crate::stats::Stats;

/// The namespaces that are still to be read, and the names of all.
pub(super) struct Elsewhere {
    scout: Scout,
    left: VecDeque<Found>,
    names: HashMap<Netns, Arc<str>>,
    stats: Rc<Stats>,
}

impl Elsewhere {
    /// Looks at what there is. Where no namespace can be entered that is said, and
    /// the table is that of our own.
    pub fn look() -> Option<Elsewhere> {
        match Elsewhere::begin() {
            Ok(elsewhere) => Some(elsewhere),
            Err(error) => {
                log::warn!(
                    "no other network namespaces: cannot enter them ({error}); these are the \
                     sockets of this one alone"
                );
                None
            }
        }
    }

    fn begin() -> io::Result<Elsewhere> {
        let setup = Setup {
            // Nobody waits for notices.
            ids: false,
            container: path::container_in,
        };
        // Answers are waited for.
        let scout = Scout::start(setup, Arc::new(|| ()))?;
        scout.ask(Job::Look {
            forget: Vec::new(),
            bounded: false,
            check: false,
        })?;
        let looked = match scout.wait()?.brought {
            Brought::Looked(looked) => looked,
            Brought::Lost(error) => return Err(error),
            Brought::Read(_) | Brought::Entered(..) => return Err(unasked()),
        };
        told(&looked);
        let named = looked.found.iter();
        let mut names: HashMap<_, _> = named
            .filter_map(|found| Some((found.netns, Arc::clone(found.name.as_ref()?))))
            .collect();
        if let (Some(Some(own)), Ok(netns)) = (&looked.own, crate::sys::netns()) {
            names.insert(Netns(netns), Arc::clone(own));
        }
        Ok(Elsewhere {
            scout,
            left: looked.found.into(),
            names,
            stats: Rc::new(Stats::default()),
        })
    }

    /// The next one, with its sockets open. One that has ended meanwhile is left
    /// out, and one that cannot be entered any more is told of.
    pub fn next(&mut self) -> Option<Scope> {
        loop {
            let found = self.left.pop_front()?;
            match self.enter(&found) {
                Ok(Entered { dump, query }) => {
                    let stats = Rc::clone(&self.stats);
                    return Some(Scope::of(found.netns, dump, query, stats));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => refused(found.netns, found.name.as_deref(), &error),
            }
        }
    }

    fn enter(&self, found: &Found) -> io::Result<Entered> {
        self.scout.ask(Job::Enter(found.number))?;
        match self.scout.wait()?.brought {
            Brought::Entered(number, entered) if number == found.number => entered,
            Brought::Lost(error) => Err(error),
            _ => Err(unasked()),
        }
    }

    /// Says of each row in which namespace it is.
    pub fn name(&self, rows: &mut [SocketData]) {
        for row in rows {
            row.netns_name = self.names.get(&row.netns).cloned();
        }
    }
}

fn unasked() -> io::Error {
    io::Error::other("an answer to something else")
}

fn told(looked: &Looked) {
    for one in &looked.refused {
        refused(one.netns, one.name.as_deref(), &one.error);
    }
    if looked.denied {
        log::warn!(
            "not every network namespace: some processes must not be looked into (that takes \
             CAP_SYS_PTRACE)"
        );
    }
    if looked.left_out > 0 {
        log::warn!(
            "{} network namespaces more than the {MOST} that are read are left out",
            looked.left_out
        );
    }
}

fn refused(netns: Netns, name: Option<&str>, error: &io::Error) {
    let name = name.map_or(String::new(), |name| format!(" ({})", Plain(name)));
    log::warn!(
        "network namespace {}{name} cannot be entered ({error}): its sockets are not here",
        netns.0
    );
}
