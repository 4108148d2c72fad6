//! connect() calls in other namespaces: a hook sees them all, and the sockets of
//! whichever namespace learn who called.

use super::world::{self, World};
use super::{EVERYWHERE, found, told};
use crate::daemon::{Launch, Tick};
use crate::netns::{self, Sandbox};
use crate::sock::{Domain, Sock};

#[test]
fn sockets_everywhere_learn_who_called() {
    let name = "namespaces::calls::sockets_everywhere_learn_who_called";
    Sandbox::default().mounts().run(name, || {
        world::names();
        let calls = "  calls: {listener: net.tcp_connect}\n";
        let daemon = Launch::new(Tick::Slow)
            .sensors(&(EVERYWHERE.to_owned() + calls))
            .debug()
            .start();
        let line = daemon.wait_for_line("what tells of calls", |line| {
            line.contains("calls are reported by") || line.contains("no hook for connect()")
        });
        if line.contains("no hook") {
            return netns::visibly(&format!("SKIPPED {name}: {line}"));
        }
        let world = World::named("calling");
        found(&daemon, &world);
        let (closed, failed) = world.within(|| {
            let closed = Sock::listener(Domain::V4).local();
            let failed = Sock::tcp(Domain::V4);
            assert!(failed.connect(closed).is_err());
            (closed, failed)
        });
        let cookie = failed.cookie;
        drop(failed);
        daemon.closed_by("every", &[cookie]);
        let record = daemon.stop();
        let event = record
            .events()
            .find(|event| event["sensor"] == "calls" && event["data"]["cookie"] == cookie)
            .expect("the call was told");
        let call = &event["data"];
        if call["netns"].is_null() {
            return netns::visibly(&format!("SKIPPED {name}: no BTF to tell namespaces by"));
        }
        assert_eq!(call["netns"], world.inode);
        assert_eq!(call["netns_name"], "/run/netns/calling");
        let said = told(&record, "every", cookie);
        assert_eq!(said.len(), 2, "{said:?}");
        for (_, data) in said {
            assert_eq!(data["process"]["tid"], call["process"]["tid"], "{data}");
            // The notice alone had lost it.
            assert_eq!(data["remote"], closed.to_string(), "{data}");
            assert_eq!(data["netns_name"], "/run/netns/calling");
        }
    });
}
