//! Classic BPF: the programs that a socket runs on every message before it is
//! queued or charged (Documentation/networking/filter.rst). They need no
//! privilege.
//!
//! A program has at most 4096 instructions, each of which jumps forward only, and
//! answers how many bytes of the message are kept. A load beyond the message's end
//! answers 0. Words and halfwords are loaded in network byte order.

use std::io;
use std::os::fd::AsRawFd;

/// One instruction.
pub type Instruction = libc::sock_filter;

/// What `ret` returns to keep a message: all of its bytes.
pub const KEEP: u32 = u32::MAX;
/// What it returns to refuse it.
pub const REFUSE: u32 = 0;

/// A = the byte at `k`.
pub const LD_B: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
/// A = the halfword at `k`.
pub const LD_H: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
/// A = the word at `k`.
pub const LD_W: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
/// A = the byte at X + `k`.
pub const LD_B_X: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_IND;
/// A = the halfword at X + `k`.
pub const LD_H_X: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
/// A = the message's length.
pub const LD_LEN: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_LEN;
/// A = `k`.
pub const LD_IMM: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_IMM;
/// A = the scratch word `k`, of 16.
pub const LD_M: u32 = libc::BPF_LD | libc::BPF_MEM;
/// The scratch word `k` = A.
pub const ST: u32 = libc::BPF_ST;
/// X = `k`.
pub const LDX_IMM: u32 = libc::BPF_LDX | libc::BPF_W | libc::BPF_IMM;
/// X = four times the low nibble of the byte at `k`.
pub const LDX_IHL: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
/// A += `k`.
pub const ADD: u32 = libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K;
/// A += X.
pub const ADD_X: u32 = libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X;
/// A *= `k`.
pub const MUL: u32 = libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K;
/// A <<= `k`.
pub const SHL: u32 = libc::BPF_ALU | libc::BPF_LSH | libc::BPF_K;
/// A >>= `k`.
pub const SHR: u32 = libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K;
/// A &= `k`.
pub const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
/// X = A.
pub const TAX: u32 = libc::BPF_MISC | libc::BPF_TAX;
/// A = X.
pub const TXA: u32 = libc::BPF_MISC | libc::BPF_TXA;
/// Whether A is `k`.
pub const EQ: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
/// Whether A is more than `k`.
pub const GT: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
/// Whether A is at least `k`.
pub const GE: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
/// Whether A has a bit of `k`.
pub const ANY: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
/// Skips `k` instructions.
pub const GO: u32 = libc::BPF_JMP | libc::BPF_JA;
/// The answer is `k`.
pub const RET: u32 = libc::BPF_RET | libc::BPF_K;

/// An instruction that does not jump.
pub fn op(code: u32, k: u32) -> Instruction {
    jump(code, k, 0, 0)
}

/// An instruction that skips `jt` instructions where it is true, else `jf`.
pub fn jump(code: u32, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction {
        // Every code above fits 16 bits.
        code: code as u16,
        jt,
        jf,
        k,
    }
}

/// Attaches a program to a socket, in place of the one it has (socket(7),
/// SO_ATTACH_FILTER).
///
/// # Errors
/// EINVAL for a program that is none, ENOMEM for one beyond net.core.optmem_max;
/// then the one it has stays.
pub fn attach(socket: &impl AsRawFd, program: &[Instruction]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        // The kernel copies the program, and does not write to it.
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `program` and the instructions behind it live across the call, its
    // size is passed with it, and the kernel only reads them.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Takes a socket's program away, if it has one (SO_DETACH_FILTER).
///
/// # Errors
/// Those of setsockopt(2) that do not say that there is none.
pub fn detach(socket: &impl AsRawFd) -> io::Result<()> {
    let unused: libc::c_int = 0;
    // SAFETY: `unused` lives across the call and its size is passed with it; the
    // kernel only reads it.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_FILTER,
            (&raw const unused).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if answer == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOENT) => Ok(()),
        _ => Err(error),
    }
}
