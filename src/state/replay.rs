//! From a file back to what was in view.
//!
//! A file is read twice: once to see that all of it can be believed, and once to
//! hand it over. So half a file never gets into a table, and a file of a million
//! sockets needs memory for one frame of it.

use std::collections::HashMap;
use std::io::{self, Read};

use super::frame::{Frames, Stop, Unusable};
use super::record::{Grave, Head, LockNote, Record, Sensor, Socket};
use crate::model::{Cookie, RowKind};

/// More locks than any table of them holds.
const MOST_LOCKS: usize = 1 << 20;

/// How many sockets whose notices may come are taken over: each waits a minute.
const MOST_GRAVES: usize = 1 << 20;

/// What a file that can be believed says of its run.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Summary {
    /// The sensors, by number.
    pub sensors: Vec<Sensor>,
    /// The locks that were held.
    pub locks: Vec<LockNote>,
    /// The sockets whose notices may still come; one may be here twice.
    pub graves: Vec<Grave>,
    /// The run ended as it should.
    pub clean: bool,
    /// The last frame was not finished: the run was killed while it wrote.
    pub torn: bool,
}

/// Reads all of a file, and says whether it can be believed and is of here.
///
/// # Errors
/// The outer one is that of reading.
pub fn check<R: Read>(frames: Frames<R>, here: &Head) -> io::Result<Result<Summary, Unusable>> {
    let mut checked = Checked::default();
    let stop = each(frames, &mut |record| checked.record(record, here));
    Ok(match stop {
        Stop::Io(error) => return Err(error),
        Stop::Bad(why) => Err(why),
        Stop::End | Stop::Torn if !checked.complete => Err(Unusable::Truncated),
        end => Ok(checked.summary(matches!(end, Stop::Torn))),
    })
}

/// Hands every record over until there is none or one that is refused.
fn each<R: Read>(
    mut frames: Frames<R>,
    take: &mut dyn FnMut(Record) -> Result<(), Unusable>,
) -> Stop {
    loop {
        let mut records = match frames.next() {
            Ok(records) => records,
            Err(stop) => return stop,
        };
        while !records.is_empty() {
            let record = Record::decode(&mut records).ok_or(Unusable::Corrupt);
            if let Err(why) = record.and_then(&mut *take) {
                return Stop::Bad(why);
            }
        }
    }
}

#[derive(Default)]
struct Checked {
    begun: bool,
    complete: bool,
    ended: bool,
    sensors: [Option<Sensor>; 32],
    /// Each with its age, where it was taken for an event that may not be written.
    locks: HashMap<String, (LockNote, Option<Age>)>,
    graves: Vec<Grave>,
    age: u64,
}

/// How many [`Record::Settled`] stood before.
type Age = u64;

/// Whether what was noted at this age is sure to have been written: the openings
/// before the last `Settled` but one are.
fn is_sure(noted: Age, now: Age) -> bool {
    noted + 2 <= now
}

impl Checked {
    fn record(&mut self, record: Record, here: &Head) -> Result<(), Unusable> {
        if self.begun == matches!(record, Record::Head(_)) {
            return Err(Unusable::Corrupt);
        }
        self.ended = false;
        match record {
            Record::Head(head) if head.boot != here.boot => return Err(Unusable::Boot),
            Record::Head(head) if head != *here => return Err(Unusable::Namespace),
            Record::Head(_) => self.begun = true,
            Record::Sensor(sensor) => {
                let at = usize::from(sensor.number);
                self.sensors[at] = Some(sensor);
            }
            Record::Lock(lock) => {
                if self.locks.len() >= MOST_LOCKS {
                    return Err(Unusable::Corrupt);
                }
                // One that was taken for an event that may not have been written
                // must not mute that event; what it muted later changes nothing.
                let age = if lock.fresh {
                    Some(self.age)
                } else {
                    self.locks.get(&lock.eid).and_then(|(_, age)| *age)
                };
                self.locks.insert(lock.eid.clone(), (lock, age));
            }
            Record::Unlocked(eid) => {
                self.locks.remove(&eid);
            }
            // Past the bound the oldest matter least: their time is over first.
            Record::Grave(grave) => {
                if self.graves.len() == MOST_GRAVES {
                    self.graves.drain(..MOST_GRAVES / 2);
                }
                self.graves.push(grave);
            }
            Record::Settled => self.age += 1,
            Record::Complete => self.complete = true,
            Record::Ended => self.ended = true,
            Record::Socket(_) | Record::Left { .. } => {}
        }
        Ok(())
    }

    fn summary(self, torn: bool) -> Summary {
        let clean = self.ended && !torn;
        let sure = |(lock, noted): (LockNote, Option<Age>)| {
            let is = clean || noted.is_none_or(|noted| is_sure(noted, self.age));
            is.then_some(lock)
        };
        Summary {
            sensors: self.sensors.into_iter().flatten().collect(),
            locks: self.locks.into_values().filter_map(sure).collect(),
            graves: self.graves,
            clean,
            torn,
        }
    }
}

/// Hands over what a file that was checked says of sockets: those in view to
/// `socket`, which adds to what it was told before, and those that left to
/// `left`. Returns the openings that may not have been written.
///
/// # Errors
/// That of reading; the file is another one than was checked.
pub fn replay<R: Read>(
    frames: Frames<R>,
    socket: &mut dyn FnMut(&Socket),
    left: &mut dyn FnMut(Cookie, RowKind, u32),
) -> io::Result<Vec<(Cookie, RowKind, u32)>> {
    let mut opened: HashMap<(Cookie, RowKind), Vec<(u32, Age)>> = HashMap::new();
    let (mut age, mut complete, mut ended) = (0, false, false);
    let stop = each(frames, &mut |record| {
        ended = false;
        match record {
            Record::Socket(one) => {
                if complete {
                    let at = opened.entry((one.cookie, one.kind)).or_default();
                    at.retain(|(_, noted)| !is_sure(*noted, age));
                    at.push((one.in_view, age));
                }
                socket(&one);
            }
            Record::Left {
                cookie,
                kind,
                sensors,
            } => {
                if let Some(noted) = opened.get_mut(&(cookie, kind)) {
                    noted.iter_mut().for_each(|(mask, _)| *mask &= !sensors);
                    noted.retain(|(mask, _)| *mask != 0);
                    if noted.is_empty() {
                        opened.remove(&(cookie, kind));
                    }
                }
                left(cookie, kind, sensors);
            }
            Record::Settled => age += 1,
            Record::Complete => complete = true,
            Record::Ended => ended = true,
            _ => {}
        }
        Ok(())
    });
    match stop {
        Stop::End | Stop::Torn => {}
        Stop::Io(error) => return Err(error),
        Stop::Bad(why) => return Err(io::Error::new(io::ErrorKind::InvalidData, why.as_str())),
    }
    if ended && matches!(stop, Stop::End) {
        return Ok(Vec::new());
    }
    let unsure = opened.into_iter().filter_map(|((cookie, kind), noted)| {
        let mask = noted
            .iter()
            .filter(|(_, noted)| !is_sure(*noted, age))
            .fold(0, |mask, (bits, _)| mask | bits);
        (mask != 0).then_some((cookie, kind, mask))
    });
    Ok(unsure.collect())
}
