//! Names that their owner chose to do harm.
//!
//! The C library refuses those that come from DNS itself, some versions more
//! than others, and then there is no name, with a reason. It takes those from
//! /etc/hosts as they are, and so would other libraries those from DNS: then the
//! event must hold them escaped. Either way no byte of a name acts: not on a
//! terminal, not on a line, not on a field.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use super::server::{Answer, Server, labels};
use super::{datagrams, run_with_hosts, sensor, udp_events, web};
use crate::daemon::{Launch, PATIENCE, Scratch, Tick, binary, once};
use crate::expect::Expect;
use crate::sock::{Domain, Sock};

/// What must be shown for a name.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Shown {
    /// This.
    As(String),
    /// Nothing that is not [`is_safe`]: it depends on the C library.
    SafeOrNone,
}

/// Names that come from the server.
fn from_dns() -> Vec<(Answer, Shown)> {
    let long = [b'a'; 63];
    // 253 characters, the longest there is, and one more.
    let longest: &[&[u8]] = &[&long, &long, &long, &long[2..]];
    let longer: &[&[u8]] = &[&long, &long, &long, &long[1..]];
    let text = longest
        .iter()
        .map(|label| String::from_utf8_lossy(label).into_owned());
    let text = text.collect::<Vec<_>>().join(".");
    let names: &[&[&[u8]]] = &[
        &[b"a b ESTABLISHED", b"org"],
        &[b"www ESTABLISHED\nopened tcp", b"org"],
        &[b"\x1b[2J\x1b]0;owned\x07", b"org"],
        &[b"\r\x08\x7f\x00\x9b31m", b"org"],
        &[b"www.bank", b"example", b"org"],
        &[b"a|b@c", b"org"],
        &[b"\"},{\"seq\":1", b"org"],
        &[b"(203.0.113.1)", b"sensor=other"],
        &[b"\\032\\", b"org"],
        &[b"\xff\xfe\xc3\x28", b"org"],
        &["b\u{fc}cher".as_bytes(), "\u{202e}gro".as_bytes()],
        &[b"*", b"org"],
        &[b"-"],
        &[b"-", b"org"],
        &[b""],
        longer,
        &[&long, &long, &long, &long, &long],
    ];
    let mut answers: Vec<(Answer, Shown)> = names
        .iter()
        .map(|name| (labels(name), Shown::SafeOrNone))
        .collect();
    // A name that is a pointer to itself, one that ends in the middle, and no
    // name at all.
    for data in [&[0xc0, 58], &b"\x03www"[..], &[]] {
        answers.push((Answer::Record(data.to_vec()), Shown::SafeOrNone));
    }
    answers.push((labels(longest), Shown::As(text)));
    answers
}

/// Names in /etc/hosts, and how they must be shown. There they can hold
/// anything but white space and `#`.
fn from_hosts() -> Vec<(String, Shown)> {
    let exact = [
        ("UP.Example_1.org", "up.example_1.org"),
        ("a|b@c", r"a\124b\064c"),
        (
            "\x1b[2J\x1b]0;owned\x07",
            r"\027\0912j\027\0930\059owned\007",
        ),
        ("\u{8}\u{7f}\u{1}", r"\008\127\001"),
        ("\"},{\"seq\":1", r"\034\125\044\123\034seq\034\0581"),
        ("(203.0.113.1)", r"\040203.0.113.1\041"),
        (r"\032\", r"\092032\092"),
        ("*", r"\042"),
        ("-", r"\045"),
        // No-break space, right-to-left override, line separator.
        (
            "a\u{a0}b\u{202e}c\u{2028}d",
            r"a\194\160b\226\128\174c\226\128\168d",
        ),
        ("%s%n", r"\037s\037n"),
    ];
    let exact = exact.map(|(name, shown)| (name.to_string(), Shown::As(shown.to_string())));
    // Longer than a name can be.
    exact
        .into_iter()
        .chain([("a".repeat(256), Shown::SafeOrNone)])
        .collect()
}

/// The addresses of [`from_hosts`], and the file that names them.
fn hosts() -> (Vec<IpAddr>, String) {
    let ips: Vec<IpAddr> = (100..).map(web).take(from_hosts().len()).collect();
    let lines = ips
        .iter()
        .zip(from_hosts())
        .map(|(ip, (name, _))| format!("{ip} {name}\n"));
    let text = lines.collect();
    (ips, text)
}

/// Opens a socket to each address that has such a name, and says what must be
/// shown for it.
fn open(server: &Server) -> Vec<(Sock, Shown)> {
    let mut cases = Vec::new();
    for (ip, (answer, shown)) in (1..).map(web).zip(from_dns()) {
        server.answer(ip, answer);
        cases.push((ip, shown));
    }
    cases.extend(
        hosts()
            .0
            .into_iter()
            .zip(from_hosts().into_iter().map(|(_, shown)| shown)),
    );
    let socket = |ip| datagrams(Domain::V4, ip);
    cases
        .into_iter()
        .map(|(ip, shown)| (socket(ip), shown))
        .collect()
}

/// Letters, digits, `.`, `-` and `_`, and bytes in the form `\ddd`; and not the
/// sign for no name.
fn is_safe(name: &str) -> bool {
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {}
            b'\\' if (0..3).all(|_| rest.next().is_some_and(|byte| byte.is_ascii_digit())) => {}
            _ => return false,
        }
    }
    !name.is_empty() && name != "-"
}

/// What is wrong about the name that is shown.
fn problem(named: Option<&str>, shown: &Shown) -> Option<String> {
    match (named, shown) {
        (Some(name), Shown::As(wanted)) if name == wanted => None,
        (named, Shown::As(wanted)) => Some(format!("{named:?} instead of {wanted}")),
        (Some(name), Shown::SafeOrNone) if !is_safe(name) => Some(format!("{name:?} acts")),
        (_, Shown::SafeOrNone) => None,
    }
}

#[test]
fn in_json_a_name_is_safe_or_none() {
    run_with_hosts(
        "names::hostile::in_json_a_name_is_safe_or_none",
        &hosts().1,
        |server| {
            let daemon = Launch::new(Tick::Fast)
                .sensors(&sensor(", dns-timeout: 60s"))
                .start();
            let sockets = daemon.paused(|| open(server));
            let mut expected: Vec<Expect> = Vec::new();
            let mut closed = Vec::new();
            for (socket, shown) in sockets {
                let cookie = socket.cookie;
                daemon.opened(&[cookie]);
                let event = daemon.wait_for("its event", |event| event["data"]["cookie"] == cookie);
                let named = event["data"]["remote_host"].as_str();
                assert_eq!(problem(named, &shown), None, "{event}");
                let events = udp_events(socket.close());
                match (named, event["data"]["remote_host_reason"].as_str()) {
                    (Some(name), None) => expected.extend(events.map(|event| event.named(name))),
                    (None, Some(reason @ ("not_found" | "failed"))) => {
                        expected.extend(events.map(|event| event.nameless(reason)));
                    }
                    _ => panic!("a name or a reason: {event}"),
                }
                closed.push(cookie);
            }
            // Every line was one JSON object, with every key as it must be.
            daemon.finish(&closed).hold(&expected);
        },
    );
}

/// The lines that a daemon writes in text form, until there are so many.
fn text_lines(sensors: &str, count: usize) -> Vec<String> {
    let scratch = Scratch::new();
    let config = scratch.write("sockwatch.yaml", &format!("sensors:\n{sensors}"));
    let mut child = Command::new(binary())
        .args(["--format", "text", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary can be started");
    let stdout = BufReader::new(child.stdout.take().expect("piped"));
    let (tx, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in stdout.split(b'\n') {
            // Nobody listens once there are enough.
            drop(tx.send(line.expect("a pipe can be read")));
        }
    });
    let read: Vec<Vec<u8>> = (0..count)
        .map_while(|_| lines.recv_timeout(PATIENCE).ok())
        .collect();
    child.kill().expect("one's own child can be killed");
    child.wait().expect("one's own child can be waited for");
    reader.join().expect("the reader ends with its pipe");
    let beyond = lines.try_iter().count();
    assert_eq!((read.len(), beyond), (count, 0), "one line for each socket");
    let text = |line: Vec<u8>| String::from_utf8(line).expect("text is ASCII here");
    read.into_iter().map(text).collect()
}

#[test]
fn in_text_a_name_stays_in_its_field() {
    run_with_hosts(
        "names::hostile::in_text_a_name_stays_in_its_field",
        &hosts().1,
        |server| {
            let sockets = open(server);
            let sensors = sensor(", dns-timeout: 60s, initial: true");
            let lines = text_lines(
                &sensors.replace("args:", "opts: [opened], args:"),
                sockets.len(),
            );
            let dump = once(&[
                "--dump",
                "--dns",
                "--format",
                "text",
                "--pattern",
                "* * 203.0.113.*:* * *",
            ]);
            assert!(dump.status.success());
            let table = String::from_utf8(dump.stdout).expect("text is ASCII here");
            let rows: Vec<&str> = table.lines().skip(1).collect();
            assert_eq!(rows.len(), sockets.len(), "{table}");
            for (socket, shown) in &sockets {
                let ident = socket.ident();
                let remote = ident.remote.to_string();
                let of = |line: &&str| line.split_whitespace().any(|word| word == remote);
                let line = lines
                    .iter()
                    .map(String::as_str)
                    .find(of)
                    .expect("a line for each");
                let row = rows.iter().copied().find(of).expect("a row for each");
                for text in [line, row] {
                    assert!(
                        text.bytes().all(|byte| matches!(byte, b' '..=b'~')),
                        "{text:?}"
                    );
                }
                // time, action, protocol, state, local, arrow, remote, perhaps the
                // name, evidence, perhaps pid, comm and exe, uid, perhaps
                // user.
                let words: Vec<&str> = line.split_whitespace().collect();
                let (head, tail) = words.split_at(words.len().min(7));
                assert_eq!(head[1..4], ["opened", "udp", "ESTABLISHED"], "{line}");
                assert_eq!(
                    head[4..],
                    [ident.local.to_string().as_str(), "->", &remote],
                    "{line}"
                );
                // Who has it is told behind the evidence, in words of its own, and
                // not where a busy machine has taken too long to find out.
                let who = ["pid=", "comm=", "exe=", "user="];
                let tail: Vec<&str> = tail
                    .iter()
                    .filter(|word| !who.iter().any(|key| word.starts_with(key)))
                    .copied()
                    .collect();
                let named = match &tail[..] {
                    [name, "dump", uid] if uid.starts_with("uid=") => {
                        let name = name
                            .strip_prefix('(')
                            .and_then(|name| name.strip_suffix(')'));
                        Some(name.unwrap_or_else(|| panic!("what is this: {line}")))
                    }
                    ["dump", uid] if uid.starts_with("uid=") => None,
                    _ => panic!("what is this: {line}"),
                };
                assert_eq!(problem(named, shown), None, "{line}");
                // PROTO STATE LOCAL REMOTE HOST UID INODE COOKIE
                let columns: Vec<&str> = row.split_whitespace().collect();
                assert_eq!(columns.len(), 8, "{row}");
                assert_eq!(columns[4], named.unwrap_or("-"), "{row}");
                assert_eq!(columns[7], socket.cookie.to_string(), "{row}");
            }
        },
    );
}
