//! The filter: UDP and TCP of port 53, as a classic BPF program
//! (Documentation/networking/filter.rst), which needs no privilege of its own.
//!
//! It runs on every packet of the machine before anything is copied or charged,
//! with the network header at offset 0. Of a fragmented packet the first fragment
//! passes, which has the ports. Behind an IPv6 header as many as
//! [`EXTENSIONS`] extension headers are skipped; a packet with more is not seen.
//! Each packet on a loopback device passes once: its outgoing copy does not.

use crate::sys::classic::*;

/// IPv6 extension headers that are skipped to find the ports. Each takes a part of
/// the program, since loops cannot be written; there are five kinds, and a packet
/// with one of each is rare (RFC 8200 section 4.1).
const EXTENSIONS: usize = 5;

/// The domain port.
const DOMAIN: u32 = 53;

/// What the kernel knows of a packet, as an address for [`LD_B`] and [`LD_H`].
fn ancillary(what: libc::c_int) -> u32 {
    (libc::SKF_AD_OFF + what) as u32
}

/// The program.
pub(super) fn program() -> Vec<Instruction> {
    let mut program = vec![
        // Not the broadcasts and what is for others; of loopback one copy.
        op(LD_B, ancillary(libc::SKF_AD_PKTTYPE)),
        jump(EQ, u32::from(libc::PACKET_HOST), 4, 0),
        jump(EQ, u32::from(libc::PACKET_OUTGOING), 0, 2),
        op(LD_H, ancillary(libc::SKF_AD_HATYPE)),
        jump(EQ, u32::from(libc::ARPHRD_LOOPBACK), 0, 1),
        op(RET, 0),
        op(LD_B, 0),
        op(AND, 0xf0),
    ];
    let v4 = version_4();
    let skipped = u8::try_from(v4.len()).unwrap_or(u8::MAX);
    program.push(jump(EQ, 0x40, 0, skipped));
    program.extend(v4);
    program.push(jump(EQ, 0x60, 1, 0));
    program.push(op(RET, 0));
    program.extend(version_6());
    program
}

fn version_4() -> Vec<Instruction> {
    let mut program = vec![
        // Only a first fragment has ports.
        op(LD_H, 6),
        jump(ANY, 0x1fff, 3, 0),
        op(LD_B, 9),
        jump(EQ, libc::IPPROTO_UDP as u32, 2, 0),
        jump(EQ, libc::IPPROTO_TCP as u32, 1, 0),
        op(RET, 0),
        op(LDX_IHL, 0),
    ];
    program.extend(ports());
    program
}

fn version_6() -> Vec<Instruction> {
    let mut program = vec![op(LDX_IMM, 40), op(LD_B, 6)];
    for _ in 0..=EXTENSIONS {
        program.extend(header());
    }
    program.push(op(RET, 0));
    program
}

/// Decides, with the transport header at X.
fn ports() -> [Instruction; 6] {
    [
        op(LD_H_X, 0),
        jump(EQ, DOMAIN, 2, 0),
        op(LD_H_X, 2),
        jump(EQ, DOMAIN, 0, 1),
        op(RET, KEEP),
        op(RET, 0),
    ]
}

/// Decides, or skips an extension header: its type is in A, its place in X.
fn header() -> Vec<Instruction> {
    let mut program = vec![
        jump(EQ, libc::IPPROTO_UDP as u32, 1, 0),
        jump(EQ, libc::IPPROTO_TCP as u32, 0, 6),
    ];
    program.extend(ports());
    program.extend([
        jump(EQ, libc::IPPROTO_FRAGMENT as u32, 5, 0),
        jump(EQ, libc::IPPROTO_AH as u32, 12, 0),
        jump(EQ, libc::IPPROTO_HOPOPTS as u32, 17, 0),
        jump(EQ, libc::IPPROTO_ROUTING as u32, 16, 0),
        jump(EQ, libc::IPPROTO_DSTOPTS as u32, 15, 0),
        op(RET, 0),
        // Fragment: 8 bytes; only the first has ports.
        op(LD_H_X, 2),
        jump(ANY, 0xfff8, 0, 1),
        op(RET, 0),
        op(LD_B_X, 0),
        op(ST, 0),
        op(TXA, 0),
        op(ADD, 8),
        op(GO, 12),
        // Authentication: counted in words of 4 bytes, without the first two.
        op(LD_B_X, 0),
        op(ST, 0),
        op(LD_B_X, 1),
        op(ADD, 2),
        op(SHL, 2),
        op(GO, 5),
        // The others: in words of 8 bytes, without the first.
        op(LD_B_X, 0),
        op(ST, 0),
        op(LD_B_X, 1),
        op(ADD, 1),
        op(SHL, 3),
        op(ADD_X, 0),
        // What is behind it.
        op(TAX, 0),
        op(LD_M, 0),
    ]);
    program
}

#[cfg(test)]
mod tests;
