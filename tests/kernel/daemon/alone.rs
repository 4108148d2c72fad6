//! A daemon that sees no process but its own: one that watches every network
//! namespace finds those of the test, and not what else the machine has. Others
//! may have a hundred thousand sockets there, which are told of like any, and
//! whose dumps use up the budget for all.
//!
//! It is the first process of a PID namespace, with a /proc of that. Names of
//! network namespaces are still found where they are mounted, so it is to be
//! started in a [`crate::netns::Sandbox`] with mounts.

use std::ffi::CStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc::{self, Sender};
use std::thread;

use crate::netns::check;

/// Who has started it. The daemon ends with this.
pub struct Parent {
    _thread: Sender<()>,
}

/// Starts the command.
pub fn spawn(mut command: Command) -> io::Result<(Child, Parent)> {
    // What is mounted in the sandbox later is to be seen there too.
    mount(c"none", c"/", None, libc::MS_REC | libc::MS_SHARED)?;
    // SAFETY: system calls on constants.
    unsafe {
        command.pre_exec(|| {
            check(libc::unshare(libc::CLONE_NEWNS))?;
            // But not the other way round.
            mount(c"none", c"/", None, libc::MS_REC | libc::MS_SLAVE)?;
            mount(c"proc", c"/proc", Some(c"proc"), 0)
        });
    }
    let (tell, told) = mpsc::channel();
    let (parent, ended) = mpsc::channel();
    thread::spawn(move || {
        // Its children are of the new namespace, and it can start no thread any
        // more, as one that is none of the test's need not.
        // SAFETY: unshare(2) takes no pointers.
        let alone = check(unsafe { libc::unshare(libc::CLONE_NEWPID) });
        let child = alone.and_then(|_| command.spawn());
        tell.send(child).expect("waited for");
        // What it has started is killed when it ends (`die_with_parent`).
        ended.recv().expect_err("nothing is ever sent");
    });
    let child = told.recv().expect("it answers")?;
    Ok((child, Parent { _thread: parent }))
}

fn mount(
    source: &CStr,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
) -> io::Result<()> {
    // SAFETY: the strings are NUL-terminated and live across the call; these kinds
    // take no data.
    check(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.map_or(std::ptr::null(), CStr::as_ptr),
            flags,
            std::ptr::null(),
        )
    })?;
    Ok(())
}
