//! What it costs to say who has a socket open, with 50 and with 2,000 processes
//! on the machine: `cargo bench --bench attribution`.
//!
//! Each process holds five sockets. A figure of the search is the CPU time from
//! the question to the answer on the thread that scans, the median of many. Beside
//! it stands what one pass over all of /proc/*/fd costs when it is written with
//! std::fs. Then the same of the program: what a daemon spends on sockets that come
//! and go with `process` and without, how long an event waits for its process, and
//! a table of 20,000 sockets with processes against `ss`.
//!
//! It runs in a network namespace of its own where it may make one, so that the
//! sockets are its own.

// Processes that only make system calls.
#![allow(unsafe_code)]

mod daemon;
mod dump;

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use sockwatch::enrich::processes::{Scanner, Want};
use sockwatch::enrich::users::Passwd;
use sockwatch::model::Attribution;

/// How many times each question is asked.
const TIMES: usize = 21;
/// The budget of one turn, as the daemon has it.
const BUDGET: Duration = Duration::from_millis(20);
/// Sockets of each process.
const SOCKETS: usize = 5;

fn main() {
    // SAFETY: takes a number; this is the only thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        println!("among the sockets of this machine: no namespace of its own is to be had");
    }
    for count in [50, 2000] {
        figures(count);
    }
    dump::figures();
}

fn figures(count: usize) {
    let crowd = Crowd::of(count);
    let mut scans = Scans::new();
    println!("{count} processes more, {} in all:", listed());

    let own = socket();
    let (first, _) = scans.timed(inode(&own));
    say("the first scan", first);
    say("a known socket", median(|| scans.timed(inode(&own)).0));
    say(
        "a socket of a new process",
        median(|| {
            let socket = socket();
            let child = Child::forked(|| {
                loop {
                    // SAFETY: pause(2) takes nothing.
                    unsafe { libc::pause() };
                }
            });
            let took = scans.timed(inode(&socket)).0;
            drop(child);
            took
        }),
    );
    say(
        "one more socket of a process asked about lately",
        median(|| scans.timed(inode(&socket())).0),
    );
    say(
        "one more socket of any process",
        median(|| {
            let inode = crowd.one_opens_another();
            scans.timed(inode).0
        }),
    );
    say("a socket that nobody has", median(|| scans.timed(1).0));
    say("all of /proc/*/fd with std::fs", median(with_std));
    let (processes, sockets) = scans.scanner.remembered();
    println!("  remembered: {processes} processes, {sockets} sockets");
    daemon::figures();
}

fn say(what: &str, took: Duration) {
    println!("  {what}: {} us", took.as_micros());
}

fn median(mut once: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..TIMES).map(|_| once()).collect();
    times.sort();
    times[TIMES / 2]
}

fn listed() -> usize {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let is_process = |name: &str| name.parse::<u32>().is_ok();
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_str().is_some_and(is_process))
        .count()
}

fn with_std() -> Duration {
    let begun = cpu_time();
    let mut sockets = 0;
    for process in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(fds) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        for fd in fds.flatten() {
            let target = std::fs::read_link(fd.path());
            let is_socket = |path: &Path| path.to_string_lossy().starts_with("socket:[");
            sockets += usize::from(target.is_ok_and(|path| is_socket(&path)));
        }
    }
    assert!(sockets > 0);
    cpu_time() - begun
}

/// A scanner and its turns.
struct Scans {
    scanner: Scanner,
    turn: u64,
}

impl Scans {
    fn new() -> Scans {
        Scans {
            scanner: Scanner::new(Path::new("/proc"), false, Passwd::default()),
            turn: 0,
        }
    }

    /// How long it took to answer, without the rests between passes; and who.
    fn timed(&mut self, inode: u32) -> (Duration, Attribution) {
        std::thread::sleep(Duration::from_millis(1));
        let since = self.turn + 1;
        let mut took = Duration::ZERO;
        loop {
            self.turn += 1;
            let want = Want {
                inode,
                uid: Some(0),
                since,
            };
            let begun = cpu_time();
            let report = self.scanner.scan(&[want], self.turn, BUDGET);
            took += cpu_time() - begun;
            if let Some((_, answer)) = report.answers.into_iter().next() {
                return (took, answer);
            }
        }
    }
}

/// CPU time of this thread, in the kernel and out of it.
fn cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` lives across the call, which writes to it alone.
    let answer = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(answer, 0);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

fn socket() -> OwnedFd {
    // SAFETY: socket(2) takes no pointers, and nobody else owns what it opens.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        assert!(fd >= 0);
        OwnedFd::from_raw_fd(fd)
    }
}

fn inode(socket: &OwnedFd) -> u32 {
    let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
    let inode = std::fs::metadata(path).expect("one's own").ino();
    u32::try_from(inode).expect("32 bits")
}

fn pipe() -> [OwnedFd; 2] {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors, which nobody else owns.
    unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        ends.map(|fd| OwnedFd::from_raw_fd(fd))
    }
}

/// A process that ends with this.
struct Child(libc::pid_t);

impl Child {
    fn forked(life: impl FnOnce() -> std::convert::Infallible) -> Child {
        // SAFETY: the child makes system calls alone.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            life();
        }
        assert!(pid > 0, "fork");
        Child(pid)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: both take numbers and a null pointer.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

/// Processes with five sockets each, one of which opens another when told to.
struct Crowd {
    children: Vec<Child>,
    orders: OwnedFd,
    inodes: OwnedFd,
}

impl Crowd {
    fn of(count: usize) -> Crowd {
        let ([taken, orders], [inodes, told]) = (pipe(), pipe());
        let live = || {
            for _ in 0..SOCKETS {
                std::mem::forget(socket());
            }
            loop {
                let mut order = 0_u8;
                // SAFETY: the byte, the stat and its inode live across the calls
                // that read and write them.
                unsafe {
                    libc::read(taken.as_raw_fd(), (&raw mut order).cast(), 1);
                    let mut stat: libc::stat64 = std::mem::zeroed();
                    let another = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
                    libc::fstat64(another, &raw mut stat);
                    libc::write(told.as_raw_fd(), (&raw const stat.st_ino).cast(), 8);
                }
            }
        };
        let children = (0..count).map(|_| Child::forked(live)).collect();
        std::thread::sleep(Duration::from_millis(500));
        Crowd {
            children,
            orders,
            inodes,
        }
    }

    fn one_opens_another(&self) -> u32 {
        assert!(!self.children.is_empty());
        let mut inode = 0_u64;
        // SAFETY: the byte and the inode live across the calls.
        unsafe {
            libc::write(self.orders.as_raw_fd(), b"x".as_ptr().cast(), 1);
            let got = libc::read(self.inodes.as_raw_fd(), (&raw mut inode).cast(), 8);
            assert_eq!(got, 8);
        }
        u32::try_from(inode).expect("32 bits")
    }
}
