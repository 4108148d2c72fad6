//! Where a socket belongs: records that wait for the path of a cgroup.
//!
//! A row tells the id of a cgroup; its path has to be found in the tree, which
//! takes microseconds with the privilege to ask the kernel for it, and where
//! directories have to be read as long as they take: on a thread of its own, never
//! here. Each cgroup is asked for when a socket of it is first met
//! ([`Pipeline::meet`]), and what was found is kept with its sockets, so that
//! hardly a record ever waits, and the last ones of a cgroup that has been removed
//! still name it.
//!
//! What has to wait stands in one line for each sensor and cgroup. A socket never
//! changes its cgroup, so that its records stay in order, and one line of one
//! sensor has one patience, so that the front is always the next to go. An end
//! waits for nothing but the opening of its own socket: by then its cgroup has been
//! asked for.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::waiting::WaitKey;
use super::{About, Pipeline};
use crate::enrich::pool::Wake;
use crate::enrich::{self, Lookup};
use crate::model::{
    Attribution, Cgroup, CgroupAnswer, CgroupUnknown, Change, ConnectData, Data, Evidence, Host,
    Now, Placed, SensorIx, Step, TcpState,
};
use crate::stats::Stats;

/// How many records may be held back; past it, paths are done without.
const BOUND: usize = 16_384;
/// How long a record waits where no `process-timeout` says so.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long the search for one takes at most that nothing waits for.
const SEARCH: Duration = Duration::from_secs(5);

/// A record of which all but the cgroup is known.
pub(super) enum Record {
    /// A change that has been decided.
    Socket {
        change: Box<Change>,
        state: TcpState,
        host: Host,
        holders: Option<Attribution>,
        at: Now,
    },
    /// A connect().
    Connect {
        data: Box<ConnectData>,
        about: About,
        at: Now,
    },
}

struct Waiting {
    until: Instant,
    record: Record,
}

/// How much of a socket waits.
struct InLine {
    records: u32,
    /// No earlier run told of it.
    is_new: bool,
}

/// Everything that waits for cgroups.
pub(super) struct Placing {
    cgroups: Option<enrich::Cgroups>,
    lines: BTreeMap<(SensorIx, u64), VecDeque<Waiting>>,
    count: usize,
    /// The sockets in the lines, each with how many records. A tree, which takes
    /// what it holds.
    held: BTreeMap<WaitKey, InLine>,
    /// Who is to know, of those that are being looked for.
    asked: HashMap<u64, Vec<Rc<Cgroup>>>,
    found: Vec<(u64, CgroupAnswer)>,
    /// The time of the last call: a record may have waited for something else.
    clock: Option<Instant>,
    stats: Rc<Stats>,
}

impl Placing {
    pub fn new(stats: Rc<Stats>) -> Placing {
        Placing {
            cgroups: None,
            lines: BTreeMap::new(),
            count: 0,
            held: BTreeMap::new(),
            asked: HashMap::new(),
            found: Vec::new(),
            clock: None,
            stats,
        }
    }

    /// Whether an event of this socket is held back.
    pub fn holds(&self, key: WaitKey) -> bool {
        self.held.contains_key(&key)
    }

    /// Whether the opening of this socket is held back, and no earlier run told of
    /// it.
    pub fn withholds(&self, key: WaitKey) -> bool {
        self.held.get(&key).is_some_and(|held| held.is_new)
    }

    /// Whether none of any socket is.
    pub fn holds_none(&self) -> bool {
        self.held.is_empty()
    }

    /// How many records wait.
    pub fn len(&self) -> usize {
        self.count
    }

    /// When the next record has waited long enough. There are as many lines as
    /// cgroups that are being looked for: few.
    pub fn deadline(&self) -> Option<Instant> {
        let fronts = self.lines.values().filter_map(VecDeque::front);
        fronts.map(|front| front.until).min()
    }

    fn push(&mut self, key: (SensorIx, u64), waiting: Waiting) {
        if let Record::Socket { change, .. } = &waiting.record {
            let held = self.held.entry(WaitKey::of(change));
            let held = held.or_insert_with(|| InLine {
                records: 0,
                is_new: change.evidence != Evidence::Restart,
            });
            held.records += 1;
        }
        self.count += 1;
        self.lines.entry(key).or_default().push_back(waiting);
    }

    /// A record has left its line.
    fn left(&mut self, record: &Record) {
        self.count -= 1;
        if let Record::Socket { change, .. } = record
            && let Entry::Occupied(mut held) = self.held.entry(WaitKey::of(change))
        {
            held.get_mut().records -= 1;
            if held.get().records == 0 {
                held.remove();
            }
        }
    }

    /// Asks for a cgroup, and sees to it that all its sockets learn the answer.
    fn ask(
        &mut self,
        id: u64,
        of: Option<&Rc<Cgroup>>,
        until: Instant,
        now: Now,
    ) -> Lookup<CgroupAnswer> {
        let Some(cgroups) = &mut self.cgroups else {
            return Lookup::Known(Err(CgroupUnknown::Timeout));
        };
        let lookup = cgroups.ask(id, until, now);
        match (&lookup, of) {
            (Lookup::Known(answer), Some(cgroup)) => cgroup.learn(answer.clone()),
            (Lookup::Pending, Some(cgroup)) => {
                let asking = self.asked.entry(id).or_default();
                if !asking.iter().any(|known| Rc::ptr_eq(known, cgroup)) {
                    asking.push(Rc::clone(cgroup));
                }
            }
            (_, None) => {}
        }
        lookup
    }
}

impl Pipeline {
    /// From now on finds the paths of cgroups. `wake` is called when there is
    /// something to collect.
    pub fn place_with(&mut self, wake: Wake) {
        self.placing.cgroups = Some(enrich::Cgroups::new(wake));
    }

    /// The paths of another hierarchy.
    #[cfg(test)]
    pub(super) fn find_cgroups_with(&mut self, cgroups: enrich::Cgroups) {
        self.placing.cgroups = Some(cgroups);
    }

    /// A socket of this cgroup was met for the first time: its path is looked for
    /// while it can be found.
    pub fn meet(&mut self, cgroup: &Rc<Cgroup>, now: Now) {
        let until = now.mono + SEARCH;
        self.placing.ask(cgroup.id(), Some(cgroup), until, now);
    }

    /// What the event of a change is to say of its cgroup; `None` when the event
    /// has to wait, and will be told later. `record` is the whole of it.
    pub(super) fn place(
        &mut self,
        change: &Change,
        at: Now,
        record: impl FnOnce() -> Record,
    ) -> Option<Option<Placed>> {
        // What nobody is told does not wait, but for what is told before it: a later
        // run goes by their order.
        let is_behind = self.placing.holds(WaitKey::of(change));
        if !is_behind && !self.is_emittable(change) {
            return Some(None);
        }
        let cgroup = match &change.cgroup {
            Ok(cgroup) => cgroup,
            Err(why) => return Some(Some(Placed::nowhere(*why))),
        };
        let is_end = matches!(change.step, Step::Closed { .. });
        if is_end && !is_behind {
            return Some(Some(cgroup.placed()));
        }
        let wanted = self.stage(change).process;
        let patience = wanted.map_or(PATIENCE, |wanted| wanted.timeout);
        let key = (change.sensor, cgroup.id());
        let placed = self.look_up(key, Some(cgroup), patience, at, record)?;
        Some(Some(placed))
    }

    /// The same for the event of a connect().
    pub(super) fn place_connect(
        &mut self,
        sensor: SensorIx,
        id: u64,
        at: Now,
        record: impl FnOnce() -> Record,
    ) -> Option<Placed> {
        self.look_up((sensor, id), None, PATIENCE, at, record)
    }

    fn look_up(
        &mut self,
        key: (SensorIx, u64),
        cgroup: Option<&Rc<Cgroup>>,
        patience: Duration,
        at: Now,
        record: impl FnOnce() -> Record,
    ) -> Option<Placed> {
        let id = Some(key.1);
        let unknown = |why| {
            Some(Placed {
                id,
                cgroup: Err(why),
            })
        };
        if self.placing.count >= BOUND {
            self.placing.stats.cgroups_overload.bump();
            self.place_line(key, &Err(CgroupUnknown::Timeout));
        }
        let placing = &mut self.placing;
        let now = placing.clock.map_or(at.mono, |clock| clock.max(at.mono));
        if !placing.lines.contains_key(&key) {
            if let Some(info) = cgroup.and_then(|cgroup| cgroup.info()) {
                return Some(Placed {
                    id,
                    cgroup: Ok(info),
                });
            }
            if self.finishing || placing.count >= BOUND {
                return unknown(CgroupUnknown::Timeout);
            }
            let now = Now { mono: now, ..at };
            match placing.ask(key.1, cgroup, now.mono + patience, now) {
                Lookup::Known(answer) => return Some(Placed { id, cgroup: answer }),
                Lookup::Pending => {}
            }
        }
        let waiting = Waiting {
            until: now + patience,
            record: record(),
        };
        placing.push(key, waiting);
        None
    }

    /// Takes the answers that came in, and lets go on what waited for them.
    pub(super) fn collect_cgroups(&mut self, now: Now) {
        self.placing.clock = Some(now.mono);
        let Some(cgroups) = &mut self.placing.cgroups else {
            return;
        };
        let mut found = std::mem::take(&mut self.placing.found);
        cgroups.collect(now, &mut found);
        for (id, answer) in found.drain(..) {
            for cgroup in self.placing.asked.remove(&id).into_iter().flatten() {
                cgroup.learn(answer.clone());
            }
            for sensor in 0..self.stages.len() {
                // As many stages as SensorIx can number.
                self.place_line((SensorIx(sensor as u8), id), &answer);
            }
        }
        self.placing.found = found;
    }

    /// Lets go on what has waited long enough.
    pub(super) fn expire_cgroups(&mut self, now: Now) {
        self.placing.clock = Some(now.mono);
        if self.placing.deadline().is_none_or(|until| until > now.mono) {
            return;
        }
        let mut late = Vec::new();
        let placing = &mut self.placing;
        placing.lines.retain(|key, line| {
            while line.front().is_some_and(|front| front.until <= now.mono) {
                late.extend(line.pop_front().map(|waiting| (*key, waiting.record)));
            }
            !line.is_empty()
        });
        for (_, record) in &late {
            placing.left(record);
        }
        placing.stats.cgroups_timed_out.add(late.len() as u64);
        for (key, record) in late {
            self.tell_placed(key, record, &Err(CgroupUnknown::Timeout));
        }
    }

    /// Lets everything go on without an answer.
    pub(super) fn release_cgroups(&mut self) {
        let keys: Vec<_> = self.placing.lines.keys().copied().collect();
        for key in keys {
            self.place_line(key, &Err(CgroupUnknown::Timeout));
        }
    }

    /// Tells the records of a line.
    fn place_line(&mut self, key: (SensorIx, u64), answer: &CgroupAnswer) {
        let Some(line) = self.placing.lines.remove(&key) else {
            return;
        };
        for waiting in &line {
            self.placing.left(&waiting.record);
        }
        for waiting in line {
            self.tell_placed(key, waiting.record, answer);
        }
    }

    fn tell_placed(
        &mut self,
        (sensor, id): (SensorIx, u64),
        record: Record,
        answer: &CgroupAnswer,
    ) {
        let placed = Placed {
            id: Some(id),
            cgroup: answer.clone(),
        };
        match record {
            Record::Socket {
                change,
                state,
                host,
                holders,
                at,
            } => self.write(&change, state, &host, holders, Some(placed), at),
            Record::Connect {
                mut data,
                about,
                at,
            } => {
                data.cgroup = placed;
                self.pass(sensor, about, || Data::Connect(*data), at);
            }
        }
    }
}
