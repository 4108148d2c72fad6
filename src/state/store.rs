//! The state directory: one file that counts, a lock, and what was set aside.
//!
//! A new base is written to `state.new` and takes the place of `state` with one
//! rename(2). A file that cannot be used is renamed after what is wrong with it,
//! so that there are never more of them than there are reasons.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::frame::{self, Frames, LONGEST_FILE, Unusable};
use super::journal::Batch;
use super::record::{Head, Record};
use super::replay::{self, Summary};
use crate::log::Plain;
use crate::sys;

/// Why the directory cannot be used.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has it.
    Taken(PathBuf),
    /// What was tried, with which path, and the kernel's word.
    Io(&'static str, PathBuf, io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |path: &Path| path.to_string_lossy().into_owned();
        match self {
            OpenError::Taken(path) => write!(
                f,
                "another sockwatch keeps its state in {}; each needs a directory of its own",
                Plain(&shown(path))
            ),
            OpenError::Io(what, path, error) => {
                write!(f, "cannot {what} {}: {error}", Plain(&shown(path)))
            }
        }
    }
}

impl std::error::Error for OpenError {}

/// What was found in the directory.
#[derive(Debug)]
pub enum Found {
    /// No file.
    Nothing,
    /// A file that can be used.
    State(Summary),
    /// A file that cannot, why, and its new name.
    Aside(Unusable, PathBuf),
}

/// The directory of a daemon that runs.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    head: Head,
    /// Held, not read: it is what the lock hangs on.
    _lock: File,
    /// What is appended to, once there is a base.
    file: Option<File>,
    /// How long it is.
    length: u64,
    /// How long its base is.
    base: u64,
}

impl Store {
    /// Opens a directory, which is made where it is missing (but not its parents),
    /// locks it, and looks at what is there.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(dir: &Path, head: Head) -> Result<(Store, Found), OpenError> {
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(OpenError::Io("make the state directory", dir.into(), error));
            }
            _ => {}
        }
        let path = dir.join("lock");
        let locked = private()
            .create(true)
            .truncate(false)
            .open(&path)
            .and_then(|file| Ok((sys::lock(&file)?, file)));
        let lock = match locked {
            Ok((true, file)) => file,
            Ok((false, _)) => return Err(OpenError::Taken(dir.into())),
            Err(error) => return Err(OpenError::Io("lock", path, error)),
        };
        let store = Store {
            dir: dir.into(),
            head,
            _lock: lock,
            file: None,
            length: 0,
            base: 0,
        };
        let found = store
            .look()
            .map_err(|error| OpenError::Io("read", store.path(), error))?;
        Ok((store, found))
    }

    fn path(&self) -> PathBuf {
        self.dir.join("state")
    }

    fn frames(&self) -> io::Result<Result<Frames<BufReader<File>>, Unusable>> {
        let file = File::open(self.path())?;
        if file.metadata()?.len() > LONGEST_FILE {
            return Ok(Err(Unusable::Corrupt));
        }
        Frames::open(BufReader::with_capacity(64 << 10, file))
    }

    fn look(&self) -> io::Result<Found> {
        let checked = match self.frames() {
            Ok(Ok(frames)) => replay::check(frames, &self.head)?,
            Ok(Err(why)) => Err(why),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        match checked {
            Ok(summary) => Ok(Found::State(summary)),
            Err(why) => {
                let aside = self.dir.join(format!("state.{}", why.as_str()));
                std::fs::rename(self.path(), &aside)?;
                Ok(Found::Aside(why, aside))
            }
        }
    }

    /// The frames of the file that [`Store::open`] found good.
    ///
    /// # Errors
    /// Those of reading; the file has changed.
    pub fn found(&self) -> io::Result<Frames<BufReader<File>>> {
        let changed = |why: Unusable| io::Error::new(io::ErrorKind::InvalidData, why.as_str());
        self.frames()?.map_err(changed)
    }

    /// Begins a new base.
    ///
    /// # Errors
    /// Those of creating a file.
    pub fn begin(&self) -> io::Result<Base> {
        let path = self.dir.join("state.new");
        let file = private().create(true).truncate(true).open(&path)?;
        let mut prefix = Vec::new();
        frame::prefix(&mut prefix);
        let mut base = Base {
            path,
            file,
            batch: Batch::default(),
            length: 0,
        };
        base.write(&prefix)?;
        base.push(&Record::Head(self.head))?;
        Ok(base)
    }

    /// A base takes the old file's place. `sync`: the medium is waited for.
    ///
    /// # Errors
    /// Those of writing it; the old file stays.
    pub fn replace(&mut self, mut base: Base, sync: bool) -> io::Result<()> {
        base.flush()?;
        if sync {
            base.file.sync_all()?;
        }
        std::fs::rename(&base.path, self.path())?;
        if sync {
            File::open(&self.dir)?.sync_all()?;
        }
        (self.length, self.base) = (base.length, base.length);
        self.file = Some(base.file);
        Ok(())
    }

    /// Appends frames. One that could not be written in full is taken back, and
    /// nothing more is appended until there is a new base.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("there is no file to append to"));
        };
        if let Err(error) = file.write_all(frames) {
            // Whether it can be cut off or not, a reader takes it for torn.
            if let Err(more) = file.set_len(self.length) {
                log::debug!("cannot cut a frame off: {more}");
            }
            self.file = None;
            return Err(error);
        }
        self.length += frames.len() as u64;
        Ok(())
    }

    /// Appends nothing more until there is a new base.
    pub fn close(&mut self) {
        self.file = None;
    }

    /// Takes away what there is of a base that could not be written: on a full
    /// medium it would be in its own way.
    pub fn discard(&self) {
        match std::fs::remove_file(self.dir.join("state.new")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::debug!("cannot remove an unfinished state file: {error}");
            }
            _ => {}
        }
    }

    /// Whether frames can be appended.
    pub fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// How many bytes the base has, and how many stand behind it.
    pub fn lengths(&self) -> (u64, u64) {
        (self.base, self.length - self.base)
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

/// A base under way.
#[derive(Debug)]
pub struct Base {
    path: PathBuf,
    file: File,
    batch: Batch,
    length: u64,
}

impl Base {
    /// Adds a record.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn push(&mut self, record: &Record) -> io::Result<()> {
        self.batch.push(record);
        let full = self.batch.take_full();
        self.write(&full)
    }

    /// Adds frames that were appended to the file that there is.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        self.flush()?;
        self.write(frames)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut rest = Vec::new();
        self.batch.drain(&mut rest);
        self.write(&rest)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.length += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// How long it is so far.
    pub fn length(&self) -> u64 {
        self.length
    }
}
