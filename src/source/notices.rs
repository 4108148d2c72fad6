//! The sockets that receive destruction notices: which groups they are in, which
//! notices the kernel refuses for them, how much room they have, and how they are
//! drained.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use crate::model::{Family, Notice, Proto};
use crate::stats::Stats;
use crate::sys::{Netlink, RecvError};
use crate::wire::notice_filter::{Share, Wanted};
use crate::wire::sock_diag::{self, Body, Messages};

/// A multicast group of destruction notices (`enum sknetlink_groups`,
/// linux/sock_diag.h).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Group {
    /// The family of the sockets it tells of.
    pub family: Family,
    /// Their protocol.
    pub proto: Proto,
}

impl Group {
    /// All four.
    pub const ALL: [Group; 4] = [
        Group {
            family: Family::V4,
            proto: Proto::Tcp,
        },
        Group {
            family: Family::V4,
            proto: Proto::Udp,
        },
        Group {
            family: Family::V6,
            proto: Proto::Tcp,
        },
        Group {
            family: Family::V6,
            proto: Proto::Udp,
        },
    ];

    /// The kernel's number for it.
    pub fn number(self) -> u32 {
        match (self.family, self.proto) {
            (Family::V4, Proto::Tcp) => 1,
            (Family::V4, Proto::Udp) => 2,
            (Family::V6, Proto::Tcp) => 3,
            (Family::V6, Proto::Udp) => 4,
        }
    }

    /// The kernel's name for it, without the prefix.
    pub fn as_str(self) -> &'static str {
        match (self.family, self.proto) {
            (Family::V4, Proto::Tcp) => "INET_TCP_DESTROY",
            (Family::V4, Proto::Udp) => "INET_UDP_DESTROY",
            (Family::V6, Proto::Tcp) => "INET6_TCP_DESTROY",
            (Family::V6, Proto::Udp) => "INET6_UDP_DESTROY",
        }
    }
}

/// What a drain came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drained {
    /// There may be more: the limit was reached before the socket was empty.
    pub more: bool,
    /// The kernel dropped notices since the last drain.
    pub overrun: bool,
}

/// The sockets that receive notices, of one namespace or of all: one, or, where
/// that may not have room enough, several that share the cookies.
#[derive(Debug)]
pub struct Notices {
    shards: Vec<Netlink>,
    /// There are 2^`bits` of them.
    bits: u32,
    /// The kernel refuses some notices for us.
    refusing: bool,
    /// Which one is read next.
    next: usize,
    /// They hear of every namespace that has an id in this one.
    all: bool,
    buffer: Box<[u8]>,
    stats: Rc<Stats>,
}

/// The room that was granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// In bytes of one socket, as the kernel charges them.
    pub bytes: usize,
    /// How many sockets share the cookies.
    pub shards: usize,
    /// How many notices all of them hold.
    pub notices: usize,
}

/// A notice with today's tcp_info has 384 bytes; the rest is for tomorrow's.
const NOTICE_ROOM: usize = 4096;

/// What the kernel charges a receive buffer for one notice: the truesize of its
/// sk_buff, measured on Linux 6.18.
const CHARGE: usize = 1280;

/// Room for so many notices between two wake-ups is worth several sockets: each
/// costs whoever closes a socket 0.2 to 0.4 us more.
const ENOUGH: usize = 2048;

/// The most sockets that share the cookies: 2^4.
const MOST_BITS: u32 = 4;

/// How many sockets it takes, as a power of two, for as many notices as were
/// asked for, where that is not more than enough.
fn bits_for(asked: usize, granted: usize) -> u32 {
    let wanted = asked.min(ENOUGH);
    let room = granted.max(1);
    let shards = wanted.div_ceil(room).next_power_of_two();
    shards.trailing_zeros().min(MOST_BITS)
}

impl Notices {
    /// Opens a socket in no group yet.
    ///
    /// # Errors
    /// See [`Netlink::open`].
    pub fn open(stats: Rc<Stats>) -> io::Result<Notices> {
        Ok(Notices {
            shards: vec![Netlink::open()?],
            bits: 0,
            refusing: false,
            next: 0,
            all: false,
            buffer: vec![0; NOTICE_ROOM].into_boxed_slice(),
            stats,
        })
    }

    /// Joins a group.
    ///
    /// # Errors
    /// See [`Netlink::join`].
    pub fn join(&self, group: Group) -> io::Result<()> {
        for shard in &self.shards {
            shard.join(group.number())?;
        }
        Ok(())
    }

    /// Leaves a group. What it has sent already is still handed over.
    ///
    /// # Errors
    /// See [`Netlink::leave`]; then some of its notices still come.
    pub fn leave(&self, group: Group) -> io::Result<()> {
        for shard in &self.shards {
            shard.leave(group.number())?;
        }
        Ok(())
    }

    /// Hears of every namespace that has an id in this one, or of this one alone
    /// again.
    ///
    /// # Errors
    /// See [`Netlink::listen_all`]; then it is as it was before.
    pub fn listen_all(&mut self, on: bool) -> io::Result<()> {
        for shard in &self.shards {
            shard.listen_all(on)?;
        }
        self.all = on;
        Ok(())
    }

    /// Asks for a receive buffer of `bytes`. Where much less is granted, as to an
    /// unprivileged process, several sockets share the cookies instead. To be
    /// called before a group is joined.
    ///
    /// # Errors
    /// See [`Netlink::request_buffer`]; where sharing fails there is one socket,
    /// and that is no error.
    pub fn request_buffer(&mut self, bytes: usize) -> io::Result<Room> {
        let granted = self.shards[0].request_buffer(bytes)?;
        // setsockopt(2) doubles what is asked for.
        let bits = bits_for(bytes.saturating_mul(2) / CHARGE, granted / CHARGE);
        if bits > 0 {
            match Notices::share(bytes, bits) {
                Ok(shards) => (self.shards, self.bits) = (shards, bits),
                Err(error) => log::warn!("one socket must do for all notices: {error}"),
            }
        }
        Ok(self.room(granted))
    }

    /// Asks for another receive buffer for the sockets there are: they are in their
    /// groups, and what they hold stays.
    ///
    /// # Errors
    /// See [`Netlink::request_buffer`].
    pub fn resize(&self, bytes: usize) -> io::Result<Room> {
        let mut granted = usize::MAX;
        for shard in &self.shards {
            granted = granted.min(shard.request_buffer(bytes)?);
        }
        Ok(self.room(granted))
    }

    fn room(&self, granted: usize) -> Room {
        let shards = self.shards.len();
        Room {
            bytes: granted,
            shards,
            notices: granted / CHARGE * shards,
        }
    }

    /// Opens 2^`bits` sockets, each of which takes its share of the cookies.
    fn share(bytes: usize, bits: u32) -> io::Result<Vec<Netlink>> {
        (0..1 << bits)
            .map(|number| {
                let shard = Netlink::open()?;
                shard.request_buffer(bytes)?;
                shard.filter(&Share { number, bits }.program())?;
                Ok(shard)
            })
            .collect()
    }

    /// Has the kernel refuse the notices that are not wanted, before it charges
    /// the receive buffer. What is queued already stays.
    ///
    /// # Errors
    /// See [`Netlink::filter`]; then none that is wanted is refused either.
    pub fn refuse_but(&mut self, wanted: &Wanted) -> io::Result<()> {
        self.refusing = true;
        for (shard, share) in self.shares() {
            shard.filter(&wanted.program(share))?;
        }
        Ok(())
    }

    /// Has the kernel send all notices again: those of whatever socket is there
    /// when this returns.
    ///
    /// # Errors
    /// See [`Netlink::filter`]; then some are still refused.
    pub fn take_all(&mut self) -> io::Result<()> {
        for (shard, share) in self.shares() {
            match share {
                Some(share) => shard.filter(&share.program())?,
                None => shard.unfilter()?,
            }
        }
        self.refusing = false;
        Ok(())
    }

    /// Whether the kernel refuses some.
    pub fn is_refusing(&self) -> bool {
        self.refusing
    }

    /// The sockets, each with its part of the cookies, where they share them.
    fn shares(&self) -> impl Iterator<Item = (&Netlink, Option<Share>)> {
        let bits = self.bits;
        let share = move |number| (bits > 0).then_some(Share { number, bits });
        let shards = self.shards.iter();
        shards
            .zip(0..)
            .map(move |(shard, number)| (shard, share(number)))
    }

    /// The descriptors to wait on (readable).
    pub fn fds(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.shards.iter().map(AsRawFd::as_raw_fd)
    }

    /// Hands over what is there, at most `limit` notices, until every socket is
    /// empty; each with the id of its namespace, where that is not this one. An
    /// overrun does not end it: what was queued before is still good.
    ///
    /// # Errors
    /// Those of recvfrom(2) that are neither of the above.
    pub fn drain(
        &mut self,
        limit: usize,
        each: &mut dyn FnMut(Option<i32>, Notice),
    ) -> io::Result<Drained> {
        let mut drained = Drained::default();
        let mut empty = 0;
        for _ in 0..limit {
            let shard = &self.shards[self.next];
            let received = if self.all {
                shard.recv_from_any(&mut self.buffer)
            } else {
                shard.recv(&mut self.buffer).map(|length| (length, None))
            };
            let (length, from) = match received {
                Ok(received) => received,
                Err(RecvError::WouldBlock) => {
                    empty += 1;
                    self.next = (self.next + 1) % self.shards.len();
                    if empty == self.shards.len() {
                        return Ok(drained);
                    }
                    continue;
                }
                Err(RecvError::Overrun) => {
                    self.stats.overruns.bump();
                    drained.overrun = true;
                    continue;
                }
                Err(RecvError::Truncated | RecvError::Foreign) => {
                    self.stats.netlink_rejected.bump();
                    continue;
                }
                Err(RecvError::Io(error)) => return Err(error),
            };
            for message in Messages::new(&self.buffer[..length]) {
                let notice = message.and_then(|message| match message.body {
                    Body::Socket(payload) => sock_diag::notice(payload).map(Some),
                    _ => Ok(None),
                });
                match notice {
                    Ok(Some(notice)) => {
                        self.stats.notices.bump();
                        each(from, notice);
                    }
                    Ok(None) => {}
                    Err(malformed) => {
                        self.stats.netlink_rejected.bump();
                        log::debug!("a notice was rejected: {}", malformed.as_str());
                    }
                }
            }
        }
        drained.more = true;
        Ok(drained)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Cookie;

    #[test]
    fn as_many_sockets_as_the_room_needs() {
        let unprivileged = 2 * 212_992 / CHARGE;
        assert_eq!(unprivileged, 332);
        assert_eq!(bits_for(13_107, unprivileged), 3, "eight hold 2,656");
        assert_eq!(bits_for(13_107, 13_107), 0, "all was granted");
        assert_eq!(bits_for(6, 6), 0, "no more was asked for");
        assert_eq!(bits_for(13_107, 3_000), 0, "that is enough");
        assert_eq!(bits_for(13_107, 1), MOST_BITS);
        assert_eq!(bits_for(13_107, 0), MOST_BITS);
    }

    /// Whatever the pattern in which cookies end, no share gets much more than
    /// the others.
    #[test]
    fn shares_are_even() {
        for step in [1, 2, 3, 4, 8, 16, 64, 256] {
            for first in [1, 4096, 1 << 40] {
                let mut shares = [0; 8];
                for number in 0..2_000_u64 {
                    shares[Share::of(Cookie(first + number * step), 3) as usize] += 1;
                }
                assert!(
                    shares.iter().all(|share| (200..=300).contains(share)),
                    "every {step}th from {first}: {shares:?}"
                );
            }
        }
    }
}
