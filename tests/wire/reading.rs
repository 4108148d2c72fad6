//! Every fixture says what the sockets API said.

use sockwatch::model::Proto;

use crate::fixture;
use crate::lines::{self, Holds};

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
    for shown in [
        "udp inet ",
        "udp inet6 [::1]",
        "udp inet6 mapped",
        "ESTABLISHED",
        "UNCONN",
    ] {
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

/// What could not be captured: flags and control messages, put into a row.
#[test]
fn netlinks_own_messages_are_told_apart() {
    let row = fixture::all()
        .into_iter()
        .find(|fixture| fixture.name == "exact-tcp4");
    let row = row.expect("a fixture of one message").bytes;
    let with = |kind: u16, flags: u16| {
        let mut message = row.clone();
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message[6..8].copy_from_slice(&flags.to_ne_bytes());
        // The code of NLMSG_DONE and NLMSG_ERROR.
        message[16..20].copy_from_slice(&(-libc::ENOBUFS).to_ne_bytes());
        lines::read(&message, Holds::Rows(Proto::Tcp))
    };
    // NLM_F_DUMP_INTR says of any part of a dump, its end included, that rows
    // may be missing; of an error it says nothing.
    for kind in [18, 20, 3] {
        assert_eq!(with(kind, 0x10 | 0x2), ["interrupted"]);
    }
    assert_eq!(with(2, 0x10), ["error -105"]);
    assert_eq!(with(3, 0x2), ["done -105"]);
    // NLMSG_NOOP, NLMSG_OVERRUN, and what netlink keeps for itself.
    for kind in [1, 4, 15] {
        assert_eq!(with(kind, 0), ["other"]);
    }
    let end = |kind: u16, payload: &[u8]| {
        let mut message = (16 + payload.len() as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(payload);
        lines::read(&message, Holds::Rows(Proto::Tcp))
    };
    assert_eq!(end(2, &[0; 20]), ["error 0"]);
    assert_eq!(
        end(2, &[0; 3]),
        ["malformed: a message too short for inet_diag_msg"]
    );
    assert_eq!(end(3, &[]), ["done 0"]);
}
