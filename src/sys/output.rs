//! The descriptor work of an output stream whose writer must never wait.
//!
//! Standard output and standard error are shared: with the shell, with the
//! other members of a pipeline, with whoever started us. O_NONBLOCK belongs to
//! the open file description, not to the descriptor, so setting it on fd 1
//! would make the shell's own writes fail. An [`Output`] therefore opens the
//! same pipe or terminal anew, and touches the shared description only when
//! that is refused.
//!
//! Promises: [`Output::write`] never waits for a reader (a disk may take its
//! time), never raises SIGPIPE on a socket, and the description that was handed
//! in has the flags it had once the `Output` is dropped.
#![allow(unsafe_code)]

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, Ordering};

/// What stands behind a descriptor, as far as writing to it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A pipe or a named FIFO.
    Pipe,
    /// A terminal.
    Terminal,
    /// A stream socket.
    Socket,
    /// A regular file, /dev/null, or another device: it is written plainly, and
    /// epoll would refuse it.
    File,
}

/// How a write is kept from waiting.
#[derive(Debug)]
enum Way {
    /// Nothing to be done: a file, or a description of our own with O_NONBLOCK.
    Write,
    /// O_NONBLOCK was set on the shared description; it is taken off on drop.
    Lent,
    /// The shared description is left alone: poll first, and write no more than
    /// a pipe that polls writable takes at once.
    Polled,
    /// A socket has a flag for each call.
    Send,
}

/// What to do when the description cannot be opened anew (another user's
/// terminal after `su`, no /proc, a FIFO without a reader).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Set O_NONBLOCK on the shared one until the [`Output`] is dropped.
    Lend,
    /// Poll before each write. Two writers can still race for the last page of
    /// a pipe, so this is for what is written seldom and lives as long as the
    /// process: the log.
    Poll,
}

/// An open output stream.
#[derive(Debug)]
pub struct Output {
    file: File,
    kind: Kind,
    way: Way,
}

/// Why a stream cannot be written to. The sentence goes on from "standard
/// output ...".
#[derive(Debug)]
pub enum OpenError {
    /// The descriptor was not open when the program started.
    Closed,
    /// It is open for reading only.
    ReadOnly,
    /// A datagram socket would cut the stream at arbitrary places.
    Datagram,
    /// The kernel refused.
    Io(io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Closed => f.write_str(
                "was closed when the program started; redirect it to a file, a pipe or /dev/null",
            ),
            OpenError::ReadOnly => f.write_str("is open for reading only"),
            OpenError::Datagram => f.write_str("is a datagram socket; a stream is needed"),
            OpenError::Io(error) => write!(f, "cannot be used: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> OpenError {
        match error.raw_os_error() {
            Some(libc::EBADF) => OpenError::Closed,
            _ => OpenError::Io(error),
        }
    }
}

/// Whether fd 1 was missing when the process began.
static STDOUT_MISSING: AtomicBool = AtomicBool::new(false);

/// Rust's runtime opens /dev/null on each of the descriptors 0 to 2 that is
/// closed, before `main`; afterwards `>&-` cannot be told from `>/dev/null`, and
/// a daemon whose events go nowhere would start without a word. The C runtime
/// calls what is in `.init_array` before that.
// SAFETY: `.init_array` holds pointers to C functions, which glibc calls with
// (argc, argv, envp) and musl without arguments; a C function that takes none
// may be called either way. `look` uses no part of the Rust runtime: one system
// call and one atomic store, both sound before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_AT_STDOUT: extern "C" fn() = look;

extern "C" fn look() {
    // SAFETY: F_GETFD takes no pointer and changes nothing; a closed descriptor
    // is answered with EBADF.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    STDOUT_MISSING.store(flags == -1, Ordering::Relaxed);
}

impl Output {
    /// Standard output.
    pub fn standard() -> Result<Output, OpenError> {
        if STDOUT_MISSING.load(Ordering::Relaxed) {
            return Err(OpenError::Closed);
        }
        Output::over(io::stdout().as_fd(), Refused::Lend)
    }

    /// Standard error, whose shared description is never changed.
    pub fn error() -> Result<Output, OpenError> {
        Output::over(io::stderr().as_fd(), Refused::Poll)
    }

    /// The stream behind a descriptor. The descriptor itself stays the caller's.
    pub fn over(fd: BorrowedFd<'_>, refused: Refused) -> Result<Output, OpenError> {
        let flags = status_flags(fd)?;
        if flags & libc::O_ACCMODE == libc::O_RDONLY {
            return Err(OpenError::ReadOnly);
        }
        let file = File::from(fd.try_clone_to_owned()?);
        let kind = kind_of(&file)?;
        let (file, way) = match kind {
            Kind::File => (file, Way::Write),
            Kind::Socket if !is_stream(fd)? => return Err(OpenError::Datagram),
            Kind::Socket => (file, Way::Send),
            Kind::Pipe | Kind::Terminal => match reopen(&file) {
                Ok(own) => (own, Way::Write),
                Err(_) if flags & libc::O_NONBLOCK != 0 => (file, Way::Write),
                Err(error) => match refused {
                    Refused::Lend => {
                        log::debug!("an output is made non-blocking in place: {error}");
                        set_status_flags(fd, flags | libc::O_NONBLOCK)?;
                        (file, Way::Lent)
                    }
                    Refused::Poll => (file, Way::Polled),
                },
            },
        };
        Ok(Output { file, kind, way })
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Waits until `other` is readable; false when the reader of this stream is
    /// gone before.
    ///
    /// # Errors
    /// Those of poll(2).
    pub fn outlasts(&self, other: BorrowedFd<'_>) -> io::Result<bool> {
        let wanted = |fd: BorrowedFd<'_>, events| libc::pollfd {
            fd: fd.as_raw_fd(),
            events,
            revents: 0,
        };
        // POLLERR (a pipe without a reader) and POLLHUP come unasked.
        let mut both = [wanted(other, libc::POLLIN), wanted(self.file.as_fd(), 0)];
        loop {
            // SAFETY: two live pollfds and the count 2.
            match unsafe { libc::poll(both.as_mut_ptr(), 2, -1) } {
                -1 if io::Error::last_os_error().kind() == ErrorKind::Interrupted => {}
                -1 => return Err(io::Error::last_os_error()),
                _ => return Ok(both[0].revents != 0),
            }
        }
    }

    /// The descriptor to wait on for room; none where epoll would refuse it.
    pub fn source(&self) -> Option<RawFd> {
        (self.kind != Kind::File).then(|| self.file.as_raw_fd())
    }

    /// Writes what there is room for, with one system call where nothing
    /// interrupts it. `WouldBlock` means that there is no room now.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let written = match self.way {
                Way::Write | Way::Lent => (&self.file).write(bytes),
                Way::Polled => self.write_polled(bytes),
                Way::Send => send(self.file.as_fd(), bytes),
            };
            match written {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_polled(&self, bytes: &[u8]) -> io::Result<usize> {
        if !has_room(self.file.as_fd())? {
            return Err(ErrorKind::WouldBlock.into());
        }
        (&self.file).write(&bytes[..bytes.len().min(libc::PIPE_BUF)])
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Way::Lent = self.way {
            let fd = self.file.as_fd();
            let restored =
                status_flags(fd).and_then(|flags| set_status_flags(fd, flags & !libc::O_NONBLOCK));
            if let Err(error) = restored {
                log::warn!("an output stays non-blocking: {error}");
            }
        }
    }
}

fn kind_of(file: &File) -> io::Result<Kind> {
    let kind = file.metadata()?.file_type();
    Ok(if kind.is_fifo() {
        Kind::Pipe
    } else if kind.is_socket() {
        Kind::Socket
    } else if kind.is_char_device() && file.is_terminal() {
        Kind::Terminal
    } else {
        Kind::File
    })
}

/// A description of our own for the same pipe or terminal. O_NOCTTY: a daemon
/// must not gain a controlling terminal by writing to one.
fn reopen(shared: &File) -> io::Result<File> {
    let own = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{}", shared.as_raw_fd()))?;
    let (was, is) = (shared.metadata()?, own.metadata()?);
    if (was.dev(), was.ino()) != (is.dev(), is.ino()) {
        return Err(io::Error::other("/proc/self/fd leads somewhere else"));
    }
    Ok(own)
}

fn status_flags(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: F_GETFL takes no pointer, and `fd` is open for the call.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) } {
        -1 => Err(io::Error::last_os_error()),
        flags => Ok(flags),
    }
}

fn set_status_flags(fd: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: F_SETFL takes an int, and `fd` is open for the call.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn is_stream(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut kind: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `kind` is a live c_int and `len` its size, which is what SO_TYPE
    // answers with (socket(7)); both outlive the call.
    let answer = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TYPE,
            (&raw mut kind).cast(),
            &raw mut len,
        )
    };
    match answer {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(kind == libc::SOCK_STREAM),
    }
}

fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of one live slice, which
    // send() only reads.
    let sent = unsafe {
        libc::send(
            fd.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Writes that wait for room: for a program that prints and ends. It is the same
/// [`Output`] below, so a closed standard output is told and a pipe that somebody
/// made non-blocking loses nothing.
#[derive(Debug)]
pub struct Patient(pub Output);

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    poll_room(self.0.file.as_fd(), -1)?;
                }
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a write can be tried now; one that would fail counts, so that it
/// fails.
fn has_room(fd: BorrowedFd<'_>) -> io::Result<bool> {
    poll_room(fd, 0)
}

/// As [`has_room`], within a time in milliseconds; -1 waits for ever.
fn poll_room(fd: BorrowedFd<'_>, timeout: libc::c_int) -> io::Result<bool> {
    let mut wanted = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    loop {
        // SAFETY: one live pollfd and the count 1.
        match unsafe { libc::poll(&raw mut wanted, 1, timeout) } {
            -1 if io::Error::last_os_error().kind() == ErrorKind::Interrupted => {}
            -1 => return Err(io::Error::last_os_error()),
            _ => return Ok(wanted.revents != 0),
        }
    }
}

/// The description's flags, for tests that show that they were left alone.
#[cfg(test)]
pub(crate) fn is_nonblocking(fd: &std::os::fd::OwnedFd) -> bool {
    status_flags(fd.as_fd()).unwrap() & libc::O_NONBLOCK != 0
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
