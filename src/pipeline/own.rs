//! What sockwatch says of itself: gaps, and sources that are missing.

use std::sync::Arc;

use super::Pipeline;
use crate::model::{Data, Degraded, Event, Gap, Listener, Now, Restored};

impl Pipeline {
    /// Emits the record of a gap.
    pub fn gap(&mut self, gap: Gap, now: Now) {
        self.own("gap", gap.cause.as_str(), Data::Gap(gap), now);
    }

    /// Emits the record of a source that is missing, once.
    pub fn degraded(&mut self, degraded: Degraded, now: Now) {
        if self.missing.contains(&degraded) {
            return;
        }
        let same =
            |known: &Degraded| known.source == degraded.source && known.missing == degraded.missing;
        self.missing.retain(|known| !same(known));
        self.missing.push(degraded.clone());
        self.own("degraded", degraded.source, Data::Degraded(degraded), now);
    }

    /// What is missing now.
    pub fn missing(&self) -> &[Degraded] {
        &self.missing
    }

    /// Whether this part of a source is missing now.
    pub fn is_missing(&self, source: &str, part: &str) -> bool {
        let is_it = |known: &Degraded| known.source == source && known.missing.contains(&part);
        self.missing.iter().any(is_it)
    }

    /// Emits the record of a source that is there after all.
    pub fn restored(&mut self, restored: Restored, now: Now) {
        let back = |part: &&'static str| restored.parts.contains(part);
        for known in &mut self.missing {
            if known.source == restored.source {
                known.missing.retain(|part| !back(part));
            }
        }
        self.missing.retain(|known| !known.missing.is_empty());
        self.own("restored", restored.source, Data::Restored(restored), now);
    }

    fn own(&mut self, action: &str, cause: &str, data: Data, now: Now) {
        self.seq += 1;
        let event = Event {
            ts: now.wall,
            seq: self.seq,
            eid: format!("sockwatch|self|{action}@{cause}|0"),
            sensor: Arc::clone(&self.own_id),
            listener: Listener::Own,
            tag: None,
            data,
        };
        self.stats.events.bump();
        self.fan.emit(&event);
    }

    /// Tells of what a sink lost, once it can take events again: the record
    /// stands between the last event before the loss and the first one after.
    pub fn tell_losses(&mut self, now: Now) {
        while let Some(loss) = self.fan.loss() {
            self.gap(loss.gap(), now);
        }
    }
}
