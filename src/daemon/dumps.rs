//! The dumps that wait for the dump socket, and how a failed one is retried.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::model::{Coverage, Family, Needs, Proto, StateGroups};

/// How soon a failed dump is tried again when somebody waits for it.
const RETRY: Duration = Duration::from_millis(200);

/// The line of dumps.
#[derive(Debug, Default)]
pub struct Dumps {
    line: VecDeque<Coverage>,
    /// The legacy request was refused: one v2 request for each family instead.
    by_family: bool,
    /// Nobody answers for TCP, UDP.
    missing: [bool; 2],
    retry_at: Option<Instant>,
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
            let same =
                |coverage: &&mut Coverage| coverage.proto == proto && coverage.family == family;
            match self.line.iter_mut().find(same) {
                Some(coverage) => coverage.groups = coverage.groups | groups,
                None => self.line.push_back(Coverage {
                    proto,
                    family,
                    groups,
                }),
            }
        }
    }

    /// The next dump to begin.
    pub fn next(&mut self, now: Instant) -> Option<Coverage> {
        if self.retry_at.is_some_and(|at| at > now) {
            return None;
        }
        self.retry_at = None;
        self.line.pop_front()
    }

    /// Whether any waits in line.
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// When a failed dump is to be tried again.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| !self.line.is_empty())
    }

    /// Puts a failed dump back at the head of the line, to be tried again soon.
    pub fn retry(&mut self, coverage: Coverage, now: Instant) {
        self.line.push_front(coverage);
        self.retry_at = Some(now + RETRY);
    }

    /// The legacy request was refused: replaces it by one request a family. False
    /// when that was so already, and the refusal means something else.
    pub fn fall_back(&mut self, coverage: Coverage) -> bool {
        if coverage.family.is_some() || coverage.proto != Proto::Tcp {
            return false;
        }
        self.by_family = true;
        for family in [Family::V6, Family::V4] {
            self.line.push_front(Coverage {
                family: Some(family),
                ..coverage
            });
        }
        true
    }

    /// Notes that nobody answers for a protocol; true the first time.
    pub fn is_missing_now(&mut self, proto: Proto) -> bool {
        !std::mem::replace(&mut self.missing[proto as usize], true)
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
            (Proto::Tcp, v4),
            (Proto::Tcp, v6),
            (Proto::Udp, v4),
            (Proto::Udp, v6),
        ];
        assert_eq!(shape, expected);
        assert!(
            !dumps.fall_back(line[0]),
            "there is nothing to fall back to any more"
        );
    }

    #[test]
    fn a_failed_dump_is_tried_again_soon_but_not_at_once() {
        let now = Instant::now();
        let mut dumps = Dumps::default();
        dumps.ask(Needs {
            tcp: StateGroups::LISTEN,
            udp: false,
        });
        let tcp = dumps.next(now).unwrap();
        dumps.retry(tcp, now);
        assert_eq!(dumps.next(now), None);
        assert_eq!(dumps.next(now + RETRY), Some(tcp));
    }
}
