//! The last stage: a record becomes text.

mod json;
mod table;
mod text;

#[cfg(test)]
mod golden;

pub use json::Json;
pub use table::table;
pub use text::Text;

use std::io::{self, IsTerminal};

use crate::model::Event;

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
