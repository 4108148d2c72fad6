//! Ticks at which nothing has happened, and what a daemon has in memory, at one
//! size of the table.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::Outcome;
use super::daemon::{Daemon, TICK, counted};
use super::sample::Spread;
use super::table::{Line, Unit, mib};
use super::world;

const BARE: &str = "--bare-tick";
/// Ticks that make one sample.
const SAMPLE: u32 = 4;
const US: Unit = ("us", 1e3);

/// What was measured at one size.
pub struct Quiet {
    /// Sockets, as the kernel counts them.
    pub sockets: u64,
    /// ns of CPU time a tick: ours, the bare loop's, the median of ratios.
    pub tick: (Spread, Spread, f64),
    /// Bytes resident.
    pub resident: u64,
}

/// Runs the bare loop, if this process was started as one.
pub fn asked() -> Option<Outcome<()>> {
    (std::env::args().nth(1)? == BARE).then(bare)
}

/// What a tick cannot do without: sleep, and read the counters.
fn bare() -> Outcome<()> {
    // SAFETY: epoll_create1(2) takes a number.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if epoll < 0 {
        return Err(io::Error::last_os_error().into());
    }
    let mut files = Vec::new();
    for name in ["snmp", "sockstat", "sockstat6"] {
        match File::open(format!("/proc/thread-self/net/{name}")) {
            Ok(file) => files.push(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // no IPv6
            Err(error) => return Err(error.into()),
        }
    }
    // SAFETY: all zeroes is a value of this plain C structure.
    let mut event: libc::epoll_event = unsafe { std::mem::zeroed() };
    let mut buffer = [0; 8192];
    loop {
        // SAFETY: `event` has room for the one event that is asked for.
        unsafe { libc::epoll_wait(epoll, &raw mut event, 1, TICK.as_millis() as libc::c_int) };
        for file in &files {
            file.read_at(&mut buffer, 0)?;
        }
    }
}

/// The process that runs the bare loop, which never ends by itself.
struct Bare(Child);

impl Drop for Bare {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("figures: the bare loop cannot be ended: {error}");
        }
    }
}

/// CPU time of a process, and how often it slept.
fn used(pid: u32) -> Outcome<(Duration, u64)> {
    let woken = world::status_of(pid, "voluntary_ctxt_switches")?;
    Ok((world::cpu_of(pid)?, woken))
}

/// Measures for `samples` times four ticks.
pub fn at_rest(samples: u32) -> Outcome<Quiet> {
    // No forced dump, and the two that it needs at once.
    let daemon = Daemon::start("gate: 1h, cpu-budget: off", Stdio::null())?;
    let mut command = Command::new(std::env::current_exe()?);
    let bare = Bare(world::spawn(command.arg(BARE).stdin(Stdio::null()))?);
    daemon.settle()?;
    let read = || -> Outcome<[_; 2]> { Ok([used(daemon.pid())?, used(bare.0.id())?]) };
    let (mut runs, mut before) = (Vec::new(), read()?);
    for _ in 0..samples.max(1) {
        thread::sleep(SAMPLE * TICK);
        let now = read()?;
        let each = |which: usize| {
            let woken = now[which].1 - before[which].1;
            let cpu = now[which].0 - before[which].0;
            // A tick is one wake-up; one more or less is where the sample was cut.
            (woken.abs_diff(SAMPLE.into()) <= 1).then(|| cpu.as_nanos() as f64 / woken as f64)
        };
        if let (Some(ours), Some(peer)) = (each(0), each(1)) {
            runs.push((ours, peer));
        }
        before = now;
    }
    if runs.is_empty() {
        return Err("a daemon or a bare loop woke up at other times than its ticks".into());
    }
    let quiet = Quiet {
        sockets: world::tcp_in_use()?,
        tick: (
            Spread::of(runs.iter().map(|run| run.0)),
            Spread::of(runs.iter().map(|run| run.1)),
            Spread::of(runs.iter().map(|run| run.0 / run.1)).median,
        ),
        resident: daemon.resident()?,
    };
    let log = daemon.stop()?;
    let (dumps, spared) = (counted(&log, "dumps"), counted(&log, "dumps_spared"));
    if spared < u64::from(samples * SAMPLE) {
        return Err(format!("{dumps} dumps and {spared} spared: the gate was not at work").into());
    }
    Ok(quiet)
}

/// The lines of all sizes.
pub fn lines(sizes: &[Quiet], part: [bool; 2]) -> Vec<Line> {
    let mut lines = Vec::new();
    let Some(first) = sizes.first() else {
        return lines;
    };
    let [ticks, memory] = part;
    for size in sizes.iter().filter(|_| ticks) {
        let figure = format!("quiet tick, {} sockets", size.sockets);
        lines.push(Line::alone("tick", figure, "", "30 us").against(
            size.tick,
            US,
            "epoll and 3 preads",
        ));
    }
    if ticks && sizes.len() > 1 {
        let costs = |pick: fn(&Quiet) -> f64| Spread::of(sizes.iter().map(pick));
        let (ours, bare) = (
            costs(|size| size.tick.0.median),
            costs(|size| size.tick.1.median),
        );
        let mut line = Line::alone(
            "tick",
            "quiet tick, most to least",
            format!("{:.2}", ours.most / ours.least),
            "1.5",
        );
        line.peer = format!("{:.2} epoll and 3 preads", bare.most / bare.least);
        lines.push(line);
    }
    if memory {
        let figure = format!("RSS, {} sockets", first.sockets);
        lines.push(Line::alone("memory", figure, mib(first.resident), "4 MiB"));
        for size in &sizes[1..] {
            let more = size.resident.saturating_sub(first.resident) as f64;
            lines.push(Line::alone(
                "memory",
                format!("RSS a socket, {}", size.sockets),
                format!(
                    "{:.0} B ({} in all)",
                    more / (size.sockets - first.sockets).max(1) as f64,
                    mib(size.resident)
                ),
                "128 B",
            ));
        }
    }
    lines
}
