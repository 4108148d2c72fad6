//! The socket table as an aligned text table, for `--dump` on a terminal.
//!
//! Columns are as wide as their content, so the rows are walked twice: once to
//! measure, once to write. HOST is there only when some row has a name.

use std::io::{self, Write};

use super::text::{proto, remote};
use crate::log::Plain;
use crate::model::{Host, Owner, SocketData};

const COLUMNS: usize = 8;
const TITLES: [&str; COLUMNS] = [
    "PROTO", "STATE", "LOCAL", "REMOTE", "HOST", "UID", "INODE", "COOKIE",
];
const HOST: usize = 4;
/// Numbers, which are aligned on their right.
const NUMBERS: std::ops::Range<usize> = 5..COLUMNS;

/// Writes a header and a line for each row.
pub fn table<'a, R>(rows: R, out: &mut impl Write) -> io::Result<()>
where
    R: IntoIterator<Item = &'a SocketData>,
    R::IntoIter: Clone,
{
    let rows = rows.into_iter();
    let mut widths = TITLES.map(str::len);
    let mut named = false;
    for row in rows.clone() {
        named |= matches!(row.host, Host::Named(_));
        for (width, cell) in widths.iter_mut().zip(cells(row)) {
            *width = (*width).max(cell.chars().count());
        }
    }
    write_row(&TITLES.map(String::from), &widths, named, out)?;
    for row in rows {
        write_row(&cells(row), &widths, named, out)?;
    }
    Ok(())
}

fn cells(row: &SocketData) -> [String; COLUMNS] {
    let (uid, inode) = match row.owner {
        Owner::Known { uid, inode } => (uid.to_string(), inode.to_string()),
        Owner::Unknown(_) => ("-".to_owned(), "-".to_owned()),
    };
    [
        proto(row).to_owned(),
        row.state.as_str(row.id.proto).to_owned(),
        row.id.local.to_string(),
        remote(row),
        Plain(row.host.as_str()).to_string(),
        uid,
        inode,
        row.cookie.0.to_string(),
    ]
}

fn write_row(
    cells: &[String; COLUMNS],
    widths: &[usize; COLUMNS],
    named: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if column == HOST && !named {
            continue;
        }
        let gap = if column == 0 { "" } else { "  " };
        if NUMBERS.contains(&column) {
            write!(out, "{gap}{cell:>width$}")?;
        } else {
            write!(out, "{gap}{cell:width$}")?;
        }
    }
    out.write_all(b"\n")
}
