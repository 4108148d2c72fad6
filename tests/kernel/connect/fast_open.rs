//! TCP Fast Open: a connect without connect().
//!
//! The protocol connects when the first data is sent. The hook that is called
//! by the protocol sees that; for those on connect(2) the socket table is the
//! only witness.

use super::watch::{Call, by_system_call, run};
use crate::sock::{Domain, Sock};

/// sendto(2) with MSG_FASTOPEN.
#[test]
fn sent() {
    run("connect::fast_open::sent", |watch| {
        for domain in Domain::ALL {
            let listener = Sock::listener(domain);
            let client = Sock::tcp(domain);
            let mut call = Call::of(&client, listener.local());
            if by_system_call() {
                call = call.read_in("ESTABLISHED");
            }
            watch.expect_call(call.clone());
            let server = watch.daemon.paused(|| {
                client
                    .fast_open(listener.local())
                    .expect("a listener on lo");
                listener.accept()
            });
            server.receive(1);
            watch.reported(&call);
            watch.dumps();
        }
    });
}

/// TCP_FASTOPEN_CONNECT: connect(2) is called and does nothing yet, and the
/// first data connects. One call, whichever of the two a hook sees.
#[test]
fn deferred() {
    run("connect::fast_open::deferred", |watch| {
        // tcp(7): bit 0 for clients, bit 1 for listeners.
        std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "3").expect("a namespace of ours");
        for domain in Domain::ALL {
            let listener = Sock::listener(domain);
            listener.allow_fast_open();
            // The kernel defers only where it has a cookie of the listener's,
            // which the first connection brings.
            for _ in 0..2 {
                let client = Sock::tcp(domain);
                client.set(
                    libc::IPPROTO_TCP,
                    libc::TCP_FASTOPEN_CONNECT,
                    1 as libc::c_int,
                );
                watch.expect(&client, listener.local());
                client.connect(listener.local()).expect("a listener on lo");
                client.send(1);
                listener.accept().receive(1);
            }
        }
    });
}
