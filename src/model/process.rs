//! Who has a socket open: processes, their users, their cgroup.

use std::sync::Arc;

use super::{Caller, Comm, OwnerUnknown, SocketKey};

/// One process, as /proc showed it at one moment.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Process {
    /// Its number in the pid namespace of the /proc that sockwatch sees.
    pub pid: u32,
    /// When it was started, in clock ticks since boot (field 22 of
    /// /proc/PID/stat, proc_pid_stat(5)). With the pid its identity for as long
    /// as the machine is up.
    pub started: u64,
    /// The name of its main thread.
    pub comm: Comm,
    /// The program it runs (/proc/PID/exe), as the kernel writes it: ` (deleted)`
    /// behind a file that is gone. Bytes that are no text are replaced; not
    /// escaped. `None` where that is not permitted.
    pub exe: Option<Box<str>>,
    /// Its effective user id.
    pub uid: u32,
    /// The name of that user, where /etc/passwd has one.
    pub user: Option<Arc<str>>,
    /// Its arguments, joined by spaces and cut; only where asked for. Not
    /// escaped, and may hold secrets.
    pub cmdline: Option<Box<str>>,
}

/// The processes that have one socket open.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Holders {
    /// The oldest of them, oldest first; never empty.
    pub oldest: Vec<Arc<Process>>,
    /// How many more there are.
    pub others: u32,
}

impl Holders {
    /// How many are told by name.
    pub const MOST: usize = 32;
}

/// What is known of who has a socket open. Cheap to clone: the sockets of one
/// process share one list.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Attribution {
    /// These have it open.
    Held(Arc<Holders>),
    /// Nobody can be named.
    Unknown(ProcessUnknown),
}

/// What is known of who has a socket, in every way.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Who {
    /// Who called connect(), where a hook saw it.
    pub caller: Option<Caller>,
    /// Who had it open when it entered a view, where that was asked.
    pub holders: Option<Attribution>,
}

/// Who has a socket open, for whoever keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attributed {
    /// The socket, in full.
    pub key: SocketKey,
    /// The answer.
    pub holders: Attribution,
}

/// Why no process is named.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ProcessUnknown {
    /// There are processes whose descriptors sockwatch may not read, and none of
    /// the others has the socket open.
    NotPermitted,
    /// Every process was read, and none has the socket open any more.
    Gone,
    /// The socket belongs to no process: it waits to be accepted, is an orphan,
    /// or is the kernel's own.
    Kernel,
    /// Not found within `process-timeout`.
    Timeout,
    /// The socket was never read, so that its inode is not known, or nobody asked
    /// who has it before it ended.
    NotRead,
    /// It is the remains of a socket, or a request for one, which no process has.
    Minisocket,
}

impl From<OwnerUnknown> for ProcessUnknown {
    /// Without an inode nobody can be looked for.
    fn from(why: OwnerUnknown) -> ProcessUnknown {
        match why {
            OwnerUnknown::NotRead => ProcessUnknown::NotRead,
            OwnerUnknown::Minisocket => ProcessUnknown::Minisocket,
            OwnerUnknown::NoFile => ProcessUnknown::Kernel,
        }
    }
}

impl ProcessUnknown {
    /// The word in `process_reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            ProcessUnknown::NotPermitted => "not_permitted",
            ProcessUnknown::Gone => "gone",
            ProcessUnknown::Kernel => "kernel",
            ProcessUnknown::Timeout => "timeout",
            ProcessUnknown::NotRead => "not_read",
            ProcessUnknown::Minisocket => "minisocket",
        }
    }
}

/// What the path of a cgroup tells. Not escaped.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct CgroupInfo {
    /// Its place below the root of the hierarchy that sockwatch sees, such as
    /// `/system.slice/ssh.service`.
    pub path: Box<str>,
    /// The systemd unit: the last service, scope, socket, mount or swap unit in
    /// the path, else the last slice.
    pub unit: Option<Box<str>>,
    /// The container's id, 64 hexadecimal digits.
    pub container: Option<Box<str>>,
}

/// Why there is no path for a cgroup's id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CgroupUnknown {
    /// The kernel told no id: it is built without cgroups, or the row is of a
    /// minisocket.
    NotTold,
    /// cgroup2 is not mounted where sockwatch can see it.
    NotMounted,
    /// It is not below the mounted part of the hierarchy, or it was removed.
    Gone,
    /// A part of the tree that had to be searched may not be read.
    NotPermitted,
    /// Not found in time, or not before the search had looked at as much as it
    /// may.
    Timeout,
}

impl CgroupUnknown {
    /// The word in `cgroup_reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            CgroupUnknown::NotTold => "not_told",
            CgroupUnknown::NotMounted => "not_mounted",
            CgroupUnknown::Gone => "gone",
            CgroupUnknown::NotPermitted => "not_permitted",
            CgroupUnknown::Timeout => "timeout",
        }
    }
}
