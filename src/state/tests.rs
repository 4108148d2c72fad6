//! The format, the ledger and the directory.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::model::*;

const HERE: Head = Head {
    boot: 7,
    netns: 1,
    netns_cookie: Some(3),
};

fn socket(cookie: u64, in_view: u32) -> Socket {
    Socket {
        cookie: Cookie(cookie),
        kind: RowKind::Full,
        id: SockId::from_wire(
            Proto::Tcp,
            Family::V4,
            ("10.0.0.1".parse().unwrap(), 5),
            ("10.0.0.2".parse().unwrap(), 80),
            0,
        ),
        state: TcpState::Established,
        direction: None,
        process: None,
        owner: Owner::Known { uid: 1, inode: 2 },
        first_seen_ms: 9,
        in_view,
        name: None,
        no_name: None,
        nameless: 0,
    }
}

fn lock(eid: &str, fresh: bool) -> LockNote {
    let at = UNIX_EPOCH + Duration::from_micros(17);
    LockNote {
        eid: eid.to_string(),
        first: at,
        last: at + Duration::from_secs(1),
        muted: 4,
        fresh,
    }
}

fn any_socket() -> impl Strategy<Value = Record> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(std::net::IpAddr::from),
        any::<[u8; 16]>().prop_map(std::net::IpAddr::from),
        Just("::ffff:10.0.0.1".parse().unwrap()),
    ];
    let who = (any::<u64>(), any::<u32>(), any::<u32>(), any::<bool>());
    let what = (0_usize..11, 0_usize..6, any::<bool>(), "[a-z.]{0,9}");
    let way = (0_usize..5, any::<[u8; 16]>());
    (ip, any::<[u16; 2]>(), who, what, way).prop_map(|(ip, [local, remote], who, what, way)| {
        let (cookie, uid, ifindex, mini) = who;
        let (state, why, known, name) = what;
        let family = if ip.is_ipv4() { Family::V4 } else { Family::V6 };
        let mut socket = socket(cookie, uid);
        let (way, comm) = way;
        let proto = if way == 0 { Proto::Udp } else { Proto::Tcp };
        socket.id = SockId::from_wire(proto, family, (ip, local), (ip, remote), ifindex);
        socket.direction = [
            None,
            None,
            Some(Direction::Inbound),
            Some(Direction::Outbound),
            Some(Direction::Unknown),
        ][way];
        socket.process = (way == 3).then_some(Caller {
            pid: uid.max(1),
            tid: ifindex,
            comm: Comm(comm),
        });
        socket.kind = if mini { RowKind::Mini } else { RowKind::Full };
        socket.state = TcpState::ALL[state];
        socket.owner = if known {
            Owner::Known {
                uid,
                inode: ifindex,
            }
        } else {
            Owner::Unknown(OwnerUnknown::NoFile)
        };
        socket.name = Name::read(name.as_bytes());
        socket.no_name = [
            None,
            Some(HostUnknown::NotFound),
            Some(HostUnknown::Failed),
            Some(HostUnknown::TimedOut),
            Some(HostUnknown::Overload),
            Some(HostUnknown::Skipped),
        ][why];
        Record::Socket(socket)
    })
}

fn any_record() -> impl Strategy<Value = Record> {
    prop_oneof![
        any_socket(),
        (any::<u64>(), any::<u32>()).prop_map(|(cookie, sensors)| Record::Left {
            cookie: Cookie(cookie),
            kind: RowKind::Mini,
            sensors,
        }),
        ("\\PC{0,20}", any::<bool>()).prop_map(|(eid, fresh)| Record::Lock(lock(&eid, fresh))),
        "\\PC{0,20}".prop_map(Record::Unlocked),
        (any::<u64>(), any::<u64>()).prop_map(|(cookie, until_ms)| Record::Grave(Grave {
            cookie: Cookie(cookie),
            until_ms,
        })),
        (0_u8..32, any::<u64>(), any::<[u8; 4]>()).prop_map(|(number, view, bits)| {
            Record::Sensor(Sensor {
                number,
                id: format!("s{number}"),
                view,
                primed: Primed::from_bits(bits),
            })
        }),
        Just(Record::Settled),
        Just(Record::Complete),
        Just(Record::Ended),
    ]
}

/// A file of these records.
fn file(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::prefix(&mut bytes);
    let mut batch = journal::Batch::default();
    batch.push(&Record::Head(HERE));
    records.iter().for_each(|record| batch.push(record));
    batch.drain(&mut bytes);
    bytes
}

fn checked(bytes: &[u8]) -> Result<Summary, Unusable> {
    check(Frames::open(bytes).unwrap()?, &HERE).unwrap()
}

/// Which sockets are in whose view, and which openings are not sure.
#[derive(Debug, PartialEq, Default)]
struct InView {
    open: Vec<(u64, u32)>,
    unsure: Vec<(u64, u32)>,
}

fn in_view(bytes: &[u8]) -> InView {
    let open = std::cell::RefCell::new(std::collections::BTreeMap::new());
    let unsure = replay(
        Frames::open(bytes).unwrap().unwrap(),
        &mut |socket| *open.borrow_mut().entry(socket.cookie.0).or_insert(0) |= socket.in_view,
        &mut |cookie, _, sensors| {
            *open.borrow_mut().entry(cookie.0).or_insert(0) &= !sensors;
        },
    );
    let mut unsure: Vec<_> = unsure
        .unwrap()
        .into_iter()
        .map(|(cookie, _, mask)| (cookie.0, mask))
        .collect();
    unsure.sort_unstable();
    let open = open.into_inner().into_iter().filter(|(_, mask)| *mask != 0);
    InView {
        open: open.collect(),
        unsure,
    }
}

proptest! {
    #[test]
    fn a_record_is_read_as_it_was_written(records in prop::collection::vec(any_record(), 0..20)) {
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.encode(&mut bytes));
        let mut rest = &bytes[..];
        let read: Vec<_> = std::iter::from_fn(|| Record::decode(&mut rest)).collect();
        prop_assert_eq!(read, records);
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, sealed: bool) {
        let mut file = Vec::new();
        if sealed {
            frame::prefix(&mut file);
            frame::seal(&bytes, &mut file);
        } else {
            file = bytes;
        }
        if let Ok(Ok(frames)) = Frames::open(&file[..]) {
            prop_assert!(check(frames, &HERE).unwrap().is_err(), "there is no base in it");
        }
    }

    /// Whatever a file is cut to or has changed in it, it is refused, or was cut
    /// behind its base.
    #[test]
    fn damage_is_seen(records in prop::collection::vec(any_record(), 1..20), at: prop::sample::Index, flip in 1_u8..) {
        let mut records: Vec<_> = records.into_iter().filter(|one| *one != Record::Complete).collect();
        records.push(Record::Complete);
        let whole = file(&records);
        prop_assert!(checked(&whole).is_ok());
        let at = at.index(whole.len());
        prop_assert_eq!(checked(&whole[..at]), Err(Unusable::Truncated));
        let mut other = whole;
        other[at] ^= flip;
        prop_assert!(checked(&other).is_err());
    }
}

#[test]
fn who_called_is_told_of_connections_alone() {
    let caller = Caller {
        pid: 7,
        tid: 8,
        comm: Comm(*b"curl\0 no more   "),
    };
    let with = |change: fn(&mut Socket)| {
        let mut socket = socket(1, 1);
        (socket.direction, socket.process) = (Some(Direction::Outbound), Some(caller));
        change(&mut socket);
        checked(&file(&[Record::Socket(socket), Record::Complete])).err()
    };
    assert_eq!(with(|_| {}), None);
    let corrupt = Some(Unusable::Corrupt);
    assert_eq!(with(|socket| socket.id.proto = Proto::Udp), corrupt);
    let nobody = |socket: &mut Socket| {
        if let Some(caller) = &mut socket.process {
            caller.pid = 0;
        }
    };
    assert_eq!(with(nobody), corrupt);
    let no_way = |socket: &mut Socket| {
        (socket.id.proto, socket.process) = (Proto::Udp, None);
    };
    assert_eq!(with(no_way), corrupt);
}

#[test]
fn a_file_is_of_one_place_and_version() {
    let good = file(&[Record::Complete]);
    assert!(checked(&good).is_ok());
    let mut other = good.clone();
    other[8] += 1;
    assert_eq!(checked(&other), Err(Unusable::Version));
    let frames = || Frames::open(&good[..]).unwrap().unwrap();
    let boot = Head { boot: 8, ..HERE };
    assert_eq!(check(frames(), &boot).unwrap(), Err(Unusable::Boot));
    let reused = Head {
        netns_cookie: Some(4),
        ..HERE
    };
    assert_eq!(check(frames(), &reused).unwrap(), Err(Unusable::Namespace));
}

#[test]
fn a_torn_frame_behind_the_base_costs_that_frame_alone() {
    let mut bytes = file(&[Record::Socket(socket(1, 1)), Record::Complete]);
    let base = bytes.len();
    let mut journal = Journal::new();
    journal.opened(socket(2, 1));
    bytes.extend(journal.take());
    for end in base + 1..bytes.len() {
        let summary = checked(&bytes[..end]).unwrap();
        assert!(summary.torn && !summary.clean);
        assert_eq!(in_view(&bytes[..end]).open, [(1, 1)]);
    }
    assert!(!checked(&bytes).unwrap().torn);
    assert_eq!(in_view(&bytes).open, [(1, 1), (2, 1)]);
}

#[test]
fn what_was_not_sure_to_be_written_is_told_apart() {
    let mut bytes = file(&[Record::Complete]);
    let mut journal = Journal::new();
    journal.opened(socket(1, 1));
    journal.opened(socket(1, 2));
    bytes.extend(journal.take());
    assert_eq!(in_view(&bytes).unsure, [(1, 3)], "nothing was written yet");
    journal.settle();
    journal.left(socket(1, 1));
    journal.opened(socket(2, 1));
    bytes.extend(journal.take());
    assert_eq!(in_view(&bytes).unsure, [(1, 3), (2, 1)]);
    journal.settle();
    bytes.extend(journal.take());
    let expected = InView {
        open: vec![(1, 3), (2, 1)],
        unsure: vec![(2, 1)],
    };
    assert_eq!(in_view(&bytes), expected, "the end of 1 is not sure");
    journal.settle();
    assert!(!journal.is_urgent(), "that can wait");
    bytes.extend(journal.take());
    let expected = InView {
        open: vec![(1, 2), (2, 1)],
        unsure: vec![],
    };
    assert_eq!(in_view(&bytes), expected);
    assert!(!journal.is_unsettled());
}

#[test]
fn a_socket_that_came_back_has_not_left() {
    let mut bytes = file(&[Record::Socket(socket(1, 1)), Record::Complete]);
    let mut journal = Journal::new();
    journal.left(socket(1, 1));
    journal.opened(socket(1, 1));
    journal.settle();
    journal.settle();
    bytes.extend(journal.take());
    assert_eq!(in_view(&bytes).open, [(1, 1)]);
}

#[test]
fn locks_of_events_that_may_not_be_written_are_not_kept() {
    let locks = |bytes: &[u8]| {
        let mut eids: Vec<_> = checked(bytes)
            .unwrap()
            .locks
            .into_iter()
            .map(|one| one.eid)
            .collect();
        eids.sort_unstable();
        eids
    };
    let mut bytes = file(&[
        Record::Lock(lock("old", false)),
        Record::Lock(lock("released", false)),
        Record::Complete,
    ]);
    let mut journal = Journal::new();
    journal.note(&Record::Unlocked("released".into()));
    journal.locked("new", UNIX_EPOCH);
    bytes.extend(journal.take());
    assert_eq!(locks(&bytes), ["old"]);
    journal.note(&Record::Lock(lock("new", false)));
    journal.settle();
    bytes.extend(journal.take());
    assert_eq!(locks(&bytes), ["old"], "it muted, but was not told");
    journal.settle();
    bytes.extend(journal.take());
    assert_eq!(locks(&bytes), ["new", "old"]);
}

/// A directory that is gone when this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sockwatch-state-{}-{number}", std::process::id());
        Scratch(std::env::temp_dir().join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[test]
fn a_directory_belongs_to_one_and_keeps_one_file_of_each_mistake() {
    let dir = Scratch::new();
    let (mut store, found) = Store::open(&dir.0, HERE).unwrap();
    assert!(matches!(found, Found::Nothing));
    assert!(matches!(
        Store::open(&dir.0, HERE),
        Err(OpenError::Taken(_))
    ));
    let mut base = store.begin().unwrap();
    base.push(&Record::Complete).unwrap();
    store.replace(base, true).unwrap();
    let mut journal = Journal::new();
    journal.opened(socket(5, 1));
    store.append(&journal.take()).unwrap();
    drop(store);
    let (store, found) = Store::open(&dir.0, HERE).unwrap();
    assert!(matches!(found, Found::State(Summary { clean: false, .. })));
    let mut seen = Vec::new();
    replay(
        store.found().unwrap(),
        &mut |one| seen.push(one.cookie.0),
        &mut |_, _, _| {},
    )
    .unwrap();
    assert_eq!(seen, [5]);
    drop(store);
    for _ in 0..2 {
        std::fs::write(dir.0.join("state"), b"sock").unwrap();
        let (_, found) = Store::open(&dir.0, HERE).unwrap();
        let Found::Aside(Unusable::Truncated, path) = found else {
            panic!("{found:?}");
        };
        assert!(path.ends_with("state.truncated") && path.exists());
    }
    let mut names: Vec<_> = std::fs::read_dir(&dir.0)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["lock", "state.truncated"]);
}

#[test]
fn a_directory_that_cannot_be_had_is_named() {
    let dir = Scratch::new();
    let error = Store::open(&dir.0.join("deeper"), HERE).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("make the state directory") && text.contains("deeper"),
        "{text}"
    );
}
