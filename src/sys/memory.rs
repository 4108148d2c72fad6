//! Memory that was needed once and goes back to the system.

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

/// Gives back to the kernel what was freed and is kept for later
/// (malloc_trim(3)).
#[cfg(target_env = "gnu")]
pub fn give_back() {
    // SAFETY: malloc_trim(3) takes a number and may be called at any time, from
    // any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators have no such call, or need none.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}
