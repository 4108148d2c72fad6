//! What of the sensors' patterns is asked of the kernel.
//!
//! TCP dumps are narrowed to the sockets that somebody could want by their ends.
//! What else there is no view knows, whether it is read or not
//! ([`crate::sensor::NetSocket::seek`]), so it makes a difference in one case only: a
//! socket in the table that is connected anew to where nobody looks vanishes from the
//! dumps. So what a narrowed dump did
//! not hold, and no notice has told the end of, is looked for in a whole one that
//! follows at once; and as long as that does not hold it either, all dumps are
//! whole. So they are where absence from a dump proves an end: after an overrun,
//! and where there are no notices.
//!
//! UDP sockets are connected anew at will (every name that getaddrinfo(3) looks up
//! does it), their tables are small, and a dump is cheap: it stays whole. So do the
//! dumps of other namespaces.

use super::guard::{self, Guard};
use super::place::Place;
use super::shared::Shared;
use crate::config::{self, Settings};
use crate::model::{Coverage, Listener, Needs, Proto, Sought, StateGroups};
use crate::source::Group;
use crate::source::diag::Scope;
use crate::wire::bytecode::Condition;

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
    /// Something in the table was missing from the last dump.
    whole: bool,
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
            whole: false,
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
    /// What the next dump leaves out.
    pub(super) fn condition(&mut self, coverage: Coverage, shared: &Shared) -> Option<Condition> {
        let whole = coverage.proto != Proto::Tcp
            || self.narrow.whole
            || shared.congested
            || self.sensor.has_gap()
            || shared.is_deaf(Proto::Tcp);
        let condition = self.narrow.condition.clone().filter(|_| !whole);
        self.narrow.under_way = condition.is_some();
        condition
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
    /// then it is compared with the table.
    pub(super) fn narrow_completed(&mut self, coverage: Coverage) {
        if coverage.proto == Proto::Tcp && self.narrow.condition.is_some() {
            self.narrow.completed = Some(Completed {
                coverage,
                number: self.sensor.dump_number(),
                narrowed: self.narrow.under_way,
            });
        }
    }

    /// What is asked of the kernel now. `guarded`: it refuses notices.
    pub(super) fn asked(&self, guarded: bool) -> Vec<String> {
        let on = self.narrow.condition.is_some()
            && !self.scope.as_ref().is_some_and(Scope::is_unconditional);
        asked(self.needs, &self.narrow.sought, on, guarded)
    }

    /// Looks in the table for what the last dump did not hold, once the notices are
    /// heard.
    pub(super) fn compare(&mut self, shared: &Shared) {
        let Some(completed) = self.narrow.completed.take() else {
            return;
        };
        self.narrow.guard.dump_is_heard();
        let misses = self.sensor.misses(completed.coverage, completed.number);
        self.narrow.whole = misses;
        if misses && completed.narrowed {
            shared.stats.dumps_widened.bump();
            self.narrow.widens = true;
            self.dumps.ask(Needs {
                tcp: completed.coverage.groups,
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
    let needs = settings.sensors.iter().map(config::Sensor::needs);
    let needs = needs.fold(Needs::default(), |all, needs| all | needs);
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
            Proto::Tcp => (
                states(needs.tcp, condition.as_ref()),
                "both families in one pass",
            ),
            Proto::Udp => ("all states".to_owned(), "one pass for each family"),
        };
        let groups = groups(proto);
        let (ends, only) = match condition.as_ref().and_then(|it| it.code.as_deref()) {
            Some(code) => {
                let ends = format!("{sought} ({} bytes of bytecode)", code.len());
                (ends, if guarded { guard::ONLY } else { "" })
            }
            None => ("all ends".to_owned(), ""),
        };
        format!("{name}: {states}; {families}; {ends}; notices of {groups}{only}")
    });
    each.collect()
}

fn states(groups: StateGroups, condition: Option<&Condition>) -> String {
    let listeners = groups == StateGroups::LISTEN && condition.is_some_and(|it| it.listeners);
    let names = [
        (
            StateGroups::LISTEN,
            if listeners {
                "LISTEN"
            } else {
                "LISTEN and bound"
            },
        ),
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
        assert_eq!(
            lines(listeners, false)[0],
            tcp("LISTEN and bound", "all ends")
        );
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
