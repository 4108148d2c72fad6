//! A daemon under measurement.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Outcome;
use super::world;

/// The program, where cargo puts it.
pub const SOCKWATCH: &str = env!("CARGO_BIN_EXE_sockwatch");
/// How long one may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(150);
/// How often a daemon is looked at that is to come to rest.
const LOOK: Duration = Duration::from_millis(250);
/// One that reads no dump uses less CPU than this between two looks, whatever its
/// rhythm.
const QUIET: Duration = Duration::from_millis(8);

/// A running daemon. One that is dropped is killed.
pub struct Daemon {
    child: Child,
    /// What it wrote to standard error after it was ready.
    log: Option<JoinHandle<String>>,
}

impl Daemon {
    /// One that watches every socket by the defaults, but for these lines of
    /// the configuration's `daemon:` map; ready.
    pub fn start(settings: &str, stdout: Stdio) -> Outcome<Daemon> {
        Daemon::start_with(settings, "", stdout)
    }

    /// The same with these lines of the sensor's `args:` as well.
    pub fn start_with(settings: &str, args: &str, stdout: Stdio) -> Outcome<Daemon> {
        let sensor = format!("sockets: {{listener: net.socket, args: {{{args}}}}}");
        let config = format!("daemon: {{{settings}}}\nsensors: {{{sensor}}}\n");
        Daemon::configured(&config, stdout)
    }

    /// One with this configuration; ready.
    pub fn configured(text: &str, stdout: Stdio) -> Outcome<Daemon> {
        let mut command = Command::new(SOCKWATCH);
        command
            .args(["--config", "/dev/stdin", "--format", "json"])
            .env("SOCKWATCH_LOG", "info")
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(Stdio::piped());
        let mut child = world::spawn(&mut command)?;
        let mut config = child.stdin.take().ok_or("a daemon without input")?;
        config.write_all(text.as_bytes())?;
        drop(config);
        let mut log = BufReader::new(child.stderr.take().ok_or("a daemon without a log")?);
        let mut daemon = Daemon { child, log: None };
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            if log.read_line(&mut line)? == 0 {
                return Err("the daemon did not become ready".into());
            }
        }
        daemon.log = Some(thread::spawn(move || {
            let lines = log.lines().map_while(Result::ok);
            lines.map(|line| line + "\n").collect()
        }));
        Ok(daemon)
    }

    /// Waits until it, which ticks this often, has read the table as often as it
    /// wants to.
    pub fn settle(&self, every: Duration) -> Outcome<()> {
        let began = Instant::now();
        thread::sleep(2 * every);
        let (mut quiet, mut before) = (0, self.cpu()?);
        while quiet < 6 {
            thread::sleep(LOOK);
            let now = self.cpu()?;
            quiet = if now - before < QUIET { quiet + 1 } else { 0 };
            before = now;
            if began.elapsed() > PATIENCE {
                return Err("the daemon does not come to rest".into());
            }
        }
        Ok(())
    }

    /// Its events, if they were to be piped.
    pub fn events(&mut self) -> Outcome<ChildStdout> {
        Ok(self.child.stdout.take().ok_or("its events are not piped")?)
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time that it has used.
    pub fn cpu(&self) -> Outcome<Duration> {
        Ok(world::cpu_of(self.pid())?)
    }

    /// Bytes that it has in memory. VmRSS in its status is counted for each CPU
    /// and may be some hundred KiB off (proc_pid_status(5)); this is exact.
    pub fn resident(&self) -> Outcome<u64> {
        Ok(world::number_of(self.pid(), "smaps_rollup", "Rss")? * 1024)
    }

    /// Waits until it has no more than this in memory, or as long as that may take
    /// at most: how much it has then.
    pub fn resident_by(&self, most: u64, patience: Duration) -> Outcome<u64> {
        let began = Instant::now();
        loop {
            let resident = self.resident()?;
            if resident <= most || began.elapsed() > patience {
                return Ok(resident);
            }
            thread::sleep(LOOK);
        }
    }

    /// Ends it, and answers what it logged since it was ready: its counters last.
    pub fn stop(mut self) -> Outcome<String> {
        // SAFETY: kill(2) takes numbers; the child has not been waited for.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        let status = self.child.wait()?;
        let log = self.log.take().map(JoinHandle::join);
        let log = log.ok_or("no log")?.map_err(|_| "the log was not read")?;
        if status.success() {
            Ok(log)
        } else {
            Err(format!("the daemon ended with {status}: {log}").into())
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail on one that was stopped, which is what they are for.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A counter in what a daemon logs at its end.
pub fn counted(log: &str, name: &str) -> u64 {
    let word = |word: &str| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
    log.split_whitespace().find_map(word).unwrap_or(0)
}
