//! All sinks as one. One that lags does not hold up the others.

use std::os::fd::RawFd;
use std::rc::Rc;

use super::{Delivery, Flush, Loss, OutputError, Sink};
use crate::model::Event;
use crate::stats::Stats;

/// Any number of sinks, none included.
pub struct Fan {
    sinks: Vec<Box<dyn Sink>>,
    stats: Rc<Stats>,
}

impl Fan {
    /// A fan without sinks, which counts drops in `stats.events_dropped`.
    pub fn new(stats: Rc<Stats>) -> Fan {
        Fan {
            sinks: Vec::new(),
            stats,
        }
    }

    /// Adds a sink.
    pub fn add(&mut self, sink: impl Sink + 'static) {
        self.sinks.push(Box::new(sink));
    }

    /// Offers the event to every sink; whether at least one took it.
    pub fn emit(&mut self, event: &Event) -> bool {
        let mut taken = false;
        for sink in &mut self.sinks {
            match sink.offer(event) {
                Delivery::Delivered => taken = true,
                Delivery::Dropped => self.stats.events_dropped.bump(),
                Delivery::Unwanted => {}
            }
        }
        taken
    }

    /// A loss of one of the sinks that is over. Ask before each event, and emit
    /// its gap record at once; see [`Sink::loss`].
    pub fn loss(&mut self) -> Option<Loss> {
        self.sinks.iter_mut().find_map(|sink| sink.loss())
    }

    /// Each may lag behind by so many events from now on.
    pub fn set_limit(&mut self, limit: usize) {
        self.sinks.iter_mut().for_each(|sink| sink.set_limit(limit));
    }

    /// Marks what the sinks have taken up to now.
    pub fn mark(&mut self) {
        self.sinks.iter_mut().for_each(|sink| sink.mark());
    }

    /// Whether the sinks have written what they had taken at the mark.
    pub fn is_past_mark(&self) -> bool {
        self.sinks.iter().all(|sink| sink.is_past_mark())
    }

    /// Flushes every sink, also after one failed, and drops those that are over;
    /// the first failure, or else the one that came least far.
    pub fn flush(&mut self) -> Result<Flush, OutputError> {
        let mut all = Ok(Flush::Drained);
        for sink in &mut self.sinks {
            all = match (all, sink.flush()) {
                (Ok(before), Ok(now)) => Ok(before.max(now)),
                (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            };
        }
        self.sinks.retain(|sink| !sink.is_over());
        all
    }

    /// Has the sinks that hold much write it, in the middle of a turn; see
    /// [`Sink::relieve`].
    pub fn relieve(&mut self) {
        self.sinks.iter_mut().for_each(|sink| sink.relieve());
    }

    /// How many events they hold, all together.
    pub fn held(&self) -> usize {
        self.sinks.iter().map(|sink| sink.held()).sum()
    }

    /// The descriptors to wait on (writable).
    pub fn sources(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.sinks.iter().filter_map(|sink| sink.source())
    }
}
