//! What a socket's absence from a dump is worth.
//!
//! While the notices of a family and protocol come in full, nothing: the notice
//! will tell, and a dump can miss a live row. Absence is looked at where notices
//! cannot be had (blind), after an overrun until everything that may have ended
//! unheard is accounted for (a gap), and for minisockets, which send no notice.
//!
//! A connected TCP socket that is missing becomes a suspect, for the exact query
//! to convict. For listeners, bound sockets and UDP that query lies, so they
//! must be missing from two completed dumps, the second begun after the first
//! ended.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::model::{
    Coverage, Family, Needs, Proto, RowKind, SockId, SocketKey, StateGroups, TcpState,
};

/// What is known of one family and protocol.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unit {
    /// The state groups whose first dump has completed.
    pub primed: StateGroups,
    /// When completed dumps of each state group began.
    dumps: [LastDumps; 4],
    /// There are no notices to be had.
    pub blind: bool,
    phase: Phase,
}

/// When dumps began that a socket was not in: a notice comes a moment after the
/// end that it tells of, and a dump that began in that moment says nothing of the
/// socket's life.
#[derive(Clone, Copy, Debug, Default)]
struct LastDumps {
    latest: Option<Instant>,
    /// One that began at least [`LATE`] before the latest.
    older: Option<Instant>,
}

/// How late a notice may be: the kernel writes it in a work queue.
const LATE: Duration = Duration::from_millis(100);

impl LastDumps {
    fn completed(&mut self, began: Instant) {
        let apart = |latest: Instant| began.saturating_duration_since(latest) >= LATE;
        if self.latest.is_none_or(apart) {
            self.older = self.latest;
            self.latest = Some(began);
        }
    }

    /// The last one that began before the end that is noticed now; just after the
    /// start there is only one to choose from.
    fn before(&self, now: Instant) -> Option<Instant> {
        let past = |began: &Instant| now.saturating_duration_since(*began) >= LATE;
        self.latest.filter(past).or(self.older).or(self.latest)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
enum Phase {
    /// Must be dumped once more since the overrun.
    First,
    /// Something that must be missing twice was missing once.
    Second,
    /// Nothing that could have ended unheard is left.
    #[default]
    Settled,
}

/// A socket that may have ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Suspect {
    /// Which.
    pub key: SocketKey,
    /// In full or mini.
    pub kind: RowKind,
    /// What to ask for.
    pub id: SockId,
}

/// The state of all absences in one namespace.
#[derive(Debug, Default)]
pub(super) struct Absence {
    units: [[Unit; 2]; 2],
    gap: Option<Gap>,
    suspects: VecDeque<Suspect>,
    full_suspects: usize,
}

#[derive(Debug)]
struct Gap {
    began: Instant,
    /// Dumps up to this number began before the last overrun.
    after: u32,
    recovered: u64,
    /// Notices were dropped, and a record will say so. Otherwise notices came
    /// late, and only what ended meanwhile is to be found.
    overrun: bool,
}

/// What a missing socket's absence means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Missing {
    /// Nothing.
    Ignored,
    /// Ask about it.
    Suspect,
    /// Note it; a second absence will end it.
    Once,
    /// It was missing before: it has ended.
    Ended,
}

impl Absence {
    /// The unit of a family and protocol.
    pub fn unit(&self, proto: Proto, family: Family) -> &Unit {
        &self.units[proto as usize][family as usize]
    }

    /// There are no notices of this family and protocol: absences count always,
    /// and a gap need not wait for it.
    pub fn blind(&mut self, proto: Proto, family: Family) {
        let unit = self.unit_mut(proto, family);
        unit.blind = true;
        unit.phase = Phase::Settled;
    }

    /// The notices come after all: what ended while it was blind, and was not
    /// missing often enough yet, is found as after an overrun.
    pub fn sees(&mut self, proto: Proto, family: Family, newest_dump: u32, now: Instant) {
        let unit = self.unit_mut(proto, family);
        unit.blind = false;
        unit.phase = Phase::First;
        self.open_gap(newest_dump, now);
    }

    /// Sockets from before a restart are in the table: which of them ended in
    /// between is found as after an overrun.
    pub fn resume(&mut self, needs: Needs, newest_dump: u32, now: Instant) {
        self.overrun(needs, newest_dump, now);
        self.open_gap(newest_dump, now).overrun = false;
    }

    /// Nobody asks for these any more: what is read of them later is read for the
    /// first time.
    pub fn forget(&mut self, needs: Needs) {
        for proto in Proto::ALL {
            for unit in &mut self.units[proto as usize] {
                let kept = match proto {
                    Proto::Tcp => needs.tcp,
                    Proto::Udp if needs.udp => StateGroups::ALL,
                    Proto::Udp => StateGroups::NONE,
                };
                unit.primed = unit.primed & kept;
                if kept.is_empty() {
                    unit.phase = Phase::Settled;
                }
            }
        }
    }

    /// What is read of this protocol from now on is read for the first time.
    pub fn unread(&mut self, proto: Proto) {
        for unit in &mut self.units[proto as usize] {
            unit.primed = StateGroups::NONE;
        }
    }

    fn open_gap(&mut self, newest_dump: u32, now: Instant) -> &mut Gap {
        let gap = self.gap.get_or_insert(Gap {
            began: now,
            after: 0,
            recovered: 0,
            overrun: false,
        });
        gap.after = newest_dump;
        gap
    }

    fn unit_mut(&mut self, proto: Proto, family: Family) -> &mut Unit {
        &mut self.units[proto as usize][family as usize]
    }

    fn covered(&mut self, coverage: Coverage) -> impl Iterator<Item = &mut Unit> {
        Family::ALL
            .into_iter()
            .zip(self.units[coverage.proto as usize].iter_mut())
            .filter(move |(family, _)| coverage.family.is_none_or(|only| only == *family))
            .map(|(_, unit)| unit)
    }

    /// Notices were lost: from now on, absences count until every unit that
    /// sensors need has been dumped again.
    pub fn overrun(&mut self, needs: Needs, newest_dump: u32, now: Instant) {
        self.open_gap(newest_dump, now).overrun = true;
        for proto in Proto::ALL {
            for unit in &mut self.units[proto as usize] {
                if needs.proto(proto) && !unit.blind {
                    unit.phase = Phase::First;
                }
            }
        }
    }

    /// The dumps that a gap still needs.
    pub fn wants(&self, needs: Needs) -> Option<Needs> {
        self.gap.as_ref()?;
        let open = |proto: Proto| {
            self.units[proto as usize]
                .iter()
                .any(|unit| unit.phase != Phase::Settled)
        };
        let wanted = Needs {
            tcp: if open(Proto::Tcp) {
                needs.tcp.for_absence()
            } else {
                StateGroups::NONE
            },
            udp: needs.udp && open(Proto::Udp),
        };
        (wanted != Needs::default()).then_some(wanted)
    }

    /// Whether absences from this dump have to be looked at.
    pub fn matter(&mut self, coverage: Coverage, needs: Needs, number: u32) -> bool {
        let counts = self.counts_for_gap(coverage, needs, number);
        self.covered(coverage)
            .any(|unit| unit.blind || (counts && unit.phase != Phase::Settled))
    }

    /// A gap is settled only by dumps that began after the last overrun and
    /// cover everything that sensors need of the protocol.
    fn counts_for_gap(&self, coverage: Coverage, needs: Needs, number: u32) -> bool {
        let tcp = needs.tcp.for_absence();
        let all = coverage.proto == Proto::Udp || coverage.groups.contains(tcp);
        all && self.gap.as_ref().is_some_and(|gap| number > gap.after)
    }

    /// What it means that this socket was not in a completed dump. `unaskable`:
    /// the exact query about it has failed.
    pub fn missing(
        &self,
        id: &SockId,
        state: TcpState,
        missed_before: bool,
        unaskable: bool,
    ) -> Missing {
        let unit = self.unit(id.proto, id.family);
        if !unit.blind && unit.phase == Phase::Settled {
            Missing::Ignored
        } else if id.proto == Proto::Tcp && state.is_connected() && !unaskable {
            Missing::Suspect
        } else if missed_before {
            Missing::Ended
        } else if unit.blind || unit.phase == Phase::First {
            Missing::Once
        } else {
            // Missing from the second dump alone: it ended after the gap, and
            // its notice is on its way.
            Missing::Ignored
        }
    }

    /// A dump completed: notes what is primed and since when, and moves a gap
    /// on. `once` tells for each family whether something was missing once.
    pub fn completed(
        &mut self,
        coverage: Coverage,
        needs: Needs,
        number: u32,
        began: Instant,
        once: [bool; 2],
    ) {
        let counts = self.counts_for_gap(coverage, needs, number);
        for family in Family::ALL {
            if coverage.family.is_some_and(|only| only != family) {
                continue;
            }
            let unit = self.unit_mut(coverage.proto, family);
            unit.primed = unit.primed | coverage.groups;
            for (group, dumps) in StateGroups::EACH.into_iter().zip(&mut unit.dumps) {
                if coverage.groups.contains(group) {
                    dumps.completed(began);
                }
            }
            if counts && unit.phase != Phase::Settled {
                unit.phase = match unit.phase {
                    Phase::First if once[family as usize] => Phase::Second,
                    _ => Phase::Settled,
                };
            }
        }
    }

    /// No connection was opened, and no UDP socket, until now: as good as a dump
    /// to tell when a socket cannot have been there. Bound and listening TCP
    /// sockets are another matter, as some of those move no counter.
    pub fn quiet(&mut self, spared: Needs, now: Instant) {
        for proto in Proto::ALL {
            let groups = match proto {
                Proto::Tcp => spared.tcp & StateGroups::CONNECTED,
                Proto::Udp if spared.udp => StateGroups::ALL,
                Proto::Udp => StateGroups::NONE,
            };
            for unit in &mut self.units[proto as usize] {
                for (group, dumps) in StateGroups::EACH.into_iter().zip(&mut unit.dumps) {
                    if groups.contains(group) {
                        dumps.completed(now);
                    }
                }
            }
        }
    }

    /// When the last completed dump began that would have held such a socket,
    /// had it been there, and that began before the end that is noticed now.
    pub fn last_dump(&self, id: &SockId, state: TcpState, now: Instant) -> Option<Instant> {
        let dumps = self.unit(id.proto, id.family).dumps;
        let mut each = StateGroups::EACH.into_iter().zip(dumps);
        let (_, dumps) = each.find(|(group, _)| *group == StateGroups::of(state))?;
        dumps.before(now)
    }

    /// Puts a socket on the list to be asked about.
    pub fn suspect(&mut self, suspect: Suspect) {
        if suspect.kind == RowKind::Full {
            self.full_suspects += 1;
        }
        self.suspects.push_back(suspect);
    }

    /// The next socket to ask about.
    pub fn next_suspect(&mut self) -> Option<Suspect> {
        let suspect = self.suspects.pop_front()?;
        if self.suspects.is_empty() {
            // There may have been as many as the table has sockets.
            self.suspects.shrink_to(16);
        }
        if suspect.kind == RowKind::Full {
            self.full_suspects -= 1;
        }
        Some(suspect)
    }

    /// Whether anything waits to be asked about.
    pub fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// The exact query failed: the socket has to be missing twice instead.
    pub fn unanswered(&mut self, id: &SockId) {
        if self.gap.is_some() {
            let unit = self.unit_mut(id.proto, id.family);
            if !unit.blind {
                unit.phase = Phase::Second;
            }
        }
    }

    /// An end in somebody's view was found that no notice had told of.
    pub fn recovered(&mut self) {
        if let Some(gap) = &mut self.gap {
            gap.recovered += 1;
        }
    }

    /// The gap, when everything in it is accounted for: when it began and how
    /// many ends were recovered.
    pub fn take_settled(&mut self) -> Option<(Instant, u64)> {
        let settled = self.full_suspects == 0
            && self
                .units
                .iter()
                .flatten()
                .all(|unit| unit.phase == Phase::Settled);
        if !settled {
            return None;
        }
        self.take_gap()
    }

    /// Ends the gap, settled or not. What is to be told of it, where notices were
    /// dropped.
    pub fn take_gap(&mut self) -> Option<(Instant, u64)> {
        let gap = self.gap.take()?;
        gap.overrun.then_some((gap.began, gap.recovered))
    }

    /// Whether there is one.
    pub fn has_gap(&self) -> bool {
        self.gap.is_some()
    }
}
