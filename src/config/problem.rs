//! One mistake in a configuration, as a person reads it.
//!
//! Every message has the same three parts, so that it can be acted on without
//! the manual: where, what was found there, and what was expected instead.
//! Text from the file is escaped and shortened before it gets in here: a
//! configuration must not be able to write to the terminal of whoever checks it.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::log::Plain;
use crate::order::by_number;

/// A line and a column, both from 1; columns count characters, not bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The character in it.
    pub column: u32,
}

impl Position {
    /// What orders positions, from 1.
    fn number(self) -> u64 {
        u64::from(self.line) << 32 | u64::from(self.column)
    }

    /// A position of these two; a file is far too small for them to overflow.
    pub(super) fn new(line: usize, column: usize) -> Position {
        let small = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Position {
            line: small(line),
            column: small(column),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Where a piece of YAML stands, and through which alias it came to be looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spot {
    /// The text itself; for an aliased value the text at the anchor.
    pub at: Position,
    /// The nearest alias on the way to it.
    pub via: Option<Position>,
}

impl Spot {
    /// The beginning of a file, for what is wrong with the whole of it.
    pub const START: Spot = Spot {
        at: Position { line: 1, column: 1 },
        via: None,
    };

    /// Text that was not reached through an alias.
    pub fn new(line: usize, column: usize) -> Spot {
        Spot {
            at: Position::new(line, column),
            via: None,
        }
    }
}

/// A mistake in the configuration, or (among the warnings) something legal that
/// cannot do what it seems to be meant for.
///
/// `Display` writes `path:line:column: <found>, expected <expected>[; did you
/// mean ...?]`; without the position where a file could not be read, and without
/// the path where the command line is at fault. For a value that is at fault
/// only where an alias uses it, the position is that of the text at the anchor,
/// and the message names the alias too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    file: Option<Arc<Path>>,
    spot: Option<Spot>,
    found: String,
    expected: String,
    meant: Option<String>,
}

impl Problem {
    /// A problem with no place in a file.
    pub(super) fn new(found: impl Into<String>, expected: impl Into<String>) -> Problem {
        Problem {
            file: None,
            spot: None,
            found: found.into(),
            expected: expected.into(),
            meant: None,
        }
    }

    /// The same, in this file.
    pub(super) fn of(mut self, file: &Arc<Path>) -> Problem {
        self.file = Some(Arc::clone(file));
        self
    }

    /// The same, at this place of its file.
    pub(super) fn at(mut self, spot: Spot) -> Problem {
        self.spot = Some(spot);
        self
    }

    /// The same, of this flag.
    pub(super) fn within(mut self, flag: &str) -> Problem {
        self.found = format!("{flag}: {}", self.found);
        self
    }

    /// The same, with what may have been meant.
    pub(super) fn meant(mut self, meant: Option<String>) -> Problem {
        self.meant = meant;
        self
    }

    /// The place in the file, unless the file could not be read at all.
    pub fn position(&self) -> Option<Position> {
        self.spot.map(|spot| spot.at)
    }

    /// The place of what used it through an alias.
    fn via(&self) -> Option<Position> {
        self.spot.and_then(|spot| spot.via)
    }

    /// What is the same however the text was reached.
    fn mistake(&self) -> (Option<Position>, String, String) {
        (self.position(), self.found.clone(), self.expected.clone())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", Plain(&file.to_string_lossy()))?;
            if let Some(spot) = self.spot {
                write!(f, "{}:", spot.at)?;
            }
            write!(f, " ")?;
        }
        write!(f, "{}", self.found)?;
        if let Some(via) = self.spot.and_then(|spot| spot.via) {
            write!(f, " (used by the alias at {via})")?;
        }
        write!(f, ", expected {}", self.expected)?;
        if let Some(meant) = &self.meant {
            write!(f, "; did you mean `{meant}`?")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// How many problems of one file are told; the rest is counted.
const TOLD: usize = 100;

/// Puts the problems of one file into the order of its text; `what` is the word
/// for one. What an anchor and its aliases make of one mistake is told once.
pub(super) fn in_order(mut problems: Vec<Problem>, file: &Arc<Path>, what: &str) -> Vec<Problem> {
    // What is used in place comes before what is used through an alias.
    let place = |at: Option<Position>| at.map_or(0, Position::number);
    by_number(&mut problems, |problem| place(problem.via()));
    by_number(&mut problems, |problem| place(problem.position()));
    let mut seen = HashSet::new();
    problems.retain(|problem| seen.insert(problem.mistake()));
    let untold = problems.len().saturating_sub(TOLD);
    problems.truncate(TOLD);
    if untold > 0 {
        let plural = if untold == 1 { "" } else { "s" };
        let found = format!("{untold} more {what}{plural}");
        problems.push(Problem::new(found, "the ones above to be mended first"));
    }
    problems
        .into_iter()
        .map(|problem| problem.of(file))
        .collect()
}

/// Text from outside, quoted for a message: escaped and at most 60 characters.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut short: String = text.chars().take(LONGEST).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("`{}`", Plain(&short))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_terminal_obeys_gets_through() {
        assert_eq!(
            quoted("a\x1b[2J\u{202e}b\u{7f}\r\n\u{9b}é\"\\\u{3164}\u{180b}"),
            "`a\\u{1b}[2J\\u{202e}b\\u{7f}\\r\\n\\u{9b}é\"\\\\u{3164}\\u{180b}`"
        );
        assert_eq!(quoted(&"x".repeat(61)), format!("`{}…`", "x".repeat(60)));
    }

    #[test]
    fn a_flood_is_counted() {
        let file: Arc<Path> = Path::new("f").into();
        // Each twice, as an anchor and its alias have it.
        for (lines, last) in [(250, "150 more mistakes"), (101, "1 more mistake")] {
            let flood = (0..2 * lines)
                .map(|line| Problem::new("x", "y").at(Spot::new(line % lines, 1)))
                .collect();
            let told = in_order(flood, &file, "mistake");
            assert_eq!(told.len(), 101);
            let expected = format!("f: {last}, expected the ones above to be mended first");
            assert_eq!(told[100].to_string(), expected);
        }
    }
}
