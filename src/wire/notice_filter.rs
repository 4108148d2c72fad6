//! Which notices a socket takes: the program that the kernel asks about each,
//! before it charges the receive buffer for it.
//!
//! It may take a notice that nobody wants, and never refuses one that somebody
//! could: what it does not understand it takes. UDP's notices are all taken.
//!
//! A notice is a `struct nlmsghdr` (16 bytes), a `struct inet_diag_msg` (72), and
//! attributes, of which INET_DIAG_PROTOCOL is the first (inet_diag_handler_get_info(),
//! net/ipv4/inet_diag.c). Ports and addresses are in network byte order, as a
//! program loads them; everything else is in the machine's.

use std::net::IpAddr;

use crate::model::{Cookie, End, Ends, Sought};
use crate::order::by_number;
use crate::sys::classic::*;

const FAMILY_AT: u32 = 16;
const PORTS_AT: [u32; 2] = [20, 22];
const ADDRESSES_AT: [u32; 2] = [24, 40];
/// The low word; cookies with the same one are not told apart.
const COOKIE_AT: u32 = 60;
const ATTRIBUTE_AT: u32 = 88;
const PROTOCOL_AT: u32 = 92;
/// The least that a notice has.
const LEAST: u32 = 96;

/// `struct nlattr` before the protocol: length, type INET_DIAG_PROTOCOL.
const PROTOCOL_ATTRIBUTE: [u16; 2] = [5, 10];

/// More cookies than these are not told apart: then everything is taken.
pub const MOST_COOKIES: usize = 256;

/// More rules than that are not worth the time of whoever closes a socket.
const MOST_RULES: usize = 64;

/// Cookies that are compared one by one, after one comparison for all of them.
const BLOCK: usize = 16;

/// Spreads cookies over shares whatever their pattern: a server's connections
/// can be every second cookie (Knuth's multiplicative hashing).
const SPREAD: u32 = 2_654_435_769;

/// A socket's part of the cookies, where several share them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Which part.
    pub number: u32,
    /// Of 2^`bits`, at least 2.
    pub bits: u32,
}

impl Share {
    /// The number of the share that a cookie falls to.
    pub fn of(cookie: Cookie, bits: u32) -> u32 {
        loaded(cookie).wrapping_mul(SPREAD) >> (32 - bits)
    }

    /// Takes what falls to this share.
    pub fn program(self) -> Vec<Instruction> {
        let mut program = self.begin();
        program.push(op(RET, KEEP));
        program
    }

    /// Refuses the others', and goes on behind that with what falls to this share.
    fn begin(self) -> Vec<Instruction> {
        vec![
            op(LD_W, COOKIE_AT),
            op(MUL, SPREAD),
            op(SHR, 32 - self.bits),
            jump(EQ, self.number, 1, 0),
            op(RET, REFUSE),
        ]
    }
}

/// The low word of a cookie as a program loads it.
fn loaded(cookie: Cookie) -> u32 {
    u32::from_be_bytes((cookie.0 as u32).to_ne_bytes())
}

/// The notices that are taken, whatever the share: those of TCP sockets that are
/// sought, of those without a port, of those with one of a few cookies, and all
/// of UDP.
#[derive(Clone, Debug)]
pub struct Wanted(Vec<Instruction>);

impl Wanted {
    /// Those of `sought`, and of the cookies. None where all are taken.
    pub fn new(sought: &Sought, cookies: impl Iterator<Item = Cookie>) -> Option<Wanted> {
        if !is_told(sought) {
            return None;
        }
        let mut words: Vec<u32> = cookies.take(MOST_COOKIES + 1).map(loaded).collect();
        if words.len() > MOST_COOKIES {
            return None;
        }
        by_number(&mut words, |word| (*word).into());
        let mut program = unless_tcp();
        known(&mut program, &words);
        rules(&mut program, sought);
        Some(Wanted(program))
    }

    /// The program for a socket that takes all of them, or its share.
    pub fn program(&self, share: Option<Share>) -> Vec<Instruction> {
        let mut program = share.map(Share::begin).unwrap_or_default();
        program.extend(&self.0);
        program
    }
}

/// Whether a program can tell what is sought from the rest.
pub fn is_told(sought: &Sought) -> bool {
    let (rules, _) = sought.rules();
    // An address that is any has several spellings.
    let any = |end: &End| end.ip.is_some_and(|ip| ip.is_unspecified());
    let told = |(ends, _): &(Ends, bool)| !any(&ends.local) && !any(&ends.remote);
    !sought.has_any_ends() && rules.len() <= MOST_RULES && rules.iter().all(told)
}

/// Takes what is not TCP, and what has no port: it was wiped, it listened, or it is
/// a probe.
fn unless_tcp() -> Vec<Instruction> {
    let [length, kind] = PROTOCOL_ATTRIBUTE.map(|half| u16::from_be_bytes(half.to_ne_bytes()));
    let mut program = vec![
        op(LD_LEN, 0),
        jump(GE, LEAST, 0, 10),
        op(LD_H, ATTRIBUTE_AT),
        jump(EQ, length.into(), 0, 8),
        op(LD_H, ATTRIBUTE_AT + 2),
        jump(EQ, kind.into(), 0, 6),
        op(LD_B, PROTOCOL_AT),
        jump(EQ, libc::IPPROTO_TCP as u32, 0, 4),
    ];
    let [local, remote] = PORTS_AT;
    program.extend([
        op(LD_H, local),
        jump(EQ, 0, 2, 0),
        op(LD_H, remote),
        jump(EQ, 0, 0, 1),
        op(RET, KEEP),
    ]);
    program
}

/// Takes those with one of these words for a cookie, which are in order.
fn known(program: &mut Vec<Instruction>, words: &[u32]) {
    if !words.is_empty() {
        program.push(op(LD_W, COOKIE_AT));
    }
    for block in words.chunks(BLOCK) {
        // At most 16, so that every way fits a byte.
        let length = block.len() as u8;
        if let Some(last) = block.last() {
            program.push(jump(GT, *last, length + 1, 0));
        }
        for (at, word) in (1..).zip(block) {
            // The last one goes over the answer where it is another one.
            program.push(jump(EQ, *word, length - at, u8::from(at == length)));
        }
        program.push(op(RET, KEEP));
    }
}

/// Answers by the ends.
fn rules(program: &mut Vec<Instruction>, sought: &Sought) {
    let (rules, otherwise) = sought.rules();
    let has_ip = |end: &End| end.ip.is_some();
    if rules
        .iter()
        .any(|(ends, _)| has_ip(&ends.local) || has_ip(&ends.remote))
    {
        program.extend(spell_addresses());
    }
    let answer = |accepted| op(RET, if accepted { KEEP } else { REFUSE });
    for (ends, accepted) in rules {
        // What is loaded, and what it must be.
        let mut tests: Vec<(Instruction, u32)> = Vec::new();
        for (side, end) in [ends.local, ends.remote].into_iter().enumerate() {
            if let Some(port) = end.port {
                tests.push((op(LD_H, PORTS_AT[side]), port.into()));
            }
            if let Some(ip) = end.ip {
                let last = 4 * side as u32 + 3;
                // The last word says most.
                let each = words(ip).into_iter().rev();
                tests.extend(
                    (0..)
                        .zip(each)
                        .map(|(at, word)| (op(LD_M, last - at), word)),
                );
            }
        }
        let mut left = 2 * tests.len() as u8;
        for (load, value) in tests {
            left -= 2;
            program.push(load);
            // Over the tests that are left, and the answer.
            program.push(jump(EQ, value, 0, left + 1));
        }
        program.push(answer(accepted));
    }
    program.push(answer(otherwise));
}

/// An address as IPv6, a v4-mapped one as such.
fn words(ip: IpAddr) -> [u32; 4] {
    let octets = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    [0, 4, 8, 12]
        .map(|at| u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]))
}

/// Writes both addresses to the scratch words as IPv6, those of an AF_INET socket
/// as v4-mapped ones: patterns do not tell these apart. Takes what is of neither
/// family.
fn spell_addresses() -> Vec<Instruction> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (first, at) in [0, 4].into_iter().zip(ADDRESSES_AT) {
        for (word, value) in (first..).zip([0, 0, 0xffff]) {
            v4.extend([op(LD_IMM, value), op(ST, word)]);
        }
        v4.extend([op(LD_W, at), op(ST, first + 3)]);
        for word in 0..4 {
            v6.extend([op(LD_W, at + 4 * word), op(ST, first + word)]);
        }
    }
    v4.push(op(GO, v6.len() as u32));
    let mut program = vec![
        op(LD_B, FAMILY_AT),
        jump(EQ, libc::AF_INET as u32, 2, 0),
        // 17 instructions for the other family.
        jump(EQ, libc::AF_INET6 as u32, v4.len() as u8 + 1, 0),
        op(RET, KEEP),
    ];
    program.extend(v4);
    program.extend(v6);
    program
}

#[cfg(test)]
mod tests;
