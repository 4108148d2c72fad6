//! The dumps that wait for the dump socket, and how a failed one is retried.
//!
//! A tick's dumps were weighed against what dumps may cost before they were asked
//! for. Others wait in line until nothing is owed: those that reconcile, and
//! those that are tried again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::model::{Coverage, Family, Needs, Proto, StateGroups};

/// How soon a failed dump is tried again when somebody waits for it.
const RETRY: Duration = Duration::from_millis(200);

/// The line of dumps. One that failed waits a little at the end of the line, and
/// holds nobody up.
#[derive(Debug, Default)]
pub struct Dumps {
    line: VecDeque<Waiting>,
    /// The legacy request was refused: one v2 request for each family instead.
    by_family: bool,
    /// Nobody answers for TCP, UDP.
    missing: [bool; 2],
}

/// What speaks for a dump.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// It is due.
    Due,
    /// It is due, but for nothing but the time since the last one.
    Forced,
    /// Something was lost. It can wait until dumps are paid for.
    Lost,
}

/// A dump that somebody has asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// What it has to cover.
    pub coverage: Coverage,
    /// Nothing but the time since the last one speaks for it.
    pub forced: bool,
}

impl Asked {
    /// A dump of this that is due.
    pub fn due(coverage: Coverage) -> Asked {
        let forced = false;
        Asked { coverage, forced }
    }
}

#[derive(Debug)]
struct Waiting {
    asked: Asked,
    /// When it is to be tried again, after it failed.
    not_before: Option<Instant>,
    /// Until dumps are paid for.
    rests: bool,
}

impl Dumps {
    /// Queues what `needs` comes to, which is due: [`Dumps::ask_for`].
    pub fn ask(&mut self, needs: Needs) -> bool {
        self.ask_for(needs, Cause::Due)
    }

    /// Queues what `needs` comes to; false when all of it waits in line already.
    /// That is not asked for twice, but covers more now, and does not rest any more
    /// where this is due.
    pub fn ask_for(&mut self, needs: Needs, cause: Cause) -> bool {
        let mut new = false;
        for proto in Proto::ALL.into_iter().filter(|proto| needs.proto(*proto)) {
            let groups = match proto {
                Proto::Tcp => needs.tcp,
                Proto::Udp => StateGroups::ALL,
            };
            new |= self.ask_proto(proto, groups, cause);
        }
        new
    }

    fn ask_proto(&mut self, proto: Proto, groups: StateGroups, cause: Cause) -> bool {
        let families: &[Option<Family>] = match proto {
            Proto::Tcp if !self.by_family => &[None],
            _ => &[Some(Family::V4), Some(Family::V6)],
        };
        let mut new = false;
        for &family in families {
            let coverage = Coverage {
                proto,
                family,
                groups,
            };
            new |= self.push(Waiting {
                asked: Asked {
                    coverage,
                    forced: cause == Cause::Forced,
                },
                not_before: None,
                rests: cause == Cause::Lost,
            });
        }
        new
    }

    fn push(&mut self, one: Waiting) -> bool {
        let (proto, family) = (one.asked.coverage.proto, one.asked.coverage.family);
        let mut line = self.line.iter_mut();
        let Some(waiting) = line.find(|waiting| {
            let coverage = waiting.asked.coverage;
            coverage.proto == proto && coverage.family == family
        }) else {
            self.line.push_back(one);
            return true;
        };
        let asked = &mut waiting.asked;
        asked.coverage.groups = asked.coverage.groups | one.asked.coverage.groups;
        asked.forced &= one.asked.forced;
        waiting.rests &= one.rests;
        false
    }

    /// The next dump to begin. `resting`: dumps are not paid for.
    pub fn next(&mut self, now: Instant, resting: bool) -> Option<Asked> {
        let is_due = |waiting: &Waiting| {
            waiting.not_before.is_none_or(|at| at <= now) && !(resting && waiting.rests)
        };
        let at = self.line.iter().position(is_due)?;
        self.line.remove(at).map(|waiting| waiting.asked)
    }

    /// Whether any waits in line.
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Whether one waits that should have begun, if only there were time.
    pub fn is_behind(&self) -> bool {
        self.line.iter().any(|waiting| !waiting.rests)
    }

    /// Whether one of this protocol waits in line.
    pub fn has(&self, proto: Proto) -> bool {
        self.line
            .iter()
            .any(|waiting| waiting.asked.coverage.proto == proto)
    }

    /// When the next one may begin; a time that is over for one that may now.
    /// `rests_until`: when dumps are paid for, where they are not.
    pub fn next_at(&self, now: Instant, rests_until: Option<Instant>) -> Option<Instant> {
        let times = self.line.iter().map(|waiting| {
            let paid = rests_until.filter(|_| waiting.rests);
            waiting.not_before.max(paid).unwrap_or(now)
        });
        times.min()
    }

    /// Puts a failed dump back in line, to be tried again soon.
    pub fn retry(&mut self, asked: Asked, now: Instant) {
        self.push(Waiting {
            asked,
            not_before: Some(now + RETRY),
            rests: true,
        });
    }

    /// The legacy request was refused: replaces it by one request a family. False
    /// when that was so already, and the refusal means something else.
    pub fn fall_back(&mut self, asked: Asked) -> bool {
        let Asked { coverage, forced } = asked;
        if coverage.family.is_some() || coverage.proto != Proto::Tcp {
            return false;
        }
        self.by_family = true;
        self.line
            .retain(|waiting| waiting.asked.coverage.proto != Proto::Tcp);
        let cause = if forced { Cause::Forced } else { Cause::Due };
        self.ask_proto(Proto::Tcp, coverage.groups, cause);
        true
    }

    /// Notes that nobody answers for a protocol; true the first time.
    pub fn is_missing_now(&mut self, proto: Proto) -> bool {
        !std::mem::replace(&mut self.missing[proto as usize], true)
    }

    /// Notes that a protocol is answered for; true when it had been given up.
    pub fn is_found_again(&mut self, proto: Proto) -> bool {
        std::mem::replace(&mut self.missing[proto as usize], false)
    }

    /// Whether nobody answers for this protocol.
    pub fn lacks(&self, proto: Proto) -> bool {
        self.missing[proto as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_is_one_pass_until_that_is_refused() {
        let now = Instant::now();
        let mut dumps = Dumps::default();
        assert!(dumps.ask_for(Needs::EVERYTHING, Cause::Forced));
        assert!(!dumps.ask_for(Needs::EVERYTHING, Cause::Forced));
        let tcp = dumps.next(now, false).unwrap();
        assert_eq!(
            (tcp.coverage.proto, tcp.coverage.family),
            (Proto::Tcp, None)
        );
        assert!(dumps.fall_back(tcp));
        let line: Vec<_> = std::iter::from_fn(|| dumps.next(now, false)).collect();
        let coverage = line.iter().map(|one| one.coverage);
        let shape: Vec<_> = coverage.map(|one| (one.proto, one.family)).collect();
        let (v4, v6) = (Some(Family::V4), Some(Family::V6));
        let expected = [
            (Proto::Udp, v4),
            (Proto::Udp, v6),
            (Proto::Tcp, v4),
            (Proto::Tcp, v6),
        ];
        assert_eq!(shape, expected);
        assert!(line.iter().all(|one| one.forced));
        assert!(
            !dumps.fall_back(line[0]),
            "there is nothing to fall back to any more"
        );
    }

    #[test]
    fn a_failed_dump_is_tried_again_soon_and_holds_nobody_up() {
        let now = Instant::now();
        let mut dumps = Dumps::default();
        let next = |dumps: &mut Dumps, now| dumps.next(now, false);
        dumps.ask(Needs::EVERYTHING);
        let tcp = next(&mut dumps, now).unwrap();
        dumps.retry(tcp, now);
        assert_eq!(dumps.next_at(now, None), Some(now));
        assert_eq!(next(&mut dumps, now).unwrap().coverage.proto, Proto::Udp);
        assert_eq!(next(&mut dumps, now).unwrap().coverage.proto, Proto::Udp);
        assert_eq!(next(&mut dumps, now), None);
        assert_eq!(dumps.next_at(now, None), Some(now + RETRY));
        dumps.ask(Needs::EVERYTHING);
        let line: Vec<_> = std::iter::from_fn(|| next(&mut dumps, now)).collect();
        assert_eq!(line.len(), 2, "asking again does not make it due");
        assert_eq!(next(&mut dumps, now + RETRY), Some(tcp));
    }

    #[test]
    fn what_reconciles_or_is_tried_again_waits_until_it_is_paid_for() {
        let now = Instant::now();
        let paid = now + Duration::from_secs(3);
        let udp = Needs {
            tcp: StateGroups::NONE,
            udp: true,
        };
        let mut dumps = Dumps::default();
        assert!(dumps.ask_for(Needs::EVERYTHING, Cause::Lost));
        assert!(!dumps.is_behind() && !dumps.is_empty());
        assert_eq!(dumps.next(now, true), None);
        assert_eq!(dumps.next_at(now, Some(paid)), Some(paid));
        let tcp = dumps.next(now, false).unwrap();
        assert_eq!(tcp.coverage.proto, Proto::Tcp);
        dumps.retry(tcp, now);
        // A tick does not wait for a gap.
        assert!(!dumps.ask_for(udp, Cause::Due));
        assert!(dumps.is_behind());
        assert_eq!(dumps.next_at(now, Some(paid)), Some(now));
        assert_eq!(dumps.next(now, true).unwrap().coverage.proto, Proto::Udp);
        assert_eq!(dumps.next(now, true).unwrap().coverage.proto, Proto::Udp);
        assert_eq!(dumps.next(now + RETRY, true), None);
        assert_eq!(dumps.next_at(now, Some(paid)), Some(paid));
        assert_eq!(dumps.next(now + RETRY, false), Some(tcp));
    }

    #[test]
    fn a_dump_is_forced_as_long_as_nobody_else_wants_it() {
        let now = Instant::now();
        let mut dumps = Dumps::default();
        for (first, second, forced) in [
            (Cause::Forced, Cause::Forced, true),
            (Cause::Forced, Cause::Due, false),
            (Cause::Due, Cause::Forced, false),
            (Cause::Lost, Cause::Forced, false),
        ] {
            dumps.ask_for(Needs::EVERYTHING, first);
            dumps.ask_for(Needs::EVERYTHING, second);
            let line: Vec<_> = std::iter::from_fn(|| dumps.next(now, true)).collect();
            assert_eq!(line.len(), 3);
            assert!(line.iter().all(|one| one.forced == forced), "{line:?}");
        }
        dumps.ask_for(Needs::EVERYTHING, Cause::Forced);
        let failed = dumps.next(now, false).unwrap();
        dumps.retry(failed, now);
        dumps.next(now, false);
        dumps.next(now, false);
        assert!(dumps.next(now + RETRY, false).unwrap().forced);
    }
}
