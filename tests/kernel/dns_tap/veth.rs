//! A resolver in another network namespace, behind a veth pair: queries leave and
//! answers come in, and for whoever serves it is the other way round.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::mpsc;

use super::{Tapped, ip};
use crate::dnsmasq::{A, Resolver, answer, framed, read_framed};
use crate::netns::{self, check};

/// Runs ip(8) in the namespace of the calling thread; says whether it could.
fn run(line: &str) -> bool {
    let status = Command::new("ip").args(line.split(' ')).status();
    status.is_ok_and(|status| status.success())
}

/// What the server side saw: the counters of a tap of its own.
type Seen = std::collections::BTreeMap<&'static str, u64>;

/// Serves `count` queries of each transport in a namespace of its own, with a tap
/// there.
fn serve(count: usize, ready: &mpsc::Sender<i32>, go: &mpsc::Receiver<()>) -> Seen {
    // SAFETY: unshare(2) takes no pointers; the namespace is that of this thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).expect("root may");
    // SAFETY: gettid(2) takes nothing.
    ready
        .send(unsafe { libc::gettid() })
        .expect("the test waits");
    go.recv().expect("the test goes on");
    for line in [
        "addr add 10.9.0.2/24 dev veth1",
        "addr add fd09::2/64 dev veth1 nodad",
        "link set veth1 up",
    ] {
        assert!(run(line), "ip {line}");
    }
    let udp = UdpSocket::bind("[::]:53").expect("port 53 is free");
    let tcp = TcpListener::bind("[::]:53").expect("port 53 is free");
    let mut tap = Tapped::open();
    ready.send(0).expect("the test waits");
    let mut buffer = [0; 512];
    for _ in 0..count {
        let (length, from) = udp.recv_from(&mut buffer).expect("bound");
        let reply = answer(&buffer[..length], Ipv4Addr::new(192, 0, 2, 1));
        udp.send_to(&reply, from).expect("a way back");
        let (mut stream, _) = tcp.accept().expect("listens");
        let reply = answer(&read_framed(&mut stream), Ipv4Addr::new(192, 0, 2, 2));
        std::io::Write::write_all(&mut stream, &framed(&reply)).expect("a connection");
    }
    tap.drain();
    assert!(tap.answers.is_empty());
    tap.counts()
}

#[test]
fn a_server_in_another_namespace() {
    netns::run("dns_tap::veth::a_server_in_another_namespace", || {
        let (ready, is_ready) = mpsc::channel();
        let (go, goes) = mpsc::channel();
        let server = std::thread::spawn(move || serve(2, &ready, &goes));
        let tid = is_ready.recv().expect("the server starts");
        if !run(&format!(
            "link add veth0 type veth peer name veth1 netns {tid}"
        )) {
            return netns::skip("no veth pair to be had");
        }
        go.send(()).expect("the server waits");
        for line in [
            "addr add 10.9.0.1/24 dev veth0",
            "addr add fd09::1/64 dev veth0 nodad",
            "link set veth0 up",
        ] {
            assert!(run(line), "ip {line}");
        }
        is_ready.recv().expect("the server is ready");
        let mut tap = Tapped::open();
        for server in ["10.9.0.2", "fd09::2"] {
            let resolver = Resolver {
                server: SocketAddr::new(ip(server), 53),
            };
            let (over_udp, over_tcp) = (format!("u.{server}"), format!("t.{server}"));
            let name = |text: &str| text.replace(':', "-");
            let (over_udp, over_tcp) = (name(&over_udp), name(&over_tcp));
            assert_eq!(resolver.resolve(&over_udp, A), [ip("192.0.2.1")]);
            assert_eq!(tap.names(ip("192.0.2.1")).unwrap()[0], over_udp);
            assert_eq!(resolver.resolve_tcp(&over_tcp, A), [ip("192.0.2.2")]);
            assert_eq!(tap.names(ip("192.0.2.2")).unwrap()[0], over_tcp);
        }
        let counts = tap.counts();
        assert_eq!(counts, [("dns_answers", 4), ("dns_queries", 4)].into());
        // The same packets seen from the other end are nobody's answers.
        assert_eq!(server.join().expect("the server ends well"), Seen::new());
    });
}
