//! Globs over event ids, `<sensor-id>|<listener>[@tag]|<action>@<remote>|0`: the
//! same notation as over tuples, and the same automaton.

use globset::GlobBuilder;

use super::automaton::Automaton;
use super::syntax::{self, GlobError};

/// A pattern this long is generated, and its automaton would cost more than it
/// is worth.
const LONGEST: usize = 1024;

/// A compiled glob over event ids. `*` crosses everything, `|` included; brackets
/// around something with a colon are an IPv6 address.
#[derive(Debug)]
pub struct IdGlob {
    text: String,
    automaton: Automaton,
    literal: bool,
}

impl IdGlob {
    /// Compiles a glob.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn new(text: &str) -> Result<IdGlob, GlobError> {
        if text.is_empty() {
            let error = GlobError::at(0, "an empty pattern matches nothing");
            return Err(error.hint(Some("`*` matches everything".into())));
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
        let automaton =
            Automaton::new(glob.regex()).map_err(|error| GlobError::at(0, error.to_string()))?;
        Ok(IdGlob {
            text: text.to_owned(),
            automaton,
            literal: pattern.literal,
        })
    }

    /// Whether it matches this event id.
    pub fn matches(&self, eid: &str) -> bool {
        self.automaton.matches_text(eid)
    }

    /// Whether it could match an event id that begins so.
    pub fn can_begin(&self, eid: &str) -> bool {
        self.automaton.can_begin(eid)
    }

    /// Whether nothing in it stands for more than itself.
    pub fn is_literal(&self) -> bool {
        self.literal
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for IdGlob {
    fn eq(&self, other: &IdGlob) -> bool {
        self.text == other.text
    }
}

impl Eq for IdGlob {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_over_event_ids() {
        let v4 = "sockets|net.socket@web|opened@203.0.113.7:443|0";
        let v6 = "sockets|net.socket|closed@[2001:db8::1]:443|0";
        for (glob, four, six) in [
            ("*", true, true),
            ("sockets|*", true, true),
            ("sockets|net.socket*|opened@*|0", true, false),
            ("*|net.socket|*", false, true),
            ("*@[2001:db8::1]:443|0", false, true),
            ("*@[2001:db8:*]:*", false, true),
            ("*|{opened,closed}@*:443|?", true, true),
            ("*|[!o]*@*:443|0", true, true),
            (v4, true, false),
            ("sockets", false, false),
        ] {
            let compiled = IdGlob::new(glob).unwrap();
            assert_eq!(compiled.matches(v4), four, "{glob}");
            assert_eq!(compiled.is_literal(), [v4, "sockets"].contains(&glob));
            assert_eq!(compiled.matches(v6), six, "{glob}");
        }
        let glob = IdGlob::new("sockets|net.socket*|opened@*").unwrap();
        assert!(glob.can_begin("sockets|net.socket@web|opened@"));
        assert!(!glob.can_begin("other|net.socket|"));
    }

    #[test]
    fn what_cannot_be_read_has_its_place() {
        for (glob, offset) in [("", 0), ("a|[b", 2), ("a|{b", 2), (&"a".repeat(1025), 0)] {
            assert_eq!(IdGlob::new(glob).unwrap_err().offset, offset, "{glob}");
        }
    }
}
