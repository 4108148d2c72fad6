//! Names never seen before, looked up as fast as it goes from two processes: of
//! each look-up that has returned, the name is known.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Command, Stdio};
use std::rc::Rc;

use sockwatch::model::Now;
use sockwatch::source::DnsTap;
use sockwatch::stats::Stats;

use super::{Tapped, ip};
use crate::dnsmasq::{A, Resolver, answer, framed, query, read_framed};
use crate::netns;

/// Names that each process looks up.
const EACH: usize = 500;
/// Set in a process that looks up: its number, and `udp` or `tcp`.
const ASKER: &str = "SOCKWATCH_TEST_ASKER";

/// The address of a name `n<number>.burst.test`.
fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(198, 18, high, low)
}

/// The address of the name that a query asks for.
fn address_of(query: &[u8]) -> Ipv4Addr {
    let length = usize::from(query[12]);
    let text = std::str::from_utf8(&query[14..13 + length]).expect("digits");
    address(text.parse().expect("a number"))
}

/// Serves UDP and TCP of `127.0.0.1:53` until the process ends.
fn serve() {
    let socket = UdpSocket::bind("127.0.0.1:53").expect("port 53 is free");
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).expect("bound");
            let query = &buffer[..length];
            let sent = socket.send_to(&answer(query, address_of(query)), from);
            sent.expect("lo takes a datagram");
        }
    });
    let listener = TcpListener::bind("127.0.0.1:53").expect("port 53 is free");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let query = read_framed(&mut stream);
            let reply = framed(&answer(&query, address_of(&query)));
            std::io::Write::write_all(&mut stream, &reply).expect("a connection");
        }
    });
}

/// What a process that looks up does: writes each name and address that it got.
fn ask(number: usize, transport: &str) {
    let resolver = Resolver {
        server: SocketAddr::new(ip("127.0.0.1"), 53),
    };
    for n in number * EACH..(number + 1) * EACH {
        let name = format!("n{n}.burst.test");
        let found = if transport == "tcp" {
            resolver.resolve_tcp(&name, A)
        } else {
            resolver.resolve(&name, A)
        };
        println!("got {name} {}", found[0]);
    }
}

fn burst(test: &str, transport: &str) {
    if let Some(number) = std::env::var_os(ASKER) {
        let number = number.to_str().and_then(|number| number.parse().ok());
        return ask(number.expect("a number"), transport);
    }
    netns::run(test, || {
        serve();
        let mut tap = Tapped::open();
        let exe = std::env::current_exe().expect("the test binary has a path");
        let askers: Vec<_> = (0..2)
            .map(|number: usize| {
                let mut command = Command::new(&exe);
                command
                    .args(["--exact", test, "--nocapture"])
                    .env(ASKER, number.to_string())
                    .stdout(Stdio::piped());
                command.spawn().expect("this binary can be started")
            })
            .collect();
        let (send, lines) = std::sync::mpsc::channel::<String>();
        for mut asker in askers {
            let send = send.clone();
            let pipe = asker.stdout.take().expect("piped");
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines() {
                    // Nobody listens any more when the test has failed.
                    drop(send.send(line.expect("text")));
                }
                assert!(asker.wait().expect("one's own child").success());
            });
        }
        drop(send);
        let mut seen = 0;
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            // The test runner's own words may stand before the first.
            let Some(at) = words.iter().position(|word| word.ends_with("got")) else {
                continue;
            };
            let address: IpAddr = ip(words[at + 2]);
            assert_eq!(tap.names(address).unwrap(), [words[at + 1]]);
            seen += 1;
        }
        assert_eq!(seen, 2 * EACH);
        let counts = tap.counts();
        let all = 2 * EACH as u64;
        assert_eq!(counts, [("dns_answers", all), ("dns_queries", all)].into());
    });
}

#[test]
fn a_thousand_names_over_udp() {
    burst("dns_tap::burst::a_thousand_names_over_udp", "udp");
}

#[test]
fn a_thousand_names_over_tcp() {
    burst("dns_tap::burst::a_thousand_names_over_tcp", "tcp");
}

/// More than the receive buffer holds: what was read and what was dropped are all
/// there was.
#[test]
fn what_the_kernel_drops_is_told() {
    netns::run("dns_tap::burst::what_the_kernel_drops_is_told", || {
        const ALL: u64 = 30_000;
        let stats = Rc::new(Stats::default());
        let mut tap = DnsTap::open(Rc::clone(&stats)).expect("root of its namespace may");
        let server = UdpSocket::bind("127.0.0.1:53").expect("port 53 is free");
        let client = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let to = client.local_addr().expect("bound");
        let nothing = answer(&query(1, "n1.burst.test", A), address(1));
        for _ in 0..ALL {
            server.send_to(&nothing, to).expect("lo takes a datagram");
        }
        let mut dropped = 0;
        loop {
            let drained = tap.drain(Now::read(), &mut |_| panic!("nobody asked"));
            let drained = drained.expect("a tap can be read");
            dropped += drained.dropped;
            if !drained.more {
                break;
            }
        }
        assert!(dropped > 0);
        assert_eq!(stats.dns_dropped.count(), dropped);
        assert_eq!(stats.dns_unmatched.count() + dropped, ALL);
    });
}
