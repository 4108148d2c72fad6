//! Records in frames: a length, a CRC-32 (IEEE), and records until the length is
//! used up. The file begins with eight bytes that say what it is and the version
//! of everything behind them.

use std::fmt;
use std::io::{self, Read};

use super::crc::crc32;

/// What a file begins with.
pub(super) const MAGIC: &[u8; 8] = b"sockwst\n";
/// The version of the format.
pub(super) const VERSION: u32 = 3;
/// The bytes before the first frame.
pub(super) const PREFIX: usize = 12;
/// A frame is closed once its records have so many bytes.
pub(super) const FULL: usize = 64 << 10;
/// No frame is longer: a full one and the longest record.
const LONGEST: usize = FULL + (80 << 10);
/// No file is longer that sockwatch would have written: some ten million sockets.
pub(super) const LONGEST_FILE: u64 = 1 << 30;

/// Why a file cannot be used. Each is also the ending of the name under which
/// the file is set aside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unusable {
    /// It ends within its base.
    Truncated,
    /// A checksum is wrong, or what stands there is no record.
    Corrupt,
    /// Another version of sockwatch wrote it.
    Version,
    /// It is of another boot.
    Boot,
    /// It is of another network namespace.
    Namespace,
}

impl Unusable {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Unusable::Truncated => "truncated",
            Unusable::Corrupt => "corrupt",
            Unusable::Version => "version",
            Unusable::Boot => "boot",
            Unusable::Namespace => "namespace",
        }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unusable::Truncated => "it is cut short",
            Unusable::Corrupt => "its checksums are wrong",
            Unusable::Version => "another version wrote it",
            Unusable::Boot => "it is of another boot, whose sockets are all gone",
            Unusable::Namespace => "it is of another network namespace",
        })
    }
}

/// Appends the bytes that a file begins with.
pub(super) fn prefix(out: &mut Vec<u8>) {
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
}

/// Appends the records as frames: those of one call follow each other, none is
/// split.
pub(super) fn seal(records: &[u8], out: &mut Vec<u8>) {
    // Longer than LONGEST only if a caller let a frame grow past FULL by more
    // than a record.
    debug_assert!(records.len() <= LONGEST);
    if !records.is_empty() {
        out.extend((records.len() as u32).to_le_bytes());
        out.extend(crc32(records).to_le_bytes());
        out.extend(records);
    }
}

/// Why there is no further frame.
#[derive(Debug)]
pub(super) enum Stop {
    /// The file ends here.
    End,
    /// The file ends within a frame: whoever wrote it was killed.
    Torn,
    /// The frame is wrong.
    Bad(Unusable),
    /// Reading failed.
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Stop::Torn,
            _ => Stop::Io(error),
        }
    }
}

/// The frames of a file, one after the other; memory for one of them.
#[derive(Debug)]
pub struct Frames<R> {
    from: R,
    frame: Vec<u8>,
}

impl<R: Read> Frames<R> {
    /// Reads what a file begins with.
    ///
    /// # Errors
    /// The outer one is that of reading.
    pub fn open(mut from: R) -> io::Result<Result<Frames<R>, Unusable>> {
        let mut prefix = Vec::with_capacity(PREFIX);
        (&mut from).take(PREFIX as u64).read_to_end(&mut prefix)?;
        let Some((magic, version)) = prefix.split_first_chunk::<8>() else {
            return Ok(Err(Unusable::Truncated));
        };
        Ok(if magic != MAGIC {
            Err(Unusable::Corrupt)
        } else if version.len() < 4 {
            Err(Unusable::Truncated)
        } else if version != VERSION.to_le_bytes() {
            Err(Unusable::Version)
        } else {
            let frame = Vec::new();
            Ok(Frames { from, frame })
        })
    }

    /// The records of the next frame.
    pub(super) fn next(&mut self) -> Result<&[u8], Stop> {
        let mut head = [0; 8];
        let mut got = 0;
        while got < head.len() {
            match self.from.read(&mut head[got..]) {
                Ok(0) if got == 0 => return Err(Stop::End),
                Ok(0) => return Err(Stop::Torn),
                Ok(more) => got += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Stop::Io(error)),
            }
        }
        let [a, b, c, d, crc @ ..] = head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length == 0 || length > LONGEST {
            return Err(Stop::Bad(Unusable::Corrupt));
        }
        self.frame.resize(length, 0);
        self.from.read_exact(&mut self.frame)?;
        if crc32(&self.frame) != u32::from_le_bytes(crc) {
            return Err(Stop::Bad(Unusable::Corrupt));
        }
        Ok(&self.frame)
    }
}
