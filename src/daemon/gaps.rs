//! What was lost: the dumps and queries that it takes to find out, in each
//! namespace, and the record that tells it. That is one: the kernel does not say
//! whose notices it dropped, so a gap is one of all namespaces.

use log::Level;

use super::place::Place;
use super::shared::Shared;
use super::sources::Sources;
use crate::model::{Gap, Now};
use crate::pipeline::Pipeline;
use crate::source::diag::Found;
use crate::source::dumps::Cause;

/// Exact queries asked in one go: some 5 µs each.
const QUERIES_A_TURN: usize = 64;

impl Place {
    /// Asks about some of those who may have ended.
    pub fn ask_about_suspects(&mut self, shared: &mut Shared, pipeline: &mut Pipeline, now: Now) {
        let Some(scope) = &mut self.scope else {
            return;
        };
        for _ in 0..QUERIES_A_TURN {
            let Some(suspect) = self.sensor.next_suspect() else {
                return;
            };
            match scope.ask(&suspect.id, suspect.key.cookie) {
                Ok(Found::Row(row)) => self.sensor.answered(suspect, Some(row), now, pipeline),
                Ok(Found::Gone) => self.sensor.answered(suspect, None, now, pipeline),
                Err(error) => {
                    self.sensor.unanswered(suspect);
                    shared.warn("query", now, || format!("an exact query failed: {error}"));
                }
            }
        }
    }

    /// Notices were lost. `lent`: there is credit for the dumps that this takes
    /// first.
    pub fn overrun(&mut self, lent: bool, now: Now) {
        self.sensor.overrun(now);
        self.lent |= lent;
    }

    /// Queues the dump that a gap needs next.
    pub fn reconcile(&mut self, shared: &mut Shared, now: Now) {
        if shared.congested || self.is_dumping() {
            return;
        }
        let lent = std::mem::take(&mut self.lent);
        let Some(needs) = self.sensor.wants_dump() else {
            return;
        };
        let cause = if lent { Cause::Due } else { Cause::Lost };
        if self.dumps.ask_for(needs, cause) && !lent && shared.is_over_budget(now) {
            shared.stats.dumps_rested.bump();
        }
    }
}

impl Sources {
    /// Tells of what was lost when all of it is accounted for: it is one stretch,
    /// in however many namespaces.
    pub(super) fn settle_gaps(&mut self, pipeline: &mut Pipeline, now: Now) {
        if self.shared.congested {
            return;
        }
        if let Some(mut gap) = self.home.sensor.settled_gap(now) {
            self.home.balance_gap(&mut gap, &self.shared);
            join(&mut self.gap, gap);
        }
        let mut open = self.home.sensor.has_gap();
        if let Some(away) = &mut self.away {
            let gap = &mut self.gap;
            away.settled_gaps(now, &mut |more| join(gap, more));
            open |= away.has_gap();
        }
        if let Some(gap) = self.gap.take_if(|_| !open) {
            let (ms, ends) = (gap.duration_ms, gap.closed_recovered.unwrap_or(0));
            self.shared.tell(Level::Info, "reconciled", now, || {
                format!("reconciled after {ms} ms: {ends} ends were recovered")
            });
            pipeline.gap(gap, now);
        }
    }
}

/// Adds one gap to another: the ends recovered add up, the time is the longest.
pub(super) fn join(sum: &mut Option<Gap>, gap: Gap) {
    let Some(sum) = sum else {
        *sum = Some(gap);
        return;
    };
    let add = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (known, None) | (None, known) => known,
    };
    sum.closed_recovered = add(sum.closed_recovered, gap.closed_recovered);
    sum.tcp_unseen = add(sum.tcp_unseen, gap.tcp_unseen);
    sum.duration_ms = sum.duration_ms.max(gap.duration_ms);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::GapCause;

    #[test]
    fn gaps_of_several_namespaces_are_one() {
        let gap = |recovered, unseen, ms| Gap {
            cause: GapCause::Overrun,
            closed_recovered: Some(recovered),
            tcp_unseen: unseen,
            lost: None,
            connects_lost: None,
            duration_ms: ms,
        };
        let mut sum = None;
        for (recovered, unseen, ms) in [(3, Some(2), 40), (0, None, 90), (5, None, 10)] {
            join(&mut sum, gap(recovered, unseen, ms));
        }
        assert_eq!(sum, Some(gap(8, Some(2), 90)));
    }
}
