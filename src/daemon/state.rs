//! What survives this run: keeps the state file in step with what was told.
//!
//! Before the sinks write what a turn came to, the file has what a later run must
//! know of it; after they have, it may forget what ended. A medium that fails
//! costs the memory, never an event: it is told, counted, and tried again.

mod restore;

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::RunError;
use crate::config;
use crate::lock::Lock;
use crate::log::{Plain, RateLimit};
use crate::model::{Netns, Now, SensorIx};
use crate::pipeline::Pipeline;
use crate::sensor::{NetSocket, Reader};
use crate::state::{Base, Found, Head, LockNote, Record, Sensor, Store, Summary};
use crate::stats::Stats;
use crate::sys;

/// How long it is kept back that something was written: what is killed in that
/// time leaves that to be told again.
const PERIOD: Duration = Duration::from_secs(1);
/// How long what locks muted is kept back.
const MUTED_PERIOD: Duration = Duration::from_secs(30);
/// How soon a medium that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// A journal is replaced by a new base when it is longer than the base, and than
/// this.
const SHORTEST_JOURNAL: u64 = 1 << 20;

/// How many slots of the table go into a base in one turn: some two milliseconds.
const SLICE: usize = 4096;

/// A base under way. Sockets come and go meanwhile; what the file that there is
/// gets to know of that, the base gets to know too.
struct Slicing {
    base: Base,
    /// The slots from here on are in it.
    from: usize,
    began: Instant,
}

/// The keeper of one state directory.
pub(super) struct Keeper {
    store: Store,
    found: Option<Summary>,
    /// Each sensor's id and the hash of its view, by number.
    sensors: Vec<(Arc<str>, u64)>,
    /// The sensors as the file has them.
    written: Vec<Sensor>,
    /// The file must be written anew.
    stale: bool,
    /// A base that is written slice by slice.
    slicing: Option<Slicing>,
    /// When something that waits is due, or a medium is tried again.
    due: Option<Instant>,
    muted_due: Option<Instant>,
    /// After a failure: not before.
    not_before: Option<Instant>,
    limit: RateLimit,
    stats: Rc<Stats>,
}

impl Keeper {
    /// Opens the directory.
    pub fn open(
        dir: &Path,
        netns: Netns,
        sensors: &[config::Sensor],
        stats: Rc<Stats>,
    ) -> Result<Keeper, RunError> {
        let here = |error| RunError::Start("tell this boot and namespace from others", error);
        let head = Head {
            boot: sys::boot_id().map_err(here)?,
            netns: netns.0,
            netns_cookie: sys::netns_cookie().map_err(here)?,
        };
        let (store, found) = Store::open(dir, head).map_err(RunError::State)?;
        let found = match found {
            Found::Nothing => {
                log::info!("no state from an earlier run");
                None
            }
            Found::Aside(why, path) => {
                let path = path.to_string_lossy().into_owned();
                log::warn!(
                    "the state of an earlier run cannot be used: {why}; it is kept as {}, and \
                     sockwatch starts afresh",
                    Plain(&path)
                );
                None
            }
            Found::State(summary) => Some(summary),
        };
        Ok(Keeper {
            store,
            found,
            sensors: named(sensors),
            written: Vec::new(),
            stale: true,
            slicing: None,
            due: None,
            muted_due: None,
            not_before: None,
            limit: RateLimit::new(3, Duration::from_secs(60)),
            stats,
        })
    }

    /// The sensors are others now, and have other numbers.
    pub fn replace(&mut self, sensors: &[config::Sensor]) {
        self.sensors = named(sensors);
        self.stale = true;
        // What is in the file has the old numbers.
        self.store.close();
        self.slicing = None;
    }

    /// Before the sinks write: the file gets what a later run must know.
    pub fn before(&mut self, sensor: &mut NetSocket, pipeline: &mut Pipeline, now: Now) {
        let due = self.due.take_if(|due| *due <= now.mono).is_some();
        self.stale |= pipeline.take_unnoted();
        for grave in sensor.buried(now) {
            if let Some(journal) = pipeline.journal_mut() {
                journal.note(&Record::Grave(grave));
            }
        }
        let muted = self.muted_due.take_if(|due| *due <= now.mono).is_some();
        self.note(sensor, pipeline, muted);
        if self.not_before.is_some_and(|until| until > now.mono) {
            if let Some(journal) = pipeline.journal_mut() {
                journal.forget_written();
            }
            return;
        }
        let result = if self.store.is_open() {
            self.go_on(sensor, pipeline, due)
        } else {
            self.slicing = None;
            self.write_base(sensor, pipeline, false)
        };
        match result {
            Ok(()) => self.not_before = None,
            Err(error) => self.failed(&error, now),
        }
        sensor.keep_places(Reader::Keeper, self.slicing.is_some());
    }

    /// Notes what changed that the pipeline does not note itself.
    fn note(&mut self, sensor: &NetSocket, pipeline: &mut Pipeline, with_muted: bool) {
        let released = pipeline.locks_mut().take_released();
        let muted = if with_muted {
            pipeline.locks_mut().take_muted()
        } else {
            Vec::new()
        };
        let sensors = self.described(sensor);
        let Some(journal) = pipeline.journal_mut() else {
            return;
        };
        for eid in released {
            journal.note(&Record::Unlocked(eid));
        }
        for (eid, lock) in muted {
            journal.note(&Record::Lock(locked(eid, &lock)));
        }
        if sensors != self.written {
            for one in &sensors {
                journal.note(&Record::Sensor(one.clone()));
            }
            self.written = sensors;
        }
    }

    fn described(&self, sensor: &NetSocket) -> Vec<Sensor> {
        let each = self.sensors.iter().enumerate();
        each.map(|(at, (id, view))| Sensor {
            number: at as u8,
            id: id.to_string(),
            view: *view,
            primed: sensor.primed(SensorIx(at as u8)),
        })
        .collect()
    }

    /// Appends what is noted, and goes on with a new base where one is wanted.
    fn go_on(&mut self, sensor: &NetSocket, pipeline: &mut Pipeline, due: bool) -> io::Result<()> {
        if self.slicing.is_none() {
            let (base, journal) = self.store.lengths();
            if !self.stale && journal <= SHORTEST_JOURNAL.max(base) {
                return self.append(pipeline, due);
            }
            self.stale = false;
            self.slicing = Some(Slicing {
                base: self.begin(sensor, pipeline)?,
                from: sensor.slots(),
                began: Instant::now(),
            });
        }
        // Whatever waits goes first: behind a base it would be taken for newer.
        self.append(pipeline, true)?;
        let Some(mut slicing) = self.slicing.take() else {
            return Ok(());
        };
        let from = slicing.from.saturating_sub(SLICE);
        let sockets = sensor.slice(from..slicing.from);
        for socket in sockets.filter_map(|socket| pipeline.told(socket)) {
            slicing.base.push(&Record::Socket(socket))?;
        }
        slicing.from = from;
        if from == 0 {
            return self.finish(slicing.base, pipeline, false, slicing.began);
        }
        self.slicing = Some(slicing);
        Ok(())
    }

    /// Whether there is a base to go on with.
    pub fn is_busy(&self) -> bool {
        self.slicing.is_some()
    }

    fn append(&mut self, pipeline: &mut Pipeline, due: bool) -> io::Result<()> {
        let Some(journal) = pipeline.journal_mut() else {
            return Ok(());
        };
        if journal.is_urgent() || (due && !journal.is_empty()) {
            let frames = journal.take();
            self.store.append(&frames)?;
            if let Some(slicing) = &mut self.slicing {
                slicing.base.append(&frames)?;
            }
            self.stats.state_bytes.add(frames.len() as u64);
        }
        Ok(())
    }

    /// Begins a base with all but the sockets.
    fn begin(&mut self, sensor: &NetSocket, pipeline: &Pipeline) -> io::Result<Base> {
        self.written = self.described(sensor);
        let mut base = self.store.begin()?;
        for one in &self.written {
            base.push(&Record::Sensor(one.clone()))?;
        }
        for grave in sensor.graves(Now::read()) {
            base.push(&Record::Grave(grave))?;
        }
        for (eid, lock) in pipeline.locks().iter() {
            base.push(&Record::Lock(locked(eid.to_string(), lock)))?;
        }
        Ok(base)
    }

    /// A base has all its sockets: it takes the place of the file that there is.
    fn finish(
        &mut self,
        mut base: Base,
        pipeline: &mut Pipeline,
        clean: bool,
        began: Instant,
    ) -> io::Result<()> {
        if let Some(journal) = pipeline.journal_mut() {
            for socket in journal.leaving() {
                base.push(&Record::Socket(socket.clone()))?;
            }
            base.push(&Record::Complete)?;
            if journal.is_unsettled() {
                for record in journal.unsettled() {
                    base.push(&record)?;
                }
            }
        }
        if clean {
            base.push(&Record::Ended)?;
        }
        self.store.replace(base, clean)?;
        let bytes = self.store.lengths().0;
        self.stats.state_bytes.add(bytes);
        log::debug!(
            "state written: {bytes} bytes in {} us",
            began.elapsed().as_micros()
        );
        Ok(())
    }

    /// Writes the file anew, in one go; `clean`: the run ends, and everything is
    /// told.
    fn write_base(
        &mut self,
        sensor: &NetSocket,
        pipeline: &mut Pipeline,
        clean: bool,
    ) -> io::Result<()> {
        let began = Instant::now();
        let mut base = self.begin(sensor, pipeline)?;
        for socket in sensor.in_view().filter_map(|socket| pipeline.told(socket)) {
            base.push(&Record::Socket(socket))?;
        }
        if let Some(journal) = pipeline.journal_mut() {
            journal.forget_written();
        }
        self.finish(base, pipeline, clean, began)?;
        self.stale = false;
        Ok(())
    }

    /// After the sinks have written what they could.
    pub fn after(&mut self, pipeline: &mut Pipeline, now: Now) {
        let past = |pipeline: &mut Pipeline| {
            let unsettled = pipeline.journal_mut().is_some_and(|one| one.is_unsettled());
            unsettled && pipeline.fan_mut().is_past_mark()
        };
        while past(pipeline) {
            if let Some(journal) = pipeline.journal_mut() {
                journal.settle();
            }
            pipeline.fan_mut().mark();
        }
        if pipeline.journal_mut().is_some_and(|one| !one.is_empty()) {
            self.due.get_or_insert(now.mono + PERIOD);
        }
        if pipeline.locks().has_muted() {
            self.muted_due.get_or_insert(now.mono + MUTED_PERIOD);
        }
    }

    /// The run ends, and everything was told.
    pub fn end(&mut self, sensor: &NetSocket, pipeline: &mut Pipeline) {
        if let Err(error) = self.write_base(sensor, pipeline, true) {
            self.stats.state_failures.bump();
            log::error!("cannot write the state: {error}; the next run goes by what was there");
        }
    }

    fn failed(&mut self, error: &io::Error, now: Now) {
        self.stats.state_failures.bump();
        self.store.discard();
        self.stale = true;
        self.store.close();
        self.slicing = None;
        self.not_before = Some(now.mono + RETRY);
        if let Some(more) = self.limit.admit("state", now.mono) {
            log::error!(
                "cannot write the state: {error}; events go on, and it is tried again \
                 ({more} more failures were not logged)"
            );
        }
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Instant> {
        let waits = [self.due, self.muted_due, self.not_before];
        waits.into_iter().flatten().min()
    }
}

fn named(sensors: &[config::Sensor]) -> Vec<(Arc<str>, u64)> {
    let each = sensors.iter();
    each.map(|one| (Arc::clone(&one.id), one.view())).collect()
}

fn locked(eid: String, lock: &Lock) -> LockNote {
    LockNote {
        eid,
        first: lock.first,
        last: lock.last,
        muted: lock.muted,
        fresh: false,
    }
}
