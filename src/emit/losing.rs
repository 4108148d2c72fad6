//! What a bounded sink lost and has not owned up to yet.
//!
//! The rule behind [`Sink::loss`](super::Sink::loss), for every sink that has a
//! queue: a loss begins when the queue is full, is over when less than half of it
//! is in use, and nothing is taken in between, so that one record tells all of it
//! in its place.

use std::sync::Arc;
use std::time::Instant;

use super::{Delivery, Loss};
use crate::model::{Data, Event, GapCause};

/// The losses of one sink.
#[derive(Debug)]
pub struct Losing {
    sink: Arc<str>,
    limit: usize,
    stretch: Option<Stretch>,
}

/// A loss that is not told yet.
#[derive(Debug)]
struct Stretch {
    since: Instant,
    lost: u64,
    /// When there was room again.
    until: Option<Instant>,
}

impl Losing {
    /// Those of a sink of this name, whose queue takes `limit` events: two at
    /// least, because a gap record alone would fill a queue with one place, and
    /// the next event would be lost again.
    pub fn new(sink: Arc<str>, limit: usize) -> Losing {
        Losing {
            sink,
            limit: limit.max(2),
            stretch: None,
        }
    }

    /// The name of the sink.
    pub fn sink(&self) -> &Arc<str> {
        &self.sink
    }

    /// How many events the queue takes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The queue takes so many from now on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.max(2);
    }

    /// Whether an event may be queued where `used` are. The place of the own gap
    /// record is one that events cannot take.
    pub fn has_room(&self, used: usize, event: &Event) -> bool {
        let limit = self.limit + usize::from(is_gap_of(event, &self.sink));
        self.stretch.is_none() && used < limit
    }

    /// Counts an event that is not queued.
    pub fn lose(&mut self) -> Delivery {
        let stretch = self.stretch.get_or_insert_with(|| Stretch {
            since: Instant::now(),
            lost: 0,
            until: None,
        });
        stretch.lost += 1;
        Delivery::Dropped
    }

    /// Notes when a loss is over: less than half the queue is in use.
    pub fn note_room(&mut self, used: usize) {
        if used * 2 < self.limit
            && let Some(stretch) = &mut self.stretch
        {
            stretch.until.get_or_insert_with(Instant::now);
        }
    }

    /// The loss that is over, once.
    pub fn take(&mut self, used: usize) -> Option<Loss> {
        self.note_room(used);
        let stretch = self.stretch.take_if(|stretch| stretch.until.is_some())?;
        Some(Loss {
            sink: Arc::clone(&self.sink),
            lost: stretch.lost,
            duration: stretch.until?.saturating_duration_since(stretch.since),
        })
    }
}

/// Whether the event is the record of what this sink lost.
pub fn is_gap_of(event: &Event, sink: &str) -> bool {
    matches!(&event.data, Data::Gap(gap) if gap.cause == GapCause::Queue
        && gap.lost.as_ref().is_some_and(|(name, _)| **name == *sink))
}
