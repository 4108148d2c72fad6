//! The socket table as an aligned text table, for `--dump` on a terminal.
//!
//! Columns are as wide as their content, so the rows are walked twice: once to
//! measure, once to write. HOST is there only when some row has a name, NETNS only
//! when rows are of several namespaces or theirs has a name, PROCESS only when
//! processes were asked for.

use std::borrow::Borrow;
use std::io::{self, Write};

use super::digits;
use super::process;
use super::text::{proto, remote};
use crate::log::Plain;
use crate::model::{Host, Owner, SocketData};

const COLUMNS: usize = 10;
const HOST: usize = 4;
/// The last one: what is in it may hold spaces.
const PROCESS: usize = 9;
const NETNS: usize = 8;
/// Numbers, which are aligned on their right.
const NUMBERS: std::ops::Range<usize> = 5..NETNS;

const TITLES: [&str; COLUMNS] = [
    "PROTO", "STATE", "LOCAL", "REMOTE", "HOST", "UID", "INODE", "COOKIE", "NETNS", "PROCESS",
];

/// What appends a cell.
type Cell = fn(&SocketData, &mut Vec<u8>);

const CELLS: [Cell; COLUMNS] = [
    |row, out| out.extend_from_slice(proto(row).as_bytes()),
    |row, out| out.extend_from_slice(row.state.as_str(row.id.proto).as_bytes()),
    |row, out| digits::endpoint(&row.id.local, out),
    remote,
    |row, out| out.extend_from_slice(Plain(row.host.as_str()).to_string().as_bytes()),
    |row, out| match row.owner {
        Owner::Known { uid, .. } => digits::number(uid, out),
        Owner::Unknown(_) => out.push(b'-'),
    },
    |row, out| match row.owner {
        Owner::Known { inode, .. } => digits::number(inode, out),
        Owner::Unknown(_) => out.push(b'-'),
    },
    |row, out| digits::number(row.cookie.0, out),
    |row, out| match &row.netns_name {
        Some(name) => out.extend_from_slice(Plain(name).to_string().as_bytes()),
        None => digits::number(row.netns.0, out),
    },
    process::cell,
];

/// Writes a header and a line for each row.
pub fn table<R, T>(rows: R, out: &mut impl Write) -> io::Result<()>
where
    R: IntoIterator<Item = T>,
    R::IntoIter: Clone,
    T: Borrow<SocketData>,
{
    let rows = rows.into_iter();
    let named = rows
        .clone()
        .any(|row| matches!(row.borrow().host, Host::Named(_)));
    let attributed = rows.clone().any(|row| row.borrow().holders.is_some());
    let first = rows.clone().next().map(|row| row.borrow().netns);
    let elsewhere = rows.clone().any(|row| {
        let row = row.borrow();
        row.netns_name.is_some() || Some(row.netns) != first
    });
    let shown = |column: &usize| match *column {
        HOST => named,
        NETNS => elsewhere,
        PROCESS => attributed,
        _ => true,
    };
    let columns: Vec<usize> = (0..COLUMNS).filter(shown).collect();
    let mut widths = TITLES.map(str::len);
    let mut cell = Vec::new();
    for row in rows.clone() {
        for &column in &columns {
            cell.clear();
            CELLS[column](row.borrow(), &mut cell);
            widths[column] = widths[column].max(width(&cell));
        }
    }
    let mut line = Vec::new();
    for &column in &columns {
        pad(column, &widths, &mut line, |out| {
            out.extend_from_slice(TITLES[column].as_bytes());
        });
    }
    line.push(b'\n');
    out.write_all(&line)?;
    for row in rows {
        line.clear();
        for &column in &columns {
            pad(column, &widths, &mut line, |out| {
                CELLS[column](row.borrow(), out);
            });
        }
        line.push(b'\n');
        out.write_all(&line)?;
    }
    Ok(())
}

/// How many characters a cell has.
fn width(cell: &[u8]) -> usize {
    cell.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

/// Appends a cell, as wide as its column.
fn pad(
    column: usize,
    widths: &[usize; COLUMNS],
    line: &mut Vec<u8>,
    cell: impl FnOnce(&mut Vec<u8>),
) {
    if column > 0 {
        line.extend_from_slice(b"  ");
    }
    let start = line.len();
    cell(line);
    if column == PROCESS {
        return;
    }
    let end = line.len();
    let gap = widths[column].saturating_sub(width(&line[start..]));
    line.resize(end + gap, b' ');
    if NUMBERS.contains(&column) {
        line.copy_within(start..end, start + gap);
        line[start..start + gap].fill(b' ');
    }
}
