//! The log: one line a message on standard error, through the `log` facade.
//!
//! Standard error is often a pipe whose reader may be slow, stopped or stuck. A
//! daemon that waits for it stops watching, so a line that finds no room is
//! lost, counted, and told with the next line that gets through. A line is one
//! write(2), holds no line break and nothing that a terminal would obey.

mod limit;
mod plain;

pub use limit::RateLimit;
pub use plain::{Plain, is_harmful};

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::log::{Level, LevelFilter, Log, Metadata, Record, SetLoggerError};

use crate::sys::output::{OpenError, Output};

/// The variable that sets the level.
pub const LEVEL_VARIABLE: &str = "SOCKWATCH_LOG";

/// The longest line: with the count of lost lines before it, it still goes into
/// a pipe in one piece (PIPE_BUF, pipe(7)).
const LINE_MAX: usize = 3900;

/// Why there is no log.
#[derive(Debug)]
pub enum InitError {
    /// `SOCKWATCH_LOG` holds no level.
    Level(String),
    /// Standard error cannot be written to.
    Open(OpenError),
    /// There is a logger already.
    Twice(SetLoggerError),
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InitError::Level(found) => write!(
                f,
                "{LEVEL_VARIABLE} is \"{}\"; expected error, warn, info or debug",
                Plain(found)
            ),
            InitError::Open(error) => write!(f, "standard error {error}"),
            InitError::Twice(error) => write!(f, "the log cannot be set up: {error}"),
        }
    }
}

impl std::error::Error for InitError {}

/// Sends the facade's messages to standard error, from the level that
/// `SOCKWATCH_LOG` names (`info` without it). Called once, by the program.
pub fn init() -> Result<(), InitError> {
    let level = match std::env::var_os(LEVEL_VARIABLE) {
        None => LevelFilter::Info,
        Some(word) => word
            .to_str()
            .and_then(level)
            .ok_or_else(|| InitError::Level(word.to_string_lossy().into_owned()))?,
    };
    let output = Output::error().map_err(InitError::Open)?;
    let logger = Logger {
        lines: Mutex::new(Lines::new(output)),
    };
    ::log::set_boxed_logger(Box::new(logger)).map_err(InitError::Twice)?;
    ::log::set_max_level(level);
    Ok(())
}

fn level(word: &str) -> Option<LevelFilter> {
    match word {
        "" | "info" => Some(LevelFilter::Info),
        "error" => Some(LevelFilter::Error),
        "warn" => Some(LevelFilter::Warn),
        "debug" => Some(LevelFilter::Debug),
        _ => None,
    }
}

struct Logger {
    lines: Mutex<Lines>,
}

impl Logger {
    /// A thread that panicked while it wrote leaves at worst half a line.
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= ::log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = line(record.level(), &record.args().to_string());
            self.lines().push(&line);
        }
    }

    fn flush(&self) {
        self.lines().settle();
    }
}

fn line(level: Level, message: &str) -> String {
    let word = match level {
        Level::Error => "error: ",
        Level::Warn => "warning: ",
        Level::Info => "",
        Level::Debug | Level::Trace => "debug: ",
    };
    let mut line = format!("sockwatch: {word}{}", Plain(message));
    if line.len() > LINE_MAX {
        let mut end = LINE_MAX;
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push_str("...");
    }
    line.push('\n');
    line
}

/// The stream of lines, with what it owes its reader.
struct Lines {
    output: Output,
    /// The end of a line of which the beginning has been written (terminals and
    /// sockets take what fits).
    rest: Vec<u8>,
    lost: u64,
}

impl Lines {
    fn new(output: Output) -> Lines {
        Lines {
            output,
            rest: Vec::new(),
            lost: 0,
        }
    }

    /// Writes a line, or counts it as lost.
    fn push(&mut self, line: &str) {
        if !self.settle() {
            self.lost += 1;
            return;
        }
        let mut text = String::new();
        if self.lost > 0 {
            text = format!(
                "sockwatch: warning: {} log lines lost: standard error took none\n",
                self.lost
            );
        }
        text.push_str(line);
        match self.output.write(text.as_bytes()) {
            Ok(written) => {
                self.lost = 0;
                self.rest.extend_from_slice(&text.as_bytes()[written..]);
            }
            // There is no other place to say it: counting is telling, later.
            Err(_) => self.lost += 1,
        }
    }

    /// Writes the rest of the last line; whether it is whole now.
    fn settle(&mut self) -> bool {
        if !self.rest.is_empty() {
            match self.output.write(&self.rest) {
                Ok(written) => {
                    self.rest.drain(..written);
                }
                // As above: the line to come is counted as lost.
                Err(_) => return false,
            }
        }
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::output::Refused;
    use std::io::{PipeReader, Read, pipe};
    use std::os::fd::AsFd;

    fn lines() -> (PipeReader, Lines) {
        let (reader, writer) = pipe().unwrap();
        let output = Output::over(writer.as_fd(), Refused::Poll).unwrap();
        (reader, Lines::new(output))
    }

    #[test]
    fn a_line_has_its_level_and_no_control_character() {
        assert_eq!(line(Level::Warn, "a\nb"), "sockwatch: warning: a\\nb\n");
        assert_eq!(line(Level::Info, "ready"), "sockwatch: ready\n");
        assert_eq!(line(Level::Error, "\x1b"), "sockwatch: error: \\u{1b}\n");
        assert_eq!(line(Level::Debug, "x"), "sockwatch: debug: x\n");
        let long = line(Level::Info, &"ü".repeat(LINE_MAX));
        assert!(long.len() <= LINE_MAX + 4 && long.ends_with("...\n"));
    }

    #[test]
    fn levels() {
        assert_eq!(level("debug"), Some(LevelFilter::Debug));
        assert_eq!(level(""), Some(LevelFilter::Info));
        assert_eq!(level("verbose"), None);
        assert_eq!(
            InitError::Level("verbose\n".into()).to_string(),
            "SOCKWATCH_LOG is \"verbose\\n\"; expected error, warn, info or debug"
        );
    }

    #[test]
    fn a_full_pipe_loses_lines_and_says_how_many() {
        let (mut reader, mut lines) = lines();
        let text = line(Level::Info, &"x".repeat(1000));
        let mut pushed = 0;
        while lines.lost < 3 {
            lines.push(&text);
            pushed += 1;
        }
        let mut room = vec![0; text.len() * 8];
        reader.read_exact(&mut room).unwrap();
        lines.push("last\n");
        assert_eq!(lines.lost, 0);
        drop(lines);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        let all = String::from_utf8(room).unwrap() + &rest;
        let expected = text.repeat(pushed - 3)
            + "sockwatch: warning: 3 log lines lost: standard error took none\nlast\n";
        assert!(all == expected);
    }

    #[test]
    fn a_reader_that_is_gone_is_no_failure() {
        let (reader, mut lines) = lines();
        drop(reader);
        lines.push("a\n");
        assert_eq!(lines.lost, 1);
    }
}
