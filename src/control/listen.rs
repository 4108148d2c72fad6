//! The socket file: taken, kept, and removed again.
//!
//! Promises: the file is never more open than mode 0660; of two daemons that
//! start on one path at once only one gets it; the socket of a daemon that is
//! dead is replaced, that of anybody who answers is not; and nothing but a socket
//! is ever removed.
//!
//! Whether a socket is stale cannot be asked and acted upon in one step, so the
//! two steps are made under a lock, that of a file beside it (`<path>.lock`, mode
//! 0600, so that nobody else can hold it). The lock is held as long as the
//! daemon runs; a dead one's is gone with it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::Access;
use crate::log::Plain;
use crate::sys;

/// Why there is no control socket: a sentence for whoever starts the daemon.
#[derive(Debug)]
pub enum ListenError {
    /// Another daemon has the path, or is just about to.
    Held(PathBuf),
    /// Somebody answers at the path.
    Live(PathBuf),
    /// What is there is no socket.
    NoSocket(PathBuf),
    /// The kernel refused: the path, what to do with it, and the kernel's word.
    Io(PathBuf, &'static str, io::Error),
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |path: &Path| Plain(&path.to_string_lossy()).to_string();
        match self {
            ListenError::Held(path) => write!(
                f,
                "the control socket {} belongs to another sockwatch that is running; \
                 stop it, or give this one a `daemon.control` of its own",
                shown(path)
            ),
            ListenError::Live(path) => write!(
                f,
                "another program answers at the control socket {}; \
                 stop it, or set `daemon.control` to another path",
                shown(path)
            ),
            ListenError::NoSocket(path) => write!(
                f,
                "{} is there and is no socket: it is left alone; \
                 move it away, or set `daemon.control` to another path",
                shown(path)
            ),
            ListenError::Io(path, what, error) => {
                let path = shown(path);
                write!(f, "cannot {what} the control socket {path}: {error}")?;
                match error.kind() {
                    ErrorKind::NotFound => f.write_str("; its directory must exist"),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for ListenError {}

/// A socket file of ours, and its listener. Dropping it removes the file.
#[derive(Debug)]
pub(super) struct Place {
    pub listener: UnixListener,
    path: PathBuf,
    /// The file's device and inode: what is there later may be another.
    file: (u64, u64),
    lock: Lock,
}

impl Place {
    /// Takes the path.
    pub fn take(path: &Path, access: &Access) -> Result<Place, ListenError> {
        let refused = |what| {
            let path = path.to_owned();
            move |error| ListenError::Io(path, what, error)
        };
        let lock = Lock::take(path)?;
        clear(path)?;
        let listener = sys::bind_private(path).map_err(refused("make"))?;
        let file = identity(path).map_err(refused("find"))?;
        let place = Place {
            listener,
            path: path.to_owned(),
            file,
            lock,
        };
        // From here on a failure removes the file.
        place
            .listener
            .set_nonblocking(true)
            .map_err(refused("listen at"))?;
        let (uid, gid) = (access.uids.first(), access.gids.first());
        if uid.is_some() || gid.is_some() {
            std::os::unix::fs::lchown(path, uid.copied(), gid.copied()).map_err(refused(
                "set the owner and the group (control-uids, control-gids) of",
            ))?;
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file)
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("the control socket's file stays: {error}");
        }
        self.lock.remove();
    }
}

/// The lock of a path.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    fn take(socket: &Path) -> Result<Lock, ListenError> {
        let refused = |error| ListenError::Io(socket.to_owned(), "lock", error);
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(&path)
                .map_err(refused)?;
            if !sys::lock(&file).map_err(refused)? {
                return Err(ListenError::Held(socket.to_owned()));
            }
            // Who had it before may have removed the file since it was opened:
            // then this lock is worth nothing.
            let own = file.metadata().map_err(refused)?;
            match identity(&path) {
                Ok(there) if there == (own.dev(), own.ino()) => return Ok(Lock { path, file }),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(refused(error)),
            }
        }
    }

    /// Removes the file while it is still locked.
    fn remove(&self) {
        let own = self.file.metadata().map(|file| (file.dev(), file.ino()));
        if let (Ok(own), Ok(there)) = (own, identity(&self.path))
            && own == there
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("the control socket's lock file stays: {error}");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Removes the socket of a daemon that is dead.
fn clear(path: &Path) -> Result<(), ListenError> {
    let refused = |what| {
        let path = path.to_owned();
        move |error| ListenError::Io(path, what, error)
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused("look at")(error)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(ListenError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    // mio's does not wait where std's would: for a place in the line of those who
    // are to be accepted.
    match mio::net::UnixStream::connect(path) {
        // Nobody listens (unix(7)).
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            log::info!(
                "the control socket {} is left over from a daemon that is gone; it is replaced",
                Plain(&path.to_string_lossy())
            );
            fs::remove_file(path).map_err(refused("replace"))
        }
        Ok(_) => Err(ListenError::Live(path.to_owned())),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(ListenError::Live(path.to_owned()))
        }
        // Of another type (EPROTOTYPE), or not to be asked: not ours to remove.
        Err(error) => Err(refused("ask who is at")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    /// A path in a directory of its own.
    fn path(name: &str) -> PathBuf {
        let name = format!("sockwatch-listen-{}-{name}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        dir.join("control.sock")
    }

    fn gone(path: &Path) {
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn taken_once_and_removed() {
        let path = path("once");
        let place = Place::take(&path, &Access::default()).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o660);
        let held = Place::take(&path, &Access::default());
        assert!(matches!(held, Err(ListenError::Held(_))), "{held:?}");
        assert!(path.exists(), "the first one keeps its file");
        drop(place);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
        gone(&path);
    }

    #[test]
    fn what_is_stale_is_replaced_and_what_answers_is_not() {
        let path = path("stale");
        drop(UnixListener::bind(&path).unwrap());
        let place = Place::take(&path, &Access::default()).unwrap();
        drop(place);
        let other = UnixListener::bind(&path).unwrap();
        let live = Place::take(&path, &Access::default());
        assert!(matches!(live, Err(ListenError::Live(_))), "{live:?}");
        drop(other);
        gone(&path);
    }

    #[test]
    fn only_sockets_of_its_own_are_removed() {
        let path = path("file");
        fs::write(&path, "precious").unwrap();
        let refused = Place::take(&path, &Access::default());
        assert!(matches!(refused, Err(ListenError::NoSocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();
        let place = Place::take(&path, &Access::default()).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(place);
        assert!(path.exists());
        gone(&path);
    }

    /// Of many that begin at once on the socket of a dead one, one wins.
    #[test]
    fn one_of_many_wins() {
        let path = path("race");
        for _ in 0..20 {
            drop(UnixListener::bind(&path).unwrap());
            let barrier = std::sync::Barrier::new(8);
            let won: Vec<Option<Place>> = std::thread::scope(|scope| {
                let starters: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            barrier.wait();
                            Place::take(&path, &Access::default()).ok()
                        })
                    })
                    .collect();
                starters
                    .into_iter()
                    .map(|starter| starter.join().unwrap())
                    .collect()
            });
            assert_eq!(won.iter().flatten().count(), 1);
            UnixStream::connect(&path).unwrap();
        }
        gone(&path);
    }
}
