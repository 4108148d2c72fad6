//! A sink for some events only.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;

use crate::emit::{Delivery, Flush, Loss, OutputError, Sink, is_gap_of};
use crate::filter::IdGlob;
use crate::model::Event;

/// A sink, and the event ids that it is for.
#[derive(Debug)]
pub(super) struct Selected<S> {
    matches: Option<Rc<IdGlob>>,
    gaps_of: Option<Arc<str>>,
    over: Rc<Cell<bool>>,
    sink: S,
}

impl<S: Sink> Selected<S> {
    /// For the ids that match, all where there is no glob, until `over` is set.
    pub fn new(matches: Option<Rc<IdGlob>>, sink: S, over: Rc<Cell<bool>>) -> Selected<S> {
        Selected {
            matches,
            gaps_of: None,
            over,
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
        if !self.over.get() && self.wants(event) {
            self.sink.offer(event)
        } else {
            Delivery::Unwanted
        }
    }

    fn loss(&mut self) -> Option<Loss> {
        self.sink.loss()
    }

    fn set_limit(&mut self, limit: usize) {
        self.sink.set_limit(limit);
    }

    fn mark(&mut self) {
        self.sink.mark();
    }

    fn is_past_mark(&self) -> bool {
        self.sink.is_past_mark()
    }

    fn flush(&mut self) -> Result<Flush, OutputError> {
        self.sink.flush()
    }

    fn is_over(&self) -> bool {
        self.over.get()
    }

    fn source(&self) -> Option<RawFd> {
        self.sink.source()
    }
}
