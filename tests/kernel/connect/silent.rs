//! What is no connect() on a TCP socket, and what tries to be one and is not:
//! none of it is an event.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use super::watch::{Watch, privileged, run};
use crate::daemon::Scratch;
use crate::sock::{Domain, Sock};

fn code<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn udp() {
    run("connect::silent::udp", |_| {
        for domain in Domain::ALL {
            let to = Sock::udp(domain);
            to.bind_loopback();
            let socket = Sock::udp(domain);
            for _ in 0..3 {
                socket.connect(to.local()).expect("UDP asks nobody");
            }
            socket.disconnect();
            socket.send_to(to.local());
        }
    });
}

#[test]
fn unix() {
    run("connect::silent::unix", |_| {
        let scratch = Scratch::new();
        let path = scratch.path().join("stream");
        let listener = UnixListener::bind(&path).expect("a path of ours");
        drop(UnixStream::connect(&path).expect("a listener"));
        drop(listener);
        UnixStream::connect(&path).expect_err("nobody listens any more");
        let path = scratch.path().join("datagram");
        let to = UnixDatagram::bind(&path).expect("a path of ours");
        let from = UnixDatagram::unbound().expect("a socket");
        from.connect(&path).expect("it is there");
        drop((to, from));
    });
}

/// AF_UNSPEC takes the peer away; a socket that never had one takes it too.
#[test]
fn unspecified_family() {
    run("connect::silent::unspecified_family", |watch| {
        for domain in Domain::ALL {
            let fresh = Sock::tcp(domain);
            fresh.disconnect();
            let listener = Sock::listener(domain);
            let client = Sock::tcp(domain);
            watch.expect(&client, listener.local());
            client.connect(listener.local()).expect("a listener on lo");
            client.disconnect();
            client.disconnect();
            drop(listener.accept());
        }
    });
}

/// What the protocol refuses without a look at the destination: an address of
/// another family, or one that is too short.
#[test]
fn malformed() {
    run("connect::silent::malformed", |_| {
        let v4 = |family: libc::c_int| {
            let mut address = [0_u8; size_of::<libc::sockaddr_in>()];
            address[..2].copy_from_slice(&(family as libc::sa_family_t).to_ne_bytes());
            address[2..8].copy_from_slice(&[0, 80, 127, 0, 0, 1]);
            address
        };
        let socket = Sock::tcp(Domain::V4);
        assert_eq!(
            code(socket.connect_raw(&v4(libc::AF_UNIX))),
            Some(libc::EAFNOSUPPORT)
        );
        assert_eq!(
            code(socket.connect_raw(&v4(libc::AF_INET)[..8])),
            Some(libc::EINVAL)
        );
        assert_eq!(code(socket.connect_raw(&[2])), Some(libc::EINVAL));
        let socket = Sock::tcp(Domain::V6);
        assert_eq!(
            code(socket.connect_raw(&v4(libc::AF_INET6))),
            Some(libc::EINVAL)
        );
    });
}

/// Listeners and what they accept.
#[test]
fn accepted() {
    run("connect::silent::accepted", |watch| {
        for domain in Domain::ALL {
            let listener = Sock::listener(domain);
            let mut accepted = Vec::new();
            for _ in 0..5 {
                let client = Sock::tcp(domain);
                watch.expect(&client, listener.local());
                client.connect(listener.local()).expect("a listener on lo");
                accepted.push((client, listener.accept()));
            }
            // Read by dumps while they are there, and while they end.
            watch.dumps();
            drop(accepted);
            watch.dumps();
        }
    });
}

/// What a listener never accepts ends with it, and its notice has lost its peer's
/// port. It was nobody's call all the same.
#[test]
fn never_accepted() {
    run("connect::silent::never_accepted", |watch| {
        for domain in Domain::ALL {
            let listener = Sock::listener(domain);
            watch.dumps();
            let clients: Vec<Sock> = (0..5)
                .map(|_| {
                    let client = Sock::tcp(domain);
                    watch.expect(&client, listener.local());
                    client.connect(listener.local()).expect("a listener on lo");
                    client
                })
                .collect();
            drop(listener);
            drop(clients);
            watch.dumps();
        }
    });
}

/// Bound, and nothing more.
#[test]
fn bound() {
    run("connect::silent::bound", |watch| {
        for domain in Domain::ALL {
            let socket = Sock::tcp(domain);
            socket.bind(SocketAddr::new(domain.loopback(), 0));
            watch.dumps();
        }
    });
}

/// What was connected when the daemon came is nobody's call any more.
#[test]
fn before_start() {
    privileged("connect::silent::before_start", || {
        let listener = Sock::listener(Domain::V4);
        let pair = Sock::pair(&listener);
        let watch = Watch::start("");
        watch.dumps();
        drop(pair);
        watch.finish();
    });
}
