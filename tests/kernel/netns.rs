//! Where a test runs: in a process of its own, in namespaces of its own.
//!
//! A test binary has many threads, and unshare(CLONE_NEWUSER) is refused to
//! those. So a test runs itself once more: outside, [`run`] starts this binary
//! for the one test, between fork and exec in new namespaces; inside, it brings
//! `lo` up and runs the body. As root a network namespace is enough;
//! unprivileged it is made inside a user namespace, in which the test is root.
//!
//! A test that cannot run says so in one line that the test runner does not
//! swallow. As root there is no excuse, and the test fails.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use crate::child;

/// Set inside: the name of the test.
const INSIDE: &str = "SOCKWATCH_TEST_INSIDE";
/// Set inside: whether the outside is root.
const ROOT: &str = "SOCKWATCH_TEST_ROOT";
/// How a line begins that must be seen whatever the runner captures.
const SKIPPED: &str = "SKIPPED";
/// A test that takes longer than this hangs.
const DEADLINE: Duration = Duration::from_secs(100);

/// The namespaces of a test.
#[derive(Clone, Copy, Default)]
pub struct Sandbox {
    mounts: bool,
}

/// Runs `body` in a network namespace of its own; `name` is the full name of
/// the calling test, such as `udp::bound`.
pub fn run(name: &str, body: impl FnOnce()) {
    Sandbox::default().run(name, body);
}

impl Sandbox {
    /// A private mount namespace too, so that [`replace_file`] can change what
    /// the resolver reads.
    pub fn mounts(self) -> Sandbox {
        Sandbox { mounts: true }
    }

    /// See [`run`].
    pub fn run(self, name: &str, body: impl FnOnce()) {
        if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
            loopback_up().expect("lo of a new namespace can be brought up");
            body();
        } else {
            self.outside(name);
        }
    }

    fn outside(self, name: &str) {
        let exe = std::env::current_exe().expect("the test binary has a path");
        let mut command = Command::new(exe);
        command
            .args(["--exact", name, "--nocapture"])
            .env(INSIDE, name)
            .env(ROOT, if is_root() { "1" } else { "0" });
        let entrance = Entrance::new(self.mounts);
        // SAFETY: `enter` only makes system calls on memory allocated before the
        // fork; it neither allocates nor takes a lock.
        unsafe { command.pre_exec(move || entrance.enter()) };
        let ended = match child::run(&mut command, DEADLINE) {
            Ok(ended) => ended,
            Err(error) => return say_skipped(name, &format!("no namespaces to be had: {error}")),
        };
        let (Ok(output) | Err(output)) = &ended;
        let text = child::text(output);
        for line in text.lines().filter(|line| line.starts_with(SKIPPED)) {
            visibly(line);
        }
        print!("{text}");
        assert!(ended.is_ok(), "{name} did not end within {DEADLINE:?}");
        assert!(
            output.status.success(),
            "{name} failed inside its namespaces: {}",
            output.status
        );
        // A name that no test has would pass without a word.
        assert!(
            text.contains("1 passed"),
            "{name} is not the name of the calling test"
        );
    }
}

/// Whether the tests run as root, outside of any namespace of theirs.
pub fn is_root() -> bool {
    match std::env::var(ROOT) {
        Ok(root) => root == "1",
        // SAFETY: geteuid(2) takes nothing and cannot fail.
        Err(_) => unsafe { libc::geteuid() == 0 },
    }
}

/// Says that a test, or a part of it, cannot run here.
pub fn skip(reason: &str) {
    let name = std::env::var(INSIDE).unwrap_or_default();
    say_skipped(&name, reason);
}

fn say_skipped(name: &str, reason: &str) {
    assert!(
        !is_root(),
        "{name} cannot run, which is a failure as root: {reason}"
    );
    visibly(&format!("{SKIPPED} {name}: {reason}"));
}

/// Writes a line where the test runner does not capture it: it captures the
/// print macros, not the descriptor.
pub fn visibly(line: &str) {
    io::stderr()
        .write_all(format!("{line}\n").as_bytes())
        .expect("standard error can be written to");
}

/// What is done between fork and exec, with all its memory allocated before.
struct Entrance {
    flags: libc::c_int,
    maps: Vec<(CString, CString)>,
}

impl Entrance {
    fn new(mounts: bool) -> Entrance {
        let mut entrance = Entrance {
            flags: libc::CLONE_NEWNET,
            maps: Vec::new(),
        };
        if mounts {
            entrance.flags |= libc::CLONE_NEWNS;
        }
        if !is_root() {
            entrance.flags |= libc::CLONE_NEWUSER;
            // SAFETY: these take nothing and cannot fail.
            let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
            for (file, text) in [
                ("uid_map", format!("0 {uid} 1")),
                // user_namespaces(7): a gid map needs setgroups(2) denied.
                ("setgroups", "deny".to_string()),
                ("gid_map", format!("0 {gid} 1")),
            ] {
                let path = CString::new(format!("/proc/self/{file}")).expect("no NUL in it");
                entrance
                    .maps
                    .push((path, CString::new(text).expect("no NUL in it")));
            }
        }
        entrance
    }

    fn enter(&self) -> io::Result<()> {
        // SAFETY: unshare(2) takes no pointers.
        check(unsafe { libc::unshare(self.flags) })?;
        for (path, text) in &self.maps {
            // SAFETY: both are NUL-terminated and live across the calls, and the
            // length is that of the text.
            unsafe {
                let fd = check(libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC))?;
                let length = text.as_bytes().len();
                let wrote = libc::write(fd, text.as_ptr().cast(), length);
                check(libc::close(fd))?;
                if usize::try_from(wrote) != Ok(length) {
                    return Err(io::Error::last_os_error());
                }
            }
        }
        if self.flags & libc::CLONE_NEWNS != 0 {
            mount(None, c"/", libc::MS_REC | libc::MS_PRIVATE)?;
        }
        // Last, since a change of credentials clears it.
        die_with_parent()
    }
}

/// The calling process will be killed when the thread that started it ends.
pub fn die_with_parent() -> io::Result<()> {
    // SAFETY: prctl(PR_SET_PDEATHSIG) takes a number.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    Ok(())
}

fn mount(
    source: Option<&std::ffi::CStr>,
    target: &std::ffi::CStr,
    flags: libc::c_ulong,
) -> io::Result<()> {
    let source = source.map_or(std::ptr::null(), std::ffi::CStr::as_ptr);
    // SAFETY: the strings are NUL-terminated and live across the call; a null
    // source, type and data are what these flags take.
    check(unsafe {
        libc::mount(
            source,
            target.as_ptr(),
            std::ptr::null(),
            flags,
            std::ptr::null(),
        )
    })?;
    Ok(())
}

/// Inside a [`Sandbox::mounts`]: lays a file system in memory with this much room
/// over a directory.
pub fn mount_small(path: &std::path::Path, bytes: usize) -> io::Result<()> {
    let target = CString::new(path.to_str().expect("a path of ours")).expect("no NUL in it");
    let options = CString::new(format!("size={bytes}")).expect("no NUL in it");
    // SAFETY: all strings are NUL-terminated and live across the call.
    check(unsafe {
        libc::mount(
            c"tmpfs".as_ptr(),
            target.as_ptr(),
            c"tmpfs".as_ptr(),
            0,
            options.as_ptr().cast(),
        )
    })?;
    Ok(())
}

/// Inside a [`Sandbox::mounts`]: lays a file with this text over `path`.
pub fn replace_file(path: &str, text: &str) -> io::Result<()> {
    let scratch = crate::daemon::Scratch::new();
    let file = scratch.write("replacement", text);
    let source = CString::new(file.to_str().expect("a path of ours")).expect("no NUL in it");
    // The mount keeps the file after its name is gone.
    mount(
        Some(&source),
        &CString::new(path).expect("no NUL in it"),
        libc::MS_BIND,
    )
}

/// Inside a [`Sandbox::mounts`]: mounts an empty file system of this size, in
/// bytes, on `path`.
pub fn small_disk(path: &std::path::Path, size: usize) -> io::Result<()> {
    tmpfs(path, size, 0)
}

/// Gives a [`small_disk`] another size.
pub fn grow_disk(path: &std::path::Path, size: usize) -> io::Result<()> {
    tmpfs(path, size, libc::MS_REMOUNT)
}

fn tmpfs(path: &std::path::Path, size: usize, flags: libc::c_ulong) -> io::Result<()> {
    let target = CString::new(path.to_str().expect("a path of ours")).expect("no NUL in it");
    let options = CString::new(format!("size={size}")).expect("no NUL in it");
    // SAFETY: all strings are NUL-terminated and live across the call.
    check(unsafe {
        libc::mount(
            c"tmpfs".as_ptr(),
            target.as_ptr(),
            c"tmpfs".as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    })?;
    Ok(())
}

/// The answer of a system call that says -1 when it failed.
pub fn check(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(answer)
    }
}

/// Sets IFF_UP on `lo` (netdevice(7)).
pub fn loopback_up() -> io::Result<()> {
    let socket = crate::sock::Sock::udp(crate::sock::Domain::V4);
    // SAFETY: an ifreq of zeros is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads the ifreq, which lives across the call.
    check(unsafe { libc::ioctl(socket.raw(), libc::SIOCSIFFLAGS, &raw const request) })?;
    Ok(())
}

/// Moves the calling thread, and it alone, into one more network namespace.
pub fn enter_another() -> io::Result<()> {
    // SAFETY: unshare(2) takes no pointers.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    loopback_up()
}

/// The inode of the namespace that the calling process is in.
pub fn inode() -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self/ns/net")
        .expect("/proc is mounted")
        .ino()
}
