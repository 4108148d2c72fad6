//! Whether every socket of a busy machine is told of, once opened and once
//! closed, by the generator's own set of cookies.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Outcome;
use super::daemon::{Daemon, counted};
use super::stream::{self, Told};
use super::table::Line;
use super::traffic::{self, Made};
use super::world;

/// How long what ended last may take to be told.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a daemon told.
#[derive(Default)]
struct Record {
    opened: Vec<u64>,
    closed: Vec<u64>,
    gaps: u64,
}

/// How a set of cookies was told of.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
struct Tally {
    once: usize,
    never: usize,
    again: usize,
}

/// Compares what was made with what was told; both need not be in order.
fn tally(made: &[u64], told: &[u64]) -> Tally {
    let ours: HashSet<u64> = made.iter().copied().collect();
    let (mut seen, mut tally) = (HashSet::with_capacity(made.len()), Tally::default());
    for cookie in told.iter().filter(|cookie| ours.contains(cookie)) {
        if !seen.insert(*cookie) {
            tally.again += 1;
        }
    }
    tally.once = seen.len();
    tally.never = ours.len() - seen.len();
    tally
}

/// `ss -E` on the same traffic.
struct Ss {
    child: Child,
    reader: thread::JoinHandle<io::Result<(HashSet<u64>, Instant)>>,
}

impl Ss {
    fn start() -> Outcome<Option<Ss>> {
        let mut command = Command::new("ss");
        command
            .args(["-tnaeEH"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = match world::spawn(&mut command) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let out = child.stdout.take().ok_or("ss without output")?;
        let reader = thread::spawn(move || {
            let mut heard = HashSet::new();
            for line in BufReader::with_capacity(256 << 10, out).lines() {
                heard.extend(cookie_of(&line?));
            }
            Ok((heard, Instant::now()))
        });
        Ok(Some(Ss { child, reader }))
    }

    /// Ends it; answers what it told, and when it stopped telling.
    fn stop(mut self) -> Outcome<(HashSet<u64>, Instant)> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(self.reader.join().map_err(|_| "the reader panicked")??)
    }
}

/// `sk:210a55f` of a line of `ss -e`.
fn cookie_of(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(" sk:")?;
    let hex = rest.split(' ').next()?;
    u64::from_str_radix(hex, 16).ok()
}

fn record(events: impl Read + Send + 'static) -> thread::JoinHandle<io::Result<Record>> {
    thread::spawn(move || {
        let mut record = Record::default();
        stream::read(events, |told, _| match told {
            Told::Opened(cookie) => record.opened.push(cookie),
            Told::Closed(cookie) => record.closed.push(cookie),
            Told::Gap => record.gaps += 1,
        })?;
        Ok(record)
    })
}

/// How long `ss -E` listens as well: it takes as much of the cores as the daemon,
/// so that the rate to be shown would be theirs together.
const BESIDE: Duration = Duration::from_secs(5);

/// One stretch of traffic, and what was told of it.
struct Stretch {
    made: Made,
    /// Told as opened, as closed.
    told: [Tally; 2],
    gaps: u64,
    /// The daemon's CPU time.
    busy: Duration,
    /// How many ends `ss -E` told of, and for how long it did.
    ss: Option<(usize, Duration)>,
    /// What the daemon counted: overruns, and events that it dropped.
    lost: [u64; 2],
}

impl Stretch {
    /// Runs the traffic in front of a daemon, and of `ss -E` where it is to be
    /// there.
    fn run(rate: usize, time: Duration, with_ss: bool) -> Outcome<Stretch> {
        let mut daemon = Daemon::start("", Stdio::piped())?;
        let reader = record(daemon.events()?);
        let ss = if with_ss { Ss::start()? } else { None };
        thread::sleep(Duration::from_millis(500));
        let (cpu, began) = (daemon.cpu()?, Instant::now());
        let made = traffic::churn(rate, time)?;
        let busy = daemon.cpu()? - cpu;
        // ss keeps its last lines back until more come.
        traffic::churn(1000, Duration::from_millis(200))?;
        thread::sleep(PATIENCE);
        let theirs = ss.map(Ss::stop).transpose()?;
        let log = daemon.stop()?;
        let record = reader.join().map_err(|_| "the reader panicked")??;
        let ss = theirs.map(|(heard, ended)| {
            let heard = made.cookies.iter().filter(|cookie| heard.contains(cookie));
            let lasted = ended.saturating_duration_since(began).min(made.took);
            (heard.count(), lasted)
        });
        Ok(Stretch {
            told: [&record.opened, &record.closed].map(|told| tally(&made.cookies, told)),
            gaps: record.gaps,
            lost: [counted(&log, "overruns"), counted(&log, "events_dropped")],
            made,
            busy,
            ss,
        })
    }

    /// Whether every socket was told of once, and nothing lost.
    fn verdict(&self) -> Result<(), String> {
        let sockets = self.made.cookies.len();
        let whole = Tally {
            once: sockets,
            ..Tally::default()
        };
        if self.told == [whole; 2] && self.gaps == 0 {
            return Ok(());
        }
        let ([opened, closed], [overruns, dropped]) = (self.told, self.lost);
        Err(format!(
            "of {sockets} sockets, opened {opened:?} and closed {closed:?}, {} gaps, {overruns} overruns, \
             {dropped} events dropped",
            self.gaps,
        ))
    }
}

/// Runs the traffic in front of the daemon, and a shorter stretch of it in front
/// of `ss -E` as well; `Err` within where a socket was not told of, or more than
/// once.
pub fn measure(rate: usize, time: Duration) -> Outcome<(Vec<Line>, Result<(), String>)> {
    let alone = Stretch::run(rate, time, false)?;
    let beside = Stretch::run(rate, time.min(BESIDE), true)?;
    let mut lines = lines(&alone, "");
    lines.extend(self::lines(&beside, ", beside ss -E"));
    Ok((lines, alone.verdict().and(beside.verdict())))
}

fn lines(stretch: &Stretch, beside: &str) -> Vec<Line> {
    let part = "completeness";
    let made = &stretch.made;
    let sockets = made.cookies.len();
    let seconds = made.took.as_secs_f64();
    let target = if beside.is_empty() {
        "20,000 for 30 s"
    } else {
        ""
    };
    let mut lines = vec![Line::alone(
        part,
        format!("connections a second{beside}"),
        format!("{:.0} for {seconds:.1} s", made.rate()),
        target,
    )];
    for (name, tally) in ["opened once", "closed once"].into_iter().zip(stretch.told) {
        let mut line = Line::alone(
            part,
            format!("{name}, of {sockets}{beside}"),
            format!(
                "{}; {} never, {} again",
                tally.once, tally.never, tally.again
            ),
            "all",
        );
        match stretch.ss {
            Some((heard, lasted)) if name == "closed once" => {
                line.peer = format!("{heard} ss -E, in {:.1} s", lasted.as_secs_f64());
                line.ratio = format!("{:.2}", tally.once as f64 / heard as f64);
            }
            Some(_) => line.peer = "ss -E tells of no open".into(),
            None if beside.is_empty() => {}
            None => line.peer = "there is no ss".into(),
        }
        lines.push(line);
    }
    let gaps = stretch.gaps.to_string();
    lines.push(Line::alone(part, format!("gaps{beside}"), gaps, "0"));
    let connections = sockets as f64 / 2.0;
    let cpu = |time: Duration| {
        let time = time.as_secs_f64();
        let (each, share) = (time * 1e6 / connections, time * 100.0 / seconds);
        format!("{each:.1} us ({share:.0}% of a core)")
    };
    let busy = stretch.busy;
    let mut line = Line::alone(part, format!("CPU a connection{beside}"), cpu(busy), "");
    line.peer = format!("{} the generator", cpu(made.cpu));
    line.ratio = format!("{:.2}", busy.as_secs_f64() / made.cpu.as_secs_f64());
    lines.push(line);
    lines
}
