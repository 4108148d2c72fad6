//! Who has the sockets: when that is asked, and what cannot be seen.

use std::path::Path;

use super::Daemon;
use crate::model::{Degraded, Now};
use crate::pipeline::{Pipeline, Silent};
use crate::sensor::{Listing, Reader};
use crate::sys;

/// Table entries looked at in one turn for the sake of their processes.
const PIECE: usize = 4096;

/// linux/capability.h.
const CAP_SYS_PTRACE: u32 = 19;

impl Daemon {
    /// Has those looked for who have the sockets that this turn brought; true when
    /// there are more to be asked about now.
    pub(super) fn attribute(&mut self, now: Now) -> bool {
        self.settle();
        if self.pipeline.take_attribute_all() {
            self.unattributed = Some(Listing::default());
        }
        let room = self.pipeline.silent_room().min(PIECE);
        let (sensor, pipeline) = (&mut self.sources.sensor, &mut self.pipeline);
        let mut busy = false;
        if room > 0
            && let Some(mut listing) = self.unattributed.take()
        {
            let wanted = pipeline.attributing();
            let more = sensor.unattributed(&mut listing, room, wanted, &mut |key, uid, inode| {
                pipeline.attribute_silently(Silent { key, uid, inode }, now);
            });
            self.unattributed = more.then_some(listing);
            busy = more && pipeline.silent_room() > 0;
        }
        sensor.keep_places(Reader::Processes, self.unattributed.is_some());
        pipeline.search(now);
        busy
    }
}

/// Says, once, that not every process can be looked into, and what that costs.
pub(super) fn tell_hidden(pipeline: &mut Pipeline, now: Now) {
    let Some(reason) = hidden() else {
        return;
    };
    let cost = "sockets of other users' processes have no process, where no connect() hook saw one";
    log::warn!("not every process can be looked into: {reason}; it costs: {cost}");
    let degraded = Degraded {
        source: "process",
        missing: vec!["processes of other users"],
        reason,
        cost: cost.to_owned(),
    };
    pipeline.degraded(degraded, now);
}

/// Why the descriptors of some processes cannot be read: that takes what ptrace(2)
/// would, in the mode PTRACE_MODE_READ_FSCREDS (proc_pid_fd(5)).
fn hidden() -> Option<String> {
    if !Path::new("/proc/1").exists() {
        return Some("/proc does not show all processes (hidepid=)".to_owned());
    }
    match sys::capabilities() {
        Ok(held) if held & (1 << CAP_SYS_PTRACE) != 0 => None,
        Ok(_) => Some("CAP_SYS_PTRACE is missing".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}
