//! The regular expressions that globset writes, as automata.
//!
//! globset writes few of all there are: bytes and escapes, `.`, `.*` and `/?`,
//! classes, alternatives in `(?:`, all between `(?-u)^` and `$`. A parser and
//! compiler of all the others is twice as large as the rest of the filter; this
//! reads just these, without recursion, and refuses what it does not know. That
//! it understands them as globset does is what `properties` holds it to.

use std::fmt;
use std::str::Bytes;

use regex_automata::nfa::thompson::{BuildError, Builder, NFA, Transition};
use regex_automata::util::look::Look;
use regex_automata::util::primitives::StateID;

/// How deep alternatives may stand in alternatives: nobody means more.
const DEPTH: usize = 250;

/// Why there is no automaton.
#[derive(Debug)]
pub(super) enum Uncompiled {
    /// It would be larger than allowed.
    TooLarge,
    /// Its alternatives stand in alternatives too often.
    TooDeep,
    /// globset wrote what it is not known to write.
    Unknown,
}

impl fmt::Display for Uncompiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Uncompiled::TooLarge => f.write_str("too large: several patterns do the same"),
            Uncompiled::TooDeep => write!(f, "braces more than {DEPTH} deep"),
            Uncompiled::Unknown => f.write_str("its regular expression is of an unknown kind"),
        }
    }
}

/// Of what the builder refuses only the size depends on the glob.
impl From<BuildError> for Uncompiled {
    fn from(_: BuildError) -> Uncompiled {
        Uncompiled::TooLarge
    }
}

/// What a byte is one of: some ranges, from the lowest byte to the highest one,
/// both included.
type Class = Vec<(u8, u8)>;

/// Compiles a regular expression of globset's into an automaton of at most
/// `limit` bytes.
pub(super) fn compile(regex: &str, limit: usize) -> Result<NFA, Uncompiled> {
    let body = regex
        .strip_prefix("(?-u)^")
        .and_then(|rest| rest.strip_suffix('$'))
        .ok_or(Uncompiled::Unknown)?;
    let mut builder = Builder::new();
    builder.set_size_limit(Some(limit))?;
    builder.start_pattern()?;
    let start = builder.add_empty()?;
    let mut compiler = Compiler {
        builder,
        text: body.bytes(),
        at: start,
        groups: Vec::new(),
    };
    compiler.read()?;
    let Compiler {
        mut builder, at, ..
    } = compiler;
    let end = builder.add_look(StateID::ZERO, Look::End)?;
    builder.patch(at, end)?;
    let matched = builder.add_match()?;
    builder.patch(end, matched)?;
    builder.finish_pattern(start)?;
    Ok(builder.build(start, start)?)
}

/// Alternatives that are being read.
struct Group {
    /// Where they part.
    fork: StateID,
    /// Where they meet again.
    end: StateID,
}

struct Compiler<'t> {
    builder: Builder,
    /// What is not read yet.
    text: Bytes<'t>,
    /// The state that leads to whatever comes next.
    at: StateID,
    /// The open ones, the innermost last.
    groups: Vec<Group>,
}

impl Compiler<'_> {
    fn read(&mut self) -> Result<(), Uncompiled> {
        while let Some(byte) = self.text.next() {
            match byte {
                b'(' => self.open()?,
                b'|' => self.next_alternative()?,
                b')' => {
                    let group = self.groups.pop().ok_or(Uncompiled::Unknown)?;
                    self.lead_to(group.end)?;
                }
                b'[' => {
                    let class = self.class()?;
                    self.one_of(&class)?;
                }
                b'.' if self.skip(b'*') => {
                    let fork = self.builder.add_union(Vec::new())?;
                    self.lead_to(fork)?;
                    self.one_of(&[(0, 255)])?;
                    self.lead_to(fork)?;
                }
                b'.' => self.one_of(&[(0, 255)])?,
                b'*' | b'?' | b'+' | b'{' | b'}' | b']' | b'^' | b'$' => {
                    return Err(Uncompiled::Unknown);
                }
                literal => {
                    let byte = self.literal(literal)?;
                    if self.skip(b'?') {
                        let fork = self.builder.add_union(Vec::new())?;
                        let end = self.builder.add_empty()?;
                        self.lead_to(fork)?;
                        self.one_of(&[(byte, byte)])?;
                        self.lead_to(end)?;
                        self.builder.patch(fork, end)?;
                    } else {
                        self.one_of(&[(byte, byte)])?;
                    }
                }
            }
        }
        if self.groups.is_empty() {
            Ok(())
        } else {
            Err(Uncompiled::Unknown)
        }
    }

    /// Goes on to `next`, from there on.
    fn lead_to(&mut self, next: StateID) -> Result<(), Uncompiled> {
        self.builder.patch(self.at, next)?;
        self.at = next;
        Ok(())
    }

    /// Goes on by a byte of these.
    fn one_of(&mut self, class: &[(u8, u8)]) -> Result<(), Uncompiled> {
        let next = self.builder.add_empty()?;
        let to = |&(start, end): &(u8, u8)| Transition { start, end, next };
        let state = match class {
            [] => return Err(Uncompiled::Unknown),
            [one] => self.builder.add_range(to(one))?,
            several => self.builder.add_sparse(several.iter().map(to).collect())?,
        };
        self.lead_to(state)?;
        self.at = next;
        Ok(())
    }

    fn open(&mut self) -> Result<(), Uncompiled> {
        if !(self.skip(b'?') && self.skip(b':')) {
            return Err(Uncompiled::Unknown);
        }
        if self.groups.len() == DEPTH {
            return Err(Uncompiled::TooDeep);
        }
        let group = Group {
            fork: self.builder.add_union(Vec::new())?,
            end: self.builder.add_empty()?,
        };
        self.lead_to(group.fork)?;
        let first = self.builder.add_empty()?;
        self.lead_to(first)?;
        self.groups.push(group);
        Ok(())
    }

    fn next_alternative(&mut self) -> Result<(), Uncompiled> {
        let &Group { fork, end } = self.groups.last().ok_or(Uncompiled::Unknown)?;
        self.lead_to(end)?;
        self.at = fork;
        let first = self.builder.add_empty()?;
        self.lead_to(first)
    }

    /// Whether this byte is next; then it is read.
    fn skip(&mut self, byte: u8) -> bool {
        let mut after = self.text.clone();
        let is_next = after.next() == Some(byte);
        if is_next {
            self.text = after;
        }
        is_next
    }

    /// A byte that stands for itself, or what stands behind its backslash.
    fn literal(&mut self, first: u8) -> Result<u8, Uncompiled> {
        if first != b'\\' {
            return Ok(first);
        }
        match self.text.next() {
            Some(b'x') => {
                let mut digit = || {
                    let byte = self.text.next()?;
                    char::from(byte).to_digit(16)
                };
                let value = digit().zip(digit()).map(|(high, low)| high << 4 | low);
                value.and_then(|value| u8::try_from(value).ok())
            }
            Some(byte) if byte.is_ascii_punctuation() => Some(byte),
            _ => None,
        }
        .ok_or(Uncompiled::Unknown)
    }

    /// A class behind its `[`, in order and without overlaps.
    fn class(&mut self) -> Result<Class, Uncompiled> {
        let negated = self.skip(b'^');
        let mut holds = [false; 256];
        loop {
            let first = match self.text.next() {
                Some(b']') => break,
                Some(byte) => self.literal(byte)?,
                None => return Err(Uncompiled::Unknown),
            };
            let last = if self.skip(b'-') {
                let byte = self.text.next().ok_or(Uncompiled::Unknown)?;
                self.literal(byte)?
            } else {
                first
            };
            if first > last {
                return Err(Uncompiled::Unknown);
            }
            holds[usize::from(first)..=usize::from(last)].fill(true);
        }
        let mut class = Class::new();
        for byte in (0..=255_u8).filter(|&byte| holds[usize::from(byte)] != negated) {
            match class.last_mut() {
                Some((_, last)) if u16::from(*last) + 1 == u16::from(byte) => *last = byte,
                _ => class.push((byte, byte)),
            }
        }
        Ok(class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use globset::GlobBuilder;
    use proptest::prelude::*;
    use regex_automata::nfa::thompson::pikevm::PikeVM;

    const LIMIT: usize = 512 << 10;

    #[test]
    fn what_globset_does_not_write_is_refused() {
        for regex in [
            "a",
            "(?-u)^a",
            "(?-u)^(a)$",
            "(?-u)^(?:a$",
            "(?-u)^a)$",
            "(?-u)^a|b$",
            "(?-u)^a+$",
            "(?-u)^*$",
            "(?-u)^[a$",
            "(?-u)^[b-a]$",
            r"(?-u)^\d$",
            r"(?-u)^\x1$",
            r"(?-u)^a\$",
        ] {
            let compiled = compile(regex, LIMIT);
            assert!(matches!(compiled, Err(Uncompiled::Unknown)), "{regex}");
        }
    }

    #[test]
    fn size_is_bounded() {
        let regex = format!("(?-u)^{}$", "[ac]".repeat(40_000));
        let compiled = compile(&regex, LIMIT);
        assert!(matches!(compiled, Err(Uncompiled::TooLarge)));
        let nested = |depth| format!("(?-u)^{}{}$", "(?:".repeat(depth), ")".repeat(depth));
        assert!(compile(&nested(DEPTH), LIMIT).is_ok());
        let compiled = compile(&nested(DEPTH + 1), LIMIT);
        assert!(matches!(compiled, Err(Uncompiled::TooDeep)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn any_glob_means_what_globset_means(
            glob in r"([ab/.é–*?,{}!^\[\]\\-]|\*\*/|/\*\*|\[[!^]?[]a-c/é\-]{1,4}\]|\{[ab,*]{0,4}\}){0,8}",
            texts in proptest::collection::vec("[ab/.é–,{}!^\\]\n-]{0,6}", 1..8),
        ) {
            let built = GlobBuilder::new(&glob)
                .literal_separator(false)
                .backslash_escape(true)
                .empty_alternates(true)
                .build();
            if let Ok(built) = built {
                let theirs = built.compile_matcher();
                let nfa = compile(built.regex(), LIMIT);
                prop_assert!(nfa.is_ok(), "{}: {:?}", built.regex(), nfa);
                let ours = PikeVM::new_from_nfa(nfa.unwrap()).unwrap();
                let mut cache = ours.create_cache();
                for text in texts {
                    prop_assert_eq!(ours.is_match(&mut cache, &text), theirs.is_match(&text), "{} {:?}", built.regex(), text);
                }
            }
        }
    }
}
