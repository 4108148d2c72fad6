//! Text from outside, made harmless for a terminal.
//!
//! A PTR name, a kernel's message or a configured id may hold anything. What a
//! terminal would obey (control characters) or hide (bidirectional and other
//! format characters, with which one text can be made to look like another) is
//! shown as an escape instead. The reader is a human, so a backslash stays a
//! backslash.

use std::fmt::{self, Write};

/// A text that can be shown: `{}` writes it with everything harmful escaped.
#[derive(Clone, Copy, Debug)]
pub struct Plain<'a>(pub &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(is_harmful) {
            f.write_str(&rest[..at])?;
            let mut tail = rest[at..].chars();
            match tail.next() {
                Some('\n') => f.write_str("\\n")?,
                Some('\r') => f.write_str("\\r")?,
                Some('\t') => f.write_str("\\t")?,
                Some(other) => write!(f, "\\u{{{:x}}}", u32::from(other))?,
                None => f.write_char('\\')?,
            }
            rest = tail.as_str();
        }
        f.write_str(rest)
    }
}

/// Whether a terminal would obey or hide the character: the general categories
/// Cc, Cf, Zl and Zp of Unicode 16, and what is ignorable by default.
pub fn is_harmful(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    matches!(u32::from(c),
        0x80..=0x9f
        | 0xad
        | 0x34f
        | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x890..=0x891 | 0x8e2
        | 0x115f..=0x1160
        | 0x17b4..=0x17b5
        | 0x180b..=0x180f
        | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f
        | 0x3164
        | 0xfe00..=0xfe0f | 0xfeff | 0xffa0 | 0xfff0..=0xfffb
        | 0x110bd | 0x110cd | 0x13430..=0x1343f | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a
        | 0xe0000..=0xe0fff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        let shown = Plain("a\x1b[2Jb\n\t\u{9b}1m\u{202e}gro.live\u{200b} \\ü").to_string();
        assert_eq!(
            shown,
            "a\\u{1b}[2Jb\\n\\t\\u{9b}1m\\u{202e}gro.live\\u{200b} \\ü"
        );
    }

    proptest! {
        #[test]
        fn nothing_harmful_is_left(text in any::<String>()) {
            let shown = Plain(&text).to_string();
            prop_assert!(!shown.contains(is_harmful));
            prop_assert!(!shown.contains(char::is_control));
            if !text.contains(is_harmful) {
                prop_assert_eq!(shown, text);
            }
        }
    }
}
