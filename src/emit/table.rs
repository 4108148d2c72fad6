//! The socket table as an aligned text table, for `--dump` on a terminal.
//!
//! Rows come in pieces, and each column is as wide as what was in it so far, the
//! piece included, which is measured before any of it is written. HOST is there only
//! when some row has a name, NETNS only when rows are of several namespaces or theirs
//! has a name, PROCESS only when processes were asked for.

use std::borrow::Borrow;

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

/// A table under way.
#[derive(Debug)]
pub struct TextTable {
    /// Those that are shown.
    columns: Vec<usize>,
    /// In characters.
    widths: [usize; COLUMNS],
    /// The titles have been written.
    headed: bool,
    /// The cells of one piece, end to end, and of each its bytes and characters.
    cells: Vec<u8>,
    sizes: Vec<(usize, usize)>,
}

impl TextTable {
    /// A table of rows as they were read: without names, processes, and sockets of
    /// other namespaces.
    pub fn plain() -> TextTable {
        TextTable::with(|column| !matches!(column, HOST | NETNS | PROCESS))
    }

    /// A table with the columns that these rows need.
    pub fn of(rows: &[SocketData]) -> TextTable {
        let named = rows.iter().any(|row| matches!(row.host, Host::Named(_)));
        let attributed = rows.iter().any(|row| row.holders.is_some());
        let first = rows.first().map(|row| row.netns);
        let elsewhere = rows
            .iter()
            .any(|row| row.netns_name.is_some() || Some(row.netns) != first);
        TextTable::with(|column| match column {
            HOST => named,
            NETNS => elsewhere,
            PROCESS => attributed,
            _ => true,
        })
    }

    fn with(shown: impl Fn(usize) -> bool) -> TextTable {
        TextTable {
            columns: (0..COLUMNS).filter(|column| shown(*column)).collect(),
            widths: TITLES.map(str::len),
            headed: false,
            cells: Vec::new(),
            sizes: Vec::new(),
        }
    }

    /// Appends a line for each row, below the titles if these are the first.
    pub fn piece(
        &mut self,
        rows: impl Iterator<Item = impl Borrow<SocketData>>,
        out: &mut Vec<u8>,
    ) {
        self.cells.clear();
        self.sizes.clear();
        for row in rows {
            for &column in &self.columns {
                let start = self.cells.len();
                CELLS[column](row.borrow(), &mut self.cells);
                let cell = &self.cells[start..];
                let width = width(cell);
                self.sizes.push((cell.len(), width));
                self.widths[column] = self.widths[column].max(width);
            }
        }
        if !self.headed {
            self.headed = true;
            for &column in &self.columns {
                let title = TITLES[column];
                self.pad(column, title.as_bytes(), title.len(), out);
            }
            out.push(b'\n');
        }
        let mut rest = &self.cells[..];
        for line in self.sizes.chunks(self.columns.len()) {
            for (&column, &(bytes, width)) in self.columns.iter().zip(line) {
                let (cell, others) = rest.split_at(bytes);
                self.pad(column, cell, width, out);
                rest = others;
            }
            out.push(b'\n');
        }
    }

    /// Appends a cell, as wide as its column.
    fn pad(&self, column: usize, cell: &[u8], width: usize, out: &mut Vec<u8>) {
        if column > 0 {
            out.extend_from_slice(b"  ");
        }
        let gap = self.widths[column].saturating_sub(width);
        if NUMBERS.contains(&column) {
            out.resize(out.len() + gap, b' ');
        }
        out.extend_from_slice(cell);
        if column != PROCESS && !NUMBERS.contains(&column) {
            out.resize(out.len() + gap, b' ');
        }
    }
}

/// How many characters a cell has.
fn width(cell: &[u8]) -> usize {
    cell.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}
