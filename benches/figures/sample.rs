//! Times, and what two series of them taken in turn come to.

use std::time::{Duration, Instant};

/// Whose CPU time.
#[derive(Clone, Copy)]
pub enum Whose {
    /// This thread's.
    Mine,
    /// That of the children waited for.
    Children,
}

/// Wall and CPU time of one run.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    pub wall: Duration,
    pub cpu: Duration,
}

impl Cost {
    /// What `work` costs.
    pub fn of<T, E>(whose: Whose, work: impl FnOnce() -> Result<T, E>) -> Result<(Cost, T), E> {
        let (wall, cpu) = (Instant::now(), cpu(whose));
        let made = work()?;
        let cost = Cost {
            wall: wall.elapsed(),
            cpu: self::cpu(whose).saturating_sub(cpu),
        };
        Ok((cost, made))
    }
}

fn cpu(whose: Whose) -> Duration {
    match whose {
        Whose::Mine => {
            let mut time = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            // SAFETY: `time` is valid for writes; the clock exists on every
            // Linux, and a failure would leave the zeroes.
            unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
            Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
        }
        Whose::Children => {
            // SAFETY: all zeroes is a value of this plain C structure.
            let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
            // SAFETY: `usage` is valid for writes.
            unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
            let of =
                |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
            of(usage.ru_utime) + of(usage.ru_stime)
        }
    }
}

/// Median, least and most.
#[derive(Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// Of a series that is not empty.
    pub fn of(series: impl Iterator<Item = f64>) -> Spread {
        let mut series: Vec<f64> = series.collect();
        series.sort_by(f64::total_cmp);
        Spread {
            median: series[series.len() / 2],
            least: series[0],
            most: series[series.len() - 1],
        }
    }
}

/// Two subjects, each run taken right before the other's.
#[derive(Default)]
pub struct Pairs {
    runs: Vec<(Cost, Cost)>,
}

impl Pairs {
    /// Runs both in turn (A B A B ...) `count` times or until `budget` is used
    /// up, after one run of each that does not count.
    pub fn take<E>(
        count: usize,
        budget: Duration,
        mut ours: impl FnMut() -> Result<Cost, E>,
        mut peer: impl FnMut() -> Result<Cost, E>,
    ) -> Result<Pairs, E> {
        ours()?;
        peer()?;
        let (mut pairs, began) = (Pairs::default(), Instant::now());
        while pairs.runs.len() < 3 || pairs.runs.len() < count && began.elapsed() < budget {
            pairs.runs.push((ours()?, peer()?));
        }
        Ok(pairs)
    }

    /// Ours, the peer's, and how many times the peer's ours is.
    pub fn spread(&self, time: impl Fn(&Cost) -> Duration) -> (Spread, Spread, f64) {
        let nanos = |cost: &Cost| time(cost).as_nanos() as f64;
        (
            Spread::of(self.runs.iter().map(|(ours, _)| nanos(ours))),
            Spread::of(self.runs.iter().map(|(_, peer)| nanos(peer))),
            Spread::of(
                self.runs
                    .iter()
                    .map(|(ours, peer)| nanos(ours) / nanos(peer)),
            )
            .median,
        )
    }
}

impl From<Vec<(Cost, Cost)>> for Pairs {
    fn from(runs: Vec<(Cost, Cost)>) -> Pairs {
        Pairs { runs }
    }
}
