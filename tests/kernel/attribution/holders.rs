//! Events of sockets that processes share, inherit and leave behind.

use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{pids, said};
use crate::control::client::Client;
use crate::daemon::{Daemon, Launch, Tick};
use crate::netns::{self, check};
use crate::processes::{Child, Spawned, close_and_tell, hear, pipe};
use crate::sock::{Domain, Sock};
use crate::tcp_connect::hooked;

/// A sensor that waits for as long as it takes.
const PATIENT: &str = "  s: {listener: net.socket, args: {process-timeout: 60s}}\n";

fn start() -> Daemon {
    Launch::new(Tick::Fast).sensors(PATIENT).start()
}

fn own() -> u64 {
    u64::from(std::process::id())
}

/// Ends the sockets; what was said of the one with this cookie.
fn story(daemon: Daemon, cookie: u64, end: impl FnOnce()) -> [Value; 2] {
    daemon.reported("s", "opened", cookie);
    end();
    daemon.reported("s", "closed", cookie);
    let record = daemon.stop();
    ["opened", "closed"].map(|action| said(&record, "s", action, cookie).clone())
}

/// A server and its workers, the oldest first; its close tells the same.
#[test]
fn a_shared_listener() {
    netns::run("attribution::holders::a_shared_listener", || {
        let daemon = start();
        // All of them have it when the daemon first sees it.
        let (listener, workers) = daemon.paused(|| {
            let listener = Sock::listener(Domain::V6);
            let workers = [(); 3].map(|()| Child::forked(|| ()));
            (listener, workers)
        });
        let cookie = listener.cookie;
        let mut expected: Vec<u64> = workers.iter().map(|it| it.pid().into()).collect();
        expected.sort_unstable();
        let told = story(daemon, cookie, || drop((listener, workers)));
        for data in told {
            let mut told = pids(&data);
            assert_eq!(told.remove(0), own(), "{data}");
            assert_eq!(data["process"]["pid"], own(), "{data}");
            // Those that began in one tick of the clock stand in any order.
            told.sort_unstable();
            assert_eq!(told, expected, "{data}");
        }
    });
}

/// The parent has ended when the socket is seen first, and the close names the
/// child, which has ended by then too.
#[test]
fn a_fork_that_keeps_a_socket() {
    netns::run("attribution::holders::a_fork_that_keeps_a_socket", || {
        let daemon = start();
        let (heard, tell) = pipe();
        let (parent, child, cookie) = daemon.paused(|| {
            let socket = Sock::udp(Domain::V4);
            socket.bind_loopback();
            let parent = Child::forked(|| {
                // SAFETY: the children make system calls alone; the pid lives
                // across the call that reads it.
                unsafe {
                    let pid = libc::fork();
                    if pid == 0 {
                        loop {
                            libc::pause();
                        }
                    }
                    libc::write(tell.as_raw_fd(), (&raw const pid).cast(), 4);
                    libc::_exit(0);
                }
            });
            let mut pid = [0; 4];
            let read = std::fs::File::from(heard).read_exact(&mut pid);
            read.expect("the pid comes");
            (parent, libc::pid_t::from_ne_bytes(pid), socket.cookie)
        });
        drop(parent);
        let end = || {
            // SAFETY: the child that nobody else ends.
            check(unsafe { libc::kill(child, libc::SIGKILL) }).expect("it is there");
        };
        for data in story(daemon, cookie, end) {
            assert_eq!(pids(&data), [u64::from(child.unsigned_abs())], "{data}");
            assert_eq!(data.get("processes"), None, "{data}");
        }
    });
}

/// As a service gets its socket from the one that started it.
#[test]
fn an_inherited_descriptor() {
    netns::run("attribution::holders::an_inherited_descriptor", || {
        let daemon = start();
        let (child, cookie) = daemon.paused(|| {
            let listener = Sock::listener(Domain::V4);
            let cookie = listener.cookie;
            (sleep(listener, None), cookie)
        });
        let pid = child.0.id();
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).expect("one's own child");
        for data in story(daemon, cookie, || drop(child)) {
            assert_eq!(pids(&data), [u64::from(pid)], "{data}");
            assert_eq!(data["process"]["comm"], "sleep", "{data}");
            assert_eq!(data["process"]["exe"], exe.to_str().expect("UTF-8"));
        }
    });
}

/// sleep(1) with a socket for its standard input, as a user.
fn sleep(socket: Sock, uid: Option<u32>) -> Spawned {
    // SAFETY: the socket is open while this borrows its descriptor.
    let fd = unsafe { BorrowedFd::borrow_raw(socket.raw()) };
    let input = fd.try_clone_to_owned().expect("dup");
    let mut command = Command::new("sleep");
    command.arg("1000").stdin(input).stdout(Stdio::null());
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    let child = Spawned(command.stderr(Stdio::null()).spawn().expect("sleep(1)"));
    // spawn() returns in the middle of execve(2).
    let comm = format!("/proc/{}/comm", child.0.id());
    while std::fs::read_to_string(&comm).expect("one's own child") != "sleep\n" {
        std::thread::yield_now();
    }
    child
}

/// The socket's user is told beside the process's.
#[test]
fn a_different_uid() {
    netns::run("attribution::holders::a_different_uid", || {
        if !netns::is_root() {
            return netns::skip("changing the uid needs root");
        }
        let daemon = start();
        let (child, cookie) = daemon.paused(|| {
            let listener = Sock::listener(Domain::V4);
            let cookie = listener.cookie;
            // SAFETY: takes numbers. The owner of a socket's inode is its uid.
            check(unsafe { libc::fchown(listener.raw(), 2, u32::MAX) }).expect("root may");
            (sleep(listener, Some(1)), cookie)
        });
        let names = [2, 1].map(|uid| json!(super::user(uid)));
        for data in story(daemon, cookie, || drop(child)) {
            assert_eq!((&data["uid"], &data["user"]), (&json!(2), &names[0]));
            let process = &data["process"];
            assert_eq!((&process["uid"], &process["user"]), (&json!(1), &names[1]));
        }
    });
}

/// Without a privilege those of one's own user are known, and what is not is said
/// once, in a record and to whoever asks.
#[test]
fn unprivileged() {
    const NOBODY: u32 = 65_534;
    netns::run("attribution::holders::unprivileged", || {
        if !netns::is_root() {
            return netns::skip("only root can start it as somebody else");
        }
        let place = crate::daemon::Scratch::new();
        std::os::unix::fs::chown(place.path(), Some(NOBODY), None).expect("root may");
        let socket = place.path().join("control");
        let daemon = Launch::new(Tick::Fast)
            .sensors(PATIENT)
            .setting("control", socket.to_str().expect("a path of ours"))
            .without_privilege()
            .start();
        let (mine, child, theirs) = daemon.paused(|| {
            let (mine, theirs) = (Sock::listener(Domain::V4), Sock::listener(Domain::V4));
            let cookie = theirs.cookie;
            // SAFETY: takes numbers.
            check(unsafe { libc::fchown(theirs.raw(), NOBODY, u32::MAX) }).expect("root may");
            (mine, sleep(theirs, Some(NOBODY)), cookie)
        });
        let cookie = mine.cookie;
        for cookie in [cookie, theirs] {
            daemon.reported("s", "opened", cookie);
        }
        let (_, stats) = Client::new(&socket).ask(r#"{"request":"stats"}"#);
        let missing = stats["missing"].as_array().expect("a list");
        let told = missing.iter().find(|one| one["source"] == "processes");
        assert_eq!(told.expect("told")["missing"], json!(["other users"]));
        let pid = u64::from(child.0.id());
        drop((mine, child));
        daemon.reported("s", "closed", cookie);
        let record = daemon.stop();
        for action in ["opened", "closed"] {
            let data = said(&record, "s", action, cookie);
            assert_eq!(data["process"], Value::Null, "{data}");
            assert_eq!(data["process_reason"], "not_permitted", "{data}");
            assert_eq!(data["user"], "root", "{data}");
        }
        let data = said(&record, "s", "opened", theirs);
        assert_eq!(pids(data), [pid], "{data}");
    });
}

/// Who called connect() is known though it has ended, and stands before those that
/// have the socket open.
#[test]
fn the_hook_knows_more_than_proc() {
    netns::run(
        "attribution::holders::the_hook_knows_more_than_proc",
        || {
            let sensors = format!("  calls: {{listener: net.tcp_connect}}\n{PATIENT}");
            let Some(daemon) = hooked(Tick::Fast, &sensors) else {
                return;
            };
            let listener = Sock::listener(Domain::V4);
            let (to, client) = (listener.local(), Sock::tcp(Domain::V4));
            let (heard, tell) = pipe();
            let (caller, server) = daemon.paused(|| {
                let caller = Child::forked(|| {
                    client.connect(to).expect("somebody listens");
                    close_and_tell(client.raw(), tell.as_raw_fd());
                });
                hear(&heard);
                let pid = u64::from(caller.pid());
                drop(caller);
                (pid, listener.accept())
            });
            let cookie = client.cookie;
            for data in story(daemon, cookie, || drop((client, server, listener))) {
                let process = &data["process"];
                assert_eq!(process["pid"], caller, "{data}");
                assert_eq!(process["tid"], caller, "{data}");
                assert_eq!(process["exe_reason"], "gone", "{data}");
                assert_eq!(pids(&data), [own()], "{data}");
                assert_eq!(data["direction"], "outbound", "{data}");
            }
        },
    );
}
