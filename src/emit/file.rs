//! A file as a sink: JSON lines, appended.
//!
//! Promises: the file holds whole lines, also where a disk is full in the middle
//! of one; what cannot be written now is kept (`daemon.queue` events of it) and
//! tried again every second, and nothing that goes wrong with the file ends the
//! daemon. After [`Reopen::wanted`] lines go to the file that has the name by
//! then: none is lost or written twice.
//!
//! Writes are made by the reactor itself. They go to the page cache, which takes
//! a few microseconds; a disk that is too slow for what is written, or a network
//! file system whose server is gone, makes the daemon wait.

use std::cell::Cell;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Seek, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::backlog::Backlog;
use super::{Delivery, Flush, Loss, OutputError, Renderer, Sink};
use crate::log::Plain;
use crate::model::Event;

/// The wish that files be opened anew, shared by all of them.
#[derive(Clone, Default, Debug)]
pub struct Reopen(Rc<Cell<u32>>);

impl Reopen {
    /// Has each file opened anew before it is written next.
    pub fn wanted(&self) {
        self.0.set(self.0.get().wrapping_add(1));
    }
}

/// Events to a file.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    file: fs::File,
    backlog: Backlog,
    reopen: Reopen,
    /// The wish that has been granted.
    opened: u32,
    /// What it is in the log.
    what: String,
}

impl File {
    /// Opens or creates the file, mode 0640, for the sink of this name, which may
    /// lag behind by `limit` events.
    ///
    /// # Errors
    /// Those of open(2), and InvalidInput for what is no file: a FIFO, a socket, a
    /// terminal.
    pub fn open(
        sink: Arc<str>,
        path: &Path,
        renderer: Renderer,
        limit: usize,
        reopen: Reopen,
    ) -> io::Result<File> {
        Ok(File {
            path: path.to_owned(),
            file: appended(path)?,
            what: format!("{sink} ({})", Plain(&path.to_string_lossy())),
            backlog: Backlog::new(sink, renderer, limit),
            opened: reopen.0.get(),
            reopen,
        })
    }

    /// Goes over to the file that has the name now; where it cannot be opened, the
    /// old one is written on.
    fn open_anew(&mut self) {
        self.opened = self.reopen.0.get();
        match appended(&self.path) {
            Ok(file) => {
                // A line goes into one file, whole.
                self.finish_line();
                self.file = file;
                log::info!("{}: opened anew", self.what);
            }
            Err(error) => {
                log::warn!(
                    "{}: cannot be opened anew: {error}; the file that was open is written on",
                    self.what
                );
            }
        }
    }

    /// Before the file is given up: what is begun is taken back, or stays half a
    /// line where somebody else has written behind it.
    fn finish_line(&mut self) {
        self.take_back();
        self.backlog.begin_again();
    }

    /// Takes back the part of a line that was written, so that what reads the file
    /// meanwhile finds whole lines. Where somebody else has appended since, or the
    /// file cannot be cut, the rest of the line will follow instead.
    fn take_back(&mut self) {
        let begun = self.backlog.begun() as u64;
        if begun == 0 {
            return;
        }
        // After a write with O_APPEND the position is where it ended.
        let cut = self.file.stream_position().and_then(|end| {
            if self.file.metadata()?.len() != end {
                return Err(io::Error::other("somebody else writes to it"));
            }
            self.file.set_len(end - begun)
        });
        match cut {
            Ok(()) => self.backlog.begin_again(),
            Err(error) => log::debug!("{}: half a line stays for now: {error}", self.what),
        }
    }
}

impl Sink for File {
    fn offer(&mut self, event: &Event) -> Delivery {
        if self.backlog.is_pressing() {
            self.write();
        }
        self.backlog.take(event)
    }

    fn loss(&mut self) -> Option<Loss> {
        self.backlog.loss()
    }

    fn set_limit(&mut self, limit: usize) {
        self.backlog.set_limit(limit);
    }

    fn mark(&mut self) {
        self.backlog.mark();
    }

    fn is_past_mark(&self) -> bool {
        self.backlog.is_past_mark()
    }

    fn flush(&mut self) -> Result<Flush, OutputError> {
        if self.opened != self.reopen.0.get() {
            self.open_anew();
        }
        Ok(self.write())
    }

    fn relieve(&mut self) {
        if self.backlog.is_ample() {
            self.write();
        }
    }

    fn held(&self) -> usize {
        self.backlog.lines()
    }
}

impl File {
    fn write(&mut self) -> Flush {
        match self.backlog.write(|bytes| write(&self.file, bytes)) {
            Ok(()) => {
                self.backlog.accepted(&self.what);
                Flush::Drained
            }
            Err(error) => {
                self.take_back();
                self.backlog.refused(&self.what, &error);
                Flush::Retry
            }
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let left = self.backlog.lines();
        if left > 0 {
            log::warn!("{}: {left} events could not be written", self.what);
        }
    }
}

fn write(mut file: &fs::File, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match file.write(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Opens a file for appending. A line that an earlier writer left half (it was
/// killed, the machine lost power) is ended, so that the next one is whole.
fn appended(path: &Path) -> io::Result<fs::File> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        // A FIFO without a reader must not hold the daemon up, nor a terminal
        // become its controlling one.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    if !kind.is_file() && (!kind.is_char_device() || file.is_terminal()) {
        let error = "is no file that can be appended to";
        return Err(io::Error::new(ErrorKind::InvalidInput, error));
    }
    if kind.is_file() && metadata.len() > 0 {
        let mut last = [0];
        file.read_exact_at(&mut last, metadata.len() - 1)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
