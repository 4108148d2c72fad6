//! Namespaces end when their last user leaves, and not when sockwatch lets them.

use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Instant;

use sockwatch::source::netns::Announcements;
use sockwatch::stats::Stats;

use super::world::World;
use super::{everywhere, found, told};
use crate::daemon::{Launch, PATIENCE, Tick};
use crate::netns::{self, check};
use crate::sock::{Domain, Sock};

/// Waits for the kernel's word that the namespace with this id has ended.
fn announced(announcements: &mut Announcements, id: i32) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let news = announcements.drain().expect("announcements");
        if news.ended.contains(&id) {
            return;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "namespace {id} is kept alive");
        let mut poll = libc::pollfd {
            fd: announcements.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd, which lives across the call.
        check(unsafe { libc::poll(&raw mut poll, 1, left.as_millis() as libc::c_int) })
            .expect("poll(2)");
    }
}

/// With an hour between two ticks, whatever the daemon held of a namespace it
/// would hold for longer than this waits; with 20 ms, it is there all the time.
#[test]
fn nothing_keeps_one_alive() {
    netns::run("namespaces::ends::nothing_keeps_one_alive", || {
        for tick in Tick::BOTH {
            let world = World::of_process();
            let socket = world.within(|| Sock::listener(Domain::V4));
            let mut announcements = Announcements::open(Rc::new(Stats::default())).unwrap();
            let daemon = everywhere(tick);
            found(&daemon, &world);
            let id = world.id().expect("it was given an id");
            if tick == Tick::Fast {
                daemon.ticks(2);
            }
            let (cookie, inode) = (socket.cookie, world.inode);
            drop(socket);
            world.end();
            announced(&mut announcements, id);
            let line = format!("namespace {inode} has ended");
            daemon.wait_for_line(&line, |said| said.contains(&line));
            let record = daemon.stop();
            let said = told(&record, "every", cookie);
            assert_eq!(said.len(), 1, "{said:?}");
            assert_eq!(said[0].1["evidence"], "notified");
        }
    });
}

/// What remains of a connection has no notice. With its namespace it ends.
#[test]
fn what_is_left_ends_with_it() {
    netns::run("namespaces::ends::what_is_left_ends_with_it", || {
        let daemon = Launch::new(Tick::Fast)
            .sensors(
                "  every: {listener: net.socket, args: {netns: all, patterns: [\"tcp * * * TIME_WAIT\"]}}\n",
            )
            .debug()
            .start();
        let world = World::of_process();
        let listener = world.within(|| Sock::listener(Domain::V4));
        let (client, server) = world.within(|| Sock::pair(&listener));
        let cookie = client.cookie;
        drop((client, server));
        daemon.reported("every", "opened", cookie);
        assert!(!daemon.has("closed", cookie), "it lasts for a minute");
        drop(listener);
        world.end();
        daemon.closed_by("every", &[cookie]);
        let record = daemon.stop();
        assert_eq!(record.evidence("closed", cookie), "verified");
        assert_eq!(record.find("closed", cookie)["data"]["state"], "TIME_WAIT");
    });
}
