//! What the filter promises, as tables.

use super::*;

fn id(proto: Proto, local: &str, remote: &str) -> SockId {
    let end = |text: &str| {
        let end: std::net::SocketAddr = text.parse().unwrap();
        (end.ip(), end.port())
    };
    let (local, remote) = (end(local), end(remote));
    let family = if local.0.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    SockId::from_wire(proto, family, local, remote, 0)
}

fn filter(patterns: &[&str], ignore: &[&str]) -> Filter {
    let own = |globs: &[&str]| globs.iter().map(|&glob| glob.into()).collect::<Vec<_>>();
    Filter::new(&own(patterns), &own(ignore)).unwrap()
}

fn v4() -> SockId {
    id(Proto::Tcp, "10.0.0.2:51234", "203.0.113.7:443")
}

fn v6() -> SockId {
    id(Proto::Tcp, "[2001:db8::1]:443", "[2001:db8::9]:5000")
}

fn mapped() -> SockId {
    id(Proto::Tcp, "[::ffff:10.0.0.2]:80", "[::ffff:10.0.0.9]:5000")
}

fn udp() -> SockId {
    id(Proto::Udp, "0.0.0.0:53", "0.0.0.0:0")
}

#[test]
fn globs_match_the_whole_tuple() {
    use TcpState::{Close, Established, Listen};
    for (glob, id, state, passes) in [
        ("*", v4(), Established, true),
        ("tcp * * * ESTABLISHED", v4(), Established, true),
        ("tcp * * * ESTABLISHED", v4(), Listen, false),
        ("tcp * * * ESTABLISHED", udp(), Established, false),
        ("*:443 *", v4(), Established, true),
        ("*:443 *", v6(), Established, true),
        ("*:444 *", v4(), Established, false),
        ("tcp4 *", v4(), Established, true),
        ("tcp6 *", v4(), Established, false),
        ("tcp6 *", v6(), Established, true),
        ("tcp4 *", mapped(), Established, true),
        ("tcp6 *", mapped(), Established, false),
        ("tcp? *", v4(), Established, true),
        ("t??[6] *", v6(), Established, true),
        ("t??[6] *", v4(), Established, false),
        ("tcp[6] *", v6(), Established, true),
        ("{tcp4,udp6} *", v4(), Established, true),
        ("{tcp4,udp6} *", v6(), Established, false),
        ("tcp{,4} * ESTABLISHED", v6(), Established, true),
        ("*4 * ESTABLISHED", v4(), Established, true),
        ("*cp6 *", v6(), Established, true),
        ("*cp6 *", v4(), Established, false),
        ("tcp [2001:db8::1]:443 *", v6(), Established, true),
        ("tcp [2001:db8:*]:* *", v6(), Established, true),
        ("* [2001:db8::[0-9]]:* *", v6(), Established, true),
        ("* [2001:db8::[0-8]]:5* *", v6(), Established, false),
        (
            "tcp [::]:0 *",
            id(Proto::Tcp, "[::]:0", "[::]:0"),
            Listen,
            true,
        ),
        ("tcp [:db8:]:0 *", v6(), Established, false),
        (r"tcp \[2001:db8::1\]:443 *", v6(), Established, true),
        ("udp * * * UNCONN", udp(), Close, true),
        ("* CLOSE", udp(), Close, false),
        ("* CLOSE", v4(), Close, true),
        (
            "tcp 10.0.0.2:51234 203.0.113.7:443 - ESTABLISHED",
            v4(),
            Established,
            true,
        ),
    ] {
        let expected = if passes { Answer::Pass } else { Answer::Drop };
        assert_eq!(
            filter(&[glob], &[]).judge(&id, state, Some("-")),
            expected,
            "{glob} on {id:?}"
        );
        let ignored = if passes { Answer::Drop } else { Answer::Pass };
        assert_eq!(
            filter(&[], &[glob]).judge(&id, state, Some("-")),
            ignored,
            "not {glob} on {id:?}"
        );
    }
}

#[test]
fn asks_for_the_host_only_if_it_matters() {
    use Answer::{Drop, NeedsHost, Pass};
    for (patterns, ignore, expected) in [
        (&[][..], &[][..], Pass),
        (&["tcp * * * ESTABLISHED"], &[], Pass),
        (&["* *.example.org *"], &[], NeedsHost),
        (&["* 203.*:443 example.org *"], &[], NeedsHost),
        (&["* 203.*:80 example.org *"], &[], Drop),
        (&["* - ESTABLISHED"], &[], NeedsHost),
        (&["* ?* ESTABLISHED"], &[], Pass),
        (&["* EXAMPLE.* *", "udp *"], &[], Drop),
        (&["* *[!A-Z] ESTABLISHED"], &[], Pass),
        (&["* *[!a-z] ESTABLISHED"], &[], NeedsHost),
        (&["* * * *:* *"], &[], Drop),
        (&["*"], &["* *.internal *"], NeedsHost),
        (&["*"], &["* *.internal LISTEN"], Pass),
        (&["*"], &["* *.internal *", "*:443 *"], Drop),
        (&["* a* *", "*:443 *"], &[], Pass),
        (&["tcp4 * * a* *"], &[], NeedsHost),
        (&["tcp6 * * a* *"], &[], Drop),
        // Only between them they match every host: asks once too often.
        (&["* a* ESTABLISHED", "* [!a]* ESTABLISHED"], &[], Pass),
        (
            &[
                "tcp * * a* ESTABLISHED",
                "tcp 10.0.0.2:51234 203.0.113.7:443 [!a]* *",
            ],
            &[],
            NeedsHost,
        ),
    ] {
        if patterns
            .iter()
            .any(|glob| check::compile(glob, Subject::Sockets).is_err())
        {
            assert_eq!(expected, Drop, "{patterns:?}");
            continue;
        }
        let filter = filter(patterns, ignore);
        assert_eq!(
            filter.judge(&v4(), TcpState::Established, None),
            expected,
            "{patterns:?} {ignore:?}"
        );
    }
}

#[test]
fn what_matches_nothing_is_an_error() {
    for (glob, offset, hint) in [
        ("", 0, Some("`*`")),
        ("tpc *", 0, Some("\"tcp\"")),
        ("TCP *", 0, Some("\"tcp\"")),
        ("udp5 * ESTABLISHED", 0, Some("\"udp")),
        (" tcp *", 0, None),
        ("tcp * ESTABLISHD", 6, Some("\"ESTABLISHED\"")),
        ("tcp * * * established", 10, Some("\"ESTABLISHED\"")),
        ("* TIME-WAIT", 2, Some("\"TIME_WAIT\"")),
        ("tcp * * * LISTEN ", 17, None),
        ("tcp", 0, Some("\"tcp *\"")),
        ("tcp * ESTAB", 6, Some("\"ESTABLISHED\"")),
        ("tcp * nonsense", 6, None),
        ("tcp 1.2.3.4:5 LISTEN", 14, None),
        ("tcp 1.2.3.4:5 1.2.3.4:5 - LISTEN x", 33, None),
        ("udp * * * LISTEN", 10, Some("\"UNCONN\"")),
        ("tcp * * * UNCONN", 10, Some("\"CLOSE\"")),
        ("tcp * * Example.org *", 8, Some("\"example.org\"")),
        ("tcp * * * * * ESTABLISHED", 12, None),
        ("tcp 10.0.0.1 * * *", 4, Some("\"10.0.0.1:*\"")),
        ("tcp * * * {LISTN,ESTABLISHD}", 10, None),
        ("*[!:]*", 0, None),
        ("tcp [ab", 4, None),
        ("tcp [b-a]*", 0, None),
    ] {
        let error = check::compile(glob, Subject::Sockets).unwrap_err();
        assert_eq!(error.offset, offset, "{glob}: {error}");
        match hint {
            Some(hint) => assert!(
                error
                    .hint
                    .as_deref()
                    .is_some_and(|text| text.contains(hint)),
                "{glob}: {error}"
            ),
            None => assert_eq!(error.hint, None, "{glob}: {error}"),
        }
    }
    assert!(check::compile(&"*".repeat(1025), Subject::Sockets).is_err());
    assert!(
        check::compile(
            &format!("{}*{}", "{".repeat(400), "}".repeat(400)),
            Subject::Sockets
        )
        .is_err()
    );
}

#[test]
fn needs_are_what_could_match() {
    let none = StateGroups::NONE;
    let (listeners, connected) = (StateGroups::LISTEN, StateGroups::CONNECTED);
    let listen = listeners | StateGroups::BOUND;
    for (patterns, ignore, tcp, udp) in [
        (&[][..], &[][..], listen | connected, true),
        (
            &["tcp * * * ESTABLISHED"],
            &["udp * * * *"],
            connected,
            false,
        ),
        (&["tcp * * * CLOSE_WAIT"], &[], connected, false),
        (&[], &["udp *"], listen | connected, false),
        (&[], &["udp * * * *"], listen | connected, false),
        (&[], &["udp4 *"], listen | connected, true),
        (&[], &["udp4 *", "udp6 *"], listen | connected, false),
        (
            &[],
            &["tcp * * * LISTEN"],
            StateGroups::BOUND | connected,
            true,
        ),
        (&[], &["tcp * * * LISTEN", "* CLOSE"], connected, true),
        (&["* LISTEN"], &[], listeners, false),
        (&["* CLOSE"], &[], StateGroups::BOUND, false),
        (&["udp *"], &[], none, true),
        (&["*:443 *"], &[], listen | connected, true),
        (&["tcp * * * TIME_WAIT"], &[], StateGroups::TIME_WAIT, false),
        (
            &["* TIME_WAIT", "*"],
            &["* TIME_WAIT"],
            listen | connected,
            true,
        ),
        (&["* SYN_RECV"], &[], connected, false),
    ] {
        let needs = filter(patterns, ignore).needs();
        assert_eq!(needs, Needs { tcp, udp }, "{patterns:?} {ignore:?}");
    }
    assert_eq!(filter(&[], &[]).needs(), Needs::EVERYTHING);
}

#[test]
fn a_dump_needs_time_wait_wherever_it_could_match() {
    let all = StateGroups::ALL;
    let (connected, time_wait) = (StateGroups::CONNECTED, StateGroups::TIME_WAIT);
    for (patterns, ignore, tcp, udp) in [
        (&[][..], &[][..], all, true),
        (&["*:443 *"], &[], all, true),
        (&["tcp * * * TIME_WAIT"], &[], time_wait, false),
        (&["tcp * * * TIME_*"], &[], time_wait, false),
        (&["*TIME_WAIT"], &[], time_wait, false),
        (
            &["tcp * * * {TIME_WAIT,ESTABLISHED}"],
            &[],
            connected | time_wait,
            false,
        ),
        (&["* ESTABLISHED"], &[], connected, true),
        (&["tcp *"], &["* TIME_WAIT"], all.without(time_wait), false),
    ] {
        let needs = filter(patterns, ignore).needs_in_dump();
        assert_eq!(needs, Needs { tcp, udp }, "{patterns:?} {ignore:?}");
    }
}

#[test]
fn minisockets_are_watched_by_their_last_word() {
    let watches = |glob: &str| {
        [TcpState::SynRecv, TcpState::TimeWait].map(|state| filter(&[glob], &[]).watches(state))
    };
    assert_eq!(watches("tcp * * * TIME_WAIT"), [false, true]);
    assert_eq!(watches("* SYN_RECV"), [true, false]);
    assert_eq!(watches("*TIME_WAIT"), [false, false]);
    assert_eq!(watches("* {TIME_WAIT,LISTEN}"), [false, false]);
    assert_eq!(watches("*"), [false, false]);
    assert!(!filter(&["* LISTEN"], &[]).watches(TcpState::Listen));
    assert!(!filter(&[], &["* TIME_WAIT"]).watches(TcpState::TimeWait));
}

#[test]
fn what_a_glob_is_about() {
    use About::{Also, Only, Others};
    for (glob, syn_recv, time_wait) in [
        ("*", Others, Others),
        ("tcp * * * [!L]*", Others, Others),
        ("* ESTABLISHED", Others, Others),
        ("*TIME_WAIT", Others, Only),
        ("tcp * * * TIME_*", Others, Only),
        ("tcp * * * TIME_WAIT", Others, Only),
        ("tcp4 * * * {TIME_WAIT,SYN_RECV}", Also, Also),
        ("* {TIME_WAIT,ESTABLISHED}", Others, Also),
        ("* {TIME_WAIT,UNCONN}", Others, Also),
        ("* *_WAIT", Others, Also),
        ("* SYN_*", Also, Others),
        ("* SYN_R*", Only, Others),
    ] {
        let glob = check::compile(glob, Subject::Sockets).unwrap();
        let about = [TcpState::SynRecv, TcpState::TimeWait].map(|state| glob.about(state));
        assert_eq!(about, [syn_recv, time_wait], "{glob:?}");
    }
}

#[test]
fn a_host_is_mentioned_where_it_can_decide() {
    for (glob, mentioned) in [
        ("*", false),
        ("tcp * * * ESTABLISHED", false),
        ("*:443 *", false),
        ("tcp * [2001:db8::1]:* * *", false),
        ("tcp * *:443 * *", false),
        ("* *.example.org *", true),
        ("tcp * * - *", true),
    ] {
        assert_eq!(
            check::compile(glob, Subject::Sockets)
                .unwrap()
                .mentions_host(),
            mentioned,
            "{glob}"
        );
    }
}

#[test]
fn the_largest_patterns_give_up_in_time_and_never_guess() {
    for unit in ["*a", "?*", "a ", "* ", "{a,b}", "[ab]", "*0?", "{*0,?1*} "] {
        let glob = format!("*{}*", unit.repeat(1022 / unit.len()));
        let Ok(filter) = Filter::new(&[glob], &[]) else {
            continue;
        };
        for host in ["-".into(), "a".repeat(255), "0a".repeat(127)] {
            let known = filter.judge(&v4(), TcpState::Established, Some(&host));
            let before = filter.judge(&v4(), TcpState::Established, None);
            assert!(before == known || before == Answer::NeedsHost, "{unit}");
        }
    }
}

#[test]
fn a_name_is_needed_where_an_unknown_host_never_matches() {
    for (glob, needed) in [
        ("*", false),
        ("tcp * * - LISTEN", false),
        ("tcp * * ? LISTEN", false),
        ("tcp * * [!a]* *", false),
        ("tcp * * {-,a*} *", false),
        ("tcp * 127.*", false),
        ("tcp * * ?? LISTEN", true),
        ("tcp6 * * a* *", true),
        ("* *.example.org *", true),
    ] {
        assert_eq!(
            check::compile(glob, Subject::Sockets).unwrap().needs_name(),
            needed,
            "{glob}"
        );
    }
}

fn connects(patterns: &[&str], ignore: &[&str]) -> Filter {
    let owned = |globs: &[&str]| {
        globs
            .iter()
            .map(|glob| glob.to_string())
            .collect::<Vec<_>>()
    };
    Globs::new()
        .filter(&owned(patterns), &owned(ignore), Subject::Connects)
        .unwrap()
}

#[test]
fn a_connect_passes_when_one_of_its_names_does() {
    let remote = Endpoint::new([203, 0, 113, 7], 443);
    let names = [&b"example.org"[..], b"ads.example.net"].map(crate::model::Name::escaped);
    for (patterns, ignore, named, nameless) in [
        (&[][..], &[][..], true, true),
        (&["tcp - *:443 * CONNECT"], &[], true, true),
        (&["tcp4 *"], &[], true, true),
        (&["tcp6 *"], &[], false, false),
        (&["* *:80 *"], &[], false, false),
        (&["* - CONNECT"], &[], false, true),
        (&["* ads.example.net CONNECT"], &[], true, false),
        // One name of two is ignored: the other one still passes.
        (&[], &["* ads.example.net *"], true, true),
        (&[], &["* *.example.net *", "* example.org *"], false, true),
        (&["* ads.example.net *"], &["* ads.* *"], false, false),
        (&[], &["* 203.0.113.7:* *"], false, false),
        (&[], &["* - CONNECT"], true, false),
    ] {
        let filter = connects(patterns, ignore);
        let told = format!("{patterns:?} but not {ignore:?}");
        assert_eq!(filter.passes(&remote, Family::V4, &names), named, "{told}");
        assert_eq!(filter.passes(&remote, Family::V4, &[]), nameless, "{told}");
    }
}

#[test]
fn what_no_connect_can_match_is_an_error_and_the_other_way_round() {
    for (glob, hint) in [
        ("tcp * *:443 * ESTABLISHED", "CONNECT"),
        ("udp *", "tcp, tcp4 or tcp6"),
        ("tcp 10.0.0.1:* * * CONNECT", "not chosen yet"),
        ("tcp - *:443 * CONECT", "did you mean \"CONNECT\"?"),
        ("tcp - *:99999 * CONNECT", "65535"),
        ("* *WAIT*", "can match this"),
        ("tcp - 1.2.3.4:5 CONNECT", "five words"),
    ] {
        let error = check::compile(glob, Subject::Connects).unwrap_err();
        let said = format!("{error} {}", error.hint.as_deref().unwrap_or_default());
        assert!(said.contains(hint), "{glob}: {said}");
    }
    for glob in ["tcp - *:443 * CONNECT", "* CONNECT", "tcp - * * *"] {
        assert!(check::compile(glob, Subject::Connects).is_ok(), "{glob}");
        assert!(check::compile(glob, Subject::Sockets).is_err(), "{glob}");
    }
    for glob in ["*", "tcp *", "* *:443 *", "tcp4 * [!-]* *"] {
        assert!(check::compile(glob, Subject::Connects).is_ok(), "{glob}");
        assert!(check::compile(glob, Subject::Sockets).is_ok(), "{glob}");
    }
}

#[test]
fn what_no_counter_tells_is_known_by_the_patterns() {
    for (patterns, ignore, tcp, udp) in [
        (&[] as &[&str], &[] as &[&str], false, false),
        (&["tcp * * * ESTABLISHED"], &[], false, false),
        (&["tcp * * * LISTEN", "udp *"], &[], false, false),
        (&["* *:443 * *"], &["* * 127.* * *"], false, false),
        (&["* * * * {SYN_SENT,ESTABLISHED}"], &[], false, true),
        (&["udp * * * UNCONN"], &[], false, true),
        (&["tcp * * * CLOSE_WAIT"], &[], true, false),
        (&["tcp * * * *WAIT*"], &[], true, false),
        (&["tcp * *:22 * CLOSE"], &[], true, false),
        (&["* *:22 * *"], &["* * * * TIME_WAIT"], false, false),
        (&["* *:22 * *"], &["* * * * ESTABLISHED"], true, true),
        (&["tcp4 * * * FIN_WAIT2"], &[], true, false),
    ] {
        let filter = filter(patterns, ignore);
        let found = Proto::ALL.map(|proto| filter.names_uncounted(proto));
        assert_eq!(found, [tcp, udp], "{patterns:?} but not {ignore:?}");
    }
}
