//! The real binary, run beside a test.
//!
//! A test decides when the daemon may look: [`Daemon::paused`] stops it while
//! sockets are brought into the state in which it shall find them, so that a
//! tick cannot come in between. And it never sleeps and hopes: it waits for an
//! event, or for [`Daemon::settle`], which waits until sockets that were ended
//! after everything else have been reported.

mod alone;
mod launch;

pub use launch::{Launch, Scratch, Tick, binary, once};

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::netns::{check, die_with_parent};
use crate::record::{Record, listing};
use crate::sock::{Domain, Sock};

/// How long anything may take that takes milliseconds on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The address of the harness's own sockets; [`Record`] leaves them out.
pub const BEACON: &str = "127.99.0.1";

/// A running daemon. It is killed when this is dropped.
pub struct Daemon {
    child: Child,
    heard: Arc<Heard>,
    readers: Vec<JoinHandle<()>>,
    /// Its standard output, while nobody reads it.
    stdout: Option<ChildStdout>,
    launched: SystemTime,
    _scratch: Scratch,
    /// Of one that was started alone.
    _parent: Option<alone::Parent>,
}

/// What the daemon has written so far.
#[derive(Default)]
struct Heard {
    said: Mutex<Said>,
    more: Condvar,
}

#[derive(Default)]
struct Said {
    events: Vec<Value>,
    log: Vec<String>,
    /// Lines of standard output that are no JSON.
    text: Vec<String>,
    /// Streams at their end.
    ended: usize,
}

impl Daemon {
    /// Starts a daemon with the one sensor `sockets` and waits until it is ready.
    pub fn start(interval: Tick) -> Daemon {
        Launch::new(interval).start()
    }

    /// Starts a command, with its outputs read from now on.
    pub fn spawn(command: Command, scratch: Scratch) -> Daemon {
        let mut daemon = Daemon::spawn_unread(command, scratch, false);
        daemon.read();
        daemon
    }

    fn spawn_unread(mut command: Command, scratch: Scratch, alone: bool) -> Daemon {
        // SAFETY: one system call.
        unsafe { command.pre_exec(die_with_parent) };
        let launched = SystemTime::now();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let started = match alone {
            true => alone::spawn(command).map(|(child, parent)| (child, Some(parent))),
            false => command.spawn().map(|child| (child, None)),
        };
        let (mut child, parent) = started.expect("the binary can be started");
        let heard = Arc::new(Heard::default());
        let log = child.stderr.take().expect("piped");
        let readers = vec![heard.listen(log, |said, line| said.log.push(line))];
        let stdout = child.stdout.take();
        Daemon {
            child,
            heard,
            readers,
            stdout,
            launched,
            _scratch: scratch,
            _parent: parent,
        }
    }

    /// Begins to read its standard output.
    pub fn read(&mut self) {
        let events = self.stdout.take().expect("not read yet");
        self.readers.push(self.heard.listen(events, |said, line| {
            match serde_json::from_str(&line) {
                Ok(event) => said.events.push(event),
                Err(_) => said.text.push(line),
            }
        }));
    }

    /// Waits until `found` finds what it looks for in what was said so far.
    /// Patience ends when nothing new is said; a busy machine may take its time
    /// over ten thousand events.
    fn wait<T>(&self, what: &str, mut found: impl FnMut(&Said) -> Option<T>) -> T {
        let mut deadline = Instant::now() + PATIENCE;
        let mut said = self.heard.said.lock().expect("no reader panicked");
        let mut lines = 0;
        loop {
            if let Some(found) = found(&said) {
                return found;
            }
            if lines < said.lines() {
                lines = said.lines();
                deadline = Instant::now() + PATIENCE;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || said.ended == 2 {
                let (events, log) = (listing(said.events.iter()), said.log.join("\n"));
                drop(said);
                panic!("waited in vain for {what}; events:\n{events}\nlog:\n{log}");
            }
            said = self
                .heard
                .more
                .wait_timeout(said, left)
                .expect("no reader panicked")
                .0;
        }
    }

    /// Waits until it is ready, or has ended without: whether it is ready.
    pub fn is_ready(&self) -> bool {
        self.wait("the line that says `ready`, or the end", |said| {
            let ready = said.log.iter().any(|line| line.contains("ready"));
            (ready || said.ended == 2).then_some(ready)
        })
    }

    /// How many of the events so far are such.
    pub fn count(&self, such: impl Fn(&Value) -> bool) -> usize {
        let said = self.heard.said.lock().expect("no reader panicked");
        said.events.iter().filter(|event| such(event)).count()
    }

    /// Waits for an event.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        // Each event is looked at once: there can be many.
        let mut seen = 0;
        self.wait(what, |said| {
            let new = &said.events[seen..];
            seen = said.events.len();
            new.iter().find(|event| wanted(event)).cloned()
        })
    }

    /// Waits until there are as many events of a kind.
    pub fn wait_for_count(&self, what: &str, count: usize, wanted: impl Fn(&Value) -> bool) {
        self.wait(&format!("{count} {what}"), |said| {
            (said.events.iter().filter(|event| wanted(event)).count() >= count).then_some(())
        });
    }

    /// Waits for a line of the log.
    pub fn wait_for_line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.wait(what, |said| {
            said.log.iter().find(|line| wanted(line)).cloned()
        })
    }

    /// Waits until there are so many such lines in the log; the last of these.
    pub fn wait_for_lines(
        &self,
        what: &str,
        count: usize,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        self.wait(what, |said| {
            let mut found = said.log.iter().filter(|line| wanted(line));
            found.nth(count - 1).cloned()
        })
    }

    /// How many such lines there are in the log so far.
    pub fn count_lines(&self, wanted: impl Fn(&str) -> bool) -> usize {
        let said = self.heard.said.lock().expect("no reader panicked");
        said.log.iter().filter(|line| wanted(line)).count()
    }

    /// Waits until a sensor has reported this of a cookie.
    pub fn reported(&self, sensor: &str, action: &str, cookie: u64) {
        self.wait_for(&format!("{action} of {cookie} by {sensor}"), |event| {
            event["sensor"] == sensor
                && event["data"]["action"] == action
                && event["data"]["cookie"] == cookie
        });
    }

    /// Whether any sensor has reported this of a cookie so far.
    pub fn has(&self, action: &str, cookie: u64) -> bool {
        let said = self.heard.said.lock().expect("no reader panicked");
        said.events
            .iter()
            .any(|event| event["data"]["action"] == action && event["data"]["cookie"] == cookie)
    }

    /// Whether a sensor has said anything of a cookie so far.
    pub fn has_from(&self, sensor: &str, cookie: u64) -> bool {
        let said = self.heard.said.lock().expect("no reader panicked");
        said.events
            .iter()
            .any(|event| event["sensor"] == sensor && event["data"]["cookie"] == cookie)
    }

    /// Waits for a line of standard output that is no JSON.
    pub fn wait_for_text(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.wait(what, |said| {
            said.text.iter().find(|line| wanted(line)).cloned()
        })
    }

    /// Waits until the sensor `sockets` has these in view.
    pub fn opened(&self, cookies: &[u64]) {
        for &cookie in cookies {
            self.reported("sockets", "opened", cookie);
        }
    }

    /// Waits until the sensor `sockets` has reported the end of these.
    pub fn closed(&self, cookies: &[u64]) {
        for &cookie in cookies {
            self.reported("sockets", "closed", cookie);
        }
    }

    /// Waits until a sensor has reported the end of these.
    pub fn closed_by(&self, sensor: &str, cookies: &[u64]) {
        for &cookie in cookies {
            self.reported(sensor, "closed", cookie);
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: the pid is that of a child not waited for yet, so nobody
        // else's.
        check(unsafe { libc::kill(self.pid(), signal) }).expect("one's own child takes signals");
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The same, as system calls take it.
    pub fn pid(&self) -> libc::pid_t {
        self.id() as libc::pid_t
    }

    /// Does something while the daemon stands still: it sees all of it at once.
    pub fn paused<T>(&self, act: impl FnOnce() -> T) -> T {
        self.signal(libc::SIGSTOP);
        // SAFETY: `info` is writable, zeros are a valid siginfo, and the pid is
        // that of a child.
        let code = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let flags = libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT;
            check(libc::waitid(
                libc::P_PID,
                self.child.id(),
                &raw mut info,
                flags,
            ))
            .expect("one's own child can be waited for");
            info.si_code
        };
        assert_eq!(
            code,
            libc::CLD_STOPPED,
            "the daemon ended instead of standing still"
        );
        let result = act();
        self.signal(libc::SIGCONT);
        result
    }

    /// Waits for `count` ticks whose dumps began after this call.
    pub fn ticks(&self, count: usize) {
        // The first dump that reads a socket may have begun before it was made;
        // one that reads a socket made after that dump began after it.
        for _ in 0..=count {
            let beacon = Sock::tcp(Domain::V4);
            beacon.bind(beacon_address());
            // A socket that is only bound moves no counter: no gate would open.
            beacon.listen(1);
            self.reported("beacon", "opened", beacon.cookie);
        }
    }

    /// Waits for dumps of UDP that began after this call, made for a sensor that
    /// has a tick of its own.
    pub fn udp_ticks(&self, sensor: &str, count: usize) {
        for _ in 0..=count {
            let beacon = Sock::udp(Domain::V4);
            beacon.bind(beacon_address());
            self.reported(sensor, "opened", beacon.cookie);
        }
    }

    /// Waits until what has ended so far has been reported: ends sockets of its
    /// own and waits for those. The kernel hands notices out through a work
    /// queue whose items can overtake each other, hence several, and one more
    /// moment.
    pub fn settle(&self) {
        for socket in [
            Sock::udp(Domain::V4),
            Sock::tcp(Domain::V4),
            Sock::udp(Domain::V4),
        ] {
            socket.bind(beacon_address());
            let cookie = socket.cookie;
            drop(socket);
            self.reported("beacon", "closed", cookie);
        }
        std::thread::sleep(Duration::from_millis(30));
    }

    /// Waits until these are reported as closed and everything else has
    /// settled, and ends the daemon.
    pub fn finish(self, closed: &[u64]) -> Record {
        self.closed(closed);
        self.settle();
        self.stop()
    }

    /// Ends the daemon with SIGTERM, which it must answer with exit code 0.
    pub fn stop(self) -> Record {
        self.signal(libc::SIGTERM);
        let (status, record) = self.end();
        assert_eq!(
            status.code(),
            Some(0),
            "SIGTERM ends it as asked; log:\n{}",
            record.log
        );
        record
    }

    /// Kills it with SIGKILL, between any two instructions; the last line that it
    /// wrote may be cut short.
    pub fn kill(self) -> Record {
        let launched = self.launched;
        self.signal(libc::SIGKILL);
        let (status, said) = self.last();
        assert_eq!(status.code(), None, "killed by a signal");
        assert!(
            said.text.len() <= 1,
            "lines that are no JSON: {:?}",
            said.text
        );
        Record::new(said.events, said.log.join("\n"), launched)
    }

    /// Waits until it ends; every line that it wrote must be JSON.
    pub fn end(self) -> (ExitStatus, Record) {
        let launched = self.launched;
        let (status, said) = self.last();
        assert!(
            said.text.is_empty(),
            "lines that are no JSON: {:?}",
            said.text
        );
        (
            status,
            Record::new(said.events, said.log.join("\n"), launched),
        )
    }

    /// Waits until it ends; the lines that are no JSON.
    pub fn end_of_text(self) -> (ExitStatus, Vec<String>) {
        let (status, said) = self.last();
        (status, said.text)
    }

    fn last(mut self) -> (ExitStatus, Said) {
        let deadline = Instant::now() + PATIENCE;
        let mut said = self.heard.said.lock().expect("no reader panicked");
        while said.ended < 2 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let log = said.log.join("\n");
                drop(said);
                panic!("the daemon does not end; log:\n{log}");
            }
            said = self
                .heard
                .more
                .wait_timeout(said, left)
                .expect("no reader panicked")
                .0;
        }
        let all = std::mem::take(&mut *said);
        drop(said);
        let status = self
            .child
            .wait()
            .expect("one's own child can be waited for");
        (status, all)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stdout.take());
        // It has ended already where a test went well.
        if let Ok(None) = self.child.try_wait() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        for reader in self.readers.drain(..) {
            drop(reader.join());
        }
    }
}

impl Said {
    fn lines(&self) -> usize {
        self.events.len() + self.log.len() + self.text.len()
    }
}

impl Heard {
    fn listen(
        self: &Arc<Heard>,
        pipe: impl std::io::Read + Send + 'static,
        take: fn(&mut Said, String),
    ) -> JoinHandle<()> {
        let heard = Arc::clone(self);
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe
                .read_until(b'\n', &mut line)
                .is_ok_and(|length| length > 0)
            {
                let text = String::from_utf8_lossy(&line).trim_end().to_string();
                take(&mut heard.said.lock().expect("no reader panicked"), text);
                heard.more.notify_all();
                line.clear();
            }
            heard.said.lock().expect("no reader panicked").ended += 1;
            heard.more.notify_all();
        })
    }
}

fn beacon_address() -> SocketAddr {
    SocketAddr::new(BEACON.parse().expect("an address"), 0)
}
