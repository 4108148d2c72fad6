//! From close(2) to the line that tells of it, on a pipe.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};
use sockwatch::model::Proto;
use sockwatch::source::Group;

use super::Outcome;
use super::account::{Heard, Tally, delays, percentiles, tally};
use super::daemon::Daemon;
use super::stream::{self, Told};
use super::table::Line;
use super::traffic;

/// Closes a second.
const RATE: usize = 1000;
/// How long what was closed last may take to be told.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where a notice has its cookie: behind the header of netlink, in
/// `inet_diag_sockid` (linux/inet_diag.h).
const COOKIE: usize = 16 + 4 + 40;

/// Closes a thousand sockets a second and hears of each, from a daemon and then
/// from the kernel alone.
pub fn measure(time: Duration) -> Outcome<Vec<Line>> {
    let ours = told(time)?;
    let peer = noticed(time)?;
    let us = |time: Duration| format!("{:.0} us", time.as_nanos() as f64 / 1e3);
    let both = percentiles(&ours).into_iter().zip(percentiles(&peer));
    let targets = ["100 us", "1 ms", ""];
    let lines = both
        .zip(targets)
        .map(|(((name, ours), (_, peer)), target)| {
            let figure = format!("close to event, {name}");
            let mut line = Line::alone("latency", figure, us(ours), target);
            line.peer = format!("{} the notice alone", us(peer));
            line.ratio = format!("{:.2}", ours.as_secs_f64() / peer.as_secs_f64());
            line
        });
    Ok(lines.collect())
}

fn told(time: Duration) -> Outcome<Vec<Duration>> {
    let mut daemon = Daemon::start("", Stdio::piped())?;
    let events = daemon.events()?;
    let reader = thread::spawn(move || -> io::Result<(Vec<u64>, Heard, u64)> {
        let (mut opened, mut closed, mut gaps) = (Vec::new(), Vec::new(), 0);
        stream::read(events, |told, now| match told {
            Told::Opened(cookie) => opened.push(cookie),
            Told::Closed(cookie) => closed.push((cookie, now)),
            Told::Gap => gaps += 1,
            Told::Called(..) => {}
        })?;
        Ok((opened, closed, gaps))
    });
    let made = traffic::closes(RATE, time)?;
    thread::sleep(PATIENCE);
    daemon.stop()?;
    let (opened, closed, gaps) = reader.join().map_err(|_| "the reader panicked")??;
    let cookies: Vec<u64> = made.iter().map(|(cookie, _)| *cookie).collect();
    let opened = tally(&cookies, &opened);
    if opened != Tally::whole(made.len()) || gaps > 0 {
        let sockets = made.len();
        return Err(format!("of {sockets} sockets, opened {opened:?}, {gaps} gaps").into());
    }
    delays(&made, &closed)
}

fn noticed(time: Duration) -> Outcome<Vec<Duration>> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    for group in Group::ALL
        .into_iter()
        .filter(|group| group.proto == Proto::Tcp)
    {
        socket.add_membership(group.number())?;
    }
    let over = Arc::new(AtomicBool::new(false));
    let reader = thread::spawn({
        let over = Arc::clone(&over);
        move || -> io::Result<Heard> {
            let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
            loop {
                let length = socket.recv(&mut &mut buffer[..], 0)?;
                let now = Instant::now();
                if over.load(Ordering::Relaxed) {
                    return Ok(heard);
                }
                if let Some(cookie) = buffer[..length].get(COOKIE..COOKIE + 8) {
                    let cookie = cookie.try_into().expect("eight bytes");
                    heard.push((u64::from_ne_bytes(cookie), now));
                }
            }
        }
    });
    let closed = traffic::closes(RATE, time)?;
    thread::sleep(PATIENCE);
    over.store(true, Ordering::Relaxed);
    // One more end wakes the reader.
    traffic::closes(RATE, Duration::from_millis(2))?;
    let heard = reader.join().map_err(|_| "the reader panicked")??;
    delays(&closed, &heard)
}
