//! Who calls: threads, users, cgroups, namespaces.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread;

use super::watch::{Call, run};
use crate::netns::{self, check};
use crate::sock::{Domain, Sock};

/// What the calling thread is to the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    pub pid: u32,
    pub tid: i32,
    pub comm: String,
    /// Its real user.
    pub uid: u32,
    /// The inode of its cgroup.
    pub cgroup: u64,
    /// The path of its cgroup.
    pub place: String,
    /// The inode of its network namespace.
    pub netns: u64,
}

impl Caller {
    /// Of the calling thread.
    pub fn current() -> Caller {
        // SAFETY: these take nothing and cannot fail. getuid(2) asks for the
        // thread's: the C library keeps them in step, [`another_user`] does not.
        let (tid, uid) = unsafe { (libc::gettid(), libc::getuid()) };
        let comm = fs::read_to_string("/proc/thread-self/comm").expect("/proc is mounted");
        Caller {
            pid: std::process::id(),
            tid,
            comm: comm.trim_end().to_string(),
            uid,
            cgroup: inode(&cgroup()),
            place: place(),
            netns: inode(&PathBuf::from("/proc/thread-self/ns/net")),
        }
    }
}

fn inode(path: &PathBuf) -> u64 {
    fs::metadata(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .ino()
}

/// Where cgroup v2 is mounted (proc(5), mountinfo).
fn cgroups() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let line = mounts
        .lines()
        .find(|line| line.contains(" - cgroup2 "))
        .expect("cgroup v2 is mounted");
    line.split(' ').nth(4).expect("a mount point").into()
}

/// The directory of the calling process (cgroups(7), the line of hierarchy 0).
fn cgroup() -> PathBuf {
    let place = place();
    cgroups().join(place.trim_start_matches('/'))
}

/// The path of that.
fn place() -> String {
    let text = fs::read_to_string("/proc/self/cgroup").expect("/proc is mounted");
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    path.expect("a line of cgroup v2").to_owned()
}

/// A connect by the calling thread.
fn call(domain: Domain) -> Call {
    let listener = Sock::listener(domain);
    let client = Sock::tcp(domain);
    let call = Call::of(&client, listener.local());
    client.connect(listener.local()).expect("a listener on lo");
    drop(listener.accept());
    call
}

/// Runs `body` in a thread of this name.
fn in_thread<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> T {
    thread::Builder::new()
        .name(name.to_string())
        .spawn(body)
        .expect("a thread")
        .join()
        .expect("it did not panic")
}

/// A thread is told by its own id and its own name.
#[test]
fn threads() {
    run("connect::callers::threads", |watch| {
        for name in [
            "dialler",
            "fifteen-letters",
            "two words",
            "\u{fc}ml\u{e4}ut \\ \" |",
        ] {
            for domain in Domain::ALL {
                let (caller, call) = in_thread(name, move || (Caller::current(), call(domain)));
                assert_ne!(caller.pid.cast_signed(), caller.tid, "no main thread");
                assert_eq!(caller.comm, name);
                watch.expect_call(call);
            }
        }
    });
}

/// Many at a time: each is told with its own caller.
#[test]
fn threads_at_once() {
    run("connect::callers::threads_at_once", |watch| {
        let callers: Vec<_> = (0..8)
            .map(|number| {
                thread::Builder::new()
                    .name(format!("caller-{number}"))
                    .spawn(|| (0..20).map(|_| call(Domain::V4)).collect::<Vec<_>>())
                    .expect("a thread")
            })
            .collect();
        for caller in callers {
            for call in caller.join().expect("it did not panic") {
                watch.expect_call(call);
            }
        }
    });
}

/// The user is the real one of the calling thread.
#[test]
fn another_user() {
    run("connect::callers::another_user", |watch| {
        let (real, effective) = (4711, 4712);
        let (caller, call) = in_thread("user", move || {
            // SAFETY: setresuid(2) takes numbers. The system call, unlike the
            // function, is about the calling thread alone.
            check(unsafe { libc::syscall(libc::SYS_setresuid, real, effective, 0) } as libc::c_int)
                .expect("root may become anybody");
            (Caller::current(), call(Domain::V4))
        });
        assert_eq!(caller.uid, 4711);
        watch.expect_call(call);
    });
}

#[test]
fn another_cgroup() {
    run("connect::callers::another_cgroup", |watch| {
        let home = cgroup();
        let place = cgroups().join(format!("sockwatch-test-{}", std::process::id()));
        let join = |place: &PathBuf| -> io::Result<()> {
            fs::write(place.join("cgroup.procs"), std::process::id().to_string())
        };
        fs::create_dir(&place).expect("root may make a cgroup");
        join(&place).expect("root may go where it likes");
        let caller = Caller::current();
        assert_eq!(caller.cgroup, inode(&place));
        watch.expect_call(call(Domain::V6));
        // Its path can be told only while it is there.
        watch.daemon.wait_for("the connect", |event| {
            event["data"]["cgroup_id"] == caller.cgroup
        });
        join(&home).expect("and back");
        fs::remove_dir(&place).expect("nobody is left in it");
    });
}

/// A connect in another network namespace than the daemon's, whose sockets are
/// in nobody's dump.
#[test]
fn another_namespace() {
    run("connect::callers::another_namespace", |watch| {
        let home = netns::inode();
        let calls = in_thread("elsewhere", || {
            netns::enter_another().expect("root may make a namespace");
            Domain::ALL.map(call)
        });
        for call in calls {
            assert_ne!(call.netns(), home);
            watch.expect_call(call);
        }
        // And there is still a caller at home.
        watch.expect_call(call(Domain::V4));
    });
}
