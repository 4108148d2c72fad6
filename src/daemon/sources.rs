//! All sources and the sensors that they feed: notices of every namespace that is
//! watched, the dumps of each, connect() calls; and when all of it is ready.

use std::io;
use std::rc::Rc;
use std::time::Instant;

use super::RunError;
use super::away::Away;
use super::connects::{ConnectSources, Everywhere};
use super::groups::Probes;
use super::missing;
use super::place::{Place, Watched, added};
use super::schedule::Schedule;
use super::shared::Shared;
use crate::enrich::pool::Wake;
use crate::model::{Degraded, Gap, Needs, Netns, Now, Renumbering, Restored};
use crate::pipeline::Pipeline;
use crate::sensor::NetSocket;
use crate::source::diag::Scope;
use crate::source::{Notices, Room};
use crate::stats::Stats;
use crate::sys;

/// The words for what a sensor with `netns: all` may have to do without.
pub(super) const NETNS: &str = "netns";
const OTHERS: &str = "other network namespaces";

/// How many turns of reading notices it may take until there are none: more than
/// the largest receive buffer has room for.
const LAST_TURNS: u32 = 64;

/// The sources of all namespaces and their sensors.
pub(super) struct Sources {
    /// Our own namespace.
    pub home: Place,
    /// All others, where a sensor watches them.
    pub away: Option<Away>,
    pub notices: Notices,
    /// Where a sensor watches connect() calls.
    pub connects: Option<ConnectSources>,
    /// There may be notices to read.
    pub notices_ready: bool,
    pub(super) probes: Probes,
    /// `ready` has not been said yet.
    starting: bool,
    /// What was lost, as far as it is accounted for.
    pub(super) gap: Option<Gap>,
    pub shared: Shared,
}

impl Sources {
    /// Opens the sockets of the namespace that the calling thread is in.
    pub fn open(watched: Watched, stats: Rc<Stats>, now: Now) -> Result<Sources, RunError> {
        let netns =
            sys::netns().map_err(|error| RunError::Start("read the network namespace", error))?;
        let no_diag = |error| RunError::Start("open a sock_diag netlink socket", error);
        let scope = Scope::open(Netns(netns), Rc::clone(&stats)).map_err(no_diag)?;
        let notices = scope.open_notices().map_err(no_diag)?;
        Ok(Sources {
            home: Place::home(scope, watched, &stats, now),
            away: None,
            notices,
            connects: None,
            // Some may have come before the loop watches for them.
            notices_ready: true,
            probes: Probes::none(now.mono),
            starting: true,
            gap: None,
            shared: Shared::new(stats, now),
        })
    }

    /// Joins the notice groups with as much room as is granted.
    pub fn join(&mut self, receive_buffer: usize, pipeline: &mut Pipeline, now: Now) {
        let granted = self.notices.request_buffer(receive_buffer);
        told(granted, receive_buffer, pipeline, now);
        let unusable = self.probes.join(&self.notices, self.home.needs, now.mono);
        self.lose(&unusable, pipeline, now);
    }

    /// Asks for another receive buffer.
    pub fn resize(&mut self, receive_buffer: usize, pipeline: &mut Pipeline, now: Now) {
        told(
            self.notices.resize(receive_buffer),
            receive_buffer,
            pipeline,
            now,
        );
    }

    /// Watches every other namespace, or says why that cannot be and what it
    /// costs.
    pub fn watch_all(&mut self, watched: Watched, wake: Wake, pipeline: &mut Pipeline, now: Now) {
        let stats = Rc::clone(&self.shared.stats);
        match Away::open(watched, &mut self.notices, wake, &stats, now) {
            Ok(away) => {
                self.away = Some(away);
                if pipeline.is_missing(NETNS, OTHERS) {
                    let parts = vec![OTHERS];
                    let source = NETNS;
                    pipeline.restored(Restored { source, parts }, now);
                }
            }
            Err((what, error)) => {
                no_other_namespaces(format!("cannot {what}: {error}"), pipeline, now);
            }
        }
    }

    /// Watches our own namespace alone again. What was heard of others is read
    /// before: a notice that is read when they are not listened to any more does not
    /// say whose it is.
    pub fn stay_home(&mut self, pipeline: &mut Pipeline, now: Now) -> io::Result<()> {
        if self.away.is_none() {
            return Ok(());
        }
        // The last turn has read nothing, so that hardly any time passes behind it.
        for _ in 0..LAST_TURNS {
            let before = self.shared.stats.notices.count();
            self.notices_ready = true;
            self.hear(pipeline, now)?;
            if self.shared.stats.notices.count() == before {
                break;
            }
        }
        if let Err(error) = self.notices.listen_all(false) {
            log::debug!("notices of other namespaces come on: {error}");
        }
        self.away = None;
        Ok(())
    }

    /// Goes on for other sensors: joins the groups that nobody needed before, and
    /// leaves those that nobody needs any more. Notices that come meanwhile wait in their socket. Other namespaces are
    /// watched by whoever has some `elsewhere`; where nobody has, see
    /// [`Sources::stay_home`].
    pub fn replace(
        &mut self,
        watched: Watched,
        elsewhere: Option<(Watched, Wake)>,
        sensors: &Renumbering,
        pipeline: &mut Pipeline,
        now: Now,
    ) {
        let before = self.home.needs;
        self.lower_guard(now);
        self.home.replace(watched, sensors, pipeline, now);
        self.home.review_balance(&self.shared.stats);
        match (&mut self.away, elsewhere) {
            (Some(away), Some((watched, _))) => away.replace(watched, sensors, pipeline, now),
            (None, Some((watched, wake))) => self.watch_all(watched, wake, pipeline, now),
            (_, None) => {}
        }
        self.probes.leave(&self.notices, self.home.needs);
        let added = added(before, self.home.needs);
        if added != Needs::default() {
            let unusable = self.probes.join(&self.notices, added, now.mono);
            self.lose(&unusable, pipeline, now);
        }
    }

    /// The sensor of a namespace.
    pub fn sensor(&mut self, netns: Netns) -> Option<&mut NetSocket> {
        if self.home.sensor.netns() == netns {
            return Some(&mut self.home.sensor);
        }
        self.away.as_mut()?.sensor(netns)
    }

    /// Does something with every sensor.
    pub fn each_sensor(&mut self, mut with: impl FnMut(&mut NetSocket)) {
        with(&mut self.home.sensor);
        if let Some(away) = &mut self.away {
            away.sensors().for_each(with);
        }
    }

    /// Queues the dumps that a tick calls for.
    pub fn tick(&mut self, schedule: &mut Schedule, now: Now) {
        if let Some(until) = self.shared.puts_tick_off(now) {
            schedule.put_off(until);
            return;
        }
        let due = schedule.due(now.mono);
        self.tick_guard(now);
        let reading = self.home.reading(&mut self.shared, now);
        let opens = reading.map(|reading| reading.tcp_opens);
        self.home.balance(opens, &mut self.shared, now);
        self.home.tick(due, reading, &mut self.shared, now);
        if let Some(away) = &mut self.away {
            away.tick(due, &self.shared);
        }
    }

    /// DNS answers may have come.
    pub fn names_came(&mut self) {
        if let Some(connects) = &mut self.connects {
            connects.tap_ready = true;
        }
    }

    /// Handles the connect() calls and DNS answers that there are; true when there
    /// are more.
    pub fn calls(&mut self, pipeline: &mut Pipeline, now: Now) -> bool {
        let Some(connects) = &mut self.connects else {
            return false;
        };
        let sensors = &mut Everywhere::of(&mut self.home, self.away.as_mut());
        let more = connects.drain(sensors, pipeline, now);
        if connects.tap_ready {
            connects.listen(now);
        }
        more || connects.tap_ready
    }

    /// Everything that a hook has seen comes before what the table says.
    pub(super) fn catch_up(&mut self, pipeline: &mut Pipeline, now: Now) {
        if let Some(connects) = &mut self.connects {
            let sensors = &mut Everywhere::of(&mut self.home, self.away.as_mut());
            connects.catch_up(sensors, pipeline, now);
        }
    }

    /// The table has spoken: tells of connect() calls that no hook reported.
    pub(super) fn settle_calls(&mut self, pipeline: &mut Pipeline, now: Now) {
        if let Some(connects) = &mut self.connects {
            let sensors = &mut Everywhere::of(&mut self.home, self.away.as_mut());
            connects.settle(sensors, pipeline, now);
        }
    }

    /// Something was announced of namespaces.
    pub fn namespaces_changed(&mut self) {
        if let Some(away) = &mut self.away {
            away.news_ready = true;
        }
    }

    /// Hears of namespaces that come and go, and takes what was fetched there.
    pub fn travel(&mut self, pipeline: &mut Pipeline, now: Now) -> Result<(), RunError> {
        let Some(away) = &mut self.away else {
            return Ok(());
        };
        // An inode is given again once the end of its namespace was announced.
        away.news()?;
        let home = &mut self.home.sensor;
        if let Err(error) = away.collect(home, &mut self.shared, pipeline, now) {
            self.stay_home(pipeline, now)?;
            let reason = format!("the thread that enters namespaces cannot come home: {error}");
            no_other_namespaces(reason, pipeline, now);
            return Ok(());
        }
        away.look(now);
        Ok(())
    }

    /// Does a slice of what is outstanding; true when there is more to do now.
    pub fn work(&mut self, pipeline: &mut Pipeline, now: Now) -> Result<bool, RunError> {
        self.judge_probes(pipeline, now)?;
        self.shared.tell_unlogged(now);
        if !self.notices_ready && !self.home.is_dumping() {
            self.home.compare(&self.shared, now);
        }
        self.guard(now);
        let shared = &mut self.shared;
        if let Some(coverage) = self.home.work(shared, pipeline, now)? {
            self.catch_up(pipeline, now);
            self.home
                .completed(coverage, &mut self.shared, pipeline, now);
            self.settle_calls(pipeline, now);
            // The ends of what it could not hold are heard before it is compared.
            self.notices_ready |= self.home.narrow.is_comparing();
        }
        self.home
            .ask_about_suspects(&mut self.shared, pipeline, now);
        let done = match &mut self.away {
            Some(away) => away.work(&mut self.shared, pipeline, now)?,
            None => None,
        };
        if let Some(done) = done {
            self.catch_up(pipeline, now);
            if let Some(away) = &mut self.away {
                away.completed(done, &mut self.shared, pipeline, now);
            }
        }
        self.settle_gaps(pipeline, now);
        self.tell_ready(now);
        // An overrun, or the dump that just completed, may call for a dump, and
        // no readiness will tell of that.
        self.home.reconcile(&mut self.shared, now);
        let budget = &self.shared.budget;
        let away = self.away.as_ref();
        let away = away.is_some_and(|away| away.is_busy(budget, now));
        Ok(self.notices_ready || self.home.is_busy(budget, now) || away)
    }

    /// Says so once when everything has been read and the groups are joined.
    /// Not when the line of dumps is empty: where a dump takes longer than a
    /// tick it never is.
    fn tell_ready(&mut self, now: Now) {
        let away = self.away.as_ref();
        if !self.starting
            || !self.home.is_read()
            || !self.probes.are_done()
            || away.is_some_and(|away| !away.is_read())
        {
            return;
        }
        self.starting = false;
        self.home.look_at_balance(&mut self.shared, now);
        let sockets = self.len();
        match &self.away {
            None => log::info!("ready: {sockets} sockets in the table"),
            Some(away) => log::info!(
                "ready: {sockets} sockets in the table, of {} other network namespaces and our own",
                away.len()
            ),
        }
    }

    /// How many sockets are held.
    pub fn len(&self) -> usize {
        let away = self.away.as_ref();
        self.home.sensor.len() + away.map_or(0, Away::sockets)
    }

    /// When something is due that no descriptor tells of.
    pub fn deadline(&self, now: Now) -> Option<Instant> {
        let budget = &self.shared.budget;
        let home = self.home.deadline(budget, now);
        let away = self.away.as_ref();
        let away = away.and_then(|away| away.deadline(budget, now));
        let due = [self.probes.deadline(), home, away];
        due.into_iter().flatten().min()
    }
}

/// Says how much room there is, of how much was asked for.
fn told(granted: io::Result<Room>, asked: usize, pipeline: &mut Pipeline, now: Now) {
    if let Ok(room) = &granted {
        missing::receive_buffer(asked, room, pipeline, now);
    }
    match granted {
        Ok(Room {
            bytes,
            shards: 1,
            notices,
        }) => log::info!(
            "the receive buffer for notices has {bytes} bytes: room for {notices} between two wake-ups"
        ),
        Ok(Room {
            bytes,
            shards,
            notices,
        }) => log::info!(
            "{shards} sockets share the notices, each with {bytes} bytes: room for {notices} between two wake-ups"
        ),
        Err(error) => log::warn!("the receive buffer for notices keeps its size: {error}"),
    }
}

/// Goes on with our own namespace, and says what that costs.
fn no_other_namespaces(reason: String, pipeline: &mut Pipeline, now: Now) {
    let cost = "sensors with `netns: all` see the sockets of this network namespace alone";
    log::warn!("no other network namespaces: {reason}; it costs: {cost}");
    let degraded = Degraded {
        source: NETNS,
        missing: vec![OTHERS],
        reason,
        cost: cost.to_owned(),
    };
    pipeline.degraded(degraded, now);
}
