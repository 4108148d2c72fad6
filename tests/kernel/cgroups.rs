//! Cgroups of the tests' own, found by the ids that the kernel gave them, and what
//! is said of the sockets in them.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sockwatch::enrich::cgroups::{Tree, path};
use sockwatch::model::CgroupUnknown;

use crate::child;
use crate::connect::callers::Caller;
use crate::daemon::{Daemon, Launch, PATIENCE, Tick};
use crate::dump::dump;
use crate::netns;
use crate::sock::{Domain, Sock};

/// A directory in the cgroup2 hierarchy.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make(path: PathBuf) -> std::io::Result<Cgroup> {
        std::fs::create_dir(&path)?;
        Ok(Cgroup(path))
    }

    fn id(&self) -> u64 {
        std::fs::metadata(&self.0).expect("it was made").ino()
    }

    /// This process goes there.
    fn move_to(path: &Path) {
        let pid = std::process::id().to_string();
        std::fs::write(path.join("cgroup.procs"), pid).expect("root may move itself");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir(&self.0) {
            netns::visibly(&format!("{}: {error}", self.0.display()));
        }
    }
}

/// Where the whole of cgroup2 is mounted.
fn mounted() -> Option<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    table.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let fields: Vec<&str> = mount.split(' ').collect();
        (kind.starts_with("cgroup2 ") && fields[3] == "/").then(|| fields[4].into())
    })
}

/// Adds what an event says of this caller's cgroup.
pub fn show(data: &mut Value, caller: &Caller) {
    let info = path::read(caller.place.as_bytes());
    data["cgroup"] = json!(info.path);
    data["cgroup_id"] = json!(caller.cgroup);
    for (key, part) in [("unit", info.unit), ("container", info.container)] {
        if let Some(part) = part {
            data[key] = json!(part);
        }
    }
}

/// Adds what an event says of the cgroup of a socket that no dump held.
pub fn not_read(data: &mut Value) {
    for key in ["cgroup", "cgroup_id"] {
        data[key] = Value::Null;
        data[format!("{key}_reason")] = json!("not_read");
    }
}

#[test]
fn a_cgroup_made_by_the_test() {
    let name = "cgroups::a_cgroup_made_by_the_test";
    let Some(top) = mounted() else {
        return netns::visibly(&format!("SKIPPED {name}: no cgroup2 is mounted here"));
    };
    let unit = format!("sockwatch-test-{}.service", std::process::id());
    let outer = match Cgroup::make(top.join(&unit)) {
        Ok(outer) => outer,
        Err(error) => return netns::visibly(&format!("SKIPPED {name}: no cgroup: {error}")),
    };
    let inner = Cgroup::make(outer.0.join("a b")).expect("one in one's own");
    let ids = (outer.id(), inner.id());
    let root = std::fs::metadata(&top).expect("it is mounted").ino();
    let tree = || Tree::mounted().expect("cgroup2 is mounted");
    for (way, mut tree) in [("by handle", tree()), ("by search", tree().searching())] {
        let path = |info: sockwatch::model::CgroupInfo| info.path.into_string();
        assert_eq!(tree.find(root).map(path), Ok("/".into()), "{way}");
        let found = tree.find(ids.1).expect(way);
        assert_eq!(*found.path, *format!("/{unit}/a b"), "{way}");
        assert_eq!(found.unit.as_deref(), Some(&*unit), "{way}");
        assert_eq!(found.container, None);
        let found = tree.find(ids.0).expect(way);
        assert_eq!(*found.path, *format!("/{unit}"), "{way}");
    }

    // Removed, and one of the same name made: another id, and the old one is
    // nobody's.
    drop(inner);
    let again = Cgroup::make(outer.0.join("a b")).expect("as before");
    assert!(again.id() > ids.1, "ids are counted on");
    for mut tree in [tree(), tree().searching()] {
        assert_eq!(tree.find(ids.1), Err(CgroupUnknown::Gone));
        assert!(tree.find(again.id()).is_ok());
    }
}

/// Whether a key says something of a cgroup.
pub fn is_told_by(key: &str) -> bool {
    let keys = ["cgroup", "unit", "container"];
    keys.iter().any(|of| key.starts_with(of))
}

/// What is wrong with what an event says of the cgroup of a socket that this
/// process made where it is now. Where nothing can be known, the reason is that
/// of the inode; but a hook may know better, and what is carried over a restart
/// may never have been read.
pub fn misplaced(data: &Value) -> Option<String> {
    let said = said(data);
    let why = &said["cgroup_reason"];
    let good = match data["inode_reason"].as_str() {
        Some(reason @ ("not_read" | "minisocket")) if said["cgroup_id"].is_null() => *why == reason,
        _ if *why == "not_read" => data["action"] == "closed" || data["evidence"] == "restart",
        // A machine that is busy enough can miss any deadline.
        _ if *why == "timeout" => said["cgroup_id"].is_u64(),
        _ if mounted().is_none() => *why == "not_mounted",
        _ => {
            let mut expected = json!({});
            show(&mut expected, &Caller::current());
            said == expected
        }
    };
    (!good).then(|| format!("wrong: {said}"))
}

/// A container below a service, with this process in it until [`Container::leave`].
/// It is removed with this, while its sockets live.
struct Container {
    scope: Cgroup,
    _unit: Cgroup,
    path: String,
    home: PathBuf,
}

impl Drop for Container {
    fn drop(&mut self) {
        self.leave();
    }
}

const ID: &str = "3f4e9d0b3f4e9d0b3f4e9d0b3f4e9d0b3f4e9d0b3f4e9d0b3f4e9d0b3f4e9d0b";

impl Container {
    /// None, and says so, where a test may not make cgroups.
    fn enter(name: &str, home: &Caller) -> Option<Container> {
        let Some(top) = mounted() else {
            netns::skip(&format!("{name}: no cgroup2 is mounted here"));
            return None;
        };
        let path = format!("/sockwatch-test-{}.service", std::process::id());
        let unit = match Cgroup::make(top.join(&path[1..])) {
            Ok(unit) => unit,
            Err(error) => {
                netns::skip(&format!("{name}: no cgroup: {error}"));
                return None;
            }
        };
        let scope = format!("docker-{ID}.scope");
        let container = Container {
            path: format!("{path}/{scope}"),
            scope: Cgroup::make(unit.0.join(&scope)).expect("one in one's own"),
            _unit: unit,
            home: top.join(home.place.trim_start_matches('/')),
        };
        Cgroup::move_to(&container.scope.0);
        Some(container)
    }

    /// Goes back to where the process came from.
    fn leave(&self) {
        Cgroup::move_to(&self.home);
    }

    /// What is said of a socket in it.
    fn shown(&self) -> Value {
        json!({
            "cgroup": self.path, "cgroup_id": self.scope.id(),
            "unit": format!("docker-{ID}.scope"), "container": ID,
        })
    }

    /// What is said of one when nobody can tell the path any more.
    fn gone(id: u64) -> Value {
        json!({"cgroup": null, "cgroup_reason": "gone", "cgroup_id": id})
    }
}

/// What the data of an event or a row says of the cgroup.
fn said(data: &Value) -> Value {
    let all = data.as_object().expect("data is an object").iter();
    all.filter(|(key, _)| is_told_by(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn rows() -> BTreeMap<u64, Value> {
    let rows = dump(&[]).into_iter();
    rows.map(|row| (row["cookie"].as_u64().expect("a cookie"), said(&row)))
        .collect()
}

/// What `ss` says of each socket: a path, or an id that it has none for.
fn of_ss() -> Option<BTreeMap<u64, String>> {
    let output = child::run(Command::new("ss").arg("-tuaneH"), PATIENCE);
    let output = output.ok()?.expect("ss ends");
    let text = String::from_utf8(output.stdout).expect("ss writes ASCII");
    if !text.contains(" cgroup:") {
        return None;
    }
    let word = |line: &str, name: &str| {
        let mut words = line.split_whitespace();
        words.find_map(|word| word.strip_prefix(name).map(str::to_owned))
    };
    let socket = |line: &str| {
        let cookie = u64::from_str_radix(&word(line, "sk:")?, 16).expect("hexadecimal");
        Some((cookie, word(line, "cgroup:")?))
    };
    Some(text.lines().filter_map(socket).collect())
}

/// Each row of a dump against `ss` on the same table.
fn hold_against_ss(name: &str) {
    let Some(theirs) = of_ss() else {
        return netns::visibly(&format!("SKIPPED {name}: ss shows no cgroups"));
    };
    let ours = rows();
    assert!(theirs.len() >= 4, "{theirs:?}");
    for (cookie, theirs) in theirs {
        let said = &ours[&cookie];
        let ours = match said["cgroup"].as_str() {
            Some(path) => path.to_owned(),
            None => format!("unreachable:{:x}", said["cgroup_id"].as_u64().unwrap_or(0)),
        };
        assert_eq!(ours, theirs, "of {cookie}");
    }
}

fn said_by(daemon: &Daemon, action: &str, cookie: u64) -> Value {
    let event = daemon.wait_for(&format!("{cookie} {action}"), |event| {
        event["sensor"] == "sockets"
            && event["data"]["action"] == action
            && event["data"]["cookie"] == cookie
    });
    said(&event["data"])
}

/// Sockets that a process in a container makes, in events and rows, as long as
/// they live and longer than the container does.
#[test]
fn sockets_of_a_container() {
    let name = "cgroups::sockets_of_a_container";
    netns::run(name, || {
        let home = Caller::current();
        let launch = [
            Launch::new(Tick::Fast),
            Launch::new(Tick::Fast).without_privilege(),
        ];
        for launch in launch {
            let daemon = launch.start();
            let Some(container) = Container::enter(name, &home) else {
                return;
            };
            let (listener, udp) = (Sock::listener(Domain::V4), Sock::udp(Domain::V6));
            udp.bind_loopback();
            let (client, server) = Sock::pair(&listener);
            container.leave();
            let cookies = [&listener, &udp, &client, &server].map(|it| it.cookie);
            let outside = Sock::listener(Domain::V6);

            let shown = container.shown();
            for cookie in cookies {
                assert_eq!(said_by(&daemon, "opened", cookie), shown);
                assert_eq!(rows()[&cookie], shown);
            }
            let mut at_home = json!({});
            show(&mut at_home, &home);
            assert_eq!(said_by(&daemon, "opened", outside.cookie), at_home);
            hold_against_ss(name);

            let id = container.scope.id();
            drop(container);
            let late = Launch::new(Tick::Fast)
                .sensors("  sockets: {listener: net.socket, args: {initial: true}}\n")
                .start();
            for cookie in cookies {
                assert_eq!(rows()[&cookie], Container::gone(id));
                assert_eq!(said_by(&late, "opened", cookie), Container::gone(id));
            }
            hold_against_ss(name);
            drop((listener, udp, client, server));
            for cookie in cookies {
                assert_eq!(said_by(&daemon, "closed", cookie), shown);
                assert_eq!(said_by(&late, "closed", cookie), Container::gone(id));
            }
            daemon.stop();
            late.stop();
        }
    });
}

/// What nobody could read the cgroup of says so.
#[test]
fn sockets_without_a_row_of_their_own() {
    netns::run("cgroups::sockets_without_a_row_of_their_own", || {
        let daemon = Launch::new(Tick::Slow).start();
        let listener = Sock::listener(Domain::V4);
        let (client, server) = Sock::pair(&listener);
        let (cookie, local) = (client.cookie, client.local().to_string());
        drop(client);
        let mut unread = json!({});
        not_read(&mut unread);
        for action in ["opened", "closed"] {
            assert_eq!(said_by(&daemon, action, cookie), unread);
        }
        drop(server);
        daemon.stop();
        let rows = dump(&["--pattern", "* TIME_WAIT"]);
        let rest = rows.iter().find(|row| row["local"] == local);
        let rest = said(rest.expect("what remains of the connection"));
        assert_eq!(rest["cgroup_reason"], "minisocket", "{rest}");
        assert_eq!(rest["cgroup_id_reason"], "minisocket", "{rest}");
    });
}
