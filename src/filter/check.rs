//! Patterns that cannot be meant: what can match nothing is an error that says
//! which word is to blame and which word may have been meant.

use super::ends;
use super::matcher::{FIRST, Matcher, WORDS};
use super::shape::{CONNECT, Subject};
use super::syntax::{self, GlobError, Pattern, Word};
use crate::model::{Proto, TcpState};

/// A pattern this long is generated, and its automaton would cost more than it
/// is worth.
const LONGEST: usize = 1024;

impl Subject {
    /// The five words of a tuple.
    fn shape(self) -> &'static str {
        match self {
            Subject::Sockets => "<proto> <local> <remote> <remote-host> <state>",
            Subject::Connects => "tcp - <remote> <result> CONNECT",
        }
    }

    /// The first words a tuple can have.
    fn first(self) -> &'static [&'static str] {
        match self {
            Subject::Sockets => &FIRST,
            Subject::Connects => &FIRST[..3],
        }
    }

    /// The last words a tuple can have.
    fn last(self) -> Vec<&'static str> {
        match self {
            Subject::Sockets => states().collect(),
            Subject::Connects => vec![CONNECT],
        }
    }

    /// Whether a pattern could match anything.
    fn can_match(self, matcher: &Matcher) -> bool {
        match self {
            Subject::Sockets => matcher.cells.is_possible(),
            Subject::Connects => matcher.cells.is_possible_connect(),
        }
    }
}

/// Compiles a pattern that can match something.
pub(super) fn compile(text: &str, subject: Subject) -> Result<Matcher, GlobError> {
    if text.is_empty() {
        return Err(GlobError::at(0, "an empty pattern matches nothing")
            .hint(Some("`*` matches everything".into())));
    }
    if text.len() > LONGEST {
        return Err(GlobError::at(
            0,
            format!("longer than {LONGEST} bytes; several patterns do the same"),
        ));
    }
    let pattern = syntax::read(text)?;
    let matcher = Matcher::new(&pattern, subject)?;
    let (Some(first), Some(last)) = (pattern.words.first(), pattern.words.last()) else {
        return Ok(matcher);
    };
    count(text, &pattern, subject)?;
    let first_words = subject.first();
    if !first_words.iter().any(|word| matcher.can_begin(word)) {
        return Err(GlobError::at(
            first.span.start,
            format!(
                "no tuple begins with \"{}\"; the first word is {}",
                written(text, first),
                listed(first_words)
            ),
        )
        .hint(nearest(written(text, first), first_words.iter().copied())));
    }
    if let Some(word) = &last.literal
        && pattern.words.len() > 1
        && !subject.last().contains(&word.as_str())
    {
        let is = match subject {
            Subject::Sockets if word == CONNECT => "one of a net.tcp_connect sensor does",
            Subject::Sockets => "the last word is a state",
            Subject::Connects => "that of a connect() is CONNECT",
        };
        return Err(GlobError::at(
            last.span.start,
            match word.as_str() {
                "" => "no tuple ends with a space".to_owned(),
                word => format!("no tuple ends with \"{word}\"; {is}"),
            },
        )
        .hint(nearest(word, subject.last()).or_else(|| longer(text, &pattern, subject))));
    }
    ends::check(text, &pattern, subject)?;
    if !subject.can_match(&matcher) {
        return Err(impossible(text, &pattern, subject));
    }
    Ok(matcher)
}

/// Words are what literal spaces part, of which a tuple has four, none beside
/// another. A pattern without wildcards needs them all.
fn count(text: &str, pattern: &Pattern, subject: Subject) -> Result<(), GlobError> {
    let shape = subject.shape();
    let words = &pattern.words;
    let inner = words.get(1..words.len() - 1).unwrap_or_default();
    let empty = inner
        .iter()
        .find(|word| word.literal.as_deref() == Some(""));
    if let Some(word) = empty {
        let message = format!("two spaces; one is between the five words of {shape}");
        return Err(GlobError::at(word.span.start, message));
    }
    let plural = if words.len() == 1 { "" } else { "s" };
    let has = format!("this has {} word{plural}", words.len());
    if let Some(sixth) = words.get(WORDS) {
        let message = format!("a tuple has the five words of {shape}, {has}");
        return Err(GlobError::at(sixth.span.start, message));
    }
    if !pattern.literal || words.len() == WORDS {
        return Ok(());
    }
    let blame = words.last().map_or(0, |word| word.span.start);
    let message = format!("a pattern without a wildcard needs the five words of {shape}, {has}");
    Err(GlobError::at(blame, message).hint(longer(text, pattern, subject)))
}

/// The same pattern with the words behind it that were forgotten, if that is one.
fn longer(text: &str, pattern: &Pattern, subject: Subject) -> Option<String> {
    let missing = match pattern.words.len() {
        1 => 1,
        words => WORDS.checked_sub(words)?,
    };
    let longer = format!("{text}{}", " *".repeat(missing));
    is_possible(&longer, subject).then(|| format!("did you mean \"{longer}\"?"))
}

fn is_possible(text: &str, subject: Subject) -> bool {
    syntax::read(text)
        .and_then(|pattern| {
            ends::check(text, &pattern, subject)?;
            Matcher::new(&pattern, subject)
        })
        .is_ok_and(|matcher| subject.can_match(&matcher))
}

/// Explains why a pattern that reads well matches nothing: to blame is the last
/// word without which it would match.
fn impossible(text: &str, pattern: &Pattern, subject: Subject) -> GlobError {
    let shape = subject.shape();
    let possible_with = |word: &Word, instead: &str| {
        let mut other = text.to_owned();
        other.replace_range(word.span.clone(), instead);
        is_possible(&other, subject)
    };
    let to_blame = pattern
        .words
        .iter()
        .rev()
        // Each costs a compilation, and a tuple has five words anyway.
        .take(8)
        .find(|word| possible_with(word, "*"));
    let Some(word) = to_blame else {
        return GlobError::at(0, format!("no tuple {shape} can match this"));
    };
    let blamed = written(text, word);
    let is_last = pattern.words.last() == Some(word);
    let is_local = pattern.words.len() == WORDS && pattern.words.get(1) == Some(word);
    let hint = if subject == Subject::Connects && is_local {
        Some("the local end of a connect() is not chosen yet: \"-\" or \"*\"".to_owned())
    } else if let Some(advice) = ends::advice(blamed) {
        Some(advice)
    } else if is_last && blamed == "LISTEN" {
        nearest("UNCONN", ["UNCONN"])
    } else if is_last && blamed == "UNCONN" {
        nearest("CLOSE", ["CLOSE"])
    } else if is_last {
        nearest(blamed.trim_matches('*'), subject.last()).or_else(|| longer(text, pattern, subject))
    } else if blamed.chars().any(|c| c.is_ascii_uppercase()) {
        let lower = blamed.to_ascii_lowercase();
        nearest(&lower, [lower.as_str()])
    } else {
        let with_port = format!("{blamed}:*");
        possible_with(word, &with_port).then(|| format!("did you mean \"{with_port}\"?"))
    };
    GlobError::at(
        word.span.start,
        format!("no tuple {shape} can match this, because of \"{blamed}\""),
    )
    .hint(hint)
}

fn written<'a>(text: &'a str, word: &Word) -> &'a str {
    &text[word.span.clone()]
}

/// "a, b or c".
fn listed(words: &[&str]) -> String {
    match words {
        [all @ .., last] if !all.is_empty() => format!("{} or {last}", all.join(", ")),
        _ => words.concat(),
    }
}

/// Every state's word; those of UDP are among them.
fn states() -> impl Iterator<Item = &'static str> {
    TcpState::ALL
        .into_iter()
        .map(|state| state.as_str(Proto::Tcp))
        .chain([TcpState::Close.as_str(Proto::Udp)])
}

/// The known word that this is a typo or the beginning of, if there is one.
fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let fold = |word: &str| word.to_ascii_lowercase().replace('-', "_");
    let word = fold(word);
    known
        .into_iter()
        .map(|known| (strsim::osa_distance(&word, &fold(known)), known))
        .filter(|&(typos, known)| {
            typos <= word.len().div_ceil(3) || word.len() > 2 && fold(known).starts_with(&word)
        })
        .min_by_key(|&(typos, _)| typos)
        .map(|(_, known)| format!("did you mean \"{known}\"?"))
}
