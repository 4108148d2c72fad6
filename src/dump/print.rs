//! Rows on standard output.

use std::borrow::Borrow;
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use super::cgroups::Places;
use super::rows::{Kept, Rows};
use crate::emit::{self, Format, Json};
use crate::model::SocketData;
use crate::sys::output::Patient;

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
    mut out: Patient,
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
pub(super) fn rows(rows: &Rows, format: Format, mut out: Patient) -> io::Result<()> {
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
    out: &mut Patient,
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
