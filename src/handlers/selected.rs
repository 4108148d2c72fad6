//! A sink for some events only.

use std::os::fd::RawFd;
use std::sync::Arc;

use crate::emit::{Delivery, Flush, Loss, OutputError, Sink, is_gap_of};
use crate::filter::IdGlob;
use crate::model::Event;

/// A sink, and the event ids that it is for.
#[derive(Debug)]
pub(super) struct Selected<S> {
    matches: Option<IdGlob>,
    gaps_of: Option<Arc<str>>,
    sink: S,
}

impl<S: Sink> Selected<S> {
    /// For the ids that match; all where there is no glob.
    pub fn new(matches: Option<IdGlob>, sink: S) -> Selected<S> {
        Selected {
            matches,
            gaps_of: None,
            sink,
        }
    }

    /// And for the records of what the sink of this name lost, whatever the glob
    /// says: a reader of the stream must find its holes in it.
    pub fn with_gaps_of(mut self, sink: Arc<str>) -> Selected<S> {
        self.gaps_of = Some(sink);
        self
    }

    fn wants(&self, event: &Event) -> bool {
        let gaps_of = self.gaps_of.as_deref();
        self.matches
            .as_ref()
            .is_none_or(|glob| glob.matches(&event.eid))
            || gaps_of.is_some_and(|sink| is_gap_of(event, sink))
    }
}

impl<S: Sink> Sink for Selected<S> {
    fn offer(&mut self, event: &Event) -> Delivery {
        if self.wants(event) {
            self.sink.offer(event)
        } else {
            Delivery::Unwanted
        }
    }

    fn loss(&mut self) -> Option<Loss> {
        self.sink.loss()
    }

    fn flush(&mut self) -> Result<Flush, OutputError> {
        self.sink.flush()
    }

    fn source(&self) -> Option<RawFd> {
        self.sink.source()
    }
}
