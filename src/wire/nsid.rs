//! The ids by which one network namespace knows others: what is asked of
//! rtnetlink(7) about them, and what it answers and announces (RTM_NEWNSID,
//! linux/net_namespace.h).

use std::os::fd::RawFd;

/// The multicast group that announces them (RTNLGRP_NSID).
pub const GROUP: u32 = 28;

const NLMSG_ERROR: u16 = 2;
const RTM_NEWNSID: u16 = 88;
const RTM_DELNSID: u16 = 89;
const RTM_GETNSID: u16 = 90;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;

const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;

/// `struct nlmsghdr`, and behind it `struct rtgenmsg` with its padding.
const HEADER: usize = 16;
const HEAD: usize = HEADER + 4;
const ATTRIBUTE: usize = 8;

/// The id of a namespace that has none.
const NOT_ASSIGNED: i32 = -1;

/// A message of rtnetlink about ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    /// A namespace has this id, or has just been given it.
    Has(i32),
    /// A namespace has none: the answer to a question.
    HasNone,
    /// The namespace with this id has ended.
    Ended(i32),
    /// The answer to a request: 0, or a negative errno.
    Done {
        /// The code.
        code: i32,
    },
}

/// Asks for the id of the namespace behind a descriptor (NETNSA_FD).
pub fn get(fd: RawFd, seq: u32) -> Vec<u8> {
    request(RTM_GETNSID, 0, seq, &[(NETNSA_FD, fd)])
}

/// Asks whether a namespace has this id (Linux 5.0): ENOENT if none has.
pub fn find(id: i32, seq: u32) -> Vec<u8> {
    request(RTM_GETNSID, 0, seq, &[(NETNSA_NSID, id)])
}

/// Gives the namespace behind a descriptor this id.
pub fn assign(fd: RawFd, id: i32, seq: u32) -> Vec<u8> {
    request(
        RTM_NEWNSID,
        NLM_F_ACK,
        seq,
        &[(NETNSA_FD, fd), (NETNSA_NSID, id)],
    )
}

fn request(kind: u16, flags: u16, seq: u32, attributes: &[(u16, i32)]) -> Vec<u8> {
    let length = HEAD + ATTRIBUTE * attributes.len();
    let mut out = Vec::with_capacity(length);
    // At most two attributes: the length fits by far.
    out.extend((length as u32).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    out.extend(seq.to_ne_bytes());
    out.extend([0; 4]);
    out.extend([0; 4]);
    for (kind, value) in attributes {
        out.extend((ATTRIBUTE as u16).to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(value.to_ne_bytes());
    }
    out
}

/// What the messages of one datagram say, each with the number of the request
/// that it answers (0 in an announcement of the kernel's own). What is of another type, or no whole
/// message, is left out, and nothing behind it is read.
pub fn read(datagram: &[u8]) -> impl Iterator<Item = (u32, Said)> + '_ {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        loop {
            let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
            let message = rest.get(..length).filter(|one| one.len() >= HEADER)?;
            rest = rest.get(aligned(length)..).unwrap_or_default();
            if let Some(said) = message_said(message) {
                return Some((i32_at(message, 8)? as u32, said));
            }
        }
    })
}

fn message_said(message: &[u8]) -> Option<Said> {
    let kind = u16_at(message, 4)?;
    match kind {
        NLMSG_ERROR => Some(Said::Done {
            code: i32_at(message, HEADER)?,
        }),
        RTM_NEWNSID | RTM_DELNSID => match (id(message.get(HEAD..)?)?, kind) {
            (NOT_ASSIGNED, _) => Some(Said::HasNone),
            (id, RTM_NEWNSID) => Some(Said::Has(id)),
            (id, _) => Some(Said::Ended(id)),
        },
        _ => None,
    }
}

/// The value of NETNSA_NSID among attributes.
fn id(mut attributes: &[u8]) -> Option<i32> {
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let attribute = attributes.get(..length).filter(|one| one.len() >= 4)?;
        if u16_at(attribute, 2)? == NETNSA_NSID {
            return i32_at(attribute, 4);
        }
        attributes = attributes.get(aligned(length)..)?;
    }
}

fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As Linux 6.18 announced them: an id that was given (by port 14439) and its
    /// end.
    #[test]
    fn announcements_are_read() {
        let mut bytes = request(RTM_NEWNSID, 0, 0, &[(NETNSA_NSID, 0x4000_0001)]);
        bytes.extend(request(RTM_DELNSID, 0, 0, &[(NETNSA_NSID, 7)]));
        bytes.extend(request(RTM_NEWNSID, 0, 0, &[(NETNSA_NSID, -1)]));
        let said: Vec<Said> = read(&bytes).map(|(_, said)| said).collect();
        assert_eq!(
            said,
            [Said::Has(0x4000_0001), Said::Ended(7), Said::HasNone]
        );
    }

    #[test]
    fn an_answer_names_its_request() {
        let mut bytes = Vec::new();
        bytes.extend(36_u32.to_ne_bytes());
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(9_u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend((-17_i32).to_ne_bytes());
        bytes.extend([0; 16]);
        let said: Vec<(u32, Said)> = read(&bytes).collect();
        assert_eq!(said, [(9, Said::Done { code: -17 })]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read(&bytes).count() <= bytes.len() / HEADER);
        }

        #[test]
        fn a_message_cut_short_says_nothing_more(cut in 0_usize..28) {
            let bytes = request(RTM_NEWNSID, 0, 0, &[(NETNSA_NSID, 5)]);
            prop_assert_eq!(read(&bytes[..cut]).count(), 0);
        }
    }
}
