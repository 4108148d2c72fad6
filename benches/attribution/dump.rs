//! A table with processes, against `ss`.

use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Child, socket};

/// Processes, and the bound sockets of each: as many as a process may have where
/// nobody has raised that.
const PROCESSES: usize = 25;
const SOCKETS: usize = 800;

/// How often each is run; the quickest run counts.
const TIMES: usize = 5;

pub fn figures() {
    let children: Vec<Child> = (0..PROCESSES).map(|_| Child::forked(hold)).collect();
    std::thread::sleep(Duration::from_millis(500));
    println!(
        "{} sockets of {PROCESSES} processes, quickest of {TIMES}:",
        PROCESSES * SOCKETS
    );
    let ours = quickest(env!("CARGO_BIN_EXE_sockwatch"), &["--dump", "--process"]);
    let plain = quickest(env!("CARGO_BIN_EXE_sockwatch"), &["--dump"]);
    let theirs = quickest("ss", &["-tuanpH"]);
    for (what, took) in [
        ("sockwatch --dump --process", ours),
        ("sockwatch --dump", plain),
        ("ss -tuanpH", theirs),
    ] {
        match took {
            Ok(took) => println!("  {what}: {} ms", took.as_millis()),
            Err(error) => println!("  {what}: {error}"),
        }
    }
    drop(children);
}

/// A child's life: it opens its sockets and waits for its end.
fn hold() -> std::convert::Infallible {
    for _ in 0..SOCKETS {
        let socket = socket();
        bind(&socket);
        std::mem::forget(socket);
    }
    loop {
        // SAFETY: pause(2) takes nothing.
        unsafe { libc::pause() };
    }
}

/// Has the kernel give it a port: what has none is in no table.
fn bind(socket: &std::os::fd::OwnedFd) {
    use std::os::fd::AsRawFd;
    // SAFETY: an address of zeros is a valid one.
    let mut any: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    any.sin_family = libc::AF_INET as libc::sa_family_t;
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: the address lives across the call and is as long as is said.
    unsafe { libc::bind(socket.as_raw_fd(), (&raw const any).cast(), length) };
}

fn quickest(program: &str, args: &[&str]) -> io::Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..TIMES {
        let begun = Instant::now();
        Command::new(program)
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        best = best.min(begun.elapsed());
    }
    Ok(best)
}
