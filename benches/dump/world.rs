//! Where the benchmark takes place: a network namespace of its own, processes
//! that hold its sockets, and a daemon that looks at them.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::Outcome;

/// The program, where cargo puts it.
pub const SOCKWATCH: &str = env!("CARGO_BIN_EXE_sockwatch");

const HOLD: &str = "--hold";
/// Descriptors that are not connections'.
const SPARE: usize = 32;
/// Destinations, so that local ports do not run out.
const ADDRESSES: usize = 200;

/// Builds the program as it is released. What cargo built for this benchmark has
/// the features that dev-dependencies switch on in their own dependencies; it is
/// half a megabyte larger.
pub fn build() -> Outcome<()> {
    let Some(cargo) = std::env::var_os("CARGO") else {
        return Ok(()); // run by hand: measured as it stands
    };
    let status = Command::new(cargo)
        .args(["build", "--release", "--quiet", "--bin", "sockwatch"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err("the program cannot be built".into())
    }
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
fn raise_limit() -> io::Result<usize> {
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

/// How many connections this process was started to hold, if it was.
pub fn asked_to_hold() -> Option<usize> {
    let mut args = std::env::args().skip(1);
    if args.next()? == HOLD {
        args.next()?.parse().ok()
    } else {
        None
    }
}

/// A pair of ends, through one of many loopback addresses.
pub fn connection(listener: &TcpListener, number: usize) -> io::Result<(TcpStream, TcpStream)> {
    let port = listener.local_addr()?.port();
    let near = TcpStream::connect(SocketAddr::from((
        [127, 0, 1, (number % ADDRESSES) as u8],
        port,
    )))?;
    Ok((near, listener.accept()?.0))
}

/// Holds connections, both ends of each, until its standard input ends.
pub fn hold(connections: usize) -> Outcome<()> {
    raise_limit()?;
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let mut held = Vec::with_capacity(connections);
    for number in 0..connections {
        held.push(connection(&listener, number)?);
    }
    println!("ready");
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    // Resets: TIME_WAIT would outlive the figures that this is for.
    for (near, far) in &held {
        for end in [near, far] {
            reset_on_close(end)?;
        }
    }
    Ok(())
}

fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    let now = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: `now` lives across the call and its size is passed with it.
    answer(unsafe {
        libc::setsockopt(
            std::os::fd::AsRawFd::as_raw_fd(stream),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const now).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    })
}

/// Processes that hold sockets for as long as this lives.
pub struct Holders(Vec<Child>);

impl Holders {
    /// About this many sockets: two a connection, and a listener a process.
    pub fn of(sockets: usize) -> Outcome<Holders> {
        let each = (raise_limit()? - SPARE) / 2;
        let mut left = sockets / 2;
        let mut children = Vec::new();
        while left > 0 {
            let connections = left.min(each);
            left -= connections;
            let child = Command::new(std::env::current_exe()?)
                .args([HOLD, &connections.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            children.push(child);
        }
        for child in &mut children {
            let mut line = String::new();
            let out = child.stdout.as_mut().ok_or("a holder without output")?;
            BufReader::new(out).read_line(&mut line)?;
            if line != "ready\n" {
                return Err("a holder could not make its sockets".into());
            }
        }
        Ok(Holders(children))
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.stdin.take());
            if let Err(error) = child.wait() {
                eprintln!("dump: a holder cannot be waited for: {error}");
            }
        }
    }
}

/// A daemon on the built-in configuration.
pub struct Daemon;

impl Daemon {
    /// The resident bytes of one that has read the table and ticked since.
    pub fn settled() -> Outcome<u64> {
        let mut child = Command::new(SOCKWATCH)
            .env("SOCKWATCH_LOG", "info")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let log = child.stderr.take().ok_or("a daemon without a log")?;
        let ready = BufReader::new(log)
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains("ready"));
        thread::sleep(Duration::from_millis(2500));
        let resident = resident(child.id());
        child.kill()?;
        child.wait()?;
        if ready {
            resident
        } else {
            Err("the daemon did not become ready".into())
        }
    }
}

fn resident(pid: u32) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
