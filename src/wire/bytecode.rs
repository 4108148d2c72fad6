//! Conditions on a socket's ends that the kernel weighs itself, before it writes a
//! row: the byte code of INET_DIAG_REQ_BYTECODE (`struct inet_diag_bc_op`,
//! linux/inet_diag.h).
//!
//! Each operation says how far to go on in bytes if it holds (`yes`) and if it
//! does not (`no`). A socket passes when the walk ends exactly behind the last
//! operation, and is refused when it ends 4 bytes further. The kernel takes
//! nothing that jumps anywhere but to an operation on the way of the `yes` jumps;
//! here these always lead to the next operation.
//!
//! Ports are weighed by the same operation as addresses, which every kernel has;
//! those for a port alone came with Linux 5.6.

use std::net::IpAddr;

use crate::model::{End, Sought};

/// The attribute of a request.
pub const REQ_BYTECODE: u16 = 1;

const JMP: u8 = 1;
const S_COND: u8 = 7;
const D_COND: u8 = 8;

/// `struct inet_diag_bc_op`: code, yes, no.
const OP: usize = 4;
/// `struct inet_diag_hostcond` without its address: family, prefix length, two
/// bytes of padding, port.
const HOST: usize = 8;
/// Where an operation that does not lead anywhere else refuses the socket: so much
/// behind the end.
const REFUSE: usize = 4;

/// More rules than that are not worth the kernel's time for each socket.
const MOST: usize = 64;

/// What the kernel is asked to leave out of a dump.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    /// What it runs for each socket.
    pub code: Box<[u8]>,
}

impl Condition {
    /// How to ask for the sockets of `sought` and few others; None where all must
    /// be asked for.
    pub fn of(sought: &Sought) -> Option<Condition> {
        assemble(sought).map(|code| Condition { code })
    }
}

/// The code for the ends of `sought`. None where there is nothing to leave out, or
/// where it takes too many operations; then all are asked for.
fn assemble(sought: &Sought) -> Option<Box<[u8]>> {
    let (rules, otherwise) = sought.rules();
    if sought.has_any_ends() || rules.len() > MOST {
        return None;
    }
    let mut code = Code::default();
    for (ends, accepted) in rules {
        let sides = [(S_COND, ends.local), (D_COND, ends.remote)];
        let weighed: Vec<_> = sides.into_iter().filter(|(_, end)| !end.is_any()).collect();
        let length: usize = weighed.iter().map(|(_, end)| length(end)).sum();
        let next = code.bytes.len() + length + OP;
        for (op, end) in weighed {
            code.condition(op, &end, next);
        }
        code.verdict(accepted);
    }
    code.verdict(otherwise);
    Some(code.finish())
}

/// How long the operation for an end is.
fn length(end: &End) -> usize {
    let address = match end.ip {
        None => 0,
        Some(IpAddr::V4(_)) => 4,
        Some(IpAddr::V6(_)) => 16,
    };
    OP + HOST + address
}

/// Code in the making.
#[derive(Default)]
struct Code {
    bytes: Vec<u8>,
    /// The jumps to the end: where each stands, and whether it accepts.
    verdicts: Vec<(usize, bool)>,
}

impl Code {
    fn op(&mut self, code: u8, yes: usize, no: usize) {
        // 64 rules of two ends are at most 64 * (2 * 28 + 4) bytes.
        let (yes, no) = (yes as u8, no as u16);
        self.bytes.extend_from_slice(&[code, yes]);
        self.bytes.extend_from_slice(&no.to_ne_bytes());
    }

    /// Goes to `next` unless the end is this one.
    fn condition(&mut self, code: u8, end: &End, next: usize) {
        let length = length(end);
        self.op(code, length, next - self.bytes.len());
        let address;
        let (family, octets): (i32, &[u8]) = match end.ip {
            None => (libc::AF_UNSPEC, &[]),
            Some(IpAddr::V4(ip)) => {
                address = ip.to_ipv6_mapped().octets();
                (libc::AF_INET, &address[12..])
            }
            Some(IpAddr::V6(ip)) => {
                address = ip.octets();
                (libc::AF_INET6, &address)
            }
        };
        let port = end.port.map_or(-1, i32::from);
        self.bytes
            .extend_from_slice(&[family as u8, octets.len() as u8 * 8, 0, 0]);
        self.bytes.extend_from_slice(&port.to_ne_bytes());
        self.bytes.extend_from_slice(octets);
    }

    fn verdict(&mut self, accepted: bool) {
        self.verdicts.push((self.bytes.len(), accepted));
        self.op(JMP, OP, 0);
    }

    fn finish(mut self) -> Box<[u8]> {
        let end = self.bytes.len();
        for (at, accepted) in self.verdicts {
            let to = if accepted { end } else { end + REFUSE };
            let no = (to - at) as u16;
            self.bytes[at + 2..at + 4].copy_from_slice(&no.to_ne_bytes());
        }
        self.bytes.into()
    }
}

#[cfg(test)]
mod tests;
