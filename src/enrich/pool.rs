//! A few threads reserved for one kind of blocking work.
//!
//! getnameinfo and reads of /proc block for as long as they like. A [`Workers`]
//! keeps them off the reactor and away from each other: every kind of work makes
//! its own. It promises that
//! * an idle daemon has no thread: they start with the work and end without it;
//! * the line is bounded, and a job that nobody waits for any more is not begun;
//! * every job accepted is answered, in order of completion, unless the `Workers`
//!   is dropped before;
//! * dropping it never waits for a thread that is stuck in a call.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{fmt, io, mem};

/// Enough for getnameinfo, whose buffers lie on the heap beyond a few KiB; the
/// default of 2 MiB would be reserved for each thread.
const STACK: usize = 256 << 10;

/// A thread without work for this long ends.
const IDLE: Duration = Duration::from_secs(30);

/// Wakes the reactor; called from any thread.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// What became of a job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome<A> {
    /// The work was done.
    Done(A),
    /// Its time was over before a thread came to it.
    Skipped,
    /// The work panicked. Only where panics unwind: the release profile aborts.
    Failed,
}

/// Why a job was not accepted.
#[derive(Debug)]
pub enum Refused {
    /// The line is full of jobs that somebody waits for.
    Full,
    /// There is no thread, and none could be started.
    NoThread(io::Error),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Full => f.write_str("too many jobs are waiting"),
            Refused::NoThread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for Refused {}

/// Threads for jobs `J` that are answered with `A`.
pub struct Workers<J, A> {
    name: String,
    threads: usize,
    line: usize,
    shared: Arc<Shared<J, A>>,
}

struct Shared<J, A> {
    state: Mutex<State<J>>,
    /// Told of a new job and of the end.
    work_came: Condvar,
    answers: Mutex<Vec<(J, Outcome<A>)>>,
    work: Box<dyn Fn(&J) -> A + Send + Sync>,
    wake: Wake,
}

struct State<J> {
    line: VecDeque<(J, Instant)>,
    threads: usize,
    idle: usize,
    /// The owner is gone: no job is begun any more.
    closed: bool,
}

impl<J: Send + 'static, A: Send + 'static> Workers<J, A> {
    /// At most `threads` threads named `sw-<kind>` and `line` waiting jobs.
    /// `wake` is called whenever an answer can be collected.
    pub fn new(
        kind: &str,
        threads: usize,
        line: usize,
        wake: Wake,
        work: impl Fn(&J) -> A + Send + Sync + 'static,
    ) -> Workers<J, A> {
        Workers {
            name: format!("sw-{kind}"),
            threads: threads.max(1),
            line: line.max(1),
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    line: VecDeque::new(),
                    threads: 0,
                    idle: 0,
                    closed: false,
                }),
                work_came: Condvar::new(),
                answers: Mutex::default(),
                work: Box::new(work),
                wake,
            }),
        }
    }

    /// Puts a job at the end of the line; after `useful_until` nobody waits for
    /// it. A full line first gives up those at its head whose time is over, so
    /// that a dead resolver's leftovers do not keep fresh jobs out.
    pub fn submit(&self, job: J, useful_until: Instant) -> Result<(), Refused> {
        let mut late = Vec::new();
        let accepted = self.enqueue(job, useful_until, &mut late);
        if !late.is_empty() {
            lock(&self.shared.answers).append(&mut late);
            (self.shared.wake)();
        }
        accepted
    }

    fn enqueue(
        &self,
        job: J,
        useful_until: Instant,
        late: &mut Vec<(J, Outcome<A>)>,
    ) -> Result<(), Refused> {
        let mut state = lock(&self.shared.state);
        if state.line.len() >= self.line {
            let now = Instant::now();
            while state.line.front().is_some_and(|(_, until)| *until <= now) {
                late.extend(
                    state
                        .line
                        .pop_front()
                        .map(|(job, _)| (job, Outcome::Skipped)),
                );
            }
            if late.is_empty() {
                return Err(Refused::Full);
            }
        }
        if state.idle <= state.line.len() && state.threads < self.threads {
            match self.start() {
                Ok(()) => state.threads += 1,
                Err(error) if state.threads == 0 => return Err(Refused::NoThread(error)),
                // The next job tries again; this one has a thread to wait for.
                Err(error) => log::debug!("{}: {}", self.name, Refused::NoThread(error)),
            }
        }
        state.line.push_back((job, useful_until));
        drop(state);
        self.shared.work_came.notify_one();
        Ok(())
    }

    /// Takes the answers that came in.
    pub fn collect(&self) -> Vec<(J, Outcome<A>)> {
        mem::take(&mut *lock(&self.shared.answers))
    }

    fn start(&self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        // Not joined, ever: it may be stuck when the daemon wants to end.
        thread::Builder::new()
            .name(self.name.clone())
            .stack_size(STACK)
            .spawn(move || shared.serve())
            .map(drop)
    }
}

impl<J, A> Drop for Workers<J, A> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.closed = true;
        state.line.clear();
        drop(state);
        self.shared.work_came.notify_all();
    }
}

impl<J, A> fmt::Debug for Workers<J, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.shared.state);
        f.debug_struct("Workers")
            .field("name", &self.name)
            .field("threads", &state.threads)
            .field("waiting", &state.line.len())
            .finish_non_exhaustive()
    }
}

impl<J, A> Shared<J, A> {
    /// A thread's life.
    fn serve(&self) {
        while let Some((job, until)) = self.next() {
            let outcome = if Instant::now() >= until {
                Outcome::Skipped
            } else {
                panic::catch_unwind(AssertUnwindSafe(|| (self.work)(&job)))
                    .map_or(Outcome::Failed, Outcome::Done)
            };
            if lock(&self.state).closed {
                return;
            }
            lock(&self.answers).push((job, outcome));
            (self.wake)();
        }
    }

    /// Waits for a job; none means that the thread is to end, and it is no
    /// longer counted then.
    fn next(&self) -> Option<(J, Instant)> {
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.line.pop_front() {
                return Some(job);
            }
            state.idle += 1;
            let (woken, wait) = self
                .work_came
                .wait_timeout(state, IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if wait.timed_out() && state.line.is_empty() {
                state.threads -= 1;
                return None;
            }
        }
    }
}

/// Nothing that could panic runs under these locks, and what they guard is whole
/// between any two statements; so a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    const LONG: Duration = Duration::from_secs(60);

    fn workers<J: Send + 'static, A: Send + 'static>(
        threads: usize,
        line: usize,
        work: impl Fn(&J) -> A + Send + Sync + 'static,
    ) -> (Workers<J, A>, mpsc::Receiver<()>) {
        let (tx, woken) = mpsc::channel();
        let wake = Arc::new(move || {
            // A test that is done looks no longer.
            tx.send(()).unwrap_or(());
        });
        (Workers::new("test", threads, line, wake, work), woken)
    }

    #[test]
    fn many_jobs_are_each_answered_once_by_few_threads() {
        let running = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let (count, peak) = (running.clone(), most.clone());
        let (workers, woken) = workers(3, 10_000, move |job: &u32| {
            peak.fetch_max(count.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::yield_now();
            count.fetch_sub(1, Ordering::SeqCst);
            job * 2
        });
        for job in 0..5000 {
            workers.submit(job, Instant::now() + LONG).unwrap();
        }
        let mut seen = HashSet::new();
        while seen.len() < 5000 {
            woken.recv_timeout(LONG).unwrap();
            for (job, outcome) in workers.collect() {
                assert_eq!(outcome, Outcome::Done(job * 2));
                assert!(seen.insert(job));
            }
        }
        assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
        assert!(lock(&workers.shared.state).threads <= 3);
    }

    #[test]
    fn no_work_no_thread() {
        let (workers, _woken) = workers(3, 1, |_: &()| ());
        assert_eq!(lock(&workers.shared.state).threads, 0);
    }

    #[test]
    fn one_thread_keeps_the_order_and_skips_what_is_late() {
        let (workers, woken) = workers(1, 10, |job: &u32| *job);
        let now = Instant::now();
        for job in 0..5 {
            let until = if job == 2 { now } else { now + LONG };
            workers.submit(job, until).unwrap();
        }
        let mut answers = Vec::new();
        while answers.len() < 5 {
            woken.recv_timeout(LONG).unwrap();
            answers.extend(workers.collect());
        }
        let expected = [0, 1, 2, 3, 4].map(|job| match job {
            2 => (2, Outcome::Skipped),
            job => (job, Outcome::Done(job)),
        });
        assert_eq!(answers, expected);
    }

    #[test]
    fn a_panic_is_an_answer_and_costs_no_thread() {
        let (workers, woken) = workers(1, 10, |job: &u32| {
            assert_ne!(*job, 0, "a panic of the test's own");
            *job
        });
        for job in 0..2 {
            workers.submit(job, Instant::now() + LONG).unwrap();
            woken.recv_timeout(LONG).unwrap();
        }
        assert_eq!(
            workers.collect(),
            [(0, Outcome::Failed), (1, Outcome::Done(1))]
        );
    }

    #[test]
    fn a_full_line_refuses_unless_somebody_gave_up() {
        let (tx, stuck) = mpsc::channel::<()>();
        let stuck = Mutex::new(stuck);
        let (busy, started) = mpsc::channel();
        let (workers, woken) = workers(1, 2, move |_: &u32| {
            busy.send(()).unwrap();
            // Ends when the test drops its end.
            lock(&stuck).recv().unwrap_or(());
        });
        workers.submit(0, Instant::now() + LONG).unwrap();
        started.recv_timeout(LONG).unwrap();
        workers.submit(1, Instant::now()).unwrap();
        workers.submit(2, Instant::now() + LONG).unwrap();
        workers.submit(3, Instant::now() + LONG).unwrap();
        woken.recv_timeout(LONG).unwrap();
        assert_eq!(workers.collect(), [(1, Outcome::Skipped)]);
        let refused = workers.submit(4, Instant::now() + LONG);
        assert!(matches!(refused, Err(Refused::Full)));
        // Returns though its thread is stuck.
        drop(workers);
        drop(tx);
    }
}
