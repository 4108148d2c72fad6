//! The process that connects, and its own account of what it did.
//!
//! It is the calling test, started once more with a word in its environment; its
//! account goes to standard output, one line of JSON.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::child;
use crate::sock::{Domain, Sock};

/// Set in the process that connects.
const ACTOR: &str = "SOCKWATCH_TEST_ACTOR";
const ACCOUNT: &str = "ACCOUNT ";
const DEADLINE: Duration = Duration::from_secs(60);

/// What a caller knows of its own connect().
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Truth {
    /// What it is an example of.
    pub name: String,
    /// How many records it must make.
    pub times: usize,
    /// SO_COOKIE.
    pub cookie: u64,
    /// The destination, as an event shows it.
    pub remote: String,
    /// The socket is an AF_INET6 one.
    pub v6: bool,
    /// The destination is a mapped address.
    pub mapped: bool,
    /// The socket's protocol is IPPROTO_MPTCP.
    pub mptcp: bool,
    /// By sendto() with MSG_FASTOPEN.
    pub fast_open: bool,
    /// /proc/thread-self/ns/net.
    pub netns: u32,
    /// getpid().
    pub pid: u32,
    /// gettid().
    pub tid: u32,
    /// The thread's name.
    pub comm: String,
    /// getuid(), which is a thread's own.
    pub uid: u32,
    /// The inode of the process's directory in cgroup v2, where it is mounted.
    pub cgroup: Option<u64>,
    /// CLOCK_MONOTONIC before.
    pub before_ns: u64,
    /// And after.
    pub after_ns: u64,
}

/// What an actor says it did.
#[derive(Serialize, Deserialize, Default, Debug)]
pub struct Account {
    /// One by one.
    pub truths: Vec<Truth>,
    /// By the cookie alone.
    pub burst: Vec<u64>,
}

/// Starts the calling test as an actor.
pub fn spawn(name: &str) -> Child {
    let exe = std::env::current_exe().expect("the test binary has a path");
    Command::new(exe)
        .args(["--exact", name, "--nocapture"])
        .env(ACTOR, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this binary can be run")
}

/// Waits for an actor's end; its account.
pub fn finish(acting: Child) -> Account {
    let output = child::finish(acting, DEADLINE).expect("it ends in time");
    let text = child::text(&output);
    assert!(output.status.success(), "the actor failed:\n{text}");
    let line = text.lines().find_map(|line| line.split_once(ACCOUNT));
    let (_, json) = line.expect("an actor gives an account");
    serde_json::from_str(json).expect("a line of the actor's")
}

/// Runs the calling test as an actor; its pid and its account.
pub fn run(name: &str) -> (u32, Account) {
    let acting = spawn(name);
    let pid = acting.id();
    (pid, finish(acting))
}

/// Does `act`, if this process is the actor.
pub fn perform(act: fn() -> Account) -> bool {
    if std::env::var_os(ACTOR).is_none() {
        return false;
    }
    let json = serde_json::to_string(&act()).expect("it is plain data");
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{ACCOUNT}{json}\n").as_bytes())
        .expect("a pipe of the test's");
    true
}

/// So many connects as fast as they go, all refused.
pub fn burst(count: usize) -> Account {
    let to = SocketAddr::new(Domain::V4.loopback(), 1);
    let one = || {
        let socket = Sock::tcp(Domain::V4);
        socket.connect(to).expect_err("nobody listens there");
        socket.cookie
    };
    Account {
        burst: (0..count).map(|_| one()).collect(),
        ..Account::default()
    }
}

/// What the calling thread knows of a socket and of itself, and how long `connect`
/// takes.
pub fn truth(
    name: &str,
    socket: &Sock,
    domain: Domain,
    remote: SocketAddr,
    connect: impl FnOnce(),
) -> Truth {
    let before_ns = monotonic();
    connect();
    let after_ns = monotonic();
    let netns = inode("/proc/thread-self/ns/net").expect("/proc is mounted");
    let comm = std::fs::read_to_string("/proc/thread-self/comm").expect("/proc is mounted");
    // SAFETY: neither takes anything, and neither can fail.
    let (tid, uid) = unsafe { (libc::gettid(), libc::getuid()) };
    Truth {
        name: name.to_string(),
        times: 1,
        cookie: socket.cookie,
        remote: remote.to_string(),
        v6: domain != Domain::V4,
        mapped: domain == Domain::Mapped,
        mptcp: false,
        fast_open: false,
        netns: u32::try_from(netns).expect("32 bits"),
        pid: std::process::id(),
        tid: tid as u32,
        comm: comm.trim_end().to_string(),
        uid,
        cgroup: cgroup(),
        before_ns,
        after_ns,
    }
}

fn monotonic() -> u64 {
    // SAFETY: a timespec of zeros is valid, and clock_gettime(2) fills it in.
    let now = unsafe {
        let mut now: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now);
        now
    };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn inode(path: &str) -> Option<u64> {
    Some(std::fs::metadata(path).ok()?.ino())
}

/// From /proc/self/cgroup (cgroups(7)) and the mount table.
fn cgroup() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (at, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then_some(at)
    })?;
    inode(&format!("{mount}{path}"))
}
