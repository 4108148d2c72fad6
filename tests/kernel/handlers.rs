//! Handlers: programs that are run for events, the locks that they release, and
//! files.

mod files;
mod locks;
mod programs;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::daemon::{Launch, PATIENCE, Tick};
use crate::record::Record;
use crate::sock::{Domain, Sock};

/// A sensor `w` that reports the ends of UDP sockets of one address. They are
/// unconnected, so that all events have one id.
const WATCH: &str = "  w: {listener: net.socket, opts: [closed], \
     args: {patterns: [\"udp4 127.0.0.5:* * * *\"]}}\n";

/// The id of all events of `w`.
const EID: &str = "w|net.socket|closed@0.0.0.0:0|0";

/// A daemon with that sensor and these handlers.
fn watching(handlers: &str) -> Launch {
    Launch::new(Tick::Slow).sensors(WATCH).handlers(handlers)
}

/// As many events of `w`; the cookies of their sockets.
fn happen(count: usize) -> Vec<u64> {
    let one = |_| {
        let socket = Sock::udp(Domain::V4);
        socket.bind("127.0.0.5:0".parse().expect("an address"));
        socket.cookie
    };
    (0..count).map(one).collect()
}

/// Waits until something is so.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The whole lines of a file so far, none where there is no file.
fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(str::to_owned).collect()
}

/// A counter from the last line of the log; 0 where it is not named.
fn counted(record: &Record, name: &str) -> u64 {
    let ended = record.log.lines().find(|line| line.contains("ended: "));
    let ended = ended.unwrap_or_else(|| panic!("no last line in\n{}", record.log));
    ended
        .split(' ')
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        .map_or(0, |count| count.parse().expect("a number"))
}

/// Whether there is such a process.
fn is_alive(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}
