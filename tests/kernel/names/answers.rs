//! What is asked, how often, and what becomes of the answer.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use super::server::{Answer, name};
use super::{
    WEB, WEB6, call, close, datagrams, far, listen, run, sensor, tcp_events, udp_events, web,
};
use crate::daemon::{Launch, Tick};
use crate::sock::{Domain, Sock};

#[test]
fn one_question_serves_all_sockets_and_both_events() {
    run(
        "names::answers::one_question_serves_all_sockets_and_both_events",
        |server| {
            server.answer(WEB, name("Web-1.Example.ORG"));
            server.answer(WEB6.into(), name("six.example.org"));
            let listener = listen(WEB);
            let daemon = Launch::new(Tick::Fast).sensors(&sensor("")).start();
            let mut calls: Vec<(Sock, Sock)> =
                daemon.paused(|| (0..20).map(|_| call(&listener)).collect());
            daemon.opened(
                &calls
                    .iter()
                    .map(|(client, _)| client.cookie)
                    .collect::<Vec<_>>(),
            );
            let late = daemon.paused(|| call(&listener));
            daemon.opened(&[late.0.cookie]);
            calls.push(late);
            // The same address in another family is the same question.
            let others = daemon.paused(|| {
                [
                    (datagrams(Domain::V4, WEB), "web-1.example.org"),
                    (datagrams(Domain::Mapped, WEB), "web-1.example.org"),
                    (datagrams(Domain::V6, WEB6.into()), "six.example.org"),
                ]
            });
            for (socket, _) in &others {
                daemon.opened(&[socket.cookie]);
            }
            let mut expected = Vec::new();
            let mut closed = Vec::new();
            for (client, _) in &calls {
                expected.extend(
                    tcp_events(client.ident()).map(|event| event.named("web-1.example.org")),
                );
                closed.push(client.cookie);
            }
            for (socket, name) in &others {
                expected.extend(udp_events(socket.ident()).map(|event| event.named(name)));
                closed.push(socket.cookie);
            }
            daemon.paused(|| {
                for (client, _) in calls {
                    close(client);
                }
                drop(others);
            });
            daemon.finish(&closed).hold(&expected);
            assert_eq!(server.asked(WEB), 1);
            assert_eq!(server.asked(WEB6.into()), 1);
            assert_eq!(
                server.log().len(),
                2,
                "nothing else was asked: {:?}",
                server.log()
            );
        },
    );
}

/// An answer through a CNAME record, as in networks smaller than a /24.
#[test]
fn a_delegated_name_is_followed() {
    run("names::answers::a_delegated_name_is_followed", |server| {
        let Answer::Record(data) = name("small.example.org") else {
            unreachable!("a record")
        };
        server.answer(WEB, Answer::Delegated(data));
        let daemon = Launch::new(Tick::Fast).sensors(&sensor("")).start();
        let socket = daemon.paused(|| datagrams(Domain::V4, WEB));
        daemon.opened(&[socket.cookie]);
        let (cookie, ident) = (socket.cookie, socket.close());
        daemon
            .finish(&[cookie])
            .hold(&udp_events(ident).map(|event| event.named("small.example.org")));
    });
}

#[test]
fn what_has_no_name_is_not_asked_for_again() {
    run(
        "names::answers::what_has_no_name_is_not_asked_for_again",
        |server| {
            let (nobody, broken) = (web(8), web(9));
            server.answer(broken, Answer::Failure);
            let daemon = Launch::new(Tick::Fast).sensors(&sensor("")).start();
            let mut expected = Vec::new();
            let mut closed = Vec::new();
            for (ip, reason) in [(nobody, "not_found"), (broken, "failed")] {
                for _ in 0..3 {
                    let socket = daemon.paused(|| datagrams(Domain::V4, ip));
                    daemon.opened(&[socket.cookie]);
                    closed.push(socket.cookie);
                    let ident = socket.close();
                    expected.extend(udp_events(ident).map(|event| event.nameless(reason)));
                }
            }
            daemon.finish(&closed).hold(&expected);
            assert_eq!((server.asked(nobody), server.asked(broken)), (1, 1));
        },
    );
}

#[test]
fn an_answer_is_good_for_dns_ttl() {
    run("names::answers::an_answer_is_good_for_dns_ttl", |server| {
        let ttl = Duration::from_millis(300);
        server.answer(WEB, name("old.example.org"));
        let daemon = Launch::new(Tick::Fast)
            .sensors(&sensor(", dns-ttl: 300ms"))
            .start();
        let first = daemon.paused(|| datagrams(Domain::V4, WEB));
        daemon.opened(&[first.cookie]);
        // The answer is known by now, so it is older than this afterwards.
        server.answer(WEB, name("new.example.org"));
        thread::sleep(ttl);
        let second = daemon.paused(|| datagrams(Domain::V4, WEB));
        daemon.opened(&[second.cookie]);
        let closed = [first.cookie, second.cookie];
        // A socket keeps the name that it was opened with.
        let expected = [
            udp_events(first.close()).map(|event| event.named("old.example.org")),
            udp_events(second.close()).map(|event| event.named("new.example.org")),
        ];
        daemon.finish(&closed).hold(&expected.concat());
        assert_eq!(server.asked(WEB), 2);
    });
}

/// A question costs somebody else's server: none is asked for a socket that no
/// event tells of.
#[test]
fn only_what_is_told_is_asked_for() {
    run("names::answers::only_what_is_told_is_asked_for", |server| {
        for last in 1..=6 {
            server.answer(web(last), name("host.example.org"));
        }
        let before = datagrams(Domain::V4, web(1));
        let sensors = format!(
            "{}{}{}",
            sensor(r#", ignore: ["* * 203.0.113.[356]:* * *"]"#),
            "  closes: {listener: net.socket, opts: [closed], args: {dns: true, patterns: [\"* * 203.0.113.3:* * *\"]}}\n",
            "  plain: {listener: net.socket, args: {patterns: [\"* * 203.0.113.[45]:* * *\"]}}\n",
        );
        let daemon = Launch::new(Tick::Fast).sensors(&sensors).start();
        let sockets: Vec<Sock> = daemon.paused(|| {
            (2..=6)
                .map(|last| datagrams(Domain::V4, web(last)))
                .collect()
        });
        daemon.opened(&[sockets[0].cookie, sockets[2].cookie]);
        daemon.reported("plain", "opened", sockets[3].cookie);
        daemon.ticks(1);
        // 1 was there before and 3 is told of when it ends; 5 is another
        // sensor's, which asks for no names; 6 is nobody's.
        let mut log = server.log();
        log.sort();
        assert_eq!(log, [web(2), web(4)]);

        let mut events = vec![
            udp_events(before.ident())[1]
                .clone()
                .named("host.example.org"),
        ];
        for (socket, last) in sockets.iter().zip(2..) {
            let [opened, closed] = udp_events(socket.ident());
            let named =
                [opened.clone(), closed.clone()].map(|event| event.named("host.example.org"));
            let plain = [opened, closed].map(|event| event.by("plain"));
            match last {
                2 => events.extend(named),
                3 => events.push(named[1].clone().by("closes")),
                4 => events.extend(named.into_iter().chain(plain)),
                5 => events.extend(plain),
                _ => {}
            }
        }
        let closed = [before.cookie, sockets[0].cookie, sockets[2].cookie];
        let third = sockets[1].cookie;
        drop(before);
        drop(sockets);
        daemon.reported("closes", "closed", third);
        daemon.finish(&closed).hold(&events);
        let mut log = server.log();
        log.sort();
        assert_eq!(log, [web(1), web(2), web(3), web(4)]);
    });
}

/// Addresses that no public server knows are asked for unless that is declined.
#[test]
fn skip_reverse_dns_asks_for_public_addresses_alone() {
    run(
        "names::answers::skip_reverse_dns_asks_for_public_addresses_alone",
        |server| {
            let special: [IpAddr; 4] = ["127.0.0.1", "10.1.2.3", "192.168.1.9", "::1"]
                .map(|ip| ip.parse().expect("an address"));
            for ip in special.into_iter().chain([far(7)]) {
                server.answer(ip, name("host.example.org"));
            }
            let pattern = r#"patterns: ["udp * *:4000 * *"]"#;
            let sensors = format!(
                "  sockets: {{listener: net.socket, args: {{{pattern}, dns: true, skip-reverse-dns: true}}}}\n"
            );
            let open = || -> Vec<Sock> {
                let domain = |ip: IpAddr| if ip.is_ipv4() { Domain::V4 } else { Domain::V6 };
                special
                    .into_iter()
                    .chain([far(7)])
                    .map(|ip| datagrams(domain(ip), ip))
                    .collect()
            };
            let run = |sensors: &str, skipped: bool| {
                let daemon = Launch::new(Tick::Fast).sensors(sensors).start();
                let sockets = daemon.paused(open);
                let cookies: Vec<u64> = sockets.iter().map(|socket| socket.cookie).collect();
                daemon.opened(&cookies);
                let mut expected = Vec::new();
                for socket in sockets {
                    let ident = socket.close();
                    expected.extend(udp_events(ident).map(|event| {
                        if skipped && ident.remote.ip() != far(7) {
                            event.nameless("skipped")
                        } else {
                            event.named("host.example.org")
                        }
                    }));
                }
                daemon.finish(&cookies).hold(&expected);
            };
            run(&sensors, true);
            assert_eq!(server.log(), [far(7)]);
            run(
                &sensors.replace("skip-reverse-dns: true", "skip-reverse-dns: false"),
                false,
            );
            assert!(
                special.iter().all(|ip| server.asked(*ip) == 1),
                "{:?}",
                server.log()
            );
        },
    );
}
