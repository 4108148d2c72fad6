//! Whether every socket of a busy machine is told of, once opened and once
//! closed, by the generator's own set of cookies.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Outcome;
use super::account::{Tally, tally};
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

/// `ss -E` on the same traffic.
struct Ss {
    child: Child,
    reader: thread::JoinHandle<io::Result<(HashSet<u64>, Instant)>>,
}

/// What `ss -E` told of.
struct Heard {
    /// The ends of ours.
    ends: usize,
    /// For how long it told of any.
    lasted: Duration,
    /// How it ended, where nobody had it end, and what it said.
    ended: Option<String>,
}

impl Ss {
    fn start() -> Outcome<Option<Ss>> {
        let mut command = Command::new("ss");
        command
            .args(["-tnaeEH"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
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

    /// Ends it, unless it has ended before; what it told of this traffic, which
    /// began then.
    fn stop(mut self, made: &Made, began: Instant) -> Outcome<Heard> {
        let ended = self.child.try_wait()?;
        if ended.is_none() {
            self.child.kill()?;
        }
        let mut said = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            errors.read_to_string(&mut said)?;
        }
        self.child.wait()?;
        let (heard, last) = self.reader.join().map_err(|_| "the reader panicked")??;
        let ours = made.cookies.iter().filter(|cookie| heard.contains(cookie));
        Ok(Heard {
            ends: ours.count(),
            lasted: last.saturating_duration_since(began).min(made.took),
            ended: ended.map(|status| format!("{status} {}", said.trim())),
        })
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
            Told::Called(..) => {}
        })?;
        Ok(record)
    })
}

/// One stretch of traffic, and what was told of it.
struct Stretch {
    made: Made,
    /// Told as opened, as closed.
    told: [Tally; 2],
    gaps: u64,
    /// The daemon's CPU time.
    busy: Duration,
    /// What `ss -E` told of.
    ss: Option<Heard>,
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
        let ss = ss.map(|ss| ss.stop(&made, began)).transpose()?;
        let log = daemon.stop()?;
        let record = reader.join().map_err(|_| "the reader panicked")??;
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
        if self.told == [Tally::whole(sockets); 2] && self.gaps == 0 {
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

/// Runs the traffic in front of the daemon alone, and the same once more in front
/// of `ss -E` as well, which takes as much of the cores as the daemon: the rate is
/// then theirs together. `Err` within where a socket was not told of, or more than
/// once.
pub fn measure(rate: usize, time: Duration) -> Outcome<(Vec<Line>, Result<(), String>)> {
    let alone = Stretch::run(rate, time, false)?;
    let beside = Stretch::run(rate, time, true)?;
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
        match &stretch.ss {
            Some(heard) if name == "closed once" => {
                let (ends, lasted) = (heard.ends, heard.lasted.as_secs_f64());
                line.peer = format!("{ends} ss -E, in {lasted:.1} s");
                line.ratio = format!("{:.2}", tally.once as f64 / ends as f64);
            }
            Some(_) => line.peer = "ss -E tells of no open".into(),
            None if beside.is_empty() => {}
            None => line.peer = "there is no ss".into(),
        }
        lines.push(line);
    }
    let gaps = stretch.gaps.to_string();
    let mut line = Line::alone(part, format!("gaps{beside}"), gaps, "0");
    line.peer = match &stretch.ss {
        Some(heard) => match &heard.ended {
            Some(end) => format!("ss -E ended by itself: {end}"),
            None => format!("{} ends lost by ss -E", sockets - heard.ends),
        },
        None => String::new(),
    };
    lines.push(line);
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
