//! What was read, as lines of text: fixtures are compared in this form, so that
//! a difference shows which field it is in.

use std::net::SocketAddr;

use sockwatch::model::{Endpoint, Family, Notice, Owner, Proto, Row, RowKind, SockId};
use sockwatch::wire::sock_diag::{self, Body, Malformed, Messages};

/// What a datagram holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holds {
    /// Rows of a dump of this protocol, or the answer to an exact query.
    Rows(Proto),
    /// Destruction notices.
    Notices,
}

/// What identifies a socket, in the words of the sockets API.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// The protocol.
    pub proto: Proto,
    /// The family of its socket() call.
    pub family: Family,
    /// An AF_INET6 socket that carries IPv4.
    pub mapped: bool,
    /// getsockname(2); a mapped address as IPv4.
    pub local: SocketAddr,
    /// getpeername(2); the unspecified address without a peer.
    pub remote: SocketAddr,
    /// SO_BINDTOIFINDEX.
    pub ifindex: u32,
    /// SO_COOKIE.
    pub cookie: u64,
}

impl Ends {
    /// The part of a line that rows and notices share.
    pub fn line(&self) -> String {
        let Ends {
            local,
            remote,
            ifindex,
            cookie,
            ..
        } = self;
        let family = match self.family {
            Family::V4 => "inet",
            Family::V6 => "inet6",
        };
        let mapped = if self.mapped { " mapped" } else { "" };
        let proto = self.proto.as_str();
        format!("{proto} {family}{mapped} {local} {remote} ifindex={ifindex} cookie={cookie}")
    }

    fn of(id: &SockId, cookie: u64) -> Ends {
        let address = |end: Endpoint| SocketAddr::new(end.ip, end.port);
        Ends {
            proto: id.proto,
            family: id.family,
            mapped: id.v4_mapped,
            local: address(id.local),
            remote: address(id.remote),
            ifindex: id.ifindex,
            cookie,
        }
    }
}

/// Every message of a datagram, a line each; rows come in the kernel's order,
/// which is nobody's promise, so they are sorted.
pub fn read(datagram: &[u8], holds: Holds) -> Vec<String> {
    let mut lines: Vec<String> = Messages::new(datagram)
        .map(|message| match message.map(|message| message.body) {
            Ok(Body::Socket(payload)) => socket(payload, holds),
            Ok(Body::Done(code)) => format!("done {code}"),
            Ok(Body::Error(code)) => format!("error {code}"),
            Ok(Body::Interrupted) => "interrupted".to_string(),
            Ok(Body::Other) => "other".to_string(),
            Err(malformed) => refused(malformed),
        })
        .collect();
    lines.sort();
    lines
}

fn socket(payload: &[u8], holds: Holds) -> String {
    match holds {
        Holds::Rows(proto) => {
            sock_diag::row(payload, proto).map_or_else(refused, |read| row(&read))
        }
        Holds::Notices => sock_diag::notice(payload).map_or_else(refused, |read| notice(&read)),
    }
}

fn refused(malformed: Malformed) -> String {
    format!("malformed: {}", malformed.as_str())
}

/// A row.
fn row(row: &Row) -> String {
    let owner = match row.owner {
        Owner::Known { uid, inode } => format!("uid={uid} inode={inode}"),
        Owner::Unknown(why) => format!("owner={}", why.as_str()),
    };
    let kind = match row.kind {
        RowKind::Full => "full",
        RowKind::Mini => "mini",
    };
    let ends = Ends::of(&row.id, row.cookie.0).line();
    format!(
        "row {ends} {} {kind} {owner}",
        row.state.as_str(row.id.proto)
    )
}

/// A notice; sent is what was not sent again. What a clock or a window decided is left to the tests of tcp_info.
fn notice(notice: &Notice) -> String {
    let ends = Ends::of(&notice.id, notice.cookie.0).line();
    let was = notice.proven_state().as_str(notice.id.proto);
    let wiped = if notice.is_wiped() { " wiped" } else { "" };
    let traffic = notice.tcp.map_or(String::new(), |tcp| {
        let known = |count: Option<u64>| count.map_or("unknown".to_string(), |n| n.to_string());
        let sent = tcp
            .bytes_sent
            .zip(tcp.bytes_retrans)
            .map(|(sent, again)| sent.wrapping_sub(again));
        format!(
            " sent={} received={}",
            known(sent),
            known(tcp.bytes_received)
        )
    });
    format!("notice {ends} {was}{wiped}{traffic}")
}
