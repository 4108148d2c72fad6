//! The DNS tap: answers to what this host asked, read from the packets
//! themselves.
//!
//! Promises: only an answer to a query that was seen leaving this host is handed
//! out, and once; whoever sends packets can make it neither panic nor grow; what
//! the kernel dropped is told. An answer lies in the tap's queue before the process
//! that asked can have read it, so that what is drained after a connect() was
//! learned of holds the answer that led to it.
//!
//! Covered is DNS over UDP and TCP of port 53, of this network namespace, as it
//! passes any device; not mDNS and LLMNR (other ports), DoH and DoT (encrypted),
//! nor what was asked before the tap was opened. A query that this host only
//! forwards (a container's, a routed network's) leaves it like its own, and its
//! answers count: a packet socket cannot tell them apart.

mod matching;
mod streams;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use crate::model::{Answer, Now};
use crate::stats::Stats;
use crate::sys::Packets;

use matching::Matching;

/// The receive buffer that is asked for: the kernel doubles it, and charges some
/// 1,000 bytes for a packet that carries 100.
const BUFFER: usize = 4 << 20;

/// The longest packet: the kernel passes TCP in pieces of up to 64 KiB. Of a
/// longer one (BIG TCP) the rest is cut off.
const LONGEST: usize = 1 << 16;

/// The least that the kernel charges for a packet in the receive buffer: an
/// sk_buff (232 bytes) and its shared info (320) without any data.
const LEAST_CHARGE: usize = 512;

/// What a drain came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drained {
    /// Packets that the kernel dropped since the last drain because the receive
    /// buffer was full; answers may be among them.
    pub dropped: u64,
    /// There may be more: packets came as fast as they were read.
    pub more: bool,
}

/// The tap.
#[derive(Debug)]
pub struct DnsTap {
    packets: Packets,
    matching: Matching,
    buffer: Box<[u8]>,
    /// The most packets that the receive buffer can hold.
    most: usize,
    stats: Rc<Stats>,
}

impl DnsTap {
    /// Opens the tap in the namespace of the calling thread.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW, and those of [`Packets::open`]; in words that say
    /// what is missing.
    pub fn open(stats: Rc<Stats>) -> io::Result<DnsTap> {
        let packets = Packets::open(BUFFER).map_err(told)?;
        let most = packets.buffer()? / LEAST_CHARGE + 1;
        Ok(DnsTap {
            packets,
            matching: Matching::new(Rc::clone(&stats)),
            buffer: vec![0; LONGEST].into_boxed_slice(),
            most,
            stats,
        })
    }

    /// Reads what is there and hands out every answer that matched a query.
    ///
    /// It ends when the socket is empty, or after as many packets as the receive
    /// buffer can hold. So every packet that was there at the beginning has been
    /// read, and a flood that outruns the reader keeps it no longer than a full
    /// buffer does (some 20 ms); then `more` is set.
    ///
    /// # Errors
    /// Those of recvfrom(2) and getsockopt(2).
    pub fn drain(&mut self, now: Now, each: &mut dyn FnMut(Answer)) -> io::Result<Drained> {
        let mut drained = Drained {
            more: true,
            ..Drained::default()
        };
        let mut read = 0;
        while read < self.most {
            let Some(received) = self.packets.recv(&mut self.buffer)? else {
                drained.more = false;
                break;
            };
            read += 1;
            let bytes = &self.buffer[..received.length];
            self.matching.packet(received.way, bytes, now.mono, each);
        }
        // A packet is only dropped when others are there.
        if read > 0 {
            drained.dropped = self.packets.dropped()?;
            self.stats.dns_dropped.add(drained.dropped);
        }
        Ok(drained)
    }
}

impl AsRawFd for DnsTap {
    fn as_raw_fd(&self) -> RawFd {
        self.packets.as_raw_fd()
    }
}

/// The error, with what can be done about it.
fn told(error: io::Error) -> io::Error {
    let remedy = match error.raw_os_error() {
        Some(libc::EPERM) => "it needs CAP_NET_RAW",
        Some(libc::EAFNOSUPPORT) => "the kernel has no packet sockets (CONFIG_PACKET)",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{error}; {remedy}"))
}
