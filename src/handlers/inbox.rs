//! The events that wait for a program, between the sink that takes them and the
//! handler that runs them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::Unlock;
use crate::emit::{Delivery, Losing, Loss, Sink};
use crate::model::Event;

/// Which event it was: its id, and when it was emitted, which tells the lock that
/// it has set from that of another one with the same id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Emitted {
    /// The id.
    pub eid: String,
    /// When.
    pub at: SystemTime,
}

impl Emitted {
    /// This one.
    pub fn of(event: &Event) -> Emitted {
        Emitted {
            eid: event.eid.clone(),
            at: event.ts,
        }
    }
}

/// A bounded queue with two ends.
#[derive(Clone, Debug)]
pub(super) struct Inbox(Rc<RefCell<Waiting>>);

#[derive(Debug)]
struct Waiting {
    events: VecDeque<Event>,
    losing: Losing,
    unlock: Unlock,
    /// Events whose locks are to be released though they were dropped.
    released: Vec<Emitted>,
    /// Events dropped since the handler last asked.
    dropped: u64,
    /// The program ends.
    closed: bool,
}

impl Inbox {
    /// An empty one with room for `limit` events.
    pub fn new(sink: Arc<str>, limit: usize, unlock: Unlock) -> Inbox {
        Inbox(Rc::new(RefCell::new(Waiting {
            events: VecDeque::new(),
            losing: Losing::new(sink, limit),
            unlock,
            released: Vec::new(),
            dropped: 0,
            closed: false,
        })))
    }

    /// The event that has waited longest.
    pub fn next(&self) -> Option<Event> {
        let mut waiting = self.0.borrow_mut();
        let event = waiting.events.pop_front();
        if waiting.events.is_empty() && waiting.events.capacity() > 64 {
            waiting.events.shrink_to(16);
        }
        event
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().events.is_empty()
    }

    /// How many were dropped since this was last asked, and those whose locks are
    /// to be released all the same.
    pub fn dropped(&self) -> (u64, Vec<Emitted>) {
        let mut waiting = self.0.borrow_mut();
        let released = std::mem::take(&mut waiting.released);
        (std::mem::take(&mut waiting.dropped), released)
    }

    /// Takes no more; what waited.
    pub fn close(&self) -> VecDeque<Event> {
        let mut waiting = self.0.borrow_mut();
        waiting.closed = true;
        std::mem::take(&mut waiting.events)
    }
}

impl Sink for Inbox {
    fn offer(&mut self, event: &Event) -> Delivery {
        let mut waiting = self.0.borrow_mut();
        if waiting.closed {
            return Delivery::Unwanted;
        }
        if waiting.losing.has_room(waiting.events.len(), event) {
            waiting.events.push_back(event.clone());
            return Delivery::Delivered;
        }
        waiting.dropped += 1;
        if waiting.unlock == Unlock::Always {
            waiting.released.push(Emitted::of(event));
        }
        waiting.losing.lose()
    }

    fn loss(&mut self) -> Option<Loss> {
        let mut waiting = self.0.borrow_mut();
        let used = waiting.events.len();
        if waiting.closed {
            return None;
        }
        waiting.losing.take(used)
    }

    fn held(&self) -> usize {
        self.0.borrow().events.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Data, Listener, Restored};

    fn event(eid: &str) -> Event {
        Event {
            ts: SystemTime::UNIX_EPOCH,
            seq: 1,
            eid: eid.to_owned(),
            sensor: Arc::from("s"),
            listener: Listener::Own,
            tag: None,
            data: Data::Restored(Restored {
                source: "udp",
                parts: Vec::new(),
            }),
        }
    }

    #[test]
    fn the_bound_is_exact_and_what_is_dropped_is_owned_up_to() {
        let inbox = Inbox::new("handlers.x".into(), 3, Unlock::Always);
        let mut sink = inbox.clone();
        for eid in ["1", "2", "3"] {
            assert_eq!(sink.offer(&event(eid)), Delivery::Delivered);
        }
        assert_eq!(sink.offer(&event("4")), Delivery::Dropped);
        assert_eq!(inbox.next().map(|event| event.eid).as_deref(), Some("1"));
        assert_eq!(sink.offer(&event("5")), Delivery::Dropped, "not told yet");
        assert_eq!(sink.loss(), None, "more than half is in use");
        let dropped = vec![Emitted::of(&event("4")), Emitted::of(&event("5"))];
        assert_eq!(inbox.dropped(), (2, dropped));
        assert_eq!(inbox.dropped(), (0, Vec::new()));
        inbox.next();
        let loss = sink.loss().expect("a loss that is over");
        assert_eq!((&*loss.sink, loss.lost), ("handlers.x", 2));
        assert_eq!(sink.offer(&event("6")), Delivery::Delivered);
        assert_eq!(inbox.close().len(), 2);
        assert_eq!(sink.offer(&event("7")), Delivery::Unwanted);
        assert!(inbox.is_empty());
    }
}
