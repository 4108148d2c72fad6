//! What sockwatch knows of itself: its namespace, its host, its own sockets.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// The network namespace of the calling thread.
///
/// # Errors
/// Those of reading /proc, where it is not mounted.
pub fn netns() -> io::Result<u32> {
    let inode = std::fs::metadata("/proc/thread-self/ns/net")
        .or_else(|_| std::fs::metadata("/proc/self/ns/net"))?
        .ino();
    // nsfs inodes are allocated by ns_alloc_inum(), an unsigned int.
    u32::try_from(inode).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "a namespace inode beyond 32 bits",
        )
    })
}

/// The CPU time that the calling thread has used, the kernel's work for it
/// included (CLOCK_THREAD_CPUTIME_ID, clock_gettime(2)).
pub fn thread_cpu() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is writable. The clock exists on every Linux, so the call
    // cannot fail; if it did, the time would stay 0.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(nanos)
}

/// The host's name (uname(2)); bytes that are no text are replaced.
pub fn hostname() -> String {
    let mut buffer = [0_u8; 256];
    // SAFETY: the buffer is writable for the length that is passed, and one
    // byte is kept back so that a name cut short still ends in a NUL.
    let answer = unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), buffer.len() - 1) };
    if answer != 0 {
        return "localhost".to_string();
    }
    let end = buffer
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(buffer.len());
    String::from_utf8_lossy(&buffer[..end]).into_owned()
}

fn int_option(fd: RawFd, option: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` and `length` are valid for writes and `length` says how
    // large `value` is. A descriptor that is closed or no socket only fails.
    let answer = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    (answer == 0).then_some(value)
}

fn cookie(fd: RawFd) -> Option<u64> {
    let mut value: u64 = 0;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: as above; SO_COOKIE writes eight bytes.
    let answer = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    (answer == 0 && value != 0).then_some(value)
}

/// The cookies of the TCP and UDP sockets that this process has open right now:
/// those that a look-up in a pool thread uses. Best effort, as a thread may open
/// or close one meanwhile.
///
/// # Errors
/// Those of reading /proc/self/fd.
pub fn own_cookies(found: &mut Vec<u64>) -> io::Result<()> {
    found.clear();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(fd) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<RawFd>().ok())
        else {
            continue;
        };
        if let Some(libc::AF_INET | libc::AF_INET6) = int_option(fd, libc::SO_DOMAIN) {
            found.extend(cookie(fd));
        }
    }
    Ok(())
}

/// Makes a socket of a family (AF_INET, AF_INET6) and type (SOCK_STREAM,
/// SOCK_DGRAM), reads its cookie and closes it without binding it. The kernel
/// notices its end to the group of its family and protocol, as it would for any
/// other, but without a port, so that nobody else takes it for one.
///
/// # Errors
/// EAFNOSUPPORT where the family is switched off.
pub fn unbound_socket_cookie(family: libc::c_int, kind: libc::c_int) -> io::Result<u64> {
    // SAFETY: socket(2) takes no pointers.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just opened here and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    cookie(socket.as_raw_fd()).ok_or_else(io::Error::last_os_error)
}

/// Makes a TCP socket and lets it call connect() with a destination to which
/// there is never a connection: the broadcast address 255.255.255.255, or for
/// AF_INET6 the multicast address ff02::1 (tcp_v4_connect() and tcp_v6_connect()
/// refuse both before a packet is made). Returns the socket's cookie, by which
/// whoever watches connects can be asked about it.
///
/// # Errors
/// EAFNOSUPPORT where the family is switched off; EISCONN, made up, if it did
/// connect after all.
pub fn connect_nowhere(v6: bool) -> io::Result<u64> {
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket(2) takes no pointers.
    let fd = unsafe { libc::socket(family, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just opened here and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let cookie = cookie(socket.as_raw_fd()).ok_or_else(io::Error::last_os_error)?;
    // The discard port (RFC 863).
    let port = 9_u16.to_be();
    let answer = if v6 {
        let mut address = libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as libc::sa_family_t,
            sin6_port: port,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
            sin6_scope_id: 0,
        };
        address.sin6_addr.s6_addr[..2].copy_from_slice(&[0xff, 0x02]);
        address.sin6_addr.s6_addr[15] = 1;
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: `address` lives across the call and has `length` bytes.
        unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) }
    } else {
        let address = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: port,
            sin_addr: libc::in_addr {
                s_addr: libc::INADDR_BROADCAST,
            },
            sin_zero: [0; 8],
        };
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: as above.
        unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) }
    };
    if answer == 0 {
        return Err(io::Error::from_raw_os_error(libc::EISCONN));
    }
    Ok(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_sockets_are_found_by_cookie() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mine = cookie(socket.as_raw_fd()).unwrap();
        let mut found = Vec::new();
        own_cookies(&mut found).unwrap();
        assert!(found.contains(&mine));
    }

    #[test]
    fn the_namespace_is_that_of_the_link() {
        let link = std::fs::read_link("/proc/self/ns/net").unwrap();
        assert_eq!(
            link.to_string_lossy(),
            format!("net:[{}]", netns().unwrap())
        );
    }
}
