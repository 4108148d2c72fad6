//! Ticks at which nothing has happened, and what a daemon has in memory, at one
//! size of the table.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sockwatch::model::Needs;
use sockwatch::source::counters::Counters;
use sockwatch::source::gate::{Gate, Tick};

use super::Outcome;
use super::daemon::{Daemon, counted};
use super::sample::{Cost, Pairs, Spread, Whose};
use super::table::{Line, Unit, mib};
use super::world;

const BARE: &str = "--bare-tick";
/// How long one sample is, at most and at least.
const SAMPLE: [Duration; 2] = [Duration::from_secs(4), Duration::from_secs(2)];
/// How often a tick's work is repeated to find out what it costs warm.
const REPEATED: usize = 2000;
/// The two rhythms: between two ticks of the default nearly everything goes cold
/// that a processor keeps, at the shortest some of it.
const EVERY: [(&str, Duration); 2] = [
    ("10ms", Duration::from_millis(10)),
    ("1s", Duration::from_secs(1)),
];
const US: Unit = ("us", 1e3);

/// Ours, the bare loop's, and the median of ratios.
type Compared = (Spread, Spread, f64);

/// What was measured at one size.
pub struct Quiet {
    /// Sockets, as the kernel counts them.
    sockets: u64,
    /// ns of CPU time a tick, in each rhythm.
    ticks: [Compared; 2],
    /// The same of a tick's work alone, back to back.
    work: Compared,
    /// Bytes resident.
    resident: u64,
}

/// Runs the bare loop, if this process was started as one.
pub fn asked() -> Option<Outcome<()>> {
    let mut args = std::env::args().skip(1);
    if args.next()? == BARE {
        Some(bare(args.next()?.parse().ok()?))
    } else {
        None
    }
}

/// The files of the counters, and nothing done with what they say.
struct Preads(Vec<File>);

impl Preads {
    fn open() -> io::Result<Preads> {
        let mut files = Vec::new();
        for name in ["snmp", "sockstat", "sockstat6"] {
            match File::open(format!("/proc/thread-self/net/{name}")) {
                Ok(file) => files.push(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // no IPv6
                Err(error) => return Err(error),
            }
        }
        Ok(Preads(files))
    }

    fn read(&self) -> io::Result<()> {
        let mut buffer = [0; 8192];
        for file in &self.0 {
            file.read_at(&mut buffer, 0)?;
        }
        Ok(())
    }
}

/// What a tick cannot do without: sleep, and read the counters.
fn bare(milliseconds: libc::c_int) -> Outcome<()> {
    let bare = Preads::open()?;
    // SAFETY: epoll_create1(2) takes a number.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if epoll < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: all zeroes is a value of this plain C structure.
    let mut event: libc::epoll_event = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: `event` has room for the one event that is asked for.
        unsafe { libc::epoll_wait(epoll, &raw mut event, 1, milliseconds) };
        bare.read()?;
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
    let woken = world::number_of(pid, "status", "voluntary_ctxt_switches")?;
    Ok((world::cpu_of(pid)?, woken))
}

/// Measures both rhythms: the default for about this long, the other for half
/// of it.
pub fn at_rest(time: Duration) -> Outcome<Quiet> {
    let (short, _) = ticks(EVERY[0], time / 2)?;
    let (long, resident) = ticks(EVERY[1], time)?;
    Ok(Quiet {
        sockets: world::tcp_in_use()?,
        ticks: [short, long],
        work: work()?,
        resident,
    })
}

/// What a quiet tick does, over and over, against the same reads alone.
fn work() -> Outcome<Compared> {
    let (mut counters, preads) = (Counters::open()?, Preads::open()?);
    let mut gate = Gate::new(Duration::from_secs(3600), |_| false);
    let mut tick = || -> io::Result<bool> {
        let tick = Tick {
            now: Instant::now(),
            reading: Some(counters.read()?),
            handshakes: false,
        };
        Ok(gate.pass(Needs::EVERYTHING, tick).0.tcp.is_empty())
    };
    let pairs = Pairs::take(
        REPEATED,
        SAMPLE[0],
        || Cost::of(Whose::Mine, &mut tick).map(|(cost, _)| cost),
        || Cost::of(Whose::Mine, || preads.read()).map(|(cost, ())| cost),
    )?;
    Ok(pairs.spread(|cost| cost.cpu))
}

/// Beyond so many sockets the daemon of the short rhythm does not say who has them:
/// at a fifth of a core it takes most of a minute to find that out for a million,
/// no tick meanwhile is a quiet one, and the other daemon shows what it comes to.
const ATTRIBUTED: u64 = 200_000;

/// What a tick costs in one rhythm, and what the daemon has in memory.
fn ticks((interval, every): (&str, Duration), time: Duration) -> Outcome<(Compared, u64)> {
    // No forced dump; and those that it begins with at once.
    let settings = format!("interval: {interval}, gate: 1h, cpu-budget: off");
    let args = if every < SAMPLE[1] / 2 && world::tcp_in_use()? > ATTRIBUTED {
        "process: false"
    } else {
        ""
    };
    let daemon = Daemon::start_with(&settings, args, Stdio::null())?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([BARE, &every.as_millis().to_string()]);
    let bare = Bare(world::spawn(command.stdin(Stdio::null()))?);
    daemon.settle(every)?;
    let read = || -> Outcome<[_; 2]> { Ok([used(daemon.pid())?, used(bare.0.id())?]) };
    let sample = time.clamp(SAMPLE[1], SAMPLE[0]);
    let samples = time.as_millis().div_ceil(sample.as_millis());
    let due = (sample.as_nanos() / every.as_nanos()) as u64;
    let (mut runs, mut before) = (Vec::new(), read()?);
    for _ in 0..samples {
        thread::sleep(sample);
        let now = read()?;
        let each = |which: usize| {
            let woken = now[which].1 - before[which].1;
            let cpu = now[which].0 - before[which].0;
            // A tick is one wake-up. Where the sample was cut makes one more or
            // less, a machine that is late many less.
            let plausible = (due / 2..=due + 1).contains(&woken);
            plausible.then(|| cpu.as_nanos() as f64 / woken as f64)
        };
        if let (Some(ours), Some(peer)) = (each(0), each(1)) {
            runs.push((ours, peer));
        }
        before = now;
    }
    if runs.is_empty() {
        return Err("a daemon or a bare loop woke up at other times than its ticks".into());
    }
    let spread = (
        Spread::of(runs.iter().map(|run| run.0)),
        Spread::of(runs.iter().map(|run| run.1)),
        Spread::of(runs.iter().map(|run| run.0 / run.1)).median,
    );
    let resident = daemon.resident()?;
    let log = daemon.stop()?;
    let (dumps, spared) = (counted(&log, "dumps"), counted(&log, "dumps_spared"));
    if spared < runs.len() as u64 * due / 2 {
        return Err(format!("{dumps} dumps and {spared} spared: the gate was not at work").into());
    }
    Ok((spread, resident))
}

/// The lines of all sizes.
pub fn lines(sizes: &[Quiet], [ticks, memory]: [bool; 2]) -> Vec<Line> {
    let mut lines = Vec::new();
    if ticks {
        lines.extend(of_ticks(sizes, "tick's work", "3 preads", |size| size.work));
        lines.extend(of_ticks(sizes, "tick of 10ms", "epoll, 3 preads", |size| {
            size.ticks[0]
        }));
        lines.extend(of_ticks(sizes, "tick of 1s", "epoll, 3 preads", |size| {
            size.ticks[1]
        }));
    }
    if let (true, Some(first)) = (memory, sizes.first()) {
        lines.extend(of_memory(first, &sizes[1..]));
    }
    lines
}

fn of_ticks(sizes: &[Quiet], name: &str, peer: &str, pick: fn(&Quiet) -> Compared) -> Vec<Line> {
    let each = |size: &Quiet| {
        let figure = format!("{name}, {} sockets", size.sockets);
        Line::alone("tick", figure, "", "30 us").against(pick(size), US, peer)
    };
    let mut lines: Vec<Line> = sizes.iter().map(each).collect();
    if sizes.len() > 1 {
        let ours = Spread::of(sizes.iter().map(|size| pick(size).0.median));
        let bare = Spread::of(sizes.iter().map(|size| pick(size).1.median));
        let (ours, bare) = (ours.most / ours.least, bare.most / bare.least);
        let figure = format!("{name}, most to least");
        let mut line = Line::alone("tick", figure, format!("{ours:.2}"), "1.5");
        line.peer = format!("{bare:.2} {peer}");
        lines.push(line);
    }
    lines
}

fn of_memory(first: &Quiet, others: &[Quiet]) -> Vec<Line> {
    let figure = format!("RSS, {} sockets", first.sockets);
    let mut lines = vec![Line::alone("memory", figure, mib(first.resident), "4 MiB")];
    for size in others {
        let more = size.resident.saturating_sub(first.resident) as f64;
        let each = more / (size.sockets - first.sockets).max(1) as f64;
        lines.push(Line::alone(
            "memory",
            format!("RSS a socket, {}", size.sockets),
            format!("{each:.0} B ({} in all)", mib(size.resident)),
            "128 B",
        ));
    }
    lines
}
