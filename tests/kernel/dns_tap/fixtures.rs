//! The packets of `fixtures/dns/`, live: what the tap makes of them. With
//! SOCKWATCH_CAPTURE_DNS set to a directory they are written there, each with what
//! it says: this is how the fixtures were made.

use std::path::PathBuf;

use sockwatch::model::Answer;
use sockwatch::sys::{Packets, Way};

use super::{Tapped, ip};
use crate::dnsmasq::{A, AAAA, Dnsmasq, Resolver};
use crate::netns;

/// Every packet there is: how it went, its length, its bytes.
fn packets(socket: &Packets) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while let Some(received) = socket.recv(&mut buffer).expect("it can be read") {
        bytes.push(match received.way {
            Way::Out => b'o',
            Way::In => b'i',
            Way::Within => b'w',
        });
        let length = u16::try_from(received.length).expect("a packet");
        bytes.extend(length.to_be_bytes());
        bytes.extend(&buffer[..received.length]);
    }
    bytes
}

/// An answer in one line: its names, and its addresses with their TTL.
fn line(answer: &Answer) -> String {
    let names: Vec<_> = answer.names.iter().map(ToString::to_string).collect();
    let addresses: Vec<_> = answer
        .addresses
        .iter()
        .map(|found| format!("{}/{}", found.ip, found.ttl))
        .collect();
    format!("{} = {}\n", names.join(" "), addresses.join(" "))
}

fn capture(name: &str, look_up: impl FnOnce()) {
    let socket = Packets::open(1 << 20).expect("root of its namespace may");
    let mut tap = Tapped::open();
    look_up();
    tap.drain();
    let text: String = tap.answers.iter().map(line).collect();
    assert!(!text.is_empty(), "{name}");
    let bytes = packets(&socket);
    assert!(!bytes.is_empty(), "{name}");
    if let Some(directory) = std::env::var_os("SOCKWATCH_CAPTURE_DNS").map(PathBuf::from) {
        let write = |ending, bytes: &[u8]| {
            std::fs::write(directory.join(name).with_extension(ending), bytes)
        };
        write("bin", &bytes).expect("SOCKWATCH_CAPTURE_DNS is a directory to write to");
        write("txt", text.as_bytes()).expect("as the other");
    }
}

#[test]
fn as_dnsmasq_sends_them() {
    netns::run("dns_tap::fixtures::as_dnsmasq_sends_them", || {
        let conf = [
            "host-record=host.test,192.0.2.1,2001:db8::1,300",
            "cname=alias.test,middle.test,200",
            "cname=middle.test,last.test,100",
            "cname=last.test,host.test,300",
        ];
        let hosts: String = (1..=40)
            .map(|n| format!("198.51.100.{n} many.test\n"))
            .collect();
        let Some(server) = Dnsmasq::start("127.0.0.1", &conf, &hosts) else {
            return;
        };
        let Some(stub) = Dnsmasq::start("127.0.0.53", &["server=127.0.0.1"], "") else {
            return;
        };
        let Some(six) = Dnsmasq::start("::1", &conf, "") else {
            return;
        };
        let ask = |resolver: Resolver, name: &str, kind| {
            assert!(!resolver.resolve(name, kind).is_empty());
        };
        capture("chain", || ask(server.resolver(), "Alias.test", A));
        capture("over-ipv6", || ask(six.resolver(), "host.test", AAAA));
        capture("stub", || ask(stub.resolver(), "alias.test", A));
        capture("truncated-then-tcp", || {
            ask(server.resolver(), "many.test", A);
        });
        capture("tcp", || {
            let found = server.resolver().resolve_tcp("host.test", A);
            assert_eq!(found, [ip("192.0.2.1")]);
        });
    });
}
