//! The states of a socket.

use super::Proto;

/// A state of the kernel's TCP state machine (net/tcp_states.h), which it also
/// uses for UDP: connected is ESTABLISHED, everything else CLOSE.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum TcpState {
    /// Data can flow both ways.
    Established = 1,
    /// connect() has sent a SYN.
    SynSent = 2,
    /// A SYN has arrived, the handshake is not done.
    SynRecv = 3,
    /// Closed here, our FIN is not acknowledged.
    FinWait1 = 4,
    /// Closed here, the peer still sends.
    FinWait2 = 5,
    /// Both closed; what remains is a minisocket.
    TimeWait = 6,
    /// Not connected: bound only, or UDP without a peer.
    Close = 7,
    /// Closed by the peer, not here.
    CloseWait = 8,
    /// Closed by the peer, then here; our FIN is not acknowledged.
    LastAck = 9,
    /// Waits for connections.
    Listen = 10,
    /// Both closed at once.
    Closing = 11,
}

impl TcpState {
    /// All states, in the kernel's order.
    pub const ALL: [TcpState; 11] = [
        TcpState::Established,
        TcpState::SynSent,
        TcpState::SynRecv,
        TcpState::FinWait1,
        TcpState::FinWait2,
        TcpState::TimeWait,
        TcpState::Close,
        TcpState::CloseWait,
        TcpState::LastAck,
        TcpState::Listen,
        TcpState::Closing,
    ];

    /// The state of an `idiag_state` byte. TCP_NEW_SYN_RECV (12) and
    /// TCP_BOUND_INACTIVE (13) are names the kernel has for SYN_RECV and CLOSE.
    pub fn from_wire(byte: u8) -> Option<TcpState> {
        match byte {
            12 => Some(TcpState::SynRecv),
            13 => Some(TcpState::Close),
            _ => TcpState::ALL
                .get(usize::from(byte).wrapping_sub(1))
                .copied(),
        }
    }

    /// The word in a tuple and in `state`. An unconnected UDP socket is UNCONN,
    /// as `ss` writes it.
    pub fn as_str(self, proto: Proto) -> &'static str {
        match self {
            TcpState::Established => "ESTABLISHED",
            TcpState::SynSent => "SYN_SENT",
            TcpState::SynRecv => "SYN_RECV",
            TcpState::FinWait1 => "FIN_WAIT1",
            TcpState::FinWait2 => "FIN_WAIT2",
            TcpState::TimeWait => "TIME_WAIT",
            TcpState::Close if proto == Proto::Udp => "UNCONN",
            TcpState::Close => "CLOSE",
            TcpState::CloseWait => "CLOSE_WAIT",
            TcpState::LastAck => "LAST_ACK",
            TcpState::Listen => "LISTEN",
            TcpState::Closing => "CLOSING",
        }
    }

    /// A state that only an established connection can have reached.
    pub fn follows_established(self) -> bool {
        matches!(
            self,
            TcpState::FinWait1
                | TcpState::FinWait2
                | TcpState::CloseWait
                | TcpState::LastAck
                | TcpState::Closing
        )
    }

    /// A state with a peer: the exact query by cookie can be trusted
    /// (`inet_diag_find_one_icsk` looks these up by both ends).
    pub fn is_connected(self) -> bool {
        !matches!(self, TcpState::Listen | TcpState::Close)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_values_are_the_kernels() {
        for state in TcpState::ALL {
            assert_eq!(TcpState::from_wire(state as u8), Some(state));
        }
        assert_eq!(TcpState::from_wire(0), None);
        assert_eq!(TcpState::from_wire(12), Some(TcpState::SynRecv));
        assert_eq!(TcpState::from_wire(13), Some(TcpState::Close));
        assert_eq!(TcpState::from_wire(14), None);
        assert_eq!(TcpState::from_wire(255), None);
    }
}
