//! sockwatch in a pid namespace, where it goes by another number than in the hook.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use sockwatch::model::Origin;

use crate::child;
use crate::netns::check;

/// Set in the process inside: the hook.
const HOOK: &str = "SOCKWATCH_TEST_ALONE";
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs the calling test in a pid namespace of its own; it must call [`perform`].
pub fn check_in_pid_namespace(name: &str, hook: Origin) {
    let exe = std::env::current_exe().expect("the test binary has a path");
    let mut command = Command::new(exe);
    command
        .args(["--exact", name, "--nocapture"])
        .env(HOOK, hook.as_str());
    // SAFETY: `enter` makes system calls alone, on no memory but its own.
    unsafe { command.pre_exec(enter) };
    let output = child::run(&mut command, DEADLINE)
        .expect("this binary can be run")
        .expect("it ends in time");
    let text = child::text(&output);
    assert!(output.status.success(), "inside it failed:\n{text}");
    assert!(text.contains("1 passed"), "nothing was tested:\n{text}");
}

/// A pid namespace is entered by one's children: the one that goes on to exec is
/// a child, and its parent stays to pass on how it ended.
fn enter() -> io::Result<()> {
    // SAFETY: none of these takes a pointer but waitpid(2), to a number that lives
    // across the call. After fork(2) the child only goes on to exec.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWPID))?;
        let child = check(libc::fork())?;
        if child != 0 {
            let mut status = 0;
            check(libc::waitpid(child, &raw mut status, 0))?;
            libc::_exit(i32::from(status != 0));
        }
    }
    crate::netns::die_with_parent()
}

/// Inside: connects, and must not see it.
pub fn perform() -> bool {
    let Ok(word) = std::env::var(HOOK) else {
        return false;
    };
    assert_eq!(std::process::id(), 1, "the first of its namespace");
    let hook = Origin::ALL.into_iter().find(|hook| hook.as_str() == word);
    let mut connects = super::open(hook.expect("a hook's word")).expect("as outside");
    for _ in 0..10 {
        let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        TcpStream::connect(nobody).expect_err("nobody listens there");
    }
    let here = u32::try_from(crate::netns::inode()).expect("32 bits");
    // The namespace is the test's own, so whoever connects in it is this process.
    let mine = super::drain(&mut connects);
    let mine = mine
        .iter()
        .filter(|connect| connect.netns.is_some_and(|netns| netns.0 == here));
    assert_eq!(mine.count(), 0);
    true
}
