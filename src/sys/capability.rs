//! Capabilities of the calling thread (capabilities(7)).

use std::io;

/// _LINUX_CAPABILITY_VERSION_3 (linux/capability.h): two times 32 bits.
const VERSION: u32 = 0x2008_0522;

/// Its number (linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;

/// `struct __user_cap_header_struct`; pid 0 is the calling thread.
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct`, of which there are two: the low 32 bits of each
/// set, and the high ones.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Does something as a thread that has CAP_NET_ADMIN not in effect, and has it in
/// effect again thereafter. Where it is not, or where capset(2) is refused by a
/// security policy, nothing changes.
///
/// # Errors
/// Those of `act`; and those of capset(2) if it does not give back what it took,
/// which the kernel has no reason to.
pub(super) fn without_net_admin<T>(act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(sets) = get().filter(|sets| sets[0].effective & 1 << CAP_NET_ADMIN != 0) else {
        return act();
    };
    let mut less = sets;
    less[0].effective &= !(1 << CAP_NET_ADMIN);
    if set(&less).is_err() {
        return act();
    }
    let done = act();
    set(&sets)?;
    done
}

fn get() -> Option<[Sets; 2]> {
    let (mut header, mut sets) = (of_this_thread(), [Sets::default(); 2]);
    // SAFETY: the header is readable and writable, and there is room for the two
    // sets that its version stands for.
    let answer = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    (answer == 0).then_some(sets)
}

fn set(sets: &[Sets; 2]) -> io::Result<()> {
    let mut header = of_this_thread();
    // SAFETY: as above, and the sets are only read.
    let answer = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn of_this_thread() -> Header {
    Header {
        version: VERSION,
        pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel tells them to whoever reads.
    fn effective() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    }

    #[test]
    fn it_is_put_aside_for_as_long_as_it_takes() {
        let before = effective();
        let during = without_net_admin(|| Ok(effective())).unwrap();
        assert_eq!(during, before & !(1 << CAP_NET_ADMIN));
        assert_eq!(effective(), before);

        let failed = without_net_admin(|| Err::<(), _>(io::ErrorKind::NotFound.into()));
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(effective(), before, "also when it fails");
    }
}
