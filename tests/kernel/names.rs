//! Reverse names, against a DNS server of the test's own.
//!
//! In the namespace of a test the resolver is that of the C library as users
//! have it, pointed at [`server`] by files laid over those in /etc. Addresses
//! that `skip-reverse-dns` does not know are on `lo`. The sensors watch peers in
//! one of these networks only, so the sockets of the resolver itself, whose peer
//! is 127.0.0.1:53, are nobody's business here.

mod answers;
mod hostile;
mod printed;
mod server;
mod waiting;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::expect::{Expect, SILENT, Traffic};
use crate::netns::{Sandbox, check, replace_file};
use crate::proc_net;
use crate::sock::{Domain, Ident, Sock};
use server::Server;

/// Documentation addresses (RFC 5737, RFC 3849), which no list of special
/// addresses skips.
const WEB: IpAddr = web(7);
const WEB6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);

/// An address of 203.0.113.0/24.
const fn web(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, last))
}

/// An address of 198.51.100.0/24.
const fn far(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, last))
}

/// The patterns of a sensor that watches what connects to [`web`] and [`WEB6`].
const WEB_ONLY: &str = r#""* * 203.0.113.*:* * *", "* * [2001:db8::*]:* * *""#;

/// Runs `body` where the resolver asks this server, and nothing else.
fn run(name: &str, body: impl FnOnce(&Server)) {
    run_with_hosts(name, "", body);
}

/// The same, where it looks into this text as /etc/hosts first.
fn run_with_hosts(name: &str, hosts: &str, body: impl FnOnce(&Server)) {
    Sandbox::default().mounts().run(name, || {
        // The resolver gives up after everything in a test has: it is dns-timeout
        // that ends a wait.
        let resolv = "nameserver 127.0.0.1\noptions timeout:30 attempts:1\n";
        for (path, text) in [
            ("/etc/resolv.conf", resolv),
            ("/etc/nsswitch.conf", "hosts: files dns\n"),
            ("/etc/hosts", hosts),
        ] {
            replace_file(path, text)
                .unwrap_or_else(|error| panic!("{path} cannot be replaced: {error}"));
        }
        // With the mask of its class, each is a network of which every address
        // is this host's, since it is on `lo`.
        for (label, ip) in [
            ("lo:1", [203, 0, 113, 1]),
            ("lo:2", [198, 51, 100, 1]),
            ("lo:3", [10, 1, 1, 1]),
            ("lo:4", [192, 168, 1, 1]),
        ] {
            add_ipv4(label, ip.into());
        }
        add_ipv6(WEB6);
        body(&Server::start());
    });
}

/// One sensor, `sockets`, that watches what connects to [`web`] and looks names
/// up, with these arguments besides.
fn sensor(args: &str) -> String {
    format!(
        "  sockets: {{listener: net.socket, args: {{patterns: [{WEB_ONLY}], dns: true{args}}}}}\n"
    )
}

/// A TCP listener on this address.
fn listen(ip: IpAddr) -> Sock {
    let listener = Sock::tcp(Domain::V4);
    listener.bind(SocketAddr::new(ip, 0));
    listener.listen(64);
    listener
}

/// A connection to a listener of [`listen`], and its accepted peer, which no
/// sensor watches: it sees 127.0.0.1.
fn call(listener: &Sock) -> (Sock, Sock) {
    let client = Sock::tcp(Domain::V4);
    client.bind_loopback();
    client
        .connect(listener.local())
        .expect("a listener on lo takes connections");
    (client, listener.accept())
}

/// Closes a client of [`call`]; afterwards no row shows it on its way out.
fn close(client: Sock) -> Ident {
    let ident = client.close();
    proc_net::quiet();
    ident
}

/// A UDP socket connected to this address, where nobody needs to be. It has a
/// port before it has a peer, and a tick can come in between.
fn datagrams(domain: Domain, ip: IpAddr) -> Sock {
    let socket = Sock::udp(domain);
    socket
        .connect(SocketAddr::new(ip, 4000))
        .expect("an address on lo");
    socket
}

/// Opened and closed by a connection that a dump has read.
fn tcp_events(ident: Ident) -> [Expect; 2] {
    Expect::read(ident, "ESTABLISHED", "ESTABLISHED", SILENT)
}

/// The same for a connected UDP socket.
fn udp_events(ident: Ident) -> [Expect; 2] {
    Expect::read(ident, "ESTABLISHED", "ESTABLISHED", Traffic::None)
}

/// Gives an interface alias an address (netdevice(7)).
fn add_ipv4(label: &str, ip: Ipv4Addr) {
    let socket = Sock::udp(Domain::V4);
    // SAFETY: an ifreq of zeros is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(label.bytes()) {
        *to = from as libc::c_char;
    }
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr {
            s_addr: u32::from(ip).to_be(),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: the request's address is as large as any sockaddr_in, and the
    // kernel reads the ifreq, which lives across the call.
    check(unsafe {
        (&raw mut request.ifr_ifru.ifru_addr)
            .cast::<libc::sockaddr_in>()
            .write_unaligned(address);
        libc::ioctl(socket.raw(), libc::SIOCSIFADDR, &raw const request)
    })
    .unwrap_or_else(|error| panic!("{ip} cannot be put on lo: {error}"));
}

/// Gives `lo` an IPv6 address (ipv6(7)).
fn add_ipv6(ip: Ipv6Addr) {
    let socket = Sock::udp(Domain::V6);
    let request = libc::in6_ifreq {
        ifr6_addr: libc::in6_addr {
            s6_addr: ip.octets(),
        },
        ifr6_prefixlen: 128,
        // `lo` is the first interface of every namespace.
        ifr6_ifindex: 1,
    };
    // SAFETY: SIOCSIFADDR reads the request, which lives across the call.
    check(unsafe { libc::ioctl(socket.raw(), libc::SIOCSIFADDR, &raw const request) })
        .unwrap_or_else(|error| panic!("{ip} cannot be put on lo: {error}"));
}
