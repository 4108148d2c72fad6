//! Answers that nobody asked for.

use std::net::{Ipv4Addr, UdpSocket};

use sockwatch::model::NoResults;

use super::{Tapped, ip};
use crate::dnsmasq::{A, answer, query};
use crate::netns;

#[test]
fn only_the_answer_that_was_asked_for_counts() {
    netns::run(
        "dns_tap::forged::only_the_answer_that_was_asked_for_counts",
        || {
            let server = UdpSocket::bind("127.0.0.1:53").expect("port 53 is free");
            let other = UdpSocket::bind("127.0.0.2:53").expect("port 53 is free");
            let client = UdpSocket::bind("127.0.0.1:0").expect("a free port");
            let to = client.local_addr().expect("bound");
            let mut tap = Tapped::open();

            let good = query(77, "bank.test", A);
            let answered = |query: &[u8], last| answer(query, Ipv4Addr::new(192, 0, 2, last));
            // Before anybody asked.
            server.send_to(&answered(&good, 1), to).expect("sent");
            client.send_to(&good, "127.0.0.1:53").expect("sent");
            let wrong_id = query(78, "bank.test", A);
            server.send_to(&answered(&wrong_id, 2), to).expect("sent");
            let wrong_name = query(77, "bonk.test", A);
            server.send_to(&answered(&wrong_name, 3), to).expect("sent");
            other.send_to(&answered(&good, 4), to).expect("sent");
            let elsewhere = UdpSocket::bind("127.0.0.1:0").expect("a free port");
            let wrong_port = elsewhere.local_addr().expect("bound");
            server
                .send_to(&answered(&good, 5), wrong_port)
                .expect("sent");
            // The one, and again with another address.
            server.send_to(&answered(&good, 6), to).expect("sent");
            server.send_to(&answered(&good, 7), to).expect("sent");

            for last in 1..=7 {
                let names = tap.names(ip(&format!("192.0.2.{last}")));
                if last == 6 {
                    assert_eq!(names.unwrap(), ["bank.test"]);
                } else {
                    assert_eq!(names, Err(NoResults::NotSeen), "192.0.2.{last}");
                }
            }
            let expected = [
                ("dns_answers", 1),
                ("dns_queries", 1),
                ("dns_repeated", 1),
                ("dns_unmatched", 5),
            ];
            assert_eq!(tap.counts(), expected.into());
        },
    );
}

#[test]
fn garbage_is_counted() {
    netns::run("dns_tap::forged::garbage_is_counted", || {
        let server = UdpSocket::bind("127.0.0.1:53").expect("port 53 is free");
        let client = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let to = client.local_addr().expect("bound");
        let mut tap = Tapped::open();
        server.send_to(&[0xff; 5], to).expect("sent");
        server.send_to(&[0xff; 1000], to).expect("sent");
        client.send_to(&[], "127.0.0.1:53").expect("sent");
        tap.drain();
        assert_eq!(tap.counts(), [("dns_malformed", 3)].into());
    });
}
