//! Many names that nobody has looked up before, each looked up and connected to
//! at once: the answer is always read before the connect is told.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use serde_json::json;

use super::{By, ask};
use crate::child;
use crate::connect::watch::{Watch, is_connect, privileged};
use crate::daemon::PATIENCE;
use crate::dnsmasq::{A, Dnsmasq, Resolver};
use crate::netns::{self, visibly};
use crate::sock::{Domain, Sock};

const NAMES: u32 = 1000;

/// Set in a process that looks names up and connects: which half of them, where
/// it asks, and how.
const HALF: &str = "SOCKWATCH_TEST_HALF";

/// Of 198.18/15, to which no route leads.
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0xc612_0000 + number)
}

fn name(number: u32) -> String {
    format!("name-{number}.example")
}

fn hosts() -> String {
    (0..NAMES)
        .map(|number| format!("{} {}\n", address(number), name(number)))
        .collect()
}

/// Every other name, looked up and connected to at once, on a core of its own.
fn half(half: u32, server: SocketAddr, by: By) {
    // SAFETY: a cpu_set_t of zeros is one; the call reads it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(half as usize, &mut set);
        // On a machine with one core both stay on it.
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
    }
    for number in (half..NAMES).step_by(2) {
        let answered = ask(Resolver { server }, by, &name(number), A);
        assert_eq!(answered, [IpAddr::V4(address(number))]);
        let client = Sock::tcp(Domain::V4);
        client
            .connect(SocketAddr::new(answered[0], 443))
            .expect_err("no route leads there");
    }
}

/// The process that does it, if the calling one is to be that.
fn is_half(test: &str) -> bool {
    let Ok(text) = std::env::var(HALF) else {
        return false;
    };
    let words: Vec<&str> = text.split(' ').collect();
    let [of, number, server, by] = words[..] else {
        panic!("{HALF}={text}");
    };
    assert_eq!(of, test);
    let by = if by == "Tcp" { By::Tcp } else { By::Udp };
    half(
        number.parse().expect("a number"),
        server.parse().expect("an address"),
        by,
    );
    true
}

/// Starts one of the two processes.
fn start_half(test: &str, number: u32, server: SocketAddr, by: By) -> Child {
    let exe = std::env::current_exe().expect("the test binary has a path");
    Command::new(exe)
        .args(["--exact", test, "--nocapture"])
        .env(HALF, format!("{test} {number} {server} {by:?}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this binary can be started")
}

/// Both halves, and the account of their events.
fn both(test: &str, watch: Watch, server: SocketAddr, by: By) {
    let halves = [0, 1].map(|number| start_half(test, number, server, by));
    for half in halves {
        let (Ok(output) | Err(output)) = child::finish(half, PATIENCE);
        assert!(output.status.success(), "{}", child::text(&output));
    }
    let netns = netns::inode();
    let last = address(NAMES - 1).to_string();
    watch.daemon.wait_for("the last connect", |event| {
        is_connect(event) && event["data"]["dstIP"] == last && event["data"]["netns"] == netns
    });
    // Those of the other process may be behind it.
    watch
        .daemon
        .wait_for_count("connects", NAMES as usize, |event| {
            is_connect(event) && event["data"]["netns"] == netns && event["data"]["dstPort"] == 443
        });
    let record = watch.daemon.stop();
    let mut told = BTreeMap::new();
    for event in record.events() {
        let data = &event["data"];
        if is_connect(event) && data["netns"] == netns && data["dstPort"] == 443 {
            let ip = data["dstIP"].as_str().expect("an address").to_string();
            let twice = told.insert(ip, data["results"].clone());
            assert_eq!(twice, None, "{event}");
        }
    }
    let expected: BTreeMap<_, _> = (0..NAMES)
        .map(|number| (address(number).to_string(), json!([name(number)])))
        .collect();
    let missed: Vec<_> = expected
        .iter()
        .filter(|(ip, results)| told.get(*ip) != Some(results))
        .collect();
    assert!(
        missed.is_empty(),
        "{} of {NAMES} without their name: {missed:?}\nlog:\n{}",
        missed.len(),
        record.log
    );
    assert_eq!(told.len(), expected.len());
}

/// Over loopback.
fn on_loopback(test: &str, by: By) {
    if is_half(test) {
        return;
    }
    privileged(test, || {
        let Some(server) = Dnsmasq::start("127.0.0.1", &[], &hosts()) else {
            return;
        };
        both(test, Watch::start(""), server.address, by);
    });
}

#[test]
fn over_loopback() {
    on_loopback("connect::names::many::over_loopback", By::Udp);
}

#[test]
fn over_tcp() {
    on_loopback("connect::names::many::over_tcp", By::Tcp);
}

/// What ip(8) does.
fn ip(words: &str) -> Result<(), String> {
    let output = Command::new("ip").args(words.split(' ')).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("ip {words}: {}", child::text(&output)))
    }
}

/// The server is in another namespace, at the other end of a pair of interfaces.
#[test]
fn over_a_veth_pair() {
    const TEST: &str = "connect::names::many::over_a_veth_pair";
    if is_half(TEST) {
        return;
    }
    privileged(TEST, || {
        let here = std::process::id();
        let (started, server) = mpsc::channel();
        let (_end, ended) = mpsc::channel::<()>();
        // What is started by a thread ends with it.
        thread::spawn(move || {
            let far = || -> Result<Option<Dnsmasq>, String> {
                netns::enter_another().map_err(|error| error.to_string())?;
                ip(&format!(
                    "link add far type veth peer name near netns {here}"
                ))?;
                ip("addr add 10.99.0.2/24 dev far")?;
                ip("link set far up")?;
                Ok(Dnsmasq::start("10.99.0.2", &[], &hosts()))
            };
            started.send(far()).expect("the test waits");
            // Nothing is sent: the other end is dropped.
            ended.recv().expect_err("this is the end of the test");
        });
        let near = |server| {
            ip("addr add 10.99.0.1/24 dev near")?;
            ip("link set near up")?;
            Ok::<_, String>(server)
        };
        match server.recv().expect("it did not panic").and_then(near) {
            Ok(Some(server)) => both(TEST, Watch::start(""), server.address, By::Udp),
            Ok(None) => {}
            Err(error) => visibly(&format!("SKIPPED {TEST}: {error}")),
        }
    });
}
