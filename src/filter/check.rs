//! Patterns that cannot be meant: what can match nothing is an error that says
//! which word is to blame and which word may have been meant.

use super::ends;
use super::matcher::{FIRST, Matcher, WORDS};
use super::syntax::{self, GlobError, Pattern, Word};
use crate::model::{Proto, TcpState};

/// A pattern this long is generated, and its automaton would cost more than it
/// is worth.
const LONGEST: usize = 1024;

const SHAPE: &str = "<proto> <local> <remote> <remote-host> <state>";

/// Compiles a pattern that can match something.
pub(super) fn compile(text: &str) -> Result<Matcher, GlobError> {
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
    let matcher = Matcher::new(&pattern)?;
    let (Some(first), Some(last)) = (pattern.words.first(), pattern.words.last()) else {
        return Ok(matcher);
    };
    count(text, &pattern)?;
    if !FIRST.iter().any(|word| matcher.can_begin(word)) {
        return Err(GlobError::at(
            first.span.start,
            format!(
                "no tuple begins with \"{}\"; the first word is tcp, udp, tcp4, tcp6, udp4 or udp6",
                written(text, first)
            ),
        )
        .hint(nearest(written(text, first), FIRST)));
    }
    if let Some(word) = &last.literal
        && pattern.words.len() > 1
        && !states().any(|state| state == word)
    {
        return Err(GlobError::at(
            last.span.start,
            match word.as_str() {
                "" => "no tuple ends with a space".to_owned(),
                word => format!("no tuple ends with \"{word}\"; the last word is a state"),
            },
        )
        .hint(nearest(word, states()).or_else(|| longer(text, &pattern))));
    }
    ends::check(text, &pattern)?;
    if !matcher.cells.is_possible() {
        return Err(impossible(text, &pattern));
    }
    Ok(matcher)
}

/// Words are what literal spaces part, of which a tuple has four, none beside
/// another. A pattern without wildcards needs them all.
fn count(text: &str, pattern: &Pattern) -> Result<(), GlobError> {
    let words = &pattern.words;
    let inner = words.get(1..words.len() - 1).unwrap_or_default();
    let empty = inner
        .iter()
        .find(|word| word.literal.as_deref() == Some(""));
    if let Some(word) = empty {
        let message = format!("two spaces; one is between the five words of {SHAPE}");
        return Err(GlobError::at(word.span.start, message));
    }
    let plural = if words.len() == 1 { "" } else { "s" };
    let has = format!("this has {} word{plural}", words.len());
    if let Some(sixth) = words.get(WORDS) {
        let message = format!("a tuple has the five words of {SHAPE}, {has}");
        return Err(GlobError::at(sixth.span.start, message));
    }
    if !pattern.literal || words.len() == WORDS {
        return Ok(());
    }
    let blame = words.last().map_or(0, |word| word.span.start);
    let message = format!("a pattern without a wildcard needs the five words of {SHAPE}, {has}");
    Err(GlobError::at(blame, message).hint(longer(text, pattern)))
}

/// The same pattern with the words behind it that were forgotten, if that is one.
fn longer(text: &str, pattern: &Pattern) -> Option<String> {
    let missing = match pattern.words.len() {
        1 => 1,
        words => WORDS.checked_sub(words)?,
    };
    let longer = format!("{text}{}", " *".repeat(missing));
    is_possible(&longer).then(|| format!("did you mean \"{longer}\"?"))
}

fn is_possible(text: &str) -> bool {
    syntax::read(text)
        .and_then(|pattern| {
            ends::check(text, &pattern)?;
            Matcher::new(&pattern)
        })
        .is_ok_and(|matcher| matcher.cells.is_possible())
}

/// Explains why a pattern that reads well matches nothing: to blame is the last
/// word without which it would match.
fn impossible(text: &str, pattern: &Pattern) -> GlobError {
    let possible_with = |word: &Word, instead: &str| {
        let mut other = text.to_owned();
        other.replace_range(word.span.clone(), instead);
        is_possible(&other)
    };
    let to_blame = pattern
        .words
        .iter()
        .rev()
        // Each costs a compilation, and a tuple has five words anyway.
        .take(8)
        .find(|word| possible_with(word, "*"));
    let Some(word) = to_blame else {
        return GlobError::at(0, format!("no tuple {SHAPE} can match this"));
    };
    let blamed = written(text, word);
    let is_last = pattern.words.last() == Some(word);
    let hint = if let Some(advice) = ends::advice(blamed) {
        Some(advice)
    } else if is_last && blamed == "LISTEN" {
        nearest("UNCONN", ["UNCONN"])
    } else if is_last && blamed == "UNCONN" {
        nearest("CLOSE", ["CLOSE"])
    } else if is_last {
        nearest(blamed.trim_matches('*'), states()).or_else(|| longer(text, pattern))
    } else if blamed.chars().any(|c| c.is_ascii_uppercase()) {
        let lower = blamed.to_ascii_lowercase();
        nearest(&lower, [lower.as_str()])
    } else {
        let with_port = format!("{blamed}:*");
        possible_with(word, &with_port).then(|| format!("did you mean \"{with_port}\"?"))
    };
    GlobError::at(
        word.span.start,
        format!("no tuple {SHAPE} can match this, because of \"{blamed}\""),
    )
    .hint(hint)
}

fn written<'a>(text: &'a str, word: &Word) -> &'a str {
    &text[word.span.clone()]
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
