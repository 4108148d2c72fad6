//! What a look has found: namespaces come, and have names.

use super::Away;
use super::dumps::queue;
use crate::daemon::place::Place;
use crate::daemon::shared::Shared;
use crate::daemon::sources::NETNS;
use crate::log::Plain;
use crate::model::{Degraded, Now, Proto};
use crate::pipeline::Pipeline;
use crate::sensor::{NetSocket, Reader};
use crate::source::dumps::{Asked, Dumps};
use crate::source::netns::{Found, Looked, MOST, Refused};

impl Away {
    /// Takes a look's answer.
    pub(super) fn looked(
        &mut self,
        looked: Looked,
        home: &mut NetSocket,
        shared: &mut Shared,
        pipeline: &mut Pipeline,
        now: Now,
    ) {
        self.looks.under_way = false;
        if let Some(name) = looked.own {
            home.set_name(name);
        }
        self.ended.extend(looked.ended);
        for (number, name) in looked.named {
            // What leads there now may lead to another one with its inode.
            if !self.ended.contains(&number)
                && let Some(place) = self.places.get_mut(&number)
            {
                place.sensor.set_name(name);
            }
        }
        for refused in &looked.refused {
            self.refused(refused, shared, now);
        }
        self.left_out(looked.left_out);
        if looked.denied && !self.looks.begun {
            denied(pipeline, now);
        }
        for found in looked.found {
            self.arrived(found, shared, pipeline, now);
        }
        self.looks.begun = true;
        self.looks.covered = looked.covered.or(self.looks.covered);
        self.stats.netns.set(self.places.len() as u64);
        // What they are is known now, or it will never be.
        for (id, notice) in std::mem::take(&mut self.strays) {
            if looked.own_id == Some(id) {
                home.notice(notice, now, pipeline);
            } else if self.by_id.contains_key(&id) {
                self.hear(id, notice, now, pipeline);
            } else {
                self.stats.notices_strange.bump();
            }
        }
        self.own_id = looked.own_id;
        // Its own gifts are announced to it too.
        let by_id = &self.by_id;
        if self.looks.given.iter().any(|id| !by_id.contains_key(id)) {
            self.looks.hurry();
        }
        for id in std::mem::take(&mut self.ended_early) {
            self.ended.extend(self.by_id.get(&id));
        }
        // A tick may have come before there was a place.
        self.read_counters();
    }

    /// A namespace that was not known.
    fn arrived(&mut self, found: Found, shared: &Shared, pipeline: &mut Pipeline, now: Now) {
        let Found {
            number,
            netns,
            id,
            name,
        } = found;
        log::debug!(
            "namespace {}{}",
            netns.0,
            name.as_deref().map_or(String::new(), shown)
        );
        let mut place = Place::new(netns, self.watched.clone(), &self.stats, now);
        place.sensor.set_name(name);
        for reader in [Reader::Clients, Reader::Processes] {
            let keep = shared.listed[reader as usize];
            place.sensor.keep_places(reader, keep);
        }
        for group in &shared.deaf {
            place.sensor.blind(group.family, group.proto);
        }
        if self.looks.begun {
            if let Some(since) = self.looks.covered {
                was_empty(&mut place, Now { mono: since, ..now }, pipeline);
            }
        } else {
            self.unread.insert(number);
        }
        place.dumps.ask(place.needs);
        queue(&mut place, number, &mut self.line);
        if !place.in_line {
            self.unread.remove(&number);
        }
        self.places.insert(number, place);
        self.by_netns.insert(netns, number);
        if let Some(id) = id {
            self.by_id.insert(id, number);
        }
    }

    fn refused(&self, refused: &Refused, shared: &mut Shared, now: Now) {
        self.stats.netns_refused.bump();
        shared.warn("netns", now, || {
            let name = refused.name.as_deref().map_or(String::new(), shown);
            let (netns, error) = (refused.netns.0, &refused.error);
            format!(
                "network namespace {netns}{name} cannot be entered ({error}): its sockets are not seen"
            )
        });
    }

    fn left_out(&mut self, count: usize) {
        self.stats.netns_left_out.set(count as u64);
        if count > 0 && !std::mem::replace(&mut self.looks.told_left_out, true) {
            log::warn!(
                "there are {count} network namespaces more than the {MOST} that are watched: their \
                 sockets are not seen"
            );
        }
    }
}

/// Says that namespaces may be missing.
fn denied(pipeline: &mut Pipeline, now: Now) {
    let reason = "some processes must not be looked into (that takes CAP_SYS_PTRACE)";
    let cost = "network namespaces that only these processes lead to are not found";
    log::warn!("not every network namespace: {reason}; it costs: {cost}");
    let degraded = Degraded {
        source: NETNS,
        missing: vec!["namespaces of some processes"],
        reason: reason.to_owned(),
        cost: cost.to_owned(),
    };
    pipeline.degraded(degraded, now);
}

fn shown(name: &str) -> String {
    format!(" ({})", Plain(name))
}

/// The namespace came to be since then: as good as a dump that held nothing.
fn was_empty(place: &mut Place, since: Now, pipeline: &mut Pipeline) {
    let mut dumps = Dumps::default();
    dumps.ask(place.needs);
    while let Some(Asked { coverage, .. }) = dumps.next(since.mono, false) {
        place.sensor.begin_dump(coverage, since);
        let found = place.sensor.end_dump(since, pipeline);
        debug_assert_eq!((found, Proto::ALL.len()), (0, 2), "nothing was read");
    }
}
