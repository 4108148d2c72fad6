//! One process: the sockets it has open, and what is told of it.
//!
//! All of it is read through one descriptor of /proc/PID, so that it is of one
//! process even if the pid is given to another in between (see [`Folder`]).

use std::io;
use std::sync::Arc;

use super::stat;
use crate::enrich::users::Passwd;
use crate::model::Process;
use crate::order::by_number;
use crate::sys::{Folder, Scratch};

/// How much of a command line is shown.
const CMDLINE: usize = 4096;

/// A socket in a process's table of descriptors.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Held {
    /// The socket's inode; sockfs numbers them with 32 bits.
    pub inode: u32,
    /// The descriptor.
    pub fd: u32,
}

/// Why a process could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unread {
    /// It has ended.
    Ended,
    /// It is somebody else's.
    Denied,
}

impl Unread {
    /// What an error of /proc means. Whatever is not a refusal is the end of a
    /// process that was there a moment ago (ENOENT, ESRCH), or, like EMFILE and
    /// ENOMEM, leaves us no wiser than a refusal does.
    pub fn of(error: &io::Error) -> Unread {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH | libc::ENOTDIR) => Unread::Ended,
            Some(libc::EACCES | libc::EPERM) => Unread::Denied,
            _ => {
                log::debug!("processes: {error}");
                Unread::Denied
            }
        }
    }
}

/// A process whose descriptors are being read, a part at a time.
#[derive(Debug)]
pub(super) struct Reading {
    pub pid: u32,
    /// When it was begun: what it finds was there then or later.
    pub turn: u64,
    /// /proc/PID.
    pub home: Folder,
    /// /proc/PID/fd.
    fds: Folder,
    pub found: Vec<Held>,
    /// It has a descriptor of any kind.
    pub any: bool,
}

impl Reading {
    pub fn begin(root: &Folder, pid: u32, turn: u64) -> Result<Reading, Unread> {
        let begin = || {
            let home = root.pin(itoa::Buffer::new().format(pid).as_bytes())?;
            let fds = home.child(b"fd")?;
            Ok(Reading {
                pid,
                turn,
                home,
                fds,
                found: Vec::new(),
                any: false,
            })
        };
        begin().map_err(|error| Unread::of(&error))
    }

    /// Reads some 1,000 descriptors more, which takes 1 or 2 ms; true when that
    /// was all.
    pub fn step(&mut self, scratch: &mut Scratch) -> Result<bool, Unread> {
        let Some(items) = self.fds.next(scratch).map_err(|error| Unread::of(&error))? else {
            by_number(&mut self.found, |held| {
                u64::from(held.inode) << 32 | u64::from(held.fd)
            });
            self.found.dedup_by_key(|held| held.inode);
            return Ok(true);
        };
        for item in items {
            self.any = true;
            match socket(&self.fds, item.name) {
                Ok(Some(held)) => self.found.push(held),
                // Closed meanwhile, or no socket.
                Ok(None) | Err(Unread::Ended) => {}
                Err(Unread::Denied) => return Err(Unread::Denied),
            }
        }
        Ok(false)
    }
}

/// The socket behind an entry of /proc/PID/fd.
fn socket(fds: &Folder, name: &[u8]) -> Result<Option<Held>, Unread> {
    let mut room = [0; 32];
    let target = fds
        .link(name, &mut room)
        .map_err(|error| Unread::of(&error))?;
    Ok(inode(target)
        .zip(number(name))
        .map(|(inode, fd)| Held { inode, fd }))
}

/// Whether the process still has this socket at this descriptor.
pub(super) fn holds(home: &Folder, held: Held) -> Result<bool, Unread> {
    // Room for ten digits.
    let mut name = *b"fd/..........";
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(held.fd).as_bytes();
    let end = 3 + digits.len();
    name[3..end].copy_from_slice(digits);
    let mut room = [0; 32];
    match home.link(&name[..end], &mut room) {
        Ok(target) => Ok(inode(target) == Some(held.inode)),
        Err(error) => match Unread::of(&error) {
            Unread::Ended => Ok(false),
            Unread::Denied => Err(Unread::Denied),
        },
    }
}

/// `socket:[4711]` is 4711.
fn inode(target: &[u8]) -> Option<u32> {
    number(target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?)
}

/// Decimal digits alone, as the kernel writes them.
pub(super) fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A process and its parent's pid.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub process: Arc<Process>,
    pub parent: u32,
}

/// Reads what is told of a process. A program that is replaced (execve) in the
/// middle of it can show the name of one and the path of the other.
pub(super) fn name(
    home: &Folder,
    pid: u32,
    cmdline: bool,
    users: &mut Passwd,
    scratch: &mut Scratch,
) -> Result<Named, Unread> {
    let ended = |error: io::Error| Unread::of(&error);
    // /proc/PID itself belongs to the effective user whatever else in it is
    // root's (task_dump_owner), and to root once the process is gone: that it
    // was not is shown by `stat`, which is read after it.
    let (_, uid) = home.identity().map_err(ended)?;
    let stat = stat::parse(home.text(b"stat", scratch).map_err(ended)?).ok_or(Unread::Ended)?;
    let mut room = [0; CMDLINE];
    let exe = home.link(b"exe", &mut room).ok().map(text);
    let cmdline = cmdline.then(|| arguments(home, scratch)).flatten();
    Ok(Named {
        process: Arc::new(Process {
            pid,
            started: stat.started,
            comm: stat.comm,
            exe,
            uid,
            user: users.name(uid),
            cmdline,
        }),
        parent: stat.parent,
    })
}

/// The command line: its arguments end in NULs, which are shown as spaces.
/// Empty for a process that has wiped its own, `None` where it may not be read.
fn arguments(home: &Folder, scratch: &mut Scratch) -> Option<Box<str>> {
    let bytes = home.text(b"cmdline", scratch).ok()?;
    let bytes = bytes.get(..CMDLINE).unwrap_or(bytes);
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    let mut shown = bytes.get(..end)?.to_vec();
    for byte in &mut shown {
        if *byte == 0 {
            *byte = b' ';
        }
    }
    Some(text(&shown))
}

fn text(bytes: &[u8]) -> Box<str> {
    String::from_utf8_lossy(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_have_an_inode() {
        assert_eq!(inode(b"socket:[4294967295]"), Some(u32::MAX));
        for other in [
            &b"socket:[4294967296]"[..],
            b"socket:[]",
            b"socket:[+1]",
            b"socket:[1] (deleted)",
            b"/tmp/socket:[1]",
            b"pipe:[1]",
            b"anon_inode:[eventpoll]",
            b"",
        ] {
            assert_eq!(inode(other), None, "{}", other.escape_ascii());
        }
    }
}
