//! A connect() that the kernel saw, and how names were resolved to its address.

use std::fmt;

use super::{CgroupUnknown, Cookie, Endpoint, Evidence, Family, Netns, Owner, SocketKey, TcpState};

/// What told of a connect(), best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Origin {
    /// A BPF LSM program on `security_socket_connect`.
    Lsm,
    /// An fentry program on the same function.
    Fentry,
    /// Programs on `cgroup/connect4` and `cgroup/connect6` at the root of cgroup
    /// v2.
    Cgroup,
    /// The socket table: no hook saw it.
    SockDiag,
}

impl Origin {
    /// All, in the order in which they are tried.
    pub const ALL: [Origin; 4] = [
        Origin::Lsm,
        Origin::Fentry,
        Origin::Cgroup,
        Origin::SockDiag,
    ];

    /// The word in `origin` and in `args.hook`.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Lsm => "lsm",
            Origin::Fentry => "fentry",
            Origin::Cgroup => "cgroup",
            Origin::SockDiag => "sock_diag",
        }
    }
}

/// A task's name as the kernel keeps it (`task_struct.comm`, TASK_COMM_LEN in
/// linux/sched.h): whatever the task chose, up to a NUL.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Comm(pub [u8; 16]);

impl Comm {
    /// Its bytes before the first NUL.
    pub fn bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|byte| *byte == 0);
        &self.0[..end.unwrap_or(self.0.len())]
    }
}

impl fmt::Display for Comm {
    /// As text; what is no UTF-8 shows as U+FFFD. Not escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.bytes()))
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// The task that called connect().
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Caller {
    /// The process (tgid) in the initial pid namespace.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The thread's name.
    pub comm: Comm,
}

/// One connect() on a TCP socket, as a hook saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connect {
    /// What saw it.
    pub origin: Origin,
    /// The socket's cookie, unique in the machine. Of an MPTCP socket `lsm` and
    /// `fentry` tell its own (SO_COOKIE), `cgroup` that of its first subflow,
    /// which is the one that a TCP dump shows.
    pub cookie: Cookie,
    /// The namespace the socket lives in. `None`: another one than sockwatch's,
    /// and the hook cannot tell which (`cgroup` where the kernel has no BTF).
    pub netns: Option<Netns>,
    /// The destination as the caller gave it; a v4-mapped address is held as
    /// IPv4. An unspecified one stays so here, though the kernel goes on to
    /// connect to loopback.
    pub remote: Endpoint,
    /// The family of the socket itself.
    pub family: Family,
    /// An AF_INET6 socket that connects to an IPv4 address.
    pub v4_mapped: bool,
    /// The socket speaks MPTCP (protocol 262): its subflows are TCP sockets with
    /// cookies of their own.
    pub mptcp: bool,
    /// Who called.
    pub caller: Caller,
    /// The real user id of the caller, in the initial user namespace.
    pub uid: u32,
    /// The id of the caller's cgroup (v2): the inode of its directory.
    pub cgroup_id: u64,
    /// When, in ns of CLOCK_MONOTONIC.
    pub at_ns: u64,
}

impl Connect {
    /// The socket's identity in the table, where its namespace is known.
    pub fn key(&self) -> Option<SocketKey> {
        self.netns.map(|netns| SocketKey {
            netns,
            cookie: self.cookie,
        })
    }
}

/// Which way a TCP connection was opened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// Accepted: its local end was a listener's, and no hook saw a connect().
    Inbound,
    /// A hook saw its connect(), or no listener has its local end.
    Outbound,
    /// Neither can be said.
    Unknown,
}

impl Direction {
    /// The word in `direction`.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
            Direction::Unknown => "unknown",
        }
    }
}

/// How a connect() came to be known, with what only that way tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sighting {
    /// A hook saw the call.
    Hook {
        /// Which.
        origin: Origin,
        /// Who called.
        caller: Caller,
        /// The real user id of the calling thread (bpf_get_current_uid_gid).
        uid: u32,
        /// The id of the caller's cgroup (v2).
        cgroup_id: u64,
    },
    /// The socket table shows what the call made, not the call.
    Table {
        /// A completed dump held the socket, or its notice was the first word of
        /// it.
        evidence: Evidence,
        /// The state it was in.
        state: TcpState,
        /// Whose the socket is.
        owner: Owner,
        /// The id of the socket's cgroup, where a row told it.
        cgroup_id: Option<u64>,
    },
}

/// One connect(), however it came to be known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// The socket's cookie.
    pub cookie: Cookie,
    /// The namespace the socket lives in; `None` where a hook could not tell which
    /// other one it is.
    pub netns: Option<Netns>,
    /// The destination; port 0 where the kernel had wiped it.
    pub remote: Endpoint,
    /// The family of the socket itself.
    pub family: Family,
    /// An AF_INET6 socket that connects to an IPv4 address.
    pub v4_mapped: bool,
    /// The socket is known to speak MPTCP.
    pub mptcp: bool,
    /// How it is known.
    pub sighting: Sighting,
}

impl Attempt {
    /// The family that the tuple shows: IPv4 for a v4-mapped socket.
    pub fn shown_family(&self) -> Family {
        if self.v4_mapped {
            Family::V4
        } else {
            self.family
        }
    }

    /// The kernel had wiped the port of the destination before it told. A hook
    /// sees what was asked for, which may be port 0.
    pub fn is_wiped(&self) -> bool {
        self.remote.port == 0 && matches!(self.sighting, Sighting::Table { .. })
    }

    /// The id of the cgroup of who called, or of the socket where no hook saw the
    /// call; or why there is none.
    ///
    /// # Errors
    /// See [`CgroupUnknown`].
    pub fn cgroup_id(&self) -> Result<u64, CgroupUnknown> {
        match self.sighting {
            Sighting::Hook { cgroup_id, .. } => Ok(cgroup_id),
            Sighting::Table {
                cgroup_id, owner, ..
            } => cgroup_id.ok_or_else(|| owner.into()),
        }
    }

    /// What told of it.
    pub fn origin(&self) -> Origin {
        match self.sighting {
            Sighting::Hook { origin, .. } => origin,
            Sighting::Table { .. } => Origin::SockDiag,
        }
    }

    /// Whose it is: of whoever called, else of the socket.
    pub fn uid(&self) -> Option<u32> {
        match self.sighting {
            Sighting::Hook { uid, .. } => Some(uid),
            Sighting::Table { owner, .. } => match owner {
                Owner::Known { uid, .. } => Some(uid),
                Owner::Unknown(_) => None,
            },
        }
    }
}

impl From<&Connect> for Attempt {
    fn from(connect: &Connect) -> Attempt {
        Attempt {
            cookie: connect.cookie,
            netns: connect.netns,
            remote: connect.remote,
            family: connect.family,
            v4_mapped: connect.v4_mapped,
            mptcp: connect.mptcp,
            sighting: Sighting::Hook {
                origin: connect.origin,
                caller: connect.caller,
                uid: connect.uid,
                cgroup_id: connect.cgroup_id,
            },
        }
    }
}
