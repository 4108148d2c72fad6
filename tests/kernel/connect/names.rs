//! Resolved names, from a question to the event of the connect that follows it:
//! real packets, a real server, the real daemon.
//!
//! The destinations are addresses to which no route leads: a connect that fails
//! is one like any other, and takes less time.

mod ask;
mod many;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;

use super::watch::{Call, Watch, run};
use crate::dnsmasq::Dnsmasq;
use crate::sock::{Domain, Sock};
use ask::{By, Kind, ask, question};

/// Where the servers listen.
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Connects to an address; `results` must be in the event.
fn connect(watch: &Watch, ip: IpAddr, results: &[&str]) {
    let domain = if ip.is_ipv4() { Domain::V4 } else { Domain::V6 };
    let client = Sock::tcp(domain);
    let to = SocketAddr::new(ip, 443);
    watch.expect_call(Call::of(&client, to).resolved(results));
    client.connect(to).expect_err("no route leads there");
}

/// Asks, and connects to what is answered.
fn visit(watch: &Watch, server: &Dnsmasq, by: By, name: &str, results: &[&str]) {
    for kind in [Kind::A, Kind::Aaaa] {
        for ip in ask(server.address, by, name, kind) {
            connect(watch, ip, results);
        }
    }
}

/// Runs `body` beside a dnsmasq with this configuration.
fn run_with(name: &str, lines: &str, body: impl FnOnce(&Watch, &Dnsmasq)) {
    run(name, |watch| {
        if let Some(server) = Dnsmasq::start(name, SERVER, lines) {
            body(watch, &server);
        }
    });
}

#[test]
fn addresses() {
    let lines = "host-record=www.example,203.0.113.7,2001:db8::7\n";
    run_with("connect::names::addresses", lines, |watch, server| {
        for by in [By::Udp, By::Tcp] {
            assert_eq!(ask(server.address, by, "www.example", Kind::A).len(), 1);
            assert_eq!(ask(server.address, by, "www.example", Kind::Aaaa).len(), 1);
            visit(watch, server, by, "www.example", &["www.example"]);
        }
        connect(watch, "203.0.113.8".parse().expect("an address"), &[]);
    });
}

/// The question's name first, then what it leads to.
#[test]
fn chain() {
    let lines = "cname=shop.example,cdn.example\ncname=cdn.example,edge.example\n\
                 cname=edge.example,host.example\nhost-record=host.example,203.0.113.7\n";
    run_with("connect::names::chain", lines, |watch, server| {
        let results = [
            "shop.example",
            "cdn.example",
            "edge.example",
            "host.example",
        ];
        visit(watch, server, By::Udp, "shop.example", &results);
    });
}

/// The newest answer first, and none twice.
#[test]
fn one_address_with_three_names() {
    let lines = "host-record=one.example,203.0.113.7\nhost-record=two.example,203.0.113.7\n\
                 host-record=three.example,203.0.113.7\n";
    let name = "connect::names::one_address_with_three_names";
    run_with(name, lines, |watch, server| {
        let (one, two, three) = ("one.example", "two.example", "three.example");
        visit(watch, server, By::Udp, one, &[one]);
        visit(watch, server, By::Udp, two, &[two, one]);
        visit(watch, server, By::Udp, three, &[three, two, one]);
        visit(watch, server, By::Udp, one, &[one, three, two]);
    });
}

/// Names are the same in any case, and told in lower case.
#[test]
fn case() {
    let lines = "host-record=www.example,203.0.113.7\n";
    run_with("connect::names::case", lines, |watch, server| {
        for asked in ["www.example", "WwW.eXample", "WWW.EXAMPLE"] {
            visit(watch, server, By::Udp, asked, &["www.example"]);
        }
    });
}

/// More addresses than a datagram of 512 bytes holds: it comes truncated, and
/// the whole of it over TCP.
#[test]
fn truncated() {
    let lines: String = (1..=60)
        .map(|last| format!("host-record=many.example,203.0.113.{last}\n"))
        .collect();
    run_with("connect::names::truncated", &lines, |watch, server| {
        let addresses = ask(server.address, By::Udp, "many.example", Kind::A);
        assert_eq!(addresses.len(), 60);
        for ip in addresses {
            connect(watch, ip, &["many.example"]);
        }
    });
}

/// A resolver on loopback that asks another one: the name comes by twice, and is
/// told once.
#[test]
fn stub() {
    let lines = "host-record=www.example,203.0.113.7\n";
    let name = "connect::names::stub";
    run_with(name, lines, |watch, _server| {
        let stub = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));
        let lines = "server=127.0.0.1\ncache-size=0\n";
        if let Some(stub) = Dnsmasq::start(name, stub, lines) {
            visit(watch, &stub, By::Udp, "www.example", &["www.example"]);
            visit(watch, &stub, By::Tcp, "www.example", &["www.example"]);
        }
    });
}

/// The answer to a query: one address, for an hour.
fn answer(query: &[u8], ip: Ipv4Addr) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[7] = 1;
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4]);
    answer.extend(ip.octets());
    answer
}

const TRUE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const FALSE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);

/// Whoever answers with another id has not seen the question.
#[test]
fn spoofed() {
    run("connect::names::spoofed", |watch| {
        let socket = UdpSocket::bind((SERVER, 53)).expect("port 53 of a new namespace");
        let address = socket.local_addr().expect("bound");
        let server = thread::spawn(move || {
            let mut buffer = [0; 512];
            let (length, from) = socket.recv_from(&mut buffer).expect("a question");
            let query = &buffer[..length];
            let mut forged = answer(query, FALSE);
            forged[0] ^= 0x55;
            // Not to the client's socket, which would take it for the answer.
            // All that a listener on the wire sees of it is the same.
            let other = UdpSocket::bind((SERVER, 0)).expect("a port");
            socket
                .send_to(&forged, other.local_addr().expect("bound"))
                .expect("lo takes a datagram");
            socket
                .send_to(&answer(query, TRUE), from)
                .expect("lo takes a datagram");
        });
        assert_eq!(ask(address, By::Udp, "www.example", Kind::A), [TRUE]);
        server.join().expect("it did not panic");
        connect(watch, TRUE.into(), &["www.example"]);
        connect(watch, FALSE.into(), &[]);
    });
}

/// An answer to a question that nobody has asked.
#[test]
fn unasked() {
    run("connect::names::unasked", |watch| {
        let server = UdpSocket::bind((SERVER, 53)).expect("port 53 of a new namespace");
        let client = UdpSocket::bind((SERVER, 0)).expect("a port");
        let forged = answer(&question("www.example", Kind::A), FALSE);
        server
            .send_to(&forged, client.local_addr().expect("bound"))
            .expect("lo takes a datagram");
        client.recv(&mut [0; 512]).expect("it has come");
        connect(watch, FALSE.into(), &[]);
    });
}
