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
    let sockwatch = env!("CARGO_BIN_EXE_sockwatch");
    let mut runs = [
        (
            "sockwatch --dump --process",
            sockwatch,
            &["--dump", "--process"][..],
            Duration::MAX,
        ),
        (
            "sockwatch --dump",
            sockwatch,
            &["--dump"][..],
            Duration::MAX,
        ),
        ("ss -tuanpH", "ss", &["-tuanpH"][..], Duration::MAX),
    ];
    // In turn, so that what else the machine does falls on all of them.
    for _ in 0..TIMES {
        for (what, program, args, best) in &mut runs {
            match timed(program, args) {
                Ok(took) => *best = took.min(*best),
                Err(error) => println!("  {what}: {error}"),
            }
        }
    }
    for (what, _, _, best) in runs.iter().filter(|run| run.3 < Duration::MAX) {
        println!("  {what}: {} ms", best.as_millis());
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

fn timed(program: &str, args: &[&str]) -> io::Result<Duration> {
    let begun = Instant::now();
    Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    Ok(begun.elapsed())
}
