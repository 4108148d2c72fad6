//! The one loop: waits for what is ready or due, and calls the handler for it.
//!
//! It knows neither sockets nor sensors, and it takes the clock from outside, so
//! that a test can drive a handler through a day in a millisecond.

use std::io;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::model::Now;

/// What a handler wants after its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// It has more to do: look for readiness without waiting, then another turn.
    Busy,
    /// It waits for readiness, or for this time.
    Idle(Option<Instant>),
    /// It has ended.
    Done,
}

/// What the loop drives.
pub trait Handler {
    /// What ends the loop early.
    type Error: From<io::Error>;

    /// A descriptor became ready. Readiness is edge-triggered: the handler
    /// remembers it until it has drained the descriptor.
    ///
    /// # Errors
    /// What ends the loop.
    fn ready(&mut self, token: Token, now: Now) -> Result<(), Self::Error>;

    /// A descriptor's other end is gone, or it failed.
    ///
    /// # Errors
    /// What ends the loop.
    fn broken(&mut self, token: Token, now: Now) -> Result<(), Self::Error>;

    /// Does what is due and a bounded slice of what is outstanding.
    ///
    /// # Errors
    /// What ends the loop.
    fn turn(&mut self, now: Now) -> Result<Turn, Self::Error>;
}

/// Runs a handler until it is done.
///
/// # Errors
/// Those of the handler, and of epoll_wait(2).
pub fn run<H: Handler>(
    poll: &mut Poll,
    handler: &mut H,
    mut clock: impl FnMut() -> Now,
) -> Result<(), H::Error> {
    let mut events = Events::with_capacity(64);
    loop {
        let now = clock();
        let timeout = match handler.turn(now)? {
            Turn::Done => return Ok(()),
            Turn::Busy => Some(Duration::ZERO),
            Turn::Idle(until) => until.map(|until| until.saturating_duration_since(clock().mono)),
        };
        match poll.poll(&mut events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        }
        let now = clock();
        for event in &events {
            if event.is_error() || event.is_write_closed() {
                handler.broken(event.token(), now)?;
            }
            if event.is_readable() || event.is_writable() {
                handler.ready(event.token(), now)?;
            }
        }
    }
}
