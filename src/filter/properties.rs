//! What the filter promises, as properties: it agrees with globset on written
//! tuples, is never wrong before the host is known, and asks the kernel for all
//! that could match.

use globset::{GlobBuilder, GlobMatcher};
use proptest::prelude::*;

use super::*;
use crate::model::Endpoint;

/// The same globs as globset alone would have them, on written tuples.
struct Plain(Vec<GlobMatcher>, Vec<GlobMatcher>);

impl Plain {
    fn new(patterns: &[String], ignore: &[String]) -> Plain {
        let compile = |globs: &[String]| {
            let read = |glob: &String| {
                GlobBuilder::new(&syntax::read(glob).unwrap().glob)
                    .empty_alternates(true)
                    .build()
                    .unwrap()
                    .compile_matcher()
            };
            globs.iter().map(read).collect()
        };
        Plain(compile(patterns), compile(ignore))
    }

    fn passes(&self, id: &SockId, state: TcpState, host: &str) -> bool {
        let rest = |ip: &str| {
            let (proto, state) = (id.proto.as_str(), state.as_str(id.proto));
            format!("{proto}{ip} {} {} {host} {state}", id.local, id.remote)
        };
        let narrow = if id.shown_family() == Family::V4 {
            "4"
        } else {
            "6"
        };
        let any = |globs: &[GlobMatcher]| {
            globs
                .iter()
                .any(|glob| glob.is_match(rest("")) || glob.is_match(rest(narrow)))
        };
        (self.0.is_empty() || any(&self.0)) && !any(&self.1)
    }
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let ip = prop::sample::select(vec![
        "10.0.0.2",
        "203.0.113.7",
        "0.0.0.0",
        "255.255.255.255",
        "::",
        "2001:db8::1",
        "fe80::1:2",
        "::1.2.3.4",
        "2001:db8:1:2:3:4:5:6",
    ]);
    let port = prop::sample::select(vec![0u16, 4, 22, 443, 51234]);
    (ip, port).prop_map(|(ip, port)| Endpoint::new(ip.parse::<std::net::IpAddr>().unwrap(), port))
}

fn socket() -> impl Strategy<Value = (SockId, TcpState)> {
    let proto = prop::sample::select(Proto::ALL.to_vec());
    let family = prop::sample::select(Family::ALL.to_vec());
    (
        proto,
        family,
        any::<bool>(),
        endpoint(),
        endpoint(),
        0..TcpState::ALL.len(),
    )
        .prop_map(|(proto, family, v4_mapped, local, remote, state)| {
            let state = match proto {
                Proto::Tcp => TcpState::ALL[state],
                Proto::Udp if state % 2 == 0 => TcpState::Close,
                Proto::Udp => TcpState::Established,
            };
            let id = SockId {
                proto,
                family,
                v4_mapped,
                local,
                remote,
                ifindex: 0,
            };
            (id, state)
        })
}

const HOSTS: [&str; 12] = [
    "-",
    "a",
    "b",
    "4",
    "example.org",
    "www.example.org",
    "a.b-c_d",
    r"\032established",
    "tcp",
    "10.0.0.2",
    "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz.example.org",
    "_.",
];

fn pattern(regex: String) -> impl Strategy<Value = String> {
    prop::string::string_regex(&regex).unwrap()
}

fn glob() -> impl Strategy<Value = String> {
    let first =
        "(tcp|udp|tcp4|udp6|\\{tcp4,udp\\}|tcp\\?|\\*|\\*4|\\*p6|t\\*|\\?\\*|[tu]*[cd]p[46]?)";
    let end = "(\\*|\\*:443|10\\.\\*:\\*|\\[\\*\\]:\\*|\\[2001:db8:\\*\\]:443|\\?\\?\\*|\\*0\\*|[0-9]{1,2}\\*)";
    let literal = "(\\*|\\*:(443|22)|10\\.0\\.0\\.2:(22|\\*)|\\[2001:db8::1\\]:(443|\\*)|\\*:\\{22,443\\}|:22|0\\.0\\.0\\.0:0)";
    let host = "(\\*|-|\\*\\.example\\.org|a\\*|\\*[a-c]\\*|\\[!a\\]\\*|\\?|\\{a,b\\}|\\?\\*|\\*t\\*\\?\\*|\\*\\*)";
    let state =
        "(\\*|ESTABLISHED|LISTEN|TIME_WAIT|\\*WAIT|\\*[12]|\\{LISTEN,CLOSE\\}|[A-U]\\*|\\?\\*N\\*)";
    prop_oneof![
        pattern(format!("{first} {end} {end} {host} {state}")),
        pattern(format!("{first} {host} {state}")),
        pattern(format!("{first} {state}")),
        pattern(format!("{first}{end}{host}{state}")),
        pattern(format!("{first} {literal} {literal} {host} {state}")),
        pattern(format!("{first} {literal} {state}")),
        pattern(format!("\\*{literal} \\*")),
        pattern("[tcpud46*? :.a0E]{0,12}".into()),
        pattern("([tcpud46*?:., ]|\\[|\\]|\\{|\\}|!|-){0,16}".into()),
    ]
}

fn globs() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(glob(), 0..4).prop_map(|globs| {
        globs
            .into_iter()
            .filter(|glob| check::compile(glob, Subject::Sockets).is_ok())
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_pattern_panics(glob in any::<String>(), other in glob()) {
        for glob in [glob, other] {
            if let Err(error) = check::compile(&glob, Subject::Sockets) {
                prop_assert!(error.offset <= glob.len());
                prop_assert!(glob.is_char_boundary(error.offset));
            }
        }
    }

    #[test]
    fn answers_are_those_of_globset(patterns in globs(), ignore in globs(), sockets in prop::collection::vec(socket(), 1..20)) {
        let filter = Filter::new(&patterns, &ignore).unwrap();
        let plain = Plain::new(&patterns, &ignore);
        let needs = filter.needs();
        for (id, state) in sockets {
            let truth = HOSTS.map(|host| plain.passes(&id, state, host));
            for (host, passes) in HOSTS.into_iter().zip(truth) {
                let expected = if passes { Answer::Pass } else { Answer::Drop };
                prop_assert_eq!(filter.judge(&id, state, Some(host)), expected, "{:?} {}", id, host);
            }
            match filter.judge(&id, state, None) {
                Answer::Pass => prop_assert!(truth.iter().all(|&passes| passes)),
                Answer::Drop => prop_assert!(!truth.iter().any(|&passes| passes)),
                Answer::NeedsHost => {
                    let mut globs = filter.patterns.iter().chain(&filter.ignore);
                    prop_assert!(globs.any(|glob| glob.mentions_host()));
                }
            }
            if truth.contains(&true) && (state != TcpState::TimeWait || filter.watches(state)) {
                prop_assert!(needs.proto(id.proto));
                prop_assert!(id.proto == Proto::Udp || needs.tcp.contains(StateGroups::of(state)));
            }
        }
    }

    /// What could pass, with any host, is asked of the kernel.
    #[test]
    fn whatever_could_pass_is_of_interest(patterns in globs(), ignore in globs(), sockets in prop::collection::vec(socket(), 1..20)) {
        let filter = Filter::new(&patterns, &ignore).unwrap();
        let plain = Plain::new(&patterns, &ignore);
        let soughts = Proto::ALL.map(|proto| {
            [filter.sought(proto), filter.sought_in_dump(proto)]
        });
        for (mut id, state) in sockets {
            if state == TcpState::Listen {
                id.remote.port = 0;
            }
            if HOSTS.into_iter().any(|host| plain.passes(&id, state, host)) {
                let [running, once] = &soughts[id.proto as usize];
                prop_assert!(once.wants(&id), "{:?} {:?}", once, id);
                let watched = state != TcpState::TimeWait || filter.watches(state);
                prop_assert!(!watched || running.wants(&id), "{:?} {:?}", running, id);
            }
        }
    }

    #[test]
    fn what_globset_matches_is_no_error(glob in glob(), (id, state) in socket()) {
        let read = syntax::read(&glob).ok().map(|pattern| pattern.glob);
        if check::compile(&glob, Subject::Sockets).is_err() && read.is_some_and(|glob| GlobBuilder::new(&glob).build().is_ok()) {
            let plain = Plain::new(&[glob], &[]);
            for host in HOSTS {
                prop_assert!(!plain.passes(&id, state, host));
            }
        }
    }

    /// Whatever there is can be written down.
    #[test]
    fn every_tuple_is_a_pattern(
        proto in prop::sample::select(Proto::ALL.to_vec()),
        (v6, other) in any::<([u16; 8], [u16; 8])>(),
        (v4, shape, port) in any::<([u8; 4], u8, u16)>(),
        zero in any::<u8>(),
    ) {
        let v4 = std::net::Ipv4Addr::from(v4);
        let mut v6 = v6;
        for (at, word) in v6.iter_mut().enumerate() {
            if zero & 1 << at != 0 {
                *word = 0;
            }
        }
        let (family, local, remote): (_, std::net::IpAddr, std::net::IpAddr) = match shape % 3 {
            0 => (Family::V4, v4.into(), v4.into()),
            1 => (Family::V6, v4.to_ipv6_mapped().into(), v4.to_ipv6_mapped().into()),
            _ => (Family::V6, std::net::Ipv6Addr::from(v6).into(), std::net::Ipv6Addr::from(other).into()),
        };
        let id = SockId::from_wire(proto, family, (local, port), (remote, port), 0);
        let digit = if id.shown_family() == Family::V4 { "4" } else { "6" };
        let proto = proto.as_str();
        for glob in [
            format!("{proto}{digit} {} {} * *", id.local, id.remote),
            format!("{proto} {} * - ESTABLISHED", id.local),
        ] {
            if let Err(error) = check::compile(&glob, Subject::Sockets) {
                prop_assert!(false, "{}: {}", glob, error);
            }
        }
    }

    #[test]
    fn one_glob_asks_exactly(glob in glob(), (id, state) in socket()) {
        if check::compile(&glob, Subject::Sockets).is_ok() {
            let filter = Filter::new(std::slice::from_ref(&glob), &[]).unwrap();
            let opposite = Filter::new(&[], std::slice::from_ref(&glob)).unwrap();
            let answer = filter.judge(&id, state, None);
            let expected = match answer {
                Answer::Pass => Answer::Drop,
                Answer::Drop => Answer::Pass,
                Answer::NeedsHost => Answer::NeedsHost,
            };
            prop_assert_eq!(opposite.judge(&id, state, None), expected);
        }
    }
}
