//! Processes that hold sockets: two a connection, and a listener each.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use super::Outcome;
use super::world;

const HOLD: &str = "--hold";
/// As many descriptors as a process holds.
const DESCRIPTORS: usize = 20_000;
/// Descriptors that are not connections'.
const SPARE: usize = 32;
/// Destinations, so that local ports do not run out.
const ADDRESSES: usize = 200;
/// What the kernel takes for a socket, before that was measured.
const GUESS: u64 = 6 << 10;
/// Memory that is left to everybody else.
const RESERVE: u64 = 1 << 30;

/// Runs one holder, if this process was started as one.
pub fn asked() -> Option<Outcome<()>> {
    let mut args = std::env::args().skip(1);
    if args.next()? == HOLD {
        Some(hold(args.next()?.parse().ok()?))
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

/// Holds connections until its standard input ends, or its parent.
fn hold(connections: usize) -> Outcome<()> {
    world::raise_limit()?;
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let mut held = Vec::with_capacity(connections);
    for number in 0..connections {
        let (near, far) = connection(&listener, number)?;
        // Resets, however this ends: TIME_WAIT would outlive what it is for.
        for end in [&near, &far] {
            world::reset_on_close(end)?;
        }
        held.push((near, far));
    }
    println!("ready");
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// The world of sockets, which grows.
#[derive(Default)]
pub struct Holders {
    children: Vec<Child>,
    sockets: usize,
    /// What the kernel took for a socket when the world grew last.
    each: Option<u64>,
}

impl Holders {
    /// Grows to about this many sockets; `Err` within says why it cannot.
    pub fn grow(&mut self, sockets: usize) -> Outcome<Result<(), String>> {
        let more = sockets.saturating_sub(self.sockets);
        let (wanted, available) = (
            more as u64 * self.each.unwrap_or(GUESS) + RESERVE,
            memory_available()?,
        );
        if wanted > available {
            return Ok(Err(format!(
                "{sockets} sockets need {} MiB, and {} MiB are available",
                wanted >> 20,
                available >> 20
            )));
        }
        let free = files_free()?;
        if more as u64 + 1000 > free {
            return Ok(Err(format!(
                "{sockets} sockets need as many files, and fs.file-max leaves {free}"
            )));
        }
        let each = (world::raise_limit()?.min(DESCRIPTORS) - SPARE) / 2;
        let (mut left, before) = (more / 2, self.children.len());
        while left > 0 {
            let connections = left.min(each);
            left -= connections;
            let mut command = Command::new(std::env::current_exe()?);
            command
                .args([HOLD, &connections.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped());
            self.children.push(world::spawn(&mut command)?);
        }
        for child in &mut self.children[before..] {
            let mut line = String::new();
            let out = child.stdout.as_mut().ok_or("a holder without output")?;
            BufReader::new(out).read_line(&mut line)?;
            if line != "ready\n" {
                return Err("a holder could not make its sockets".into());
            }
        }
        self.sockets = sockets;
        if more >= 10_000 {
            let taken = available.saturating_sub(memory_available()?);
            self.each = Some((taken / more as u64).max(1024));
        }
        Ok(Ok(()))
    }

    /// Bytes of the machine's memory that a socket of the latest growth took.
    pub fn each(&self) -> Option<u64> {
        self.each
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.stdin.take());
        }
        for child in &mut self.children {
            if let Err(error) = child.wait() {
                eprintln!("figures: a holder cannot be waited for: {error}");
            }
        }
    }
}

fn memory_available() -> Outcome<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let kib: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|value| value.trim().trim_end_matches(" kB").parse().ok())
        .ok_or("no MemAvailable in /proc/meminfo")?;
    Ok(kib * 1024)
}

/// Files that the machine may still open (proc_sys_fs(5), `file-nr`).
fn files_free() -> Outcome<u64> {
    let text = fs::read_to_string("/proc/sys/fs/file-nr")?;
    let numbers: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
    match numbers[..] {
        [used, _, most] => Ok(most.saturating_sub(used)),
        _ => Err("no three numbers in /proc/sys/fs/file-nr".into()),
    }
}
