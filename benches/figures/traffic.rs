//! Connections at a rate, on loopback, by a generator that knows its sockets.

use std::collections::VecDeque;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::Outcome;
use super::holders;
use super::sample::{Cost, Whose};
use super::world;

/// Connections of a generator that stay open behind the newest: some are read by a dump, most
/// live and die between two.
const STANDING: usize = 500;

/// Generators: one cannot make 20,000 connections a second everywhere.
const THREADS: usize = 2;

/// What was made.
pub struct Made {
    /// Every socket that was opened and closed, both ends.
    pub cookies: Vec<u64>,
    /// How long it took.
    pub took: Duration,
    /// CPU time that the making took.
    pub cpu: Duration,
}

impl Made {
    /// Connections a second.
    pub fn rate(&self) -> f64 {
        self.cookies.len() as f64 / 2.0 / self.took.as_secs_f64()
    }
}

/// Opens and closes `rate` connections a second, for this long, in the ordinary
/// way: the client takes leave first.
pub fn churn(rate: usize, time: Duration) -> Outcome<Made> {
    let began = Instant::now();
    let generator = || thread::spawn(move || generate(rate as f64 / THREADS as f64, time));
    let generators: Vec<_> = (0..THREADS).map(|_| generator()).collect();
    let (mut cookies, mut cpu) = (Vec::new(), Duration::ZERO);
    for generator in generators {
        let (cost, made) = generator.join().map_err(|_| "a generator panicked")??;
        cookies.extend(made);
        cpu += cost.cpu;
    }
    Ok(Made {
        cookies,
        took: began.elapsed(),
        cpu,
    })
}

/// The work of one generator; answers the cookies of its sockets.
fn generate(rate: f64, time: Duration) -> io::Result<(Cost, Vec<u64>)> {
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let total = (rate * time.as_secs_f64()) as usize;
    let mut cookies = Vec::with_capacity(2 * total);
    let mut standing = VecDeque::with_capacity(STANDING + 1);
    Cost::of(Whose::Mine, || {
        let began = Instant::now();
        for number in 0..total {
            let due = Duration::from_secs_f64(number as f64 / rate);
            let elapsed = began.elapsed();
            if elapsed > time + time / 2 {
                break; // the machine cannot do it; the rate will say so
            }
            if due > elapsed + Duration::from_millis(1) {
                thread::sleep(due - elapsed);
            }
            let pair = holders::connection(&listener, number)?;
            cookies.extend([world::cookie(&pair.0)?, world::cookie(&pair.1)?]);
            standing.push_back(pair);
            if standing.len() > STANDING {
                drop(standing.pop_front());
            }
        }
        Ok(cookies)
    })
}

/// Closes `rate` sockets a second for this long, each at a moment of its own and
/// with a reset, which destroys it before close(2) is back. Answers when each
/// was about to be closed.
pub fn closes(rate: usize, time: Duration) -> Outcome<Vec<(u64, Instant)>> {
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let total = (rate as f64 * time.as_secs_f64()) as usize;
    let mut closed = Vec::with_capacity(total);
    let mut other: Option<TcpStream> = None;
    let began = Instant::now();
    for number in 0..total {
        let due = began + Duration::from_secs_f64(number as f64 / rate as f64);
        let socket = match other.take() {
            Some(far) => far,
            None => {
                let (near, far) = holders::connection(&listener, number)?;
                world::reset_on_close(&near)?;
                other = Some(far);
                near
            }
        };
        let cookie = world::cookie(&socket)?;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        closed.push((cookie, Instant::now()));
        drop(socket);
    }
    Ok(closed)
}
