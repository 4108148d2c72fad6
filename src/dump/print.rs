//! Rows on standard output: as they are read, or all of them at the end.
//!
//! Most of the time of a dump is the kernel's, in the thread that reads. So from a
//! number of rows on another thread prints them, and what that costs goes on beside
//! the reading. It may lag behind by as much as there is: a reader of standard
//! output that takes its time does not stretch the dump.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::cgroups::Places;
use super::rows::Kept;
use crate::emit::{Format, Json, TextTable};
use crate::model::SocketData;

/// How much is written in one go.
const WRITE_AT: usize = 64 * 1024;
/// From so many rows on there is a thread for it. They are also the piece by which
/// the columns of a text are measured.
const PIECE: usize = 4096;
/// So many datagrams are worth waking the thread for.
const WORTH: usize = 8;

/// Prints rows of which all is known.
pub(super) fn all(rows: &[SocketData], format: Format, mut out: impl Write) -> io::Result<()> {
    let mut lines = Vec::with_capacity(WRITE_AT);
    match format {
        Format::Text => {
            let mut table = TextTable::of(rows);
            // Without any there are titles, too.
            table.piece(rows.iter(), &mut lines);
            out.write_all(&lines)
        }
        Format::Json => {
            let json = Json::new("");
            for row in rows {
                json.row(row, &mut lines);
                if lines.len() >= WRITE_AT {
                    out.write_all(&lines)?;
                    lines.clear();
                }
            }
            out.write_all(&lines)
        }
    }
}

/// How rows are rendered.
enum Form {
    /// With the rows of a piece that is not full yet.
    Text(TextTable, Vec<Kept>),
    Json(Json),
}

/// Prints rows as they come, each socket once.
struct Printer<W> {
    form: Form,
    /// The cookies of full sockets and of minisockets that were printed: a dump under
    /// churn can hold a row twice, and one that failed is made again.
    printed: [HashSet<u64, Folding>; 2],
    places: Places,
    lines: Vec<u8>,
    out: W,
}

impl<W: Write> Printer<W> {
    fn new(format: Format, out: W) -> Printer<W> {
        Printer {
            form: match format {
                Format::Text => Form::Text(TextTable::plain(), Vec::new()),
                Format::Json => Form::Json(Json::new("")),
            },
            printed: [Folding::new(), Folding::new()].map(HashSet::with_hasher),
            places: Places::default(),
            lines: Vec::new(),
            out,
        }
    }

    fn put(&mut self, rows: Vec<Kept>) -> io::Result<()> {
        let (printed, places, lines) = (&mut self.printed, &mut self.places, &mut self.lines);
        let is_new = |kept: &Kept| printed[kept.row.kind as usize].insert(kept.row.cookie.0);
        let new = rows.into_iter().filter(is_new);
        match &mut self.form {
            Form::Text(table, piece) => {
                piece.extend(new);
                if piece.len() >= PIECE {
                    table.piece(piece.drain(..).map(|kept| kept.data(places)), lines);
                }
            }
            Form::Json(json) => new.for_each(|kept| json.row(&kept.data(places), lines)),
        }
        if self.lines.len() >= WRITE_AT {
            self.write()?;
        }
        Ok(())
    }

    fn end(mut self) -> io::Result<()> {
        if let Form::Text(table, piece) = &mut self.form {
            // Without any rows there are titles.
            let rows = piece.drain(..).map(|kept| kept.data(&mut self.places));
            table.piece(rows, &mut self.lines);
        }
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        self.out.write_all(&self.lines)?;
        self.lines.clear();
        Ok(())
    }
}

/// Prints rows as they are read.
pub(super) struct Printing<W>(State<W>);

enum State<W> {
    /// So few yet that there is no thread for them.
    Few(Vec<Kept>, Printer<W>),
    /// There is no thread to be had.
    Alone(Printer<W>),
    Beside(Arc<Line<W>>, JoinHandle<io::Result<()>>),
    /// It has ended.
    Over,
}

impl<W: Write + Send + 'static> Printing<W> {
    pub fn new(format: Format, out: W) -> Printing<W> {
        Printing(State::Few(Vec::new(), Printer::new(format, out)))
    }

    /// Has rows printed; none are left.
    ///
    /// # Errors
    /// Those of writing, of these rows or of earlier ones. There is nothing to be
    /// printed any more then.
    pub fn put(&mut self, kept: &mut Vec<Kept>) -> io::Result<()> {
        match &mut self.0 {
            State::Few(few, _) => {
                few.append(kept);
                if few.len() < PIECE {
                    return Ok(());
                }
                self.begin()
            }
            State::Alone(printer) => printer.put(mem::take(kept)),
            State::Beside(line, _) => {
                let room = Vec::with_capacity(kept.len());
                if line.put(mem::replace(kept, room)) {
                    return Ok(());
                }
                // It listens for as long as it can write.
                self.end()
            }
            State::Over => Ok(()),
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        let State::Few(few, printer) = mem::replace(&mut self.0, State::Over) else {
            return Ok(());
        };
        let line = Arc::new(Line::new(printer));
        let theirs = Arc::clone(&line);
        self.0 = match thread::Builder::new().spawn(move || theirs.print()) {
            Ok(thread) => State::Beside(line, thread),
            Err(error) => {
                log::debug!("no thread that prints: {error}");
                line.take_printer().map_or(State::Over, State::Alone)
            }
        };
        self.put(&mut { few })
    }

    /// All rows have come: returns when they are written.
    ///
    /// # Errors
    /// Those of writing.
    pub fn end(&mut self) -> io::Result<()> {
        match mem::replace(&mut self.0, State::Over) {
            State::Few(few, mut printer) => {
                printer.put(few)?;
                printer.end()
            }
            State::Alone(printer) => printer.end(),
            State::Beside(line, thread) => {
                line.end();
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }
            State::Over => Ok(()),
        }
    }
}

/// What stands in line for the thread that prints. It has no bound but the table.
struct Line<W>(Mutex<InLine<W>>, Condvar);

struct InLine<W> {
    /// Until the thread has it.
    printer: Option<Printer<W>>,
    rows: VecDeque<Vec<Kept>>,
    /// No more come.
    ended: bool,
    /// Nobody takes any more: something could not be written.
    left: bool,
}

impl<W: Write> Line<W> {
    fn new(printer: Printer<W>) -> Line<W> {
        let nothing = InLine {
            printer: Some(printer),
            rows: VecDeque::new(),
            ended: false,
            left: false,
        };
        Line(Mutex::new(nothing), Condvar::new())
    }

    fn lock(&self) -> MutexGuard<'_, InLine<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_printer(&self) -> Option<Printer<W>> {
        self.lock().printer.take()
    }

    /// Puts rows in line; false if nobody takes them.
    fn put(&self, rows: Vec<Kept>) -> bool {
        let mut line = self.lock();
        line.rows.push_back(rows);
        let (enough, left) = (line.rows.len() == WORTH, line.left);
        drop(line);
        if enough {
            self.1.notify_one();
        }
        !left
    }

    fn end(&self) {
        self.lock().ended = true;
        self.1.notify_one();
    }

    /// All in line, once they are worth it; none when no more come.
    fn next(&self) -> VecDeque<Vec<Kept>> {
        let waits = |line: &mut InLine<W>| line.rows.len() < WORTH && !line.ended;
        let line = self.1.wait_while(self.lock(), waits);
        mem::take(&mut line.unwrap_or_else(PoisonError::into_inner).rows)
    }

    /// Prints all that comes.
    fn print(&self) -> io::Result<()> {
        let Some(mut printer) = self.take_printer() else {
            return Ok(());
        };
        loop {
            let rows = self.next();
            if rows.is_empty() {
                return printer.end();
            }
            if let Err(error) = rows.into_iter().try_for_each(|rows| printer.put(rows)) {
                self.lock().left = true;
                return Err(error);
            }
        }
    }
}

/// Hashes cookies, which the kernel counts upwards: in a way that whoever opens many
/// sockets and keeps some cannot foresee, and no better.
#[derive(Clone)]
struct Folding {
    seed: u64,
    hash: u64,
}

impl Folding {
    fn new() -> Folding {
        let seed = RandomState::new().hash_one(0_u8);
        Folding { seed, hash: 0 }
    }
}

impl BuildHasher for Folding {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        self.clone()
    }
}

impl Hasher for Folding {
    fn write_u64(&mut self, number: u64) {
        // An odd number of many ones and zeros.
        let product = u128::from(number ^ self.seed) * 0x9e37_79b9_7f4a_7c15;
        self.hash = (product >> 64) as u64 ^ product as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.hash ^ u64::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::kept;
    use super::*;
    use crate::model::RowKind;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Datagrams of some 250 rows, each row given twice.
    fn datagrams(count: u64) -> impl Iterator<Item = Vec<Kept>> {
        let starts = (0..count).step_by(250).flat_map(|start| [start, start]);
        starts.map(move |start| {
            let cookies = start..(start + 250).min(count);
            cookies
                .map(|cookie| kept(cookie, 1, RowKind::Full))
                .collect()
        })
    }

    fn printed(
        count: u64,
        format: Format,
        begin: impl Fn(Printer<Paper>) -> State<Paper>,
    ) -> String {
        let paper = Paper::default();
        let mut printing = Printing(begin(Printer::new(format, paper.clone())));
        for mut rows in datagrams(count) {
            printing.put(&mut rows).unwrap();
            assert!(rows.is_empty());
        }
        printing.end().unwrap();
        String::from_utf8(paper.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn another_thread_prints_what_this_one_would() {
        for count in [0, 1, 4095, 4096, 10_000] {
            for format in [Format::Json, Format::Text] {
                let alone = printed(count, format, State::Alone);
                let both = printed(count, format, |printer| State::Few(Vec::new(), printer));
                assert_eq!(alone, both, "{count} rows");
                let title = usize::from(format == Format::Text);
                assert_eq!(alone.lines().count(), count as usize + title);
                // As if all had been known.
                let rows: Vec<Kept> = (0..count)
                    .map(|cookie| kept(cookie, 1, RowKind::Full))
                    .collect();
                let rows: Vec<_> = rows
                    .iter()
                    .map(|kept| kept.data(&mut Places::default()))
                    .collect();
                let mut known = Vec::new();
                all(&rows, format, &mut known).unwrap();
                if format == Format::Json || count <= PIECE as u64 {
                    assert_eq!(alone.as_bytes(), known, "{count} rows");
                }
            }
        }
    }

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
    fn a_reader_that_leaves_ends_the_printing() {
        for format in [Format::Json, Format::Text] {
            for bytes in [0, 2 * WRITE_AT] {
                let mut printing = Printing::new(format, Leaves(bytes));
                let put = datagrams(50_000).try_for_each(|mut rows| printing.put(&mut rows));
                let failed = put.and_then(|()| printing.end()).unwrap_err();
                assert_eq!(failed.kind(), io::ErrorKind::BrokenPipe);
                printing.put(&mut vec![kept(1, 1, RowKind::Full)]).unwrap();
                printing.end().unwrap();
            }
        }
    }
}
