//! Resolved names, from a question to the event of the connect that follows it:
//! real packets, a real server, the real daemon.
//!
//! The destinations are addresses to which no route leads: a connect that fails
//! is one like any other, and takes less time. A question over TCP is a connect of
//! its own, to port 53, and nobody's business here.

mod many;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;

use super::watch::{Call, Watch, run};
use crate::dnsmasq::{A, AAAA, Dnsmasq, Resolver, answer, fresh_id, query};
use crate::sock::{Domain, Sock};

/// Where the servers listen.
const SERVER: &str = "127.0.0.1";

/// How a question travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Udp,
    Tcp,
}

/// The addresses of a name. A truncated answer is asked for again over TCP.
fn ask(resolver: Resolver, by: By, name: &str, kind: u16) -> Vec<IpAddr> {
    match by {
        By::Udp => resolver.resolve(name, kind),
        By::Tcp => resolver.resolve_tcp(name, kind),
    }
}

/// Connects to an address; `results` must be in the event.
fn connect(watch: &Watch, ip: IpAddr, results: &[&str]) {
    let domain = if ip.is_ipv4() { Domain::V4 } else { Domain::V6 };
    let client = Sock::tcp(domain);
    let to = SocketAddr::new(ip, 443);
    let call = Call::of(&client, to).resolved(results);
    watch.expect_call(call.clone());
    client.connect(to).expect_err("no route leads there");
    // Names that are answered before the event is written are in it.
    watch.reported(&call);
}

/// Asks, and connects to what is answered.
fn visit(watch: &Watch, server: &Dnsmasq, by: By, name: &str, results: &[&str]) {
    let addresses = [A, AAAA].map(|kind| ask(server.resolver(), by, name, kind));
    assert!(!addresses.concat().is_empty(), "{name} has an address");
    for ip in addresses.concat() {
        connect(watch, ip, results);
    }
}

/// Runs `body` beside a dnsmasq with this configuration and these hosts.
fn run_with(name: &str, conf: &[&str], hosts: &str, body: impl FnOnce(&Watch, &Dnsmasq)) {
    run(name, |watch| {
        watch.ignore_port(53);
        if let Some(server) = Dnsmasq::start(SERVER, conf, hosts) {
            body(watch, &server);
        }
    });
}

#[test]
fn addresses() {
    let hosts = "203.0.113.7 www.example\n2001:db8::7 www.example\n";
    run_with("connect::names::addresses", &[], hosts, |watch, server| {
        for by in [By::Udp, By::Tcp] {
            for kind in [A, AAAA] {
                assert_eq!(ask(server.resolver(), by, "www.example", kind).len(), 1);
            }
            visit(watch, server, by, "www.example", &["www.example"]);
        }
        connect(watch, "203.0.113.8".parse().expect("an address"), &[]);
    });
}

/// The question's name first, then what it leads to.
#[test]
fn chain() {
    let conf = [
        "cname=shop.example,cdn.example",
        "cname=cdn.example,edge.example",
        "cname=edge.example,host.example",
    ];
    let hosts = "203.0.113.7 host.example\n";
    run_with("connect::names::chain", &conf, hosts, |watch, server| {
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
    let hosts = "203.0.113.7 one.example\n203.0.113.7 two.example\n203.0.113.7 three.example\n";
    let name = "connect::names::one_address_with_three_names";
    run_with(name, &[], hosts, |watch, server| {
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
    let hosts = "203.0.113.7 www.example\n";
    run_with("connect::names::case", &[], hosts, |watch, server| {
        for asked in ["www.example", "WwW.eXample", "WWW.EXAMPLE"] {
            visit(watch, server, By::Udp, asked, &["www.example"]);
        }
    });
}

/// More addresses than a datagram of 512 bytes holds: it comes truncated, and
/// the whole of it over TCP.
#[test]
fn truncated() {
    let hosts: String = (1..=60)
        .map(|last| format!("203.0.113.{last} many.example\n"))
        .collect();
    run_with("connect::names::truncated", &[], &hosts, |watch, server| {
        let addresses = ask(server.resolver(), By::Udp, "many.example", A);
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
    let hosts = "203.0.113.7 www.example\n";
    run_with("connect::names::stub", &[], hosts, |watch, _server| {
        let conf = ["server=127.0.0.1", "cache-size=0"];
        if let Some(stub) = Dnsmasq::start("127.0.0.53", &conf, "") {
            visit(watch, &stub, By::Udp, "www.example", &["www.example"]);
            visit(watch, &stub, By::Tcp, "www.example", &["www.example"]);
        }
    });
}

const TRUE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const FALSE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);

/// Whoever answers with another id has not seen the question.
#[test]
fn spoofed() {
    run("connect::names::spoofed", |watch| {
        let socket = UdpSocket::bind((SERVER, 53)).expect("port 53 of a new namespace");
        let server = socket.local_addr().expect("bound");
        let thread = thread::spawn(move || {
            let mut buffer = [0; 512];
            let (length, from) = socket.recv_from(&mut buffer).expect("a question");
            let mut forged = answer(&buffer[..length], FALSE);
            forged[0] ^= 0x55;
            for answer in [forged, answer(&buffer[..length], TRUE)] {
                socket.send_to(&answer, from).expect("lo takes a datagram");
            }
        });
        // It passes over what has another id.
        let answered = ask(Resolver { server }, By::Udp, "www.example", A);
        assert_eq!(answered, [TRUE]);
        thread.join().expect("it did not panic");
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
        let forged = answer(&query(fresh_id(), "www.example", A), FALSE);
        server
            .send_to(&forged, client.local_addr().expect("bound"))
            .expect("lo takes a datagram");
        client.recv(&mut [0; 512]).expect("it has come");
        connect(watch, FALSE.into(), &[]);
    });
}
