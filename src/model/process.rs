//! Who has a socket open: processes, their users, their cgroup.

use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use super::{Caller, Comm, Owner, OwnerUnknown, SocketKey};

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
    /// The cgroup that it belongs to: its own, as a row told; the caller's where
    /// no row did.
    pub cgroup: Option<Rc<Cgroup>>,
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

/// A cgroup that sockets belong to, shared by all of them: what one of them made
/// known of it is known to all, for as long as they live, also when the cgroup
/// does not. One is equal to another by its id alone.
#[derive(Debug)]
pub struct Cgroup {
    id: u64,
    told: RefCell<Option<CgroupAnswer>>,
}

/// What was found out about a cgroup.
pub type CgroupAnswer = Result<Arc<CgroupInfo>, CgroupUnknown>;

impl Cgroup {
    /// One of which nothing but the id is known: that of its kernfs node, which is
    /// the inode of its directory in cgroup2.
    pub fn new(id: u64) -> Cgroup {
        Cgroup {
            id,
            told: RefCell::new(None),
        }
    }

    /// Its id, which no other cgroup is given while the machine is up.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What its path says, if that was found.
    pub fn info(&self) -> Option<Arc<CgroupInfo>> {
        self.told.borrow().as_ref()?.as_ref().ok().cloned()
    }

    /// Notes what was found out. What is known once stays.
    pub fn learn(&self, answer: CgroupAnswer) {
        let mut told = self.told.borrow_mut();
        if !matches!(*told, Some(Ok(_))) {
            *told = Some(answer);
        }
    }

    /// It as an event shows it, with what is known by now.
    pub fn placed(&self) -> Placed {
        let told = self.told.borrow().clone();
        Placed {
            id: Some(self.id),
            cgroup: told.unwrap_or(Err(CgroupUnknown::Timeout)),
        }
    }
}

impl PartialEq for Cgroup {
    fn eq(&self, other: &Cgroup) -> bool {
        self.id == other.id
    }
}

impl Eq for Cgroup {}

impl Hash for Cgroup {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// Where a socket belongs, as a record tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placed {
    /// The id of its cgroup, where the kernel told it.
    pub id: Option<u64>,
    /// What is known of that.
    pub cgroup: CgroupAnswer,
}

impl Placed {
    /// Without an id there is nothing to be looked for.
    pub fn nowhere(why: CgroupUnknown) -> Placed {
        Placed {
            id: None,
            cgroup: Err(why),
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

impl From<Owner> for CgroupUnknown {
    /// Why there is no id, where whose the socket is says so.
    fn from(owner: Owner) -> CgroupUnknown {
        match owner {
            Owner::Unknown(OwnerUnknown::NotRead) => CgroupUnknown::NotRead,
            Owner::Unknown(OwnerUnknown::Minisocket) => CgroupUnknown::Minisocket,
            Owner::Unknown(OwnerUnknown::NoFile) | Owner::Known { .. } => CgroupUnknown::NotTold,
        }
    }
}

/// Why there is no path for a cgroup's id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CgroupUnknown {
    /// The kernel told no id: it is built without cgroups.
    NotTold,
    /// No row told the id, and no hook saw who connected the socket.
    NotRead,
    /// It is the remains of a socket, or a request for one, of which the kernel
    /// tells none.
    Minisocket,
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
            CgroupUnknown::NotRead => "not_read",
            CgroupUnknown::Minisocket => "minisocket",
            CgroupUnknown::NotMounted => "not_mounted",
            CgroupUnknown::Gone => "gone",
            CgroupUnknown::NotPermitted => "not_permitted",
            CgroupUnknown::Timeout => "timeout",
        }
    }
}
