//! How a daemon is started: its configuration, and the kernel it finds.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{BEACON, Daemon, PATIENCE};
use crate::seccomp::Refusal;

/// How often the daemon looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tick {
    /// Every 20 ms: a dump reads what stays for a while.
    Fast,
    /// Every hour: whatever a test does is between two ticks.
    Slow,
}

impl Tick {
    /// Both.
    pub const BOTH: [Tick; 2] = [Tick::Fast, Tick::Slow];

    fn interval(self) -> &'static str {
        match self {
            Tick::Fast => "20ms",
            Tick::Slow => "1h",
        }
    }
}

/// The overflow user: it owns nothing and may nothing.
const NOBODY: u32 = 65_534;

/// A daemon about to be started.
pub struct Launch {
    interval: Tick,
    daemon: String,
    sensors: String,
    handlers: String,
    debug: bool,
    beacon: bool,
    read: bool,
    refusal: Option<Refusal>,
    place: Option<PathBuf>,
    nobody: bool,
    alone: bool,
    through: Vec<String>,
}

impl Launch {
    /// With one sensor, `sockets`, that watches everything.
    pub fn new(interval: Tick) -> Launch {
        Launch {
            interval,
            daemon: String::new(),
            sensors: "  sockets: {listener: net.socket}\n".to_string(),
            handlers: String::new(),
            debug: false,
            beacon: true,
            read: true,
            refusal: None,
            place: None,
            nobody: false,
            alone: false,
            through: Vec::new(),
        }
    }

    /// With these sensors: YAML, indented by two.
    pub fn sensors(mut self, yaml: &str) -> Launch {
        self.sensors = yaml.to_string();
        self
    }

    /// With these handlers: YAML, indented by two.
    pub fn handlers(mut self, yaml: &str) -> Launch {
        self.handlers = format!("handlers:\n{yaml}");
        self
    }

    /// With a log that says everything.
    pub fn debug(mut self) -> Launch {
        self.debug = true;
        self
    }

    /// With another key under `daemon`.
    pub fn setting(mut self, key: &str, value: &str) -> Launch {
        self.daemon += &format!("  {key}: {value}\n");
        self
    }

    /// Without the harness's own sensor, which asks for every kind of socket
    /// and so widens what is dumped. [`Daemon::settle`] is not to be had then.
    pub fn without_beacon(mut self) -> Launch {
        self.beacon = false;
        self
    }

    /// With a reader that does not read until [`Daemon::read`].
    pub fn unread(mut self) -> Launch {
        self.read = false;
        self
    }

    /// As a user without any privilege, where the test itself has some.
    pub fn without_privilege(mut self) -> Launch {
        self.nobody = true;
        self
    }

    /// In a place where it sees no process but its own, and so none of the network
    /// namespaces that the machine has besides; in a sandbox with mounts.
    pub fn alone(mut self) -> Launch {
        self.alone = true;
        self
    }

    /// Started by this command, which is told what to start.
    pub fn through(mut self, command: &[&str]) -> Launch {
        self.through = command.iter().map(ToString::to_string).collect();
        self
    }

    /// In a kernel that refuses something.
    pub fn refused(mut self, refusal: Refusal) -> Launch {
        self.refusal = Some(refusal);
        self
    }

    /// With its configuration in this directory, which outlives it, and its state
    /// below it.
    pub fn at(mut self, place: &Scratch) -> Launch {
        self.place = Some(place.path().to_path_buf());
        let state = place.path().join("state");
        let state = state.to_str().expect("a path of ours").to_string();
        self.setting("state", &state)
    }

    /// Writes the configuration as [`Launch::spawn`] would, for a daemon that is to
    /// read it again.
    pub fn write(&self, place: &Scratch) {
        place.write("sockwatch.yaml", &self.config());
    }

    fn config(&self) -> String {
        let Launch {
            interval,
            daemon,
            sensors,
            handlers,
            ..
        } = self;
        let interval = interval.interval();
        let mut text = format!("daemon:\n  interval: {interval}\n{daemon}sensors:\n{sensors}");
        if self.beacon {
            let pattern = format!("* {BEACON}:* * * *");
            text += &format!(
                "  beacon: {{listener: net.socket, args: {{patterns: [\"{pattern}\"]}}}}\n"
            );
        }
        text + handlers
    }

    /// Starts it and waits until it is ready.
    pub fn start(self) -> Daemon {
        let daemon = self.spawn();
        daemon.wait_for_line("the line that says `ready`", |line| line.contains("ready"));
        daemon
    }

    /// Starts it.
    pub fn spawn(self) -> Daemon {
        let scratch = Scratch::new();
        let config = match &self.place {
            Some(place) => {
                let path = place.join("sockwatch.yaml");
                std::fs::write(&path, self.config()).expect("a scratch file");
                path
            }
            None => scratch.write("sockwatch.yaml", &self.config()),
        };
        let mut words = self.through.into_iter().map(OsString::from);
        let program = words.next().unwrap_or_else(binary);
        let mut command = Command::new(program);
        command.args(words);
        if command.get_program() != binary() {
            command.arg(binary());
        }
        command.arg("--config").arg(config);
        if self.nobody && crate::netns::is_root() {
            command.gid(NOBODY).uid(NOBODY);
        }
        if self.debug {
            command.env("SOCKWATCH_LOG", "debug");
        }
        if let Some(refusal) = self.refusal {
            let filter = refusal.filter();
            // SAFETY: installing a filter is two system calls on memory that was
            // allocated before the fork.
            unsafe { command.pre_exec(move || filter.install()) };
        }
        let mut daemon = Daemon::spawn_unread(command, scratch, self.alone);
        if self.read {
            daemon.read();
        }
        daemon
    }
}

/// The program: the one that was built with the tests, or the one that this
/// variable names where they run on another machine.
pub fn binary() -> OsString {
    std::env::var_os("SOCKWATCH_TEST_BINARY")
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_sockwatch").into())
}

/// Runs the program to its end.
pub fn once(args: &[&str]) -> Output {
    crate::child::run(Command::new(binary()).args(args), PATIENCE)
        .expect("the binary can be started")
        .unwrap_or_else(|output| {
            panic!(
                "sockwatch {args:?} did not end: {}",
                crate::child::text(&output)
            )
        })
}

/// A directory that is gone when this is dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new one.
    pub fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sockwatch-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a scratch directory");
        Scratch(path)
    }

    /// Writes a file into it.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).expect("a scratch file");
        path
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left over is in the directory for temporary files.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
