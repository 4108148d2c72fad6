//! What happens while an answer is not there.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::server::{Answer, name};
use super::{WEB, call, close, datagrams, far, listen, run, sensor, tcp_events, udp_events, web};
use crate::daemon::{Daemon, Launch, PATIENCE, Tick};
use crate::expect::{Expect, SILENT, Traffic};
use crate::proc_net;
use crate::sock::{Domain, Sock};

/// A wait that nothing but an answer ends.
const PATIENT: &str = ", dns-timeout: 60s";

#[test]
fn a_late_answer_does_not_rename_a_socket() {
    run(
        "names::waiting::a_late_answer_does_not_rename_a_socket",
        |server| {
            server.answer(WEB, name("late.example.org"));
            server.hold(WEB);
            let daemon = Launch::new(Tick::Fast)
                .sensors(&sensor(", dns-timeout: 200ms"))
                .start();
            let began = Instant::now();
            let first = daemon.paused(|| datagrams(Domain::V4, WEB));
            daemon.opened(&[first.cookie]);
            assert!(
                began.elapsed() >= Duration::from_millis(200),
                "it did not wait"
            );
            server.release(WEB);
            // Once another socket is told with the name, the answer has come.
            let mut expected = Vec::new();
            let mut closed = Vec::new();
            let deadline = Instant::now() + PATIENCE;
            loop {
                let other = daemon.paused(|| datagrams(Domain::V4, WEB));
                let cookie = other.cookie;
                daemon.opened(&[cookie]);
                let opened =
                    daemon.wait_for("its event", |event| event["data"]["cookie"] == cookie);
                closed.push(cookie);
                let events = udp_events(other.close());
                if opened["data"]["remote_host"] == "late.example.org" {
                    expected.extend(events.map(|event| event.named("late.example.org")));
                    break;
                }
                expected.extend(events.map(|event| event.nameless("timeout")));
                assert!(Instant::now() < deadline, "the answer never came");
            }
            closed.push(first.cookie);
            expected.extend(udp_events(first.close()).map(|event| event.nameless("timeout")));
            daemon.finish(&closed).hold(&expected);
            assert_eq!(server.asked(WEB), 1);
        },
    );
}

#[test]
fn events_of_a_socket_wait_in_their_order() {
    run(
        "names::waiting::events_of_a_socket_wait_in_their_order",
        |server| {
            let (slow, quick) = (web(7), web(8));
            server.answer(slow, name("slow.example.org"));
            server.answer(quick, name("quick.example.org"));
            server.hold(slow);
            let listener = listen(slow);
            let daemon = Launch::new(Tick::Fast).sensors(&sensor(PATIENT)).start();

            // Opened and closed, while its name is awaited.
            let (client, _server) = daemon.paused(|| call(&listener));
            server.wait_asked(slow);
            // Moves to a peer whose name is known at once, and ends there.
            let moving = daemon.paused(|| datagrams(Domain::V4, slow));
            let (at_slow, cookies) = (moving.ident(), [client.cookie, moving.cookie]);
            daemon.ticks(1);
            daemon
                .paused(|| moving.connect((quick, 4000).into()))
                .expect("an address on lo");
            let at_quick = moving.ident();
            daemon.ticks(1);
            // Another socket there shows that the name is known.
            let passing = daemon.paused(|| datagrams(Domain::V4, quick));
            daemon.opened(&[passing.cookie]);
            let client_ident = daemon.paused(|| close(client));
            drop(moving);
            daemon.settle();
            let told = |daemon: &Daemon| {
                cookies.map(|cookie| daemon.count(|event| event["data"]["cookie"] == cookie))
            };
            assert_eq!(told(&daemon), [0, 0], "told before the name was known");
            server.release(slow);

            let passing_cookie = passing.cookie;
            let mut expected = udp_events(passing.close())
                .map(|event| event.named("quick.example.org"))
                .to_vec();
            expected.extend(tcp_events(client_ident).map(|event| event.named("slow.example.org")));
            expected.extend([
                Expect::opened(at_slow, "dump", "ESTABLISHED").named("slow.example.org"),
                Expect::closed(at_slow, "rebound", "ESTABLISHED").named("slow.example.org"),
                Expect::opened(at_quick, "rebound", "ESTABLISHED").named("quick.example.org"),
                Expect::notified(at_quick, "ESTABLISHED", Traffic::None).named("quick.example.org"),
            ]);
            daemon
                .finish(&[cookies[0], cookies[1], passing_cookie])
                .hold(&expected);
        },
    );
}

#[test]
fn a_socket_between_two_ticks_waits_too() {
    run(
        "names::waiting::a_socket_between_two_ticks_waits_too",
        |server| {
            server.answer(WEB, name("web.example.org"));
            server.hold(WEB);
            let listener = listen(WEB);
            let daemon = Launch::new(Tick::Slow).sensors(&sensor(PATIENT)).start();
            let (client, _server) = call(&listener);
            let (cookie, ident) = (client.cookie, client.close());
            server.wait_asked(WEB);
            daemon.settle();
            assert_eq!(daemon.count(|event| event["sensor"] == "sockets"), 0);
            server.release(WEB);
            let events = Expect::between_ticks(ident, "ESTABLISHED", SILENT);
            daemon
                .finish(&[cookie])
                .hold(&events.map(|event| event.named("web.example.org")));
            assert_eq!(server.asked(WEB), 1);
        },
    );
}

/// A pattern on the host: only the right name lets a socket in, and one that
/// stayed out ends without a word.
#[test]
fn a_pattern_on_the_host_waits_for_the_right_name() {
    run(
        "names::waiting::a_pattern_on_the_host_waits_for_the_right_name",
        |server| {
            let hosts = [
                (web(1), Some("www.example.org"), true),
                (web(2), Some("a.b.Example.ORG"), true),
                (web(3), Some("www.example.net"), false),
                (web(4), Some("wwwexample.org"), false),
                (web(5), Some("www.example.org.evil.net"), false),
                (web(6), None, false),
            ];
            for (ip, text, _) in hosts {
                server.answer(ip, text.map_or(Answer::NoSuchName, name));
            }
            let (never, gone) = (web(7), web(8));
            for ip in [never, gone] {
                server.answer(ip, name("www.example.org"));
                server.hold(ip);
            }
            let sensors = "  sockets: {listener: net.socket, args: {dns: true, dns-timeout: 1s, \
                       patterns: [\"tcp * * *.example.org *\"]}}\n";
            let daemon = Launch::new(Tick::Fast).sensors(sensors).start();
            let connect = |ip| {
                let listener = listen(ip);
                let (client, server) = daemon.paused(|| call(&listener));
                (client, server, listener)
            };
            let mut expected = Vec::new();
            let mut entered = Vec::new();
            let mut clients = Vec::new();
            for (ip, text, passes) in hosts {
                let (client, server, listener) = connect(ip);
                if passes {
                    let name = text.unwrap_or_default().to_lowercase();
                    expected.extend(tcp_events(client.ident()).map(|event| event.named(&name)));
                    entered.push(client.cookie);
                }
                clients.push((client, server, listener));
            }
            let [late, ended] = [never, gone].map(connect);
            for (ip, ..) in hosts {
                server.wait_asked(ip);
            }
            server.wait_asked(never);
            server.wait_asked(gone);
            daemon.opened(&entered);
            // This one ends before its name is there, and is then told as a whole.
            entered.push(ended.0.cookie);
            expected
                .extend(tcp_events(ended.0.ident()).map(|event| event.named("www.example.org")));
            daemon.paused(|| close(ended.0));
            daemon.settle();
            server.release(gone);
            daemon.closed(&entered[2..]);
            // This one's time ends first: it never enters.
            std::thread::sleep(Duration::from_secs(1));
            server.release(never);
            daemon.ticks(1);
            daemon.paused(|| {
                drop((late, clients));
                proc_net::quiet();
            });
            daemon.finish(&entered).hold(&expected);
        },
    );
}

/// A resolver that answers nothing costs the events that want names their time,
/// and nothing else anything: not other sensors, not skipped addresses, not the
/// end of the program.
#[test]
fn a_dead_resolver_delays_nothing_else() {
    run(
        "names::waiting::a_dead_resolver_delays_nothing_else",
        |server| {
            server.die();
            let pattern = r#"patterns: ["udp * *:4000 * *"]"#;
            let sensors = format!(
                "  sockets: {{listener: net.socket, args: {{{pattern}, dns: true, dns-timeout: 2s, \
             skip-reverse-dns: true}}}}\n  plain: {{listener: net.socket, args: {{{pattern}}}}}\n"
            );
            let daemon = Launch::new(Tick::Fast).sensors(&sensors).start();
            let began = Instant::now();
            // Far more than there are threads to look them up.
            let (mut wanting, skipped) = daemon.paused(|| {
                let wanting: Vec<Sock> = (1..=200)
                    .map(|last| datagrams(Domain::V4, far(last)))
                    .collect();
                (
                    wanting,
                    datagrams(Domain::V4, "10.2.2.2".parse().expect("an address")),
                )
            });
            daemon.opened(&[skipped.cookie]);
            for socket in &wanting {
                daemon.reported("plain", "opened", socket.cookie);
            }
            // Some end while their names are awaited.
            let mut expected = Vec::new();
            let mut closed = vec![skipped.cookie];
            let mut events = |ident, reason| {
                let both = udp_events(ident);
                expected.extend(both.clone().map(|event| event.by("plain")));
                expected.extend(both.map(|event| event.nameless(reason)));
            };
            events(skipped.close(), "skipped");
            daemon.closed(&closed);
            let rest = wanting.split_off(100);
            for socket in wanting {
                let cookie = socket.cookie;
                closed.push(cookie);
                events(socket.close(), "timeout");
                daemon.reported("plain", "closed", cookie);
            }
            for socket in &rest {
                daemon.opened(&[socket.cookie]);
            }
            assert!(began.elapsed() >= Duration::from_secs(2), "nothing waited");
            for socket in rest {
                closed.push(socket.cookie);
                events(socket.close(), "timeout");
            }
            let ending = Instant::now();
            let record = daemon.finish(&closed);
            assert!(
                ending.elapsed() < Duration::from_secs(10),
                "it waits for its resolver at the end"
            );
            record.hold(&expected);
            // Whatever was told at once stands before the first that had to wait.
            let waited = |event: &Value| event["data"]["remote_host_reason"] == "timeout";
            let first = record.events().position(waited).expect("some waited");
            let opened =
                |event: &&Value| event["sensor"] == "plain" && event["data"]["action"] == "opened";
            let at_once = record.events().take(first).filter(opened).count();
            assert_eq!(
                at_once, 201,
                "events of another sensor waited with those that want names"
            );
        },
    );
}
