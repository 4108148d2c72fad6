//! What a daemon spends on processes, and how long its events wait for them.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Sockets made a second, how many of them live at a time, and for how long.
const RATE: u32 = 10_000;
const ALIVE: usize = 800;
const CHURN: Duration = Duration::from_secs(5);

/// Sockets made one by one on an idle machine.
const SINGLE: usize = 40;

pub fn figures() {
    for process in [false, true] {
        let spent = churn(process);
        println!(
            "  {RATE} sockets/s, a tick each 100 ms, process: {process}: {:.1} % of a core",
            spent * 100.0
        );
    }
    for process in [false, true] {
        let mut waits = waits(process);
        waits.sort();
        let at = |part: usize| waits[(waits.len() - 1) * part / 100].as_micros();
        println!(
            "  from an event's time to the reader, process: {process}: {} us (p50), {} us (p90), \
             {} us (most)",
            at(50),
            at(90),
            at(100)
        );
    }
}

/// The share of a core that a daemon takes while sockets come and go.
fn churn(process: bool) -> f64 {
    let daemon = Daemon::start(process);
    let begun = Instant::now();
    let before = daemon.cpu();
    let mut alive = VecDeque::new();
    let mut made = 0;
    while begun.elapsed() < CHURN {
        while f64::from(made) < begun.elapsed().as_secs_f64() * f64::from(RATE) {
            alive.push_back(UdpSocket::bind("0.0.0.0:0").expect("a port"));
            made += 1;
            if alive.len() > ALIVE {
                alive.pop_front();
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let spent = daemon.cpu() - before;
    let elapsed = begun.elapsed();
    daemon.stop();
    spent.as_secs_f64() / elapsed.as_secs_f64()
}

/// How long openings took from their time stamps to their reader.
fn waits(process: bool) -> Vec<Duration> {
    let daemon = Daemon::start(process);
    // What this one looked for at its start is done by then.
    std::thread::sleep(Duration::from_secs(1));
    let mut sockets = Vec::new();
    for _ in 0..SINGLE {
        sockets.push(UdpSocket::bind("0.0.0.0:0").expect("a port"));
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_millis(500));
    let waits = daemon.stop();
    assert!(
        waits.len() >= SINGLE,
        "{} of {SINGLE} openings",
        waits.len()
    );
    waits
}

/// A running daemon and the reader of its events.
struct Daemon {
    child: Child,
    reader: JoinHandle<Vec<Duration>>,
}

impl Daemon {
    fn start(process: bool) -> Daemon {
        let name = format!("sockwatch-attribution-{}.yaml", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut config = std::fs::File::create(&path).expect("a scratch file");
        let args = format!("interval: 100ms, args: {{process: {process}}}");
        writeln!(config, "s: {{listener: net.socket, {args}}}").expect("a scratch file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_sockwatch"))
            .args(["--format", "json", "--config"])
            .arg(&path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be started");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let mut lines = log.lines();
        let ready = lines.any(|line| line.expect("text").contains("ready"));
        assert!(ready, "it is ready at some time");
        std::thread::spawn(move || lines.count());
        std::fs::remove_file(path).expect("a scratch file");
        let events = BufReader::new(child.stdout.take().expect("piped"));
        let reader = std::thread::spawn(|| events.lines().filter_map(wait).collect());
        Daemon { child, reader }
    }

    /// The CPU time that all its threads have used (proc_pid_stat(5)), in ticks of
    /// 10 ms.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let times = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = times
            .map(|ticks| ticks.parse::<u64>().expect("a number"))
            .sum();
        Duration::from_millis(ticks * 10)
    }

    /// Ends it; how long each opening was under way.
    fn stop(mut self) -> Vec<Duration> {
        // SAFETY: takes numbers; the child has not been waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
        self.child.wait().expect("one's own child");
        self.reader.join().expect("it does not panic")
    }
}

/// From the time that an opening bears to now.
fn wait(line: std::io::Result<String>) -> Option<Duration> {
    let line = line.expect("text");
    if !line.contains(r#""action":"opened""#) {
        return None;
    }
    // `{"ts":"2026-11-22T17:04:36.123456Z",…`: seconds and their parts are enough.
    let ts = line.get(24..33)?;
    let seconds: f64 = ts.parse().ok()?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let now = now.as_secs_f64() % 60.0;
    Some(Duration::from_secs_f64((now - seconds).rem_euclid(60.0)))
}
