//! Taking over what an earlier run left.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use super::Keeper;
use crate::daemon::RunError;
use crate::lock::Lock;
use crate::log::Plain;
use crate::model::{Cookie, Now, Renumbering, RowKind, SensorIx};
use crate::pipeline::Pipeline;
use crate::sensor::NetSocket;
use crate::state::{Summary, replay};

impl Keeper {
    /// Takes over what the earlier run left. To be called before anything is
    /// read.
    pub fn restore(
        &mut self,
        sensor: &mut NetSocket,
        pipeline: &mut Pipeline,
        now: Now,
    ) -> Result<(), RunError> {
        pipeline.keep_journal(sensor.netns());
        sensor.note_graves();
        let Some(summary) = self.found.take() else {
            return Ok(());
        };
        let sensors = self.resumed(&summary);
        for old in &summary.sensors {
            if let Some(kept) = sensors.of(SensorIx(old.number)) {
                sensor.resume(kept, old.primed);
            }
        }
        for grave in &summary.graves {
            sensor.restore_grave(*grave, now);
        }
        let count = summary.locks.len();
        let left_out = summary
            .locks
            .into_iter()
            .filter(|lock| {
                let held = Lock {
                    first: lock.first,
                    last: lock.last,
                    muted: lock.muted,
                };
                !pipeline.locks_mut().restore(lock.eid.clone(), held)
            })
            .count();
        let unsure = self
            .replay(sensor, &sensors)
            .map_err(|error| RunError::Start("read the state again", error))?;
        log::info!(
            "state of a run that {}: {} sockets in view, {} locks",
            if summary.clean {
                "ended well"
            } else {
                "was cut off"
            },
            sensor.len(),
            count - left_out,
        );
        if summary.torn {
            log::info!("the last bytes of the state were not written to their end; left out");
        }
        if left_out > 0 {
            log::warn!("{left_out} locks more than there is room for were left out");
        }
        sensor.restored(&unsure, now, pipeline);
        Ok(())
    }

    /// Which sensors of the earlier run go on.
    fn resumed(&self, summary: &Summary) -> Renumbering {
        let mut kept = Renumbering::NONE;
        for old in &summary.sensors {
            let same_id = |(id, _): &&(Arc<str>, u64)| **id == *old.id;
            let at = self.sensors.iter().position(|one| same_id(&one));
            match at {
                Some(at) if self.sensors[at].1 == old.view => {
                    kept.keep(SensorIx(old.number), SensorIx(at as u8));
                }
                Some(_) => log::info!(
                    "sensor {} is another one than before: its view begins anew",
                    Plain(&old.id)
                ),
                None => log::info!("sensor {} is gone, and so is its view", Plain(&old.id)),
            }
        }
        kept
    }

    fn replay(
        &self,
        sensor: &mut NetSocket,
        sensors: &Renumbering,
    ) -> io::Result<Vec<(Cookie, RowKind, u32)>> {
        let sensor = RefCell::new(sensor);
        let unsure = replay(
            self.store.found()?,
            &mut |socket| {
                let mut socket = socket.clone();
                socket.in_view = sensors.mask(socket.in_view);
                socket.nameless = sensors.mask(socket.nameless);
                if socket.in_view != 0 {
                    sensor.borrow_mut().restore(&socket);
                }
            },
            &mut |cookie, kind, mask| {
                sensor
                    .borrow_mut()
                    .unrestore(cookie, kind, sensors.mask(mask));
            },
        )?;
        let renumbered = unsure
            .into_iter()
            .map(|(cookie, kind, mask)| (cookie, kind, sensors.mask(mask)));
        Ok(renumbered.filter(|(_, _, mask)| *mask != 0).collect())
    }
}
