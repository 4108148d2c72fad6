//! The dumps that wait for the dump socket, and how a failed one is retried.

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

#[derive(Debug)]
struct Waiting {
    coverage: Coverage,
    /// When it is to be tried again, after it failed.
    not_before: Option<Instant>,
}

impl Dumps {
    /// Queues what `needs` comes to. What waits in line already is not asked for
    /// twice, unless it covers less.
    pub fn ask(&mut self, needs: Needs) {
        if !needs.tcp.is_empty() {
            self.ask_proto(Proto::Tcp, needs.tcp);
        }
        if needs.udp {
            self.ask_proto(Proto::Udp, StateGroups::ALL);
        }
    }

    fn ask_proto(&mut self, proto: Proto, groups: StateGroups) {
        let families: &[Option<Family>] = match proto {
            Proto::Tcp if !self.by_family => &[None],
            _ => &[Some(Family::V4), Some(Family::V6)],
        };
        for &family in families {
            let coverage = Coverage {
                proto,
                family,
                groups,
            };
            self.push(coverage, None);
        }
    }

    fn push(&mut self, coverage: Coverage, not_before: Option<Instant>) {
        let same = |waiting: &&mut Waiting| {
            waiting.coverage.proto == coverage.proto && waiting.coverage.family == coverage.family
        };
        match self.line.iter_mut().find(same) {
            Some(waiting) => waiting.coverage.groups = waiting.coverage.groups | coverage.groups,
            None => self.line.push_back(Waiting {
                coverage,
                not_before,
            }),
        }
    }

    /// The next dump to begin.
    pub fn next(&mut self, now: Instant) -> Option<Coverage> {
        let is_due = |waiting: &Waiting| waiting.not_before.is_none_or(|at| at <= now);
        let at = self.line.iter().position(is_due)?;
        self.line.remove(at).map(|waiting| waiting.coverage)
    }

    /// Whether any waits in line.
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Whether one of this protocol waits in line.
    pub fn has(&self, proto: Proto) -> bool {
        self.line
            .iter()
            .any(|waiting| waiting.coverage.proto == proto)
    }

    /// When the next one may begin; a time that is over for one that may now.
    pub fn next_at(&self, now: Instant) -> Option<Instant> {
        let times = self
            .line
            .iter()
            .map(|waiting| waiting.not_before.unwrap_or(now));
        times.min()
    }

    /// Puts a failed dump back in line, to be tried again soon.
    pub fn retry(&mut self, coverage: Coverage, now: Instant) {
        self.push(coverage, Some(now + RETRY));
    }

    /// The legacy request was refused: replaces it by one request a family. False
    /// when that was so already, and the refusal means something else.
    pub fn fall_back(&mut self, coverage: Coverage) -> bool {
        if coverage.family.is_some() || coverage.proto != Proto::Tcp {
            return false;
        }
        self.by_family = true;
        self.line
            .retain(|waiting| waiting.coverage.proto != Proto::Tcp);
        self.ask_proto(Proto::Tcp, coverage.groups);
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
        dumps.ask(Needs::EVERYTHING);
        dumps.ask(Needs::EVERYTHING);
        let tcp = dumps.next(now).unwrap();
        assert_eq!((tcp.proto, tcp.family), (Proto::Tcp, None));
        assert!(dumps.fall_back(tcp));
        let line: Vec<_> = std::iter::from_fn(|| dumps.next(now)).collect();
        let shape: Vec<_> = line.iter().map(|one| (one.proto, one.family)).collect();
        let (v4, v6) = (Some(Family::V4), Some(Family::V6));
        let expected = [
            (Proto::Udp, v4),
            (Proto::Udp, v6),
            (Proto::Tcp, v4),
            (Proto::Tcp, v6),
        ];
        assert_eq!(shape, expected);
        assert!(
            !dumps.fall_back(line[0]),
            "there is nothing to fall back to any more"
        );
    }

    #[test]
    fn a_failed_dump_is_tried_again_soon_and_holds_nobody_up() {
        let now = Instant::now();
        let mut dumps = Dumps::default();
        dumps.ask(Needs::EVERYTHING);
        let tcp = dumps.next(now).unwrap();
        dumps.retry(tcp, now);
        assert_eq!(dumps.next_at(now), Some(now));
        assert_eq!(dumps.next(now).unwrap().proto, Proto::Udp);
        assert_eq!(dumps.next(now).unwrap().proto, Proto::Udp);
        assert_eq!(dumps.next(now), None);
        assert_eq!(dumps.next_at(now), Some(now + RETRY));
        dumps.ask(Needs::EVERYTHING);
        let line: Vec<_> = std::iter::from_fn(|| dumps.next(now)).collect();
        assert_eq!(line.len(), 2, "asking again does not make it due");
        assert_eq!(dumps.next(now + RETRY), Some(tcp));
    }
}
