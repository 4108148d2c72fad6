//! Globs, each compiled once.
//!
//! A configuration is checked, warned about and loaded, and aliases put the same
//! lists into many sensors: the same text comes here again and again, and a
//! compilation costs a thousand times what finding the last one does.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::check;
use super::matcher::{Matcher, WORDS};
use super::shape::{Cells, Subject};
use super::syntax::{self, GlobError};
use super::{Filter, Scratch};

/// What became of each text.
type Compiled = HashMap<String, Result<Rc<Matcher>, GlobError>>;

/// The globs that were compiled so far, and what was wrong with the others.
#[derive(Default, Debug)]
pub struct Globs(RefCell<[Compiled; 2]>);

impl Globs {
    /// None yet.
    pub fn new() -> Globs {
        Globs::default()
    }

    /// Compiles a pattern that can match something.
    ///
    /// # Errors
    /// Why it cannot be meant.
    pub fn compile(&self, text: &str, subject: Subject) -> Result<Rc<Matcher>, GlobError> {
        let known = &mut self.0.borrow_mut()[subject as usize];
        if let Some(known) = known.get(text) {
            return known.clone();
        }
        let compiled = check::compile(text, subject).map(Rc::new);
        known.insert(text.to_owned(), compiled.clone());
        compiled
    }

    /// The same pattern with `*` for the words that are missing behind it, if
    /// that can be meant.
    pub fn in_five_words(&self, text: &str, subject: Subject) -> Option<String> {
        let words = syntax::read(text).ok()?.words.len();
        let padded = format!("{text}{}", " *".repeat(WORDS.checked_sub(words)?));
        self.compile(&padded, subject).ok().map(|_| padded)
    }

    /// Compiles both lists of a sensor; without patterns everything matches.
    ///
    /// # Errors
    /// The first glob that cannot be meant.
    pub fn filter(
        &self,
        patterns: &[String],
        ignore: &[String],
        subject: Subject,
    ) -> Result<Filter, GlobError> {
        let all = |globs: &[String]| -> Result<Vec<Rc<Matcher>>, GlobError> {
            globs
                .iter()
                .map(|glob| self.compile(glob, subject))
                .collect()
        };
        let (patterns, ignore) = (all(patterns)?, all(ignore)?);
        let all = patterns.is_empty();
        let wanted = if all {
            Cells::ALWAYS
        } else {
            Cells::any(patterns.iter().map(|pattern| pattern.cells))
        };
        let unwanted = Cells::any(ignore.iter().map(|glob| glob.cells));
        Ok(Filter {
            patterns,
            ignore,
            all,
            certain: wanted.but_not(unwanted),
            scratch: RefCell::new(Scratch::default()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_is_compiled_once_for_all_filters() {
        let globs = Globs::new();
        let list = ["tcp *".to_owned(), "* LISTEN".to_owned()];
        let one = globs.filter(&list, &[], Subject::Sockets).unwrap();
        let other = globs
            .filter(&list[..1], &list[1..], Subject::Sockets)
            .unwrap();
        assert!(Rc::ptr_eq(&one.patterns[0], &other.patterns[0]));
        assert!(Rc::ptr_eq(&one.patterns[1], &other.ignore[0]));
        let typo = || globs.compile("tpc *", Subject::Sockets).err();
        assert_eq!(typo(), typo());
        assert_eq!(globs.0.borrow()[Subject::Sockets as usize].len(), 3);
        assert!(globs.compile("* LISTEN", Subject::Connects).is_err());
    }
}
