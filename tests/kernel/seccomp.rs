//! A kernel that refuses something, as a locked-down or stripped one does: a
//! seccomp filter that answers one system call with an error.

use std::io;

use crate::netns::check;

/// What is refused.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    call: libc::c_long,
    /// Argument numbers and what they must be for the call to be refused.
    args: &'static [(u32, u32)],
    errno: libc::c_int,
}

impl Refusal {
    /// No netlink socket may join a multicast group.
    pub const GROUPS: Refusal = Refusal {
        call: libc::SYS_setsockopt,
        args: &[
            (1, libc::SOL_NETLINK as u32),
            (2, libc::NETLINK_ADD_MEMBERSHIP as u32),
        ],
        errno: libc::EPERM,
    };

    /// No socket may ask for a receive buffer as anybody may; what needs a
    /// privilege is another option.
    pub const BUFFERS: Refusal = Refusal {
        call: libc::SYS_setsockopt,
        args: &[(1, libc::SOL_SOCKET as u32), (2, libc::SO_RCVBUF as u32)],
        errno: libc::EPERM,
    };

    /// There is no IPv6.
    pub const IPV6: Refusal = Refusal {
        call: libc::SYS_socket,
        args: &[(0, libc::AF_INET6 as u32)],
        errno: libc::EAFNOSUPPORT,
    };

    /// There is no netlink.
    pub const NETLINK: Refusal = Refusal {
        call: libc::SYS_socket,
        args: &[(0, libc::AF_NETLINK as u32)],
        errno: libc::EACCES,
    };

    /// No v2 request gets through: neither an exact query nor a UDP dump (both
    /// have 72 bytes). The legacy dump of TCP, with 76, does.
    pub const V2_REQUESTS: Refusal = Refusal {
        call: libc::SYS_sendto,
        args: &[(2, 72)],
        errno: libc::EPERM,
    };

    /// There is no legacy request for both TCP families at once (76 bytes).
    pub const LEGACY_REQUEST: Refusal = Refusal {
        call: libc::SYS_sendto,
        args: &[(2, 76)],
        errno: libc::EOPNOTSUPP,
    };

    /// There is no BPF.
    pub const BPF: Refusal = Refusal {
        call: libc::SYS_bpf,
        args: &[],
        errno: libc::EPERM,
    };

    /// The filter that does it.
    pub fn filter(self) -> Filter {
        // `struct seccomp_data`: the call's number, the architecture, the
        // instruction pointer, six arguments of 64 bits. All that is compared
        // here are ints, which stand in the low half.
        let low_half = if cfg!(target_endian = "little") { 0 } else { 4 };
        let checks: Vec<(u32, u32)> = std::iter::once((0, self.call as u32))
            .chain(
                self.args
                    .iter()
                    .map(|(number, value)| (16 + 8 * number + low_half, *value)),
            )
            .collect();
        let mut program = Vec::new();
        for (at, (offset, value)) in checks.iter().enumerate() {
            // Two instructions a check; past them all stands the refusal, and
            // one further on the permission.
            let to_permission = 2 * (checks.len() - at - 1) + 1;
            program.push(instruction(
                libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
                0,
                *offset,
            ));
            program.push(instruction(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                u8::try_from(to_permission).expect("a short program"),
                *value,
            ));
        }
        let refuse = libc::SECCOMP_RET_ERRNO | self.errno as u32;
        program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, refuse));
        program.push(instruction(
            libc::BPF_RET | libc::BPF_K,
            0,
            libc::SECCOMP_RET_ALLOW,
        ));
        Filter(program)
    }
}

/// `when_not` is how many instructions a comparison skips that does not hold.
fn instruction(code: u32, when_not: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: when_not,
        k,
    }
}

/// A program ready to be installed.
pub struct Filter(Vec<libc::sock_filter>);

impl Filter {
    /// Installs it for the calling process, for good. Allocates nothing.
    pub fn install(&self) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: self.0.len() as libc::c_ushort,
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: prctl(2) reads the program, which lives across the call and is
        // as long as it says; unprivileged, it first wants no_new_privs.
        unsafe {
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            check(libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ))?;
        }
        Ok(())
    }
}
