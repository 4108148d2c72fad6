//! `--dump`, held against `ss` and the kernel's own text tables.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::cgroups;
use crate::child;
use crate::daemon::{PATIENCE, binary, once};
use crate::netns;
use crate::proc_net::{self, Row};
use crate::seccomp::Refusal;
use crate::sock::{Domain, Ident, Sock};
use crate::syn_sent::Deaf;

/// A table with something of everything, and what a row must say of those whose
/// cookie is known.
pub struct Sample {
    pub sockets: Vec<(Sock, &'static str)>,
    bound: Sock,
    _deaf: Deaf,
}

pub fn sample() -> Sample {
    let mut sockets = Vec::new();
    for domain in Domain::ALL {
        let listener = Sock::listener(domain);
        for _ in 0..5 {
            let (client, server) = Sock::pair(&listener);
            sockets.extend([(client, "ESTABLISHED"), (server, "ESTABLISHED")]);
        }
        // FIN_WAIT2 and CLOSE_WAIT, with their files.
        let (client, server) = Sock::pair(&listener);
        client.shutdown();
        server.receive_end();
        sockets.extend([(client, "FIN_WAIT2"), (server, "CLOSE_WAIT")]);
        // A TIME_WAIT, and a FIN_WAIT2 without a file.
        let (client, server) = Sock::pair(&listener);
        drop(client);
        server.receive_end();
        drop(server);
        let (client, server) = Sock::pair(&listener);
        drop(client);
        server.receive_end();
        sockets.push((server, "CLOSE_WAIT"));
        sockets.push((listener, "LISTEN"));
        let udp = Sock::udp(domain);
        udp.bind_loopback();
        sockets.push((udp, "UNCONN"));
        let udp = Sock::udp(domain);
        udp.connect(SocketAddr::new(domain.loopback(), 9))
            .expect("UDP asks nobody");
        sockets.push((udp, "ESTABLISHED"));
    }
    for domain in [Domain::V4, Domain::V6] {
        let any = SocketAddr::new(domain.unspecified(), 0);
        let (tcp, udp) = (Sock::tcp(domain), Sock::udp(domain));
        tcp.bind(any);
        tcp.listen(1);
        udp.bind(any);
        sockets.extend([(tcp, "LISTEN"), (udp, "UNCONN")]);
    }
    let deaf = Deaf::new(Domain::V4);
    let client = Sock::tcp(Domain::V4);
    client.connect_nonblocking(deaf.listener.local());
    sockets.push((client, "SYN_SENT"));
    let bound = Sock::tcp(Domain::V4);
    bound.bind_loopback();
    proc_net::quiet();
    Sample {
        sockets,
        bound,
        _deaf: deaf,
    }
}

/// The rows of a dump.
pub fn dump(args: &[&str]) -> Vec<Value> {
    let output = once(&[&["--dump", "--format", "json"], args].concat());
    assert_eq!(output.status.code(), Some(0), "{}", child::text(&output));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "",
        "a dump that went well is quiet"
    );
    rows(&output.stdout)
}

/// The rows of a dump without the sockets that are bound only, which neither
/// `ss` nor /proc shows.
fn comparable(dump: &[Value]) -> Vec<Row> {
    let mut rows: Vec<Row> = dump
        .iter()
        .map(|row| {
            let text = |key: &str| {
                row[key]
                    .as_str()
                    .unwrap_or_else(|| panic!("{key} of {row}"))
            };
            let end = |key: &str| {
                text(key)
                    .parse()
                    .unwrap_or_else(|_| panic!("{key} of {row}"))
            };
            Row::new(text("proto"), end("local"), end("remote"), text("state"))
        })
        .filter(|row| row.state != "CLOSE")
        .collect();
    rows.sort();
    rows
}

#[test]
fn the_same_rows_as_proc() {
    netns::run("dump::the_same_rows_as_proc", || {
        let _sample = sample();
        let dump = comparable(&dump(&[]));
        assert_same(&dump, &proc_net::rows());
        for state in [
            "TIME_WAIT",
            "FIN_WAIT2",
            "SYN_SENT",
            "CLOSE_WAIT",
            "LISTEN",
            "UNCONN",
        ] {
            assert!(
                dump.iter().any(|row| row.state == state),
                "no {state} in the sample"
            );
        }
    });
}

#[test]
fn the_same_rows_as_ss() {
    netns::run("dump::the_same_rows_as_ss", || {
        let _sample = sample();
        let output = match child::run(Command::new("ss").arg("-tuanH"), PATIENCE) {
            Ok(output) => output.expect("ss ends"),
            // The comparison with /proc stands for it; on a machine without
            // iproute2 there is no ss to be compared with.
            Err(error) => {
                return netns::visibly(&format!("SKIPPED dump::the_same_rows_as_ss: ss: {error}"));
            }
        };
        assert!(output.status.success(), "{}", child::text(&output));
        let text = String::from_utf8(output.stdout).expect("ss writes ASCII");
        let mut rows: Vec<Row> = text.lines().map(ss_row).collect();
        rows.sort();
        assert_same(&comparable(&dump(&[])), &rows);
    });
}

/// `tcp   ESTAB 0 0 [::ffff:127.0.0.1]:5000 [::ffff:127.0.0.1]:80`
fn ss_row(line: &str) -> Row {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [proto, state, _, _, local, remote, ..] = words[..] else {
        panic!("a line of ss that is new: {line}");
    };
    let state = match state {
        "ESTAB" => "ESTABLISHED",
        "FIN-WAIT-1" => "FIN_WAIT1",
        "FIN-WAIT-2" => "FIN_WAIT2",
        other => &other.replace('-', "_"),
    };
    Row::new(proto, ss_end(local), ss_end(remote), state)
}

/// Compares two tables, and shows only what differs.
fn assert_same(dump: &[Row], other: &[Row]) {
    let without = |rows: &[Row], others: &[Row]| -> Vec<Row> {
        rows.iter()
            .filter(|row| !others.contains(row))
            .cloned()
            .collect()
    };
    let (more, less) = (without(dump, other), without(other, dump));
    assert!(
        more.is_empty() && less.is_empty(),
        "too many: {more:#?}\nmissing: {less:#?}"
    );
    assert_eq!(dump.len(), other.len(), "a row twice");
}

/// `127.0.0.1:80`, `[::1]:80`, `0.0.0.0:*`, and `*:80` for any IPv6 address of
/// a dual-stack socket.
fn ss_end(text: &str) -> SocketAddr {
    let parse = || {
        let (ip, port) = text.rsplit_once(':')?;
        let port = if port == "*" { 0 } else { port.parse().ok()? };
        let ip: IpAddr = match ip {
            "*" => std::net::Ipv6Addr::UNSPECIFIED.into(),
            _ => ip
                .trim_start_matches('[')
                .trim_end_matches(']')
                .parse()
                .ok()?,
        };
        Some(SocketAddr::new(ip.to_canonical(), port))
    };
    parse().unwrap_or_else(|| panic!("an address of ss that is new: {text}"))
}

/// Every key of every row whose socket is known.
#[test]
fn the_fields() {
    netns::run("dump::the_fields", || {
        let sample = sample();
        let dump = dump(&[]);
        let known = sample.sockets.iter().map(|(sock, state)| (sock, *state));
        for (sock, state) in known.chain([(&sample.bound, "CLOSE")]) {
            let rows: Vec<_> = dump
                .iter()
                .filter(|row| row["cookie"] == sock.cookie)
                .collect();
            let [found] = rows[..] else {
                panic!("one row: {rows:?}");
            };
            assert_eq!(cgroups::misplaced(found), None);
            let mut found = found.clone();
            let data = found.as_object_mut().expect("a row");
            data.retain(|key, _| !cgroups::is_told_by(key));
            assert_eq!(found, row(sock.ident(), state));
        }
        for leftover in dump.iter().filter(|row| row["state"] == "TIME_WAIT") {
            assert_eq!(leftover["uid"], Value::Null);
            assert_eq!(leftover["uid_reason"], "minisocket");
            assert_eq!(leftover["inode_reason"], "minisocket");
        }
    });
}

fn row(ident: Ident, state: &str) -> Value {
    // SAFETY: getuid(2) takes nothing and cannot fail.
    let uid = unsafe { libc::getuid() };
    let mut row = json!({
        "local": ident.local.to_string(),
        "remote": ident.remote.to_string(),
        "proto": ident.proto,
        "family": if ident.domain == Domain::V6 { "ipv6" } else { "ipv4" },
        "state": state,
        "remote_host": null,
        "cookie": ident.cookie,
        "netns": netns::inode(),
        "inode": ident.inode,
        "uid": uid,
    });
    if ident.domain == Domain::Mapped {
        row["v4_mapped"] = json!(true);
    }
    row
}

fn cookies(rows: &[Value]) -> BTreeSet<u64> {
    rows.iter()
        .filter_map(|row| row["cookie"].as_u64())
        .collect()
}

#[test]
fn patterns_narrow_it() {
    netns::run("dump::patterns_narrow_it", || {
        let _sample = sample();
        let all = dump(&[]);
        let of = |wanted: fn(&Value) -> bool| -> BTreeSet<u64> {
            let rows: Vec<Value> = all.iter().filter(|row| wanted(row)).cloned().collect();
            cookies(&rows)
        };
        type Case<'a> = (&'a [&'a str], fn(&Value) -> bool);
        let cases: [Case; 7] = [
            (&["--pattern", "udp *"], |row| row["proto"] == "udp"),
            (&["--pattern", "tcp6 *"], |row| {
                row["proto"] == "tcp" && row["family"] == "ipv6"
            }),
            (&["--pattern", "* LISTEN"], |row| row["state"] == "LISTEN"),
            (&["--pattern", "* TIME_WAIT"], |row| {
                row["state"] == "TIME_WAIT"
            }),
            (&["--ignore", "* TIME_WAIT"], |row| {
                row["state"] != "TIME_WAIT"
            }),
            (
                &["--pattern", "tcp *", "--ignore", "* ESTABLISHED"],
                |row| row["proto"] == "tcp" && row["state"] != "ESTABLISHED",
            ),
            (&["--pattern", "* UNCONN", "--pattern", "* LISTEN"], |row| {
                row["state"] == "UNCONN" || row["state"] == "LISTEN"
            }),
        ];
        for (args, wanted) in cases {
            let wanted = of(wanted);
            assert!(!wanted.is_empty(), "{args:?} would match nothing");
            assert_eq!(cookies(&dump(args)), wanted, "{args:?}");
        }
        assert_eq!(
            dump(&["--pattern", "tcp * *:1 * ESTABLISHED"]),
            Vec::<Value>::new()
        );
    });
}

/// So many rows that they are printed while others are read, and that bound sockets
/// are asked for beside: each is there once, also where the kernel refuses the
/// request that both begin with.
#[test]
fn many_rows() {
    netns::run("dump::many_rows", || {
        let (mut sockets, mut udps) = (Vec::new(), Vec::new());
        for domain in [Domain::V4, Domain::V6] {
            let listener = Sock::listener(domain);
            for _ in 0..1200 {
                let (client, server) = Sock::pair(&listener);
                sockets.extend([client, server]);
            }
            let bound = Sock::tcp(domain);
            bound.bind_loopback();
            let udp = Sock::udp(domain);
            udp.bind_loopback();
            udps.push(udp);
            sockets.extend([listener, bound]);
        }
        let tcp: BTreeSet<u64> = sockets.iter().map(|sock| sock.cookie).collect();
        let mut expected = tcp.clone();
        expected.extend(udps.iter().map(|sock| sock.cookie));
        assert_eq!(expected.len(), 4806);
        for refusal in [None, Some(Refusal::LEGACY_REQUEST)] {
            let output = refused(refusal, &["--dump", "--format", "json"]);
            assert_eq!(output.status.code(), Some(0), "{}", child::text(&output));
            let rows = rows(&output.stdout);
            assert_eq!(
                rows.len(),
                expected.len(),
                "{refusal:?}: a row twice, or none"
            );
            assert!(cookies(&rows) == expected, "{refusal:?}: others");
        }
        let text = once(&["--dump", "--format", "text"]).stdout;
        let lines = text.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(lines, expected.len() + 1, "below the titles");
        let listening = dump(&["--pattern", "tcp * * * LISTEN"]);
        assert_eq!(listening.len(), 2, "{listening:?}");

        // What was read before all tries have failed is there.
        let output = refused(Some(Refusal::V2_REQUESTS), &["--dump", "--format", "json"]);
        assert_eq!(output.status.code(), Some(1), "{}", child::text(&output));
        let told = cookies(&rows(&output.stdout));
        assert!(told == tcp, "{} of {}", told.len(), tcp.len());
        assert!(
            child::text(&output).contains("the udp table cannot be read"),
            "{}",
            child::text(&output)
        );
    });
}

/// The output of a run from which the kernel withholds something.
fn refused(refusal: Option<Refusal>, args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(args);
    if let Some(refusal) = refusal {
        let filter = refusal.filter();
        // SAFETY: installing a filter is two system calls on memory that was
        // allocated before the fork.
        unsafe { command.pre_exec(move || filter.install()) };
    }
    child::run(&mut command, PATIENCE)
        .expect("the binary can be started")
        .expect("it ends")
}

fn rows(json: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(json).expect("JSON is UTF-8");
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(parse).collect()
}

/// An empty table is an empty dump, not an error.
#[test]
fn nothing() {
    netns::run("dump::nothing", || {
        assert_eq!(dump(&[]), Vec::<Value>::new())
    });
}

#[test]
fn as_text() {
    netns::run("dump::as_text", || {
        let sample = sample();
        let rows = dump(&[]).len();
        let output = once(&["--dump", "--format", "text"]);
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).expect("text");
        assert_eq!(
            text.lines().count(),
            rows + 1,
            "a header, and a line for each row:\n{text}"
        );
        let header = text.lines().next().expect("a header");
        for title in ["PROTO", "STATE", "LOCAL", "REMOTE", "COOKIE"] {
            assert!(header.contains(title), "{header}");
        }
        for (sock, state) in &sample.sockets {
            let ident = sock.ident();
            let line = text
                .lines()
                .find(|line| line.split_whitespace().last() == Some(&sock.cookie.to_string()))
                .unwrap_or_else(|| panic!("no line for {ident:?}:\n{text}"));
            for part in [*state, &ident.local.to_string(), &ident.remote.to_string()] {
                assert!(
                    line.split_whitespace().any(|word| word == part),
                    "{part} in {line}"
                );
            }
        }
    });
}
