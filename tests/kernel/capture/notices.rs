//! Destruction notices: one for each way in which a socket can end.

use std::time::{Duration, Instant};

use sockwatch::sys::Netlink;

use super::{ends, hold, nobody, receive, word};
use crate::daemon::PATIENCE;
use crate::lines::{Ends, Holds};
use crate::netns;
use crate::sock::{Domain, Sock};

/// A socket that hears of all ends.
fn joined() -> Netlink {
    let netlink = Netlink::open().expect("sock_diag");
    for group in sockwatch::source::Group::ALL {
        netlink
            .join(group.number())
            .expect("the groups can be joined without privilege");
    }
    netlink
}

/// Closes a socket and holds its notice against what is expected of it.
fn close(name: &str, socket: Sock, expected: String) {
    let netlink = joined();
    let cookie = socket.cookie;
    drop(socket);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let notice = receive(&netlink);
        // idiag_cookie, behind nlmsghdr and 44 bytes: not by the reader that is
        // being tested.
        let [low, high] = [&notice[60..64], &notice[64..68]]
            .map(|word| u64::from(u32::from_ne_bytes(word.try_into().expect("four bytes"))));
        if high << 32 | low == cookie {
            return hold(name, &notice, Holds::Notices, vec![expected]);
        }
        assert!(Instant::now() < deadline, "{name}: no notice");
    }
}

fn line(ends: Ends, end: &str) -> String {
    format!("notice {} {end}", ends.line())
}

#[test]
fn notices() {
    netns::run("capture::notices::notices", || {
        for domain in Domain::ALL {
            let of = word(domain);
            tcp(of, domain);
            udp(of, domain);
        }
        retransmitted();
    });
}

fn tcp(of: &str, domain: Domain) {
    let listener = Sock::listener(domain);
    let (client, server) = Sock::pair(&listener);
    client.send(11);
    server.receive(11);
    server.send(7);
    client.receive(7);
    // The times since data was last sent and received are whole milliseconds.
    std::thread::sleep(Duration::from_millis(20));
    let expected = line(ends(&client), "ESTABLISHED sent=11 received=7");
    close(&format!("notice-tcp-{of}-close"), client, expected);

    let (client, _server) = Sock::pair(&listener);
    client.reset_on_close();
    let expected = line(wiped(&client), "ESTABLISHED wiped sent=0 received=0");
    close(&format!("notice-tcp-{of}-linger-0"), client, expected);

    let client = Sock::tcp(domain);
    client
        .connect(nobody(domain))
        .expect_err("nobody listens there");
    let expected = line(wiped(&client), "SYN_SENT wiped sent=0 received=0");
    close(&format!("notice-tcp-{of}-refused"), client, expected);

    let expected = line(ends(&listener), "CLOSE sent=0 received=0");
    close(&format!("notice-tcp-{of}-listener"), listener, expected);
}

fn udp(of: &str, domain: Domain) {
    let connected = Sock::udp(domain);
    connected
        .connect(nobody(domain))
        .expect("a UDP connect asks nobody");
    let expected = line(ends(&connected), "ESTABLISHED");
    close(&format!("notice-udp-{of}-connected"), connected, expected);

    let bound = Sock::udp(domain);
    bound.bind_loopback();
    let expected = line(ends(&bound), "UNCONN");
    close(&format!("notice-udp-{of}-bound"), bound, expected);

    // A socket never bound has no mapped address either.
    if domain != Domain::Mapped {
        let unbound = Sock::udp(domain);
        let expected = line(ends(&unbound), "UNCONN");
        close(&format!("notice-udp-{of}-unbound"), unbound, expected);
    }
}

/// A connection on which data had to be sent twice: a socket filter at its
/// peer drops what comes, for a while.
fn retransmitted() {
    let listener = Sock::listener(Domain::V4);
    let (client, server) = Sock::pair(&listener);
    // BPF_RET | BPF_K: accept 0 bytes.
    let mut refuse = [libc::sock_filter {
        code: 6,
        jt: 0,
        jf: 0,
        k: 0,
    }];
    let program = libc::sock_fprog {
        len: 1,
        filter: refuse.as_mut_ptr(),
    };
    server.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program);
    client.send(11);
    let deadline = Instant::now() + PATIENCE;
    while retransmits(&client) == 0 {
        assert!(Instant::now() < deadline, "nothing was sent again");
        std::thread::sleep(Duration::from_millis(5));
    }
    server.set(libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0 as libc::c_int);
    server.receive(11);
    // What is counted as sent is what was given to send().
    let expected = line(ends(&client), "ESTABLISHED sent=11 received=0");
    close("notice-tcp-v4-retransmitted", client, expected);
}

/// `tcpi_total_retrans` by TCP_INFO.
fn retransmits(socket: &Sock) -> u32 {
    let mut info = [0_u32; 64];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: `info` is writable for `length` bytes, and any bytes are u32s.
    netns::check(unsafe {
        libc::getsockopt(
            socket.raw(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    })
    .expect("TCP_INFO");
    info[25]
}

/// A socket as tcp_disconnect() leaves it.
fn wiped(socket: &Sock) -> Ends {
    let ident = socket.ident().wiped(true);
    Ends {
        local: ident.local,
        remote: ident.remote,
        ..ends(socket)
    }
}
