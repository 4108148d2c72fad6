//! What this process may not do, and what that costs: looked at and said once, at
//! start. What is lost with a group, a hook or the tap is said where they are set
//! up.

use std::path::Path;

use crate::model::{Degraded, Now, Restored};
use crate::pipeline::Pipeline;
use crate::source::Room;

/// CAP_SYS_PTRACE (capabilities(7)), which it takes to read the descriptors of
/// other users' processes (PTRACE_MODE_READ_FSCREDS, proc_pid_fd(5)).
const SYS_PTRACE: u32 = 19;

/// The word for the receive buffer of notices.
const RECEIVE_BUFFER: &str = "receive_buffer";
const ROOM: &str = "room";

/// The processes of other users, where a sensor asks for processes.
pub(super) fn processes(pipeline: &mut Pipeline, now: Now) {
    if pipeline.attributing() == 0 {
        return;
    }
    let reason = match std::fs::read_to_string("/proc/self/status") {
        // The first one is always there, but where a mount option hides others'.
        Ok(_) if !Path::new("/proc/1").exists() => "/proc hides processes (hidepid=)".to_owned(),
        Ok(status) if has_capability(&status, SYS_PTRACE) => return,
        Ok(_) => "no CAP_SYS_PTRACE".to_owned(),
        Err(error) => format!("/proc/self/status cannot be read: {error}"),
    };
    let cost = "their sockets have no process, and say not_permitted";
    log::warn!("processes of other users cannot be seen: {reason}; it costs: {cost}");
    let degraded = Degraded {
        source: "processes",
        missing: vec!["other users"],
        reason,
        cost: cost.to_owned(),
    };
    pipeline.degraded(degraded, now);
}

/// What was asked for in bytes, and what was granted. setsockopt(2) doubles it.
pub(super) fn receive_buffer(asked: usize, room: &Room, pipeline: &mut Pipeline, now: Now) {
    if room.bytes >= asked.saturating_mul(2) {
        if pipeline.is_missing(RECEIVE_BUFFER, ROOM) {
            let restored = Restored {
                source: RECEIVE_BUFFER,
                parts: vec![ROOM],
            };
            pipeline.restored(restored, now);
        }
        return;
    }
    let degraded = Degraded {
        source: RECEIVE_BUFFER,
        missing: vec![ROOM],
        reason: format!(
            "{} of {asked} bytes were granted (net.core.rmem_max; more takes CAP_NET_ADMIN)",
            room.bytes / 2
        ),
        cost: format!(
            "{} notices have room between two wake-ups; a burst beyond that is a gap, and its \
             ends are verified instead of notified",
            room.notices
        ),
    };
    pipeline.degraded(degraded, now);
}

/// Whether CapEff in /proc/PID/status has this capability.
fn has_capability(status: &str, capability: u32) -> bool {
    let mut lines = status.lines();
    let effective = lines.find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    effective.is_some_and(|bits| bits >> capability & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_bits() {
        let status = |bits: &str| format!("Name:\tx\nCapInh:\t0\nCapEff:\t{bits}\nCapBnd:\t0\n");
        assert!(has_capability(&status("0000000000080000"), SYS_PTRACE));
        assert!(has_capability(&status("000001ffffffffff"), SYS_PTRACE));
        assert!(!has_capability(&status("0000000000000000"), SYS_PTRACE));
        assert!(!has_capability(&status("no number"), SYS_PTRACE));
        assert!(!has_capability("", SYS_PTRACE));
    }
}
