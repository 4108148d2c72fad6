//! What of the sensors' patterns is asked of the kernel.
//!
//! TCP dumps are narrowed to the sockets that somebody could want by their ends.
//! What else there is no view knows, whether it is read or not
//! ([`crate::sensor::NetSocket::seek`]), so it makes a difference in one case only: a
//! socket in the table that is connected anew to where nobody looks vanishes from the
//! dumps. So what a narrowed dump did not hold, and no notice has told the end of, is
//! looked for in a whole one that follows at once. What that does not hold either the
//! kernel shows to nobody (a socket that was disconnected, and is held open): dumps are
//! narrow again, and it is looked for in a whole one now and then, until a dump or its
//! notice tells of it. Dumps are whole where absence from them proves an end: after an
//! overrun, and where there are no notices.
//!
//! A dump of listeners alone is narrow in the same way: one that was shut down is bound
//! and lives.
//!
//! UDP sockets are connected anew at will (every name that getaddrinfo(3) looks up
//! does it), their tables are small, and a dump is cheap: it stays whole. So do the
//! dumps of other namespaces.

use std::time::{Duration, Instant};

use super::guard::{self, Guard};
use super::place::Place;
use super::shared::Shared;
use crate::config::{self, Settings};
use crate::model::{Coverage, Family, Listener, Needs, Now, Proto, Sought, StateGroups};
use crate::source::Group;
use crate::source::diag::Scope;
use crate::wire::bytecode::Condition;

/// How often what no dump holds is looked for in a whole one.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What is asked of the kernel beyond protocols and states.
#[derive(Debug)]
pub(super) struct Narrow {
    /// What sensors could want of TCP.
    sought: Sought,
    /// How to say so to the kernel; None where it is not asked.
    condition: Option<Condition>,
    /// The dump under way is narrowed.
    under_way: bool,
    /// A dump that completed, to be compared with the table.
    completed: Option<Completed>,
    /// For each family: something in the table was missing from the last dump.
    whole: [bool; 2],
    /// For each family: when what no dump holds was last looked for, if there is any.
    looked: [Option<Instant>; 2],
    /// The next dump is the whole one for what a narrowed one missed.
    widens: bool,
    /// What the kernel may refuse of notices.
    pub(super) guard: Guard,
}

#[derive(Clone, Copy, Debug)]
struct Completed {
    coverage: Coverage,
    number: u32,
    narrowed: bool,
}

impl Narrow {
    /// For what is sought; unless it is `on` the kernel is not asked.
    /// `hides`: see [`Guard::new`].
    pub fn new(sought: Sought, on: bool, hides: bool) -> Narrow {
        Narrow {
            condition: Condition::of(&sought).filter(|_| on),
            guard: Guard::new(&sought, on, hides),
            sought,
            under_way: false,
            completed: None,
            whole: [false; 2],
            looked: [None; 2],
            widens: false,
        }
    }

    /// What sensors could want of TCP.
    pub fn sought(&self) -> &Sought {
        &self.sought
    }

    /// A dump must be compared with the table before the next one begins.
    pub fn is_comparing(&self) -> bool {
        self.completed.is_some()
    }

    /// Whether something in the table was missing from a dump of this family.
    fn is_looking(&self, family: usize) -> bool {
        self.whole[family] || self.looked[family].is_some()
    }

    /// Whether something in the table must be looked for that a narrowed dump of these
    /// did not hold.
    fn looks(&self, coverage: Coverage, now: Instant) -> bool {
        families(coverage).any(|family| {
            let late = |at: Instant| now.saturating_duration_since(at) >= LOOK_AGAIN;
            self.whole[family] || self.looked[family].is_some_and(late)
        })
    }
}

/// The families that a dump holds.
fn families(coverage: Coverage) -> impl Iterator<Item = usize> {
    let holds = move |family: &Family| coverage.family.is_none_or(|only| only == *family);
    Family::ALL.into_iter().filter(holds).map(|it| it as usize)
}

/// What such sensors could want of TCP by the ends of sockets. All of it where one
/// watches connect() calls, since the table is their cross-check, and where nothing
/// is to be left out.
pub(super) fn sought(settings: &Settings, such: impl Fn(&config::Sensor) -> bool) -> Sought {
    if !settings.daemon.push_down {
        return Sought::ALL;
    }
    let sensors = settings.sensors.iter().filter(|sensor| such(sensor));
    let each = sensors.map(|sensor| match sensor.listener {
        Listener::TcpConnect => Sought::ALL,
        Listener::NetSocket | Listener::Own => sensor.filter.sought(Proto::Tcp),
    });
    each.fold(Sought::NONE, Sought::or)
}

impl Place {
    /// Why TCP dumps leave nothing out now, though they could.
    fn is_whole_for(&self, shared: &Shared) -> Option<&'static str> {
        if shared.congested || self.sensor.has_gap() {
            Some("what may have ended unheard is looked for")
        } else if shared.is_deaf(Proto::Tcp) {
            Some("there are not all notices")
        } else if self.narrow.whole != [false; 2] {
            Some("a socket that was known is looked for")
        } else {
            None
        }
    }

    /// What the next dump covers, and what of that it leaves out.
    pub(super) fn narrowed(
        &mut self,
        mut coverage: Coverage,
        shared: &Shared,
        now: Now,
    ) -> (Coverage, Option<Condition>) {
        self.narrow.under_way = false;
        if coverage.proto != Proto::Tcp {
            return (coverage, None);
        }
        if self.narrow.looks(coverage, now.mono) {
            coverage.groups = self.needs.tcp.for_absence();
            return (coverage, None);
        }
        if !self.at_home || self.is_whole_for(shared).is_some() {
            coverage.groups = coverage.groups.for_absence();
            return (coverage, None);
        }
        let condition = self.narrow.condition.clone();
        self.narrow.under_way = condition.is_some();
        (coverage, condition)
    }

    /// A dump began.
    pub(super) fn narrow_begun(&mut self, coverage: Coverage, shared: &Shared) {
        if coverage.proto != Proto::Tcp {
            return;
        }
        self.narrow.guard.dump_begins();
        if self.narrow.under_way {
            self.sensor.narrowed();
            shared.stats.dumps_narrowed.bump();
        } else if std::mem::take(&mut self.narrow.widens) {
            self.sensor.widened();
        }
    }

    /// A dump completed. The notices of what ended while it was made come first;
    /// then it is compared with the table, if it may be whole or not.
    pub(super) fn narrow_completed(&mut self, coverage: Coverage) {
        let narrow = &mut self.narrow;
        let lacks = coverage.groups != coverage.groups.for_absence();
        let looks = lacks || families(coverage).any(|family| narrow.is_looking(family));
        if coverage.proto == Proto::Tcp && self.at_home && (narrow.condition.is_some() || looks) {
            narrow.completed = Some(Completed {
                coverage,
                number: self.sensor.dump_number(),
                narrowed: narrow.under_way || lacks,
            });
        }
    }

    /// What is asked of the kernel now. `guarded`: it refuses notices.
    pub(super) fn asked(&self, guarded: bool, shared: &Shared) -> Vec<String> {
        let on = self.narrow.condition.is_some()
            && !self.scope.as_ref().is_some_and(Scope::is_unconditional);
        let mut lines = asked(self.needs, &self.narrow.sought, on, guarded);
        if on && let Some(why) = self.is_whole_for(shared) {
            lines[Proto::Tcp as usize].push_str("; whole now: ");
            lines[Proto::Tcp as usize].push_str(why);
        }
        lines
    }

    /// Looks in the table for what the last dump did not hold, once the notices are
    /// heard.
    pub(super) fn compare(&mut self, shared: &Shared, now: Now) {
        let Some(completed) = self.narrow.completed.take() else {
            return;
        };
        let Completed {
            coverage,
            number,
            narrowed,
        } = completed;
        self.narrow.guard.dump_is_heard();
        // Where a socket is that has left its group, only all of them tell.
        let all = coverage.groups.contains(self.needs.tcp);
        let whole = !narrowed && coverage.groups.contains(self.needs.tcp.for_absence());
        let missed = self.sensor.misses(coverage, number, whole);
        for family in families(coverage) {
            self.narrow.whole[family] = missed.any;
            let looked = &mut self.narrow.looked[family];
            if whole || all && !missed.hidden {
                *looked = missed.hidden.then_some(now.mono);
            } else {
                looked.get_or_insert(now.mono);
            }
        }
        if missed.any {
            shared.stats.dumps_widened.bump();
            self.narrow.widens = coverage.groups.contains(StateGroups::CONNECTED);
            self.dumps.ask(Needs {
                tcp: self.needs.tcp,
                udp: false,
            });
        }
    }

    /// From now on this is sought.
    pub(super) fn seek(&mut self, sought: Sought, push_down: bool, hides: bool) {
        self.sensor.seek(sought.clone());
        self.narrow = Narrow::new(sought, push_down, hides);
    }
}

/// What these settings would ask of the kernel, a line for each protocol.
pub fn would_ask(settings: &Settings) -> Vec<String> {
    let each = settings.sensors.iter();
    let needs = each.fold(Needs::default(), |all, sensor| all | sensor.needs());
    let sought = sought(settings, |_| true);
    let guarded = guard::refuses(settings, &sought);
    asked(needs, &sought, settings.daemon.push_down, guarded)
}

fn asked(needs: Needs, sought: &Sought, on: bool, guarded: bool) -> Vec<String> {
    let groups = |proto: Proto| {
        let names = Group::ALL.into_iter().filter(|group| group.proto == proto);
        names.map(Group::as_str).collect::<Vec<_>>().join(", ")
    };
    let each = Proto::ALL.into_iter().map(|proto| {
        let name = proto.as_str();
        if !needs.proto(proto) {
            return format!("{name}: nothing");
        }
        let condition = Condition::of(sought).filter(|_| on && proto == Proto::Tcp);
        let (states, families) = match proto {
            Proto::Tcp => (states(needs.tcp), "both families in one pass"),
            Proto::Udp => ("all states".to_owned(), "one pass for each family"),
        };
        let groups = groups(proto);
        let (ends, only) = match condition {
            Some(condition) => {
                let bytes = condition.code.len();
                let ends = format!("{sought} ({bytes} bytes of bytecode)");
                (ends, if guarded { guard::ONLY } else { "" })
            }
            None => ("all ends".to_owned(), ""),
        };
        format!("{name}: {states}; {families}; {ends}; notices of {groups}{only}")
    });
    each.collect()
}

fn states(groups: StateGroups) -> String {
    let without_peer = if groups.contains(StateGroups::BOUND) {
        "LISTEN and bound"
    } else {
        "LISTEN"
    };
    let names = [
        // Whoever needs TCP needs the listeners.
        (StateGroups::LISTEN, without_peer),
        (StateGroups::CONNECTED, "connected"),
        (StateGroups::TIME_WAIT, "TIME_WAIT"),
    ];
    let names = names
        .into_iter()
        .filter(|(group, _)| groups.contains(*group));
    names.map(|(_, name)| name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(sensors: &str, on: bool) -> Vec<String> {
        let text = format!("daemon: {{push-down: {on}}}\nsensors:\n{sensors}");
        let profiles = Vec::new();
        let settings = config::load_bytes("test.yaml", text.into_bytes(), &profiles);
        would_ask(&settings.expect("a good configuration"))
    }

    #[test]
    fn a_line_says_what_is_asked_of_each_protocol() {
        let https = "  a: {listener: net.socket, args: {patterns: ['tcp * *:443 * *']}}\n";
        let listeners = "  b: {listener: net.socket, args: {patterns: ['* LISTEN']}}\n";
        let everything = "  c: {listener: net.socket}\n";
        let calls = "  d: {listener: net.tcp_connect}\n";
        let groups = "notices of INET_TCP_DESTROY, INET6_TCP_DESTROY";
        let only = ", of others none while at most 256 sockets are in the table";
        let tcp = |states: &str, ends: &str| {
            let only = if ends == "all ends" { "" } else { only };
            format!("tcp: {states}; both families in one pass; {ends}; {groups}{only}")
        };
        let both = "LISTEN and bound, connected";
        let some = "ends *:* *:443, and all without a peer (36 bytes of bytecode)";
        let none = "none but those without a peer (20 bytes of bytecode)";
        for (sensors, expected) in [
            (https.to_owned(), tcp(both, some)),
            (listeners.to_owned(), tcp("LISTEN", none)),
            (format!("{https}{listeners}"), tcp(both, some)),
            (format!("{https}{everything}"), tcp(both, "all ends")),
            // The table is the cross-check of the hook.
            (format!("{https}{calls}"), tcp(both, "all ends")),
        ] {
            assert_eq!(lines(&sensors, true)[0], expected, "{sensors}");
        }
        assert_eq!(lines(https, true)[1], "udp: nothing");
        assert_eq!(lines(https, false)[0], tcp(both, "all ends"));
        assert_eq!(lines(listeners, false)[0], tcp("LISTEN", "all ends"));
        let udp = "  e: {listener: net.socket, args: {patterns: ['udp * *:53 * *']}}\n";
        let [tcp, udp] = &lines(udp, true)[..] else {
            panic!("two protocols");
        };
        assert_eq!(tcp, "tcp: nothing");
        assert!(
            udp.contains("all ends; notices of INET_UDP_DESTROY"),
            "{udp}"
        );
    }
}
