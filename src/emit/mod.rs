//! The last stage: a record becomes text, and the text goes to sinks.
//!
//! A sink is bounded and never waits; it answers whether it took an event, so
//! that an event that nobody took can release its lock. What a sink dropped it
//! owns up to: once it has room again it hands out a [`Loss`], and the pipeline
//! writes the `gap` record. The contract of that exchange is at [`Sink::loss`].

mod backlog;
mod cgroup;
mod digits;
mod fan;
mod file;
mod json;
mod losing;
mod object;
mod process;
mod queue;
mod stdout;
mod subscribers;
mod table;
mod text;

#[cfg(test)]
mod golden;

pub use fan::Fan;
pub use file::{File, Reopen};
pub use json::Json;
pub use losing::{Losing, is_gap_of};
pub(crate) use object::Object;
pub use stdout::Stdout;
pub use subscribers::{Subscribers, Subscription, Terms};
pub use table::TextTable;
pub use text::Text;

use std::fmt;
use std::io::{self, IsTerminal};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Event, Gap, GapCause};

/// How records are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// Lines and tables for a person.
    Text,
}

impl Format {
    /// Text when standard output is a terminal, JSON otherwise.
    pub fn auto() -> Format {
        if io::stdout().is_terminal() {
            Format::Text
        } else {
            Format::Json
        }
    }

    /// The format of a name; none for `auto`.
    ///
    /// # Errors
    /// What names there are.
    pub fn named(word: &str) -> Result<Option<Format>, String> {
        match word {
            "auto" => Ok(None),
            "text" => Ok(Some(Format::Text)),
            "json" => Ok(Some(Format::Json)),
            other => Err(format!(
                "'{other}' is no format; expected 'auto', 'text' or 'json'"
            )),
        }
    }

    /// What writes events in this format: JSON with the machine's name, text
    /// with the sensor's id where there are several.
    pub fn renderer(self, host: String, several_sensors: bool) -> Renderer {
        match self {
            Format::Json => Renderer::Json(Json::new(host)),
            Format::Text => Renderer::Text(Text::new(several_sensors)),
        }
    }
}

/// What turns an event into a line.
#[derive(Clone, Debug)]
pub enum Renderer {
    /// JSON lines.
    Json(Json),
    /// Text lines.
    Text(Text),
}

impl Renderer {
    /// Appends an event as one line.
    pub fn event(&self, event: &Event, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Renderer::Json(json) => json.event(event, out),
            Renderer::Text(text) => text.event(event, out),
        }
    }
}

/// What became of an offered event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// The sink has it, and will write it unless the program ends first.
    Delivered,
    /// The sink had no room.
    Dropped,
    /// The sink has no use for it: nobody subscribed, a glob does not match.
    Unwanted,
}

/// A stretch in which a sink dropped events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// The sink.
    pub sink: Arc<str>,
    /// How many it dropped.
    pub lost: u64,
    /// From the first dropped event until there was room again.
    pub duration: Duration,
}

impl Loss {
    /// The payload of the record that tells it.
    pub fn gap(&self) -> Gap {
        Gap {
            cause: GapCause::Queue,
            closed_recovered: None,
            tcp_unseen: None,
            lost: Some((Arc::clone(&self.sink), self.lost)),
            connects_lost: None,
            duration_ms: u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// How far a flush came, the least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Flush {
    /// Everything is written.
    Drained,
    /// The rest waits until the sink's [`Sink::source`] is writable.
    Blocked,
    /// The rest waits for something that nobody will tell of (a full disk):
    /// flush again at the next tick.
    Retry,
}

/// Why a sink can take nothing any more.
#[derive(Debug)]
pub enum OutputError {
    /// The reader is gone; the program ends quietly.
    Closed,
    /// The write failed for good.
    Io(io::Error),
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OutputError::Closed => f.write_str("the reader of the events is gone"),
            OutputError::Io(error) => write!(f, "the events cannot be written: {error}"),
        }
    }
}

impl std::error::Error for OutputError {}

/// Where events go.
pub trait Sink {
    /// Takes an event, or drops it whole. Never waits; need not write before
    /// [`Sink::flush`].
    fn offer(&mut self, event: &Event) -> Delivery;

    /// A loss that is over. From the first event it drops a sink drops all,
    /// until it is less than half full and the loss has been taken here; it is
    /// handed out once. Whoever takes it offers the gap record next, for which
    /// there is room, so that the record stands between the last event before
    /// the loss and the first one after it.
    fn loss(&mut self) -> Option<Loss>;

    /// May lag behind by so many events from now on.
    fn set_limit(&mut self, _limit: usize) {}

    /// Remembers what it has taken up to now, for [`Sink::is_past_mark`].
    fn mark(&mut self) {}

    /// Whether what it had taken at the last [`Sink::mark`] is written, as far as
    /// whoever relies on this sink cares. A sink whose readers come and go has
    /// nothing to wait for.
    fn is_past_mark(&self) -> bool {
        true
    }

    /// Writes what it can without waiting. The reactor calls it once a turn,
    /// after the turn's events.
    fn flush(&mut self) -> Result<Flush, OutputError> {
        Ok(Flush::Drained)
    }

    /// Writes what it can if that is much already, in the middle of a turn: one that
    /// makes events by the ten thousand would hold them all. What fails is met again
    /// at the next flush.
    fn relieve(&mut self) {}

    /// How many events it holds.
    fn held(&self) -> usize {
        0
    }

    /// Whether nobody wants it any more: it is flushed once more and dropped.
    fn is_over(&self) -> bool {
        false
    }

    /// The descriptor to wait on (writable) while blocked.
    fn source(&self) -> Option<RawFd> {
        None
    }
}
