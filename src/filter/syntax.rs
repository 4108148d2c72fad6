//! A pattern's text: where its words are, and the glob that globset reads.
//!
//! globset knows nothing of tuples: to it `[2001:db8::1]` is a character class,
//! and its errors have no position. This module reads the text once, puts IPv6
//! brackets in escapes, and finds the words that messages point at.

use std::error::Error;
use std::fmt;
use std::ops::Range;

/// What is wrong with a pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GlobError {
    /// The byte of the pattern at which the offending word begins.
    pub offset: usize,
    /// What is wrong, as a clause.
    pub message: String,
    /// What may have been meant, as a clause of its own.
    pub hint: Option<String>,
}

impl GlobError {
    pub(super) fn at(offset: usize, message: impl Into<String>) -> GlobError {
        GlobError {
            offset,
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn hint(mut self, hint: Option<String>) -> GlobError {
        self.hint = hint;
        self
    }
}

impl fmt::Display for GlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl Error for GlobError {}

/// One word: what stands between literal spaces outside braces and brackets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Word {
    /// Where it stands in the pattern.
    pub span: Range<usize>,
    /// Its text without escapes, if it is literal.
    pub literal: Option<String>,
}

/// A pattern as read.
#[derive(Debug)]
pub(super) struct Pattern {
    /// The glob for globset.
    pub glob: String,
    /// The words, at least one.
    pub words: Vec<Word>,
    /// Nothing in it stands for more than itself.
    pub literal: bool,
}

/// Reads a pattern.
pub(super) fn read(pattern: &str) -> Result<Pattern, GlobError> {
    let mut reader = Reader {
        glob: String::with_capacity(pattern.len() + 8),
        words: Vec::new(),
        begin: 0,
        word: Some(String::new()),
        braces: Vec::new(),
        literal: true,
    };
    reader.read(pattern, 0)?;
    reader.end_word(pattern.len());
    if let Some(&offset) = reader.braces.first() {
        return Err(GlobError::at(offset, "`{` without its `}`"));
    }
    Ok(Pattern {
        glob: reader.glob,
        words: reader.words,
        literal: reader.literal,
    })
}

struct Reader {
    glob: String,
    words: Vec<Word>,
    /// Where the current word begins.
    begin: usize,
    /// The current word as long as it is literal.
    word: Option<String>,
    /// Where the open braces are.
    braces: Vec<usize>,
    literal: bool,
}

impl Reader {
    /// Reads `text`, which stands at `base`: the pattern, or what is between
    /// the brackets of an address in it.
    fn read(&mut self, text: &str, base: usize) -> Result<(), GlobError> {
        let mut at = 0;
        while let Some(c) = text[at..].chars().next() {
            let here = base + at;
            at += c.len_utf8();
            let rest = &text[at..];
            match c {
                '\\' => {
                    let Some(escaped) = rest.chars().next() else {
                        return Err(GlobError::at(here, "`\\` with nothing to escape"));
                    };
                    at += escaped.len_utf8();
                    self.glob.push('\\');
                    self.plain(here..base + at, escaped);
                }
                '[' => {
                    if let Some(inside) = address(rest) {
                        self.glob.push('\\');
                        self.plain(here..base + at, '[');
                        self.read(inside, base + at)?;
                        at += inside.len();
                        self.glob.push('\\');
                        self.plain(base + at..base + at + 1, ']');
                        at += 1;
                    } else {
                        let class = class(rest)
                            .ok_or_else(|| GlobError::at(here, "`[` without its `]`"))?;
                        if class.contains(':') {
                            return Err(GlobError::at(here, "`:` in a character class"));
                        }
                        self.wild();
                        self.glob.push('[');
                        self.glob.push_str(class);
                        at += class.len();
                    }
                }
                '*' | '?' => {
                    self.wild();
                    self.glob.push(c);
                }
                '{' => {
                    self.braces.push(here);
                    self.wild();
                    self.glob.push(c);
                }
                '}' => {
                    if self.braces.pop().is_none() {
                        return Err(GlobError::at(here, "`}` without its `{`"));
                    }
                    self.glob.push(c);
                }
                c => self.plain(here..base + at, c),
            }
        }
        Ok(())
    }

    /// A character that stands for itself.
    fn plain(&mut self, span: Range<usize>, c: char) {
        self.glob.push(c);
        if c == ' ' && self.braces.is_empty() {
            self.end_word(span.start);
            self.begin = span.end;
        } else if let Some(word) = &mut self.word {
            word.push(c);
        }
    }

    /// A character that stands for others.
    fn wild(&mut self) {
        self.word = None;
        self.literal = false;
    }

    fn end_word(&mut self, end: usize) {
        self.words.push(Word {
            span: self.begin..end,
            literal: self.word.replace(String::new()),
        });
    }
}

/// What is between the brackets of an address, if the text after a `[` is one:
/// brackets around a colon. They may hold character classes.
fn address(rest: &str) -> Option<&str> {
    let (mut depth, mut escaped) = (1, false);
    let (mut first, mut matching) = (None, None);
    for (at, c) in rest.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => depth += 1,
            ']' => {
                depth -= 1;
                first = first.or(Some(at));
                if depth == 0 {
                    matching = Some(at);
                    break;
                }
            }
            _ => {}
        }
    }
    let inside = &rest[..matching.or(first)?];
    inside.contains(':').then_some(inside)
}

/// The text of a character class after its `[`, with its `]`, by globset's
/// rules: a negation, then at least one character, `]` among them.
fn class(rest: &str) -> Option<&str> {
    let negated = usize::from(rest.starts_with(['!', '^']));
    let first = rest[negated..].chars().next()?.len_utf8();
    let end = rest[negated + first..].find(']')?;
    Some(&rest[..negated + first + end + 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(pattern: &str) -> String {
        read(pattern).unwrap().glob
    }

    #[test]
    fn brackets_around_a_colon_are_an_address() {
        assert_eq!(glob("[2001:db8::1]:443"), r"\[2001:db8::1\]:443");
        assert_eq!(glob("[2001:db8:*]:*"), r"\[2001:db8:*\]:*");
        assert_eq!(glob("[::]:0"), r"\[::\]:0");
        assert_eq!(glob("[fe80:[0-9]*]:1"), r"\[fe80:[0-9]*\]:1");
        assert_eq!(glob("{[::1],[::]}:1"), r"{\[::1\],\[::\]}:1");
        assert_eq!(glob("tcp[46] [!a]"), "tcp[46] [!a]");
        assert_eq!(glob(r"\[::\]"), r"\[::\]");
        assert_eq!(glob("[]a] [!]]"), "[]a] [!]]");
    }

    #[test]
    fn words_end_at_literal_spaces() {
        let words = |pattern| -> Vec<(Range<usize>, Option<String>)> {
            let pattern = read(pattern).unwrap();
            pattern
                .words
                .into_iter()
                .map(|word| (word.span, word.literal))
                .collect()
        };
        assert_eq!(
            words(r"tcp {a b,c}\ [::1]:2"),
            [
                (0..3, Some("tcp".into())),
                (4..11, None),
                (13..20, Some("[::1]:2".into()))
            ]
        );
        assert_eq!(words(" *"), [(0..0, Some("".into())), (1..2, None)]);
        assert_eq!(words(""), [(0..0, Some("".into()))]);
    }

    #[test]
    fn errors_have_their_place() {
        for (pattern, offset) in [
            ("tcp [ab", 4),
            ("tcp {a,{b}", 4),
            ("tcp a}", 5),
            ("tcp \\", 4),
            ("tcp []:]", 4),
            ("[[2001:db8::1]:443", 1),
        ] {
            assert_eq!(read(pattern).unwrap_err().offset, offset, "{pattern}");
        }
    }
}
