//! From connect(2) to the line that tells of it, on a pipe.

use std::io;
use std::net::TcpListener;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::Outcome;
use super::account::{Heard, delays, percentiles};
use super::daemon::Daemon;
use super::holders;
use super::stream::{self, Told};
use super::table::Line;
use super::world;

/// Calls a second.
const RATE: usize = 1000;
/// How long the last call may take to be told.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connects a thousand times a second in front of a daemon with the best hook that
/// is to be had; without any there is nothing to measure.
pub fn measure(time: Duration) -> Outcome<Vec<Line>> {
    let config = "sensors: {calls: {listener: net.tcp_connect}}\n";
    let mut daemon = Daemon::configured(config, Stdio::piped())?;
    let events = daemon.events()?;
    let reader = thread::spawn(move || -> io::Result<(Heard, Option<String>)> {
        let (mut heard, mut hook) = (Vec::new(), None);
        stream::read(events, |told, now| {
            if let Told::Called(cookie, origin) = told {
                heard.push((cookie, now));
                hook.get_or_insert_with(|| origin.to_string());
            }
        })?;
        Ok((heard, hook))
    });
    let calls = calls(time)?;
    thread::sleep(PATIENCE);
    daemon.stop()?;
    let (heard, hook) = reader.join().map_err(|_| "the reader panicked")??;
    let hook = match hook {
        Some(hook) if hook != "sock_diag" => hook,
        _ => {
            println!("SKIPPED connect() to event: no hook is to be had here");
            return Ok(Vec::new());
        }
    };
    let delays = delays(&calls, &heard)?;
    let lines = percentiles(&delays).map(|(name, delay)| {
        let target = if name == "p99" { "1 ms" } else { "" };
        let figure = format!("connect() to event, {hook}, {name}");
        Line::alone("connect", figure, shown(delay), target)
    });
    Ok(lines.into())
}

fn shown(time: Duration) -> String {
    format!("{:.0} us", time.as_nanos() as f64 / 1e3)
}

/// Connects at the rate; answers when each call was about to be made.
fn calls(time: Duration) -> Outcome<Vec<(u64, Instant)>> {
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let total = (RATE as f64 * time.as_secs_f64()) as usize;
    let mut calls = Vec::with_capacity(total);
    let began = Instant::now();
    for number in 0..total {
        let due = began + Duration::from_secs_f64(number as f64 / RATE as f64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let at = Instant::now();
        let (near, far) = holders::connection(&listener, number)?;
        calls.push((world::cookie(&near)?, at));
        for end in [&near, &far] {
            world::reset_on_close(end)?;
        }
    }
    Ok(calls)
}
