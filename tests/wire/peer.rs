//! netlink-packet-sock-diag on the same bytes.

use std::net::IpAddr;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::inet::{InetResponse, nlas::Nla};
use netlink_packet_sock_diag::{AF_INET, AF_INET6, SockDiagMessage};
use sockwatch::model::{Family, Owner, Proto, Row, RowKind};
use sockwatch::wire::sock_diag;

/// SOCK_DIAG_BY_FAMILY: the only type of reply that the crate reads.
const V2: u16 = 20;

/// The crate's reading of one reply, if it can read it. A legacy reply becomes a
/// v2 one by its type alone: the payloads are the same.
pub fn read(payload: &[u8]) -> Option<Box<InetResponse>> {
    let mut message = Vec::with_capacity(16 + payload.len());
    message.extend(u32::try_from(16 + payload.len()).ok()?.to_ne_bytes());
    message.extend(V2.to_ne_bytes());
    message.extend([0; 10]);
    message.extend(payload);
    match NetlinkMessage::<SockDiagMessage>::deserialize(&message)
        .ok()?
        .payload
    {
        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => Some(response),
        _ => None,
    }
}

/// Where the two readings of one row differ.
pub fn differences(payload: &[u8], proto: Proto) -> Vec<String> {
    let (Ok(ours), Some(theirs)) = (sock_diag::row(payload, proto), read(payload)) else {
        return vec!["one of the two cannot read it".to_string()];
    };
    let fields = fields(&ours, &theirs);
    fields
        .into_iter()
        .filter(|(_, ours, theirs)| ours != theirs)
        .map(|(field, ours, theirs)| format!("{field}: {ours} here, {theirs} there"))
        .collect()
}

fn fields(row: &Row, response: &InetResponse) -> Vec<(&'static str, String, String)> {
    let (id, header) = (&row.id, &response.header);
    let socket = &header.socket_id;
    let family = match id.family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    };
    let mapped = [socket.source_address, socket.destination_address]
        .iter()
        .any(|ip| matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some()));
    // Two names of the kernel for states that it also calls otherwise.
    let state = match header.state {
        12 => 3,
        13 => 7,
        state => state,
    };
    let [a, b] = [&socket.cookie[..4], &socket.cookie[4..]]
        .map(|word| u64::from(u32::from_ne_bytes(word.try_into().expect("four bytes"))));
    let full = response
        .nlas
        .iter()
        .any(|nla| matches!(nla, Nla::Shutdown(_)));
    let mini = state == 6 || ((state == 3 || state == 5) && !full);
    let (uid, inode) = match row.owner {
        Owner::Known { uid, inode } => (uid, inode),
        // What is not told is not compared, but there must be a reason.
        Owner::Unknown(_) if mini || header.inode == 0 => (header.uid, header.inode),
        Owner::Unknown(_) => (u32::MAX, u32::MAX),
    };
    let text = |value: &dyn std::fmt::Debug| format!("{value:?}");
    vec![
        ("family", text(&family), text(&header.family)),
        ("state", text(&(row.state as u8)), text(&state)),
        ("kind", text(&(row.kind == RowKind::Mini)), text(&mini)),
        ("mapped", text(&id.v4_mapped), text(&mapped)),
        (
            "local ip",
            text(&id.wire_ip(id.local)),
            text(&socket.source_address),
        ),
        (
            "local port",
            text(&id.local.port),
            text(&socket.source_port),
        ),
        (
            "remote ip",
            text(&id.wire_ip(id.remote)),
            text(&socket.destination_address),
        ),
        (
            "remote port",
            text(&id.remote.port),
            text(&socket.destination_port),
        ),
        ("interface", text(&id.ifindex), text(&socket.interface_id)),
        ("cookie", text(&row.cookie.0), text(&(b << 32 | a))),
        ("uid", text(&uid), text(&header.uid)),
        ("inode", text(&inode), text(&header.inode)),
    ]
}
