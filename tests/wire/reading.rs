//! Every fixture says what the sockets API said.

use crate::fixture;
use crate::lines;

#[test]
fn fixtures_are_read_as_the_sockets_were() {
    for fixture in fixture::all() {
        let read = lines::read(&fixture.bytes, fixture.holds());
        assert_eq!(read, fixture.expected, "{}", fixture.name);
    }
}

/// A fixture that is not there tests nothing: what the set must show.
#[test]
fn the_fixtures_show_all_that_the_reader_tells_apart() {
    let fixtures = fixture::all();
    let lines = |prefix: &str| -> String {
        let of: Vec<String> = fixtures
            .iter()
            .filter(|fixture| fixture.name.starts_with(prefix))
            .flat_map(|fixture| fixture.expected.clone())
            .collect();
        of.join("\n")
    };
    for dump in ["legacy-tcp", "v2-tcp"] {
        let rows = lines(dump);
        for shown in [
            "LISTEN full",
            "CLOSE full",
            "ESTABLISHED full uid",
            "ESTABLISHED full owner=no_file",
            "SYN_SENT full",
            "SYN_RECV mini owner=minisocket",
            "FIN_WAIT2 full uid",
            "FIN_WAIT2 mini owner=minisocket",
            "TIME_WAIT mini owner=minisocket",
            "CLOSE_WAIT full uid",
            "tcp inet 127.0.0.1",
            "tcp inet6 [::1]",
            "tcp inet6 mapped 127.0.0.1",
            "ifindex=1",
        ] {
            assert!(rows.contains(shown), "{dump} has no {shown}");
        }
    }
    let udp = lines("v2-udp");
    for shown in ["udp inet ", "udp inet6 [::1]", "udp inet6 mapped", "ESTABLISHED", "UNCONN"] {
        assert!(udp.contains(shown), "v2-udp has no {shown}");
    }
    let notices = lines("notice-");
    for shown in [
        "tcp inet ",
        "tcp inet6 [::1]",
        "tcp inet6 mapped",
        "ESTABLISHED sent=11 received=7",
        "ESTABLISHED wiped",
        "SYN_SENT wiped",
        "CLOSE sent=0",
        "udp inet ",
        "udp inet6 ",
        "UNCONN",
    ] {
        assert!(notices.contains(shown), "no notice shows {shown}");
    }
    assert_eq!(lines("done-"), "done 0\ndone -2");
    assert_eq!(lines("error-"), "error -2");
}
