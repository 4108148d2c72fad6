//! From a path to text that every YAML parser reads alike.
//!
//! YAML 1.1 and 1.2 and their parsers differ on control characters, on what ends a
//! line and on tabs: a comment in one program could be a key in another, and in an
//! editor look like neither. None of that has a use in a configuration, and it is
//! refused here, by position. Whatever the path leads to, no more than [`LARGEST`]
//! bytes of it are read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::problem::{Problem, Spot};

/// The largest file that is read, in bytes.
const LARGEST: usize = 1 << 20;

/// Reads a file; the problems have no file yet.
pub(super) fn read(path: &Path) -> Result<String, Vec<Problem>> {
    let unread = |error: io::Error| {
        let found = match error.kind() {
            io::ErrorKind::IsADirectory => "a directory".to_owned(),
            _ => format!("a file that cannot be read ({error})"),
        };
        vec![Problem::new(found, "a YAML file")]
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST as u64 + 1).read_to_end(&mut bytes))
        .map_err(unread)?;
    decode(bytes)
}

/// Turns the bytes of a file into text without a byte order mark, all of whose
/// lines end.
pub(super) fn decode(bytes: Vec<u8>) -> Result<String, Vec<Problem>> {
    if bytes.len() > LARGEST {
        return Err(vec![Problem::new(
            "a file of more than 1 MiB",
            "a configuration of at most 1 MiB",
        )]);
    }
    let mut text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Err(vec![not_utf8(error.as_bytes(), &error.utf8_error())]),
    };
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    // Without a last line end parsers differ on what `|` keeps of it.
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let problems = misread(&text);
    if problems.is_empty() {
        Ok(text)
    } else {
        Err(problems)
    }
}

/// Names the first byte that is no UTF-8.
fn not_utf8(bytes: &[u8], error: &std::str::Utf8Error) -> Problem {
    let (good, bad) = bytes.split_at(error.valid_up_to());
    let good = String::from_utf8_lossy(good);
    let good = good.strip_prefix('\u{feff}').unwrap_or(&good);
    let (mut line, mut column) = (1, 1);
    let mut rest = good.chars().peekable();
    while let Some(c) = rest.next() {
        if ends_line(c, rest.peek()) {
            (line, column) = (line + 1, 1);
        } else {
            column += 1;
        }
    }
    let found = match bad.first() {
        Some(byte) => format!("byte 0x{byte:02x}"),
        None => "a cut character".to_owned(),
    };
    Problem::new(found, "UTF-8").at(Spot::new(line, column))
}

/// The lines of a text, as the positions count them.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| {
        // Of CR LF, the LF has ended the line already.
        let line = line.strip_suffix('\r').unwrap_or(line);
        line.split('\r')
    })
}

/// Finds a directive, or the end of a document, before the document begins.
fn prologue(text: &str) -> Option<Problem> {
    let (line, first) = lines(text).zip(1..).find_map(|(text, number)| {
        let content = text.trim_start();
        (!content.is_empty() && !content.starts_with('#')).then_some((number, text))
    })?;
    let found = match first {
        _ if first.starts_with('%') => "YAML directive",
        _ if first.starts_with("...") => "end of a document that has not begun",
        _ => return None,
    };
    let expected = "a configuration that begins with its keys";
    Some(Problem::new(found, expected).at(Spot::new(line, 1)))
}

/// Finds the characters on which YAML parsers differ.
fn misread(text: &str) -> Vec<Problem> {
    let mut problems = Vec::from_iter(prologue(text));
    let (mut line, mut column, mut indenting) = (1, 1, true);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if let Some((found, expected)) = fault(c, indenting) {
            problems.push(Problem::new(found, expected).at(Spot::new(line, column)));
        }
        if ends_line(c, rest.peek()) {
            (line, column, indenting) = (line + 1, 1, true);
        } else {
            column += 1;
            // After a tab one message is enough.
            indenting &= matches!(c, ' ' | '-' | '?' | ':');
        }
    }
    problems
}

/// What is wrong with a character, and what is expected in its place. A tab is
/// wrong only before the content of a line, where it would count as indentation;
/// that it is refused there even inside a text of several lines costs nobody
/// anything.
fn fault(c: char, indenting: bool) -> Option<(String, &'static str)> {
    let code = u32::from(c);
    match c {
        '\t' if indenting => Some(("tab in the indentation".to_owned(), "spaces")),
        '\t' | '\n' | '\r' => None,
        '\u{85}' | '\u{2028}' | '\u{2029}' => Some((
            format!("line separator U+{code:04X}"),
            "lines that end in a line feed",
        )),
        '\u{feff}' => Some((
            "byte order mark U+FEFF inside the text".to_owned(),
            "none, or one at the very beginning",
        )),
        '\u{fffe}' | '\u{ffff}' => Some((
            format!("character U+{code:04X}"),
            "characters that YAML allows",
        )),
        _ if c.is_control() => Some((
            format!("control character U+{code:04X}"),
            "text (in a quoted text write `\\x1b` and the like)",
        )),
        _ => None,
    }
}

/// Whether a line ends with this character: LF, CR, or CR LF at its LF.
fn ends_line(c: char, next: Option<&char>) -> bool {
    c == '\n' || (c == '\r' && next != Some(&'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bytes: &[u8]) -> Vec<String> {
        match decode(bytes.to_vec()) {
            Ok(_) => Vec::new(),
            Err(problems) => problems
                .iter()
                .map(|p| {
                    let at = p.position().expect("these have a place");
                    format!("{at} {p}")
                })
                .collect(),
        }
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(
            told("\u{feff}é: ü\r\né\u{2028}\rx\u{1b}".as_bytes()),
            [
                "2:2 line separator U+2028, expected lines that end in a line feed",
                "3:2 control character U+001B, expected text (in a quoted text write `\\x1b` \
                 and the like)"
            ]
        );
        assert_eq!(
            told(b"\xef\xbb\xbfa: \xc3\xa9\n b\xff"),
            ["2:3 byte 0xff, expected UTF-8"]
        );
        assert_eq!(told(b"a: \xc3"), ["1:4 byte 0xc3, expected UTF-8"]);
    }

    #[test]
    fn tabs_are_refused_only_before_the_content() {
        assert_eq!(told(b"a: 1\t# why\nb: \"x\ty\"\n"), [""; 0]);
        assert_eq!(
            told(b"a:\n \t\tb: 1\n-\tc"),
            [
                "2:2 tab in the indentation, expected spaces",
                "3:2 tab in the indentation, expected spaces"
            ]
        );
    }
}
