//! A YAML text as events that know where they stand.
//!
//! serde_yaml reads with unsafe-libyaml and keeps the place of its first error
//! alone. This is the same scanner, asked for the places too, so that whoever
//! checks a document by these events has checked what serde_yaml will read.
//! (`Cargo.lock` holds one version of it; a test sees to that.)

use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::slice;

use unsafe_libyaml as unsafe_yaml;

/// A place in a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Bytes before it.
    pub byte: usize,
    /// Its line, from 1.
    pub line: usize,
    /// Its column in characters, from 1.
    pub column: usize,
}

impl Mark {
    fn of(mark: unsafe_yaml::yaml_mark_t) -> Mark {
        // They count what is in memory.
        Mark {
            byte: mark.index as usize,
            line: mark.line as usize + 1,
            column: mark.column as usize + 1,
        }
    }
}

/// What stands before a value.
#[derive(PartialEq, Eq, Debug)]
pub struct Prefix {
    /// The name of its anchor, without the `&`.
    pub anchor: Option<String>,
    /// Its tag, with the handle resolved: `!!str` is `tag:yaml.org,2002:str`.
    pub tag: Option<String>,
}

/// A step through a document.
#[derive(PartialEq, Eq, Debug)]
pub enum Step {
    /// A document begins.
    Document,
    /// A whole scalar: its text without quotes and with escapes resolved, and
    /// whether it is written without quotes (and not as a block).
    Scalar(Prefix, String, bool),
    /// A list begins.
    List(Prefix),
    /// A map begins; keys and values take turns.
    Map(Prefix),
    /// The innermost list or map ends.
    End,
    /// An alias of this name, without the `*`.
    Alias(String),
}

/// A step and where its text is.
#[derive(PartialEq, Eq, Debug)]
pub struct Event {
    /// What comes.
    pub step: Step,
    /// Where it begins: with its anchor or tag, if it has one.
    pub start: Mark,
    /// What follows it.
    pub end: Mark,
}

/// Why a text is no YAML.
#[derive(PartialEq, Eq, Debug)]
pub struct Fault {
    /// What is wrong.
    pub problem: String,
    /// Where that was noticed.
    pub at: Mark,
    /// What was being read, and where that began.
    pub within: Option<(String, Mark)>,
}

/// Reads a text event by event; ends behind the last event or the first fault.
/// It reads no further ahead than the 1,024 characters in which a key has to end,
/// so that whoever stops in time bounds what it holds.
pub struct Yaml<'t> {
    parser: NonNull<unsafe_yaml::yaml_parser_t>,
    done: bool,
    text: PhantomData<&'t str>,
}

impl<'t> Yaml<'t> {
    /// Begins to read.
    pub fn new(text: &'t str) -> Yaml<'t> {
        // The parser points into itself: it stays where it is and is used through
        // this one pointer.
        let memory = Box::leak(Box::<unsafe_yaml::yaml_parser_t>::new_uninit());
        let parser = NonNull::from(memory).cast::<unsafe_yaml::yaml_parser_t>();
        // SAFETY: the memory is a parser's, writable and nobody else's.
        // Initialisation writes all of it; without memory it aborts, as any
        // allocation does, so that it cannot fail. The text outlives the parser
        // by `'t`, and its length is that of the slice.
        unsafe {
            assert!(unsafe_yaml::yaml_parser_initialize(parser.as_ptr()).ok);
            unsafe_yaml::yaml_parser_set_encoding(parser.as_ptr(), unsafe_yaml::YAML_UTF8_ENCODING);
            unsafe_yaml::yaml_parser_set_input_string(
                parser.as_ptr(),
                text.as_ptr(),
                text.len() as u64,
            );
        }
        Yaml {
            parser,
            done: false,
            text: PhantomData,
        }
    }

    /// What the parser failed at.
    fn fault(&self) -> Fault {
        // SAFETY: the parser is initialised, and nothing changes it meanwhile.
        let parser = unsafe { self.parser.as_ref() };
        // SAFETY: both are null or literals that end with a NUL.
        let (problem, context) = unsafe { (words(parser.problem), words(parser.context)) };
        Fault {
            problem: problem.unwrap_or_else(|| "no reason given".to_owned()),
            at: Mark::of(parser.problem_mark),
            within: context.map(|context| (context, Mark::of(parser.context_mark))),
        }
    }
}

impl Iterator for Yaml<'_> {
    type Item = Result<Event, Fault>;

    fn next(&mut self) -> Option<Result<Event, Fault>> {
        while !self.done {
            let mut event = MaybeUninit::uninit();
            // SAFETY: the parser is initialised, the event is writable.
            let read =
                unsafe { unsafe_yaml::yaml_parser_parse(self.parser.as_ptr(), event.as_mut_ptr()) };
            if read.fail {
                // An event that failed owns nothing.
                self.done = true;
                return Some(Err(self.fault()));
            }
            // SAFETY: what succeeds has written the whole event.
            let event = Owned(unsafe { event.assume_init() });
            self.done = event.0.type_ == unsafe_yaml::YAML_STREAM_END_EVENT;
            if let Some(step) = event.step() {
                let (start, end) = (Mark::of(event.0.start_mark), Mark::of(event.0.end_mark));
                return Some(Ok(Event { step, start, end }));
            }
        }
        None
    }
}

impl Drop for Yaml<'_> {
    fn drop(&mut self) {
        // SAFETY: the parser is initialised and its memory a leaked box's; neither
        // is used again.
        unsafe {
            unsafe_yaml::yaml_parser_delete(self.parser.as_ptr());
            drop(Box::from_raw(self.parser.as_ptr()));
        }
    }
}

/// An event with its strings.
struct Owned(unsafe_yaml::yaml_event_t);

impl Owned {
    /// What the event says; `None` for the ends of a document and of the text,
    /// which say nothing about the document.
    fn step(&self) -> Option<Step> {
        let data = &self.0.data;
        // SAFETY: the type of an event says which field of its data was written.
        // Anchors and tags are null or end with a NUL, a scalar has its length.
        unsafe {
            Some(match self.0.type_ {
                unsafe_yaml::YAML_DOCUMENT_START_EVENT => Step::Document,
                unsafe_yaml::YAML_SCALAR_EVENT => {
                    let scalar = &data.scalar;
                    let text = slice::from_raw_parts(scalar.value, scalar.length as usize);
                    Step::Scalar(
                        prefix(scalar.anchor, scalar.tag),
                        utf8(text),
                        scalar.style == unsafe_yaml::YAML_PLAIN_SCALAR_STYLE,
                    )
                }
                unsafe_yaml::YAML_SEQUENCE_START_EVENT => {
                    let list = &data.sequence_start;
                    Step::List(prefix(list.anchor, list.tag))
                }
                unsafe_yaml::YAML_MAPPING_START_EVENT => {
                    let map = &data.mapping_start;
                    Step::Map(prefix(map.anchor, map.tag))
                }
                unsafe_yaml::YAML_SEQUENCE_END_EVENT | unsafe_yaml::YAML_MAPPING_END_EVENT => {
                    Step::End
                }
                unsafe_yaml::YAML_ALIAS_EVENT => {
                    Step::Alias(words(data.alias.anchor.cast()).unwrap_or_default())
                }
                _ => return None,
            })
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the event was written by the parser, and its strings are its own.
        unsafe { unsafe_yaml::yaml_event_delete(&raw mut self.0) }
    }
}

/// # Safety
/// Both are null or end with a NUL.
unsafe fn prefix(anchor: *const u8, tag: *const u8) -> Prefix {
    // SAFETY: as promised.
    unsafe {
        Prefix {
            anchor: words(anchor.cast()),
            tag: words(tag.cast()),
        }
    }
}

/// # Safety
/// The pointer is null or to bytes that end with a NUL.
unsafe fn words(bytes: *const i8) -> Option<String> {
    let bytes = NonNull::new(bytes.cast_mut())?;
    // SAFETY: as promised.
    let bytes = unsafe { CStr::from_ptr(bytes.as_ptr().cast::<c_char>()) };
    Some(utf8(bytes.to_bytes()))
}

/// The scanner lets only UTF-8 through; only the escapes of a tag are less sure.
fn utf8(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &str) -> Vec<Step> {
        Yaml::new(text)
            .map(|event| event.expect("YAML").step)
            .collect()
    }

    fn prefix(anchor: Option<&str>, tag: Option<&str>) -> Prefix {
        Prefix {
            anchor: anchor.map(str::to_owned),
            tag: tag.map(str::to_owned),
        }
    }

    #[test]
    fn a_document_is_read_step_by_step() {
        let none = || prefix(None, None);
        let scalar = |text: &str, plain| Step::Scalar(none(), text.to_owned(), plain);
        assert_eq!(
            steps("&m !x a: ['é\u{1F600}', \"\\0\", *m]\nb: !!str\n---\n|\n  c\n"),
            [
                Step::Document,
                Step::Map(none()),
                Step::Scalar(prefix(Some("m"), Some("!x")), "a".to_owned(), true),
                Step::List(none()),
                scalar("é\u{1F600}", false),
                scalar("\0", false),
                Step::Alias("m".to_owned()),
                Step::End,
                scalar("b", true),
                Step::Scalar(
                    prefix(None, Some("tag:yaml.org,2002:str")),
                    String::new(),
                    true
                ),
                Step::End,
                Step::Document,
                scalar("c\n", false),
            ]
        );
        assert_eq!(steps("# nothing\n"), []);
        assert_eq!(steps(""), []);
    }

    #[test]
    fn columns_count_characters_and_bytes_are_bytes() {
        let event = Yaml::new("a:\r\n  'é\u{1F600}': &x b")
            .map(|event| event.expect("YAML"))
            .find(|event| matches!(&event.step, Step::Scalar(_, text, _) if text == "b"))
            .expect("the scalar");
        let mark = |byte, column| Mark {
            byte,
            line: 2,
            column,
        };
        assert_eq!((event.start, event.end), (mark(16, 9), mark(20, 13)));
    }

    #[test]
    fn a_fault_has_its_places_and_is_the_end() {
        let mut yaml = Yaml::new("a: [b,\n  'c");
        let fault = yaml.by_ref().find_map(Result::err).expect("a fault");
        let start = Mark {
            byte: 9,
            line: 2,
            column: 3,
        };
        assert_eq!(fault.problem, "found unexpected end of stream");
        assert_eq!(
            fault.within,
            Some(("while scanning a quoted scalar".to_owned(), start))
        );
        assert_eq!(fault.at.byte, 11);
        assert_eq!(yaml.next(), None);
        // Given up in the middle: what was not read is freed all the same.
        assert!(Yaml::new("[[[[a, b, c]]]]").next().is_some());
    }
}
