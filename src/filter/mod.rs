//! Which sockets a sensor wants: globs over the tuple
//! `<proto> <local> <remote> <remote-host> <state>`.
//!
//! The filter runs for every new socket, before and after its reverse name is
//! known. It promises
//! * an answer that is certain before the name is known, or the admission that
//!   it is not: a look-up is asked for only if it can change the outcome;
//! * an error, never silence, for a pattern that can match nothing;
//! * never to ask the kernel for less than what could match.
//!
//! All three rest on the pattern's own automaton instead of a second reading of
//! its text: `automaton` runs it, `shape` walks it over all tuples there can
//! be, `syntax` turns the glob into it, `check` explains what is wrong.

mod automaton;
mod check;
mod ends;
mod globs;
mod ids;
mod literals;
mod matcher;
mod nfa;
#[cfg(test)]
mod properties;
mod shape;
mod syntax;
#[cfg(test)]
mod tests;

pub use globs::Globs;
pub use ids::IdGlob;
pub use matcher::{About, Matcher as Glob};
pub use shape::Subject;
pub use syntax::GlobError;

use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;

use crate::model::{
    Endpoint, Ends, Family, Name, Needs, Proto, SockId, Sought, StateGroups, TcpState,
};
use automaton::{Spot, Tuple, Verdict};
use matcher::Matcher;
use shape::{CONNECT, Cell, Cells, NO_LOCAL};

/// What a filter says of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    /// A pattern matches and no ignore does.
    Pass,
    /// No pattern matches, or an ignore does.
    Drop,
    /// It depends on the reverse name.
    NeedsHost,
}

/// The compiled `patterns` and `ignore` of one sensor.
#[derive(Debug)]
pub struct Filter {
    patterns: Vec<Rc<Matcher>>,
    ignore: Vec<Rc<Matcher>>,
    /// Without patterns everything matches.
    all: bool,
    /// Protocol, family and state alone decide these; no text is written.
    certain: Cells,
    scratch: RefCell<Scratch>,
}

/// Buffers kept between calls.
#[derive(Default, Debug)]
struct Scratch {
    ends: String,
    spots: Vec<Spot>,
}

impl Filter {
    /// Compiles both lists; without patterns everything matches. Each glob is
    /// held to the rules of [`Globs::compile`].
    pub fn new(patterns: &[String], ignore: &[String]) -> Result<Filter, GlobError> {
        Globs::new().filter(patterns, ignore, Subject::Sockets)
    }

    /// Judges a connect() by its tuples, one for each name that was resolved to
    /// its destination, or the one with `-` where there is none. It passes when
    /// one of them does: when it matches a pattern, and no ignore. So an ignored
    /// name hides a destination only from those who know it by no other name: an
    /// address may be shared by many names, and whoever answers for one of them
    /// must not be able to hide the others.
    ///
    /// The filter must be one of [`Subject::Connects`].
    pub fn passes(&self, remote: &Endpoint, shown: Family, names: &[Name]) -> bool {
        let cell = Cell::connect(shown);
        match self.certain.verdict(cell) {
            Verdict::Always => return true,
            Verdict::Never => return false,
            Verdict::Depends => {}
        }
        let mut scratch = self.scratch.borrow_mut();
        let Scratch { ends, spots } = &mut *scratch;
        ends.clear();
        write!(ends, " {NO_LOCAL} {remote} ").expect("a String takes any text");
        let tuple = Tuple {
            proto: Proto::Tcp.as_str(),
            digit: digit(shown),
            ends,
            state: CONNECT,
        };
        let mut passes = |host: &str| self.weigh(cell, &tuple, Some(host), spots) == Answer::Pass;
        if names.is_empty() {
            return passes("-");
        }
        names.iter().any(|name| passes(name.as_str()))
    }

    /// Judges a socket. `host` is its reverse name as [`crate::model::Name`]
    /// holds it, or `-`, where that is final; `None` while it could still be
    /// looked up. Only then can the answer be [`Answer::NeedsHost`], and each
    /// glob by itself says so only if some hosts make it match and some do not.
    ///
    /// Of several globs the verdicts are combined, not the automata: two that
    /// match whatever the host is only between them (`* a* *` and `* [!a]* *`)
    /// ask for the name once too often, which costs a look-up and never a wrong
    /// answer.
    pub fn judge(&self, id: &SockId, state: TcpState, host: Option<&str>) -> Answer {
        let cell = Cell::of(id.proto, id.shown_family(), state);
        match self.certain.verdict(cell) {
            Verdict::Always => return Answer::Pass,
            Verdict::Never => return Answer::Drop,
            Verdict::Depends => {}
        }
        let mut scratch = self.scratch.borrow_mut();
        let Scratch { ends, spots } = &mut *scratch;
        ends.clear();
        write!(ends, " {} {} ", id.local, id.remote).expect("a String takes any text");
        let tuple = Tuple {
            proto: id.proto.as_str(),
            digit: digit(id.shown_family()),
            ends,
            state: state.as_str(id.proto),
        };
        self.weigh(cell, &tuple, host, spots)
    }

    /// Holds a tuple that the cell alone does not decide against every glob.
    fn weigh(
        &self,
        cell: Cell,
        tuple: &Tuple<'_>,
        host: Option<&str>,
        spots: &mut Vec<Spot>,
    ) -> Answer {
        let mut any = |globs: &[Rc<Matcher>]| {
            let mut all = Verdict::Never;
            for glob in globs {
                match glob.verdict(cell, tuple, host, spots) {
                    Verdict::Always => return Verdict::Always,
                    Verdict::Depends => all = Verdict::Depends,
                    Verdict::Never => {}
                }
            }
            all
        };
        let wanted = if self.all {
            Verdict::Always
        } else {
            any(&self.patterns)
        };
        if wanted == Verdict::Never {
            return Answer::Drop;
        }
        match (wanted, any(&self.ignore)) {
            (_, Verdict::Always) => Answer::Drop,
            (Verdict::Always, Verdict::Never) => Answer::Pass,
            _ => Answer::NeedsHost,
        }
    }

    /// What could open something. A state group is asked for if one of its
    /// states could pass; that covers the rows which are matched as ESTABLISHED
    /// first, for those are in its group. TIME_WAIT only where it is watched.
    pub fn needs(&self) -> Needs {
        self.needed(|state| state != TcpState::TimeWait || self.watches(state))
    }

    /// What could match at all, where TIME_WAIT is a state like any other: in a
    /// table that is printed once.
    pub fn needs_in_dump(&self) -> Needs {
        self.needed(|_| true)
    }

    fn needed(&self, counts: impl Fn(TcpState) -> bool) -> Needs {
        let tcp = self
            .certain
            .possible(Proto::Tcp)
            .filter(|&state| counts(state))
            .fold(StateGroups::NONE, |groups, state| {
                groups | StateGroups::of(state)
            });
        Needs {
            tcp,
            udp: self.certain.possible(Proto::Udp).next().is_some(),
        }
    }

    /// What could open something, by literal ports and addresses. Of UDP that is
    /// everything: a UDP socket is connected anew at will, and what it was before
    /// tells a `rebound` from an opening. Of TCP it holds every socket without a
    /// peer, for the same reason, and since listeners tell which way a connection
    /// was opened.
    ///
    /// `ignore` counts only where patterns leave something out already: by itself it
    /// leaves most sockets in, which is not worth the ledger of TCP opens. And only
    /// as far as it holds for what tcp_disconnect() leaves of an end too: otherwise
    /// the notice of a socket that was ignored would be the first word of one that
    /// is not.
    pub fn sought(&self, proto: Proto) -> Sought {
        if proto == Proto::Udp {
            return Sought::ALL;
        }
        let groups = self.needs().tcp;
        if groups.is_empty() {
            return Sought::NONE;
        }
        let counts = |state| match state {
            // Without a peer.
            TcpState::Listen => false,
            TcpState::TimeWait => self.watches(state),
            _ => true,
        };
        let lasts = |ends: &Ends| ends.local.ip.is_none() && ends.remote.port.is_none();
        let sought = self.sought_in(proto, counts, lasts);
        if sought.accepted() == usize::MAX {
            return Sought::ALL;
        }
        let sought = sought.with_unconnected();
        // Where connections matter, so does what they were bound to before.
        if groups == StateGroups::LISTEN {
            return sought.without_bound();
        }
        sought
    }

    /// Whether a TCP socket that has never connected can pass, as a listener does:
    /// one that opens is not counted among the opens.
    pub fn can_pass_without_peer(&self) -> bool {
        let alone = literals::bit(TcpState::Listen) | literals::bit(TcpState::Close);
        self.all
            || self.patterns.iter().any(|glob| {
                let matches = glob.can_match(Proto::Tcp);
                matches.is_none_or(|matches| {
                    let mut matches = matches.iter();
                    // A port is never 0 here.
                    matches.any(|it| it.states & alone != 0 && it.ends.remote.port.is_none())
                })
            })
    }

    /// What could match at all, by literal ports and addresses: in a table that is
    /// printed once.
    pub fn sought_in_dump(&self, proto: Proto) -> Sought {
        self.sought_in(proto, |_| true, |_| true)
    }

    fn sought_in(
        &self,
        proto: Proto,
        counts: impl Fn(TcpState) -> bool,
        refuses: impl Fn(&Ends) -> bool,
    ) -> Sought {
        let states = shape::states(proto).filter(|&state| counts(state));
        let states = states.fold(0, |all, state| all | literals::bit(state));
        let matches = self.patterns.iter().map(|glob| glob.can_match(proto));
        let accept: Option<Vec<Ends>> = matches
            .map(|matches| {
                let each = matches?.into_iter().filter(|it| it.states & states != 0);
                Some(each.map(|it| it.ends).collect::<Vec<_>>())
            })
            .collect::<Option<Vec<_>>>()
            .map(|all| all.concat());
        let ignore = self.ignore.iter().flat_map(|glob| glob.must_match(proto));
        Sought::new(
            accept.filter(|_| !self.all),
            ignore.filter(refuses).collect(),
        )
    }

    /// Whether a socket of this protocol can enter by a change of state that no
    /// counter of the kernel tells: then every tick must dump.
    pub fn names_uncounted(&self, proto: Proto) -> bool {
        let named = |globs: &[Rc<Matcher>], ignore| {
            globs.iter().any(|glob| glob.names_uncounted(proto, ignore))
        };
        named(&self.patterns, false) || named(&self.ignore, true)
    }

    /// Whether minisockets in this state open something: a pattern's last word
    /// is literally SYN_RECV or TIME_WAIT. No for every other state.
    pub fn watches(&self, state: TcpState) -> bool {
        self.patterns.iter().any(|pattern| pattern.watches(state))
    }
}

/// What narrows the first word of a tuple to a family.
fn digit(shown: Family) -> &'static str {
    match shown {
        Family::V4 => "4",
        Family::V6 => "6",
    }
}
