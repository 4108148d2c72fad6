//! Network namespaces that a test makes beside its own.
//!
//! One is kept alive as users keep them: by a name under /run/netns, or by a
//! process in it. Its sockets are the test's own, made by a thread that goes
//! there.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sockwatch::sys::Netlink;
use sockwatch::wire::nsid::{self, Said};

use crate::netns::{check, die_with_parent, loopback_up};

/// Where names are.
const NAMES: &str = "/run/netns";

/// In a sandbox with mounts: an empty /run/netns of the test's own.
pub fn names() {
    let mount = |source: &CStr, target: &str, kind: Option<&CStr>, flags| {
        let target = CString::new(target).expect("no NUL in it");
        // SAFETY: all strings are NUL-terminated and live across the call.
        check(unsafe {
            libc::mount(
                source.as_ptr(),
                target.as_ptr(),
                kind.map_or(std::ptr::null(), CStr::as_ptr),
                flags,
                std::ptr::null(),
            )
        })
        .expect("a mount in a mount namespace of one's own");
    };
    mount(c"tmpfs", "/run", Some(c"tmpfs"), 0);
    std::fs::create_dir(NAMES).expect("an empty /run");
}

/// A network namespace.
pub struct World {
    /// Its inode.
    pub inode: u64,
    name: Option<PathBuf>,
    process: Option<Child>,
}

impl World {
    /// One with a name, as ip-netns(8) makes it.
    pub fn named(name: &str) -> World {
        let path = Path::new(NAMES).join(name);
        File::create(&path).expect("a name that is free");
        let target = CString::new(path.to_str().expect("a path of ours")).expect("no NUL in it");
        std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                // SAFETY: unshare(2) takes no pointers.
                check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).expect("a namespace");
                loopback_up().expect("lo");
                bind(c"/proc/thread-self/ns/net", &target);
            });
            made.join().expect("made");
        });
        World {
            inode: inode(&path),
            name: Some(path),
            process: None,
        }
    }

    /// One that a process is in, and nothing else tells of.
    pub fn of_process() -> World {
        let mut command = Command::new("sleep");
        command.arg("1000").stdin(Stdio::null());
        // SAFETY: two system calls, and an ioctl on a socket made for it.
        unsafe {
            command.pre_exec(|| {
                check(libc::unshare(libc::CLONE_NEWNET))?;
                loopback_up()?;
                die_with_parent()
            });
        }
        let process = command.spawn().expect("sleep(1)");
        World {
            inode: inode(Path::new(&format!("/proc/{}/ns/net", process.id()))),
            name: None,
            process: Some(process),
        }
    }

    /// The name, as events show it.
    pub fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|path| path.to_str().expect("text"))
    }

    /// Gives a name to one that a process is in.
    pub fn attach(&mut self, name: &str) {
        let path = Path::new(NAMES).join(name);
        File::create(&path).expect("a name that is free");
        let target = CString::new(path.to_str().expect("a path of ours")).expect("no NUL in it");
        let pid = self.pid().expect("a process");
        let source = CString::new(format!("/proc/{pid}/ns/net")).expect("no NUL in it");
        bind(&source, &target);
        self.name = Some(path);
    }

    /// The process that is in it.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    fn open(&self) -> File {
        let path = match (&self.name, self.pid()) {
            (Some(path), _) => path.clone(),
            (None, Some(pid)) => format!("/proc/{pid}/ns/net").into(),
            (None, None) => unreachable!("one or the other keeps it"),
        };
        File::open(path).expect("it is there")
    }

    /// Does something in it, on a thread that ends then.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let file = self.open();
        std::thread::scope(|scope| {
            let there = scope.spawn(move || {
                // SAFETY: setns(2) takes no pointers, and the descriptor is open.
                check(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) })
                    .expect("one's own namespace can be entered");
                drop(file);
                act()
            });
            there.join().expect("done")
        })
    }

    /// The id by which the test's own namespace knows it, if it has one.
    pub fn id(&self) -> Option<i32> {
        let (netlink, file) = (Netlink::open_route().expect("rtnetlink"), self.open());
        netlink
            .send(&nsid::get(file.as_raw_fd(), 1))
            .expect("a request");
        let mut buffer = [0; 4096];
        let length = netlink.recv(&mut buffer).expect("an answer at once");
        match nsid::read(&buffer[..length]).next() {
            Some((_, Said::Has(id))) => Some(id),
            Some((_, Said::HasNone)) => None,
            other => panic!("a question for an id was answered with {other:?}"),
        }
    }

    /// Takes away what keeps it.
    pub fn end(self) {
        drop(self);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            drop(process.kill());
            drop(process.wait());
        }
        if let Some(path) = &self.name {
            let target = CString::new(path.to_str().expect("text")).expect("no NUL in it");
            // SAFETY: the string is NUL-terminated and lives across the call.
            drop(check(unsafe {
                libc::umount2(target.as_ptr(), libc::MNT_DETACH)
            }));
            drop(std::fs::remove_file(path));
        }
    }
}

/// Mounts the nsfs file of a namespace on a file: from then on that keeps it.
fn bind(source: &CStr, target: &CStr) {
    // SAFETY: both strings are NUL-terminated and live across the call.
    check(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            std::ptr::null(),
            libc::MS_BIND,
            std::ptr::null(),
        )
    })
    .expect("a namespace can be mounted");
}

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).expect("a namespace").ino()
}
