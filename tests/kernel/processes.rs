//! Who has a socket open, held against processes that the tests fork: the
//! module that reads /proc, without the daemon around it.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use sockwatch::enrich::processes::{Scanner, Want};
use sockwatch::enrich::users::Passwd;
use sockwatch::enrich::{Lookup, Processes};
use sockwatch::model::{Attribution, Holders, Now, ProcessUnknown};

use crate::daemon::PATIENCE;
use crate::netns::{self, check};
use crate::sock::{Domain, Sock};

/// A user that has no process.
const NOBODY: u32 = 4_000_001;

/// A child that does nothing until it is told to end, and is gone when this is
/// dropped.
pub struct Child(pub libc::pid_t);

impl Child {
    /// Forks a child that calls this, and then sleeps. It may only make system
    /// calls: other threads' locks are held for ever in it.
    pub fn forked(begin: impl FnOnce()) -> Child {
        // SAFETY: the child makes system calls alone, as promised.
        let pid = check(unsafe { libc::fork() }).expect("fork");
        if pid == 0 {
            sleep_in_child(begin);
        }
        Child(pid)
    }

    /// The same with a pid of one's choice, which needs to be root; `None` where
    /// the pid is taken.
    fn with_pid(pid: libc::pid_t, begin: impl FnOnce()) -> Option<Child> {
        // SAFETY: clone_args of zeros are valid ones.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.exit_signal = libc::SIGCHLD as u64;
        args.set_tid = (&raw const pid) as u64;
        args.set_tid_size = 1;
        // SAFETY: without CLONE_VM this is a fork, in which the child makes
        // system calls alone; `args` and `pid` live across the call.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_clone3,
                &raw mut args,
                size_of::<libc::clone_args>(),
            )
        };
        match answer {
            0 => sleep_in_child(begin),
            -1 => {
                let error = std::io::Error::last_os_error();
                assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "clone3: {error}");
                None
            }
            _ => Some(Child(pid)),
        }
    }

    pub fn pid(&self) -> u32 {
        self.0.unsigned_abs()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: both take numbers and a null pointer; the child is ours and
        // has not been waited for.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

/// A command that is ended with this.
pub struct Spawned(pub std::process::Child);

impl Drop for Spawned {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        ended.expect("one's own child can be ended");
    }
}

/// What a child does. SIGKILL ends it, at the latest with its parent.
fn sleep_in_child(begin: impl FnOnce()) -> ! {
    // SAFETY: prctl(2) and pause(2) take no pointers.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        begin();
        loop {
            libc::pause();
        }
    }
}

/// Closes a descriptor in a child, which then shows that it is done.
pub fn close_and_tell(socket: libc::c_int, tell: libc::c_int) {
    // SAFETY: the descriptors are open in the child, and the byte lives across
    // the call.
    unsafe {
        libc::close(socket);
        libc::write(tell, b"x".as_ptr().cast(), 1);
    }
}

fn set_name(name: &std::ffi::CStr) {
    // SAFETY: the name ends in a NUL and lives across the call.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// A pipe, to hear from a child.
pub fn pipe() -> (std::os::fd::OwnedFd, std::os::fd::OwnedFd) {
    use std::os::fd::{FromRawFd, OwnedFd};
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors, which nobody else owns.
    unsafe {
        check(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC)).expect("pipe2");
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    }
}

pub fn hear(pipe: &std::os::fd::OwnedFd) {
    let mut byte = 0_u8;
    // SAFETY: one byte is writable at this address.
    let got = unsafe { libc::read(pipe.as_raw_fd(), (&raw mut byte).cast(), 1) };
    assert_eq!(got, 1, "the child has said that it is done");
}

/// The inode of a descriptor's socket.
pub fn inode(fd: &impl AsRawFd) -> u32 {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let inode = std::fs::metadata(path).expect("one's own socket").ino();
    u32::try_from(inode).expect("sockfs numbers with 32 bits")
}

/// A scanner and its turns.
struct Scans {
    scanner: Scanner,
    turn: u64,
}

impl Scans {
    fn new() -> Scans {
        Scans {
            scanner: Scanner::new(Path::new("/proc"), true, Passwd::default()),
            turn: 0,
        }
    }

    fn ask(&mut self, inode: u32) -> Attribution {
        // A process of root's that even root may not read (as a sandbox has
        // one) could hold anything of root's; of this user's there is none.
        let uid = Some(NOBODY);
        let since = self.turn + 1;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.turn += 1;
            let want = Want { inode, uid, since };
            let report = self
                .scanner
                .scan(&[want], self.turn, Duration::from_millis(50));
            if let [(of, answer)] = &report.answers[..] {
                assert_eq!(*of, inode);
                return answer.clone();
            }
        }
        panic!("no answer about {inode} in time");
    }

    fn holders(&mut self, inode: u32) -> Arc<Holders> {
        match self.ask(inode) {
            Attribution::Held(holders) => holders,
            Attribution::Unknown(why) => panic!("{inode}: {why:?}"),
        }
    }

    fn pids(&mut self, inode: u32) -> Vec<u32> {
        let holders = self.holders(inode);
        holders.oldest.iter().map(|process| process.pid).collect()
    }
}

fn own() -> u32 {
    std::process::id()
}

#[test]
fn a_shared_listener_and_what_is_told_of_its_holders() {
    netns::run(
        "processes::a_shared_listener_and_what_is_told_of_its_holders",
        || {
            let listener = Sock::listener(Domain::V4);
            let inode = inode(&listener.raw());
            let mut scans = Scans::new();
            assert_eq!(scans.pids(inode), [own()]);
            // The workers of a server, and one of theirs.
            let (heard, tell) = pipe();
            let begin = || {
                set_name(c"worker) S 1 (");
                close_and_tell(-1, tell.as_raw_fd());
            };
            let workers: Vec<Child> = (0..3).map(|_| Child::forked(begin)).collect();
            workers.iter().for_each(|_| hear(&heard));
            let pids = scans.pids(inode);
            assert_eq!(pids[0], own(), "the oldest first");
            let mut expected: Vec<u32> = workers.iter().map(Child::pid).collect();
            let mut others = pids[1..].to_vec();
            expected.sort_unstable();
            others.sort_unstable();
            assert_eq!(others, expected);

            let holders = scans.holders(inode);
            let exe = std::env::current_exe().expect("the test has a path");
            for process in &holders.oldest {
                assert_eq!(process.exe.as_deref(), exe.to_str());
                let cmdline = process.cmdline.as_deref().expect("asked for");
                assert!(cmdline.contains(" --exact processes::"), "{cmdline}");
                if netns::is_root() {
                    assert_eq!((process.uid, process.user.as_deref()), (0, Some("root")));
                }
            }
            assert_eq!(holders.oldest[3].comm.bytes(), b"worker) S 1 (");
            assert!(holders.oldest.is_sorted_by_key(|process| process.started));
            drop(workers);
            assert_eq!(scans.pids(inode), [own()]);
        },
    );
}

#[test]
fn a_fork_that_keeps_a_socket() {
    netns::run("processes::a_fork_that_keeps_a_socket", || {
        let (kept, closed) = (Sock::udp(Domain::V4), Sock::udp(Domain::V6));
        let mut scans = Scans::new();
        let inodes = (inode(&kept.raw()), inode(&closed.raw()));
        assert_eq!(scans.pids(inodes.0), [own()]);
        let (heard, tell) = pipe();
        let child = Child::forked(|| close_and_tell(closed.raw(), tell.as_raw_fd()));
        hear(&heard);
        assert_eq!(scans.pids(inodes.0), [own(), child.pid()]);
        assert_eq!(scans.pids(inodes.1), [own()]);
        drop(kept);
        assert_eq!(scans.pids(inodes.0), [child.pid()], "the fork has it still");
        drop(child);
        let gone = Attribution::Unknown(ProcessUnknown::Gone);
        assert_eq!(scans.ask(inodes.0), gone);

        // One that its parent opened after it was last read: both are told.
        let late = Sock::udp(Domain::V4);
        let child = Child::forked(|| ());
        assert_eq!(scans.pids(inode(&late.raw())), [own(), child.pid()]);
    });
}

#[test]
fn a_process_that_exits_at_once() {
    netns::run("processes::a_process_that_exits_at_once", || {
        let mut scans = Scans::new();
        for known in [false, true] {
            let socket = Sock::udp(Domain::V4);
            let inode = inode(&socket.raw());
            let child = Child::forked(|| ());
            if known {
                assert_eq!(scans.pids(inode), [own(), child.pid()]);
            }
            drop(socket);
            drop(child);
            let gone = Attribution::Unknown(ProcessUnknown::Gone);
            assert_eq!(scans.ask(inode), gone, "known: {known}");
        }
    });
}

#[test]
fn a_zombie_holds_nothing() {
    netns::run("processes::a_zombie_holds_nothing", || {
        let socket = Sock::udp(Domain::V4);
        let inode = inode(&socket.raw());
        let child = Child::forked(|| {
            // SAFETY: _exit(2) takes a number.
            unsafe { libc::_exit(0) }
        });
        // SAFETY: a siginfo_t of zeros is a valid one.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: waits for the child without reaping it; `info` lives across
        // the call.
        check(unsafe {
            libc::waitid(
                libc::P_PID,
                child.pid(),
                &raw mut info,
                libc::WEXITED | libc::WNOWAIT,
            )
        })
        .expect("waitid");
        let mut scans = Scans::new();
        assert_eq!(scans.pids(inode), [own()]);
        drop(socket);
        let gone = Attribution::Unknown(ProcessUnknown::Gone);
        assert_eq!(scans.ask(inode), gone);
    });
}

#[test]
fn an_inherited_descriptor_after_exec() {
    netns::run("processes::an_inherited_descriptor_after_exec", || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("lo is up");
        let inode = inode(&listener);
        let mut scans = Scans::new();
        assert_eq!(scans.pids(inode), [own()]);
        let child = std::process::Command::new("sleep")
            .arg("100")
            // As a service gets its socket from the one that started it.
            .stdin(std::os::fd::OwnedFd::from(
                listener.try_clone().expect("dup"),
            ))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("sleep(1)");
        let child = Spawned(child);
        drop(listener);
        // spawn() returns in the middle of execve(), when the command line is
        // not there yet.
        let deadline = Instant::now() + PATIENCE;
        let holders = loop {
            let holders = scans.holders(inode);
            let cmdline = holders.oldest[0].cmdline.as_deref();
            if cmdline == Some("sleep 100") || Instant::now() > deadline {
                break holders;
            }
        };
        let [process] = &holders.oldest[..] else {
            panic!("held by one: {holders:?}");
        };
        assert_eq!(process.pid, child.0.id());
        assert_eq!(process.comm.bytes(), b"sleep");
        assert_eq!(process.cmdline.as_deref(), Some("sleep 100"));
    });
}

#[test]
fn a_long_lived_process_opens_one_more() {
    netns::run("processes::a_long_lived_process_opens_one_more", || {
        let mut scans = Scans::new();
        for n in 0..20 {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("lo is up");
            assert_eq!(scans.pids(inode(&socket)), [own()], "socket {n}");
        }
    });
}

#[test]
fn a_pid_that_is_used_again() {
    netns::run("processes::a_pid_that_is_used_again", || {
        if !netns::is_root() {
            return netns::skip("pids can be chosen by root alone");
        }
        let (first, second) = (Sock::udp(Domain::V4), Sock::udp(Domain::V4));
        let inodes = (inode(&first.raw()), inode(&second.raw()));
        let mut scans = Scans::new();
        // Whoever takes the pid meanwhile makes it one more try.
        for _ in 0..100 {
            let old = Child::forked(|| set_name(c"old"));
            let pid = old.0;
            assert_eq!(scans.pids(inodes.0), [own(), old.pid()]);
            drop(old);
            let (heard, tell) = pipe();
            let again = Child::with_pid(pid, || {
                set_name(c"new");
                close_and_tell(first.raw(), tell.as_raw_fd());
            });
            let Some(new) = again else {
                continue;
            };
            hear(&heard);
            assert_eq!(scans.pids(inodes.0), [own()], "not the new one");
            let holders = scans.holders(inodes.1);
            assert_eq!(holders.oldest[1].pid, new.pid());
            assert_eq!(holders.oldest[1].comm.bytes(), b"new");
            return;
        }
        panic!("no pid could be used again");
    });
}

#[test]
fn those_of_another_uid_unprivileged() {
    netns::run("processes::those_of_another_uid_unprivileged", || {
        if !netns::is_root() {
            return netns::skip("changing the uid needs root");
        }
        let socket = Sock::udp(Domain::V4);
        let inode = inode(&socket.raw());
        let child = Child::forked(|| ());
        drop(socket);
        let mut answers = [None, None];
        for (answer, uid) in answers.iter_mut().zip([0, NOBODY]) {
            // On a thread of its own: credentials are a thread's
            // (setresuid(2) by number, past libc's broadcast).
            *answer = std::thread::scope(|scope| {
                let ask = || {
                    // SAFETY: takes numbers.
                    let set = unsafe { libc::syscall(libc::SYS_setresuid, -1, NOBODY, -1) };
                    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
                    let mut scanner = Scanner::new(Path::new("/proc"), false, Passwd::default());
                    let want = Want {
                        inode,
                        uid: Some(uid),
                        since: 1,
                    };
                    let mut turns = 1..200;
                    turns.find_map(|turn| {
                        let report = scanner.scan(&[want], turn, Duration::from_secs(1));
                        report.answers.first().map(|(_, answer)| answer.clone())
                    })
                };
                scope.spawn(ask).join().expect("it does not panic")
            });
        }
        let unknown = |why| Some(Attribution::Unknown(why));
        assert_eq!(
            answers,
            [
                unknown(ProcessUnknown::NotPermitted),
                // Nobody of that user is there to hold it.
                unknown(ProcessUnknown::Gone)
            ]
        );
        assert_eq!(Scans::new().pids(inode), [child.pid()], "root may");
    });
}

#[test]
fn another_uid_as_root() {
    netns::run("processes::another_uid_as_root", || {
        if !netns::is_root() {
            return netns::skip("changing the uid needs root");
        }
        let socket = Sock::udp(Domain::V4);
        let inode = inode(&socket.raw());
        let (heard, tell) = pipe();
        let child = Child::forked(|| {
            // SAFETY: takes a number. Makes the process one that cannot be
            // dumped, so that most of its /proc is root's.
            unsafe { libc::syscall(libc::SYS_setresuid, 1, 1, 1) };
            close_and_tell(-1, tell.as_raw_fd());
        });
        hear(&heard);
        drop(socket);
        let holders = Scans::new().holders(inode);
        let process = &holders.oldest[0];
        assert_eq!(process.pid, child.pid());
        assert_eq!((process.uid, process.user.as_deref()), (1, Some("daemon")));
    });
}

#[test]
fn asked_by_the_reactor() {
    netns::run("processes::asked_by_the_reactor", || {
        let (tx, woken) = mpsc::channel();
        // A test that is done looks no longer.
        let wake = Arc::new(move || tx.send(()).unwrap_or(()));
        let mut processes = Processes::new(false, wake, Rc::default());
        let sockets: Vec<Sock> = (0..500).map(|_| Sock::udp(Domain::V4)).collect();
        let until = Instant::now() + PATIENCE;
        for socket in &sockets {
            let lookup = processes.ask(inode(&socket.raw()), None, until);
            assert_eq!(lookup, Lookup::Pending);
        }
        let mut found = Vec::new();
        while processes.is_busy() {
            processes.search(Now::read());
            woken.recv_timeout(PATIENCE).expect("answers in time");
            processes.collect(Now::read(), &mut found);
        }
        assert_eq!(found.len(), sockets.len());
        for (inode, answer) in found {
            match answer {
                Attribution::Held(holders) => assert_eq!(holders.oldest[0].pid, own()),
                Attribution::Unknown(why) => panic!("{inode}: {why:?}"),
            }
        }
    });
}
