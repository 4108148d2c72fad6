//! One JSON object, written key by key into bytes.
//!
//! A record is a fixed list of keys with short values, and a dump writes a
//! hundred thousand of them: a serializer's machinery would cost more than the
//! rest of the row.

use std::fmt::Display;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::digits;
use crate::log::is_harmful;
use crate::model::{Endpoint, Name};

/// An object under way. Keys are written in the order of the calls; they and the
/// words need no escapes.
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Object<'a> {
    /// Opens an object.
    pub fn open(out: &'a mut Vec<u8>) -> Object<'a> {
        out.push(b'{');
        Object { out }
    }

    /// Closes it.
    pub fn close(self) {
        self.out.push(b'}');
    }

    fn key(&mut self, key: &'static str) -> &mut Vec<u8> {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// A word of our own.
    pub fn word(&mut self, key: &'static str, word: &'static str) {
        quoted(word.as_bytes(), self.key(key));
    }

    /// A word, if there is one.
    pub fn maybe_word(&mut self, key: &'static str, word: Option<&'static str>) {
        if let Some(word) = word {
            self.word(key, word);
        }
    }

    /// Any text.
    pub fn text(&mut self, key: &'static str, text: &str) {
        string(text, self.key(key));
    }

    /// A value whose text needs no escapes.
    pub fn shown(&mut self, key: &'static str, value: &impl Display) {
        write!(self.key(key), "\"{value}\"").expect("a Vec takes any text");
    }

    /// A time, as RFC 3339 in UTC with microseconds.
    pub fn time(&mut self, key: &'static str, time: SystemTime) {
        self.shown(key, &humantime::format_rfc3339_micros(expressible(time)));
    }

    /// A list of words.
    pub fn words(&mut self, key: &'static str, words: &[&'static str]) {
        let out = self.key(key);
        out.push(b'[');
        for (index, word) in words.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            quoted(word.as_bytes(), out);
        }
        out.push(b']');
    }

    /// A list of any texts.
    pub fn texts(&mut self, key: &'static str, texts: &[String]) {
        let out = self.key(key);
        out.push(b'[');
        for (index, text) in texts.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            string(text, out);
        }
        out.push(b']');
    }

    /// A list of names, which may be empty.
    pub fn names(&mut self, key: &'static str, names: &[Name]) {
        let out = self.key(key);
        out.push(b'[');
        for (index, name) in names.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            string(name.as_str(), out);
        }
        out.push(b']');
    }

    /// A list of objects.
    pub fn objects<T>(
        &mut self,
        key: &'static str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(T, &mut Object<'_>),
    ) {
        let out = self.key(key);
        out.push(b'[');
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let mut object = Object::open(out);
            write(item, &mut object);
            object.close();
        }
        out.push(b']');
    }

    /// An address and port.
    pub fn end(&mut self, key: &'static str, end: &Endpoint) {
        let out = self.key(key);
        out.push(b'"');
        digits::endpoint(end, out);
        out.push(b'"');
    }

    /// A number.
    pub fn number(&mut self, key: &'static str, number: impl Into<u64>) {
        digits::number(number, self.key(key));
    }

    /// Yes or no.
    pub fn truth(&mut self, key: &'static str, truth: bool) {
        let word: &[u8] = if truth { b"true" } else { b"false" };
        self.key(key).extend_from_slice(word);
    }

    /// A number, if there is one.
    pub fn maybe_number(&mut self, key: &'static str, number: Option<impl Into<u64>>) {
        if let Some(number) = number {
            self.number(key, number);
        }
    }

    /// `true`, or nothing at all.
    pub fn flag(&mut self, key: &'static str, flag: bool) {
        if flag {
            self.key(key).extend_from_slice(b"true");
        }
    }

    /// `false`.
    pub fn no(&mut self, key: &'static str) {
        self.key(key).extend_from_slice(b"false");
    }

    /// What could not be known.
    pub fn null(&mut self, key: &'static str) {
        self.key(key).extend_from_slice(b"null");
    }

    /// The same, with `<key>_reason` behind it: a word of our own.
    pub fn unknown(&mut self, key: &'static str, reason: &'static str) {
        self.null(key);
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"_reason\":");
        quoted(reason.as_bytes(), self.out);
    }

    /// An object within.
    pub fn object(&mut self, key: &'static str) -> Object<'_> {
        Object::open(self.key(key))
    }
}

/// A clock set before 1970 or after 9999 has no RFC 3339 time here; the nearest
/// one that has is shown, so that the record itself is not lost.
fn expressible(ts: SystemTime) -> SystemTime {
    const LAST: Duration = Duration::from_micros(253_402_300_799_999_999);
    ts.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST)
}

fn quoted(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(bytes);
    out.push(b'"');
}

fn string(text: &str, out: &mut Vec<u8>) {
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if text.as_bytes().iter().all(plain) {
        return quoted(text.as_bytes(), out);
    }
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\x08' => out.extend_from_slice(b"\\b"),
            '\x0c' => out.extend_from_slice(b"\\f"),
            c if is_harmful(c) => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
            }),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_string_parses_back(text: String) {
            let mut out = Vec::new();
            string(&text, &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
