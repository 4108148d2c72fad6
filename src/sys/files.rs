//! Files of /proc, read again and again: no allocation, no path walked twice.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// Opens a directory for [`read_at`] (O_PATH: nothing of it is read).
///
/// # Errors
/// Those of open(2).
pub fn open_dir(path: &str) -> io::Result<OwnedFd> {
    std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
        .open(path)
        .map(OwnedFd::from)
}

/// Reads a file in a directory from its beginning, as much of it as the buffer
/// takes; how much that is.
///
/// # Errors
/// Those of openat(2) and read(2).
pub fn read_at(dir: &impl AsFd, name: &CStr, buffer: &mut [u8]) -> io::Result<usize> {
    let dir = dir.as_fd().as_raw_fd();
    // SAFETY: `name` ends in a NUL, and openat(2) only reads it.
    let fd = unsafe { libc::openat(dir, name.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just opened here and nobody else owns it.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut length = 0;
    while length < buffer.len() {
        let rest = &mut buffer[length..];
        // SAFETY: `rest` is writable for its length.
        let got = unsafe { libc::read(file.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len()) };
        match usize::try_from(got) {
            Ok(0) => break,
            Ok(got) => length += got,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(length)
}
