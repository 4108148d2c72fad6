//! Who a socket is, and whose.

use std::fmt;
use std::sync::Arc;

/// The kernel's 64-bit socket cookie (`SO_COOKIE` in socket(7),
/// `idiag_cookie` in linux/inet_diag.h): never reused within a boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cookie(pub u64);

/// A network namespace, by the inode number of its nsfs file
/// (`/proc/self/ns/net`, namespaces(7)).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Netns(pub u32);

/// A socket's identity. It is kept from SYN_RECV through ESTABLISHED to the
/// TIME_WAIT minisocket, and it survives every change of address and state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketKey {
    /// The namespace the socket lives in.
    pub netns: Netns,
    /// The cookie within it.
    pub cookie: Cookie,
}

/// The number of a configured sensor: its view bit in the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SensorIx(pub u8);

impl SensorIx {
    /// How many sensors one table can serve: the width of the view mask.
    pub const MAX: usize = 32;

    /// The sensor's bit in a view mask.
    pub fn bit(self) -> u32 {
        1 << self.0
    }
}

/// Which number each sensor has now, after the sensors were replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Renumbering([Option<SensorIx>; SensorIx::MAX]);

impl Renumbering {
    /// Nobody is left.
    pub const NONE: Renumbering = Renumbering([None; SensorIx::MAX]);

    /// One that was `old` is `new` now.
    pub fn keep(&mut self, old: SensorIx, new: SensorIx) {
        self.0[usize::from(old.0)] = Some(new);
    }

    /// The new number; `None` for a sensor that is gone, or begins anew.
    pub fn of(&self, old: SensorIx) -> Option<SensorIx> {
        self.0.get(usize::from(old.0)).copied().flatten()
    }

    /// A mask of view bits, renumbered.
    pub fn mask(&self, old: u32) -> u32 {
        let mut rest = old;
        let mut mask = 0;
        while rest != 0 {
            let bit = rest.trailing_zeros();
            rest &= rest - 1;
            mask |= self.of(SensorIx(bit as u8)).map_or(0, SensorIx::bit);
        }
        mask
    }

    /// The sensors that have kept their views, by their new numbers.
    pub fn kept(&self) -> u32 {
        self.mask(u32::MAX)
    }
}

/// A name from DNS as it may enter a tuple: lower case, with everything but
/// letters, digits, `.`, `-` and `_` escaped. Shared, because a busy table
/// holds the same name many times.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Name(Arc<Box<str>>);

impl Name {
    /// Folds and escapes a name that came from outside: ASCII letters to lower
    /// case, each byte that is no letter, digit, `.`, `-` or `_` to `\ddd` (its
    /// decimal value, as RFC 1035 section 5.1 writes it). A name of `-` alone
    /// would read as none, so it is escaped too.
    pub fn escaped(raw: &[u8]) -> Name {
        if raw == b"-" {
            return Name(Arc::new("\\045".into()));
        }
        let mut text = String::with_capacity(raw.len());
        for &byte in raw {
            match byte {
                b'.' => text.push('.'),
                other => push_escaped(&mut text, other),
            }
        }
        Name(Arc::new(text.into_boxed_str()))
    }

    /// A name from its escaped text; `None` for a text that [`Name::escaped`]
    /// does not write.
    pub fn read(text: &[u8]) -> Option<Name> {
        let plain =
            |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'\\');
        let is_one = !text.is_empty() && text != b"-" && text.iter().all(plain);
        let text = std::str::from_utf8(text).ok().filter(|_| is_one)?;
        Some(Name(Arc::new(text.into())))
    }

    /// A name of these labels, without the root's: as [`Name::escaped`], with a dot
    /// within a label escaped too. The root is `.`.
    pub fn of_labels<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Name {
        let mut text = String::new();
        for label in labels {
            if !text.is_empty() {
                text.push('.');
            }
            for &byte in label {
                push_escaped(&mut text, byte);
            }
        }
        match &text[..] {
            "" => text.push('.'),
            "-" => text.replace_range(.., "\\045"),
            _ => {}
        }
        Name(Arc::new(text.into_boxed_str()))
    }

    /// The escaped text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn push_escaped(text: &mut String, byte: u8) {
    match byte {
        b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => text.push(char::from(byte)),
        b'A'..=b'Z' => text.push(char::from(byte.to_ascii_lowercase())),
        other => {
            text.push('\\');
            for digit in [other / 100, other / 10 % 10, other % 10] {
                text.push(char::from(b'0' + digit));
            }
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose a socket is, as far as a dump row tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// The row of a socket with a file.
    Known {
        /// The user id of the socket's creator.
        uid: u32,
        /// The inode of the socket's file (`socket:[n]` in /proc/PID/fd).
        inode: u32,
    },
    /// The kernel did not tell.
    Unknown(OwnerUnknown),
}

/// Why an owner is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnerUnknown {
    /// No dump ever held the socket; a notice has neither uid nor inode.
    NotRead,
    /// A SYN_RECV or TIME_WAIT minisocket belongs to nobody.
    Minisocket,
    /// First read without a file: not accepted yet, or closed already.
    NoFile,
}

impl OwnerUnknown {
    /// The word for `uid_reason` and `inode_reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            OwnerUnknown::NotRead => "not_read",
            OwnerUnknown::Minisocket => "minisocket",
            OwnerUnknown::NoFile => "no_file",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_forge_a_field() {
        let name = Name::escaped(b"Evil ESTABLISHED\x1b[2J\\\xff.org");
        assert_eq!(
            name.as_str(),
            "evil\\032established\\027\\0912j\\092\\255.org"
        );
        assert_eq!(Name::escaped(b"-").as_str(), "\\045");
        assert_eq!(Name::escaped(b"-.org").as_str(), "-.org");
        assert_eq!(Name::read(name.as_str().as_bytes()), Some(name));
        for forged in [&b""[..], b"-", b"a b", b"A", b"\xff"] {
            assert_eq!(Name::read(forged), None);
        }
        let labels = |labels: &[&'static [u8]]| Name::of_labels(labels.iter().copied());
        assert_eq!(labels(&[b"A.b", b"\0c"]).as_str(), "a\\046b.\\000c");
        assert_eq!(labels(&[]).as_str(), ".");
        assert_eq!(labels(&[b"-"]).as_str(), "\\045");
    }
}
