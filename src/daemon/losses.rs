//! Going on with what there is: groups that cannot be had, dumps that fail, and
//! what comes back. Each is told once, in the log and in a record, with what it
//! costs.

use super::RunError;
use super::groups::{self, Unusable};
use super::place::Place;
use super::shared::Shared;
use super::sources::Sources;
use crate::model::{Degraded, Family, Now, Proto, Restored};
use crate::pipeline::Pipeline;
use crate::source::Group;
use crate::source::diag::DumpError;
use crate::source::dumps::Asked;

/// After how many failed dumps in a row a protocol is said to be missing; at 200
/// ms a try that is two seconds.
const GIVEN_UP: u32 = 10;

impl Sources {
    /// Goes on without some groups, and says what that costs.
    pub(super) fn lose(&mut self, unusable: &[Unusable], pipeline: &mut Pipeline, now: Now) {
        for one in unusable.iter().filter(|one| one.costs) {
            let Group { family, proto } = one.group;
            self.each_sensor(|sensor| sensor.blind(family, proto));
            self.shared.deaf.push(one.group);
        }
        for record in groups::degraded(unusable) {
            log::warn!(
                "no notices from {}: {}; it costs: {}",
                record.missing.join(", "),
                record.reason,
                record.cost
            );
            pipeline.degraded(record, now);
        }
    }
}

impl Place {
    /// A dump failed and changed nothing: says so, and sees how to go on.
    pub(super) fn failed(
        &mut self,
        asked: Asked,
        error: &DumpError,
        shared: &mut Shared,
        pipeline: &mut Pipeline,
        now: Now,
    ) -> Result<(), RunError> {
        if !self.at_home {
            // What the kernel still holds of it goes with its sockets.
            self.scope = None;
        }
        let coverage = asked.coverage;
        let proto = coverage.proto.as_str();
        if error.is_unknown() && self.dumps.fall_back(asked) {
            let level = if self.at_home {
                log::Level::Info
            } else {
                log::Level::Debug
            };
            log::log!(
                level,
                "one dump for both TCP families failed ({error}); asking for each on its own"
            );
            return Ok(());
        }
        let failures = &mut self.failures[coverage.proto as usize];
        *failures = failures.saturating_add(1);
        let given_up = error.is_missing() || *failures >= GIVEN_UP;
        if given_up && self.dumps.is_missing_now(coverage.proto) {
            self.lose_proto(coverage.proto, error, pipeline, now);
        }
        if error.is_missing() {
            let useless = Proto::ALL
                .into_iter()
                .all(|proto| !self.needs.proto(proto) || self.dumps.lacks(proto));
            return if useless && self.at_home {
                Err(RunError::NoSource)
            } else {
                Ok(())
            };
        }
        shared.warn("dump", now, || {
            format!("a {proto} dump failed and is tried again: {error}")
        });
        self.dumps.retry(asked, now.mono);
        Ok(())
    }

    /// Goes on without a protocol, and says so; it is still asked for.
    fn lose_proto(&mut self, proto: Proto, error: &DumpError, pipeline: &mut Pipeline, now: Now) {
        for family in Family::ALL {
            self.sensor.blind(family, proto);
        }
        // Of one namespace it is as of all: it is a module of the kernel that is missing.
        if !self.at_home {
            return;
        }
        let proto = proto.as_str();
        let cost = format!("{proto} sockets are not seen");
        log::warn!("no {proto} dumps: {error}; it costs: {cost}");
        let degraded = Degraded {
            source: proto,
            missing: vec![proto],
            reason: error.to_string(),
            cost,
        };
        pipeline.degraded(degraded, now);
    }

    /// A dump completed: a protocol that was given up is there again.
    pub(super) fn regain_proto(
        &mut self,
        proto: Proto,
        shared: &Shared,
        pipeline: &mut Pipeline,
        now: Now,
    ) {
        self.failures[proto as usize] = 0;
        if self.dumps.is_found_again(proto) {
            for family in Family::ALL {
                if !shared.deaf.contains(&Group { family, proto }) {
                    self.sensor.sees(family, proto, now);
                }
            }
            if !self.at_home {
                return;
            }
            let proto = proto.as_str();
            log::info!("{proto} dumps work again");
            let restored = Restored {
                source: proto,
                parts: vec![proto],
            };
            pipeline.restored(restored, now);
        }
    }
}
