//! The socket's file, and who may use it.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::client::{Client, Place};
use crate::daemon::{Daemon, Tick};
use crate::netns::{self, check};

fn mode(path: &Path) -> u32 {
    let file = std::fs::metadata(path).expect("the socket is there");
    assert!(file.file_type().is_socket());
    file.permissions().mode() & 0o7777
}

/// What a daemon says that does not start.
fn refusal(place: &Place) -> String {
    let (status, record) = place.launch(Tick::Slow).spawn().end();
    assert_eq!(status.code(), Some(1), "{}", record.log);
    record.log
}

#[test]
fn is_there_while_the_daemon_is() {
    netns::run("control::place::is_there_while_the_daemon_is", || {
        let place = Place::new();
        let daemon = place.launch(Tick::Slow).start();
        assert_eq!(mode(&place.socket), 0o660);
        let log = refusal(&place);
        assert!(log.contains(place.text()), "{log}");
        assert!(log.contains("another sockwatch"), "{log}");
        Client::new(&place.socket).ask(r#"{"request":"ping"}"#);
        daemon.stop();
        let dir = place.socket.parent().expect("it is in a directory");
        let left = std::fs::read_dir(dir).expect("a directory of ours").count();
        assert_eq!(left, 0, "nothing is left behind");
    });
}

#[test]
fn of_a_dead_daemon_is_replaced() {
    netns::run("control::place::of_a_dead_daemon_is_replaced", || {
        let place = Place::new();
        let daemon = place.launch(Tick::Slow).start();
        daemon.signal(libc::SIGKILL);
        drop(daemon);
        assert!(UnixStream::connect(&place.socket).is_err());
        assert!(place.socket.exists());
        // Of several that start at once one gets it.
        let daemons: Vec<Daemon> = (0..4).map(|_| place.launch(Tick::Slow).spawn()).collect();
        let mut running = Vec::new();
        for daemon in daemons {
            let line = daemon.wait_for_line("a decision", |line| {
                line.contains("ready") || line.contains("another sockwatch")
            });
            if line.contains("ready") {
                running.push(daemon);
            }
        }
        assert_eq!(running.len(), 1);
        Client::new(&place.socket).ask(r#"{"request":"ping"}"#);
        running.pop().expect("one").stop();
    });
}

#[test]
fn of_somebody_else_is_left_alone() {
    netns::run("control::place::of_somebody_else_is_left_alone", || {
        let place = Place::new();
        let live = UnixListener::bind(&place.socket).expect("a socket of ours");
        let log = refusal(&place);
        assert!(log.contains("another program answers"), "{log}");
        drop(live);
        std::fs::remove_file(&place.socket).expect("a file of ours");
        std::fs::write(&place.socket, "precious").expect("a file of ours");
        let log = refusal(&place);
        assert!(log.contains("is no socket"), "{log}");
        let text = std::fs::read_to_string(&place.socket).expect("it is still there");
        assert_eq!(text, "precious");
    });
}

/// Does something as another user: credentials are a thread's (setresuid(2) as
/// the kernel has it; only the C library makes all threads change).
fn as_user<T: Send>(uid: u32, gid: u32, act: impl FnOnce() -> T + Send) -> T {
    let other = move || {
        // SAFETY: these take numbers; setgroups(2) with none takes no pointer.
        // They change this thread alone, which ends with `act`.
        unsafe {
            check(libc::syscall(libc::SYS_setgroups, 0, 0) as libc::c_int).expect("root may");
            check(libc::syscall(libc::SYS_setresgid, gid, gid, gid) as libc::c_int)
                .expect("root may");
            check(libc::syscall(libc::SYS_setresuid, uid, uid, uid) as libc::c_int)
                .expect("root may");
        }
        act()
    };
    std::thread::scope(|scope| scope.spawn(other).join().expect("it does not panic"))
}

const NOBODY: u32 = 65_534;

fn connected(path: PathBuf) -> impl FnOnce() -> std::io::Result<UnixStream> + Send {
    move || UnixStream::connect(path)
}

#[test]
fn is_not_for_everybody() {
    netns::run("control::place::is_not_for_everybody", || {
        if !netns::is_root() {
            return netns::skip("only root can be another user");
        }
        let place = Place::new();
        let daemon = place.launch(Tick::Slow).start();
        let socket = || place.socket.clone();
        let refused = as_user(NOBODY, NOBODY, connected(socket()));
        let error = refused.expect_err("mode 0660 is not for others");
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        // Even where the file is opened wide, the kernel says who it is.
        let wide = std::fs::Permissions::from_mode(0o666);
        std::fs::set_permissions(&place.socket, wide).expect("a file of ours");
        let stream = as_user(NOBODY, NOBODY, connected(socket())).expect("the file lets them in");
        let mut refused = Client::over(stream);
        let reply = refused.next();
        assert_eq!(reply["ok"], false);
        assert!(
            reply["error"]
                .as_str()
                .is_some_and(|error| error.contains("65534")),
            "{reply}"
        );
        assert_eq!(refused.line(), None, "and hangs up");
        daemon.wait_for_line("the refusal", |line| line.contains("refused uid 65534"));
        let (_, stats) = Client::new(&place.socket).ask(r#"{"request":"stats"}"#);
        assert_eq!(stats["counters"]["control_refused"], 1);
        daemon.stop();
    });
}

#[test]
fn is_for_those_who_are_named() {
    netns::run("control::place::is_for_those_who_are_named", || {
        if !netns::is_root() {
            return netns::skip("only root can be another user");
        }
        for (key, uid, gid) in [("control-uids", 1234, NOBODY), ("control-gids", 4321, 1234)] {
            let place = Place::new();
            let daemon = place.launch(Tick::Slow).setting(key, "[1234]").start();
            assert_eq!(mode(&place.socket), 0o660);
            let stream = as_user(uid, gid, connected(place.socket.clone()));
            let stream = stream.unwrap_or_else(|error| panic!("{key}: {error}"));
            Client::over(stream).ask(r#"{"request":"ping"}"#);
            let other = as_user(NOBODY, NOBODY, connected(place.socket.clone()));
            assert!(other.is_err(), "{key} is for nobody else");
            daemon.stop();
        }
    });
}
