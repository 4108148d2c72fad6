//! One record of each kind.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::{
    Action, Attempt, Attribution, Caller, CgroupInfo, CgroupUnknown, ClosedFirst, Comm,
    ConnectData, Cookie, Data, Degraded, Direction, Endpoint, Event, Evidence, Family, Gap,
    GapCause, Holders, Host, HostUnknown, Life, Listener, Name, Netns, NoResults, Origin, Owner,
    OwnerUnknown, Placed, Process, ProcessUnknown, Proto, Restored, Sighting, SockId, SocketData,
    TcpState, Traffic,
};

fn ts() -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(1_795_367_076_123_456)
}

fn endpoint(text: &str, port: u16) -> Endpoint {
    Endpoint::new(text.parse::<IpAddr>().unwrap(), port)
}

fn id(proto: Proto, local: Endpoint, remote: Endpoint) -> SockId {
    SockId {
        proto,
        family: match local.ip {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        },
        v4_mapped: false,
        local,
        remote,
        ifindex: 0,
    }
}

fn placed(path: &str, unit: Option<&str>, container: Option<&str>) -> Placed {
    Placed {
        id: Some(4242),
        cgroup: Ok(Arc::new(CgroupInfo {
            path: path.into(),
            unit: unit.map(Into::into),
            container: container.map(Into::into),
        })),
    }
}

pub(super) fn opened() -> SocketData {
    SocketData {
        action: Some((Action::Opened, Evidence::Dump)),
        id: id(
            Proto::Tcp,
            endpoint("10.0.0.2", 51234),
            endpoint("203.0.113.7", 443),
        ),
        wiped: false,
        host: Host::Unknown(HostUnknown::NotApplicable),
        state: TcpState::Established,
        direction: Some(Direction::Outbound),
        cookie: Cookie(4097),
        netns: Netns(4_026_531_833),
        netns_name: None,
        owner: Owner::Known {
            uid: 1000,
            inode: 12593,
        },
        user: None,
        process: None,
        holders: None,
        cmdline: false,
        cgroup: Some(placed(
            "/system.slice/curl.service",
            Some("curl.service"),
            None,
        )),
        between_ticks: false,
        closed_first: None,
        life: None,
        traffic: None,
    }
}

pub(super) fn closed() -> SocketData {
    SocketData {
        action: Some((Action::Closed, Evidence::Notified)),
        process: Some(caller()),
        host: Host::Named(Name::escaped(b"example.org")),
        state: TcpState::FinWait2,
        closed_first: Some(ClosedFirst::Local),
        life: Some(Life::Seen { ms: 1503 }),
        traffic: Some(Traffic {
            bytes_sent: Some(1200),
            bytes_received: Some(88_123),
            segments_sent: 31,
            segments_received: 67,
            retransmits: 2,
            rtt_us: Some(10_233),
        }),
        ..opened()
    }
}

pub(super) fn between_ticks() -> SocketData {
    SocketData {
        direction: Some(Direction::Unknown),
        state: TcpState::Established,
        closed_first: None,
        process: None,
        owner: Owner::Unknown(OwnerUnknown::NotRead),
        cgroup: Some(Placed::nowhere(CgroupUnknown::NotRead)),
        host: Host::Unknown(HostUnknown::TimedOut),
        between_ticks: true,
        life: Some(Life::Between {
            min_ms: Some(3),
            max_ms: Some(998),
        }),
        traffic: Some(Traffic {
            bytes_sent: None,
            bytes_received: Some(0),
            segments_sent: 4,
            segments_received: 3,
            retransmits: 0,
            rtt_us: None,
        }),
        ..closed()
    }
}

pub(super) fn restart() -> SocketData {
    SocketData {
        action: Some((Action::Closed, Evidence::Restart)),
        life: None,
        traffic: None,
        ..closed()
    }
}

pub(super) fn wiped() -> SocketData {
    SocketData {
        id: id(
            Proto::Tcp,
            endpoint("2001:db8::2", 51236),
            endpoint("2001:db8::7", 0),
        ),
        wiped: true,
        direction: Some(Direction::Outbound),
        host: Host::Unknown(HostUnknown::NotFound),
        state: TcpState::SynSent,
        life: Some(Life::Between {
            min_ms: None,
            max_ms: Some(998),
        }),
        traffic: None,
        ..between_ticks()
    }
}

pub(super) fn v4_mapped() -> SocketData {
    SocketData {
        id: SockId::from_wire(
            Proto::Tcp,
            Family::V6,
            ("::ffff:10.0.0.2".parse().unwrap(), 22),
            ("::ffff:10.0.0.9".parse().unwrap(), 40022),
            0,
        ),
        host: Host::Unknown(HostUnknown::Skipped),
        direction: Some(Direction::Inbound),
        state: TcpState::CloseWait,
        owner: Owner::Unknown(OwnerUnknown::NoFile),
        cgroup: Some(placed(
            &format!("/system.slice/docker-{}.scope", "3f4e".repeat(16)),
            Some(&format!("docker-{}.scope", "3f4e".repeat(16))),
            Some(&"3f4e".repeat(16)),
        )),
        ..opened()
    }
}

pub(super) fn udp() -> SocketData {
    SocketData {
        action: Some((Action::Closed, Evidence::Verified)),
        id: id(Proto::Udp, endpoint("::", 5353), endpoint("::", 0)),
        state: TcpState::Close,
        direction: None,
        cgroup: Some(Placed {
            id: Some(4243),
            cgroup: Err(CgroupUnknown::Gone),
        }),
        life: Some(Life::Seen { ms: 7_384_000 }),
        ..opened()
    }
}

pub(super) fn row() -> SocketData {
    SocketData {
        action: None,
        id: id(Proto::Tcp, endpoint("0.0.0.0", 22), endpoint("0.0.0.0", 0)),
        state: TcpState::Listen,
        direction: None,
        cookie: Cookie(12),
        owner: Owner::Known {
            uid: 0,
            inode: 9321,
        },
        ..opened()
    }
}

pub(super) fn minisocket_row() -> SocketData {
    SocketData {
        action: None,
        direction: None,
        state: TcpState::TimeWait,
        owner: Owner::Unknown(OwnerUnknown::Minisocket),
        cgroup: Some(Placed::nowhere(CgroupUnknown::Minisocket)),
        host: Host::Unknown(HostUnknown::Failed),
        ..v4_mapped()
    }
}

fn process(pid: u32, comm: &[u8; 16], exe: Option<&str>, user: Option<&str>) -> Arc<Process> {
    Arc::new(Process {
        pid,
        started: 4711,
        comm: Comm(*comm),
        exe: exe.map(Into::into),
        uid: 1000,
        user: user.map(Into::into),
        cmdline: Some("curl --user name:secret https://example.org/".into()),
    })
}

/// What is known of who has it, in every way.
pub(super) fn attributed_rows() -> [SocketData; 5] {
    let curl = process(
        812,
        b"curl\0left over!!",
        Some("/usr/bin/curl"),
        Some("eve"),
    );
    let harmful = process(
        813,
        b"\x1b[2J\" uid=0\n\xff\0\0\0",
        Some("/tmp/\u{9b}2J (deleted)"),
        None,
    );
    let hidden = process(9, b"sd-pam\0\0\0\0\0\0\0\0\0\0", None, None);
    let held = |oldest: Vec<Arc<Process>>, others| {
        Some(Attribution::Held(Arc::new(Holders { oldest, others })))
    };
    [
        SocketData {
            user: Some("root".into()),
            holders: held(vec![curl.clone()], 0),
            ..row()
        },
        SocketData {
            holders: held(vec![hidden.clone(), harmful.clone()], 0),
            ..row()
        },
        SocketData {
            holders: held(vec![hidden.clone(), hidden, curl, harmful], 7),
            ..row()
        },
        SocketData {
            holders: Some(Attribution::Unknown(ProcessUnknown::NotPermitted)),
            ..row()
        },
        SocketData {
            holders: Some(Attribution::Unknown(OwnerUnknown::Minisocket.into())),
            ..minisocket_row()
        },
    ]
}

/// Whom a hook saw, and who has it open by now.
pub(super) fn handed_over() -> [SocketData; 3] {
    let held = |pid: u32| {
        let process = process(
            pid,
            b"curl\0left over!!",
            Some("/usr/bin/curl"),
            Some("eve"),
        );
        Attribution::Held(Arc::new(Holders {
            oldest: vec![process],
            others: 0,
        }))
    };
    [
        SocketData {
            holders: Some(held(812)),
            cmdline: true,
            ..closed()
        },
        SocketData {
            holders: Some(held(900)),
            ..closed()
        },
        SocketData {
            holders: Some(Attribution::Unknown(ProcessUnknown::Gone)),
            ..closed()
        },
    ]
}

pub(super) fn gap_overrun() -> Data {
    Data::Gap(Gap {
        cause: GapCause::Overrun,
        closed_recovered: Some(17),
        tcp_unseen: Some(3),
        lost: None,
        connects_lost: None,
        duration_ms: 41,
    })
}

pub(super) fn gap_queue() -> Data {
    Data::Gap(Gap {
        cause: GapCause::Queue,
        closed_recovered: None,
        tcp_unseen: None,
        lost: Some(("stdout".into(), 1204)),
        connects_lost: None,
        duration_ms: 2310,
    })
}

pub(super) fn gap_ring() -> Data {
    Data::Gap(Gap {
        cause: GapCause::Ring,
        closed_recovered: None,
        tcp_unseen: None,
        lost: None,
        connects_lost: Some(311),
        duration_ms: 12,
    })
}

fn caller() -> Caller {
    Caller {
        pid: 812,
        tid: 812,
        comm: Comm(*b"curl\0left over!!"),
    }
}

pub(super) fn connect() -> ConnectData {
    ConnectData {
        attempt: Attempt {
            cookie: Cookie(4097),
            netns: Some(Netns(4_026_531_833)),
            remote: endpoint("203.0.113.7", 443),
            family: Family::V4,
            v4_mapped: false,
            mptcp: false,
            sighting: Sighting::Hook {
                origin: Origin::Lsm,
                caller: caller(),
                uid: 1000,
                cgroup_id: 4242,
            },
        },
        results: [&b"example.org"[..], b"cdn.example.net"]
            .map(Name::escaped)
            .into(),
        netns_name: None,
        no_results: None,
        cgroup: placed("/user.slice/session-1.scope", Some("session-1.scope"), None),
        user: None,
    }
}

/// By a task whose name is meant to do harm.
pub(super) fn connect_mapped() -> ConnectData {
    let mut data = connect();
    data.attempt.family = Family::V6;
    data.attempt.v4_mapped = true;
    data.attempt.mptcp = true;
    data.attempt.netns = None;
    data.attempt.sighting = Sighting::Hook {
        origin: Origin::Cgroup,
        caller: Caller {
            pid: 812,
            tid: 815,
            comm: Comm(*b"\x1b[2J\" uid=0\n\xff\0\0\0"),
        },
        uid: 1000,
        cgroup_id: 4242,
    };
    data.results.clear();
    data.no_results = Some(NoResults::Expired);
    data
}

/// That no hook saw, and whose port was wiped.
pub(super) fn connect_seen() -> ConnectData {
    ConnectData {
        attempt: Attempt {
            remote: endpoint("2001:db8::7", 0),
            family: Family::V6,
            sighting: Sighting::Table {
                evidence: Evidence::Notified,
                state: TcpState::SynSent,
                owner: Owner::Unknown(OwnerUnknown::NotRead),
                cgroup_id: None,
            },
            ..connect().attempt
        },
        results: Vec::new(),
        netns_name: None,
        no_results: Some(NoResults::NotSeen),
        cgroup: Placed::nowhere(CgroupUnknown::NotRead),
        user: None,
    }
}

/// That no hook saw, read by a dump.
pub(super) fn connect_read() -> ConnectData {
    ConnectData {
        attempt: Attempt {
            sighting: Sighting::Table {
                evidence: Evidence::Dump,
                state: TcpState::Established,
                owner: opened().owner,
                cgroup_id: Some(4242),
            },
            ..connect().attempt
        },
        ..connect()
    }
}

pub(super) fn connect_event(data: ConnectData) -> Event {
    Event {
        ts: ts(),
        seq: 982,
        eid: format!(
            "outbound|net.tcp_connect@outbound|connect@{}|0",
            data.attempt.remote
        ),
        sensor: Arc::from("outbound"),
        listener: Listener::TcpConnect,
        tag: Some(Arc::from("outbound")),
        data: Data::Connect(data),
    }
}

pub(super) fn degraded() -> Data {
    Data::Degraded(Degraded {
        source: "notices",
        missing: vec!["INET6_TCP_DESTROY", "INET6_UDP_DESTROY"],
        reason: "Operation not permitted (os error 1)".to_owned(),
        cost: "ends of IPv6 sockets are verified by dumps instead of notified".to_owned(),
    })
}

pub(super) fn restored() -> Data {
    Data::Restored(Restored {
        source: "notices",
        parts: vec!["INET_TCP_DESTROY", "INET6_TCP_DESTROY"],
    })
}

pub(super) fn socket_event(data: SocketData) -> Event {
    let action = data.action.map_or("open", |(action, _)| action.as_str());
    Event {
        ts: ts(),
        seq: 981,
        eid: format!(
            "sockets|net.socket@net-sockets|{action}@{}|0",
            data.id.remote
        ),
        sensor: Arc::from("sockets"),
        listener: Listener::NetSocket,
        tag: Some(Arc::from("net-sockets")),
        data: Data::Socket(data),
    }
}

pub(super) fn own_event(what: &str, data: Data) -> Event {
    Event {
        ts: ts(),
        seq: 983,
        eid: format!("sockwatch|self|{what}|0"),
        sensor: Arc::from("sockwatch"),
        listener: Listener::Own,
        tag: None,
        data,
    }
}

/// Every kind of record, by the name of its fixtures.
/// In another namespace, whose name is meant to do harm.
pub(super) fn elsewhere() -> SocketData {
    SocketData {
        action: Some((Action::Closed, Evidence::Verified)),
        netns: Netns(4_026_532_246),
        netns_name: Some("/run/netns/blue\x1b[2J\" \n".into()),
        ..udp()
    }
}

/// A connect() in another namespace.
pub(super) fn connect_elsewhere() -> ConnectData {
    let mut data = connect();
    data.attempt.netns = Some(Netns(4_026_532_246));
    data.netns_name = Some("/run/netns/blue".into());
    data
}

pub(super) fn events() -> [(&'static str, Event); 18] {
    [
        ("opened", socket_event(opened())),
        ("closed", socket_event(closed())),
        ("between-ticks", socket_event(between_ticks())),
        ("wiped", socket_event(wiped())),
        ("v4-mapped", socket_event(v4_mapped())),
        ("udp", socket_event(udp())),
        ("restart", socket_event(restart())),
        ("elsewhere", socket_event(elsewhere())),
        ("connect-elsewhere", connect_event(connect_elsewhere())),
        ("connect", connect_event(connect())),
        ("connect-mapped", connect_event(connect_mapped())),
        ("connect-seen", connect_event(connect_seen())),
        ("connect-read", connect_event(connect_read())),
        ("gap-ring", own_event("gap@ring", gap_ring())),
        ("gap-overrun", own_event("gap@overrun", gap_overrun())),
        ("gap-queue", own_event("gap@queue", gap_queue())),
        ("degraded", own_event("degraded@notices", degraded())),
        ("restored", own_event("restored@notices", restored())),
    ]
}
