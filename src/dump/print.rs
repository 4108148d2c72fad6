//! Rows on standard output.

use std::borrow::Borrow;
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use super::cgroups::Places;
use super::rows::{Kept, Rows};
use crate::emit::{self, Format, Json};
use crate::model::SocketData;

/// How much is written in one go.
const WRITE_AT: usize = 64 * 1024;
/// From so many rows on two threads render them.
const ALONE: usize = 4096;
/// How many pieces the other thread may be ahead.
const AHEAD: usize = 4;

/// Prints rows of any kind, one after the other.
pub(super) fn one_by_one<R>(
    rows: impl Iterator<Item = R> + Clone,
    format: Format,
    mut out: impl Write,
) -> io::Result<()>
where
    R: Borrow<SocketData>,
{
    match format {
        Format::Text => {
            let mut out = io::BufWriter::with_capacity(WRITE_AT, out);
            emit::table(rows, &mut out)?;
            out.flush()
        }
        Format::Json => {
            let json = Json::new("");
            let mut lines = Vec::with_capacity(WRITE_AT + 1024);
            for row in rows {
                json.row(row.borrow(), &mut lines)?;
                if lines.len() >= WRITE_AT {
                    out.write_all(&lines)?;
                    lines.clear();
                }
            }
            out.write_all(&lines)
        }
    }
}

/// Prints rows as they were read. Another thread renders every other piece of
/// many JSON lines; in what order they are printed does not depend on it.
pub(super) fn rows(rows: &Rows, format: Format, mut out: impl Write) -> io::Result<()> {
    if format == Format::Text || rows.len() < ALONE {
        return one_by_one(rows.iter(), format, out);
    }
    thread::scope(|scope| {
        let (rendered, theirs) = mpsc::sync_channel(AHEAD);
        let odd = move || {
            let places = rows.places().apart();
            for piece in rows.pieces().skip(1).step_by(2) {
                // Nobody listens once writing has failed.
                if rendered.send(lines(piece, &places)).is_err() {
                    return;
                }
            }
        };
        let theirs = thread::Builder::new()
            .spawn_scoped(scope, odd)
            .ok()
            .map(|_| theirs);
        alternate(rows, theirs, &mut out)
    })
}

fn alternate(
    rows: &Rows,
    theirs: Option<Receiver<io::Result<Vec<u8>>>>,
    out: &mut impl Write,
) -> io::Result<()> {
    for (number, piece) in rows.pieces().enumerate() {
        let lines = match &theirs {
            Some(theirs) if number % 2 == 1 => {
                let next = theirs.recv();
                next.expect("the other thread renders every other piece")
            }
            _ => lines(piece, rows.places()),
        };
        out.write_all(&lines?)?;
    }
    Ok(())
}

fn lines(piece: &[Kept], places: &Places) -> io::Result<Vec<u8>> {
    let json = Json::new("");
    let mut lines = Vec::with_capacity(piece.len() * 256);
    for kept in piece {
        json.row(&kept.data(places), &mut lines)?;
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::kept;
    use super::*;
    use crate::model::RowKind;

    /// A reader that leaves after so many bytes.
    struct Leaves(usize);

    impl Write for Leaves {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.0.checked_sub(bytes.len()) {
                Some(left) => self.0 = left,
                None => return Err(io::ErrorKind::BrokenPipe.into()),
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn two_threads_print_what_one_does() {
        for count in [0, 1, 4095, 4096, 10_000] {
            let mut read = Rows::default();
            read.put(
                (0..count)
                    .map(|cookie| kept(cookie, 1, RowKind::Full))
                    .collect(),
            );
            for format in [Format::Json, Format::Text] {
                let (mut alone, mut both) = (Vec::new(), Vec::new());
                one_by_one(read.iter(), format, &mut alone).unwrap();
                rows(&read, format, &mut both).unwrap();
                assert_eq!(alone, both, "{count} rows");
            }
        }
    }

    #[test]
    fn a_reader_that_leaves_ends_both_threads() {
        let mut read = Rows::default();
        read.put(
            (0..50_000)
                .map(|cookie| kept(cookie, 1, RowKind::Full))
                .collect(),
        );
        for bytes in [0, 1 << 20] {
            let error = rows(&read, Format::Json, Leaves(bytes)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        }
    }
}
