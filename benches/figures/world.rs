//! Where the benchmark takes place: a network namespace of its own, which goes
//! when the last of its processes does. Each of them dies with its parent.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

use super::Outcome;

/// Builds the program as it is released. What cargo built for this benchmark has
/// the features that dev-dependencies switch on in their own dependencies; it is
/// half a megabyte larger.
///
/// `arguments` and `flags`, those of the compiler, have it built otherwise.
pub fn build(arguments: &[&str], flags: Option<&str>) -> Outcome<()> {
    let Some(cargo) = cargo() else {
        return Ok(()); // run by hand: measured as it stands
    };
    let mut command = Command::new(cargo);
    command
        .args(["build", "--release", "--quiet", "--bin", "sockwatch"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if let Some(flags) = flags {
        command.env("RUSTFLAGS", flags);
    }
    let status = command.status()?;
    if status.success() {
        Ok(())
    } else {
        Err("the program cannot be built".into())
    }
}

/// The cargo that runs this benchmark, if one does.
pub fn cargo() -> Option<OsString> {
    std::env::var_os("CARGO")
}

/// Goes into a network namespace where nobody else has a socket. Without the
/// privilege for that, into a user namespace where it has it.
pub fn enter() -> io::Result<()> {
    // SAFETY: neither call takes pointers. This thread is the only one, so the
    // whole process moves.
    let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
    if unshare(libc::CLONE_NEWNET).is_err() {
        unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET)?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    loopback_up()
}

fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: unshare(2) takes no pointers.
    answer(unsafe { libc::unshare(flags) })
}

fn answer(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn loopback_up() -> io::Result<()> {
    // SAFETY: all zeroes is a value of this plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which `request` is, across the call.
    answer(unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw mut request) })
}

/// As many descriptors as this process may have.
pub fn raise_limit() -> io::Result<usize> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for writes.
    answer(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is valid for reads.
    answer(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur as usize)
}

/// Closes with a reset instead of a farewell, and leaves nothing behind.
pub fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    let now = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: `now` lives across the call and its size is passed with it.
    answer(unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const now).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    })
}

/// Starts a process that is killed when this one ends, however it ends.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    // SAFETY: between fork and exec, prctl(2) takes numbers and touches no memory.
    unsafe {
        command.pre_exec(|| answer(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)));
    }
    command.spawn()
}

/// The cookie of a socket.
pub fn cookie(socket: &impl AsRawFd) -> io::Result<u64> {
    let (mut cookie, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: both outlive the call, and `length` is the size of `cookie`.
    answer(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    })?;
    Ok(cookie)
}

/// CPU time of a process so far, all of its threads.
pub fn cpu_of(pid: u32) -> io::Result<Duration> {
    let mut clock = 0;
    // SAFETY: `clock` is valid for writes.
    let error = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writes.
    answer(unsafe { libc::clock_gettime(clock, &raw mut time) })?;
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// A number in a file of /proc/PID that has a key a line.
pub fn number_of(pid: u32, file: &str, name: &str) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .ok_or_else(|| format!("no {name} in /proc/{pid}/{file}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// TCP sockets in use in this namespace, as the kernel counts them.
pub fn tcp_in_use() -> Outcome<u64> {
    let mut sum = 0;
    for (file, label) in [("sockstat", "TCP: inuse "), ("sockstat6", "TCP6: inuse ")] {
        let Ok(text) = fs::read_to_string(format!("/proc/thread-self/net/{file}")) else {
            continue; // no IPv6
        };
        let line = text.lines().find_map(|line| line.strip_prefix(label));
        let count = line.and_then(|line| line.split(' ').next());
        sum += count.ok_or("no count of TCP sockets")?.parse::<u64>()?;
    }
    Ok(sum)
}

/// Everybody's CPU use in the last minute, as the kernel averages it.
pub fn load() -> io::Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().to_string())
}
