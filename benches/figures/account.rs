//! What was made against what was told of it: each once.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::Outcome;

/// How a set of cookies was told of.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tally {
    pub once: usize,
    pub never: usize,
    pub again: usize,
}

impl Tally {
    /// That of so many sockets, each told of once.
    pub fn whole(sockets: usize) -> Tally {
        Tally {
            once: sockets,
            ..Tally::default()
        }
    }
}

/// Compares what was made with what was told; neither need be in order. What was
/// told of others does not count.
pub fn tally(made: &[u64], told: &[u64]) -> Tally {
    let ours: HashSet<u64> = made.iter().copied().collect();
    let (mut seen, mut tally) = (HashSet::with_capacity(made.len()), Tally::default());
    for cookie in told.iter().filter(|cookie| ours.contains(cookie)) {
        if !seen.insert(*cookie) {
            tally.again += 1;
        }
    }
    tally.once = seen.len();
    tally.never = ours.len() - seen.len();
    tally
}

/// Cookies, and when each was heard of.
pub type Heard = Vec<(u64, Instant)>;

/// How long each took to be heard of, sorted.
///
/// # Errors
/// One was not heard of, or more than once.
pub fn delays(made: &[(u64, Instant)], heard: &Heard) -> Outcome<Vec<Duration>> {
    let cookies = |of: &[(u64, Instant)]| of.iter().map(|(cookie, _)| *cookie).collect::<Vec<_>>();
    let tally = tally(&cookies(made), &cookies(heard));
    if tally != Tally::whole(made.len()) {
        return Err(format!("of {} sockets, {tally:?}", made.len()).into());
    }
    let heard: HashMap<u64, Instant> = heard.iter().copied().collect();
    let delay = |(cookie, at): &(u64, Instant)| heard[cookie].saturating_duration_since(*at);
    let mut delays: Vec<Duration> = made.iter().map(delay).collect();
    delays.sort();
    Ok(delays)
}

/// The ones of a sorted series that are shown.
pub fn percentiles(sorted: &[Duration]) -> [(&'static str, Duration); 3] {
    [("p50", 50), ("p99", 99), ("max", 100)]
        .map(|(name, percent)| (name, sorted[(sorted.len() - 1) * percent / 100]))
}
