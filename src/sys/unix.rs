//! Unix stream sockets: who is at the other end, and one that is bound with the
//! permissions it is to have.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Who connected (SO_PEERCRED, unix(7)): as of connect(2), by the kernel's word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// The process; 0 where it is in another pid namespace.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// The most groups a process can be in (NGROUPS_MAX, linux/limits.h).
const GROUPS: usize = 65_536;

/// Reads SO_PEERCRED.
///
/// # Errors
/// Those of getsockopt(2).
pub fn peer(fd: BorrowedFd<'_>) -> io::Result<Peer> {
    let mut cred = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `cred` and `length` are valid for writes, and `length` says how
    // large `cred` is.
    let answer = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut cred).cast(),
            &raw mut length,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer {
        pid: u32::try_from(cred.pid).unwrap_or(0),
        uid: cred.uid,
        gid: cred.gid,
    })
}

/// The supplementary groups of who connected (SO_PEERGROUPS, Linux 4.13).
///
/// # Errors
/// ENOPROTOOPT on an older kernel.
pub fn peer_groups(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups: Vec<u32> = vec![0; 64];
    loop {
        let mut length = size_of_val(groups.as_slice()) as libc::socklen_t;
        // SAFETY: `groups` is writable for `length` bytes, and `length` is valid
        // for writes.
        let answer = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let error = io::Error::last_os_error();
        // ERANGE comes with the length that is needed (net/core/sock.c).
        let count = length as usize / size_of::<u32>();
        if answer == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let grows = error.raw_os_error() == Some(libc::ERANGE) && count > groups.len();
        if !grows || count > GROUPS {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

/// The user that this process acts as.
pub fn effective_uid() -> u32 {
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// Binds a listener whose file has mode 0660 from its first moment. The umask is
/// that of the whole process: to be called while no other thread makes files.
///
/// # Errors
/// Those of bind(2) and listen(2).
pub fn bind_private(path: &Path) -> io::Result<UnixListener> {
    // SAFETY: umask(2) takes a number and cannot fail.
    let before = unsafe { libc::umask(0o117) };
    let bound = UnixListener::bind(path);
    // SAFETY: as above.
    unsafe { libc::umask(before) };
    bound
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_pair_is_one_s_own() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = peer(one.as_fd()).unwrap();
        assert_eq!((peer.pid, peer.uid), (std::process::id(), effective_uid()));
        peer_groups(one.as_fd()).unwrap();
    }
}
