use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::wire::dns::build::{
    A, AAAA, ACK, FIN, RST, SYN, address, cname, query, response, tcp, udp,
};

/// A tap without a socket.
struct Tap {
    matching: Matching,
    stats: Rc<Stats>,
    now: Instant,
    answers: Vec<Answer>,
}

impl Tap {
    fn new() -> Tap {
        let stats = Rc::new(Stats::default());
        Tap {
            matching: Matching::new(Rc::clone(&stats)),
            stats,
            now: Instant::now(),
            answers: Vec::new(),
        }
    }

    /// How many answers a packet brings.
    fn see(&mut self, way: Way, packet: &[u8]) -> usize {
        let before = self.answers.len();
        let answers = &mut self.answers;
        self.matching
            .packet(way, packet, self.now, &mut |answer| answers.push(answer));
        self.answers.len() - before
    }

    /// Seen, answers, repeated, unmatched, malformed.
    fn counts(&self) -> [u64; 5] {
        let stats = &self.stats;
        [
            &stats.dns_queries,
            &stats.dns_answers,
            &stats.dns_repeated,
            &stats.dns_unmatched,
            &stats.dns_malformed,
        ]
        .map(crate::stats::Counter::count)
    }
}

fn end(ip: &str, port: u16) -> Endpoint {
    let ip: IpAddr = ip.parse().unwrap();
    Endpoint { ip, port }
}

fn client() -> Endpoint {
    end("192.0.2.1", 4000)
}

fn server() -> Endpoint {
    end("198.51.100.7", 53)
}

fn asked(id: u16, name: &str) -> Vec<u8> {
    udp(client(), server(), &query(id, name, A))
}

fn answered(id: u16, name: &str) -> Vec<u8> {
    udp(server(), client(), &said(id, name))
}

fn said(id: u16, name: &str) -> Vec<u8> {
    response(id, name, A, &[address(name, 300, "203.0.113.9")])
}

#[test]
fn an_answer_to_a_query_counts_once() {
    let mut tap = Tap::new();
    assert_eq!(tap.see(Way::Out, &asked(1, "a.example")), 0);
    assert_eq!(tap.see(Way::In, &answered(1, "a.example")), 1);
    assert_eq!(tap.see(Way::In, &answered(1, "a.example")), 0);
    assert_eq!(tap.counts(), [1, 1, 1, 0, 0]);
    // Asked again, it may be answered again.
    assert_eq!(tap.see(Way::Out, &asked(1, "a.example")), 0);
    assert_eq!(tap.see(Way::In, &answered(1, "a.example")), 1);
    assert_eq!(tap.answers[0].names[0].as_str(), "a.example");
}

#[test]
fn mixed_case_and_retransmission_are_the_same_query() {
    let mut tap = Tap::new();
    tap.see(Way::Out, &asked(1, "wWw.ExAmple"));
    tap.see(Way::Out, &asked(1, "wWw.ExAmple"));
    assert_eq!(tap.see(Way::In, &answered(1, "WWW.example")), 1);
    assert_eq!(tap.see(Way::In, &answered(1, "wWw.ExAmple")), 0);
    assert_eq!(tap.counts(), [2, 1, 1, 0, 0]);
}

#[test]
fn every_part_must_match() {
    let mut tap = Tap::new();
    tap.see(Way::Out, &asked(1, "a.example"));
    let said = said(1, "a.example");
    let forged = [
        answered(2, "a.example"),
        answered(1, "b.example"),
        udp(server(), end("192.0.2.1", 4001), &said),
        udp(server(), end("192.0.2.2", 4000), &said),
        udp(end("198.51.100.8", 53), client(), &said),
        udp(server(), client(), &response(1, "a.example", AAAA, &[])),
    ];
    for packet in &forged {
        assert_eq!(tap.see(Way::In, packet), 0);
    }
    assert_eq!(tap.counts(), [1, 0, 0, 6, 0]);
    // Over the other transport.
    let mut talk = Tcp::new();
    tap.see(Way::Out, &talk.syn());
    tap.see(Way::In, &talk.syn_ack());
    assert_eq!(tap.see(Way::In, &talk.server(&framed(&said))), 0);
    assert_eq!(tap.counts(), [1, 0, 0, 7, 0]);
    assert_eq!(tap.see(Way::In, &answered(1, "a.example")), 1);
}

#[test]
fn two_questions_at_once_from_one_port() {
    let mut tap = Tap::new();
    let six = response(
        7,
        "a.example",
        AAAA,
        &[address("a.example", 9, "2001:db8::9")],
    );
    tap.see(
        Way::Out,
        &udp(client(), server(), &query(7, "a.example", A)),
    );
    tap.see(
        Way::Out,
        &udp(client(), server(), &query(7, "a.example", AAAA)),
    );
    assert_eq!(tap.see(Way::In, &udp(server(), client(), &six)), 1);
    assert_eq!(tap.see(Way::In, &answered(7, "a.example")), 1);
    assert_eq!(tap.counts(), [2, 2, 0, 0, 0]);
}

#[test]
fn what_a_server_does_is_not_ours() {
    let mut tap = Tap::new();
    // Queries come in, answers go out.
    tap.see(Way::In, &asked(1, "a.example"));
    assert_eq!(tap.see(Way::Out, &answered(1, "a.example")), 0);
    assert_eq!(tap.counts(), [0; 5]);
    // And an answer to what only came in is not asked for.
    assert_eq!(tap.see(Way::In, &answered(1, "a.example")), 0);
    assert_eq!(tap.counts(), [0, 0, 0, 1, 0]);
    // A response to port 53, and a query from it.
    let backwards = udp(client(), server(), &said(1, "a.example"));
    assert_eq!(tap.see(Way::Out, &backwards), 0);
    assert_eq!(tap.counts(), [0, 0, 0, 1, 0]);
}

#[test]
fn on_loopback_both_are_ours_even_from_port_53() {
    let mut tap = Tap::new();
    let stub = end("127.0.0.53", 53);
    for client in [end("127.0.0.1", 4000), end("127.0.0.1", 53)] {
        tap.see(Way::Within, &udp(client, stub, &query(1, "a.example", A)));
        let answer = udp(stub, client, &said(1, "a.example"));
        assert_eq!(tap.see(Way::Within, &answer), 1);
    }
}

#[test]
fn a_malformed_answer_leaves_the_query_open() {
    let mut tap = Tap::new();
    tap.see(Way::Out, &asked(1, "a.example"));
    let mut cut = said(1, "a.example");
    cut.truncate(cut.len() - 1);
    assert_eq!(tap.see(Way::In, &udp(server(), client(), &cut)), 0);
    assert_eq!(tap.see(Way::In, &udp(server(), client(), &[0; 5])), 0);
    assert_eq!(tap.see(Way::In, &[0x45; 3]), 0);
    assert_eq!(tap.counts(), [1, 0, 0, 0, 3]);
    assert_eq!(tap.see(Way::In, &answered(1, "a.example")), 1);
}

#[test]
fn queries_are_forgotten_in_time_and_in_number() {
    let mut tap = Tap::new();
    tap.see(Way::Out, &asked(1, "a.example"));
    tap.now += PATIENCE;
    assert_eq!(tap.see(Way::In, &answered(1, "a.example")), 0);
    assert_eq!(tap.stats.dns_unmatched.count(), 1);
    for id in 0..QUERIES + 10 {
        tap.see(Way::Out, &asked(id as u16, "a.example"));
    }
    assert_eq!(tap.stats.dns_queries_forgotten.count(), 10);
    assert_eq!(tap.see(Way::In, &answered(9, "a.example")), 0);
    assert_eq!(tap.see(Way::In, &answered(10, "a.example")), 1);
}

/// A connection, with the numbers of its next bytes.
struct Tcp {
    client: u32,
    server: u32,
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap();
    [&length.to_be_bytes(), message].concat()
}

impl Tcp {
    /// Its numbers are about to wrap.
    fn new() -> Tcp {
        Tcp {
            client: u32::MAX - 3,
            server: u32::MAX - 20,
        }
    }

    fn syn(&mut self) -> Vec<u8> {
        let packet = tcp(client(), server(), (self.client, 0), SYN, &[]);
        self.client = self.client.wrapping_add(1);
        packet
    }

    fn syn_ack(&mut self) -> Vec<u8> {
        let packet = tcp(
            server(),
            client(),
            (self.server, self.client),
            SYN | ACK,
            &[],
        );
        self.server = self.server.wrapping_add(1);
        packet
    }

    fn client(&mut self, bytes: &[u8]) -> Vec<u8> {
        let packet = tcp(client(), server(), (self.client, self.server), ACK, bytes);
        self.client = self.client.wrapping_add(bytes.len() as u32);
        packet
    }

    fn server(&mut self, bytes: &[u8]) -> Vec<u8> {
        let packet = tcp(server(), client(), (self.server, self.client), ACK, bytes);
        self.server = self.server.wrapping_add(bytes.len() as u32);
        packet
    }

    /// A tap that saw it open.
    fn seen() -> (Tap, Tcp) {
        let (mut tap, mut talk) = (Tap::new(), Tcp::new());
        tap.see(Way::Out, &talk.syn());
        tap.see(Way::In, &talk.syn_ack());
        (tap, talk)
    }
}

#[test]
fn over_tcp_messages_may_lie_anyhow() {
    let (mut tap, mut talk) = Tcp::seen();
    let names: Vec<String> = (0..5).map(|n| format!("n{n}.example")).collect();
    let all = |of: &dyn Fn(u16, &str) -> Vec<u8>| -> Vec<u8> {
        let each = names
            .iter()
            .zip(0..)
            .flat_map(|(name, id)| framed(&of(id, name)));
        each.collect()
    };
    // All in one segment, which is sent twice; then byte by byte.
    let questions = talk.client(&all(&|id, name| query(id, name, A)));
    tap.see(Way::Out, &questions);
    tap.see(Way::Out, &questions);
    let mut found = 0;
    for byte in all(&|id, name| said(id, name)) {
        found += tap.see(Way::In, &talk.server(&[byte]));
    }
    assert_eq!(found, 5);
    assert_eq!(tap.counts(), [5, 5, 0, 0, 0]);
    let first: Vec<_> = tap
        .answers
        .iter()
        .map(|answer| answer.names[0].as_str())
        .collect();
    assert_eq!(first, names);
}

#[test]
fn segments_out_of_order_wait() {
    let (mut tap, mut talk) = Tcp::seen();
    tap.see(Way::Out, &talk.client(&framed(&query(1, "a.example", A))));
    let bytes = framed(&said(1, "a.example"));
    let parts: Vec<_> = bytes.chunks(5).map(|part| talk.server(part)).collect();
    for part in parts[1..].iter().rev().chain(&parts[3..]) {
        assert_eq!(tap.see(Way::In, part), 0);
    }
    assert_eq!(tap.see(Way::In, &parts[0]), 1);
    assert_eq!(tap.stats.dns_streams_lost.count(), 0);
}

#[test]
fn a_connection_with_a_hole_is_given_up() {
    let (mut tap, mut talk) = Tcp::seen();
    tap.see(Way::Out, &talk.client(&framed(&query(1, "a.example", A))));
    talk.server(&[0]);
    for _ in 0..40 {
        tap.see(Way::In, &talk.server(&[0; 100]));
    }
    assert_eq!(tap.stats.dns_streams_lost.count(), 1);
    // Nothing more is known of it, nor was of one whose SYN nobody saw.
    assert_eq!(
        tap.see(Way::In, &talk.server(&framed(&said(1, "a.example")))),
        0
    );
    assert_eq!(tap.counts(), [1, 0, 0, 0, 0]);
}

#[test]
fn forged_segments_neither_end_nor_fill_a_connection() {
    let (mut tap, mut talk) = Tcp::seen();
    tap.see(Way::Out, &talk.client(&framed(&query(1, "a.example", A))));
    for off in [1, 1000, 1 << 20, u32::MAX] {
        let seq = talk.server.wrapping_add(off);
        tap.see(Way::In, &tcp(server(), client(), (seq, 0), RST, &[]));
    }
    for off in 0..100 {
        let seq = talk.server.wrapping_add((1 << 20) + off * 1000);
        tap.see(Way::In, &tcp(server(), client(), (seq, 0), ACK, &[0; 1000]));
    }
    assert_eq!(
        tap.see(Way::In, &talk.server(&framed(&said(1, "a.example")))),
        1
    );
    tap.see(
        Way::In,
        &tcp(server(), client(), (talk.server, 0), RST, &[]),
    );
    tap.see(Way::Out, &talk.client(&framed(&query(2, "a.example", A))));
    assert_eq!(tap.counts(), [1, 1, 0, 0, 0], "a reset connection is over");
}

#[test]
fn a_connection_ends_with_both_sides_and_its_ends_may_come_again() {
    let (mut tap, mut talk) = Tcp::seen();
    for (id, name) in [(1, "a.example"), (2, "b.example")] {
        tap.see(Way::Out, &talk.client(&framed(&query(id, name, A))));
        assert_eq!(tap.see(Way::In, &talk.server(&framed(&said(id, name)))), 1);
        let fin = tcp(client(), server(), (talk.client, 0), FIN | ACK, &[]);
        tap.see(Way::Out, &fin);
        let fin = tcp(server(), client(), (talk.server, 0), FIN | ACK, &[]);
        tap.see(Way::In, &fin);
        talk = Tcp {
            client: 77,
            server: 99,
        };
        tap.see(Way::Out, &talk.syn());
        tap.see(Way::In, &talk.syn_ack());
    }
    // Data with the SYN (TCP Fast Open).
    let question = framed(&query(3, "c.example", A));
    talk = Tcp {
        client: 5000,
        server: 0,
    };
    tap.see(
        Way::Out,
        &tcp(client(), server(), (talk.client, 0), SYN, &question),
    );
    talk.client += 1 + question.len() as u32;
    tap.see(Way::In, &talk.syn_ack());
    assert_eq!(
        tap.see(Way::In, &talk.server(&framed(&said(3, "c.example")))),
        1
    );
}

#[test]
fn what_waits_is_bounded_over_all_connections() {
    let mut tap = Tap::new();
    for port in 1..=2000 {
        let client = end("192.0.2.1", port);
        tap.see(Way::Out, &tcp(client, server(), (0, 0), SYN, &[]));
        tap.see(Way::In, &tcp(server(), client, (0, 1), SYN | ACK, &[]));
        // The beginning of a long message, and a part of what is behind it.
        let start = [&[0xff, 0xff][..], &[0; 8000]].concat();
        tap.see(Way::In, &tcp(server(), client, (1, 1), ACK, &start));
        tap.see(Way::In, &tcp(server(), client, (9000, 1), ACK, &start));
    }
    assert!(tap.stats.dns_streams_lost.count() > 1900);
}

#[derive(Clone, Debug)]
struct Exchange {
    id: u16,
    name: String,
    port: u16,
    tcp: bool,
    chain: usize,
}

fn exchange() -> impl Strategy<Value = Exchange> {
    (
        any::<u16>(),
        "[a-zA-Z0-9]{1,8}",
        1024u16..1030,
        any::<bool>(),
        0usize..4,
    )
        .prop_map(|(id, name, port, tcp, chain)| Exchange {
            id,
            name,
            port,
            tcp,
            chain,
        })
}

proptest! {
    /// Whatever is asked and answered comes out, with its chain and its address.
    #[test]
    fn what_is_asked_and_answered_comes_out(exchanges in prop::collection::vec(exchange(), 1..20), cut in 1usize..40) {
        let mut tap = Tap::new();
        for (number, exchange) in exchanges.iter().enumerate() {
            let from = end("2001:db8::1", exchange.port);
            let to = end("2001:db8::53", 53);
            let ip = format!("198.18.0.{number}");
            let mut names = vec![exchange.name.clone()];
            let mut records = Vec::new();
            for step in 0..exchange.chain {
                let target = format!("c{step}.{number}.Example");
                records.push(cname(&names[step], 60, &target));
                names.push(target);
            }
            records.push(address(&names[exchange.chain], 60, &ip));
            let question = query(exchange.id, &exchange.name, A);
            let answer = response(exchange.id, &exchange.name.to_uppercase(), A, &records);
            if exchange.tcp {
                let seq = number as u32 * 1_000_000;
                tap.see(Way::Out, &tcp(from, to, (seq, 0), SYN, &[]));
                tap.see(Way::In, &tcp(to, from, (seq, seq + 1), SYN | ACK, &[]));
                tap.see(Way::Out, &tcp(from, to, (seq + 1, 0), ACK, &framed(&question)));
                let bytes = framed(&answer);
                let mut at = seq + 1;
                for part in bytes.chunks(cut) {
                    tap.see(Way::In, &tcp(to, from, (at, 0), ACK, part));
                    at += part.len() as u32;
                }
            } else {
                tap.see(Way::Out, &udp(from, to, &question));
                tap.see(Way::In, &udp(to, from, &answer));
            }
            prop_assert_eq!(tap.answers.len(), number + 1);
            let answer = &tap.answers[number];
            let found: Vec<_> = answer.names.iter().map(|name| name.as_str().to_string()).collect();
            let names: Vec<_> = names.iter().map(|name| name.to_lowercase()).collect();
            prop_assert_eq!(found, names);
            prop_assert_eq!(answer.addresses[0].ip.to_string(), ip);
        }
    }

    /// Any segments of a connection, whatever their numbers: no panic, no answer
    /// that nobody asked for.
    #[test]
    fn any_segments_are_harmless(
        segments in prop::collection::vec(
            (any::<bool>(), -200_000i32..200_000, any::<u8>(), prop::collection::vec(any::<u8>(), 0..100)),
            0..200,
        ),
    ) {
        let (mut tap, talk) = Tcp::seen();
        for (from_server, off, flags, bytes) in segments {
            let packet = if from_server {
                tcp(server(), client(), (talk.server.wrapping_add_signed(off), 0), flags, &bytes)
            } else {
                tcp(client(), server(), (talk.client.wrapping_add_signed(off), 0), flags, &bytes)
            };
            tap.see(if from_server { Way::In } else { Way::Out }, &packet);
        }
        prop_assert!(tap.answers.is_empty());
    }

    /// Any bytes any way.
    #[test]
    fn any_packets_are_harmless(packets in prop::collection::vec((0u8..3, prop::collection::vec(any::<u8>(), 0..100)), 0..50)) {
        let mut tap = Tap::new();
        for (way, bytes) in packets {
            let way = [Way::Out, Way::In, Way::Within][usize::from(way)];
            tap.see(way, &udp(client(), server(), &bytes));
            tap.see(way, &udp(server(), client(), &bytes));
            prop_assert_eq!(tap.see(way, &bytes), 0);
        }
    }
}

/// What was captured says what it said then; see `fixtures/dns/README.md`.
#[test]
fn captured_packets_say_what_they_said() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/dns");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "bin") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let mut rest = &bytes[..];
        let mut tap = Tap::new();
        while let [way, high, low, behind @ ..] = rest {
            let (packet, behind) = behind.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            let way = match way {
                b'o' => Way::Out,
                b'i' => Way::In,
                b'w' => Way::Within,
                other => panic!("way {other}"),
            };
            tap.see(way, packet);
            rest = behind;
        }
        let mut text = String::new();
        for answer in &tap.answers {
            let names: Vec<_> = answer.names.iter().map(ToString::to_string).collect();
            text += &format!("{} =", names.join(" "));
            for found in &answer.addresses {
                text += &format!(" {}/{}", found.ip, found.ttl);
            }
            text.push('\n');
        }
        let expected = std::fs::read_to_string(path.with_extension("txt")).unwrap();
        assert_eq!(text, expected, "{}", path.display());
        count += 1;
    }
    assert!(count >= 5);
}
