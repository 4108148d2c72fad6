//! The counters of a notice against the kernel's own structure, as a C compiler
//! lays it out, and as shorter, older kernels send it.

use std::mem::offset_of;

use sockwatch::model::TcpInfo;
use sockwatch::wire::sock_diag;

use crate::fixture;

/// `struct tcp_info` (linux/tcp.h of Linux 6.18), every field in its place.
#[repr(C)]
#[allow(dead_code, reason = "only the offsets matter")]
struct Layout {
    bytes: [u8; 8],
    rto_ato_mss: [u32; 4],
    unacked_to_fackets: [u32; 5],
    last_data_sent: u32,
    last_ack_sent: u32,
    last_data_recv: u32,
    last_ack_recv: u32,
    pmtu: u32,
    rcv_ssthresh: u32,
    rtt: u32,
    rttvar: u32,
    snd_ssthresh: u32,
    snd_cwnd: u32,
    advmss: u32,
    reordering: u32,
    rcv_rtt: u32,
    rcv_space: u32,
    total_retrans: u32,
    pacing_rate: u64,
    max_pacing_rate: u64,
    bytes_acked: u64,
    bytes_received: u64,
    segs_out: u32,
    segs_in: u32,
    notsent_bytes: u32,
    min_rtt: u32,
    data_segs_in: u32,
    data_segs_out: u32,
    delivery_rate: u64,
    busy_time: u64,
    rwnd_limited: u64,
    sndbuf_limited: u64,
    delivered: u32,
    delivered_ce: u32,
    bytes_sent: u64,
    bytes_retrans: u64,
}

/// One field: its name, where it ends, and what was read of it.
type Field = (&'static str, usize, Option<u64>);

/// What the bytes say, by the structure; a field that does not fit in them is
/// not told.
fn by_layout(info: &[u8]) -> Vec<Field> {
    macro_rules! fields {
        ($($field:ident: $type:ty),*) => {
            vec![$({
                let end = offset_of!(Layout, $field) + size_of::<$type>();
                let value = info
                    .get(offset_of!(Layout, $field)..end)
                    .map(|bytes| <$type>::from_ne_bytes(bytes.try_into().expect("its size")).into());
                (stringify!($field), end, value)
            }),*]
        };
    }
    fields![
        last_data_sent: u32, last_data_recv: u32, rtt: u32, advmss: u32, rcv_space: u32,
        total_retrans: u32, bytes_received: u64, segs_out: u32, segs_in: u32, bytes_sent: u64,
        bytes_retrans: u64
    ]
}

/// The same fields as the reader gives them: those that every kernel with
/// notices has are plain numbers, 0 where they are missing.
fn as_read(tcp: &TcpInfo, fields: &[Field]) -> Vec<Field> {
    let values = [
        Some(tcp.last_data_sent_ms.into()),
        Some(tcp.last_data_recv_ms.into()),
        Some(tcp.rtt_us.into()),
        Some(tcp.advmss.into()),
        Some(tcp.rcv_space.into()),
        Some(tcp.total_retrans.into()),
        tcp.bytes_received,
        tcp.segs_out.map(u64::from),
        tcp.segs_in.map(u64::from),
        tcp.bytes_sent,
        tcp.bytes_retrans,
    ];
    let read = fields.iter().zip(values);
    read.map(|(&(name, end, told), value)| match (told, value) {
        (None, Some(0)) if end <= 104 => (name, end, None),
        _ => (name, end, value),
    })
    .collect()
}

/// The payload up to the INFO attribute, that attribute's value, and the rest.
fn split(payload: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let mut at = 72;
    while let Some(head) = payload.get(at..at + 4) {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        if head[2..4] == 2_u16.to_ne_bytes() {
            return (
                &payload[..at],
                &payload[at + 4..at + length],
                &payload[at + length..],
            );
        }
        at += length.next_multiple_of(4);
    }
    panic!("a TCP notice without tcp_info");
}

fn with_info(before: &[u8], info: &[u8], after: &[u8]) -> Vec<u8> {
    let mut payload = before.to_vec();
    payload.extend(u16::try_from(info.len() + 4).expect("short").to_ne_bytes());
    payload.extend(2_u16.to_ne_bytes());
    payload.extend(info);
    payload.resize(payload.len().next_multiple_of(4), 0);
    payload.extend(after);
    payload
}

#[test]
fn fields_lie_where_the_structure_has_them() {
    let mut seen = vec![false; 11];
    for fixture in fixture::tcp_notices() {
        for payload in fixture.sockets() {
            let (_, info, _) = split(payload);
            let fields = by_layout(info);
            let tcp = sock_diag::notice(payload)
                .expect("a kernel's notice")
                .tcp
                .expect("of TCP");
            assert_eq!(as_read(&tcp, &fields), fields, "{}", fixture.name);
            for (seen, (_, _, value)) in seen.iter_mut().zip(&fields) {
                *seen |= value.is_some_and(|value| value != 0);
            }
        }
    }
    // Where all are 0, any offset would do. A loop-back retransmits nothing.
    let names: Vec<&str> = by_layout(&[]).iter().map(|(name, ..)| *name).collect();
    let never: Vec<&str> = names
        .into_iter()
        .zip(seen)
        .filter(|(_, seen)| !seen)
        .map(|(name, _)| name)
        .collect();
    assert_eq!(never, [""; 0], "no fixture has a value here");
}

/// The same with a value of its own in every byte.
#[test]
fn no_field_is_read_from_a_neighbour() {
    let fixture = &fixture::tcp_notices()[0];
    let (before, info, after) = split(fixture.sockets()[0]);
    let numbered: Vec<u8> = (0..info.len()).map(|at| (at % 251) as u8 + 1).collect();
    let payload = with_info(before, &numbered, after);
    let tcp = sock_diag::notice(&payload)
        .expect("well-formed")
        .tcp
        .expect("of TCP");
    let fields = by_layout(&numbered);
    assert_eq!(as_read(&tcp, &fields), fields);
}

#[test]
fn an_older_kernels_shorter_structure_leaves_fields_unknown() {
    for fixture in fixture::tcp_notices() {
        let payload = fixture.sockets()[0];
        let (before, info, after) = split(payload);
        let whole = sock_diag::notice(payload).expect("a kernel's notice");
        for length in (0..=info.len()).step_by(4) {
            let shorter = with_info(before, &info[..length], after);
            let notice = sock_diag::notice(&shorter).expect("shorter, not malformed");
            let fields = by_layout(&info[..length]);
            let tcp = notice.tcp.expect("of TCP");
            assert_eq!(
                as_read(&tcp, &fields),
                fields,
                "{} with {length} bytes",
                fixture.name
            );
            assert_eq!((notice.cookie, notice.id), (whole.cookie, whole.id));
        }
    }
}
