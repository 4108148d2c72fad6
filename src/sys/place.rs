//! Where and when this process runs, as a file that outlives it must know it:
//! the boot, the namespace, a clock that both lives share, and a lock that ends
//! with the process.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

/// The id of this boot (/proc/sys/kernel/random/boot_id, random(4)).
///
/// # Errors
/// Those of reading /proc, where it is not mounted.
pub fn boot_id() -> io::Result<u128> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    u128::from_str_radix(&digits, 16)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a boot id that is no UUID"))
}

/// The cookie of the calling thread's network namespace (SO_NETNS_COOKIE, Linux
/// 5.14): unlike the inode number it is not given again within a boot. `None` on
/// an older kernel.
///
/// # Errors
/// Those of socket(2): no socket can be had to ask about.
pub fn netns_cookie() -> io::Result<Option<u64>> {
    let socket = UnixDatagram::unbound()?;
    let mut value: u64 = 0;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: `value` and `length` are valid for writes, and `length` says how
    // large `value` is; the option writes eight bytes.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    Ok((answer == 0).then_some(value))
}

/// Milliseconds of CLOCK_MONOTONIC: the clock behind `Instant`, in a form that
/// another process of the same boot understands.
pub fn monotonic_ms() -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the kernel writes the structure; CLOCK_MONOTONIC is always there,
    // and a timespec of ours can always be written.
    let time = unsafe {
        if libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr()) != 0 {
            return 0;
        }
        time.assume_init()
    };
    // Neither is negative on a monotonic clock.
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// Locks a file for this process alone (flock(2)), until the file is closed,
/// however the process ends. False when another process has it.
///
/// # Errors
/// ENOLCK, or EOPNOTSUPP on a file system without locks.
pub fn lock(file: &File) -> io::Result<bool> {
    loop {
        // SAFETY: flock(2) takes no pointers, and the descriptor is open.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EWOULDBLOCK) => return Ok(false),
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_and_the_namespace_have_a_name_each() {
        assert_ne!(boot_id().unwrap(), 0);
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
        assert_eq!(netns_cookie().unwrap(), netns_cookie().unwrap());
        let before = monotonic_ms();
        assert!(before > 0 && monotonic_ms() >= before);
    }

    #[test]
    fn a_lock_is_had_by_one() {
        let path = std::env::temp_dir().join(format!("sockwatch-lock-{}", std::process::id()));
        let (one, other) = (File::create(&path).unwrap(), File::create(&path).unwrap());
        assert!(lock(&one).unwrap());
        assert!(!lock(&other).unwrap(), "flock(2) tells open files apart");
        drop(one);
        assert!(lock(&other).unwrap());
        std::fs::remove_file(&path).unwrap();
    }
}
