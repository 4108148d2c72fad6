//! Resolved names: which names DNS answers seen on this host mapped to an
//! address.
//!
//! The newest answer comes first, since a process connects right after it has
//! asked. Whoever answers decides what is entered, so that everything is bounded:
//! the answers for an address, all answers, and their memory; the oldest goes.
//! Nothing is ever scanned: an expired answer is passed over, and goes when it has
//! become the oldest and nobody can ask for it any more.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::model::{Answer, Name, NoResults, Now};
use crate::stats::Stats;

/// A name is good for at least this long: a process may use an address for a
/// while after it asked, and a TTL of 0 means "for this use".
const FLOOR: Duration = Duration::from_secs(60);

/// And for at most this long.
const CAP: Duration = Duration::from_secs(3600);

/// How long after it was learned an answer is remembered, to tell `expired` from
/// `not_seen`.
const MEMORY: Duration = Duration::from_secs(2 * 3600);

/// Answers for one address. Thousands of names may lead to an address of a CDN;
/// the newest ones matter.
const ANSWERS: usize = 16;

/// What all answers may take together, in bytes as [`cost`] counts them: some
/// 15,000 of one name and one address.
const BYTES: usize = 4 << 20;

/// The table.
#[derive(Debug)]
pub struct Resolved {
    by_ip: HashMap<IpAddr, Vec<Known>>,
    /// Every answer for every address in the order of learning, and some that
    /// were learned again since: those whose number nobody has.
    order: VecDeque<(IpAddr, u64, Instant)>,
    next: u64,
    /// How many answers there are.
    count: usize,
    /// What they cost.
    bytes: usize,
    most: usize,
    stats: Rc<Stats>,
}

/// An answer, as one of its addresses knows it.
#[derive(Debug)]
struct Known {
    /// The question's name and its CNAMEs, shared by the answer's addresses.
    names: Rc<[Name]>,
    number: u64,
    until: Instant,
}

/// What an answer takes for one of its addresses: the table's own entries, and
/// the names as though they were not shared.
fn cost(names: &[Name]) -> usize {
    let texts: usize = names.iter().map(|name| name.as_str().len() + 48).sum();
    192 + texts
}

impl Resolved {
    /// An empty table.
    pub fn new(stats: Rc<Stats>) -> Resolved {
        Resolved::bounded(BYTES, stats)
    }

    fn bounded(most: usize, stats: Rc<Stats>) -> Resolved {
        Resolved {
            by_ip: HashMap::new(),
            order: VecDeque::new(),
            next: 0,
            count: 0,
            bytes: 0,
            most,
            stats,
        }
    }

    /// Remembers an answer, in place of an earlier one to the same question.
    pub fn learn(&mut self, answer: &Answer, now: Now) {
        let names: Rc<[Name]> = answer.names.as_slice().into();
        for resolution in &answer.addresses {
            let ttl = Duration::from_secs(resolution.ttl.into()).clamp(FLOOR, CAP);
            self.enter(
                resolution.ip.to_canonical(),
                &names,
                now.mono + ttl,
                now.mono,
            );
        }
        self.forget_old(now.mono);
    }

    /// Adds the names of an address to `out`: of each answer the question's name,
    /// then its CNAMEs in order; the newest answer first; no name twice. Says why
    /// when there are none.
    pub fn names(&mut self, ip: IpAddr, now: Now, out: &mut Vec<Name>) -> Option<NoResults> {
        let Some(answers) = self.by_ip.get(&ip.to_canonical()) else {
            return Some(NoResults::NotSeen);
        };
        let begin = out.len();
        for answer in answers.iter().rev().filter(|known| known.until > now.mono) {
            for name in &answer.names[..] {
                if !out[begin..].contains(name) {
                    out.push(name.clone());
                }
            }
        }
        (out.len() == begin).then_some(NoResults::Expired)
    }

    fn enter(&mut self, ip: IpAddr, names: &Rc<[Name]>, until: Instant, now: Instant) {
        let number = self.next;
        self.next += 1;
        let answers = self.by_ip.entry(ip).or_default();
        let same = answers
            .iter()
            .position(|known| known.names.first() == names.first());
        // A CNAME that changed, or the same answer again: the newer one holds.
        let replaced = match same {
            Some(at) => Some(answers.remove(at)),
            None if answers.len() == ANSWERS => {
                self.stats.dns_names_forgotten.bump();
                Some(answers.remove(0))
            }
            None => None,
        };
        answers.push(Known {
            names: Rc::clone(names),
            number,
            until,
        });
        self.order.push_back((ip, number, now));
        self.bytes += cost(names);
        match replaced {
            Some(old) => self.bytes -= cost(&old.names),
            None => self.count += 1,
        }
    }

    /// Makes room: by what is older than anybody remembers, then by the oldest.
    fn forget_old(&mut self, now: Instant) {
        while let Some(&(ip, number, learned_at)) = self.order.front() {
            let is_current = self.position(&ip, number).is_some();
            let is_old = now.saturating_duration_since(learned_at) >= MEMORY;
            let too_much = self.bytes > self.most;
            if is_current && !is_old && !too_much {
                break;
            }
            self.order.pop_front();
            let until = self.forget(&ip, number);
            if until.is_some_and(|until| until > now) {
                self.stats.dns_names_forgotten.bump();
            }
        }
        // An answer learned again leaves its old place in the order.
        if self.order.len() > 2 * self.count + 16 {
            let by_ip = &self.by_ip;
            self.order.retain(|(ip, number, _)| {
                by_ip
                    .get(ip)
                    .is_some_and(|answers| answers.iter().any(|known| known.number == *number))
            });
        }
        if self.by_ip.capacity() > 1024 && self.by_ip.len() < self.by_ip.capacity() / 8 {
            self.by_ip.shrink_to(self.by_ip.len() * 2);
            self.order.shrink_to(self.order.len() * 2);
        }
    }

    fn position(&self, ip: &IpAddr, number: u64) -> Option<usize> {
        let answers = self.by_ip.get(ip)?;
        answers.iter().position(|known| known.number == number)
    }

    /// Drops an answer for an address; until when it would have been good.
    fn forget(&mut self, ip: &IpAddr, number: u64) -> Option<Instant> {
        let at = self.position(ip, number)?;
        let answers = self.by_ip.get_mut(ip)?;
        let known = answers.remove(at);
        if answers.is_empty() {
            self.by_ip.remove(ip);
        }
        self.count -= 1;
        self.bytes -= cost(&known.names);
        Some(known.until)
    }
}

#[cfg(test)]
mod tests;
