//! One glob as a lazy DFA, and the two questions put to it: does it match this
//! tuple, and does it match whatever the host is.
//!
//! Lazy, because a glob with many stars has exponentially many states of which
//! tuples visit a handful. The cache is bounded; what a walk over several states
//! cannot finish within its bounds it leaves open, it never guesses.

use std::cell::RefCell;

use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};

use super::nfa::{self, Uncompiled};
use crate::order::by_number;

/// The bytes a host word is made of: see [`crate::model::Name::escaped`]; `-`
/// alone stands for an unknown host.
pub(super) const HOST: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789._-\\";

/// States a walk over hosts may visit for one socket.
const HOST_SPOTS: usize = 128;

/// Bounds the states kept of one glob; usual ones take a twentieth of it.
const CACHE: usize = 256 << 10;

/// Bounds the compiled glob, of which there is one copy.
const NFA: usize = 512 << 10;

const NEVER_GIVES_UP: &str = "a lazy DFA without a minimum clear count never gives up";

/// Whether a glob matches, as far as what is known decides it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// In every case.
    Always,
    /// In no case.
    Never,
    /// In some, or that could not be found out.
    Depends,
}

impl From<bool> for Verdict {
    fn from(matches: bool) -> Verdict {
        if matches {
            Verdict::Always
        } else {
            Verdict::Never
        }
    }
}

/// The words of a tuple without its host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuple<'a> {
    /// `tcp` or `udp`.
    pub proto: &'static str,
    /// What narrows it: `4` or `6`.
    pub digit: &'static str,
    /// Both ends, with a space before, between and after.
    pub ends: &'a str,
    /// The state.
    pub state: &'static str,
}

/// Where in a glob the text so far has led, in both spellings of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Spot {
    plain: LazyStateID,
    /// None where the narrowed spelling cannot match, or only if the plain one does.
    narrow: Option<LazyStateID>,
}

impl Spot {
    /// Whether nothing that follows can match.
    pub fn is_dead(&self) -> bool {
        self.plain.is_dead() && self.narrow.is_none()
    }
}

/// A compiled glob.
#[derive(Debug)]
pub(super) struct Automaton {
    pub dfa: DFA,
    cache: RefCell<Cache>,
    /// One byte of [`HOST`] for each class of bytes the glob tells apart.
    host: Box<[u8]>,
    /// `tcp4` and its kind must be tried too.
    narrow: bool,
}

impl Automaton {
    /// Compiles the regular expression that globset made of a glob.
    pub fn new(regex: &str) -> Result<Automaton, Uncompiled> {
        let dfa = DFA::builder()
            .configure(
                DFA::config()
                    .match_kind(MatchKind::All)
                    .cache_capacity(CACHE)
                    .skip_cache_capacity_check(true),
            )
            .build_from_nfa(nfa::compile(regex, NFA)?)
            .expect("no word boundaries, and a cache that may always be as small as it can");
        let mut host: Vec<u8> = HOST.to_vec();
        by_number(&mut host, |byte| dfa.byte_classes().get(*byte).into());
        host.dedup_by_key(|byte| dfa.byte_classes().get(*byte));
        Ok(Automaton {
            cache: RefCell::new(dfa.create_cache()),
            host: host.into(),
            narrow: false,
            dfa,
        })
    }

    /// Has the narrowed spellings tried as well, from now on.
    pub fn try_narrow(&mut self) {
        self.narrow = true;
    }

    /// Whether the narrowed spellings are tried.
    pub fn is_narrow(&self) -> bool {
        self.narrow
    }

    /// Whether some text that begins so could match.
    pub fn can_begin(&self, prefix: &str) -> bool {
        let cache = &mut *self.cache.borrow_mut();
        !run(&self.dfa, cache, [prefix]).is_dead()
    }

    /// Whether a whole text matches.
    pub fn matches_text(&self, text: &str) -> bool {
        let cache = &mut *self.cache.borrow_mut();
        let at = run(&self.dfa, cache, [text]);
        self.dfa
            .next_eoi_state(cache, at)
            .expect(NEVER_GIVES_UP)
            .is_match()
    }

    /// Whether the tuple with this host matches.
    pub fn matches(&self, tuple: &Tuple<'_>, host: &str) -> bool {
        let Tuple {
            proto,
            digit,
            ends,
            state,
        } = *tuple;
        let cache = &mut *self.cache.borrow_mut();
        let mut spelled = |digit| {
            let at = run(&self.dfa, cache, [proto, digit, ends, host, " ", state]);
            self.dfa
                .next_eoi_state(cache, at)
                .expect(NEVER_GIVES_UP)
                .is_match()
        };
        spelled("") || self.narrow && spelled(digit)
    }

    /// Whether the tuple matches whatever its host is.
    pub fn with_any_host(&self, tuple: &Tuple<'_>, spots: &mut Vec<Spot>) -> Verdict {
        let cache = &mut *self.cache.borrow_mut();
        // A cache that was nearly full may be cleared on the way; once emptied,
        // it holds a walk of this length.
        for _ in 0..2 {
            let mut walk = Walk::new(self, cache);
            let verdict = walk
                .begin(tuple.proto, tuple.digit)
                .and_then(|spot| walk.feed(spot, tuple.ends))
                .and_then(|spot| walk.with_any_host(spot, tuple.state, spots));
            match verdict {
                Some(verdict) => return verdict,
                None if walk.was_cleared() => self.dfa.reset_cache(cache),
                None => break,
            }
        }
        Verdict::Depends
    }
}

/// Runs one spelling. It follows a single state, which the DFA keeps through a
/// clearing of its cache.
fn run<const N: usize>(dfa: &DFA, cache: &mut Cache, parts: [&str; N]) -> LazyStateID {
    let mut at = start_state(dfa, cache);
    for byte in parts.into_iter().flat_map(str::bytes) {
        if at.is_dead() {
            break;
        }
        at = dfa.next_state(cache, at, byte).expect(NEVER_GIVES_UP);
    }
    at
}

fn start_state(dfa: &DFA, cache: &mut Cache) -> LazyStateID {
    dfa.start_state(cache, &start::Config::new().anchored(Anchored::Yes))
        .expect("an anchored start with nothing before it is always to be had")
}

/// Steps through an automaton that hold several of its states at a time. A
/// clearing of the cache makes these worthless: every step then answers None.
pub(super) struct Walk<'a> {
    automaton: &'a Automaton,
    cache: &'a mut Cache,
    clears: usize,
}

impl<'a> Walk<'a> {
    /// A walk that uses this cache.
    pub fn new(automaton: &'a Automaton, cache: &'a mut Cache) -> Walk<'a> {
        Walk {
            automaton,
            clears: cache.clear_count(),
            cache,
        }
    }

    fn was_cleared(&self) -> bool {
        self.cache.clear_count() != self.clears
    }

    /// The spot after the first word.
    pub fn begin(&mut self, proto: &str, digit: &str) -> Option<Spot> {
        let start = start_state(&self.automaton.dfa, self.cache);
        let spot = Spot {
            plain: start,
            narrow: self.automaton.narrow.then_some(start),
        };
        let mut spot = self.feed(spot, proto)?;
        for byte in digit.bytes() {
            spot.narrow = self.step_narrow(spot.narrow, byte)?;
        }
        Some(spot)
    }

    /// The spot after this text.
    pub fn feed(&mut self, spot: Spot, text: &str) -> Option<Spot> {
        text.bytes()
            .try_fold(spot, |spot, byte| self.step(spot, byte))
    }

    /// The spot after this byte.
    pub fn step(&mut self, spot: Spot, byte: u8) -> Option<Spot> {
        Some(Spot {
            plain: self.step_one(spot.plain, byte)?,
            narrow: self.step_narrow(spot.narrow, byte)?,
        })
    }

    fn step_narrow(&mut self, at: Option<LazyStateID>, byte: u8) -> Option<Option<LazyStateID>> {
        let Some(at) = at else { return Some(None) };
        let next = self.step_one(at, byte)?;
        Some((!next.is_dead()).then_some(next))
    }

    fn step_one(&mut self, at: LazyStateID, byte: u8) -> Option<LazyStateID> {
        if self.was_cleared() {
            return None;
        }
        let dfa = &self.automaton.dfa;
        let next = dfa.next_state(self.cache, at, byte).expect(NEVER_GIVES_UP);
        (!self.was_cleared()).then_some(next)
    }

    /// Whether the glob matches if the last word is this one.
    pub fn ends(&mut self, spot: Spot, state: &str) -> Option<bool> {
        let spot = self.feed(spot, state)?;
        for at in [Some(spot.plain), spot.narrow].into_iter().flatten() {
            let dfa = &self.automaton.dfa;
            let end = dfa.next_eoi_state(self.cache, at).expect(NEVER_GIVES_UP);
            if self.was_cleared() {
                return None;
            }
            if end.is_match() {
                return Some(true);
            }
        }
        Some(false)
    }

    /// Whether the glob matches with every host, from where the host begins:
    /// breadth first over the spots that hosts can reach. None if there are too
    /// many.
    pub fn with_any_host(
        &mut self,
        spot: Spot,
        state: &str,
        spots: &mut Vec<Spot>,
    ) -> Option<Verdict> {
        if spot.is_dead() {
            return Some(Verdict::Never);
        }
        spots.clear();
        let mut verdict = None;
        let mut next = 0;
        let mut from = spot;
        loop {
            for at in 0..self.automaton.host.len() {
                let spot = self.step(from, self.automaton.host[at])?;
                if spots.contains(&spot) {
                    continue;
                }
                if spots.len() == HOST_SPOTS {
                    return None;
                }
                spots.push(spot);
                let end = self.feed(spot, " ")?;
                let matches = Verdict::from(self.ends(end, state)?);
                if *verdict.get_or_insert(matches) != matches {
                    return Some(Verdict::Depends);
                }
            }
            match spots.get(next) {
                Some(&spot) => from = spot,
                None => return verdict,
            }
            next += 1;
        }
    }
}
