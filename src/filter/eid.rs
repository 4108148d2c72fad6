//! A glob over event ids: `sockets|net.socket*|closed@[2001:db8::*]:443|0`.
//!
//! The notation is that of the patterns over tuples, brackets around a colon
//! included; the whole id must match, and `*` crosses everything. An id is free
//! text, so that nothing but a glob's own form can be wrong with it.

use globset::GlobBuilder;

use super::automaton::Automaton;
use super::syntax::{self, GlobError};

/// A glob this long is generated, and its automaton would cost more than it is
/// worth.
const LONGEST: usize = 1024;

/// A compiled glob over event ids.
#[derive(Debug)]
pub struct EidGlob {
    automaton: Automaton,
    literal: bool,
}

impl EidGlob {
    /// Compiles a glob.
    ///
    /// # Errors
    /// What is wrong with its form.
    pub fn new(text: &str) -> Result<EidGlob, GlobError> {
        if text.is_empty() {
            return Err(GlobError::at(0, "an empty glob matches nothing")
                .hint(Some("`*` matches everything".into())));
        }
        if text.len() > LONGEST {
            return Err(GlobError::at(0, format!("longer than {LONGEST} bytes")));
        }
        let pattern = syntax::read(text)?;
        let glob = GlobBuilder::new(&pattern.glob)
            .literal_separator(false)
            .backslash_escape(true)
            .empty_alternates(true)
            .build()
            .map_err(|error| GlobError::at(0, error.kind().to_string()))?;
        let automaton = Automaton::new(glob.regex())
            .map_err(|error| GlobError::at(0, format!("too large or too deep: {error}")))?;
        Ok(EidGlob {
            automaton,
            literal: pattern.literal,
        })
    }

    /// Whether nothing in it stands for more than itself.
    pub fn is_literal(&self) -> bool {
        self.literal
    }

    /// Whether the whole id matches.
    pub fn matches(&self, eid: &str) -> bool {
        self.automaton.is_match(eid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_ids_match() {
        let eid = "sockets|net.socket@t|closed@[2001:db8::1]:443|0";
        for (glob, matches, literal) in [
            ("*", true, false),
            (eid, true, true),
            ("sockets|net.socket*|closed@*|0", true, false),
            ("sockets|*|{opened,closed}@[2001:db8::*]:443|?", true, false),
            ("sockets", false, true),
            ("sockets|*|opened@*", false, false),
            ("*@[2001:db8::2]:*", false, false),
        ] {
            let glob = EidGlob::new(glob).unwrap();
            assert_eq!((glob.matches(eid), glob.is_literal()), (matches, literal));
        }
    }

    #[test]
    fn what_has_no_form_is_refused() {
        for glob in ["", "{a", "[ab", "a\\", &"x".repeat(2000)] {
            assert!(EidGlob::new(glob).is_err(), "{glob}");
        }
    }
}
