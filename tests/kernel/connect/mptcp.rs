//! MPTCP is TCP, and marked. The protocol connects by TCP sockets of its own,
//! which are nobody's call.

use super::watch::{Call, run};
use crate::netns;
use crate::sock::{Domain, Sock};

/// A listener by `make`, and calls to it.
fn calls(name: &str, make: fn(Domain) -> std::io::Result<Sock>) {
    run(name, |watch| {
        for domain in Domain::ALL {
            let Ok(client) = Sock::mptcp(domain) else {
                return netns::visibly(&format!("SKIPPED {name}: the kernel has no MPTCP"));
            };
            let listener = make(domain).expect("as the other one");
            listener.bind_loopback();
            listener.listen(8);
            watch.expect_call(Call::of(&client, listener.local()).mptcp());
            client.connect(listener.local()).expect("a listener on lo");
            let server = listener.accept();
            client.send(10);
            server.receive(10);
            // The subflows are in these.
            watch.dumps();

            // Refused, and once more on the same socket.
            let closed = listener.local();
            drop((listener, server));
            let client = Sock::mptcp(domain).expect("as the other one");
            watch.expect_call(Call::of(&client, closed).mptcp());
            client.connect(closed).expect_err("nobody listens any more");
        }
    });
}

#[test]
fn both_ends() {
    calls("connect::mptcp::both_ends", Sock::mptcp);
}

/// The server does not speak it, and the connection goes on as plain TCP.
#[test]
fn one_end() {
    calls("connect::mptcp::one_end", |domain| Ok(Sock::tcp(domain)));
}
