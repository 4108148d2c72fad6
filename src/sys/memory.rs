//! Memory that was needed once and goes back to the system.

#[cfg(target_env = "gnu")]
use std::{hint, thread};

/// How malloc is to hold memory, for a program of one thread that does nearly all
/// of the work and some that do little; to be called before any of these starts.
///
/// One heap for all of them: what a thread of its own heap freed is of use to no
/// other, and is kept (M_ARENA_MAX, mallopt(3)). And what is large, a table that
/// grew, has a mapping of its own however often such a one was freed, and goes
/// back to the system with it (M_MMAP_THRESHOLD, which malloc raises by itself
/// otherwise, to 32 MiB).
#[cfg(target_env = "gnu")]
pub fn hold_together() {
    // SAFETY: mallopt(3) takes numbers alone; what it does not know, or may not
    // set, it refuses, and malloc goes on as it was.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// What malloc begins with.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 << 10;

/// Other allocators have no such call, or need none.
#[cfg(not(target_env = "gnu"))]
pub fn hold_together() {}

/// As wide as prctl(2) reads them.
const ZERO: libc::c_ulong = 0;
const ONE: libc::c_ulong = 1;

/// Runs `work`, which needs much memory for a short while, and then gives back
/// what it freed: malloc keeps freed memory for later, and later never comes.
///
/// Meanwhile no huge pages are made for this process: one that holds a few bytes
/// still in use keeps 2 MiB, and what is given back of it the kernel would fill
/// up again (Documentation/admin-guide/mm/transhuge.rst). The setting is put
/// back, because children inherit it.
pub fn briefly<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: both take numbers alone (PR_GET_THP_DISABLE and PR_SET_THP_DISABLE in
    // prctl(2)); one that the kernel does not know only fails.
    let before = unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, ZERO, ZERO, ZERO, ZERO) };
    let without = before == 0
        // SAFETY: as above.
        && unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, ONE, ZERO, ZERO, ZERO) } == 0;
    let done = work();
    give_back();
    if without {
        // SAFETY: as above.
        unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, ZERO, ZERO, ZERO, ZERO) };
    }
    done
}

/// How much there was of something, to tell when so much of it is gone that the
/// memory is worth giving back.
#[derive(Debug, Default)]
pub struct Tide {
    most: usize,
}

impl Tide {
    /// Less than this is not worth the trouble.
    const LEAST: usize = 2048;

    /// There is so much now; true when there has been four times as much, or more,
    /// since the last [`Tide::turn`].
    pub fn has_ebbed(&mut self, now: usize) -> bool {
        self.most = self.most.max(now);
        self.most >= Tide::LEAST && now <= self.most / 4
    }

    /// Memory was given back: from here on it counts anew.
    pub fn turn(&mut self) {
        self.most = 0;
    }
}

/// Gives back to the kernel what was freed and is kept for later
/// (malloc_trim(3)).
#[cfg(target_env = "gnu")]
pub fn give_back() {
    empty_cache();
    // SAFETY: malloc_trim(3) takes a number and may be called at any time, from
    // any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators have no such call, or need none.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}

/// Frees what malloc keeps at hand for this thread: up to 7 pieces of each size up
/// to 1 KiB (glibc.malloc.tcache_count in libc.info), as they lay about in a heap
/// that was full, each with a page to itself when nothing else is left. They are
/// not freed before their thread ends; so they are taken, and ended with another.
#[cfg(target_env = "gnu")]
fn empty_cache() {
    let sizes = (24..=1032).step_by(16);
    let pieces = sizes.flat_map(|size| (0..7).map(move |_| Vec::<u8>::with_capacity(size)));
    let pieces: Vec<_> = hint::black_box(pieces.collect());
    let other = thread::Builder::new()
        .name("sw-free".into())
        .stack_size(STACK);
    match other.spawn(move || drop(pieces)).map(|other| other.join()) {
        Ok(Ok(())) => {}
        // Nothing is lost by it.
        Ok(Err(_)) => log::debug!("memory: the thread that frees it has panicked"),
        Err(error) => log::debug!("memory: no thread to free it: {error}"),
    }
}

/// Ample for a thread that frees.
#[cfg(target_env = "gnu")]
const STACK: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tide_ebbs_when_a_quarter_is_left() {
        let mut tide = Tide::default();
        assert!(
            !tide.has_ebbed(Tide::LEAST - 1) && !tide.has_ebbed(0),
            "little"
        );
        assert!(!tide.has_ebbed(8000) && !tide.has_ebbed(2001));
        assert!(tide.has_ebbed(2000) && tide.has_ebbed(0));
        assert!(!tide.has_ebbed(2001), "it has risen again");
        assert!(tide.has_ebbed(1999), "until it turns, there was as much");
        tide.turn();
        assert!(!tide.has_ebbed(1999) && !tide.has_ebbed(0));
    }
}
