//! Network namespaces, as a thread goes into them.
//!
//! An open nsfs file keeps its namespace alive, and so does a thread that is in
//! it: a [`Namespace`] is for the moment.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// An open nsfs file of a network namespace.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    device: u64,
    inode: u32,
}

impl Namespace {
    /// Opens `/proc/PID/ns/net`, or a file that such a one is mounted on. Whether
    /// it is a network namespace shows when it is entered.
    ///
    /// # Errors
    /// Those of open(2); EACCES where the process must not be looked into
    /// (PTRACE_MODE_READ_FSCREDS, ptrace(2)).
    pub fn open(path: &Path) -> io::Result<Namespace> {
        // What is there may be no nsfs file, and is not waited for.
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        let found = file.metadata()?;
        // nsfs inodes are allocated by ns_alloc_inum(), an unsigned int.
        let inode = u32::try_from(found.ino())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no namespace"))?;
        Ok(Namespace {
            device: found.dev(),
            file,
            inode,
        })
    }

    /// The namespace that the calling thread is in.
    ///
    /// # Errors
    /// Those of open(2), where /proc is not mounted.
    pub fn current() -> io::Result<Namespace> {
        Namespace::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Its inode, which is given again when it has ended.
    pub fn inode(&self) -> u32 {
        self.inode
    }

    /// The device of the file: all nsfs files have the same.
    pub fn device(&self) -> u64 {
        self.device
    }

    /// Moves the calling thread, and it alone, into the namespace (setns(2)).
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN, both in the user namespace that owns it and in
    /// the caller's own; EINVAL where the file is of something else.
    pub fn enter(&self) -> io::Result<()> {
        // SAFETY: setns(2) takes no pointers, and the descriptor is open.
        match unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl AsRawFd for Namespace {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threads_own_one_is_opened() {
        let own = Namespace::current().unwrap();
        assert_eq!(own.inode(), crate::sys::netns().unwrap());
        let again = Namespace::open(Path::new("/proc/self/ns/net")).unwrap();
        assert_eq!((own.device(), own.inode()), (again.device(), again.inode()));
    }

    #[test]
    fn another_kind_is_not_entered() {
        let other = Namespace::open(Path::new("/proc/self/ns/uts")).unwrap();
        let refused = other.enter().unwrap_err().raw_os_error();
        assert!(matches!(refused, Some(libc::EINVAL | libc::EPERM)));
    }
}
