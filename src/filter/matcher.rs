//! One compiled glob with all that is known of it beforehand.

use std::cell::OnceCell;

use super::automaton::{Automaton, Spot, Tuple, Verdict};
use super::literals::{self, Match};
use super::shape::{self, Cell, Cells, Subject};
use super::syntax::{GlobError, Pattern};
use crate::model::{Ends, Family, Proto, TcpState};
use globset::GlobBuilder;

/// A compiled glob.
#[derive(Debug)]
pub struct Matcher {
    automaton: Automaton,
    subject: Subject,
    /// The glob, for the literals in it.
    text: Box<str>,
    /// What protocol, family and state decide alone.
    pub(super) cells: Cells,
    /// The state that is literally its last word, after a literal space.
    ends_in: Option<TcpState>,
    mentions_host: OnceCell<bool>,
    needs_name: OnceCell<bool>,
    /// How many words it has.
    words: usize,
}

/// How much a glob is about a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum About {
    /// It matches no socket in it, or sockets in most states.
    Others,
    /// It matches it and not many others: it must be meant.
    Also,
    /// It matches nothing else.
    Only,
}

/// How many words a tuple has.
pub(super) const WORDS: usize = 5;

/// The first words a tuple can have.
pub(super) const FIRST: [&str; 6] = ["tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"];

impl Matcher {
    /// Compiles a glob as it was read; it may turn out that it matches nothing.
    pub(super) fn new(pattern: &Pattern, subject: Subject) -> Result<Matcher, GlobError> {
        let glob = GlobBuilder::new(&pattern.glob)
            .literal_separator(false)
            .backslash_escape(true)
            // As in a shell: `tcp{,4}` is `tcp` or `tcp4`. globset would drop
            // the empty one, and the pattern would silently match less.
            .empty_alternates(true)
            .build()
            .map_err(|error| GlobError::at(0, error.kind().to_string()))?;
        let mut automaton =
            Automaton::new(glob.regex()).map_err(|error| GlobError::at(0, error.to_string()))?;
        if !implied(&pattern.glob)
            && FIRST
                .iter()
                .filter(|word| word.ends_with(['4', '6']))
                .any(|word| automaton.can_begin(&format!("{word} ")))
        {
            automaton.try_narrow();
        }
        let last = match pattern.words.as_slice() {
            [_, .., last] => last.literal.as_deref(),
            _ => None,
        };
        let ends_in = last.and_then(|word| {
            TcpState::ALL
                .into_iter()
                .find(|state| state.as_str(Proto::Tcp) == word)
        });
        Ok(Matcher {
            cells: Cells::of(&automaton, subject),
            automaton,
            subject,
            text: pattern.glob.as_str().into(),
            ends_in,
            mentions_host: OnceCell::new(),
            needs_name: OnceCell::new(),
            words: pattern.words.len(),
        })
    }

    /// Whether it matches this tuple, in this cell, with this host or with any.
    pub(super) fn verdict(
        &self,
        cell: Cell,
        tuple: &Tuple<'_>,
        host: Option<&str>,
        spots: &mut Vec<Spot>,
    ) -> Verdict {
        match (self.cells.verdict(cell), host) {
            (Verdict::Depends, Some(host)) => self.automaton.matches(tuple, host).into(),
            (Verdict::Depends, None) => self.automaton.with_any_host(tuple, spots),
            (certain, _) => certain,
        }
    }

    /// Whether the host can decide. Walks the automaton, once.
    pub fn mentions_host(&self) -> bool {
        *self
            .mentions_host
            .get_or_init(|| shape::mentions_host(&self.automaton, self.subject))
    }

    /// Whether the host can decide although no word is the host's: with fewer
    /// than five words `*` stands for several, and a name that looks like an
    /// address is taken for one. Five words are one each.
    pub fn strays_into_host(&self) -> bool {
        self.words < WORDS && self.mentions_host()
    }

    /// Whether it matches some hosts and never `-`, so that it matches nothing
    /// where names are not looked up. Walks the automaton, once.
    pub fn needs_name(&self) -> bool {
        *self.needs_name.get_or_init(|| {
            self.mentions_host() && !shape::matches_unnamed(&self.automaton, self.subject)
        })
    }

    /// Whether a socket of this protocol can enter a view by it, a pattern or an
    /// `ignore`, without a counter telling. Walks the automaton.
    pub(super) fn names_uncounted(&self, proto: Proto, ignore: bool) -> bool {
        let certain = |family| {
            let mut verdicts = shape::states(proto)
                .map(|state| self.cells.verdict(Cell::of(proto, family, state)));
            let first = verdicts.next();
            first != Some(Verdict::Depends) && verdicts.all(|verdict| Some(verdict) == first)
        };
        // Most globs are one answer for a whole protocol.
        !Family::ALL.into_iter().all(certain)
            && shape::names_uncounted(&self.automaton, proto, ignore)
    }

    /// What it can match of a protocol, by the ports and addresses that it insists
    /// on. None where that is too much to find out. Walks the automaton.
    pub(super) fn can_match(&self, proto: Proto) -> Option<Vec<Match>> {
        literals::matches(&self.automaton, &self.text, proto, false)
    }

    /// The ends with which it matches every socket of a protocol. Walks the
    /// automaton.
    pub(super) fn must_match(&self, proto: Proto) -> Vec<Ends> {
        let all = literals::matches(&self.automaton, &self.text, proto, true).unwrap_or_default();
        let is_certain = |ends: &Ends| {
            let mut within = all.iter().filter(|one| ends.contain(&one.ends));
            within.all(|one| one.always)
        };
        all.iter().map(|one| one.ends).filter(is_certain).collect()
    }

    /// Whether, as a pattern, it has minisockets in this state open something:
    /// its last word is literally SYN_RECV or TIME_WAIT. No for other states.
    pub fn watches(&self, state: TcpState) -> bool {
        matches!(state, TcpState::SynRecv | TcpState::TimeWait) && self.ends_in == Some(state)
    }

    /// How much it is about this state, of TCP.
    pub fn about(&self, state: TcpState) -> About {
        let tcp: Vec<TcpState> = self.cells.possible(Proto::Tcp).collect();
        if !tcp.contains(&state) || tcp.len() > TcpState::ALL.len() / 2 {
            About::Others
        } else if tcp.len() > 1 || self.cells.possible(Proto::Udp).next().is_some() {
            About::Also
        } else {
            About::Only
        }
    }

    /// Whether the first word can be this one.
    pub(super) fn can_begin(&self, word: &str) -> bool {
        self.automaton.can_begin(&format!("{word} "))
    }
}

/// Whether `tcp4 …` can match only if `tcp …` does: stars, then nothing, or a
/// character that no first word holds. What the stars leave over begins behind
/// the first word, and there both spellings are the same.
fn implied(glob: &str) -> bool {
    let rest = glob.trim_start_matches('*');
    if rest.len() == glob.len() {
        return false;
    }
    let mut chars = rest.chars();
    let (first, escaped) = match chars.next() {
        Some('\\') => (chars.next(), true),
        first => (first, false),
    };
    match first {
        // globset reads `**/` in a way of its own.
        Some('?' | '[' | '{' | '/') if !escaped => false,
        Some(c) => !"tcpud46".contains(c),
        None => true,
    }
}
