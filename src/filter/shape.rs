//! All the tuples there can be, and what a glob says of them by protocol,
//! family and state alone.
//!
//! Most sockets are decided by these three: `tcp * * * ESTABLISHED` says no to
//! every UDP socket and yes to every TCP connection, whatever the addresses. So
//! each glob is walked once, when it is compiled, over the tuples of every such
//! cell. The shape below holds a little more than real tuples (any digits and
//! dots make an address), which is safe: what holds for all of them holds for
//! the real ones.

use std::collections::HashSet;

use super::automaton::{Automaton, HOST, Spot, Verdict, Walk};
use crate::model::{Family, Proto, TcpState};

/// Spots a walk over all tuples of one protocol may visit. Usual globs need a
/// hundred; one that needs more is asked for every socket instead.
const SPOTS: usize = 1024;

const STATES: usize = TcpState::ALL.len();

/// A protocol, family and state: one bit of a [`Cells`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cell(u64);

impl Cell {
    /// The cell of a connect() to an address of this family.
    pub fn connect(family: Family) -> Cell {
        Cell(1 << (Proto::ALL.len() * Family::ALL.len() * STATES + family as usize))
    }

    /// The cell of these three.
    pub fn of(proto: Proto, family: Family, state: TcpState) -> Cell {
        let row = proto as usize * Family::ALL.len() + family as usize;
        Cell(1 << (row * STATES + (state as usize - 1)))
    }
}

/// What is certain by the cell alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cells {
    always: u64,
    never: u64,
}

impl Cells {
    /// Matches everything.
    pub const ALWAYS: Cells = Cells {
        always: u64::MAX,
        never: 0,
    };
    /// Matches nothing.
    pub const NEVER: Cells = Cells {
        always: 0,
        never: u64::MAX,
    };

    /// What is certain in this cell.
    pub fn verdict(self, Cell(bit): Cell) -> Verdict {
        if self.always & bit != 0 {
            Verdict::Always
        } else if self.never & bit != 0 {
            Verdict::Never
        } else {
            Verdict::Depends
        }
    }

    /// What is certain of several globs, of which one must match.
    pub fn any(globs: impl Iterator<Item = Cells>) -> Cells {
        globs.fold(Cells::NEVER, |all, one| Cells {
            always: all.always | one.always,
            never: all.never & one.never,
        })
    }

    /// What is certain if `ignore` must not match.
    pub fn but_not(self, ignore: Cells) -> Cells {
        Cells {
            always: self.always & ignore.never,
            never: self.never | ignore.always,
        }
    }

    /// Whether a socket that can exist could match.
    pub fn is_possible(self) -> bool {
        Proto::ALL
            .into_iter()
            .any(|proto| self.possible(proto).next().is_some())
    }

    /// The states in which a socket of this protocol could match.
    pub fn possible(self, proto: Proto) -> impl Iterator<Item = TcpState> {
        states(proto).filter(move |&state| {
            Family::ALL
                .into_iter()
                .any(|family| self.verdict(Cell::of(proto, family, state)) != Verdict::Never)
        })
    }

    fn set(&mut self, Cell(bit): Cell, verdict: Verdict) {
        match verdict {
            Verdict::Always => self.always |= bit,
            Verdict::Never => self.never |= bit,
            Verdict::Depends => {}
        }
    }

    /// Whether a connect() could match.
    pub fn is_possible_connect(self) -> bool {
        Family::ALL
            .into_iter()
            .any(|family| self.verdict(Cell::connect(family)) != Verdict::Never)
    }

    /// Walks a glob over everything that a subject has tuples of; what it has
    /// none of never matches.
    pub fn of(automaton: &Automaton, subject: Subject) -> Cells {
        let mut cells = Cells {
            always: 0,
            never: match subject {
                Subject::Sockets => CONNECTS,
                Subject::Connects => !CONNECTS,
            },
        };
        for (proto, digit, families) in spellings(automaton, subject) {
            for (last, verdict) in verdicts(automaton, subject, proto, digit) {
                for &family in families {
                    let cell = match last {
                        Last::State(state) => Cell::of(proto, family, state),
                        Last::Connect => Cell::connect(family),
                    };
                    cells.set(cell, verdict);
                }
            }
        }
        cells
    }
}

/// What tuples there are to match.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Subject {
    /// Those of sockets: `<proto> <local> <remote> <remote-host> <state>`.
    Sockets,
    /// Those of connect() calls: `tcp - <remote> <result> CONNECT`.
    Connects,
}

/// The last word of a connect()'s tuple.
pub(super) const CONNECT: &str = "CONNECT";

/// The local end of a connect()'s tuple: the kernel has not chosen one yet.
pub(super) const NO_LOCAL: &str = "-";

/// The cells of connect() calls.
const CONNECTS: u64 = 0b11 << (Proto::ALL.len() * Family::ALL.len() * STATES);

/// What a last word stands for.
#[derive(Clone, Copy)]
enum Last {
    State(TcpState),
    Connect,
}

impl Subject {
    /// The last words that tuples of this protocol can have.
    fn lasts(self, proto: Proto) -> impl Iterator<Item = (Last, &'static str)> {
        let sockets = self == Subject::Sockets;
        let states = states(proto).filter(move |_| sockets);
        let states = states.map(move |state| (Last::State(state), state.as_str(proto)));
        states.chain((!sockets).then_some((Last::Connect, CONNECT)))
    }
}

/// The states a socket of this protocol can be in.
pub(super) fn states(proto: Proto) -> impl Iterator<Item = TcpState> {
    TcpState::ALL.into_iter().filter(move |state| match proto {
        Proto::Tcp => true,
        Proto::Udp => matches!(state, TcpState::Established | TcpState::Close),
    })
}

/// The first words to try, each with the families it stands for.
pub(super) fn spellings(
    automaton: &Automaton,
    subject: Subject,
) -> Vec<(Proto, &'static str, &'static [Family])> {
    let each: &[(&str, &[Family])] = if automaton.is_narrow() {
        &[("4", &[Family::V4]), ("6", &[Family::V6])]
    } else {
        &[("", &[Family::V4, Family::V6])]
    };
    Proto::ALL
        .into_iter()
        .filter(|proto| subject == Subject::Sockets || *proto == Proto::Tcp)
        .flat_map(|proto| {
            each.iter()
                .map(move |&(digit, families)| (proto, digit, families))
        })
        .collect()
}

/// What a glob says of each last word, whatever else the tuple holds.
fn verdicts(
    automaton: &Automaton,
    subject: Subject,
    proto: Proto,
    digit: &str,
) -> Vec<(Last, Verdict)> {
    let mut cache = automaton.dfa.create_cache();
    let mut walk = Walk::new(automaton, &mut cache);
    let Some(spots) = reach(&mut walk, automaton, subject, proto, digit, END) else {
        return Vec::new();
    };
    subject
        .lasts(proto)
        .map(|(last, word)| {
            let mut verdict = None;
            for &spot in &spots {
                let one = match walk.ends(spot, word) {
                    Some(matches) => Verdict::from(matches),
                    None => Verdict::Depends,
                };
                if *verdict.get_or_insert(one) != one {
                    return (last, Verdict::Depends);
                }
            }
            (last, verdict.unwrap_or(Verdict::Depends))
        })
        .collect()
}

/// Whether the host can decide if a glob matches. A walk that is too long counts
/// as yes.
pub(super) fn mentions_host(automaton: &Automaton, subject: Subject) -> bool {
    let mut buffer = Vec::new();
    spellings(automaton, subject)
        .into_iter()
        .any(|(proto, digit, _)| {
            let mut cache = automaton.dfa.create_cache();
            let mut walk = Walk::new(automaton, &mut cache);
            let Some(spots) = reach(&mut walk, automaton, subject, proto, digit, HOST_WORD) else {
                return true;
            };
            spots.iter().any(|&spot| {
                subject.lasts(proto).any(|(_, word)| {
                    !matches!(
                        walk.with_any_host(spot, word, &mut buffer),
                        Some(Verdict::Always | Verdict::Never)
                    )
                })
            })
        })
}

/// Whether the glob could match where the host is `-`. A walk that is too long
/// counts as yes.
pub(super) fn matches_unnamed(automaton: &Automaton, subject: Subject) -> bool {
    spellings(automaton, subject)
        .into_iter()
        .any(|(proto, digit, _)| {
            let mut cache = automaton.dfa.create_cache();
            let mut walk = Walk::new(automaton, &mut cache);
            let Some(spots) = reach(&mut walk, automaton, subject, proto, digit, HOST_WORD) else {
                return true;
            };
            spots.into_iter().any(|spot| {
                let Some(spot) = walk.feed(spot, "- ") else {
                    return true;
                };
                subject
                    .lasts(proto)
                    .any(|(_, word)| walk.ends(spot, word) != Some(false))
            })
        })
}

/// Whether a socket of this protocol can enter a view, by a glob among its
/// patterns or (`ignore`) among what it leaves out, through a change of state
/// that no counter of the kernel tells. For TCP the ways to LISTEN, SYN_SENT and
/// ESTABLISHED are counted, so every other state must pass no more than
/// ESTABLISHED does; for UDP no change is counted, so both states must pass the
/// same. A walk that is too long counts as yes.
pub(super) fn names_uncounted(automaton: &Automaton, proto: Proto, ignore: bool) -> bool {
    let counted = |state: &TcpState| {
        matches!(
            state,
            TcpState::Established | TcpState::Listen | TcpState::SynSent
        )
    };
    let spelt = spellings(automaton, Subject::Sockets).into_iter();
    spelt.filter(|(of, ..)| *of == proto).any(|(_, digit, _)| {
        let mut cache = automaton.dfa.create_cache();
        let mut walk = Walk::new(automaton, &mut cache);
        let Some(spots) = reach(&mut walk, automaton, Subject::Sockets, proto, digit, END) else {
            return true;
        };
        let mut passes =
            |spot, state: TcpState| Some(walk.ends(spot, state.as_str(proto))? != ignore);
        spots.into_iter().any(|spot| {
            let established = passes(spot, TcpState::Established);
            states(proto).any(|state| match (proto, passes(spot, state), established) {
                (_, None, _) | (_, _, None) => true,
                (Proto::Udp, one, other) => one != other,
                (Proto::Tcp, Some(passes), Some(before)) => passes && !before && !counted(&state),
            })
        })
    })
}

/// The stages of a tuple's shape after the protocol: seven of the local end, seven
/// of the remote end, then the host.
pub(super) const ENDPOINT: u8 = 7;
pub(super) const HOST_WORD: u8 = 2 * ENDPOINT;
pub(super) const END: u8 = HOST_WORD + 2;

/// Everything that `next` takes somewhere.
pub(super) const ALPHABET: &[u8] = b" []:abcdefghijklmnopqrstuvwxyz0123456789._-\\";

/// The stage after this byte, where the shape allows it.
pub(super) fn next(stage: u8, byte: u8) -> Option<u8> {
    if stage >= HOST_WORD {
        return match byte {
            b' ' if stage > HOST_WORD => Some(END),
            _ if HOST.contains(&byte) => Some(HOST_WORD + 1),
            _ => None,
        };
    }
    let word = stage - stage % ENDPOINT;
    let v4 = matches!(byte, b'0'..=b'9' | b'.');
    let v6 = matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b':' | b'.');
    let inner = match stage % ENDPOINT {
        0 if byte == b'[' => 1,
        0 | 2 if v4 => 2,
        1 | 3 if v6 => 3,
        3 if byte == b']' => 4,
        2 | 4 if byte == b':' => 5,
        5 | 6 if byte.is_ascii_digit() => 6,
        6 if byte == b' ' => ENDPOINT,
        _ => return None,
    };
    Some(word + inner)
}

/// The spots that tuples of this protocol reach at a stage. None if the walk is
/// too long.
fn reach(
    walk: &mut Walk<'_>,
    automaton: &Automaton,
    subject: Subject,
    proto: Proto,
    digit: &str,
    until: u8,
) -> Option<Vec<Spot>> {
    let begin = walk.begin(proto.as_str(), digit)?;
    let begin = walk.feed(begin, " ")?;
    let begin = match subject {
        Subject::Sockets => (begin, 0),
        Subject::Connects => {
            let local = walk.feed(begin, NO_LOCAL)?;
            (walk.feed(local, " ")?, ENDPOINT)
        }
    };
    let mut seen = HashSet::from([begin]);
    let mut queue = vec![begin];
    let mut reached = Vec::new();
    while let Some((spot, stage)) = queue.pop() {
        if stage == until {
            reached.push(spot);
            continue;
        }
        let mut tried = HashSet::new();
        for &byte in ALPHABET {
            let Some(stage) = next(stage, byte) else {
                continue;
            };
            if !tried.insert((automaton.dfa.byte_classes().get(byte), stage)) {
                continue;
            }
            let spot = walk.step(spot, byte)?;
            if seen.insert((spot, stage)) {
                if seen.len() > SPOTS {
                    return None;
                }
                queue.push((spot, stage));
            }
        }
    }
    Some(reached)
}
