//! Counters. Nothing is lost silently: whatever is dropped, rejected or retried
//! is counted here, and the daemon tells the sums when it ends.

use std::cell::Cell;
use std::fmt;

/// A count that only the reactor's thread touches.
#[derive(Default, Debug)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// Adds one.
    pub fn bump(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.set(self.0.get().saturating_add(n));
    }

    /// Sets it: for what is a state and no count.
    pub fn set(&self, n: u64) {
        self.0.set(n);
    }

    /// The count.
    pub fn count(&self) -> u64 {
        self.0.get()
    }

    fn value(&self) -> Result<u64, &'static str> {
        Ok(self.count())
    }
}

/// What there is so much of by now, as far as that can be known.
#[derive(Debug)]
pub struct Gauge(Cell<Result<u64, &'static str>>);

impl Gauge {
    /// Sets it.
    pub fn set(&self, n: u64) {
        self.0.set(Ok(n));
    }

    /// It is not known, for this reason: a word.
    pub fn unknown(&self, reason: &'static str) {
        self.0.set(Err(reason));
    }

    /// What it was set to, or why it is not known.
    fn value(&self) -> Result<u64, &'static str> {
        self.0.get()
    }
}

impl Default for Gauge {
    fn default() -> Gauge {
        Gauge(Cell::new(Err("not_yet")))
    }
}

macro_rules! stats {
    (@kind) => { Counter };
    (@kind $kind:ident) => { $kind };
    ($($(#[$doc:meta])* $name:ident $(as $kind:ident)?,)*) => {
        /// All counters of one daemon.
        #[derive(Default, Debug)]
        pub struct Stats {
            $($(#[$doc])* pub $name: stats!(@kind $($kind)?),)*
        }

        impl Stats {
            /// Every counter with its name, in a fixed order: its count, or a word
            /// that says why that is not known.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, Result<u64, &'static str>)> {
                [$((stringify!($name), self.$name.value()),)*].into_iter()
            }

            /// Those that are known.
            pub fn known(&self) -> impl Iterator<Item = (&'static str, u64)> {
                self.all().filter_map(|(name, count)| Some((name, count.ok()?)))
            }
        }
    };
}

stats! {
    /// Dumps that completed.
    dumps,
    /// Dumps that failed or were cut short.
    dumps_failed,
    /// Dumps that the gate spared: the counters said that nothing was new.
    dumps_spared,
    /// Dumps for which the kernel was asked to leave out what no pattern could
    /// match.
    dumps_narrowed,
    /// Of those, the ones that missed a socket in the table, and were followed by a
    /// whole one.
    dumps_widened,
    /// Times that the kernel refused a condition on the rows of a dump.
    conditions_refused,
    /// Dumps that nothing but the time since the last one spoke for.
    dumps_forced,
    /// Sockets that such dumps found: opened without moving a counter.
    forced_found,
    /// Ticks put off because dumps had used up `cpu-budget`.
    ticks_stretched,
    /// Dumps that were to reconcile and had to wait because of that.
    dumps_rested,
    /// Rows read.
    rows,
    /// Ticks that came while a dump was still under way.
    ticks_late,
    /// Notices read.
    notices,
    /// Times that the kernel was told which notices to refuse.
    notices_narrowed,
    /// Notices of sockets that had been reported closed before.
    notices_late,
    /// Notices of network namespaces that are not known.
    notices_strange,
    /// Other network namespaces that are watched, by now.
    netns,
    /// Network namespaces that have ended.
    netns_ended,
    /// Network namespaces that could not be entered.
    netns_refused,
    /// Network namespaces that there are no places for, by now.
    netns_left_out,
    /// Times the kernel had to drop notices.
    overruns,
    /// Netlink messages that were malformed, truncated or not from the kernel.
    netlink_rejected,
    /// TCP opens that the kernel has counted and nothing accounts for, by now.
    opens_unaccounted as Gauge,
    /// Records that went on without the path of a cgroup: it took too long.
    cgroups_timed_out,
    /// Records that went on without it because too many were waiting.
    cgroups_overload,
    /// Exact queries asked.
    queries,
    /// Exact queries that failed, so that nothing was concluded.
    queries_failed,
    /// Events made.
    events,
    /// Events muted by a lock.
    events_muted,
    /// Events that passed because the table of locks was full.
    locks_full,
    /// Events that a sink dropped.
    events_dropped,
    /// Locks that a handler released.
    locks_released,
    /// Runs of handlers that ended with status 0.
    runs,
    /// Runs of handlers that could not be started, failed, or were ended.
    runs_failed,
    /// Of those, the ones that were ended because they took too long.
    runs_timed_out,
    /// Events that still waited for a handler's run at the end.
    runs_left,
    /// Events that a subscriber fell behind by too far to be told of.
    subscribers_lost,
    /// Connections to the control socket.
    control_clients,
    /// Connections to the control socket from users who may not.
    control_refused,
    /// Connections to the control socket that were closed for what they did not
    /// do in time, or to make room for another.
    control_evicted,
    /// Requests to the control socket that were carried out.
    control_requests,
    /// Requests to the control socket that were no request or failed.
    control_failed,
    /// Reverse look-ups begun.
    lookups,
    /// Reverse look-ups that failed or timed out in the resolver.
    lookups_failed,
    /// Events that went without a name because `dns-timeout` was over.
    names_timed_out,
    /// Look-ups refused because too many were waiting.
    names_overload,
    /// Sockets whose process was looked for.
    processes_asked,
    /// Sockets whose process was not looked for because too many were waiting.
    processes_overload,
    /// Events that went without a process because `process-timeout` was over.
    processes_timed_out,
    /// Times a process's descriptors were read.
    processes_read,
    /// Microseconds of CPU time that looking for processes has cost.
    processes_cpu_us,
    /// Sockets of sockwatch's own that were left out.
    own_sockets,
    /// Bytes written to the state directory.
    state_bytes,
    /// Times that writing there failed.
    state_failures,
    /// Times that the configuration was taken over while running.
    reloads,
    /// Configurations that were refused while running.
    reloads_refused,
    /// Connects read from a hook's ring.
    connects,
    /// Connects that found the ring full.
    connects_lost,
    /// Times that the ring could not be read up to where it had to be: a record
    /// was not finished, because its writer had lost its CPU.
    connects_overdue,
    /// Ring records that sockwatch's program does not write.
    connects_rejected,
    /// Calls whose sockets did not show in time, and that no socket's event will
    /// name the process of.
    calls_forgotten,
    /// Connections that no hook saw, and of which too many waited for a dump to
    /// tell whether they are connect() calls.
    connects_unsettled,
    /// DNS queries seen leaving this host.
    dns_queries,
    /// DNS answers that matched a query.
    dns_answers,
    /// DNS answers to a query that had been answered already.
    dns_repeated,
    /// DNS answers that matched no query: nobody asked, or the wrong id, port,
    /// address or question.
    dns_unmatched,
    /// Packets of port 53 that are no DNS message that can be read.
    dns_malformed,
    /// Packets that the kernel dropped because the tap's receive buffer was full.
    dns_dropped,
    /// Unanswered DNS queries that were forgotten to make room.
    dns_queries_forgotten,
    /// TCP connections to port 53 that were given up: too much missing, or too many.
    dns_streams_lost,
    /// Resolved names that were forgotten before their time, to make room.
    dns_names_forgotten,
}

impl fmt::Display for Stats {
    /// The counters that are known and not zero, as `name=count` words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (name, count) in self.known().filter(|(_, count)| *count != 0) {
            if !first {
                f.write_str(" ")?;
            }
            first = false;
            write!(f, "{name}={count}")?;
        }
        if first {
            f.write_str("nothing counted")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_no_zero() {
        let stats = Stats::default();
        let unaccounted = |stats: &Stats| {
            let mut all = stats.all();
            all.find(|(name, _)| *name == "opens_unaccounted")
                .expect("it is there")
                .1
        };
        assert_eq!(unaccounted(&stats), Err("not_yet"));
        stats.opens_unaccounted.set(3);
        assert_eq!(unaccounted(&stats), Ok(3));
        assert_eq!(stats.to_string(), "opens_unaccounted=3");
        stats.opens_unaccounted.unknown("narrowed");
        assert_eq!(unaccounted(&stats), Err("narrowed"));
        assert_eq!(stats.to_string(), "nothing counted");
    }
}
