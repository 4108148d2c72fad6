//! What the kernel said: a row of a dump, a notice of an end.

use super::{ClosedFirst, Cookie, Direction, Owner, SockId, TcpState};

/// One socket in a dump (`struct inet_diag_msg`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// The socket's cookie.
    pub cookie: Cookie,
    /// Its ends.
    pub id: SockId,
    /// Its state.
    pub state: TcpState,
    /// A full socket or what is left of one.
    pub kind: RowKind,
    /// Whose it is.
    pub owner: Owner,
    /// The id of its cgroup (INET_DIAG_CGROUP_ID); 0 where the kernel tells none.
    pub cgroup: u64,
}

/// What stands behind a row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RowKind {
    /// A socket in full: its end will be noticed.
    Full,
    /// A request socket (SYN_RECV) or a time-wait socket (TIME_WAIT, or
    /// FIN_WAIT2 without its full socket). It carries the full socket's cookie,
    /// and no notice tells of its end.
    Mini,
}

/// One multicast destruction notification: the full socket is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notice {
    /// The socket's cookie.
    pub cookie: Cookie,
    /// Its ends, as far as the kernel had not wiped them.
    pub id: SockId,
    /// `struct tcp_info` as it was at the end; UDP has none.
    pub tcp: Option<TcpInfo>,
}

/// The fields of `struct tcp_info` (linux/tcp.h) that a closed event uses. What
/// an older kernel's shorter structure lacks is `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TcpInfo {
    /// `tcpi_last_data_sent`: ms since data was last sent.
    pub last_data_sent_ms: u32,
    /// `tcpi_last_data_recv`: ms since data was last received.
    pub last_data_recv_ms: u32,
    /// `tcpi_rtt`: smoothed round trip, µs.
    pub rtt_us: u32,
    /// `tcpi_advmss`: set when connect() began.
    pub advmss: u32,
    /// `tcpi_rcv_space`: set when the handshake was done.
    pub rcv_space: u32,
    /// `tcpi_total_retrans`: segments sent again.
    pub total_retrans: u32,
    /// `tcpi_bytes_acked`: what the peer acknowledged; a SYN and a FIN of our own
    /// count as 1 each.
    pub bytes_acked: Option<u64>,
    /// `tcpi_bytes_received`: payload received; may count the peer's FIN as 1.
    pub bytes_received: Option<u64>,
    /// `tcpi_segs_out`.
    pub segs_out: Option<u32>,
    /// `tcpi_segs_in`.
    pub segs_in: Option<u32>,
    /// `tcpi_bytes_sent`, retransmissions included.
    pub bytes_sent: Option<u64>,
    /// `tcpi_bytes_retrans`.
    pub bytes_retrans: Option<u64>,
}

impl Notice {
    /// The state before the end as tcp_info proves it: a receive space was set
    /// when a handshake was done, an MSS when connect() began. A listener and a
    /// bound socket cannot be told apart (both CLOSE). UDP goes by its peer.
    pub fn proven_state(&self) -> TcpState {
        match self.tcp {
            Some(tcp) if tcp.rcv_space != 0 => TcpState::Established,
            Some(tcp) if tcp.advmss != 0 => TcpState::SynSent,
            Some(_) => TcpState::Close,
            None if self.id.remote.port != 0 => TcpState::Established,
            None => TcpState::Close,
        }
    }

    /// Which way the connection was opened, where tcp_info proves it. An active
    /// opener's SYN was acknowledged, and counts among the bytes; that of a
    /// passive one does not. So two more than were sent, the SYN and the FIN, are
    /// an active opener's, and none at all a passive one's. One more is either: a
    /// SYN, or a FIN. Measured on Linux 6.18 for every way in which two ends can
    /// close.
    pub fn proven_direction(&self) -> Option<Direction> {
        let tcp = self.tcp?;
        match self.proven_state() {
            TcpState::SynSent => return Some(Direction::Outbound),
            TcpState::Established => {}
            _ => return None,
        }
        let (acked, sent) = (tcp.bytes_acked?, tcp.bytes_sent?);
        let sent = sent.saturating_sub(tcp.bytes_retrans?);
        if self.id.remote.port == 0 || tcp.segs_in.unwrap_or(0) == 0 {
            // Wiped, with the counters.
            None
        } else if acked == 0 {
            Some(Direction::Inbound)
        } else {
            (acked == sent + 2).then_some(Direction::Outbound)
        }
    }

    /// Who closed first, where the counters prove it, of a connection that was
    /// opened this way.
    ///
    /// The peer acknowledged our FIN: `bytes_acked` counts it, beyond what was sent
    /// and an active opener's SYN. The peer's FIN counts among `bytes_received`
    /// where it came before the full socket was gone. So where nothing at all was
    /// received, ours came first. Nothing else is proven: one byte more than the
    /// payload says that the peer's FIN came, but neither how much the payload was
    /// nor which FIN came first; and an end by RST looks like one by timeout.
    /// Measured on Linux 6.18 for both ends of every way to close: close() and
    /// shutdown() on either side first, on both at once, RST by SO_LINGER and by
    /// unread data; with and without payload.
    pub fn proven_first(&self, direction: Option<Direction>) -> Option<ClosedFirst> {
        let tcp = self.tcp?;
        if self.id.remote.port == 0 || tcp.bytes_received? != 0 || tcp.segs_in.unwrap_or(0) == 0 {
            return None;
        }
        let sent = tcp.bytes_sent?.saturating_sub(tcp.bytes_retrans?);
        let own = match direction? {
            Direction::Outbound => 2,
            Direction::Inbound => 1,
            // More than a SYN can only be both.
            Direction::Unknown => 2,
        };
        (tcp.bytes_acked? == sent + own).then_some(ClosedFirst::Local)
    }

    /// A TCP connection whose remote port tcp_disconnect() wiped: it had a peer,
    /// but which port is not known.
    pub fn is_wiped(&self) -> bool {
        self.tcp.is_some() && self.id.remote.port == 0 && self.proven_state() != TcpState::Close
    }
}
