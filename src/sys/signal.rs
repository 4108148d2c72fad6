//! Signals as readable events (signalfd(2)), so that the one loop handles them
//! like everything else.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A signal that sockwatch acts on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGTERM or SIGINT: finish what is queued and end.
    End,
    /// SIGUSR1: release all locks.
    ReleaseLocks,
    /// SIGHUP: files were renamed, settings were changed.
    Hangup,
    /// SIGCHLD: a child ended, or several.
    Child,
}

/// The signals of this process, blocked for delivery and readable instead.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

const HANDLED: [libc::c_int; 5] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGUSR1,
    libc::SIGHUP,
    libc::SIGCHLD,
];

impl Signals {
    /// Blocks the handled signals and opens a descriptor for them. To be called
    /// before the first thread is started: threads inherit the mask. Children do
    /// not: std starts them with an empty one.
    ///
    /// SIGXFSZ is blocked too and read by nobody: it would end the program where a
    /// file reaches RLIMIT_FSIZE, of which the write's EFBIG tells as well. And
    /// SIGCHLD gets back its default action: ignored, as a parent may have left
    /// it, it would have children vanish with their exit status (wait(2)).
    ///
    /// # Errors
    /// EMFILE, ENOMEM, or ENODEV where anonymous inodes cannot be had.
    pub fn open() -> io::Result<Signals> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: SIG_DFL is no function of ours that could be called.
        if unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
        let mut blocked = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises each set before it is read, and all
        // calls only touch memory that this frame owns.
        let fd = unsafe {
            libc::sigemptyset(blocked.as_mut_ptr());
            libc::sigemptyset(set.as_mut_ptr());
            for signal in HANDLED {
                libc::sigaddset(set.as_mut_ptr(), signal);
                libc::sigaddset(blocked.as_mut_ptr(), signal);
            }
            libc::sigaddset(blocked.as_mut_ptr(), libc::SIGXFSZ);
            let failed =
                libc::pthread_sigmask(libc::SIG_BLOCK, blocked.as_ptr(), std::ptr::null_mut());
            if failed != 0 {
                return Err(io::Error::from_raw_os_error(failed));
            }
            libc::signalfd(-1, set.as_ptr(), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened here and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Signals { fd })
    }

    /// The next signal, `None` when there is none now.
    ///
    /// # Errors
    /// Those of read(2), which signalfd does not document for a valid buffer.
    pub fn next(&self) -> io::Result<Option<Signal>> {
        loop {
            let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
            let size = size_of::<libc::signalfd_siginfo>();
            // SAFETY: `info` is writable for `size` bytes.
            let got = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
            if got < 0 {
                let error = io::Error::last_os_error();
                match error.raw_os_error() {
                    Some(libc::EINTR) => continue,
                    Some(libc::EAGAIN) => return Ok(None),
                    _ => return Err(error),
                }
            }
            if usize::try_from(got) != Ok(size) {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "signalfd read short",
                ));
            }
            // SAFETY: read(2) filled the whole structure, as just checked.
            let number = unsafe { info.assume_init() }.ssi_signo;
            return Ok(Some(match number as libc::c_int {
                libc::SIGUSR1 => Signal::ReleaseLocks,
                libc::SIGHUP => Signal::Hangup,
                libc::SIGCHLD => Signal::Child,
                _ => Signal::End,
            }));
        }
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
