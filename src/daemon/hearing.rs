//! Hearing: the notices of every namespace that is watched, what it means when some
//! were dropped, and the last ones.

use std::io;
use std::time::{Duration, Instant};

use super::RunError;
use super::gaps::join;
use super::groups;
use super::place::Place;
use super::sources::Sources;
use crate::model::Now;
use crate::pipeline::Pipeline;

/// Notices handled in one go before anything else gets a turn.
const NOTICES_A_TURN: usize = 1024;
/// How long the end waits for what is still to be heard and reconciled.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Sources {
    /// Hears the notices that are there, up to a bound.
    pub fn hear(&mut self, pipeline: &mut Pipeline, now: Now) -> io::Result<()> {
        if self.notices_ready {
            self.drain(pipeline, now)?;
        }
        // Whoever has ended has no notice left unread.
        if !self.notices_ready
            && let Some(away) = &mut self.away
        {
            let gap = &mut self.gap;
            away.tell_ends(pipeline, now, &mut |more| join(gap, more));
        }
        Ok(())
    }

    fn drain(&mut self, pipeline: &mut Pipeline, now: Now) -> io::Result<()> {
        let (probes, noticed) = (&mut self.probes, &mut self.home.noticed);
        let is_home = |id: &i32| self.away.as_ref().is_none_or(|away| away.is_home(*id));
        let mut revived = Vec::new();
        let mut heard = Vec::new();
        let drained = self.notices.drain(NOTICES_A_TURN, &mut |from, notice| {
            revived.extend(probes.revived(&notice));
            let from = from.filter(|id| !is_home(id));
            if from.is_some() {
                heard.push((from, notice));
            } else if !probes.heard(notice.cookie) {
                noticed[notice.id.proto as usize] = true;
                heard.push((None, notice));
            }
        })?;
        self.notices_ready = drained.more;
        // The calls were made before the sockets ended, so they are there.
        if !heard.is_empty() {
            self.catch_up(pipeline, now);
        }
        for (from, notice) in heard {
            match (from, &mut self.away) {
                (Some(id), Some(away)) => away.hear(id, notice, now, pipeline),
                (Some(_), None) => {}
                (None, _) => self.home.sensor.notice(notice, now, pipeline),
            }
        }
        self.settle_calls(pipeline, now);
        if !revived.is_empty() {
            self.shared.deaf.retain(|deaf| !revived.contains(deaf));
            let sees = |place: &mut Place| {
                for group in &revived {
                    if !place.dumps.lacks(group.proto) {
                        place.sensor.sees(group.family, group.proto, now);
                    }
                }
            };
            sees(&mut self.home);
            if let Some(away) = &mut self.away {
                away.sees(sees);
            }
            let restored = groups::restored(&revived);
            log::info!("notices from {} come after all", restored.parts.join(", "));
            pipeline.restored(restored, now);
        }
        if drained.overrun {
            self.shared.congested = true;
            self.overrun(now);
            self.shared.warn("overrun", now, || {
                "the kernel dropped notices (the receive buffer was full); reconciling".to_string()
            });
        }
        // The kernel tells ENOBUFS once, and then drops every notice until the
        // queue has been read empty (NETLINK_S_CONGESTED, net/netlink/af_netlink.c):
        // only now is the stretch over, and only dumps from here on can tell what
        // ended in it.
        if self.shared.congested && !drained.more {
            self.shared.congested = false;
            self.overrun(now);
            self.probes.send_again(now.mono);
        }
        Ok(())
    }

    /// Notices were dropped, of whichever namespace.
    fn overrun(&mut self, now: Now) {
        self.lower_guard(now);
        self.lost(now);
    }

    /// Some that matter were not heard.
    pub(super) fn lost(&mut self, now: Now) {
        // Nothing is asked for yet while it is congested.
        let lent = !self.shared.congested && self.shared.budget.lend(now.mono);
        self.home.overrun(lent, now);
        if let Some(away) = &mut self.away {
            away.overrun(lent, &mut self.shared, now);
        }
    }

    /// Gives up groups whose probes are overdue. It was perhaps this process
    /// that did not get to run in time: what is there is heard first.
    pub(super) fn judge_probes(&mut self, pipeline: &mut Pipeline, now: Now) -> io::Result<()> {
        if !self.probes.are_overdue(now.mono) {
            return Ok(());
        }
        self.notices_ready = true;
        self.hear(pipeline, now)?;
        if !self.notices_ready && self.probes.are_overdue(now.mono) {
            let unheard = self.probes.give_up();
            self.lose(&unheard, pipeline, now);
        }
        Ok(())
    }

    /// Hears everything that is there, and reconciles what was dropped: the
    /// program ends, and what it does not tell now it never will. Other namespaces
    /// are not entered for it any more.
    pub fn last_words(&mut self, pipeline: &mut Pipeline) -> Result<(), RunError> {
        self.notices_ready = true;
        self.shared.budget.lift();
        let until = Instant::now() + LAST_WORDS;
        let mut called = true;
        while Instant::now() < until
            && (called
                || self.notices_ready
                || self.home.sensor.has_gap()
                || self.home.sensor.has_candidates())
        {
            let now = Now::read();
            called = self.calls(pipeline, now);
            self.hear(pipeline, now)?;
            let undecided = self.home.sensor.has_candidates();
            if undecided && !self.home.is_dumping() && self.home.dumps.is_empty() {
                self.home.dumps.ask(self.home.needs);
            }
            if undecided || self.home.sensor.has_gap() {
                // The loop that tells of readiness is not waited for any more.
                self.home.dump_ready = true;
                if !self.work(pipeline, now)? {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        let now = Now::read();
        let gap = &mut self.gap;
        let mut abandoned = |more| join(gap, more);
        self.home.sensor.abandon_gap(now).map(&mut abandoned);
        if let Some(away) = &mut self.away {
            away.abandoned_gaps(now, &mut abandoned);
        }
        if let Some(gap) = self.gap.take() {
            log::warn!("ended before everything was reconciled: ends of sockets are missing");
            pipeline.gap(gap, now);
        }
        Ok(())
    }
}
