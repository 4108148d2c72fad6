//! What sockwatch says of itself: gaps, and sources that are missing.

use std::sync::Arc;

use super::Pipeline;
use crate::model::{Data, Degraded, Event, Gap, Listener, Now, Restored};

impl Pipeline {
    /// Emits the record of a gap.
    pub fn gap(&mut self, gap: Gap, now: Now) {
        self.own("gap", gap.cause.as_str(), Data::Gap(gap), now);
    }

    /// Emits the record of a source that is missing.
    pub fn degraded(&mut self, degraded: Degraded, now: Now) {
        let (source, parts) = (degraded.source, &degraded.missing);
        match self.missing.iter_mut().find(|(known, _)| *known == source) {
            Some((_, missing)) => missing.extend(parts),
            None => self.missing.push((source, parts.clone())),
        }
        self.own("degraded", degraded.source, Data::Degraded(degraded), now);
    }

    /// Emits the record of a source that is there after all.
    pub fn restored(&mut self, restored: Restored, now: Now) {
        for (source, missing) in &mut self.missing {
            missing.retain(|part| *source != restored.source || !restored.parts.contains(part));
        }
        self.missing.retain(|(_, missing)| !missing.is_empty());
        self.own("restored", restored.source, Data::Restored(restored), now);
    }

    /// What is missing at the moment: the source, and which parts of it.
    pub fn missing(&self) -> &[(&'static str, Vec<&'static str>)] {
        &self.missing
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
