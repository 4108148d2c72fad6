//! Every other network namespace: found, followed, dumped one after the other, and
//! told when it ends.
//!
//! A namespace is found by a look (every half second, and when an id is announced)
//! and has a [`Place`] from then on. Its notices come through the socket of our
//! own. To read its counters or open the sockets for a dump the [`Scout`] goes
//! there; between ticks nothing of ours is in it, so that it ends when its last
//! user leaves. The announcement of that comes behind all its notices, and what
//! is left of it then is told as closed.
//!
//! A namespace that an earlier look did not show is taken for new: what is in it
//! was opened since. What the first look finds was there before.

mod asked;
mod dumps;
mod found;
mod gaps;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::place::{Place, Watched};
use super::schedule::Mask;
use crate::enrich::cgroups::path;
use crate::enrich::pool::Wake;
use crate::model::{Gap, Netns, Notice, Now, Renumbering};
use crate::pipeline::Pipeline;
use crate::sensor::NetSocket;
use crate::source::Notices;
use crate::source::netns::{Announcements, Job, Number, Scout, Setup};
use crate::stats::Stats;

/// How often namespaces are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How soon after one look there is another, however much is announced.
const LOOK_SOONEST: Duration = Duration::from_millis(20);
/// How much of one core looks may take, in percent.
const LOOK_SHARE: u32 = 2;
/// How many notices of namespaces that are not known yet are kept.
const STRAYS: usize = 4096;

/// Where the dumps have come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// None is being dumped.
    Home,
    /// The scout fetches the sockets of this one.
    Going(Number),
    /// This one is being dumped.
    There(Number),
}

/// The looks for namespaces.
#[derive(Debug)]
struct Looks {
    /// One is under way.
    under_way: bool,
    /// When the last one began.
    began: Instant,
    /// When the next one is due.
    due: Instant,
    /// The last one is not paid for before that.
    rests_until: Instant,
    /// Ids that were given since then to namespaces that are not known.
    given: Vec<i32>,
    /// Announcements of ends may have been lost: it has to find out.
    check: bool,
    /// The first one has been answered.
    begun: bool,
    /// Whatever there was at this time has been seen.
    covered: Option<Instant>,
    /// It was said that there are more than are watched.
    told_left_out: bool,
}

impl Looks {
    /// There is something to be found.
    fn hurry(&mut self) {
        self.due = self
            .due
            .min(self.began + LOOK_SOONEST)
            .max(self.rests_until);
    }

    /// The last one took so much CPU time. Looks have a share of their own, so that
    /// whoever makes namespaces by the thousand holds no tick up.
    fn cost(&mut self, cpu: Duration) {
        self.rests_until = self.began + cpu.saturating_mul(100 / LOOK_SHARE);
        self.due = self.due.max(self.rests_until);
    }
}

/// All other namespaces.
pub(super) struct Away {
    scout: Scout,
    announcements: Announcements,
    /// There may be announcements.
    pub news_ready: bool,
    watched: Watched,
    places: BTreeMap<Number, Place>,
    by_id: HashMap<i32, Number>,
    by_netns: HashMap<Netns, Number>,
    looks: Looks,
    /// Notices of namespaces that are not known yet, in their order.
    strays: VecDeque<(i32, Notice)>,
    /// Ended, and to be told of when every notice is read.
    ended: BTreeSet<Number>,
    /// Ended before it was known.
    ended_early: Vec<i32>,
    /// Ended, and to be forgotten by the scout.
    forget: Vec<Number>,
    /// Whose ticks are due.
    due: Mask,
    /// Whose ticks wait for the counters that the scout reads.
    reading: Option<Mask>,
    /// Those that have something to be dumped, in order.
    line: VecDeque<Number>,
    at: At,
    /// When the dump under way is looked at again.
    look_at: Option<Instant>,
    /// Those that have not been read since they were found, of the first look.
    unread: BTreeSet<Number>,
    /// Those in which something may have ended unheard.
    gaps: BTreeSet<Number>,
    /// Gaps that cannot be reconciled.
    abandoned: Vec<Gap>,
    /// The id that our own namespace has given itself.
    own_id: Option<i32>,
    stats: Rc<Stats>,
}

impl Away {
    /// Begins to watch. `notices` hears of all namespaces from then on. On failure
    /// says what was refused, and everything is as before.
    ///
    /// # Errors
    /// EPERM without CAP_NET_BROADCAST (to hear), CAP_SYS_ADMIN (to go) or
    /// CAP_NET_ADMIN (to give ids).
    pub fn open(
        watched: Watched,
        notices: &mut Notices,
        wake: Wake,
        stats: &Rc<Stats>,
        now: Now,
    ) -> Result<Away, (&'static str, io::Error)> {
        let announcements = Announcements::open(Rc::clone(stats))
            .map_err(|error| ("hear of namespaces that end", error))?;
        let setup = Setup {
            ids: true,
            container: path::container_in,
        };
        let scout = Scout::start(setup, wake)
            .map_err(|error| ("enter namespaces and give them ids", error))?;
        if let Err(error) = notices.listen_all(true) {
            return Err(("hear notices of other namespaces", error));
        }
        Ok(Away {
            scout,
            announcements,
            news_ready: true,
            watched,
            places: BTreeMap::new(),
            by_id: HashMap::new(),
            by_netns: HashMap::new(),
            looks: Looks {
                under_way: false,
                began: now.mono,
                due: now.mono,
                rests_until: now.mono,
                given: Vec::new(),
                check: false,
                begun: false,
                covered: None,
                told_left_out: false,
            },
            strays: VecDeque::new(),
            ended: BTreeSet::new(),
            ended_early: Vec::new(),
            forget: Vec::new(),
            due: 0,
            reading: None,
            line: VecDeque::new(),
            at: At::Home,
            look_at: None,
            unread: BTreeSet::new(),
            gaps: BTreeSet::new(),
            abandoned: Vec::new(),
            own_id: None,
            stats: Rc::clone(stats),
        })
    }

    /// The descriptor to wait on (readable) for announcements.
    pub fn fd(&self) -> RawFd {
        self.announcements.as_raw_fd()
    }

    /// The sensor of a namespace.
    pub fn sensor(&mut self, netns: Netns) -> Option<&mut NetSocket> {
        let number = self.by_netns.get(&netns)?;
        self.places.get_mut(number).map(|place| &mut place.sensor)
    }

    /// The name of a namespace.
    pub fn name(&self, netns: Netns) -> Option<&Arc<str>> {
        let number = self.by_netns.get(&netns)?;
        self.places.get(number)?.sensor.name()
    }

    /// All sensors, in the order of [`Number`], from one on.
    pub fn sensors_from(&self, number: Number) -> impl Iterator<Item = (Number, &NetSocket)> {
        let places = self.places.range(number..);
        places.map(|(number, place)| (*number, &place.sensor))
    }

    /// All sensors.
    pub fn sensors(&mut self) -> impl Iterator<Item = &mut NetSocket> {
        self.places.values_mut().map(|place| &mut place.sensor)
    }

    /// How many sockets are held.
    pub fn sockets(&self) -> usize {
        self.places.values().map(|place| place.sensor.len()).sum()
    }

    /// How many namespaces there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Goes on for other sensors.
    pub fn replace(
        &mut self,
        watched: Watched,
        sensors: &Renumbering,
        pipeline: &mut Pipeline,
        now: Now,
    ) {
        for place in self.places.values_mut() {
            place.replace(watched.clone(), sensors, pipeline, now);
        }
        // The masks speak of those that were.
        self.due = 0;
        self.reading = self.reading.map(|_| 0);
        self.watched = watched;
    }

    /// Whether our own namespace has this id.
    pub fn is_home(&self, id: i32) -> bool {
        self.own_id == Some(id)
    }

    /// A notice of another namespace.
    pub fn hear(&mut self, id: i32, notice: Notice, now: Now, pipeline: &mut Pipeline) {
        let place = self.by_id.get(&id).and_then(|at| self.places.get_mut(at));
        match place {
            Some(place) => {
                place.noticed[notice.id.proto as usize] = true;
                place.sensor.notice(notice, now, pipeline);
            }
            None => {
                if self.strays.len() == STRAYS {
                    self.strays.pop_front();
                    self.stats.notices_strange.bump();
                }
                self.strays.push_back((id, notice));
            }
        }
    }

    /// Asks the scout; false when it is no more, which its last answer tells.
    fn ask(&self, job: Job) -> bool {
        match self.scout.ask(job) {
            Ok(()) => true,
            Err(error) => {
                log::debug!("namespaces: {error}");
                false
            }
        }
    }

    /// Hears of ids that are given, and of namespaces that end.
    pub fn news(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.news_ready) {
            return Ok(());
        }
        let news = self.announcements.drain()?;
        for id in news.ended {
            match self.by_id.get(&id) {
                Some(number) => {
                    self.ended.insert(*number);
                }
                None if self.looks.under_way => self.ended_early.push(id),
                None => {}
            }
        }
        self.looks.check |= news.lost;
        let strange = |id: &i32| !self.by_id.contains_key(id);
        let strange = news.given.into_iter().filter(strange);
        self.looks.given.extend(strange);
        if news.lost || !self.looks.under_way && !self.looks.given.is_empty() {
            self.looks.hurry();
        }
        Ok(())
    }

    /// Has namespaces looked for when that is due.
    pub fn look(&mut self, now: Now) {
        if !self.looks.under_way && self.looks.due <= now.mono {
            let job = Job::Look {
                forget: std::mem::take(&mut self.forget),
                bounded: self.looks.begun,
                check: std::mem::take(&mut self.looks.check),
            };
            self.looks.under_way = self.ask(job);
            self.looks.began = now.mono;
            self.looks.due = now.mono + LOOK_EVERY;
            self.looks.given.clear();
        }
    }

    /// Every notice has been read: tells of what was left in the namespaces that
    /// have ended. A gap of theirs is accounted for by that.
    pub fn tell_ends(&mut self, pipeline: &mut Pipeline, now: Now, gap: &mut impl FnMut(Gap)) {
        while let Some(number) = self.ended.pop_first() {
            let Some(mut place) = self.places.remove(&number) else {
                continue;
            };
            place.sensor.end_all(now, pipeline);
            place.sensor.abandon_gap(now).map(&mut *gap);
            self.by_id.retain(|_, at| *at != number);
            let netns = place.sensor.netns();
            if self.by_netns.get(&netns) == Some(&number) {
                self.by_netns.remove(&netns);
            }
            self.unread.remove(&number);
            self.gaps.remove(&number);
            self.forget.push(number);
            if matches!(self.at, At::There(at) if at == number) {
                self.at = At::Home;
            }
            self.stats.netns_ended.bump();
            log::debug!("namespace {} has ended", netns.0);
        }
        self.stats.netns.set(self.places.len() as u64);
    }

    /// Whether there is something to do now.
    pub fn is_busy(&self, budget: &Budget, now: Now) -> bool {
        let is_busy = |number: &Number| {
            let place = self.places.get(number);
            place.is_none_or(|place| place.is_busy(budget, now))
        };
        self.news_ready
            || match self.at {
                At::Home => self.line.iter().any(is_busy),
                At::Going(_) => false,
                // One that is not being dumped is to be left.
                At::There(number) => {
                    let place = self.places.get(&number);
                    place.is_none_or(|place| !place.is_dumping() || place.dump_ready)
                }
            }
    }

    /// Whether everything that was there at the start has been read.
    pub fn is_read(&self) -> bool {
        self.looks.begun && self.unread.is_empty()
    }

    /// When something is due that no descriptor tells of.
    pub fn deadline(&self, budget: &Budget, now: Now) -> Option<Instant> {
        let looks = (!self.looks.under_way).then_some(self.looks.due);
        let dumps = match self.at {
            At::Home => {
                let waiting = self.line.iter();
                let waiting = waiting.filter_map(|number| self.places.get(number));
                waiting
                    .filter_map(|place| place.deadline(budget, now))
                    .min()
            }
            At::Going(_) => None,
            At::There(_) => self.look_at,
        };
        looks.into_iter().chain(dumps).min()
    }
}
