//! The calls of one thread: whatever becomes of them, each is one event.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::watch::{Watch, run, run_with};
use crate::daemon::PATIENCE;
use crate::netns;
use crate::record::Record;
use crate::sock::{Domain, Sock};
use crate::syn_sent::nobody;

/// Connects to a listener, which accepts: a connection that is not accepted ends
/// in a way of its own ([`super::silent`]).
fn connect(watch: &Watch, client: &Sock, listener: &Sock) {
    watch.expect(client, listener.local());
    client.connect(listener.local()).expect("a listener on lo");
    drop(listener.accept());
}

/// Asserts how a call failed.
fn assert_failed(result: io::Result<()>, code: libc::c_int) {
    let error = result.expect_err("the connect fails");
    assert_eq!(error.raw_os_error(), Some(code), "{error}");
}

#[test]
fn blocking() {
    run("connect::calls::blocking", |watch| {
        for domain in Domain::ALL {
            let listener = Sock::listener(domain);
            let client = Sock::tcp(domain);
            connect(watch, &client, &listener);
        }
    });
}

#[test]
fn non_blocking() {
    run("connect::calls::non_blocking", |watch| {
        for domain in Domain::ALL {
            let listener = Sock::listener(domain);
            let client = Sock::tcp(domain);
            watch.expect(&client, listener.local());
            client.connect_nonblocking(listener.local());
            client.outcome(PATIENCE).expect("a listener on lo");
            let _server = listener.accept();
            // The call that asks how it went.
            client.connect(listener.local()).expect("it went well");
        }
    });
}

/// While it is connecting, to call again is to ask again.
#[test]
fn repeated() {
    run("connect::calls::repeated", |watch| {
        for domain in Domain::ALL {
            let deaf = Sock::tcp(domain);
            deaf.bind_loopback();
            deaf.listen(0);
            let filler = Sock::tcp(domain);
            watch.expect(&filler, deaf.local());
            filler.connect(deaf.local()).expect("there is room for one");
            let client = Sock::tcp(domain);
            watch.expect(&client, deaf.local());
            client.connect_nonblocking(deaf.local());
            for _ in 0..5 {
                assert_failed(client.connect(deaf.local()), libc::EALREADY);
            }
            // Somebody else's address is asked about no more than the first.
            let other = Sock::listener(domain);
            assert_failed(client.connect(other.local()), libc::EALREADY);
            drop(deaf.accept());
        }
    });
}

/// Once connected, there is nothing to connect.
#[test]
fn connected_already() {
    run("connect::calls::connected_already", |watch| {
        for domain in Domain::ALL {
            let listener = Sock::listener(domain);
            let client = Sock::tcp(domain);
            watch.expect(&client, listener.local());
            client.connect(listener.local()).expect("a listener on lo");
            let _server = listener.accept();
            for _ in 0..3 {
                assert_failed(client.connect(listener.local()), libc::EISCONN);
            }
        }
    });
}

/// A socket that was refused can try again: that is another call, and another
/// event with the same cookie.
#[test]
fn again_after_a_refusal() {
    run("connect::calls::again_after_a_refusal", |watch| {
        for domain in Domain::ALL {
            let (closed, listener) = (nobody(domain), Sock::listener(domain));
            let client = Sock::tcp(domain);
            for _ in 0..2 {
                watch.expect(&client, closed);
                assert_failed(client.connect(closed), libc::ECONNREFUSED);
            }
            connect(watch, &client, &listener);
        }
    });
}

/// So can one that was connected, after it let go of its peer.
#[test]
fn again_after_a_disconnect() {
    run("connect::calls::again_after_a_disconnect", |watch| {
        let (first, second) = (Sock::listener(Domain::V4), Sock::listener(Domain::V4));
        let client = Sock::tcp(Domain::V4);
        for listener in [&first, &second] {
            connect(watch, &client, listener);
            client.disconnect();
        }
    });
}

#[test]
fn refused() {
    run("connect::calls::refused", |watch| {
        for domain in Domain::ALL {
            let closed = nobody(domain);
            let client = Sock::tcp(domain);
            watch.expect(&client, closed);
            assert_failed(client.connect(closed), libc::ECONNREFUSED);

            let client = Sock::tcp(domain);
            watch.expect(&client, closed);
            client.connect_nonblocking(closed);
            let error = client.failure(PATIENCE);
            assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED), "{error}");
        }
    });
}

/// No route leads there, so that no segment is ever sent.
#[test]
fn unreachable() {
    run("connect::calls::unreachable", |watch| {
        let v4 = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), 443);
        let v6 = SocketAddr::new(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(), 443);
        for (domain, to) in [(Domain::V4, v4), (Domain::V6, v6), (Domain::Mapped, v4)] {
            let client = Sock::tcp(domain);
            watch.expect(&client, to);
            assert_failed(client.connect(to), libc::ENETUNREACH);
        }
    });
}

/// Nobody answers, and the caller gives up.
#[test]
fn given_up() {
    run("connect::calls::given_up", |watch| {
        for domain in Domain::ALL {
            let listener = Sock::tcp(domain);
            listener.bind_loopback();
            listener.listen(0);
            for _ in 0..4 {
                let client = Sock::tcp(domain);
                watch.expect(&client, listener.local());
                client.connect_nonblocking(listener.local());
                drop(client);
            }
            // There was room for one.
            drop(listener.accept());
        }
    });
}

/// Bound first, to an address and a port.
#[test]
fn bound() {
    run("connect::calls::bound", |watch| {
        for domain in Domain::ALL {
            let listener = Sock::listener(domain);
            let client = Sock::tcp(domain);
            client.bind_loopback();
            connect(watch, &client, &listener);
        }
    });
}

/// The unspecified address means this host.
#[test]
fn unspecified_destination() {
    run("connect::calls::unspecified_destination", |watch| {
        for domain in [Domain::V4, Domain::V6] {
            let listener = Sock::listener(domain);
            let to = SocketAddr::new(domain.unspecified(), listener.local().port());
            let client = Sock::tcp(domain);
            watch.expect(&client, to);
            client.connect(to).expect("a listener on lo");
            drop(listener.accept());
        }
    });
}

/// Two sensors, one of which looks at one port only; and the event ids of two
/// destinations differ.
#[test]
fn by_pattern() {
    let pattern = "tcp4 - 127.0.0.1:7 - CONNECT";
    let sensor =
        format!("  seven: {{listener: net.tcp_connect, args: {{patterns: [\"{pattern}\"]}}}}\n");
    run_with("connect::calls::by_pattern", &sensor, |watch| {
        for port in [7, 8] {
            let to = SocketAddr::new(Domain::V4.loopback(), port);
            for domain in [Domain::V4, Domain::Mapped] {
                let client = Sock::tcp(domain);
                watch.expect(&client, to);
                assert_failed(client.connect(to), libc::ECONNREFUSED);
            }
        }
        |record: &Record| {
            let netns = netns::inode();
            let ids: Vec<_> = record
                .events()
                .filter(|event| event["sensor"] == "seven" && event["data"]["netns"] == netns)
                .map(|event| event["eid"].as_str().expect("an id"))
                .collect();
            assert_eq!(ids, ["seven|net.tcp_connect|connect@127.0.0.1:7|0"; 2]);
        }
    });
}
