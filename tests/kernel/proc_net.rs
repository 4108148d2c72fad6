//! The kernel's own text tables, /proc/net/{tcp,tcp6,udp,udp6}: a second
//! opinion that goes another way than netlink.
//!
//! They have no cookies and no sockets that are bound only, but they are always
//! there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::daemon::PATIENCE;

/// One socket, as a tuple shows it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Row {
    /// `tcp` or `udp`.
    pub proto: String,
    /// Its end; IPv4 where it is mapped.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// The state, in the words of a tuple.
    pub state: String,
}

impl Row {
    /// A row; the free end of a socket that carries IPv4 is written as such.
    pub fn new(proto: &str, local: SocketAddr, remote: SocketAddr, state: &str) -> Row {
        let free = |end: SocketAddr, other: SocketAddr| match (end, other) {
            (SocketAddr::V6(v6), SocketAddr::V4(_)) if v6.ip().is_unspecified() => {
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), v6.port())
            }
            _ => end,
        };
        Row {
            proto: proto.to_string(),
            local: free(local, remote),
            remote: free(remote, local),
            state: state.to_string(),
        }
    }
}

/// Waits until no connection is on its way from one state to the next: a FIN can
/// be acknowledged 40 ms late.
pub fn quiet() {
    let deadline = Instant::now() + PATIENCE;
    let passing = ["FIN_WAIT1", "LAST_ACK", "CLOSING"];
    while rows()
        .iter()
        .any(|row| passing.contains(&row.state.as_str()))
    {
        assert!(
            Instant::now() < deadline,
            "FINs are not acknowledged: {:?}",
            rows()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// All sockets of the calling thread's namespace, sorted.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (file, proto) in [
        ("tcp", "tcp"),
        ("tcp6", "tcp"),
        ("udp", "udp"),
        ("udp6", "udp"),
    ] {
        let path = format!("/proc/thread-self/net/{file}");
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{path} cannot be read: {error}"));
        rows.extend(text.lines().skip(1).map(|line| {
            row(line, proto).unwrap_or_else(|| panic!("a line of {path} that is new: {line}"))
        }));
    }
    rows.sort();
    rows
}

fn row(line: &str, proto: &str) -> Option<Row> {
    let mut words = line.split_whitespace().skip(1);
    let (local, remote) = (endpoint(words.next()?)?, endpoint(words.next()?)?);
    let state = state(u8::from_str_radix(words.next()?, 16).ok()?, proto)?;
    Some(Row::new(proto, local, remote, state))
}

/// `0100007F:1F90`: the address as 32-bit words in host byte order.
fn endpoint(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let mut bytes = Vec::new();
    for at in (0..ip.len()).step_by(8) {
        bytes.extend(
            u32::from_str_radix(ip.get(at..at + 8)?, 16)
                .ok()?
                .to_ne_bytes(),
        );
    }
    let ip: IpAddr = match bytes.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

fn state(number: u8, proto: &str) -> Option<&'static str> {
    Some(match number {
        1 => "ESTABLISHED",
        2 => "SYN_SENT",
        3 => "SYN_RECV",
        4 => "FIN_WAIT1",
        5 => "FIN_WAIT2",
        6 => "TIME_WAIT",
        7 if proto == "udp" => "UNCONN",
        7 => "CLOSE",
        8 => "CLOSE_WAIT",
        9 => "LAST_ACK",
        10 => "LISTEN",
        11 => "CLOSING",
        _ => return None,
    })
}

/// What has become of the notices of this namespace's sock_diag sockets.
pub struct Notices {
    /// Bytes that wait to be read.
    pub waiting: u64,
    /// Messages that the kernel had to drop.
    pub dropped: u64,
}

/// See [`Notices`].
pub fn notices() -> Notices {
    /// NETLINK_SOCK_DIAG.
    const SOCK_DIAG: &str = "4";
    let table =
        std::fs::read_to_string("/proc/thread-self/net/netlink").expect("/proc/net/netlink");
    let mut notices = Notices {
        waiting: 0,
        dropped: 0,
    };
    for line in table.lines().skip(1) {
        // sk, Eth, Pid, Groups, Rmem, Wmem, Dump, Locks, Drops, Inode.
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[1] == SOCK_DIAG {
            notices.waiting += words[4].parse::<u64>().expect("a count");
            notices.dropped += words[8].parse::<u64>().expect("a count");
        }
    }
    notices
}

/// Waits until the work queue that writes notices has nothing more to write:
/// while nobody reads them, they grow no more.
pub fn written() {
    let deadline = Instant::now() + PATIENCE;
    let (mut last, mut same) = (0, 0);
    while same < 20 {
        assert!(Instant::now() < deadline, "notices come without an end");
        let waiting = notices().waiting;
        same = if waiting == last && waiting > 0 {
            same + 1
        } else {
            0
        };
        last = waiting;
        std::thread::sleep(Duration::from_millis(10));
    }
}
