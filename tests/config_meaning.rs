//! What a good configuration means: that every setting arrives, what holds where
//! nothing is written, which sensors apply, and what is warned about.

use std::fs;
use std::path::Path;
use std::time::Duration;

use sockwatch::config::{self, Action, Exec, Problem, Settings, Unlock};

fn messages(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(Problem::to_string).collect()
}

fn profiles(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Loads one text under the name `t`.
fn load(text: &str) -> Result<Settings, Vec<String>> {
    config::load_bytes("t", text.as_bytes().to_vec(), &[]).map_err(|problems| messages(&problems))
}

fn good(text: &str) -> Settings {
    load(text).expect("a good configuration")
}

fn refused(text: &str) -> Vec<String> {
    load(text).expect_err("a bad configuration")
}

#[test]
fn the_reference_example_means_what_it_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/net-socket.yaml");
    let text = fs::read_to_string(path).expect("the example");
    let below = format!("sensors:\n{}", indented(&text));
    for text in [text, below] {
        let settings = good(&text);
        let [sensor] = settings.sensors.as_slice() else {
            panic!("one sensor");
        };
        assert_eq!(&*sensor.id, "sockets");
        assert_eq!(
            sensor.description.as_deref(),
            Some("Watch internet-facing TCP sockets")
        );
        assert!(sensor.opened && sensor.closed);
        assert_eq!(sensor.interval, Duration::from_secs(1));
        assert_eq!(sensor.tag.as_deref(), Some("net-sockets"));
        assert_eq!(sensor.patterns, ["tcp * * * ESTABLISHED"]);
        assert_eq!(sensor.ignore, ["udp * * * *"]);
        assert!(sensor.dns && sensor.skip_reverse_dns);
        assert_eq!(sensor.dns_ttl, Duration::from_secs(60));
        assert_eq!(sensor.dns_timeout, Duration::from_secs(2));
        assert!(!sensor.locked && !sensor.initial);
        assert_eq!(settings.daemon, config::Daemon::default());
        assert!(settings.warnings.is_empty());
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let settings = good("web: {listener: net.socket, args: }");
    let sensor = &settings.sensors[0];
    assert!(sensor.opened && sensor.closed);
    assert!(sensor.patterns.is_empty() && sensor.ignore.is_empty());
    assert_eq!((sensor.tag.as_ref(), &sensor.description), (None, &None));
    assert!(!sensor.dns && !sensor.skip_reverse_dns && !sensor.locked && !sensor.initial);
    assert_eq!(sensor.dns_ttl, Duration::from_secs(60));
    assert_eq!(sensor.dns_timeout, Duration::from_secs(2));
    assert!(sensor.process && !sensor.cmdline);
    assert_eq!(sensor.process_timeout, Duration::from_millis(250));
    let daemon = settings.daemon;
    assert_eq!(daemon.interval, Duration::from_secs(1));
    assert_eq!(
        (daemon.receive_buffer, daemon.queue, daemon.stdout),
        (8 << 20, 65_536, true)
    );
    assert_eq!(daemon.gate, Some(Duration::from_secs(30)));
    assert_eq!(daemon.cpu_budget, Some(10));
    assert!(daemon.push_down);
}

#[test]
fn every_setting_arrives() {
    let settings = good(
        r#"
daemon: {interval: 2s, receive-buffer: 4KiB, queue: 7, stdout: false, gate: off, cpu-budget: 25%, push-down: false}
sensors:
    second: {listener: net.socket}
    first:
        listener: net.socket
        opts: [closed]
        interval: 10ms
        args: {"initial": true, locked: true, skip_reverse_dns: true, dns-ttl: 2m, dns-timeout: 300ms, process-timeout: 1s, cmdline: true, process: false}
"#,
    );
    let daemon = settings.daemon;
    assert_eq!(
        (daemon.receive_buffer, daemon.queue, daemon.stdout),
        (4096, 7, false)
    );
    assert_eq!((daemon.gate, daemon.cpu_budget), (None, Some(25)));
    // In the order of the file, and with the daemon's interval.
    let [second, first] = settings.sensors.as_slice() else {
        panic!("two sensors");
    };
    assert_eq!((&*second.id, &*first.id), ("second", "first"));
    assert_eq!(second.interval, Duration::from_secs(2));
    assert_eq!(first.interval, Duration::from_millis(10));
    assert!(!first.opened && first.closed);
    assert!(first.initial && first.locked && first.skip_reverse_dns);
    assert_eq!(first.dns_ttl, Duration::from_secs(120));
    assert_eq!(first.dns_timeout, Duration::from_millis(300));
    assert!(!first.process && first.cmdline);
    assert_eq!(first.process_timeout, Duration::from_secs(1));
}

#[test]
fn an_empty_daemon_section_and_an_aliased_map_are_good() {
    let text = "daemon:\nsensors:\n  a: {listener: net.socket, args: &x {dns: true}}\n  b: {listener: net.socket, args: *x}\n";
    let settings = good(text);
    assert!(settings.sensors.iter().all(|sensor| sensor.dns));
    assert_eq!(settings.sensors.len(), 2);
}

#[test]
fn profiles_choose_sensors() {
    let text = "always: {listener: net.socket}\nedge: {profile: [x, Edge], listener: net.socket}\nusual: {profile: [DEFAULT], listener: net.socket}\n";
    for (named, applying) in [
        (vec![], vec!["always", "usual"]),
        (vec!["eDGE"], vec!["always", "edge"]),
        (vec!["edge", "default"], vec!["always", "edge", "usual"]),
        (vec!["other"], vec!["always"]),
    ] {
        let settings = config::load_bytes("t", text.as_bytes().to_vec(), &profiles(&named))
            .expect("a good configuration");
        let ids: Vec<&str> = settings.sensors.iter().map(|sensor| &*sensor.id).collect();
        assert_eq!(ids, applying);
    }
}

#[test]
fn only_applying_sensors_count_against_the_limit() {
    let many: String = (0..32)
        .map(|n| format!("s{n}: {{listener: net.socket}}\n"))
        .collect();
    let text = format!("{many}rest: {{profile: [rest], listener: net.socket}}\n");
    assert_eq!(good(&text).sensors.len(), 32);
}

#[test]
fn a_pattern_on_the_host_without_dns_is_warned_about() {
    let text = r#"
web:
    listener: net.socket
    args:
        patterns: ["tcp * * - LISTEN", "tcp * * *.example.org ESTABLISHED"]
mail:
    listener: net.socket
    args:
        dns: false
        ignore:
            - "tcp * * mail.example.org *"
            - "tcp * * ? LISTEN"
fine:
    listener: net.socket
    args: {dns: true, patterns: ["tcp * * *.example.org *"]}
"#;
    assert_eq!(
        messages(&good(text).warnings),
        [
            "t:5:40: glob `tcp * * *.example.org ESTABLISHED` on the remote host without dns, \
             expected `dns: true`, or `*` for the host",
            "t:11:15: glob `tcp * * mail.example.org *` on the remote host without dns, \
             expected `dns: true`, or `*` for the host",
        ]
    );
}

#[test]
fn an_ignore_that_a_name_can_match_is_warned_about() {
    let text = r#"
web:
    listener: net.socket
    args:
        dns: true
        patterns: ["tcp * 127.*"]
        ignore:
            - "tcp * 127.*"
            - "* *.internal *"
            - "tcp * 127.* * *"
            - "tcp * * *.internal *"
            - "*:53 *"
            - "udp *"
blind:
    listener: net.socket
    args: {ignore: ["tcp * 127.*"]}
"#;
    assert_eq!(
        messages(&good(text).warnings),
        [
            "t:8:15: ignore `tcp * 127.*` that a remote host's name can match, \
             expected all five words, one of them the host; did you mean `tcp * 127.* * *`?",
            "t:9:15: ignore `* *.internal *` that a remote host's name can match, \
             expected all five words, one of them the host",
        ]
    );
}

#[test]
fn a_pattern_on_minisockets_without_the_literal_word_is_told() {
    let with =
        |pattern: &str| format!("web: {{listener: net.socket, args: {{patterns: {pattern}}}}}");
    for pattern in [
        "tcp * * * TIME_*",
        "*TIME_WAIT",
        "tcp6 * * * {TIME_WAIT,TIME_WAIT}",
    ] {
        let expected = format!(
            "t:1:47: pattern `{pattern}` that matches TIME_WAIT and opens nothing, \
             expected `TIME_WAIT` itself as the last word of a pattern"
        );
        assert_eq!(refused(&with(&format!("[\"{pattern}\"]"))), [expected]);
    }
    for (patterns, warned) in [
        (r#"["tcp * * * {TIME_WAIT,ESTABLISHED}"]"#, 1),
        (r#"["tcp * * * {TIME_WAIT,SYN_RECV}"]"#, 2),
        (r#"["tcp * * * SYN_R*"]"#, 1),
        (r#"["tcp * * * TIME_WAIT", "*TIME_WAIT", "* SYN_RECV"]"#, 0),
        (r#"["*", "tcp *", "* ESTABLISHED", "* CLOSE*"]"#, 0),
    ] {
        let warnings = messages(&good(&with(patterns)).warnings);
        assert_eq!(warnings.len(), warned, "{warnings:?}");
    }
    let ignored = "web: {listener: net.socket, args: {ignore: [\"*TIME_WAIT\"]}}";
    assert!(good(ignored).warnings.is_empty());
}

/// A peer chooses its name, but not what we ignore.
#[test]
fn no_shipped_ignore_is_satisfied_by_a_name() {
    use sockwatch::filter::Answer;
    use sockwatch::model::{Family, Proto, SockId, TcpState};

    let end = |text: &str| {
        let end: std::net::SocketAddr = text.parse().expect("an address");
        (end.ip(), end.port())
    };
    let id = SockId::from_wire(
        Proto::Tcp,
        Family::V4,
        end("192.0.2.1:50000"),
        end("203.0.113.7:443"),
        0,
    );
    let names = [
        "127.evil.org",
        "127.0.0.1",
        "10.0.0.1",
        "192.168.0.1",
        "169.254.1.1",
        "udp",
        "0.0.0.0",
    ];
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    for entry in fs::read_dir(configs).expect("configurations") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|end| end != "yaml") {
            continue;
        }
        let settings = config::load(&[path], &profiles(&["default", "audit"])).expect("good");
        let sockets = settings.sensors.iter();
        for sensor in
            sockets.filter(|sensor| sensor.listener == sockwatch::model::Listener::NetSocket)
        {
            let only_ignore = sockwatch::filter::Filter::new(&[], &sensor.ignore).expect("good");
            for name in names {
                assert_eq!(
                    only_ignore.judge(&id, TcpState::Established, Some(name)),
                    Answer::Pass,
                    "{} ignores {name}",
                    sensor.id
                );
            }
        }
    }
}

#[test]
fn a_profile_that_no_sensor_names_is_warned_about() {
    let text =
        "always: {listener: net.socket}\nrare: {profile: [Audit, x], listener: net.socket}\n";
    for (named, warned) in [
        (&[][..], &[][..]),
        (&["audit", "default"], &[]),
        (
            &["AUDTI", "x", "else"],
            &[
                "--profile: profile `AUDTI` that no sensor names, expected one that a sensor has \
                 under `profile`; did you mean `audit`?",
                "--profile: profile `else` that no sensor names, expected one that a sensor has \
                 under `profile`",
            ],
        ),
    ] {
        let settings = config::load_bytes("t", text.as_bytes().to_vec(), &profiles(named))
            .expect("a good configuration");
        assert_eq!(messages(&settings.warnings), warned, "{named:?}");
    }
}

#[test]
fn a_daemon_that_can_tell_nobody_is_warned_about() {
    let with =
        |stdout| format!("daemon: {{stdout: {stdout}}}\nsensors: {{a: {{listener: net.socket}}}}");
    assert!(good(&with("true")).warnings.is_empty());
    assert_eq!(
        messages(&good(&with("false")).warnings),
        ["t:1:10: `stdout: false` while nothing else takes events, \
             expected `stdout: true`, or a handler: now nobody is told anything"]
    );
    let handler = "\nhandlers: {a: {file: /var/log/a}}";
    assert!(good(&(with("false") + handler)).warnings.is_empty());
}

#[test]
fn handlers_mean_what_they_say() {
    let settings = good(
        "sensors: {web: {listener: net.socket, tag: x}}\n\
         handlers:\n  all: {file: /var/log/all}\n  \
         plain: {exec: [/bin/true]}\n  \
         full: {match: 'web|*@[::1]:*', exec: [/bin/sh, -c, ''], unlock: on-success, \
         timeout: 1m, concurrency: 3, queue: 7}\n",
    );
    assert_eq!(messages(&settings.warnings), [""; 0]);
    let [all, plain, full] = &settings.handlers[..] else {
        panic!("three handlers");
    };
    assert_eq!(&*all.name, "all");
    assert_eq!(all.matches, None);
    assert_eq!(all.action, Action::File("/var/log/all".into()));
    let Action::Exec(exec) = &plain.action else {
        panic!("a program");
    };
    assert_eq!(
        (exec.unlock, exec.timeout),
        (Unlock::Never, Duration::from_secs(10))
    );
    assert_eq!((exec.concurrency, exec.queue), (1, 1024));
    let glob = full.matches.as_ref().expect("a glob");
    assert!(glob.matches("web|net.socket@x|opened@[::1]:443|0"));
    let expected = Exec {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), String::new()],
        unlock: Unlock::OnSuccess,
        timeout: Duration::from_secs(60),
        concurrency: 3,
        queue: 7,
    };
    assert_eq!(full.action, Action::Exec(expected));
}

#[test]
fn a_handler_that_cannot_do_anything_is_warned_about() {
    let settings = good(
        "sensors: {web: {listener: net.socket, opts: [opened]}}\n\
         handlers:\n  gone: {exec: [/nonexistent/program]}\n  \
         text: {exec: [/etc/passwd]}\n  \
         dir: {exec: [/etc]}\n  \
         deaf: {match: 'web|net.socket|closed@*', file: /var/log/x}\n  \
         own: {match: '*|gap@*', file: /var/log/y}\n",
    );
    let calls = good(
        "sensors: {out: {listener: net.tcp_connect, tag: t}}\n\
         handlers:\n  calls: {match: 'out|net.tcp_connect@t|connect@*', file: /var/log/x}\n  \
         deaf: {match: 'out|net.tcp_connect@t|opened@*', file: /var/log/y}\n",
    );
    let [deaf] = &messages(&calls.warnings)[..] else {
        panic!("one that can match, and one that cannot");
    };
    assert!(deaf.starts_with("t:4:3: handler `deaf`"), "{deaf}");
    assert_eq!(
        messages(&settings.warnings),
        [
            "t:3:3: handler `gone` with `/nonexistent/program`, which does not exist, \
             expected a program that can be run",
            "t:4:3: handler `text` with `/etc/passwd`, which nobody may execute, \
             expected a program that can be run",
            "t:5:3: handler `dir` with `/etc`, which is no file, \
             expected a program that can be run",
            "t:6:3: handler `deaf` for `web|net.socket|closed@*`, which no event id here \
             matches, expected a glob over the event id, such as \
             `\"web|net.socket*|opened@*|0\"`",
        ]
    );
}

#[test]
fn the_control_socket_and_its_users() {
    let text = "daemon: {stdout: false, control: /run/x/c.sock, control-uids: [0, 1000], \
                control-gids: [27]}\nsensors: {a: {listener: net.socket}}";
    let settings = good(text);
    assert_eq!(
        settings.daemon.control.as_deref(),
        Some(std::path::Path::new("/run/x/c.sock"))
    );
    assert_eq!(settings.daemon.control_uids, [0, 1000]);
    assert_eq!(settings.daemon.control_gids, [27]);
    // Subscribers take the events.
    assert!(settings.warnings.is_empty());
}

#[test]
fn what_is_too_large_without_an_alias_is_not_blamed_on_one() {
    let many = format!(
        "web: {{listener: net.socket, opts: [{}]}}",
        "opened, ".repeat(70_000)
    );
    assert_eq!(
        refused(&many),
        ["t:1:1: a document that is too large, expected at most 65536 values"]
    );
}

#[test]
fn a_byte_order_mark_moves_no_column() {
    assert_eq!(
        refused("\u{feff}web: 1\n"),
        ["t:1:6: number `1` for sensor `web`, expected a map with `listener`"]
    );
}

#[test]
fn state_is_kept_where_it_is_asked_for() {
    let with = |daemon: &str| {
        good(&format!(
            "{daemon}\nsensors: {{a: {{listener: net.socket}}}}"
        ))
    };
    assert_eq!(with("daemon: {queue: 9}").daemon.state, None);
    let state = with("daemon: {state: /var/lib/sockwatch}").daemon.state;
    assert_eq!(state, Some("/var/lib/sockwatch".into()));
}

/// What a sensor has in view is decided by its globs and by the names that they can
/// match; whatever else changes, its view is the same.
#[test]
fn what_decides_a_view() {
    let view = |args: &str| {
        let text = format!("a: {{listener: net.socket, {args}}}");
        good(&text).sensors[0].view()
    };
    let plain = view("args: {patterns: [\"tcp *\"]}");
    for same in [
        "description: x, tag: y, interval: 7s, opts: [closed], args: {patterns: [\"tcp *\"]}",
        "args: {patterns: [\"tcp *\"], locked: true, initial: true, skip-reverse-dns: true}",
    ] {
        assert_eq!(view(same), plain, "{same}");
    }
    for other in [
        "args: {patterns: [\"tcp *\", \"udp *\"]}",
        "args: {ignore: [\"tcp *\"]}",
        "args: {patterns: [\"tcp *\"], ignore: [\"tcp *\"]}",
        "args: {patterns: [\"tcp *\"], dns: true}",
        "args: {patterns: [\"tcp *\"], dns: true, skip-reverse-dns: true}",
    ] {
        assert_ne!(view(other), plain, "{other}");
    }
    // It stands in files.
    assert_eq!(plain, 0x82df_9690_77ce_4f16);
    // What it is a view of, and the locks it may hold, go by the listener too.
    let connects = good("a: {listener: net.tcp_connect, tag: t, args: {patterns: [\"tcp *\"]}}");
    assert_ne!(connects.sensors[0].view(), plain);
    assert_eq!(connects.sensors[0].eid_prefix(), "a|net.tcp_connect@t|");
}

#[test]
fn a_sensor_of_connects_has_defaults_of_its_own() {
    use sockwatch::model::{Listener, Origin};

    let settings = good(
        "plain: {listener: net.tcp_connect}\n\
         all: {listener: net.tcp_connect, opts: [connect], tag: t, interval: 2s, \
         args: {patterns: [\"tcp - *:443 * CONNECT\"], dns: false, locked: true, hook: cgroup}}\n\
         sockets: {listener: net.socket}",
    );
    let [plain, all, sockets] = settings.sensors.as_slice() else {
        panic!("three sensors");
    };
    assert_eq!(plain.listener, Listener::TcpConnect);
    assert!(plain.dns && !plain.locked && !plain.opened && !plain.closed);
    assert_eq!(plain.hook, None);
    assert!(!all.dns && all.locked);
    assert_eq!(all.hook, Some(Origin::Cgroup));
    assert_eq!(sockets.listener, Listener::NetSocket);
    assert!(!sockets.dns && sockets.opened);
}
