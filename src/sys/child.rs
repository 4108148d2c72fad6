//! Child processes: started without a shell, in a process group of their own,
//! signalled as a group, and reaped without waiting.
//!
//! Promises: a child has an empty signal mask and none of our descriptors but its
//! three streams (all of ours are close-on-exec); a signal reaches its group and
//! nobody else, because a group is only signalled while the id of its leader is
//! still taken; once [`Child::ended`] has answered, or the `Child` is dropped,
//! nothing in the group is left running.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command, ExitStatus, Stdio};

use mio::unix::pipe::{self, Receiver, Sender};

/// How a child's group is asked to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// SIGTERM.
    Term,
    /// SIGKILL.
    Kill,
}

/// A child with its streams.
#[derive(Debug)]
pub struct Spawned {
    /// The process.
    pub child: Child,
    /// What it reads on standard input; writes never wait.
    pub input: Sender,
    /// What it writes on standard output and standard error, as one stream; reads
    /// never wait.
    pub output: Receiver,
}

/// A child process, the leader of its group.
#[derive(Debug)]
pub struct Child {
    child: process::Child,
    /// Its exit status has been taken: its id may be somebody else's by now.
    reaped: bool,
}

impl Spawned {
    /// Starts a program. `vars` are set in its environment, or taken out of what
    /// it inherits where there is no value.
    ///
    /// This waits until the kernel has loaded the program (posix_spawn(3), which
    /// shares our memory until then, so that its cost does not grow with it).
    ///
    /// # Errors
    /// Those of execve(2), clone(2) and pipe(2); InvalidInput for a NUL.
    pub fn start<'v>(
        program: &Path,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        vars: impl IntoIterator<Item = (&'v str, Option<&'v str>)>,
    ) -> io::Result<Spawned> {
        let (writer, output) = pipe::new()?;
        // The flag belongs to the description, which is the child's.
        writer.set_nonblocking(false)?;
        let writer = OwnedFd::from(writer);
        let mut command = Command::new(program);
        command
            .args(args)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(writer.try_clone()?)
            .stderr(writer);
        for (name, value) in vars {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let mut child = Child {
            child: command.spawn()?,
            reaped: false,
        };
        let Some(input) = child.child.stdin.take() else {
            return Err(io::Error::other("no pipe for standard input"));
        };
        let input = Sender::from(input);
        input.set_nonblocking(true)?;
        Ok(Spawned {
            child,
            input,
            output,
        })
    }
}

/// Keeps from children what the program inherited itself: marks every descriptor
/// behind the three streams as close-on-exec (close_range(2), Linux 5.11).
///
/// # Errors
/// ENOSYS or EINVAL where the kernel is older.
pub fn keep_descriptors() -> io::Result<()> {
    // SAFETY: three numbers; no descriptor is closed by this flag.
    let failed = unsafe {
        let flags = libc::CLOSE_RANGE_CLOEXEC;
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, flags)
    };
    if failed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

impl Child {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Signals everything in its group.
    pub fn end(&self, how: Ending) {
        if self.reaped {
            return;
        }
        let signal = match how {
            Ending::Term => libc::SIGTERM,
            Ending::Kill => libc::SIGKILL,
        };
        // SAFETY: two numbers. The leader has not been reaped, so that its id,
        // which is the group's, cannot be another's.
        if unsafe { libc::kill(-(self.child.id() as libc::pid_t), signal) } == -1 {
            let error = io::Error::last_os_error();
            // ESRCH: its last member has ended by itself (a zombie is a member).
            if error.raw_os_error() != Some(libc::ESRCH) {
                log::warn!("process group {} cannot be signalled: {error}", self.id());
            }
        }
    }

    /// Whether it has ended, and how; never waits. What it left behind in its
    /// group is killed. Not to be asked again once it has answered.
    ///
    /// # Errors
    /// Those of waitid(2) and wait4(2): ECHILD where somebody else reaped it.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if !self.reaped && !self.is_zombie()? {
            return Ok(None);
        }
        // While the zombie keeps the id of the group for us.
        self.end(Ending::Kill);
        let status = self.child.try_wait()?;
        self.reaped |= status.is_some();
        Ok(status)
    }

    /// Whether it has ended and not been reaped.
    fn is_zombie(&self) -> io::Result<bool> {
        ended(libc::P_PID, self.child.id(), libc::WNOWAIT).map(|pid| pid.is_some())
    }
}

/// Reaps children that have ended and are not `ours`: nobody waits for them. What
/// a program leaves behind becomes a child of this one where this one is the init
/// of its pid namespace (a container) or a subreaper, and a shell can have had
/// children before it became this program (exec).
///
/// # Errors
/// Those of waitid(2).
pub fn reap_strangers(ours: impl Fn(u32) -> bool) -> io::Result<()> {
    let gone = |error: &io::Error| error.raw_os_error() == Some(libc::ECHILD);
    loop {
        match ended(libc::P_ALL, 0, libc::WNOWAIT) {
            // One of ours has just ended: SIGCHLD tells, and brings us back.
            Ok(Some(pid)) if ours(pid) => return Ok(()),
            Ok(Some(pid)) => {
                ended(libc::P_PID, pid, 0)?;
            }
            Ok(None) => return Ok(()),
            Err(error) if gone(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// A child among these that has ended; never waits.
fn ended(which: libc::idtype_t, id: u32, flags: libc::c_int) -> io::Result<Option<u32>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    loop {
        // SAFETY: `info` is writable, and zeros are a valid siginfo_t.
        let failed = unsafe {
            let flags = flags | libc::WEXITED | libc::WNOHANG;
            libc::waitid(which, id, info.as_mut_ptr(), flags)
        };
        if failed == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: zeros, or what waitid(2) filled in; without a child in that state it
    // leaves the pid zero.
    let pid = unsafe { info.assume_init().si_pid() };
    Ok(u32::try_from(pid).ok().filter(|pid| *pid != 0))
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.end(Ending::Kill);
        // A moment later it is a zombie, which ends with us at the latest.
        if let Err(error) = self.child.try_wait() {
            log::debug!("child {} cannot be reaped: {error}", self.id());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::time::{Duration, Instant};

    fn sh(script: &str) -> Spawned {
        let vars = [("SOCKWATCH_X", Some("1")), ("HOME", None)];
        Spawned::start(Path::new("/bin/sh"), ["-c", script], vars).unwrap()
    }

    fn wait(child: &mut Child) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = child.ended().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn all(mut output: Receiver) -> String {
        output.set_nonblocking(false).unwrap();
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_child_has_its_environment_and_one_stream_for_both_outputs() {
        let mut one = sh("echo $SOCKWATCH_X-$HOME-; echo err >&2; exit 3");
        drop(one.input);
        assert_eq!(wait(&mut one.child).code(), Some(3));
        assert_eq!(all(one.output), "1--\nerr\n");
    }

    #[test]
    fn the_whole_group_is_signalled() {
        let mut one = sh("trap '' TERM; sh -c 'sleep 60; echo no' & echo up; wait; echo no");
        let mut up = [0; 3];
        one.output.set_nonblocking(false).unwrap();
        one.output.read_exact(&mut up).unwrap();
        one.child.end(Ending::Term);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(one.child.ended().unwrap(), None, "it ignores SIGTERM");
        one.child.end(Ending::Kill);
        assert!(!wait(&mut one.child).success());
        // The end of the stream: nobody holds it any more.
        assert_eq!(all(one.output), "");
    }

    #[test]
    fn what_a_child_leaves_behind_is_killed() {
        let mut one = sh("sleep 60 & exit 0");
        assert!(wait(&mut one.child).success());
        assert_eq!(all(one.output), "");
        let one = sh("sleep 60 & sleep 60");
        drop(one.child);
        assert_eq!(all(one.output), "");
    }

    #[test]
    fn what_nobody_waits_for_is_reaped() {
        let stranger = Command::new("/bin/true").spawn().unwrap().id();
        let deadline = Instant::now() + Duration::from_secs(20);
        // A child of another test may stand before it.
        while std::fs::exists(format!("/proc/{stranger}")).unwrap() {
            reap_strangers(|pid| pid != stranger).unwrap();
            assert!(Instant::now() < deadline, "a zombie stays");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn a_program_that_is_none_says_so() {
        let args: [&str; 0] = [];
        let none = |path: &str| Spawned::start(Path::new(path), args, []).unwrap_err();
        assert_eq!(none("/nonexistent").kind(), ErrorKind::NotFound);
        assert_eq!(none("/etc/passwd").kind(), ErrorKind::PermissionDenied);
    }
}
