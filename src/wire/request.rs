//! What sockwatch asks of the kernel: dumps and exact queries.
//!
//! The v2 request (`struct inet_diag_req_v2`) is netlink-packet-sock-diag's. The
//! legacy one (`struct inet_diag_req`, type TCPDIAG_GETSOCK) that crate does not
//! have; it is 60 bytes and worth writing by hand, because the kernel answers it
//! for both address families in one pass over its tables.

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};

use super::bytecode::{self, Condition};
use crate::model::{Cookie, Coverage, Family, Proto, SockId};

/// The message type of the legacy TCP request and of its replies
/// (linux/inet_diag.h).
pub const TCPDIAG_GETSOCK: u16 = 18;

const LEGACY_LENGTH: usize = 16 + 60;
/// `struct nlattr`.
const NLA_HEADER: usize = 4;
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// The AF_ constant of a family.
fn af(family: Family) -> u8 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

/// A dump of what `coverage` says, but for the rows that `condition` leaves out.
pub fn dump_where(coverage: Coverage, condition: Option<&Condition>, seq: u32) -> Vec<u8> {
    let mask = coverage.groups.mask();
    let Some(condition) = condition else {
        return plain_dump(coverage, mask, seq);
    };
    let mut request = plain_dump(coverage, mask, seq);
    let code = &condition.code;
    // The code is a few KiB at most, a multiple of 4 like what it follows.
    let length = (NLA_HEADER + code.len()) as u16;
    request.extend_from_slice(&length.to_ne_bytes());
    request.extend_from_slice(&bytecode::REQ_BYTECODE.to_ne_bytes());
    request.extend_from_slice(code);
    let length = request.len() as u32;
    request[0..4].copy_from_slice(&length.to_ne_bytes());
    request
}

/// A dump of what `coverage` says. TCP in both families is one legacy request;
/// everything else names its family and is a v2 request.
pub fn dump(coverage: Coverage, seq: u32) -> Vec<u8> {
    dump_where(coverage, None, seq)
}

fn plain_dump(coverage: Coverage, mask: u32, seq: u32) -> Vec<u8> {
    match (coverage.proto, coverage.family) {
        (Proto::Tcp, None) => legacy_dump(mask, seq).to_vec(),
        (proto, family) => {
            let family = family.unwrap_or(Family::V4);
            v2(
                family,
                proto,
                mask,
                any_socket(family),
                NLM_F_REQUEST | NLM_F_DUMP,
                seq,
            )
        }
    }
}

/// The exact query for one connected TCP socket or minisocket: by both ends,
/// interface and cookie (`inet_diag_dump_one_icsk`).
pub fn exact(id: &SockId, cookie: Cookie, seq: u32) -> Vec<u8> {
    let socket_id = SocketId {
        source_port: id.local.port,
        destination_port: id.remote.port,
        source_address: id.wire_ip(id.local),
        destination_address: id.wire_ip(id.remote),
        interface_id: id.ifindex,
        cookie: wire_cookie(cookie),
    };
    v2(id.family, id.proto, u32::MAX, socket_id, NLM_F_REQUEST, seq)
}

/// A cookie as `idiag_cookie[2]` holds it: the low word first, each in host
/// byte order.
fn wire_cookie(cookie: Cookie) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&(cookie.0 as u32).to_ne_bytes());
    bytes[4..].copy_from_slice(&((cookie.0 >> 32) as u32).to_ne_bytes());
    bytes
}

fn any_socket(family: Family) -> SocketId {
    let mut id = match family {
        Family::V4 => SocketId::new_v4(),
        Family::V6 => SocketId::new_v6(),
    };
    id.cookie = NO_COOKIE;
    id
}

fn v2(family: Family, proto: Proto, mask: u32, id: SocketId, flags: u16, seq: u32) -> Vec<u8> {
    let request = InetRequest {
        family: af(family),
        protocol: proto.number(),
        extensions: ExtensionFlags::empty(),
        states: StateFlags::from_bits_retain(mask),
        socket_id: id,
    };
    let payload = NetlinkPayload::from(SockDiagMessage::InetRequest(request));
    let mut message = NetlinkMessage::new(Default::default(), payload);
    message.header.flags = flags;
    message.header.sequence_number = seq;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// `struct nlmsghdr` and `struct inet_diag_req`: family, address lengths and
/// extensions all 0, an empty socket id without a cookie, the states.
fn legacy_dump(mask: u32, seq: u32) -> [u8; LEGACY_LENGTH] {
    let mut bytes = [0; LEGACY_LENGTH];
    bytes[0..4].copy_from_slice(&(LEGACY_LENGTH as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&TCPDIAG_GETSOCK.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes[8..12].copy_from_slice(&seq.to_ne_bytes());
    // 16: family, src_len, dst_len, ext; 20: ports, addresses, interface.
    bytes[60..68].copy_from_slice(&NO_COOKIE);
    bytes[68..72].copy_from_slice(&mask.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StateGroups;

    #[test]
    fn the_legacy_request_is_laid_out_as_the_kernel_reads_it() {
        let coverage = Coverage {
            proto: Proto::Tcp,
            family: None,
            groups: StateGroups::LISTEN | StateGroups::BOUND,
        };
        let bytes = dump(coverage, 7);
        assert_eq!(bytes.len(), 76);
        assert_eq!(u16::from_ne_bytes([bytes[4], bytes[5]]), 18);
        assert_eq!(&bytes[60..68], &[0xff; 8]);
        assert_eq!(
            u32::from_ne_bytes(bytes[68..72].try_into().unwrap()),
            1 << 10 | 1 << 7 | 1 << 13
        );
        assert_eq!(&bytes[72..76], &[0; 4]);
    }

    #[test]
    fn the_v2_request_keeps_state_bits_the_crate_has_no_name_for() {
        let coverage = Coverage {
            proto: Proto::Tcp,
            family: Some(Family::V6),
            groups: StateGroups::BOUND,
        };
        let bytes = dump(coverage, 7);
        assert_eq!(bytes.len(), 16 + 56);
        assert_eq!(bytes[16], AF_INET6);
        assert_eq!(bytes[17], 6);
        assert_eq!(
            u32::from_ne_bytes(bytes[20..24].try_into().unwrap()) & 1 << 13,
            1 << 13
        );
    }

    #[test]
    fn a_condition_is_an_attribute_behind_either_request() {
        for (family, length) in [(None, 76), (Some(Family::V4), 72)] {
            let coverage = Coverage {
                proto: Proto::Tcp,
                family,
                groups: StateGroups::CONNECTED,
            };
            let condition = Condition {
                code: Box::new([1, 4, 8, 0]),
            };
            let bytes = dump_where(coverage, Some(&condition), 7);
            let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
            assert_eq!(bytes.len(), length + 8);
            let told = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            assert_eq!(told as usize, bytes.len());
            assert_eq!((number(length), number(length + 2)), (8, 1));
            assert_eq!(bytes[4..length], dump(coverage, 7)[4..]);
        }
    }

    #[test]
    fn listeners_alone_are_one_bit() {
        let coverage = Coverage {
            proto: Proto::Tcp,
            family: None,
            groups: StateGroups::LISTEN,
        };
        let bytes = dump(coverage, 7);
        assert_eq!(
            u32::from_ne_bytes(bytes[68..72].try_into().unwrap()),
            1 << 10
        );
    }
}
