//! Who has the sockets: when that is asked.

use super::Daemon;
use crate::model::Now;
use crate::pipeline::Silent;
use crate::sensor::{Listing, Reader};

/// Table entries looked at in one turn for the sake of their processes.
const PIECE: usize = 4096;

impl Daemon {
    /// Has those looked for who have the sockets that this turn brought; true when
    /// there are more to be asked about now.
    pub(super) fn attribute(&mut self, now: Now) -> bool {
        self.settle();
        if self.pipeline.take_attribute_all() {
            self.unattributed = Some(Listing::default());
        }
        let room = self.pipeline.silent_room().min(PIECE);
        let (sources, pipeline) = (&mut self.sources, &mut self.pipeline);
        let mut busy = false;
        if room > 0
            && let Some(mut listing) = self.unattributed.take()
        {
            let wanted = pipeline.attributing();
            let more = sources.unattributed(&mut listing, room, wanted, &mut |key, uid, inode| {
                pipeline.attribute_silently(Silent { key, uid, inode }, now);
            });
            self.unattributed = more.then_some(listing);
            busy = more && pipeline.silent_room() > 0;
        }
        sources.keep_places(Reader::Processes, self.unattributed.is_some());
        // One search for all of them.
        if !busy {
            pipeline.search(now);
        }
        busy
    }
}
